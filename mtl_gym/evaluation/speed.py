"""How fast this machine trains: every environment beside the loop that people write by hand, and a product of matrices."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mtl_gym.checks import number, positive_int, sequence, several, should
from mtl_gym.context import own_mode
from mtl_gym.environments import SCRIPTED, find_environments
from mtl_gym.evaluation.equal_weights import Played
from mtl_gym.evaluation.kernels import running_kernels
from mtl_gym.evaluation.timing import SECONDS, Times, Work, interleaved, piece, quartiles
from mtl_gym.problems import load_problem
from mtl_gym.problems.base import Problem
from mtl_gym.progress import progress_bar

ROUNDS = 7
"""Rounds that are measured, if there is time."""
OPTIMIZERS = {"adam": False, "fused_adam": True}
"""Those of the loops by hand, and whether it is torch's fused one."""
_PEAK = "matrices"
_WIDTHS = {"cpu": 1024, "cuda": 8192}
"""Of the matrices that are multiplied."""


@own_mode()
def bench(
    *,
    env: Sequence[str] | None = None,
    problem: str | Problem | None = None,
    num_envs: Sequence[int] = (1, 16),
    device: str = "cpu",
    seconds: float = SECONDS,
    progress: bool | None = None,
) -> dict[str, Any]:
    """Measures training steps per second, with torch's current number of threads.

    Environments are played with equal weights (actions of 0, or the first valid one), their default observations and their default
    rewards (none where these need references), in trainings of 20 decisions. The loops by hand take the same steps, one network
    after another. All are measured in interleaved rounds.

    Args:
        env: Ids; ``None``: all environments, those of other packages too.
        problem: As for :func:`mtl_gym.check`; ``None``: the default of each environment.
        num_envs: Numbers of trainings side by side.
        device: Where it is measured.
        seconds: How long; building the environments, and the first decision of each, come on top. Where a decision takes seconds
            (convolutions), a single round may take longer.
        progress: Whether to show progress; ``None``: if it takes more than a second.

    Returns:
        JSON-plain. A measured number is a mapping of ``median``, ``lower`` and ``upper`` quartile over the rounds.

        ``machine``: ``cpu`` (its name), ``cores``, and the ``kernels`` of this process. ``peak``: the ``size`` of float32 matrices,
        and the ``gflops`` of their product, 10^9 operations per second. ``rounds``: how many were measured.

        ``environments``: for each environment and number of trainings its ``env``, ``problem``, ``num_envs``, and

        - ``steps_per_second``: training steps of single networks;
        - ``forward``, ``backward``: passes per step, in training batches, that the environment counts, those of signals included;
        - ``flops``: operations of a training step of one network, without optimiser and signals, as torch counts them; ``gflops``:
          the same per second; ``peak_share``: as a fraction of the peak in the same round;
        - ``speed_relative_to``: ``adam`` and ``fused_adam``, how many times faster than the loop by hand; ``None`` if there is
          none, and ``no_loop`` says why.

        ``loops``: the loops by hand, with ``network``, ``problem``, ``optimizer``, and the first and third of these points.
        ``left_out`` by id: why an environment could not be measured.

    Raises:
        ValueError, TypeError: If an argument is wrong, or no environment can be measured.

    Example:
        >>> from mtl_gym.evaluation.speed import bench
        >>> found = bench(env=["mtl_gym/LossWeighting-v0"], num_envs=[2], seconds=0.1, progress=False)
        >>> [(row["num_envs"], row["flops"] > 0) for row in found["environments"]]
        [(2, True)]
    """
    known = find_environments()
    ids = tuple(known) if env is None else several("env", env, SCRIPTED | known, noun="environment")
    counts = [positive_int("num_envs", count) for count in sequence("num_envs", num_envs)]
    if not counts or len({*counts}) < len(counts):
        raise ValueError(should("num_envs", "have at least one number, each once", num_envs))
    budget = number("seconds", seconds, low=0.0, ends="(]")
    loaded = None if problem is None else load_problem(problem)
    plays, left_out = _all_played(ids, counts, loaded, device)
    if not plays:
        raise ValueError("; ".join(dict.fromkeys(left_out.values())))
    loops = {own.loop: own for own in plays if own.no_loop is None}
    size = _WIDTHS["cpu" if torch.device(device).type == "cpu" else "cuda"]
    works: dict[Any, Work] = {_PEAK: _product(size, device)}
    works |= {(key, name): own.by_hand(fused) for key, own in loops.items() for name, fused in OPTIMIZERS.items()}
    for work in works.values():
        work()  # the first one takes longer; those of the environments have been taken
    works |= {own: own.work for own in plays}
    times = _measured(works, budget, device, progress)
    peak = 2 * size**3 / times[_PEAK]
    return {
        "machine": {"cpu": cpu_name(), "cores": os.cpu_count(), "kernels": running_kernels(device)},
        "peak": {"size": size, "gflops": _spread(peak / 1e9)},
        "rounds": len(times[_PEAK]),
        "environments": [_row(own, times, peak) for own in plays],
        "loops": [_loop_row(own, name, times, peak) for own in loops.values() for name in OPTIMIZERS],
        "left_out": left_out,
    }


def cpu_name() -> str:
    """The name of this machine's processor."""
    table = Path("/proc/cpuinfo")
    lines = table.read_text().splitlines() if table.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _all_played(
    ids: Sequence[str], counts: Sequence[int], problem: Problem | None, device: str
) -> tuple[list[Played], dict[str, str]]:
    """The environments, and by id why others cannot be measured."""
    plays: list[Played] = []
    left_out: dict[str, str] = {}
    for id in ids:
        try:
            with progress_bar(1, show=False):
                plays += _played(id, counts, problem, device)
        except (ValueError, TypeError) as error:
            left_out[id] = str(error)
        except Exception as error:  # another package's environment may raise anything
            left_out[id] = f"it cannot be played: {type(error).__name__}: {error}"
    return plays, left_out


def _played(id: str, counts: Sequence[int], problem: Problem | None, device: str) -> list[Played]:
    """An environment for each number of trainings, after its first step."""
    found = [Played(id, count, problem, device) for count in counts]
    for own in found:
        own.work()
    return found


def _product(size: int, device: str) -> Work:
    left = torch.ones(size, size, device=device)
    right, result = torch.ones_like(left), torch.empty_like(left)

    def work() -> int:
        torch.matmul(left, right, out=result)
        return 1

    return work


def _measured(works: dict[Any, Work], seconds: float, device: str, progress: bool | None) -> dict[Any, Times]:
    """Seconds of a step of each kind of work, after its first one."""
    own = torch.device(device)
    wait: Callable[[], object] = (lambda: None) if own.type == "cpu" else partial(torch.cuda.synchronize, own)
    length = seconds / (ROUNDS * len(works))
    with progress_bar(ROUNDS * len(works), "speeds", show=progress) as update:

        def measured(work: Work) -> float:
            with progress_bar(1, show=False):  # bars of what is measured would take time
                found = piece(work, length, wait)
            update(advance=1)
            return found

        pieces = {key: partial(measured, work) for key, work in works.items()}
        return interleaved(pieces, ROUNDS, seconds, warm_up=0)


def _row(own: Played, times: dict[Any, Times], peak: Times) -> dict[str, Any]:
    """What was measured of an environment; see :func:`bench`."""
    seconds, loop = times[own], own.no_loop is None
    forward, backward = own.passes
    return {
        "env": own.id,
        "problem": own.problem.name,
        "num_envs": own.num_envs,
        **_rates(seconds, own.flops, peak),
        "forward": forward,
        "backward": backward,
        "speed_relative_to": {name: _spread(times[own.loop, name] / seconds) for name in OPTIMIZERS} if loop else None,
        "no_loop": own.no_loop,
    }


def _loop_row(own: Played, name: str, times: dict[Any, Times], peak: Times) -> dict[str, Any]:
    """What was measured of a loop by hand."""
    network = str(own.spec.by_hand).partition(":")[2]
    rates = _rates(times[own.loop, name], own.flops, peak)
    return {"network": network, "problem": own.problem.name, "optimizer": name, **rates}


def _rates(seconds: Times, flops: float, peak: Times) -> dict[str, Any]:
    """Steps per second, and operations per second, also as a fraction of the peak of the same round."""
    reached = flops / seconds
    return {
        "steps_per_second": _spread(1 / seconds),
        "flops": flops,
        "gflops": _spread(reached / 1e9),
        "peak_share": _spread(reached / peak),
    }


def _spread(values: Times) -> dict[str, float]:
    low, middle, high = quartiles(values)
    return {"median": middle, "lower": low, "upper": high}

"""What a step of SLGrad costs, relative to a plain training step and to a loop over B K backward passes, measured in one run.

One thread, digits_scales, batch 64, four tasks. *Plain* is the trainer's step with equal task weights; *SLGrad* the trainer's step
with SLGrad's weights; *decision* the same through environment and policy, with observations and infos but without a reward.
Medians and quartiles of the ratios of interleaved rounds. Writes ``benchmarks/results/sample_speed.json``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.measuring import Run, Work, command_line, first_memory, ratio, side_by_side, threads, vector_env
from mtl_gym.environments import SAMPLE_WEIGHTING, specification
from mtl_gym.envs.arguments import check_arguments
from mtl_gym.policies.grammar import make_policy
from mtl_gym.training import alignments
from mtl_gym.training.alignments import align
from mtl_gym.training.trainer import Trainer

TASKS = ["digit", "parity", "loop", "ink"]
ARGUMENTS: dict[str, Any] = {"problem": "digits_scales", "tasks": TASKS, "distribution": {"noise": [0.4, 0.4]}, "holdout_size": 128}
ROUNDS, SECONDS = 15, 0.15
LOOP = "loop over B K backward passes"


def main(words: Sequence[str] | None = None) -> None:
    """Measures, prints and stores the results."""
    run: Run = command_line(words)
    result: dict[str, Any] = {}
    steps = run.size(20_000, 40)
    with threads(1):
        for num_replicas in (1, 16, 64)[: run.size(3)]:
            works = {
                "plain": plain(num_replicas, steps),
                "SLGrad": slgrad(num_replicas, steps),
                "decision": decision(num_replicas, steps),
                **({LOOP: loop(steps)} if num_replicas == 1 else {}),
            }
            times = side_by_side(works, rounds=run.size(ROUNDS), seconds=0 if run.smoke else SECONDS)
            first = times["plain"]
            rows = {name: {"ms": round(1000 * float(own.min()), 2), **ratio(own, first, 2)} for name, own in times.items()}
            result[f"N = {num_replicas}"] = rows
            if LOOP in times:
                result[f"N = {num_replicas}"]["loop over SLGrad"] = ratio(times[LOOP], times["SLGrad"], 1)["ratio"]
    run.write(result)
    print(json.dumps(result, indent=1))


def made(num_replicas: int, train_steps: int, *, by_samples: bool) -> tuple[Trainer, torch.Tensor]:
    """Trainings in progress, and the mask of active rows: all."""
    checked = check_arguments(specification(SAMPLE_WEIGHTING), train_steps=train_steps, **ARGUMENTS)
    trainer = Trainer(checked.problem, checked.recipe, num_replicas, by_samples=by_samples)
    trainer.begin(range(num_replicas), range(num_replicas))
    return trainer, torch.ones(num_replicas, dtype=torch.bool)


def plain(num_replicas: int, train_steps: int) -> Work:
    """A training step with equal task weights, without any signal."""
    trainer, active = made(num_replicas, train_steps, by_samples=False)
    weights = torch.ones(num_replicas, len(TASKS))
    return lambda: trainer.update(weights, active)


def slgrad(num_replicas: int, train_steps: int) -> Work:
    """A training step with SLGrad's weights: held-out gradient, forward mode, update."""
    trainer, active = made(num_replicas, train_steps, by_samples=True)

    def step() -> None:
        weights = align(trainer).products.clamp(min=0)
        trainer.update_samples(weights / weights.mean((1, 2), keepdim=True).clamp(min=1e-30), active)

    return step


def decision(num_replicas: int, train_steps: int) -> Work:
    """A decision of the policy ``slgrad`` in the environment."""
    policy = make_policy("slgrad")
    env = vector_env(SAMPLE_WEIGHTING, num_replicas, policy, train_steps=train_steps, **ARGUMENTS)
    known: list[Any] = [
        env.reset(options={"instance": np.arange(num_replicas)})[0],
        first_memory(policy, range(num_replicas), len(TASKS)),
    ]

    def step() -> None:
        actions, known[1] = policy.predict(known[0], known[1])
        known[0] = env.step(actions)[0]

    return step


def loop(train_steps: int) -> Work:
    """The same for one training, with a backward pass for every sample and task."""
    trainer, active = made(1, train_steps, by_samples=True)

    def step() -> None:
        direction = [*alignments._direction(trainer)[0].values()]
        losses, shared = trainer.losses.sample_graph(), trainer.replicas.shared()
        weights = torch.zeros_like(losses)
        for sample in range(losses.shape[1]):
            for task in range(losses.shape[2]):
                parts = torch.autograd.grad(losses[0, sample, task], shared, retain_graph=True)
                weights[0, sample, task] = sum((part * own).sum() for part, own in zip(parts, direction, strict=False)).clamp(min=0)
        trainer.update_samples(weights / weights.mean().clamp(min=1e-30), active)

    return step


if __name__ == "__main__":
    main()

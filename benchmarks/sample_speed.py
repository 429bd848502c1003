"""What a step of SLGrad costs beside a plain training step, and beside the loop over B K backward passes; in one run.

One thread, digits, batch 64, four tasks. *Plain* is the learner's step with equal weights of tasks; *SLGrad* the learner's step
with SLGrad's weights; *decision* the same through environment and policy, observations and infos included, without a reward.
Ratios of the best of interleaved rounds, and the quartiles of the rounds' ratios. Writes ``benchmarks/results/sample_speed.json``.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch

from mtl_gym.envs.arguments import check_arguments
from mtl_gym.evaluation.rollout import make_env
from mtl_gym.policies import make_policy
from mtl_gym.problems import SAMPLE_WEIGHTING
from mtl_gym.training.learner import Learner
from mtl_gym.training.sample_learner import ALIGNMENT, SampleLearner

OUT = Path(__file__).parent / "results" / "sample_speed.json"
TASKS = ["digit", "parity", "loop", "ink"]
NOISE = {"noise": [0.4, 0.4]}
ROUNDS, SECONDS = 15, 0.15
HOLDOUT = 128


def main() -> None:
    """Measures, prints and keeps."""
    torch.set_num_threads(1)
    result: dict[str, Any] = {}
    for num_replicas in (1, 16, 64):
        steps = {"plain": plain(num_replicas), "SLGrad": slgrad(num_replicas), "decision": decision(num_replicas)}
        if num_replicas == 1:
            steps["loop over B K backward passes"] = loop()
        result[f"N = {num_replicas}"] = side_by_side(steps)
    single = result["N = 1"]
    times = single["loop over B K backward passes"]["ratio"] / single["SLGrad"]["ratio"]
    single["loop over SLGrad"] = round(times, 1)
    OUT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def side_by_side(steps: dict[str, Callable[[], None]]) -> dict[str, Any]:
    """Milliseconds of each kind of step, and its ratio to the first one's, in interleaved rounds."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
    for _ in range(ROUNDS):
        for name, step in steps.items():
            begun, count = time.perf_counter(), 0
            while time.perf_counter() - begun < SECONDS:
                step()
                count += 1
            times[name].append(1000 * (time.perf_counter() - begun) / count)
    first = np.array(next(iter(times.values())))
    rows = {}
    for name, own in times.items():
        ratios = np.array(own) / first
        low, high = np.quantile(ratios, [0.25, 0.75])
        best = min(own) / first.min()
        rows[name] = {"ms": min(own), "ratio": best, "lower quartile": low, "upper quartile": high}
    return {name: {key: round(float(value), 2) for key, value in row.items()} for name, row in rows.items()}


def _made(learner: type[Learner], num_replicas: int) -> Any:
    arguments = {"tasks": TASKS, "distribution": NOISE, "train_steps": 20_000, "holdout_size": HOLDOUT}
    checked = check_arguments(SAMPLE_WEIGHTING, problem="digits", **arguments)
    made = learner(checked.problem, checked.recipe, num_replicas)
    made.begin(range(num_replicas), range(num_replicas))
    return made


def plain(num_replicas: int) -> Callable[[], None]:
    """A training step with equal weights of tasks, without any signal."""
    learner, active = _made(Learner, num_replicas), torch.ones(num_replicas, dtype=torch.bool)
    weights = torch.ones(num_replicas, len(TASKS))
    return lambda: learner.update(weights, active)


def slgrad(num_replicas: int) -> Callable[[], None]:
    """A training step with SLGrad's weights: held-out gradient, forward mode, update."""
    learner, active = _made(SampleLearner, num_replicas), torch.ones(num_replicas, dtype=torch.bool)

    def step() -> None:
        weights = learner.probe([ALIGNMENT], active)[ALIGNMENT].clamp(min=0)
        learner.update_samples(weights / weights.mean((1, 2), keepdim=True).clamp(min=1e-30), active)

    return step


def decision(num_replicas: int) -> Callable[[], None]:
    """A decision of the policy ``slgrad`` in the environment."""
    policy, arguments = (
        make_policy("slgrad"),
        {"tasks": TASKS, "distribution": NOISE, "train_steps": 20_000, "holdout_size": HOLDOUT},
    )
    env = make_env(policy, SAMPLE_WEIGHTING, num_replicas, {"problem": "digits", **arguments})
    known: list[Any] = [env.reset(options={"instance": np.arange(num_replicas)})[0], None]

    def step() -> None:
        actions, known[1] = policy.predict(known[0], known[1])
        known[0] = env.step(actions)[0]

    return step


def loop() -> Callable[[], None]:
    """The same for one training, with a backward pass for every sample and task."""
    learner, active = _made(SampleLearner, 1), torch.ones(1, dtype=torch.bool)

    def step() -> None:
        direction, _ = learner._direction(active)
        losses = learner._losses_now()
        shared = learner._parameters[: learner.network.shared]
        weights = torch.zeros_like(losses)
        for sample in range(losses.shape[1]):
            for task in range(losses.shape[2]):
                parts = torch.autograd.grad(losses[0, sample, task], shared, retain_graph=True)
                weights[0, sample, task] = sum((part * own).sum() for part, own in zip(parts, direction, strict=False)).clamp(min=0)
        learner.update_samples(weights / weights.mean().clamp(min=1e-30), active)

    return step


if __name__ == "__main__":
    main()

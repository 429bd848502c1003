"""How much the features of ``action="rule"`` differ between the tasks of a training, from which their reach was chosen.

    python -m benchmarks.feature_spreads            five problems of different kinds
    python -m benchmarks.feature_spreads yeast      one of them

Plays equal weights with about fifteen decisions on training instances of ``varied``, and prints, for each feature, the standard
deviation over tasks: the median, and the 90th percentile, over instances and decisions after the first. Writes
``benchmarks/results/feature_spreads.json``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.measuring import Run, command_line, vector_env
from mtl_gym.decisions.task_features import TASK_FEATURES
from mtl_gym.environments import LOSS_WEIGHTING
from mtl_gym.problems.instances import TRAINING_IDS

PROBLEMS = ("digits", "yeast", "river_flow", "census", "relations")
DECISIONS, INSTANCES = 15, 16


def spreads(problem: str, count: int, **arguments: Any) -> dict[str, list[float]]:
    """The standard deviations over tasks of each feature, of all instances and decisions after the first."""
    given = {"problem": problem, "distribution": "varied", "decisions": DECISIONS, "reward": "none", **arguments}
    envs = vector_env(
        LOSS_WEIGHTING, count, autoreset_mode="Disabled", action="rule", features=list(TASK_FEATURES), observe=["log_loss"], **given
    )
    envs.reset(options={"instance": np.arange(TRAINING_IDS[0], TRAINING_IDS[0] + count)})
    found: dict[str, list[float]] = {name: [] for name in TASK_FEATURES}
    while not envs.finished.all():
        envs.step(np.zeros(envs.action_space.shape, dtype=np.float32))
        view = envs.view
        for name, row in TASK_FEATURES.items():
            values = row.function(view["upcoming"], view.losses.initial) if row.of_batch else row.function(view)
            found[name] += values.double().std(1, correction=0).tolist()
    return found


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """Median and 90th percentile of those that are finite."""
    known = np.asarray(values)[np.isfinite(values)]
    return {name: round(float(np.quantile(known, part)), 3) for name, part in {"median": 0.5, "90 %": 0.9}.items()}


def main(words: Sequence[str] | None = None) -> None:
    """Measures all problems, and all of them together."""
    run: Run = command_line(words)
    results, short = run.known(), {"train_steps": 30, "decisions": 5} if run.smoke else {}
    together: dict[str, list[float]] = {name: [] for name in TASK_FEATURES}
    for problem in run.names or PROBLEMS[: 1 if run.smoke else None]:
        found = spreads(problem, run.size(INSTANCES, 2), **short)
        results[problem] = {name: quantiles(own) for name, own in found.items()}
        together = {name: [*own, *found[name]] for name, own in together.items()}
        print(problem, json.dumps(results[problem]), flush=True)
    if not run.names:
        results["together"] = {name: quantiles(own) for name, own in together.items()}
        print("together", json.dumps(results["together"]), flush=True)
    run.write(results)


if __name__ == "__main__":
    main()

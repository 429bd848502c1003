"""Every method that weighs tasks at its own learning rate: the best of three, chosen on the *reward* split of training instances.

    python benchmarks/methods.py               first: all methods at the same rate
    python benchmarks/rates.py                 the problems of dense layers (three hours on one core)
    python benchmarks/rates.py digits          one of them

A third, one and three times the problem's default rate, on 8 training instances; then the best one on the instances of
``benchmarks/methods.py``. delta_m is relative to single-task learning at the default rate throughout. Writes
``benchmarks/results/rates.json`` problem by problem; ``docs/generate.py`` makes a table of ``docs/methods.md`` of it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from benchmarks.methods import CONSTANT, INSTANCES, policies
from mtl_gym.envs.arguments import Arguments, check_arguments
from mtl_gym.evaluation.rollout import initial_memory, make_env
from mtl_gym.evaluation.single_task import reference_metrics
from mtl_gym.evaluation.statistics import bootstrap_interval, interquartile_mean, paired_difference
from mtl_gym.policies import make_policy
from mtl_gym.problems import LOSS_WEIGHTING
from mtl_gym.problems.instances import TRAINING_IDS
from mtl_gym.problems.metrics import delta_m
from mtl_gym.training.references import average_references

OUT = Path(__file__).parent / "results" / "rates.json"
PROBLEMS = ("digits", "census", "river_flow", "yeast")
FACTORS = (1 / 3, 1.0, 3.0)
CHOOSERS = 8
Scores = np.ndarray[Any, Any]


def play(name: str, checked: Arguments, ids: Sequence[int], factor: float, split: str) -> list[dict[str, float]]:
    """Metrics of each instance on a split at the end of training with that multiple of the default rate."""
    policy, problem = make_policy(name), checked.problem
    arguments = {"problem": problem.name, "lr": factor * checked.recipe.lr}
    envs: Any = make_env(policy, LOSS_WEIGHTING, len(ids), arguments)
    observations, _ = envs.reset(options={"instance": np.asarray(ids)})
    memory = initial_memory(policy, ids, checked.recipe.num_tasks)
    while not envs.unwrapped.finished.all():
        actions, memory = policy.predict(observations, memory, deterministic=True)
        low, high = envs.unwrapped.action_space.low, envs.unwrapped.action_space.high
        observations, *_ = envs.step(np.clip(actions, low, high))
    values = envs.unwrapped.learner.metrics(split)
    return [{metric: float(own[row]) for metric, own in values.items()} for row in range(len(ids))]


def chosen_factor(name: str, checked: Arguments) -> float:
    """The factor with the highest mean delta_m on *reward*."""
    ids = list(range(TRAINING_IDS[0], TRAINING_IDS[0] + CHOOSERS))
    references = average_references(checked.problem, checked.recipe)

    def score(factor: float) -> float:
        return float(np.mean([delta_m(own, references) for own in play(name, checked, ids, factor, "reward")]))

    return max(FACTORS, key=score)


def study(problem: str) -> dict[str, Any]:
    """The factor of every method, and its scores with it."""
    checked, ids = check_arguments(LOSS_WEIGHTING, problem=problem), list(range(INSTANCES))
    references = reference_metrics(checked, ids)
    factors, scores = {}, {}
    for label, name in policies(problem).items():
        factors[label] = chosen_factor(name, checked)
        played = play(name, checked, ids, factors[label], "test")
        scores[label] = np.array([delta_m(own, references[id]) for own, id in zip(played, ids, strict=True)])
        print(problem, label, f"{factors[label]:.2f}", f"{scores[label].mean():.2f}", flush=True)
    return {
        "instances": INSTANCES,
        "policies": {label: {"factor": round(factors[label], 2), **_row(label, scores)} for label in scores},
    }


def _row(label: str, scores: dict[str, Scores]) -> dict[str, Any]:
    own = scores[label]
    low, high = bootstrap_interval(own, interquartile_mean)
    over = {other: paired_difference(own, scores[other]) for other in ("ew", CONSTANT) if other in scores and other != label}
    score = {"iqm": float(interquartile_mean(own)), "low": low, "high": high, "mean": float(own.mean())}
    return {"delta_m": _rounded(score), "over": {other: _rounded(row) for other, row in over.items()}}


def _rounded(row: dict[str, float | None]) -> dict[str, float | None]:
    return {name: None if value is None else round(value, 2) for name, value in row.items()}


def main(names: Sequence[str]) -> None:
    """Studies each problem, and adds it to the results."""
    for name in names or PROBLEMS:
        own = study(name)
        known = json.loads(OUT.read_text()) if OUT.is_file() else {}
        known[name] = own
        OUT.write_text(json.dumps({problem: known[problem] for problem in PROBLEMS if problem in known}, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])

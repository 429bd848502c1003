"""Compares every method that weights tasks at its own learning rate: the best of three, chosen on the *reward* split of training
instances.

    python -m benchmarks.methods               first: all methods at the same rate
    python -m benchmarks.rates                 the problems with dense layers (three hours on one core)
    python -m benchmarks.rates digits          one of them

Tries a third, one and three times the problem's default rate on 8 training instances, then runs the best one on the instances of
``benchmarks/methods.py``. delta_m is relative to single-task learning at the default rate throughout. Writes
``benchmarks/results/rates.json`` problem by problem, from which ``docs/generate.py`` makes a table of ``docs/methods.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.measuring import Run, command_line, first_memory, vector_env
from benchmarks.methods import CONSTANT, INSTANCES, policies
from mtl_gym.environments import LOSS_WEIGHTING, specification
from mtl_gym.envs.arguments import Arguments, check_arguments
from mtl_gym.evaluation.single_task import reference_metrics
from mtl_gym.evaluation.statistics import bootstrap_interval, interquartile_mean, paired_difference
from mtl_gym.policies.grammar import make_policy
from mtl_gym.problems.instances import TRAINING_IDS
from mtl_gym.problems.scores import delta_m
from mtl_gym.training.references import average_references

PROBLEMS = ("digits", "census", "river_flow", "yeast")
FACTORS = (1 / 3, 1.0, 3.0)
CHOOSERS = 8
Scores = np.ndarray[Any, Any]


def play(name: str, checked: Arguments, ids: Sequence[int], factor: float, split: str) -> list[dict[str, float]]:
    """Metrics of each instance on a split, after training with that multiple of the default rate."""
    policy, problem = make_policy(name), checked.problem
    arguments = {"problem": problem, "lr": factor * checked.recipe.lr, "train_steps": checked.recipe.train_steps}
    envs = vector_env(LOSS_WEIGHTING, len(ids), policy, autoreset_mode="Disabled", **arguments)
    observations, _ = envs.reset(options={"instance": np.asarray(ids)})
    memory = first_memory(policy, ids, checked.recipe.num_tasks)
    while not envs.finished.all():
        actions, memory = policy.predict(observations, memory, deterministic=True)
        observations, *_ = envs.step(np.clip(actions, envs.action_space.low, envs.action_space.high))
    values = envs.decision.trainings.metrics(split)
    return [{metric: float(own[row]) for metric, own in values.items()} for row in range(len(ids))]


def chosen_factor(name: str, checked: Arguments, run: Run) -> float:
    """The factor with the highest mean delta_m on *reward*."""
    ids = list(range(TRAINING_IDS[0], TRAINING_IDS[0] + run.size(CHOOSERS)))
    references = average_references(checked.problem, checked.recipe)

    def score(factor: float) -> float:
        return float(np.mean([delta_m(own, references) for own in play(name, checked, ids, factor, "reward")]))

    return max(FACTORS[-2:] if run.smoke else FACTORS, key=score)


def study(problem: str, run: Run) -> dict[str, Any]:
    """The best factor of every method, and its scores with it."""
    checked = check_arguments(specification(LOSS_WEIGHTING), problem=problem, **({"train_steps": 40} if run.smoke else {}))
    ids = list(range(run.size(INSTANCES, 2)))
    references = reference_metrics(checked, ids)
    factors, scores = {}, {}
    for label, name in policies(problem, run.smoke).items():
        factors[label] = chosen_factor(name, checked, run)
        played = play(name, checked, ids, factors[label], "test")
        scores[label] = np.array([delta_m(own, references[id]) for own, id in zip(played, ids, strict=True)])
        print(problem, label, f"{factors[label]:.2f}", f"{scores[label].mean():.2f}", flush=True)
    return {
        "instances": len(ids),
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


def main(words: Sequence[str] | None = None) -> None:
    """Studies each problem and adds it to the results."""
    run: Run = command_line(words)
    for name in run.chosen(PROBLEMS):
        known = run.known() | {name: study(name, run)}
        run.write({problem: known[problem] for problem in PROBLEMS if problem in known})


if __name__ == "__main__":
    main()

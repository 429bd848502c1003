"""Searches for constant weights on the *reward* split of training instances: the bar that hand-tuning sets for each problem.

    python -m benchmarks.constant_weights                  every problem and case that has not been searched yet
    python -m benchmarks.constant_weights digits census    these, again

48 weightings (equal weights, and 47 that are log-uniform between 1 and 32, rounded to powers of two) on 8 training instances; fewer
where the networks are convolutional. Each instance draws its own split where the problem has a pool. Writes
``benchmarks/results/constant_weights.json`` case by case, with the number of trainings that the search took. The demo's
``constant`` is the best one for ``digits``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.measuring import Run, case_arguments, cases, command_line
from mtl_gym.environments import LOSS_WEIGHTING, specification
from mtl_gym.envs.arguments import Arguments, check_arguments
from mtl_gym.problems.instances import TRAINING_IDS
from mtl_gym.problems.scores import delta_m
from mtl_gym.training.references import average_references, train
from mtl_gym.training.trainer import Trainer

WEIGHTINGS, INSTANCES = 48, 8
SLOW = {"multimnist": (24, 4), "stereo": (16, 2)}
KEPT = 10
VANISHING = ("quadratic",)
"""Single-task learning reaches an error of nearly 0 here, so all gains over it are -100 %; gains are over equal weights instead."""


def trained(checked: Arguments, ids: Sequence[int], weights: npt.NDArray[np.float64]) -> dict[str, torch.Tensor]:
    """Metrics (R,) on *reward* after training these instances (R,) with these constant weights (R, K)."""
    trainer = Trainer(checked.problem, checked.recipe, len(ids))
    trainer.begin(range(len(ids)), ids)
    train(trainer, torch.from_numpy(weights).float())
    return trainer.metrics("reward")


def search(case: str, weightings: int, instances: int, **arguments: Any) -> dict[str, Any]:
    """Trains every weighting on every instance, side by side; returns the budget, and the best with their delta_m on *reward*."""
    checked = check_arguments(specification(LOSS_WEIGHTING), **case_arguments(case), **arguments)
    count = weightings * instances
    table = 2.0 ** np.random.default_rng(0).integers(0, 6, (weightings, checked.recipe.num_tasks))
    table[0] = 1  # equal weights, where every search starts
    ids = range(TRAINING_IDS[0], TRAINING_IDS[0] + instances)
    metrics = trained(checked, list(ids) * weightings, np.repeat(table, instances, axis=0))
    references = average_references(checked.problem, checked.recipe)
    if case in VANISHING:
        equal = trained(checked, list(ids), np.ones((instances, checked.recipe.num_tasks)))
        references = {name: float(values.mean()) for name, values in equal.items()}
    gains = [delta_m({name: float(values[row]) for name, values in metrics.items()}, references) for row in range(count)]
    means = np.reshape(gains, (weightings, instances)).mean(1)
    ranked = [{"w": table[row].astype(int).tolist(), "delta_m": round(float(means[row]), 2)} for row in np.argsort(-means)]
    searched = {"problem": checked.problem.identity, "distribution": searched_in(case)}
    return {**searched, "trainings": count, "weightings": weightings, "instances": instances, "best first": ranked[:KEPT]}


def searched_in(case: str) -> dict[str, Any]:
    """The distribution of a case, as JSON shows it."""
    return {axis: [*bounds] for axis, bounds in case_arguments(case)["distribution"].items()}


def main(words: Sequence[str] | None = None) -> None:
    """Searches each case and adds it to the results."""
    run: Run = command_line(words)
    known, short = run.known(), {"train_steps": 20} if run.smoke else {}
    for name in [name for name in cases(run) if run.names or name not in known]:
        size = (3, 2) if run.smoke else SLOW.get(name, (WEIGHTINGS, INSTANCES))
        known[name] = search(name, *size, **short)
        run.write(known)
        print(name, json.dumps(known[name]["best first"][0]), flush=True)


if __name__ == "__main__":
    main()

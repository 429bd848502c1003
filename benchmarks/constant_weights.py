"""Searches for constant weights on the *reward* split of training instances: the bar that hand-tuning sets for each problem.

    python -m benchmarks.constant_weights                  every problem and case that has not been searched yet
    python -m benchmarks.constant_weights digits census    these, again

48 weightings (equal weights, and 47 that are log-uniform between 1 and 32, rounded to powers of two) on 8 training instances, at
the learning rate that is best for equal weights; fewer where the networks are convolutional. Each instance draws its own split
where the problem has a pool. Writes ``benchmarks/results/constant_weights.json`` case by case, with the number of trainings that
the search took.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.measuring import Run, case_arguments, cases, command_line, searched_in
from benchmarks.rates import climbed
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
    """Metrics (R,) on *reward* after training these instances (R,) with these constant weights (R, K); NaN where one diverged."""
    trainer = Trainer(checked.problem, checked.recipe, len(ids))
    trainer.begin(range(len(ids)), ids)
    train(trainer, torch.from_numpy(weights).float())
    finite = trainer.finite()
    return {name: values.where(finite, math.nan) for name, values in trainer.metrics("reward").items()}


def search(case: str, weightings: int, instances: int, **arguments: Any) -> dict[str, Any]:
    """Trains every weighting on every instance, side by side; returns the budget, and the best with their delta_m on *reward*."""
    usual = check_arguments(specification(LOSS_WEIGHTING), **case_arguments(case), **arguments)
    ids = range(TRAINING_IDS[0], TRAINING_IDS[0] + instances)
    equal = np.ones((instances, usual.recipe.num_tasks))
    references = average_references(usual.problem, usual.recipe)
    if case in VANISHING:
        references = {name: float(values.mean()) for name, values in trained(usual, ids, equal).items()}

    def gains(factor: float, weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        at_rate = replace(usual, recipe=replace(usual.recipe, lr=factor * usual.recipe.lr))
        count = len(weights)
        metrics = trained(at_rate, [*ids] * (count // instances), weights)
        own = [delta_m({name: float(values[row]) for name, values in metrics.items()}, references) for row in range(count)]
        return np.reshape(own, (-1, instances)).mean(1)

    rates = climbed(lambda factor: float(gains(factor, equal)[0]))
    factor = max(rates, key=lambda own: rates[own])
    table = 2.0 ** np.random.default_rng(0).integers(0, 6, (weightings, usual.recipe.num_tasks))
    table[0] = 1  # equal weights, where every search starts
    means = gains(factor, np.repeat(table, instances, axis=0))
    ranked = [{"w": table[row].astype(int).tolist(), "delta_m": round(float(means[row]), 2)} for row in np.argsort(-means)]
    size = {"weightings": weightings, "instances": instances, "trainings": (len(rates) + weightings) * instances}
    return {**searched_in(case), **size, "factor": factor, "best first": ranked[:KEPT]}


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

"""Searches constant weights for each problem on the *reward* split of training instances: the bar that hand-tuning sets.

    python benchmarks/constant_weights.py                  every problem that has not been searched yet
    python benchmarks/constant_weights.py digits census    these, anew

48 weightings, equal ones and 47 that are log-uniform between 1 and 32, rounded to powers of two, on 8 training instances; fewer
where the networks are convolutional. Writes ``benchmarks/results/constant_weights.json`` problem by problem, with the number of
trainings that the search took. The demo's ``constant`` is the best one of ``digits``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import numpy.typing as npt
import torch

from mtl_gym.envs.arguments import Arguments, check_arguments
from mtl_gym.problems import LOSS_WEIGHTING, PROBLEMS
from mtl_gym.problems.instances import TRAINING_IDS
from mtl_gym.problems.metrics import delta_m
from mtl_gym.training.learner import Learner
from mtl_gym.training.references import average_references

OUT = Path(__file__).parent / "results" / "constant_weights.json"
WEIGHTINGS, INSTANCES = 48, 8
SLOW = {"multimnist": (24, 4), "stereo": (16, 2)}
KEPT = 10
VANISHING = ("quadratic",)
"""Single-task learning reaches an error of nearly 0 there, so that all gains over it are -100 %: gains are over equal weights."""


def trained(checked: Arguments, ids: Sequence[int], weights: npt.NDArray[np.float64]) -> dict[str, torch.Tensor]:
    """Metrics (R,) on *reward* at the end of trainings of these instances (R,) with these constant weights (R, K)."""
    learner = Learner(checked.problem, checked.recipe, len(ids))
    learner.begin(range(len(ids)), ids)
    for _ in range(checked.recipe.train_steps):
        learner.update(torch.from_numpy(weights).float(), torch.ones(len(ids), dtype=torch.bool))
    return learner.metrics("reward")


def search(problem: str, weightings: int, instances: int, **arguments: Any) -> dict[str, Any]:
    """Trains every weighting on every instance, side by side: the budget, and the best with their delta_m on *reward*."""
    checked = check_arguments(LOSS_WEIGHTING, problem=problem, **arguments)
    count = weightings * instances
    table = 2.0 ** np.random.default_rng(0).integers(0, 6, (weightings, checked.recipe.num_tasks))
    table[0] = 1  # equal weights, with which everybody begins
    ids = range(TRAINING_IDS[0], TRAINING_IDS[0] + instances)
    metrics = trained(checked, list(ids) * weightings, np.repeat(table, instances, axis=0))
    references = average_references(checked.problem, checked.recipe)
    if problem in VANISHING:
        equal = trained(checked, list(ids), np.ones((instances, checked.recipe.num_tasks)))
        references = {name: float(values.mean()) for name, values in equal.items()}
    gains = [delta_m({name: float(values[row]) for name, values in metrics.items()}, references) for row in range(count)]
    means = np.reshape(gains, (weightings, instances)).mean(1)
    ranked = [{"w": table[row].astype(int).tolist(), "delta_m": round(float(means[row]), 2)} for row in np.argsort(-means)]
    return {"trainings": count, "weightings": weightings, "instances": instances, "best first": ranked[:KEPT]}


def main(names: list[str]) -> None:
    """Searches for each problem, and adds it to the results."""
    known = json.loads(OUT.read_text()) if OUT.is_file() else {}
    for name in names or [name for name in PROBLEMS if name not in known]:
        known[name] = search(name, *SLOW.get(name, (WEIGHTINGS, INSTANCES)))
        OUT.write_text(json.dumps(known, indent=1) + "\n")
        print(name, json.dumps(known[name]["best first"][0]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])

"""Searches constant weights for ``digits`` on the *reward* split of training instances; the demo's ``constant`` is the best one.

48 weightings, log-uniform between 1 and 32 and rounded to powers of two, on 8 training instances. Writes
``benchmarks/results/constant_weights.json``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch

from mtl_gym.envs.arguments import check_arguments
from mtl_gym.problems import LOSS_WEIGHTING
from mtl_gym.problems.instances import TRAINING_IDS
from mtl_gym.problems.metrics import delta_m
from mtl_gym.training.learner import Learner
from mtl_gym.training.references import average_references

OUT = Path(__file__).parent / "results" / "constant_weights.json"
WEIGHTINGS, INSTANCES = 48, 8


def main() -> None:
    """Trains every weighting on every instance, side by side."""
    arguments = check_arguments(LOSS_WEIGHTING, problem="digits")
    count = WEIGHTINGS * INSTANCES
    table = 2.0 ** np.random.default_rng(0).integers(0, 6, (WEIGHTINGS, arguments.recipe.num_tasks))
    learner = Learner(arguments.problem, arguments.recipe, count)
    learner.begin(range(count), list(range(TRAINING_IDS[0], TRAINING_IDS[0] + INSTANCES)) * WEIGHTINGS)
    weights = torch.from_numpy(np.repeat(table, INSTANCES, axis=0)).float()
    for _ in range(arguments.recipe.horizon):
        learner.update(weights, torch.ones(count, dtype=torch.bool))
    metrics, references = learner.metrics("reward"), average_references(arguments.problem, arguments.recipe)
    gains = [delta_m({name: float(values[row]) for name, values in metrics.items()}, references) for row in range(count)]
    means = np.reshape(gains, (WEIGHTINGS, INSTANCES)).mean(1)
    ranked = [{"w": table[row].astype(int).tolist(), "delta_m": round(float(means[row]), 2)} for row in np.argsort(-means)]
    OUT.write_text(json.dumps({"budget": f"{count} trainings", "best first": ranked}, indent=1) + "\n")
    print(json.dumps(ranked[:5]))


if __name__ == "__main__":
    main()

"""``yeast``: 14 functional classes of 2,417 genes (Elisseeff and Weston, "A Kernel Method for Multi-Labelled Classification",
NIPS 2001), shipped with ``river``.
"""

from __future__ import annotations

from importlib.metadata import distribution

import numpy as np

from mtl_gym.problems.base import Split, Task, divide, standardise

_FEATURES, _CLASSES = 103, 14
_SIZES = {"train": 1_300, "meta": 300, "reward": 300, "test": -1}


def load() -> tuple[tuple[Task, ...], dict[str, Split]]:
    """Returns 14 binary tasks and splits of 1,300, 300, 300 and 517 genes; inputs are 103 standardised numbers."""
    # Read directly, since importing river.datasets takes more than a second.
    file = str(distribution("river").locate_file("river/datasets/yeast.csv.gz"))
    table = np.loadtxt(file, delimiter=",", skiprows=1, dtype=np.float64)
    features, classes = table[:, :_FEATURES], table[:, _FEATURES:]
    rows = divide(len(table), _SIZES, seed=0)
    inputs = standardise(features, features[rows["train"]])
    tasks = tuple(Task(f"class_{number}", "bce", ("auc",)) for number in range(1, _CLASSES + 1))
    return tasks, {name: Split.of(inputs[index], list(classes[index].T)) for name, index in rows.items()}

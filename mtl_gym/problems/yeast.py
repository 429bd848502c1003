"""``yeast``: 14 functional classes of 2,417 genes (Elisseeff and Weston, "A Kernel Method for Multi-Labelled Classification",
NIPS 2001), shipped with ``river``.
"""

from __future__ import annotations

from importlib.metadata import distribution

import numpy as np

from mtl_gym.problems.base import Pool, Split, Task
from mtl_gym.problems.pools import equal_inputs
from mtl_gym.problems.sources import divide, standardise

_FEATURES, _CLASSES = 103, 14
_SIZES = {"train": 1_300, "meta": 300, "reward": 300, "test": -1}


def load() -> tuple[tuple[Task, ...], dict[str, Split], Pool]:
    """Returns 14 binary tasks, splits of 1,300, 300, 300 and 517 genes, and the pool of all 2,417.

    Inputs are 103 numbers, standardised by *train*.
    """
    # Read directly, since importing river.datasets takes more than a second.
    file = str(distribution("river").locate_file("river/datasets/yeast.csv.gz"))
    table = np.loadtxt(file, delimiter=",", skiprows=1, dtype=np.float64)
    features, classes = table[:, :_FEATURES], table[:, _FEATURES:]
    rows = divide(len(table), _SIZES, seed=0)
    inputs = standardise(features, features[rows["train"]])
    tasks = tuple(Task(f"class_{number}", "bce", ("auc",)) for number in range(1, _CLASSES + 1))
    splits = {name: Split.of(inputs[index], list(classes[index].T)) for name, index in rows.items()}
    pool = Pool(Split.of(features, list(classes.T)), rows, groups=equal_inputs(features), scaled_inputs=True)
    return tasks, splits, pool

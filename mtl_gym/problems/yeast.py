"""``yeast``: 14 functional classes of 2,417 genes (Elisseeff and Weston, "A Kernel Method for Multi-Labelled Classification",
NIPS 2001), shipped with ``river``.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from mtl_gym.problems.base import Split, Task, divide, standardise

_FEATURES, _CLASSES = 103, 14
_SIZES = {"train": 1_300, "meta": 300, "reward": 300, "test": -1}


def load() -> tuple[tuple[Task, ...], dict[str, Split]]:
    """Returns 14 binary tasks and splits of 1,300, 300, 300 and 517 genes; inputs are 103 standardised numbers."""
    table = np.loadtxt(_file(), delimiter=",", skiprows=1, dtype=np.float64)
    features, classes = table[:, :_FEATURES], table[:, _FEATURES:]
    rows = divide(len(table), _SIZES, seed=0)
    inputs = standardise(features, features[rows["train"]])
    tasks = tuple(Task(f"class_{number}", "bce", ("auc",)) for number in range(1, _CLASSES + 1))
    return tasks, {name: Split.of(inputs[index], list(classes[index].T)) for name, index in rows.items()}


def _file() -> Path:
    # The file is read by itself: importing river.datasets costs more than a second.
    spec = importlib.util.find_spec("river")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("`problem` 'yeast' needs the package 'river'.")
    return Path(spec.origin).parent / "datasets" / "yeast.csv.gz"

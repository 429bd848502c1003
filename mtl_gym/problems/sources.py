"""What loaders do with raw data: read a shipped file, divide its rows into splits, standardise columns."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt


def divide(count: int, sizes: Mapping[str, int], *, seed: int) -> dict[str, npt.NDArray[np.intp]]:
    """Draws disjoint rows for the splits: ``sizes`` rows each, and the remaining ones for the last split, whose size is -1."""
    rows = np.random.default_rng(seed).permutation(count)
    bounds = list(accumulate(sizes[name] for name in list(sizes)[:-1]))
    return dict(zip(sizes, np.split(rows, bounds), strict=True))


def standardise(values: npt.NDArray[Any], train: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Standardises columns by the mean and standard deviation of ``train``; constant columns become 0."""
    deviation = train.std(0)
    return ((values - train.mean(0)) / np.where(deviation > 0, deviation, 1)).astype(np.float32)


def shipped(file: str) -> dict[str, npt.NDArray[Any]]:
    """Reads an ``.npz`` file of this package (licences: ``mtl_gym/data/DATA_LICENSES.md``)."""
    with (resources.files("mtl_gym") / "data" / file).open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
        return dict(arrays)

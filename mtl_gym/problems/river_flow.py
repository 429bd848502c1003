"""``river_flow``: hourly flow at 8 gauges of the Mississippi basin, 48 hours ahead (RF1 of the Mulan collection)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_gym.problems.base import Pool, Split, Task
from mtl_gym.problems.sources import shipped

BLOCK = 120  # hours
PATTERN = ("train", "reward", "train", "test", "train", "meta", "train", "test", "train", "reward")
"""The splits of ten successive blocks."""
_LIMIT = 6.0  # deviations


def load() -> tuple[tuple[Task, ...], dict[str, Split], Pool]:
    """Returns 8 regressions, splits of whole blocks of 120 hours, and the pool of these blocks.

    Inputs are the 8 gauges at 8 lags (0 to 60 hours, 64 numbers), labels the gauges 48 hours ahead, all standardised by *train*.
    Measurements are first limited to 6 deviations of their gauge's whole series (one gauge has faulty readings of 20 times its
    mean). Samples overlap in time, so there is a gap of 108 hours, the longest lag (60) and the horizon (48), after each block: no
    measurement is in two of them. Blocks with a missing value are left out; 39 remain, spread over a year: 19, 4, 8 and 8 of them
    are in *train*, *meta*, *reward* and *test*. The flow of an hour is nearly that of the next one, so that it is the number of
    blocks, rather than of samples, on which the precision of a score depends.
    """
    data = shipped("rf1_series.npz")
    series, lags, horizon = _limited(data["S"].astype(np.float64)), data["lags"], int(data["horizon"])
    now = np.arange(lags.max(), len(series) - horizon)
    inputs = np.stack([series[now - lag] for lag in lags], axis=1).reshape(len(now), -1)
    labels = series[now + horizon]
    block, hour = np.divmod(now - now[0], BLOCK + int(lags.max()) + horizon)
    known = np.isfinite(inputs).all(1) & np.isfinite(labels).all(1) & (hour < BLOCK)
    kept = known & (np.bincount(block[known], minlength=block.max() + 1) == BLOCK)[block]
    split = np.asarray(PATTERN)[block[kept] % len(PATTERN)]
    rows = {name: np.flatnonzero(split == name) for name in ("train", "meta", "reward", "test")}
    samples = Split.of(inputs[kept], list(labels[kept].T))
    pool = Pool(samples, rows, groups=block[kept], scaled_inputs=True, scaled_targets=tuple(range(labels.shape[1])))
    return tuple(Task(str(site), "mse", ("rmse",)) for site in data["sites"]), pool.splits(rows), pool


def _limited(series: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A series (hours, gauges) within 6 deviations of each gauge's mean; NaN stays."""
    mean, reach = np.nanmean(series, axis=0), _LIMIT * np.nanstd(series, axis=0)
    return np.clip(series, mean - reach, mean + reach)

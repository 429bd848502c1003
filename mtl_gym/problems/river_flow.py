"""``river_flow``: hourly flow at 8 gauges of the Mississippi basin, 48 hours ahead (RF1 of the Mulan collection)."""

from __future__ import annotations

import numpy as np

from mtl_gym.problems.base import Split, Task, shipped, standardise

_BLOCK, _CYCLE = 240, 348  # hours; 108 hours between blocks: the longest lag (60) and the horizon (48)
_LIMIT = 6.0  # deviations
_PATTERN = ("train", "meta", "train", "reward", "train", "test", "train", "train", "test")


def load() -> tuple[tuple[Task, ...], dict[str, Split]]:
    """Returns 8 regressions and splits of whole blocks of 240 hours.

    Inputs are the 8 gauges at 8 lags (0 to 60 hours, 64 numbers), labels the gauges 48 hours ahead, all standardised by *train*
    and clipped at 6 standard deviations; hours with a missing value are dropped. Rows overlap in time, so splits consist of blocks
    with gaps of 108 hours between them: no measurement is in two splits.
    """
    data = shipped("rf1_series.npz")
    series, lags, horizon = data["S"], data["lags"], int(data["horizon"])
    now = np.arange(lags.max(), len(series) - horizon)
    inputs = np.stack([series[now - lag] for lag in lags], axis=1).reshape(len(now), -1)
    labels = series[now + horizon]
    known = np.isfinite(inputs).all(1) & np.isfinite(labels).all(1) & ((now - now[0]) % _CYCLE < _BLOCK)
    split_of = np.asarray(_PATTERN)[(now - now[0]) // _CYCLE % len(_PATTERN)]
    rows = {name: known & (split_of == name) for name in dict.fromkeys(_PATTERN)}
    inputs, labels = (standardise(values, values[rows["train"]]).clip(-_LIMIT, _LIMIT) for values in (inputs, labels))
    tasks = tuple(Task(str(site), "mse", ("rmse",)) for site in data["sites"])
    return tasks, {name: Split.of(inputs[own], list(labels[own].T)) for name, own in rows.items()}

"""Statistics of comparisons: interquartile means with bootstrap intervals, paired differences, probabilities."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.stats

LEVEL = 0.95
POWER = 0.8
RESAMPLES = 5_000
NO_GAIN = 0.05
"""Largest absolute delta_m in percent, on every instance, of a policy that repeats single-task learning, up to rounding."""
FEWEST = 5
"""Fewest shared instances for a verdict on significance; of fewer, only differences and intervals are shown."""

Array = npt.NDArray[np.float64]


def interquartile_mean(values: Array, axis: int = -1) -> Array:
    """Mean of the middle half (a quarter trimmed at each end)."""
    return np.asarray(scipy.stats.trim_mean(values, 0.25, axis=axis))


def bootstrap_interval(values: Array, statistic: Callable[..., Array]) -> tuple[float | None, float | None]:
    """95 % percentile bootstrap interval; ``None`` with fewer than two values. Every call uses the same resamples."""
    if len(values) < 2:
        return None, None
    result = scipy.stats.bootstrap(
        (values,), statistic, confidence_level=LEVEL, n_resamples=RESAMPLES, method="percentile", rng=np.random.default_rng(0)
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def paired_difference(own: Array, other: Array) -> dict[str, float | None]:
    """Mean difference on the same instances with its 95 % interval (Student's t).

    Returns:
        ``difference``, ``instances`` (their number), and, ``None`` with fewer than two of them, ``low``, ``high`` and
        ``detectable``, the minimum detectable difference of a two-sided test at 5 % with a power of 80 %, given the observed
        spread.
    """
    differences, count = own - other, len(own)
    mean = float(differences.mean())
    if count < 2:
        return {"difference": mean, "low": None, "high": None, "detectable": None, "instances": count}
    error = float(differences.std(ddof=1)) / math.sqrt(count)
    quantile = float(scipy.stats.t.ppf((1 + LEVEL) / 2, count - 1))
    reach = quantile + float(scipy.stats.t.ppf(POWER, count - 1))
    ends = {"low": mean - quantile * error, "high": mean + quantile * error}
    return {"difference": mean, **ends, "detectable": reach * error, "instances": count}


def probability_of_improvement(own: Array, other: Array) -> float:
    """Fraction of the instances on which the first is better than the second; ties count half."""
    return float((own > other).mean() + (own == other).mean() / 2)


def summarize(frame: pd.DataFrame) -> dict[str, Any]:
    """Statistics of a comparison, JSON-plain.

    Args:
        frame: From :func:`mtl_gym.compare` or :func:`mtl_gym.evaluate`.

    Returns:
        ``about`` (how it was made) and ``policies``, each with ``delta_m`` (``iqm`` over instances, its 95 % bootstrap interval
        ``low`` and ``high``, and ``mean``; percent), ``metrics`` (by ``task/metric``: ``mean``, ``low``, ``high`` and the mean
        single-task ``reference``), ``instances``, ``is_reference`` (whether it repeats single-task learning, so that there is
        nothing to compare), ``diverged``, ``cost`` (mean ``forward`` and ``backward`` passes), ``return``, the environment's
        columns listed in ``about["columns"]`` (each ``mean``, ``low``, ``high``), and, for each other policy with a shared
        instance, ``probability_of_improvement`` and ``paired`` (see :func:`paired_difference`). A diverged training has a
        ``delta_m`` of -100 and is excluded from its tasks' metrics.
    """
    runs = frame.drop_duplicates(["policy", "instance"])
    scores = runs.pivot_table(index="instance", columns="policy", values="delta_m", sort=False, dropna=False)
    names, about = list(dict.fromkeys(frame["policy"])), frame.attrs.get("about", {})
    columns = about.get("columns", ())
    return {"about": about, "policies": {name: _summary(frame[frame["policy"] == name], scores, name, columns) for name in names}}


def _summary(own: pd.DataFrame, scores: pd.DataFrame, name: str, columns: Iterable[str]) -> dict[str, Any]:
    runs = own.drop_duplicates("instance")
    values = runs["delta_m"].to_numpy(dtype=np.float64)
    low, high = bootstrap_interval(values, interquartile_mean)
    shared = {other: _shared(scores, name, other) for other in scores.columns if other != name}
    pairs = {other: pair for other, pair in shared.items() if len(pair[0])}
    return {
        "delta_m": {"iqm": float(interquartile_mean(values)), "low": low, "high": high, "mean": float(values.mean())},
        "metrics": _metrics(own[~own["diverged"]]),
        "instances": len(runs),
        "is_reference": bool((np.abs(values) < NO_GAIN).all()),
        "diverged": int(runs["diverged"].sum()),
        "cost": {name: float(runs[name].mean()) for name in ("forward", "backward")},
        "return": float(runs["return"].mean()),
        **{column: _with_interval(runs[column].dropna()) for column in columns},
        "probability_of_improvement": {other: probability_of_improvement(*pair) for other, pair in pairs.items()},
        "paired": {other: paired_difference(*pair) for other, pair in pairs.items()},
    }


def _shared(scores: pd.DataFrame, name: str, other: str) -> tuple[Array, Array]:
    """Scores of two policies on their common instances."""
    both = scores[[name, other]].dropna().to_numpy(dtype=np.float64)
    return both[:, 0], both[:, 1]


def _with_interval(column: pd.Series) -> dict[str, float | None]:
    values = column.to_numpy(dtype=np.float64)
    low, high = bootstrap_interval(values, np.mean)
    return {"mean": float(values.mean()) if len(values) else None, "low": low, "high": high}


def _metrics(runs: pd.DataFrame) -> dict[str, dict[str, float | None]]:
    rows = {}
    for (task, metric), group in runs.groupby(["task", "metric"], sort=False):
        rows[f"{task}/{metric}"] = {**_with_interval(group["value"]), "reference": float(group["reference"].mean())}
    return rows

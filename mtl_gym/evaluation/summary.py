"""The statistics of a comparison, JSON-plain."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from mtl_gym.checks import should
from mtl_gym.evaluation.statistics import (
    NO_GAIN,
    Array,
    bootstrap_interval,
    few_carry,
    paired_difference,
    probability_of_improvement,
    student_interval,
)
from mtl_gym.evaluation.verdicts import verdicts_of_pairs

_READ = ("policy", "instance", "task", "metric", "value", "reference", "delta_m", "forward", "backward", "return", "diverged")


def summarize(frame: pd.DataFrame) -> dict[str, Any]:
    """Statistics of a comparison, JSON-plain.

    Args:
        frame: From :func:`mtl_gym.compare` or :func:`mtl_gym.evaluate`.

    Returns:
        ``about`` (how it was made), ``policies`` and ``verdicts``.

        Each policy has ``delta_m`` in percent (``mean`` over instances, its 95 % Student interval ``low`` to ``high``, ``median``,
        and ``few_carry``, whether the mean lies far outside the middle half of the instances), ``metrics`` (by ``task/metric``:
        ``mean``, its 95 % bootstrap interval ``low`` to ``high``, and the mean single-task ``reference``), ``instances``,
        ``is_reference`` (whether it repeats single-task learning, so that there is nothing to compare), ``diverged``, ``cost``
        (mean ``forward`` and ``backward`` passes), ``return``, and the columns listed in ``about["columns"]``: the scores by kind
        of task and the environment's (each ``mean``, ``median``, ``low``, ``high``, ``few_carry``; bootstrap). For each other
        policy with a shared instance, it has ``probability_of_improvement`` and ``paired``: see
        :func:`~mtl_gym.evaluation.statistics.paired_difference`, with the ``smallest_difference`` of the comparison. A diverged
        training has a ``delta_m`` of -100 and is excluded from its tasks' metrics.

        ``verdicts`` are by policy and other policy: ``verdict`` (``better``, ``worse``, ``equal``, ``not told apart``), ``p``,
        adjusted by Holm's correction over all pairs, ``comparisons`` (the number of these pairs) and ``detectable``. There is none
        from fewer than five shared instances.

    Raises:
        ValueError: If a column that this reads is missing.
    """
    if missing := [name for name in _READ if name not in frame]:
        raise ValueError(should("frame", f"have the columns {', '.join(_READ)}", [*frame], f"Missing: {', '.join(missing)}."))
    runs = frame.drop_duplicates(["policy", "instance"])
    scores = runs.pivot_table(index="instance", columns="policy", values="delta_m", sort=False, dropna=False)
    names, about = list(dict.fromkeys(frame["policy"])), frame.attrs.get("about", {})
    policies = {name: _policy(frame[frame["policy"] == name], scores, name, about) for name in names}
    return {"about": about, "policies": policies, "verdicts": verdicts_of_pairs(policies)}


def _policy(own: pd.DataFrame, scores: pd.DataFrame, name: str, about: dict[str, Any]) -> dict[str, Any]:
    runs = own.drop_duplicates("instance")
    values = runs["delta_m"].to_numpy(dtype=np.float64)
    shared = {other: _shared(scores, name, other) for other in scores.columns if other != name}
    pairs = {other: pair for other, pair in shared.items() if len(pair[0])}
    smallest = about.get("smallest_difference", 0.0)
    return {
        "delta_m": _estimate(values, student_interval(values)),
        "metrics": _metrics(own[~own["diverged"]]),
        "instances": len(runs),
        "is_reference": bool((np.abs(values) < NO_GAIN).all()),
        "diverged": int(runs["diverged"].sum()),
        "cost": {name: float(runs[name].mean()) for name in ("forward", "backward")},
        "return": float(runs["return"].mean()),
        **_columns(runs, about.get("columns", ())),
        "probability_of_improvement": {other: probability_of_improvement(*pair) for other, pair in pairs.items()},
        "paired": {other: paired_difference(*pair, smallest) for other, pair in pairs.items()},
    }


def _shared(scores: pd.DataFrame, name: str, other: str) -> tuple[Array, Array]:
    """Scores of two policies on their common instances."""
    both = scores[[name, other]].dropna().to_numpy(dtype=np.float64)
    return both[:, 0], both[:, 1]


def _estimate(values: Array, ends: tuple[float | None, float | None]) -> dict[str, float | None]:
    middle = {"mean": float(values.mean()), "median": float(np.median(values))} if len(values) else {"mean": None, "median": None}
    return {**middle, "low": ends[0], "high": ends[1], "few_carry": few_carry(values)}


def _columns(runs: pd.DataFrame, names: Iterable[str]) -> dict[str, dict[str, float | None]]:
    columns = {name: runs[name].dropna().to_numpy(dtype=np.float64) for name in names}
    return {name: _estimate(values, bootstrap_interval(values, np.mean)) for name, values in columns.items()}


def _metrics(runs: pd.DataFrame) -> dict[str, dict[str, float | None]]:
    rows = {}
    for (task, metric), group in runs.groupby(["task", "metric"], sort=False):
        values = group["value"].to_numpy(dtype=np.float64)
        low, high = bootstrap_interval(values, np.mean)
        rows[f"{task}/{metric}"] = {
            **{"mean": float(values.mean()) if len(values) else None, "low": low, "high": high},
            "reference": float(group["reference"].mean()),
        }
    return rows

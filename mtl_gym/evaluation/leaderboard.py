"""The leaderboard of a comparison, as a frame with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from mtl_gym.checks import choose
from mtl_gym.evaluation.frames import Source, results_of, to_frame
from mtl_gym.evaluation.statistics import summarize


def leaderboard(source: Source, baseline: str | None = None) -> pd.DataFrame:
    """The policies of a comparison, best first, with intervals.

    Args:
        source: The frame of :func:`mtl_gym.compare`, or a part of its rows; or the comparison's output folder.
        baseline: The policy from which the others' differences are; by default the first of the comparison.

    Returns:
        A frame of numbers, indexed by ``policy``. ``delta_m`` is the interquartile mean over instances, in percent, and ``low`` and
        ``high`` are its 95 % bootstrap interval. ``difference`` is the mean difference from the baseline's ``delta_m`` on the same
        instances, and ``difference_low`` to ``difference_high`` its 95 % interval (Student's t); ``probability`` is the fraction of
        these instances on which the policy is better than the baseline. Then come the environment's columns (means, with ``_low``
        and ``_high``), the counts ``instances`` and ``diverged``, and mean ``forward`` and ``backward`` passes. Missing numbers are
        NaN, such as the baseline's difference from itself.

    Raises:
        ValueError: If there is no such baseline, the source has no results, or a frame has rows of another comparison.

    Example:
        >>> import mtl_gym
        >>> frame = mtl_gym.compare("ew,si", problem="quadratic", instances=2, train_steps=20)
        >>> list(mtl_gym.leaderboard(frame).loc["ew"].index[:3])
        ['delta_m', 'low', 'high']
        >>> text = mtl_gym.leaderboard(frame).to_latex(float_format="%.1f", escape=True)
    """
    found = results_of(source)  # which also checks a frame
    frame = source if isinstance(source, pd.DataFrame) else to_frame(*found)
    summary = summarize(frame)
    policies = summary["policies"]
    first = next(iter(policies)) if baseline is None else baseline
    choose("baseline", first, policies)
    columns = summary["about"].get("columns", ())
    table = pd.DataFrame.from_dict({name: _row(row, first, columns) for name, row in policies.items()}, orient="index")
    result = table.rename_axis("policy").sort_values("delta_m", ascending=False, kind="stable")
    result.attrs["about"] = summary["about"]
    return result


def _row(row: Mapping[str, Any], baseline: str, columns: Any) -> dict[str, float]:
    score, pair = row["delta_m"], row["paired"].get(baseline, {})
    known = {
        "delta_m": score["iqm"],
        "low": score["low"],
        "high": score["high"],
        "difference": pair.get("difference"),
        "difference_low": pair.get("low"),
        "difference_high": pair.get("high"),
        "probability": row["probability_of_improvement"].get(baseline),
    }
    for name in columns:
        known |= {name: row[name]["mean"], f"{name}_low": row[name]["low"], f"{name}_high": row[name]["high"]}
    numbers = {name: float("nan") if value is None else float(value) for name, value in known.items()}
    return {**numbers, "instances": row["instances"], "diverged": row["diverged"], **row["cost"]}

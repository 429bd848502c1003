"""The leaderboard of a comparison, as a frame with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from mtl_gym.checks import choose
from mtl_gym.evaluation.frames import Source, frame_of
from mtl_gym.evaluation.notes import notes
from mtl_gym.evaluation.summary import summarize
from mtl_gym.evaluation.verdicts import Verdict, verdicts_with


def leaderboard(source: Source, baseline: str | None = None) -> pd.DataFrame:
    """The policies of a comparison, best first, with intervals.

    Args:
        source: The frame of :func:`mtl_gym.compare`, or a part of its rows; or the comparison's output folder.
        baseline: The policy from which the others' differences are, named before the scores are known; by default the first of the
            comparison.

    Returns:
        A frame indexed by ``policy``. ``delta_m`` is the mean over instances, in percent, ``low`` and ``high`` its 95 % interval
        (Student's t), and ``median`` the median. ``difference`` is the mean difference from the baseline's ``delta_m`` on the same
        instances, in points, with ``difference_low``, ``difference_high`` and ``difference_median``; where all instances are
        shared, it is the difference of the two means. ``verdict`` is ``better``, ``worse``, ``equal`` (the difference is
        significantly smaller than the comparison's ``smallest_difference``) or ``not told apart``, by paired t-tests at 5 % with
        Holm's correction over all comparisons with the baseline; ``p`` is the adjusted p-value of a difference, and ``detectable``
        the minimum detectable difference after correction, with a power of 80 %. Fewer than five shared instances give no verdict
        (``""``). ``probability`` is the fraction of these instances on which the policy is better than the baseline. Then come the
        scores by kind of task and the environment's columns (means, with ``_low``, ``_high`` and ``_median``), the counts
        ``instances`` and ``diverged``, and mean ``forward`` and ``backward`` passes. Missing numbers are NaN, such as the
        baseline's difference from itself. ``attrs["notes"]`` are sentences on what the numbers are conditional on, such as a
        single split.

    Raises:
        ValueError: If there is no such baseline, the source has no results, or a frame has rows of another comparison.

    Example:
        >>> import mtl_gym
        >>> frame = mtl_gym.compare("ew,si", problem="quadratic", instances=2, train_steps=20)
        >>> list(mtl_gym.leaderboard(frame).loc["ew"].index[:3])
        ['delta_m', 'low', 'high']
        >>> text = mtl_gym.leaderboard(frame).to_latex(float_format="%.1f", escape=True)
    """
    summary = summarize(frame_of(source))
    policies = summary["policies"]
    first = next(iter(policies)) if baseline is None else baseline
    choose("baseline", first, policies)
    verdicts, columns = verdicts_with(policies, first), summary["about"].get("columns", ())
    rows = {name: _row(row, row["paired"].get(first, {}), first, columns) for name, row in policies.items()}
    table = pd.DataFrame.from_dict({name: _with_verdict(row, verdicts.get(name)) for name, row in rows.items()}, orient="index")
    result = table.rename_axis("policy").sort_values("delta_m", ascending=False, kind="stable")
    result.attrs |= {"about": summary["about"], "notes": notes(summary)}
    return result


def _with_verdict(row: Mapping[str, float], verdict: Verdict | None) -> dict[str, Any]:
    """A row of numbers with its verdict, before the probability."""
    known = (verdict.verdict, verdict.p, verdict.detectable) if verdict else ("", float("nan"), float("nan"))
    place = list(row).index("probability")
    items = [*row.items()]
    return dict([*items[:place], *zip(("verdict", "p", "detectable"), known, strict=True), *items[place:]])


def _row(row: Mapping[str, Any], pair: Mapping[str, Any], baseline: str, columns: Any) -> dict[str, float]:
    score = row["delta_m"]
    known = {
        **{"delta_m": score["mean"], "low": score["low"], "high": score["high"], "median": score["median"]},
        **{"difference": pair.get("difference"), "difference_low": pair.get("low"), "difference_high": pair.get("high")},
        **{"difference_median": pair.get("median"), "probability": row["probability_of_improvement"].get(baseline)},
    }
    for name in columns:
        known |= {name: row[name]["mean"], **{f"{name}_{end}": row[name][end] for end in ("low", "high", "median")}}
    numbers = {name: float("nan") if value is None else float(value) for name, value in known.items()}
    return {**numbers, "instances": row["instances"], "diverged": row["diverged"], **row["cost"]}

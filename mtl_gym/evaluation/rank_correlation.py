"""Rank correlation of two comparisons: whether they put policies in the same order."""

from __future__ import annotations

from typing import Any

import pandas as pd
import scipy.stats

from mtl_gym.checks import should
from mtl_gym.evaluation.frames import Source, frame_of


def rank_correlation(first: Source, second: Source) -> dict[str, Any]:
    """Whether two comparisons put the same policies in the same order, by their mean ``delta_m``.

    The comparisons may differ in anything: kernels, length of training, problem; or be two halves of one frame's instances.

    Args:
        first: The frame of :func:`mtl_gym.compare`, or a part of its rows; or the comparison's output folder.
        second: Another one. Policies that are in one of the two alone are left out.

    Returns:
        ``spearman`` and ``kendall`` (tau-b, where ties count), in [-1, 1]; ``policies``, their number; and ``ranks``: each policy's
        places in the two orders, 1 for the best, means of places for ties, those that move farthest first.

    Raises:
        ValueError: If fewer than three policies are in both, all of them have the same score in one of them, or a source has no
            results.
    """
    means = [_means(source) for source in (first, second)]
    both = pd.concat(means, axis=1, join="inner", keys=["first", "second"])
    if len(both) < 3:
        raise ValueError(should("second", "have at least three policies of `first`", sorted(map(str, both.index))))
    for name in both:
        if both[name].nunique() == 1:
            raise ValueError(should(str(name), "have policies with different scores", float(both[name].iloc[0])))
    ranks = both.rank(ascending=False)
    moved = (ranks["first"] - ranks["second"]).abs().sort_values(ascending=False, kind="stable")
    return {
        "spearman": float(scipy.stats.spearmanr(both["first"], both["second"]).statistic),
        "kendall": float(scipy.stats.kendalltau(both["first"], both["second"]).statistic),
        "policies": len(both),
        "ranks": {str(name): (float(ranks["first"][name]), float(ranks["second"][name])) for name in moved.index},
    }


def _means(source: Source) -> pd.Series:
    """The mean delta_m of each policy."""
    runs = frame_of(source).drop_duplicates(["policy", "instance"])
    return runs.groupby("policy", sort=False)["delta_m"].mean()

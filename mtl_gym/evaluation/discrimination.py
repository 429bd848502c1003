"""How well a comparison tells policies apart."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from mtl_gym.checks import choose, should
from mtl_gym.evaluation.frames import Source, frame_of
from mtl_gym.evaluation.statistics import FEWEST, Array, student_interval
from mtl_gym.evaluation.summary import summarize
from mtl_gym.evaluation.verdicts import BETTER, EQUAL, WORSE


def discrimination(source: Source, baseline: str = "ew") -> dict[str, Any]:
    """How well a comparison tells its policies apart, and whether the choice of a policy matters on its problem.

    Args:
        source: The frame of :func:`mtl_gym.compare`, or a part of its rows; or the comparison's output folder. All policies have
            the same instances, at least five.
        baseline: The policy with which the best one is compared: equal weights by default, or ``shared`` or ``joint`` where
            structures or groups are chosen.

    Returns:
        ``policies`` and ``instances``, their numbers; ``pairs`` of policies; ``told_apart``, the fraction of the pairs that paired
        t-tests at 5 % tell apart, with Holm's correction over all pairs; ``equal``, the fraction whose difference is significantly
        smaller than the comparison's ``smallest_difference``; and ``best``, the policy with the highest mean ``delta_m`` besides
        the baseline and those that repeat single-task learning.

        Then come differences of mean ``delta_m`` in points, each with ``difference``, ``low`` and ``high`` (95 %, Student's t):
        ``best_over_baseline``, ``best_over_single_task`` and ``baseline_over_single_task``, which is its mean ``delta_m``.
        Intervals of the best are wider by Bonferroni's correction over the policies of which it was chosen, so they also hold for
        it.

    Raises:
        ValueError: If there is no such policy or none besides it, instances are not the same for all policies or fewer than five,
            or the source has no results.
    """
    frame = frame_of(source)
    summary = summarize(frame)
    policies = summary["policies"]
    choose("baseline", baseline, policies)
    values = _scores(frame)
    candidates = [name for name, row in policies.items() if name != baseline and not row["is_reference"]]
    if not candidates:
        raise ValueError(should("source", f"have policies besides {baseline!r} and single-task learning", [*policies]))
    best = max(candidates, key=lambda name: float(values[name].mean()))
    words = [summary["verdicts"][name][other]["verdict"] for name, other in combinations(policies, 2)]
    return {
        **{"policies": len(policies), "instances": len(values[best]), "pairs": len(words)},
        "told_apart": sum(word in (BETTER, WORSE) for word in words) / len(words),
        "equal": words.count(EQUAL) / len(words),
        "best": best,
        "best_over_baseline": _difference(values[best] - values[baseline], len(candidates)),
        "best_over_single_task": _difference(values[best], len(candidates)),
        "baseline_over_single_task": _difference(values[baseline], 1),
    }


def _scores(frame: pd.DataFrame) -> dict[str, Array]:
    """Each policy's delta_m (I,) on the same instances, at least ``FEWEST``."""
    runs = frame.drop_duplicates(["policy", "instance"])
    table = runs.pivot_table(index="instance", columns="policy", values="delta_m", sort=False, dropna=False)
    if table.isna().any(axis=None) or len(table) < FEWEST:
        known = {str(name): int(table[name].count()) for name in table}
        raise ValueError(should("source", f"have the same instances for all policies, at least {FEWEST}", known))
    return {str(name): table[name].to_numpy(dtype=np.float64) for name in table}


def _difference(values: Array, comparisons: int) -> dict[str, float | None]:
    low, high = student_interval(values, comparisons)
    return {"difference": float(values.mean()), "low": low, "high": high}

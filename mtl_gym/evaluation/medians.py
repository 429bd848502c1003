"""Medians of learning curves over instances."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from mtl_gym.evaluation.results import Array, Result


def median_curves(results: Iterable[Result], policy: str, tasks: Sequence[str], kind: str) -> tuple[Array, Array]:
    """Steps (S,) and medians (K, S) over a policy's instances that ran so far; NaN where there is none.

    ``kind`` is a curve of :class:`Result`, or ``fraction``, a weight over the sum of the absolute weights of all tasks.
    """
    own = [result.curves for result in results if result.policy == policy and result.curves.get("loss")]
    longest: list[int] = max((curves["step"] for curves in own), key=len, default=[])
    values = np.full((len(own), len(tasks), len(longest)), np.nan)  # (I, K, S)
    places = {task: place for place, task in enumerate(tasks)}
    for table, curves in zip(values, own, strict=True):
        known = curves.get("weight" if kind == "fraction" else kind, {})
        rows = np.array(list(known.values()), dtype=float).reshape(len(known), -1)  # (K', S'), NaN for None
        if kind == "fraction":
            total = np.nansum(np.abs(rows), axis=0)
            rows = np.divide(rows, total, out=np.full_like(rows, np.nan), where=total > 0)
        for task, row in zip(known, rows, strict=True):
            if task in places:
                table[places[task], : len(row)] = row
    known = np.isfinite(values).any(0)
    medians = np.full(known.shape, np.nan)
    medians[known] = np.nanmedian(np.where(np.isfinite(values), values, np.nan)[:, known], axis=0)
    return np.asarray(longest, dtype=float), medians

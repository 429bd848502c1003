"""What a reader of scores has to know of them, one sentence each: of the split, of means that few instances carry, of kernels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mtl_gym.envs.spec import Column
from mtl_gym.evaluation.columns import columns_of
from mtl_gym.evaluation.statistics import FEWEST

Summary = Mapping[str, Any]

_SCORE = Column("delta_m", "delta_m, %")


def notes(summary: Summary) -> list[str]:
    """The sentences for a comparison, plain texts."""
    about = summary["about"]
    return [split_note(about), *verdict_notes(summary), *mean_notes(summary), *kernel_notes(about)]


def split_note(about: Mapping[str, Any]) -> str:
    """What intervals over instances are conditional on: one split, unless each instance draws its own."""
    ranges = about.get("arguments", {}).get("distribution") or {}
    if any(ranges.get("split", ())):
        return (
            "Each instance draws its own train, meta, reward and test split, so the intervals include the choice of test samples."
        )
    return (
        "Intervals are conditional on one split: all instances share the test samples. The axis split of a distribution draws one "
        "for each instance."
    )


def verdict_notes(summary: Summary) -> list[str]:
    """Which test the verdicts follow, and what is called equal."""
    found = [row for own in summary["verdicts"].values() for row in own.values()]
    if not found:
        return [f"Fewer than {FEWEST} shared instances allow no verdict."] if len(summary["policies"]) > 1 else []
    smallest = summary["about"].get("smallest_difference", 0.0)
    equal = f"within {smallest:g} points are called equal" if smallest else "count as equal only if they are 0 on every instance"
    return [
        "Verdicts are paired t-tests at 5 % with Holm's correction. Intervals are of one comparison each, so they may exclude 0 where "
        f"two policies are not told apart. Differences {equal}."
    ]


def mean_notes(summary: Summary) -> list[str]:
    """Which means few instances carry: those outside the middle half of the instances."""
    about, lines = summary["about"], []
    own = {column.name: column for column in columns_of(about["env"])} if about.get("columns") else {}
    for column in (_SCORE, *(own[name] for name in about.get("columns", ()) if name in own)):
        rows = {name: row[column.name] for name, row in summary["policies"].items() if row[column.name]["few_carry"]}
        if rows:
            told = ", ".join(
                f"{name} (mean {column.factor * row['mean']:.3g}, median {column.factor * row['median']:.3g})"
                for name, row in rows.items()
            )
            lines.append(f"{column.head}: few instances carry the mean, which lies outside their middle half, of {told}.")
    return lines


def kernel_notes(about: Mapping[str, Any]) -> list[str]:
    """That results of several kernels are mixed, if they are."""
    kernels = about.get("kernels", {})
    if len(kernels) < 2:
        return []
    told = "; ".join(f"{count} with {text}" for text, count in kernels.items())
    return [f"Results of several kernels are mixed ({told}), between which scores may differ."]

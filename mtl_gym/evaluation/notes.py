"""What a reader of scores has to know of them, one sentence each: of the split, of means that few instances carry, of kernels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mtl_gym.envs.spec import Column
from mtl_gym.evaluation.columns import columns_of
from mtl_gym.evaluation.kernels import listed
from mtl_gym.evaluation.statistics import FEWEST
from mtl_gym.problems.axes import AXES

Summary = Mapping[str, Any]

_SCORE = Column("delta_m", "delta_m, %")


def notes(summary: Summary) -> list[str]:
    """The sentences for a comparison, plain texts."""
    about = summary["about"]
    return [split_note(about), *verdict_notes(summary), *mean_notes(summary), *kernel_notes(about)]


OWN_SPLIT, OWN_DATA, ONE_SPLIT = "own split", "own data", "one split"


def drawn(about: Mapping[str, Any]) -> str:
    """What the instances of a comparison draw: ``own data`` each, of a family, an ``own split`` of a pool, or all ``one split``.

    A family is known by its own axes, which its distributions name.
    """
    ranges = about.get("arguments", {}).get("distribution") or {}
    if any(axis.partition(":")[0] not in AXES for axis in ranges):
        return OWN_DATA
    return OWN_SPLIT if any(ranges.get("split", ())) else ONE_SPLIT


_SPLIT_NOTES = {
    OWN_DATA: "Each instance draws its own data, so the intervals include the choice of training and test samples.",
    OWN_SPLIT: "Each instance draws its own splits from the same pool, so the intervals include the choice of test samples, but "
    "not that of the pool: they are of these data.",
    ONE_SPLIT: "Intervals are conditional on one split: all instances share the test samples. The axis split of a distribution "
    "draws one for each instance.",
}


def split_note(about: Mapping[str, Any]) -> str:
    """What intervals over instances are conditional on: one split, unless each instance draws its own."""
    return _SPLIT_NOTES[drawn(about)]


def verdict_notes(summary: Summary) -> list[str]:
    """Which test the verdicts follow, and what is called equal."""
    found = [row for own in summary["verdicts"].values() for row in own.values()]
    if not found:
        return [f"Fewer than {FEWEST} shared instances allow no verdict."] if len(summary["policies"]) > 1 else []
    smallest = summary["about"].get("smallest_difference", 0.0)
    equal = f"within {smallest:g} points are called equal" if smallest else "count as equal only if they are 0 on every instance"
    return [
        "Verdicts are paired t-tests at 5 % with Holm's correction. Intervals are of one comparison each, so a verdict may be "
        f"weaker than the interval suggests. Differences {equal}."
    ]


def mean_notes(summary: Summary) -> list[str]:
    """Which means few instances carry: those far outside the middle half of the instances."""
    names = summary["about"].get("columns", ())
    known = {column.name: column for column in columns_of(summary["about"]["env"])} if names else {}
    told = [
        f"{column.head} of {policy} (mean {column.factor * own['mean']:.3g}, median {column.factor * own['median']:.3g})"
        for column in (_SCORE, *(known[name] for name in names if name in known))
        for policy, row in summary["policies"].items()
        if (own := row[column.name])["few_carry"]
    ]
    return [f"Few instances carry these means, which lie far outside their middle half: {'; '.join(told)}."] if told else []


def kernel_notes(about: Mapping[str, Any]) -> list[str]:
    """That results of several kernels are mixed, if they are."""
    kernels = about.get("kernels", {})
    if len(kernels) < 2:
        return []
    return [f"Results of several kernels are mixed ({listed(kernels)}), between which scores may differ."]

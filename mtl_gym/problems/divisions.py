"""Divisions of a person's samples into *train*, *meta*, *reward* and *test*: at random, by whole groups, or in the order of time.

P is the number of samples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_gym.checks import number, positive_int, should
from mtl_gym.problems.splits import SPLITS

Indices = npt.NDArray[np.int64]
FRACTIONS: Mapping[str, float] = {"train": 0.55, "meta": 0.1, "reward": 0.15, "test": 0.2}
"""Default fractions of the samples, nearly those of the problem ``yeast``."""
_RESERVE = 3
"""Groups, of the largest size, by which a pool has to exceed its splits so that others can always be drawn from it."""
_MOST_UNUSED = 0.1
"""Fraction of the samples that may stay unused for that."""


@dataclass(frozen=True, eq=False)
class Division:
    """Which samples are in which split.

    Attributes:
        rows: Indices (n,) of the samples of each split, ascending.
        groups: (P,) numbers of the groups that are never divided; ``None`` if each sample stands alone.
        drawable: Whether other splits of the same sizes can be drawn from the same samples, as a pool does.
    """

    rows: Mapping[str, Indices]
    groups: Indices | None
    drawable: bool


def division(
    count: int, *, seed: int = 0, groups: Any = None, time: Any = None, fractions: Mapping[str, float] | None = None
) -> Division:
    """Divides samples; a pure function of its arguments, which never looks at inputs or labels.

    Args:
        count: P.
        seed: Selects one of the random divisions; without effect with ``time``.
        groups: (P,) labels of any kind: samples with the same one are never in two splits. If groups differ in size, up to a tenth
            of the samples stays unused, so that instances can draw their own splits; if that does not suffice, all samples are
            used and instances share this division.
        time: (P,) numbers or dates: *meta* is later than *train*, *reward* later than *meta*, and *test* is the latest. Samples
            of the same time are in the same split.
        fractions: Fraction of the samples in each split, of sum 1; ``None``: ``FRACTIONS``. With groups or equal times, they hold
            as closely as possible.

    Raises:
        TypeError: If times are neither numbers nor dates.
        ValueError: If both ``groups`` and ``time`` are given, one is of another length or has missing values, fractions are wrong,
            or a split would be empty.
    """
    shares = _shares(fractions)
    rng = np.random.default_rng(positive_int("seed", seed, least=0))
    if groups is not None and time is not None:
        raise ValueError(should("time", "be left out with `groups`", time, "Divide by one of the two."))
    if time is not None:
        return Division(_nonempty(_by_time(_ranks(time, count), shares), "time", count), None, drawable=False)
    if groups is None:
        rows = np.split(rng.permutation(count), _ends(count, shares))
        return Division(_nonempty([np.sort(own) for own in rows], "inputs", count), None, drawable=True)
    numbers = _numbers(groups, count)
    homes = _homes(np.bincount(numbers), shares, rng)[numbers]
    rows = [np.flatnonzero(homes == place) for place in range(len(SPLITS))]
    kept, drawable = _with_reserve(rows, np.bincount(numbers), rng)
    return Division(_nonempty(kept, "groups", count), numbers, drawable)


def _shares(fractions: Mapping[str, float] | None) -> list[float]:
    given = FRACTIONS if fractions is None else fractions
    if not isinstance(given, Mapping) or set(given) != set(SPLITS):
        raise ValueError(should("fractions", f"be a mapping with {', '.join(SPLITS)}", given))
    shares = [number(f"fractions[{name!r}]", given[name], low=0, high=1, ends="()") for name in SPLITS]
    if not math.isclose(sum(shares), 1, abs_tol=1e-6):
        raise ValueError(should("fractions", "have the sum 1", dict(given), f"It is {sum(shares):g}."))
    return shares


def _ends(count: int, shares: list[float]) -> list[int]:
    """Where each split but the last ends, among samples in some order."""
    return [round(end * count) for end in np.cumsum(shares)[:-1]]


def _nonempty(rows: list[Indices], name: str, count: int) -> dict[str, Indices]:
    named = dict(zip(SPLITS, (own.astype(np.int64) for own in rows), strict=True))
    if empty := [split for split, own in named.items() if not len(own)]:
        sizes = ", ".join(f"{split} {len(own)}" for split, own in named.items())
        condition = f"have enough different values for samples in each split ({', '.join(empty)} would be empty)"
        condition = "have more samples, so that no split is empty" if name == "inputs" else condition
        raise ValueError(should(name, condition, f"{count} samples: {sizes}", "Or change `fractions`."))
    return named


def _column(name: str, values: Any, count: int) -> Any:
    """Values (P,) as a pandas series without missing ones."""
    import pandas as pd  # late: it takes longer than to load a problem of the table

    shape = np.shape(values)
    if shape != (count,):
        raise ValueError(should(name, f"have one value for each of the {count} samples", f"an array of shape {shape}"))
    column = pd.Series(values if isinstance(values, (pd.Series, list)) else np.asarray(values)).reset_index(drop=True)
    if (missing := np.flatnonzero(column.isna())).size:
        raise ValueError(should(name, "have no missing values; samples that lack one", missing[:20].tolist()))
    return column


def _numbers(groups: Any, count: int) -> Indices:
    """Groups (P,) as the numbers 0, 1, 2 ..., in the order in which they appear."""
    codes: Indices = _column("groups", groups, count).factorize()[0].astype(np.int64)
    return codes


def _ranks(time: Any, count: int) -> Indices:
    """Times (P,) as the numbers 0, 1, 2 ..., the same for equal times."""
    column = _column("time", time, count)
    if column.dtype.kind not in "iufM":
        kind = type(column.iloc[0]).__name__ if count else column.dtype
        raise TypeError(should("time", "be numbers or dates", f"values of type {kind}", "Convert texts by pandas.to_datetime."))
    ranks: Indices = column.rank(method="dense").to_numpy().astype(np.int64) - 1
    return ranks


def _by_time(ranks: Indices, shares: list[float]) -> list[Indices]:
    """Samples in the order of time, cut where a new time begins, next to where fractions would cut."""
    order = np.argsort(ranks, kind="stable")
    begins = np.flatnonzero(np.diff(ranks[order], prepend=-1, append=-1))  # where a time begins, and the end
    cuts = [int(begins[np.abs(begins - end).argmin()]) for end in _ends(len(ranks), shares)]
    return [np.sort(own) for own in np.split(order, cuts)]


def _homes(counts: Indices, shares: list[float], rng: np.random.Generator) -> Indices:
    """The split of each group: in a random order, each goes where most samples are lacking, and none is left empty if possible."""
    lacking = [share * counts.sum() for share in shares]
    empty, homes = set(range(len(shares))), np.zeros(len(counts), dtype=np.int64)
    for place, group in enumerate(rng.permutation(len(counts)).tolist()):
        allowed = empty if len(counts) - place <= len(empty) else range(len(shares))
        home = max(sorted(allowed), key=lacking.__getitem__)
        lacking[home] -= int(counts[group])
        empty.discard(home)
        homes[group] = home
    return homes


def _with_reserve(rows: list[Indices], counts: Indices, rng: np.random.Generator) -> tuple[list[Indices], bool]:
    """The rows that are used, and whether others can be drawn: groups of one size always fit, others need a reserve."""
    if counts.min() == counts.max():
        return rows, True
    unused = _RESERVE * int(counts.max()) / counts.sum()
    if unused > _MOST_UNUSED:
        return rows, False
    kept = [max(1, math.floor(len(own) * (1 - unused))) if len(own) else 0 for own in rows]
    return [np.sort(rng.permutation(own)[:size]) for own, size in zip(rows, kept, strict=True)], True

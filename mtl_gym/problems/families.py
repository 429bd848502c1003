"""Families: problems of which every instance draws its own data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mtl_gym.checks import number, should
from mtl_gym.problems.splits import SPLITS, Split

Indices = npt.NDArray[np.int64]
DrawSamples = Callable[[Mapping[str, float], Indices, np.random.Generator], Split]
"""``(values of the axes, tasks (K,) that take part, generator) -> samples``; see :class:`Family`."""


@dataclass(frozen=True)
class OwnAxis:
    """An axis along which the instances of one family differ, beside :data:`mtl_gym.problems.axes.AXES`.

    Attributes:
        low, high: Its range in distributions that do not name it; uniform.
        least, most: What a range may reach.
        meaning: One line for the manual.

    Raises:
        ValueError: Unless ``least <= low <= high <= most``.
    """

    low: float
    high: float
    least: float
    most: float
    meaning: str

    def __post_init__(self) -> None:
        ends = [number(name, getattr(self, name)) for name in ("least", "low", "high", "most")]
        if ends != sorted(ends):
            raise ValueError(should("low", "and high be ascending, within least and most", ends))


@dataclass(frozen=True, eq=False)
class Family:
    """What makes the data of a problem's instances; the problem's own ``splits`` are those of an example.

    Attributes:
        axes: What instances differ in, by name.
        draw: Returns the P samples of an instance: those of *train*, then *meta*, *reward* and *test*, as many as in the problem's
            ``splits``, with all labels of the tasks that take part and any valid ones of the others. A pure function of its
            arguments.
    """

    axes: Mapping[str, OwnAxis]
    draw: DrawSamples

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """The default range of each of its axes."""
        return {name: (own.low, own.high) for name, own in self.axes.items()}

    def values(self, ranges: Mapping[str, tuple[float, float]], rng: np.random.Generator) -> dict[str, float]:
        """Draws the values of its axes; a wider range of one of them does not change the others."""
        places = rng.random(len(self.axes))
        pairs = zip(self.axes, places.tolist(), strict=True)
        return {name: ranges[name][0] + place * (ranges[name][1] - ranges[name][0]) for name, place in pairs}


def rows_of(sizes: Mapping[str, int]) -> dict[str, Indices]:
    """The rows (n,) of each split among the samples of an instance, from the sizes of the splits."""
    ends = np.cumsum([sizes[name] for name in SPLITS])
    return dict(zip(SPLITS, np.split(np.arange(ends[-1]), ends[:-1]), strict=True))


def check_family(family: Family, splits: Mapping[str, Split], num_tasks: int) -> None:
    """Draws an example and checks that it fits the problem.

    Raises:
        TypeError: If ``draw`` does not return a :class:`Split`.
        ValueError: If the samples are not as many, or of another shape or type, than those of the problem's splits, or inputs or
            labels are not finite.
    """
    values = family.values(family.ranges, np.random.default_rng(0))
    samples = family.draw(values, np.arange(num_tasks), np.random.default_rng(0))
    if not isinstance(samples, Split):
        raise TypeError(should("family.draw", "return a Split", type(samples).__name__))
    if not samples.is_numbers:
        raise ValueError(should("family.draw", "return inputs of float32 in one array", samples))
    example, count = splits["train"], sum(len(own) for own in splits.values())
    known = [(count, *own.shape[1:]) for own in (example.inputs, example.targets)]
    found = [tuple(own.shape) for own in (samples.inputs, samples.targets)]
    if found != known:
        raise ValueError(should("family.draw", f"return inputs and labels of the shapes {known[0]} and {known[1]}", found))
    if not all(bool(own.isfinite().all()) for own in (samples.inputs, samples.targets)):
        raise ValueError(should("family.draw", "return finite inputs and all labels", samples))

"""Families: problems of which every instance draws its own data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mtl_gym.checks import number, should
from mtl_gym.identity import code_content
from mtl_gym.problems.splits import SPLITS, Split

Indices = npt.NDArray[np.int64]
COMMON = (*("size", "noise", "constant_label", "unrelated", "nearest_flip", "scale", "holdout_noise", "labels", "split", "lr"),)
"""Names of the axes that all problems have (:data:`mtl_gym.problems.axes.AXES`)."""
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

    As for all problems, the network is part of an instance's seed: with other widths an instance draws other data.

    Attributes:
        axes: What instances differ in, by name.
        draw: Returns the P samples of an instance: those of *train*, then *meta*, *reward* and *test*, as many as in the problem's
            ``splits``, with all labels of the tasks that take part and any valid ones of the others. A pure function of its
            arguments.

    Raises:
        ValueError: If an axis has no name of its own.
    """

    axes: Mapping[str, OwnAxis]
    draw: DrawSamples

    def __post_init__(self) -> None:
        for name in self.axes:
            if not isinstance(name, str) or not name.isidentifier() or name in COMMON:
                condition = f"have names of their own, without a colon; all problems have {', '.join(COMMON)}"
                raise ValueError(should("axes", condition, name, "Rename the axis."))

    @property
    def content(self) -> Any:
        """Describes it, JSON-plain; raises a ValueError if ``draw`` refers to values that cannot be described."""
        try:
            return code_content([dict(self.axes), self.draw])
        except (TypeError, RecursionError) as error:
            remedy = "Let it refer to numbers, texts, arrays, functions and classes."
            raise ValueError(should("family.draw", f"be one that can be identified: {error}", self.draw, remedy)) from error

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


def check_family(family: Family, splits: Mapping[str, Split], check_labels: Callable[[Mapping[str, Split]], None]) -> None:
    """Draws examples, with the axes at both ends of their ranges and in the middle, and checks that they fit the problem.

    Args:
        family: The family.
        splits: The problem's own, whose labels are all there.
        check_labels: Checks the labels of splits by name.

    Raises:
        TypeError: If ``draw`` does not return a :class:`Split`.
        ValueError: If the samples are not as many, or of another shape or type, than those of the problem's splits; if inputs or
            labels are not finite, or labels not of the tasks' kinds; if ``draw`` is no pure function; or if the splits lack labels.
    """
    example, rows = splits["train"], rows_of({name: len(own) for name, own in splits.items()})
    if any(bool(own.targets.isnan().any()) for own in splits.values()):
        raise ValueError(should("splits", "have all labels where there is a `family`: the axis `labels` removes some", "NaN"))
    count, num_tasks = sum(map(len, splits.values())), example.targets.shape[1]
    for place in (0.5, 0.0, 1.0):
        values = {name: own.low + place * (own.high - own.low) for name, own in family.axes.items()}
        first, again = (family.draw(values, np.arange(num_tasks), np.random.default_rng(0)) for _ in range(2))
        _check_samples(first, example, count)
        if not (torch.equal(first.inputs, again.inputs) and torch.equal(first.targets, again.targets)):
            raise ValueError(should("family.draw", "return the same for the same generator: draw from it alone", "other samples"))
        check_labels({f"family.draw, {name}": first[torch.from_numpy(own)] for name, own in rows.items()})


def _check_samples(samples: Split, example: Split, count: int) -> None:
    """Raises TypeError or ValueError unless samples are as those of an example."""
    if not isinstance(samples, Split):
        raise TypeError(should("family.draw", "return a Split", type(samples).__name__))
    if not samples.is_numbers or not example.is_numbers:
        raise ValueError(should("family.draw", "return inputs of float32 in one array, as those of `splits`", samples))
    known = [(count, *own.shape[1:]) for own in (example.inputs, example.targets)]
    found = [tuple(own.shape) for own in (samples.inputs, samples.targets)]
    if found != known:
        raise ValueError(should("family.draw", f"return inputs and labels of the shapes {known[0]} and {known[1]}", found))
    if not all(bool(own.isfinite().all()) for own in (samples.inputs, samples.targets)):
        raise ValueError(should("family.draw", "return finite inputs and all labels", samples))

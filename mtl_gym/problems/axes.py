"""The axes along which instances of a problem differ, and distributions over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mtl_gym.checks import choose, number, should
from mtl_gym.problems.base import Problem
from mtl_gym.problems.families import Family

Distribution = Mapping[str, tuple[float, float]]

AXES: Distribution = {
    "size": (1.0, 1.0),
    "noise": (0.0, 0.0),
    "constant_label": (0.0, 0.0),
    "unrelated": (0.0, 0.0),
    "nearest_flip": (0.0, 0.0),
    "scale": (1.0, 1.0),
    "holdout_noise": (0.0, 0.0),
    "labels": (1.0, 1.0),
    "split": (0.0, 0.0),
    "lr": (1.0, 1.0),
}
"""Axis to its range in distributions that do not name it.

``size``: fraction of the training samples that are used. ``noise``: fraction of a task's training labels that are taken from
another random training sample, drawn for each task; uniform flips if classes are equally frequent. ``constant_label``: fraction of
a task's training labels that are replaced by that of a single training sample. ``unrelated``: fraction of the auxiliary tasks (all
but the main one) whose training labels all come from random samples. ``nearest_flip``: fraction of the auxiliary tasks whose
training labels are those of the most similar sample with another label (:func:`mtl_gym.problems.opposites.opposites`). ``scale``:
factor of a task's loss on every split, from 1e-6 to 1e6, drawn for each task, log-uniform. ``holdout_noise``: rate of wrong labels
in *meta* and *reward*, relative to ``noise``. ``labels``: fraction of a task's training labels that are there (at least one), drawn
for each task. ``split``: (0, 0): the problem's own split; (1, 1): each instance draws *train*, *meta*, *reward* and *test* from the
problem's pool. ``lr``: factor of the learning rate, from 1e-6 to 1e6, log-uniform.

An axis that is drawn for each task may also be given for one task, as ``"labels:digit"``; it then takes precedence there.
"""
EACH_TASK = ("noise", "constant_label", "scale", "labels")
"""Axes that are drawn for each task, so that ``axis:task`` is an axis too."""
WRONG_LABELS = ("noise", "constant_label", "unrelated", "nearest_flip")
"""Axes that corrupt training labels."""

DISTRIBUTIONS: dict[str, Distribution] = {
    "clean": {},
    "varied": {
        "size": (0.3, 1.0),
        "noise": (0.0, 0.4),
        "scale": (0.1, 10.0),
        "labels": (0.1, 1.0),
        "split": (1.0, 1.0),
        "lr": (0.5, 2.0),
    },
    "noisy": {
        "size": (0.5, 1.0),
        "noise": (0.0, 0.7),
        "constant_label": (0.0, 0.2),
        "unrelated": (0.0, 0.5),
        "nearest_flip": (0.0, 0.5),
    },
}
"""``clean``: only initial weights and order vary. ``varied``: training size, label noise, loss scales, the number of labels and the
learning rate vary too, and the split where the problem has a pool. ``noisy``: many labels are wrong, and some tasks harm the
others. Held-out labels are correct in all of them."""

_FACTOR = (1e-6, 1e6)
_BOUNDS = {"scale": _FACTOR, "lr": _FACTOR}  # the other axes are fractions
_ABOVE_ZERO = ("size", "labels")


def resolve(distribution: str | Distribution, problem: Problem | None = None) -> Distribution:
    """Returns the range of every axis of a row of ``DISTRIBUTIONS``, or of a mapping of some of the axes to ranges (low, high).

    Axes are ``AXES`` and, where ``problem`` is a family, its own. A row's ``split`` is left out where ``problem`` has no pool. Axes
    of one task, ``axis:task``, follow those of all tasks.

    Raises:
        TypeError: If ``distribution`` is neither a name nor a mapping, or a range is not a pair of numbers.
        ValueError: If a name is unknown, an axis is of a task that ``problem`` does not have, a range is invalid, or a mapping has
            ``split`` where ``problem`` has no pool.
    """
    pooled = problem is None or problem.pool is not None
    if isinstance(distribution, str):
        row = choose("distribution", distribution, DISTRIBUTIONS)
        own_axes = problem.family.ranges if problem and problem.family else {}
        return {**AXES, **own_axes, **{axis: own for axis, own in row.items() if axis != "split" or pooled}}
    if not isinstance(distribution, Mapping):
        raise TypeError(should("distribution", "be a name or a mapping of axes to ranges", distribution))
    names = None if problem is None else [task.name for task in problem.tasks]
    family = problem.family if problem else None
    given = {choose_axis(axis, names, family): _range(axis, bounds, family) for axis, bounds in distribution.items()}
    ranges = {**AXES, **(family.ranges if family else {}), **given}
    if ranges["split"] not in ((0.0, 0.0), (1.0, 1.0)):
        raise ValueError(should("distribution['split']", "be (0, 0) or (1, 1)", distribution["split"]))
    if problem is not None and not pooled and ranges["split"] != AXES["split"]:
        reason = "lets instances draw all their data" if family else "has no pool from which instances could draw a split"
        condition = f"be left out: {problem.name!r} {reason}"
        raise ValueError(should("distribution['split']", condition, distribution["split"]))
    return ranges


def choose_axis(axis: str, tasks: Sequence[str] | None = None, family: Family | None = None) -> str:
    """The name of an axis, perhaps of one of these tasks (``None``: of any); raises ValueError if there is no such axis."""
    kind, colon, _ = axis.partition(":") if isinstance(axis, str) else (axis, "", "")
    choose("distribution", kind, {**AXES, **(family.axes if family else {})})
    if colon and kind not in EACH_TASK:
        raise ValueError(should("distribution", f"have {kind!r} without a task: it is not drawn for each task", axis))
    if colon and tasks is not None:
        choose("distribution", axis, {f"{kind}:{own}": own for own in tasks})
    return axis


def extremes(ranges: Distribution, axis: str) -> tuple[float, float]:
    """The least and the greatest value that an axis may have, for any task."""
    own = [bounds for name, bounds in ranges.items() if name.partition(":")[0] == axis]
    return min(low for low, _ in own), max(high for _, high in own)


def bounds(ranges: Distribution, axis: str, tasks: Sequence[str]) -> tuple[list[float], list[float]]:
    """The lower and the upper ends of the range of an axis for each of these tasks."""
    low, high = zip(*(ranges.get(f"{axis}:{task}", ranges[axis]) for task in tasks), strict=True)
    return [*low], [*high]


def _range(axis: str, bounds: object, family: Family | None) -> tuple[float, float]:
    if not isinstance(bounds, (tuple, list)) or len(bounds) != 2:
        raise TypeError(should(f"distribution[{axis!r}]", "be a pair (low, high)", bounds))
    kind = axis.partition(":")[0]
    own = family.axes.get(kind) if family else None
    least, most = (own.least, own.most) if own else _BOUNDS.get(kind, (0.0, 1.0))
    ends = "(]" if kind in _ABOVE_ZERO else "[]"
    low, high = (number(f"distribution[{axis!r}]", bound, low=least, high=most, ends=ends) for bound in bounds)
    if low > high:
        raise ValueError(should(f"distribution[{axis!r}]", "have low <= high", bounds))
    return low, high

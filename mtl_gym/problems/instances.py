"""Instances: one draw from a problem, a pure function of ``(problem, distribution, num_tasks, tasks, network, id)``.

Every axis has its own stream, so that a wider range on one axis does not change the others. Initial weights and data order
always vary; the other axes vary within the ranges that a distribution gives them. ``tasks``, those that may take part, are not
part of the seed either: the subset is the first ``num_tasks`` of them in one permutation of all. So an instance whose tasks are
all allowed is the same whatever else is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_gym.arguments import choose, number, should
from mtl_gym.problems.base import Problem
from mtl_gym.problems.opposites import opposites

Distribution = Mapping[str, tuple[float, float]]

AXES: Distribution = {
    "size": (1.0, 1.0),
    "noise": (0.0, 0.0),
    "constant_label": (0.0, 0.0),
    "unrelated": (0.0, 0.0),
    "nearest_flip": (0.0, 0.0),
    "scale": (1.0, 1.0),
    "holdout_noise": (0.0, 0.0),
}
"""Axis to its range where a distribution is silent.

``size``: share of the training samples that are used. ``noise``: share of a task's training labels that are taken from
another random training sample, drawn for each task: uniform flips, where classes are equally frequent. ``constant_label``: share of
a task's training labels that are replaced by that of one and the same training sample. ``unrelated``: share of the auxiliary
tasks (all but the main one) whose training labels all come from random samples. ``nearest_flip``: share of the auxiliary tasks
whose training labels are those of the most similar sample with another label (:func:`mtl_gym.problems.opposites.opposites`).
``scale``: factor of a task's loss on every split, drawn for each task, log-uniform. ``holdout_noise``: rate, relative to ``noise``,
at which labels of *meta* and *reward* are wrong too.
"""
WRONG_LABELS = ("noise", "constant_label", "unrelated", "nearest_flip")
"""Axes that make training labels wrong."""

DISTRIBUTIONS: dict[str, Distribution] = {
    "clean": {},
    "varied": {"size": (0.3, 1.0), "noise": (0.0, 0.4), "scale": (0.1, 10.0)},
    "noisy": {
        "size": (0.5, 1.0),
        "noise": (0.0, 0.7),
        "constant_label": (0.0, 0.2),
        "unrelated": (0.0, 0.5),
        "nearest_flip": (0.0, 0.5),
    },
}
"""``clean``: only initial weights and order vary. ``varied``: training size, label noise and loss scales vary too. ``noisy``: the
labels of many samples are wrong, and some tasks harm the others. Agents train on the latter two; hold-outs stay clean."""

EVALUATION_IDS = (0, 2**31)
TRAINING_IDS = (2**31, 2**62)
_STREAMS = (
    *("parameters", "order", "size", "subset", "scale", "noise", "labels", "holdout_noise", "meta", "reward"),
    *("constant_label", "stuck", "unrelated", "nearest_flip", "harmful"),
)
_BOUNDS = {"scale": (0.0, np.inf)}  # the other axes are shares


def resolve(distribution: str | Distribution) -> Distribution:
    """Returns the range of every axis.

    Args:
        distribution: Row of ``DISTRIBUTIONS``, or a range (low, high) for some of the ``AXES``.

    Raises:
        TypeError: If it is neither a name nor a mapping, or a range is no pair of numbers.
        ValueError: If a name is unknown or a range is impossible.
    """
    if isinstance(distribution, str):
        return {**AXES, **choose("distribution", distribution, DISTRIBUTIONS)}
    if not isinstance(distribution, Mapping):
        raise TypeError(should("distribution", "be a name or a mapping of axes to ranges", distribution))
    ranges = dict(AXES)
    for axis, bounds in distribution.items():
        choose("distribution", axis, AXES)
        if not isinstance(bounds, (tuple, list)) or len(bounds) != 2:
            raise TypeError(should(f"distribution[{axis!r}]", "be a pair (low, high)", bounds))
        least, most = _BOUNDS.get(axis, (0.0, 1.0))
        ends = "(]" if axis in ("size", "scale") else "[]"
        low, high = (number(f"distribution[{axis!r}]", bound, low=least, high=most, ends=ends) for bound in bounds)
        if low > high:
            raise ValueError(should(f"distribution[{axis!r}]", "have low <= high", bounds))
        ranges[axis] = (low, high)
    return ranges


@dataclass(frozen=True)
class Instance:
    """One draw from a problem.

    Attributes:
        id: Its number; [0, 2^31) for evaluation, [2^31, 2^62) for training.
        entropy: Words that seed its streams.
        tasks: (K,) the problem's tasks that take part: the main one first, if there is one, then ascending.
        scales: (K,) factor of each task's loss.
        noise: (K,) share of training labels of each task that are another sample's; 1 for an unrelated task.
        constant_label: (K,) share of training labels that are one and the same.
        nearest_flip: (K,) bool, the tasks whose labels are the most similar different sample's.
        holdout_noise: Rate, relative to ``noise``, of wrong hold-out labels.
        rows: (n,) the training samples that are used, ascending.
    """

    id: int
    entropy: tuple[int, ...]
    tasks: npt.NDArray[np.int64]
    scales: npt.NDArray[np.float32]
    noise: npt.NDArray[np.float64]
    constant_label: npt.NDArray[np.float64]
    nearest_flip: npt.NDArray[np.bool_]
    holdout_noise: float
    rows: npt.NDArray[np.int64]

    def stream(self, name: str) -> np.random.Generator:
        """A fresh generator at the start of the named stream."""
        return _stream(self.entropy, name)

    def order(self, batch_size: int, batches: int) -> npt.NDArray[np.int32]:
        """The samples of the first ``batches`` batches: (batches, batch_size), epoch by epoch, incomplete batches dropped."""
        rng = self.stream("order")
        per_epoch = len(self.rows) // batch_size
        epochs = [rng.permutation(self.rows)[: per_epoch * batch_size] for _ in range(-(-batches // per_epoch))]
        return np.concatenate(epochs).astype(np.int32).reshape(-1, batch_size)[:batches]

    def label_source(self, problem: Problem) -> npt.NDArray[np.int32]:
        """The training sample whose label each training sample bears: (n, all tasks); itself, where the label is right."""
        rows = np.arange(len(problem.splits["train"]))
        source = _source(self.stream("labels"), self.tasks, self.noise, problem.num_tasks, rows, self.rows)
        rng = self.stream("stuck")
        stuck = rng.random((len(rows), len(self.tasks))) < self.constant_label
        source[:, self.tasks] = np.where(stuck, rng.choice(self.rows, len(self.tasks)), source[:, self.tasks])
        for task in self.tasks[self.nearest_flip].tolist():
            source[:, task] = opposites(problem, task)
        return source

    def holdout_source(self, split: str, num_tasks: int, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        """The sample of *meta* or *reward* whose label each of ``rows`` bears: (len(rows), num_tasks)."""
        return _source(self.stream(split), self.tasks, self.noise * self.holdout_noise, num_tasks, rows, rows)


def draw(
    problem: Problem,
    *,
    distribution: Distribution,
    num_tasks: int,
    tasks: Collection[str] | None = None,
    main_task: str | None = None,
    network: str,
    id: int,
) -> Instance:
    """Draws the instance with that id.

    Args:
        problem: The problem.
        distribution: The range of every axis, from :func:`resolve`.
        num_tasks: Size of the task subset.
        tasks: Names of the tasks that the subset is drawn from, at least ``num_tasks``; ``None``: all of the problem's.
        main_task: Name of the task that always takes part, and comes first; ``None``: no task is above the others.
        network: Words that identify the network, since it fixes the initial weights.
        id: In [0, 2^62).
    """
    # Neither ranges nor tasks are part of the seed: what an axis draws does not depend on the range of another.
    identity = [problem.name, problem.version, num_tasks, network]
    digest = hashlib.sha256(json.dumps(identity).encode()).digest()
    entropy = (*np.frombuffer(digest, dtype=np.uint32).tolist(), id)

    def uniform(axis: str, size: int | None = None) -> npt.NDArray[np.float64]:
        return np.asarray(_stream(entropy, axis).uniform(*distribution[axis], size=size))

    count = len(problem.splits["train"])
    used = max(1, round(count * float(uniform("size"))))
    permuted = _stream(entropy, "subset").permutation(problem.num_tasks)
    scale_low, scale_high = np.log(distribution["scale"])
    unrelated, nearest_flip = _harmful(
        _stream(entropy, "harmful"), num_tasks, first=main_task is not None, shares=(uniform("unrelated"), uniform("nearest_flip"))
    )
    return Instance(
        id=id,
        entropy=entropy,
        tasks=_subset(problem, permuted, num_tasks, tasks, main_task),
        scales=np.exp(_stream(entropy, "scale").uniform(scale_low, scale_high, size=num_tasks)).astype(np.float32),
        noise=np.where(unrelated, 1.0, uniform("noise", num_tasks)),
        constant_label=uniform("constant_label", num_tasks),
        nearest_flip=nearest_flip,
        holdout_noise=float(uniform("holdout_noise")),
        rows=np.sort(_stream(entropy, "size").permutation(count)[:used]) if used < count else np.arange(count),
    )


def _subset(
    problem: Problem, permuted: npt.NDArray[np.int64], num_tasks: int, tasks: Collection[str] | None, main_task: str | None
) -> npt.NDArray[np.int64]:
    """The first of the permuted tasks that may take part, ascending; the main one is always among them, and is put first."""
    names = [task.name for task in problem.tasks]
    allowed = [number for number in permuted.tolist() if (tasks is None or names[number] in tasks) and names[number] != main_task]
    if main_task is None:
        return np.sort(allowed[:num_tasks])
    return np.array([names.index(main_task), *sorted(allowed[: num_tasks - 1])])


def _harmful(
    rng: np.random.Generator, num_tasks: int, *, first: bool, shares: tuple[Any, Any]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Which tasks (K,) are unrelated, and which nearest flips: these shares of the auxiliary ones; no task is both."""
    auxiliary = rng.permutation(np.arange(int(first), num_tasks))
    unrelated, nearest_flip = (round(float(share) * len(auxiliary)) for share in shares)
    chosen = np.zeros((2, num_tasks), dtype=bool)
    chosen[0, auxiliary[:unrelated]] = True
    chosen[1, auxiliary[unrelated : unrelated + nearest_flip]] = True
    return chosen[0], chosen[1]


def _stream(entropy: tuple[int, ...], name: str) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=(_STREAMS.index(name),)))


def _source(
    rng: np.random.Generator,
    tasks: npt.NDArray[np.int64],
    noise: npt.NDArray[np.float64],
    num_tasks: int,
    rows: npt.NDArray[np.int64],
    donors: npt.NDArray[np.int64],
) -> npt.NDArray[np.int32]:
    source = np.repeat(rows.astype(np.int32)[:, None], num_tasks, axis=1)
    wrong = rng.random((len(rows), len(tasks))) < noise
    source[:, tasks] = np.where(wrong, rng.choice(donors, wrong.shape), source[:, tasks])
    return source

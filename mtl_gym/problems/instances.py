"""Instances: one draw from a problem, a pure function of ``(problem, distribution, num_tasks, tasks, network, id)``.

Every axis has its own random stream, so that a wider range on one axis does not change the others. Initial weights and data order
always vary; the other axes vary within the distribution's ranges. Neither ranges nor ``tasks``, those that may take part, affect
the seed: the subset is the first ``num_tasks`` of them in one permutation of all tasks. An instance whose tasks are all allowed is
therefore the same whichever others are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_gym.checks import choose, number, should
from mtl_gym.problems.base import Problem
from mtl_gym.problems.opposites import opposites

Distribution = Mapping[str, tuple[float, float]]
Indices = npt.NDArray[np.int64]

AXES: Distribution = {
    "size": (1.0, 1.0),
    "noise": (0.0, 0.0),
    "constant_label": (0.0, 0.0),
    "unrelated": (0.0, 0.0),
    "nearest_flip": (0.0, 0.0),
    "scale": (1.0, 1.0),
    "holdout_noise": (0.0, 0.0),
}
"""Axis to its range in distributions that do not name it.

``size``: fraction of the training samples that are used. ``noise``: fraction of a task's training labels that are taken from
another random training sample, drawn for each task; uniform flips if classes are equally frequent. ``constant_label``: fraction of
a task's training labels that are replaced by that of a single training sample. ``unrelated``: fraction of the auxiliary tasks (all
but the main one) whose training labels all come from random samples. ``nearest_flip``: fraction of the auxiliary tasks whose
training labels are those of the most similar sample with another label (:func:`mtl_gym.problems.opposites.opposites`). ``scale``:
factor of a task's loss on every split, from 1e-6 to 1e6, drawn for each task, log-uniform. ``holdout_noise``: rate of wrong labels
in *meta* and *reward*, relative to ``noise``.
"""
WRONG_LABELS = ("noise", "constant_label", "unrelated", "nearest_flip")
"""Axes that corrupt training labels."""

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
"""``clean``: only initial weights and order vary. ``varied``: training size, label noise and loss scales vary too. ``noisy``: many
labels are wrong, and some tasks harm the others. Agents are trained on the latter two, whose held-out labels are correct."""

EVALUATION_IDS = (0, 2**31)
TRAINING_IDS = (2**31, 2**62)
_STREAMS = (
    *("parameters", "order", "size", "subset", "scale", "noise", "labels", "holdout_noise", "meta", "reward"),
    *("constant_label", "stuck", "unrelated", "nearest_flip", "harmful"),
    "dropout",
)
_BOUNDS = {"scale": (1e-6, 1e6)}  # the other axes are fractions


def resolve(distribution: str | Distribution) -> Distribution:
    """Returns the range of every axis of a row of ``DISTRIBUTIONS``, or of a mapping of some of the ``AXES`` to ranges (low, high).

    Raises:
        TypeError: If ``distribution`` is neither a name nor a mapping, or a range is not a pair of numbers.
        ValueError: If a name is unknown or a range is invalid.
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
        ends = "(]" if axis == "size" else "[]"
        low, high = (number(f"distribution[{axis!r}]", bound, low=least, high=most, ends=ends) for bound in bounds)
        if low > high:
            raise ValueError(should(f"distribution[{axis!r}]", "have low <= high", bounds))
        ranges[axis] = (low, high)
    return ranges


@dataclass(frozen=True)
class Instance:
    """One draw from a problem."""

    id: int  # in [0, 2^31) for evaluation, in [2^31, 2^62) for training
    entropy: tuple[int, ...]  # seed of its random streams
    # (K,) indices of the problem's tasks that take part: the main one first, if there is one, then ascending
    tasks: Indices
    scales: npt.NDArray[np.float32]  # (K,) factor of each task's loss
    # (K,) fraction of each task's training labels taken from another sample; 1 for an unrelated task
    noise: npt.NDArray[np.float64]
    constant_label: npt.NDArray[np.float64]  # (K,) fraction of training labels replaced by a single one
    nearest_flip: npt.NDArray[np.bool_]  # (K,) bool, tasks whose labels are those of the most similar sample with another label
    holdout_noise: float  # rate of wrong held-out labels, relative to ``noise``
    rows: Indices  # (n,) indices of the training samples in use, ascending

    def stream(self, name: str) -> np.random.Generator:
        """A new generator at the start of the named stream."""
        return _stream(self.entropy, name)

    def order(self, batch_size: int, batches: int) -> npt.NDArray[np.int32]:
        """The samples (batches, batch_size) of the first ``batches`` batches, epoch by epoch without incomplete batches."""
        rng = self.stream("order")
        per_epoch = len(self.rows) // batch_size
        whole = [rng.permutation(self.rows)[: per_epoch * batch_size].astype(np.int32) for _ in range(-(-batches // per_epoch))]
        return np.concatenate(whole).reshape(-1, batch_size)[:batches]

    def label_source(self, problem: Problem) -> npt.NDArray[np.int32]:
        """Index (n, all tasks) of the training sample whose label each training sample has; its own where the label is correct."""
        rows = np.arange(len(problem.splits["train"]))
        source = self._source("labels", self.noise, problem.num_tasks, rows, self.rows)
        rng = self.stream("stuck")
        stuck = rng.random((len(rows), len(self.tasks))) < self.constant_label
        source[:, self.tasks] = np.where(stuck, rng.choice(self.rows, len(self.tasks)), source[:, self.tasks])
        for task in self.tasks[self.nearest_flip].tolist():
            source[:, task] = opposites(problem, task)
        return source

    def holdout_source(self, split: str, num_tasks: int, rows: Indices) -> npt.NDArray[np.int32]:
        """Index (len(rows), num_tasks) of the sample of *meta* or *reward* whose label each of ``rows`` has."""
        return self._source(split, self.noise * self.holdout_noise, num_tasks, rows, rows)

    def _source(
        self, stream: str, noise: npt.NDArray[np.float64], num_tasks: int, rows: Indices, donors: Indices
    ) -> npt.NDArray[np.int32]:
        rng, source = self.stream(stream), np.repeat(rows.astype(np.int32)[:, None], num_tasks, axis=1)
        wrong = rng.random((len(rows), len(self.tasks))) < noise
        source[:, self.tasks] = np.where(wrong, rng.choice(donors, wrong.shape), source[:, self.tasks])
        return source


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
    """Draws the instance with that id, which has to be in [0, 2^62).

    ``distribution`` comes from :func:`resolve`. The ``num_tasks`` tasks are drawn from the names ``tasks`` (by default all), with
    ``main_task``, if there is one, always first. ``network`` identifies the network, since it determines the initial weights.
    """
    if not EVALUATION_IDS[0] <= id < TRAINING_IDS[1]:
        raise ValueError(should("id", "be in [0, 2^62)", id))
    identity = [problem.name, problem.version, num_tasks, network]
    digest = hashlib.sha256(json.dumps(identity).encode()).digest()
    entropy = (*np.frombuffer(digest, dtype=np.uint32).tolist(), id)

    def uniform(axis: str, size: int | None = None) -> npt.NDArray[np.float64]:
        return np.asarray(_stream(entropy, axis).uniform(*distribution[axis], size=size))

    count = len(problem.splits["train"])
    used = max(1, round(count * float(uniform("size"))))
    permuted = _stream(entropy, "subset").permutation(problem.num_tasks)
    scale_low, scale_high = np.log(distribution["scale"])
    shares = uniform("unrelated"), uniform("nearest_flip")
    unrelated, nearest_flip = _harmful(_stream(entropy, "harmful"), num_tasks, first=main_task is not None, shares=shares)
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


def _subset(problem: Problem, permuted: Indices, num_tasks: int, tasks: Collection[str] | None, main_task: str | None) -> Indices:
    """The first of the permuted tasks that may take part, ascending, after the main one, which always takes part."""
    names = [task.name for task in problem.tasks]
    allowed = [number for number in permuted.tolist() if (tasks is None or names[number] in tasks) and names[number] != main_task]
    if main_task is None:
        return np.sort(allowed[:num_tasks])
    return np.array([names.index(main_task), *sorted(allowed[: num_tasks - 1])])


def _harmful(
    rng: np.random.Generator, num_tasks: int, *, first: bool, shares: tuple[Any, Any]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Which tasks (K,) are unrelated, and which nearest flips: these fractions of the auxiliary ones, without overlap."""
    auxiliary = rng.permutation(np.arange(int(first), num_tasks))
    unrelated, nearest_flip = (round(float(share) * len(auxiliary)) for share in shares)
    chosen = np.zeros((2, num_tasks), dtype=bool)
    chosen[0, auxiliary[:unrelated]] = True
    chosen[1, auxiliary[unrelated : unrelated + nearest_flip]] = True
    return chosen[0], chosen[1]


def _stream(entropy: tuple[int, ...], name: str) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=(_STREAMS.index(name),)))

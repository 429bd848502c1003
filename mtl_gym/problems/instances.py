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

import numpy as np
import numpy.typing as npt

from mtl_gym.arguments import choose, number, should
from mtl_gym.problems.base import Problem

Distribution = Mapping[str, tuple[float, float]]

AXES: Distribution = {"size": (1.0, 1.0), "noise": (0.0, 0.0), "scale": (1.0, 1.0), "holdout_noise": (0.0, 0.0)}
"""Axis to its range where a distribution is silent.

``size``: share of the training samples that are used. ``noise``: share of a task's training labels that are taken from
another random training sample, drawn for each task. ``scale``: factor of a task's loss on every split, drawn for each task,
log-uniform. ``holdout_noise``: rate, relative to ``noise``, at which labels of *meta* and *reward* are wrong too.
"""

DISTRIBUTIONS: dict[str, Distribution] = {
    "clean": {},
    "varied": {"size": (0.3, 1.0), "noise": (0.0, 0.4), "scale": (0.1, 10.0)},
}
"""``clean``: only initial weights and order vary. ``varied``: training size, label noise and loss scales vary too (what agents
train on); hold-outs stay clean."""

EVALUATION_IDS = (0, 2**31)
TRAINING_IDS = (2**31, 2**62)
_STREAMS = ("parameters", "order", "size", "subset", "scale", "noise", "labels", "holdout_noise", "meta", "reward")
_BOUNDS = {"size": (0.0, 1.0), "noise": (0.0, 1.0), "scale": (0.0, np.inf), "holdout_noise": (0.0, 1.0)}


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
        least, most = _BOUNDS[axis]
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
        tasks: (K,) the problem's tasks that take part, ascending.
        scales: (K,) factor of each task's loss.
        noise: (K,) share of wrong training labels of each task.
        holdout_noise: Rate, relative to ``noise``, of wrong hold-out labels.
        rows: (n,) the training samples that are used, ascending.
    """

    id: int
    entropy: tuple[int, ...]
    tasks: npt.NDArray[np.int64]
    scales: npt.NDArray[np.float32]
    noise: npt.NDArray[np.float64]
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

    def label_source(self, num_tasks: int, count: int) -> npt.NDArray[np.int32]:
        """The training sample whose label each training sample bears: (count, num_tasks); itself, where the label is right."""
        return _source(self.stream("labels"), self.tasks, self.noise, num_tasks, np.arange(count), self.rows)

    def holdout_source(self, split: str, num_tasks: int, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        """The sample of *meta* or *reward* whose label each of ``rows`` bears: (len(rows), num_tasks)."""
        return _source(self.stream(split), self.tasks, self.noise * self.holdout_noise, num_tasks, rows, rows)


def draw(
    problem: Problem,
    *,
    distribution: Distribution,
    num_tasks: int,
    tasks: Collection[str] | None = None,
    network: str,
    id: int,
) -> Instance:
    """Draws the instance with that id.

    Args:
        problem: The problem.
        distribution: The range of every axis, from :func:`resolve`.
        num_tasks: Size of the task subset.
        tasks: Names of the tasks that the subset is drawn from, at least ``num_tasks``; ``None``: all of the problem's.
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
    allowed = [number for number, task in enumerate(problem.tasks) if tasks is None or task.name in tasks]
    permuted = _stream(entropy, "subset").permutation(problem.num_tasks)
    scale_low, scale_high = np.log(distribution["scale"])
    return Instance(
        id=id,
        entropy=entropy,
        tasks=np.sort(permuted[np.isin(permuted, allowed)][:num_tasks]),
        scales=np.exp(_stream(entropy, "scale").uniform(scale_low, scale_high, size=num_tasks)).astype(np.float32),
        noise=uniform("noise", num_tasks),
        holdout_noise=float(uniform("holdout_noise")),
        rows=np.sort(_stream(entropy, "size").permutation(count)[:used]) if used < count else np.arange(count),
    )


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

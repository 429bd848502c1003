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
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mtl_gym.checks import should
from mtl_gym.problems.axes import Distribution, bounds
from mtl_gym.problems.base import Problem
from mtl_gym.problems.drawn_splits import draw_split
from mtl_gym.problems.families import rows_of
from mtl_gym.problems.labels import complete_batches, kept_labels, labelled_samples, with_labels
from mtl_gym.problems.opposites import opposites, opposites_in
from mtl_gym.problems.splits import Split

Indices = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

EVALUATION_IDS = (0, 2**31)
TRAINING_IDS = (2**31, 2**62)
_STREAMS = (
    *("parameters", "order", "size", "subset", "scale", "noise", "labels", "holdout_noise", "meta", "reward"),
    *("constant_label", "stuck", "unrelated", "nearest_flip", "harmful"),
    "dropout",
    *("split", "share", "kept", "completed", "lr", "fixed"),
    *("family", "data"),
)


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
    labels: npt.NDArray[np.float64]  # (K,) fraction of each task's training labels that are there
    lr: float  # factor of the learning rate
    # indices (n,) into the problem's pool of each split that the instance has drawn; ``None``: the problem's own splits
    members: Mapping[str, Indices] | None = None
    own: Mapping[str, float] = field(default_factory=dict)  # the values of the axes of the problem's family

    def split(self, problem: Problem, name: str) -> Split:
        """The samples of a split with their own labels."""
        if problem.family is not None:
            rows = rows_of({split: len(own) for split, own in problem.splits.items()})[name]
            return self.samples(problem)[torch.from_numpy(rows)]
        if self.members is None or problem.pool is None:
            return problem.splits[name]
        moments = problem.pool.moments(self.members["train"])
        return moments.normalised(problem.pool.samples[torch.from_numpy(self.members[name])])

    def samples(self, problem: Problem) -> Split:
        """The P samples that an instance of a family has drawn, split by split; computed anew."""
        if problem.family is None:
            raise ValueError(should("problem", "be a family, whose instances draw all their data", problem.name))
        return problem.family.draw(self.own, self.tasks, self.stream("data"))

    def labelled(self, problem: Problem) -> Mask:
        """Whether each training sample has a label of its own of each task (n, all tasks), before any are removed."""
        if self.members is None or problem.pool is None:  # that of a family has all labels
            return labelled_samples(problem, problem.splits["train"].targets)
        return labelled_samples(problem, problem.pool.samples.targets[self.members["train"]])

    def stream(self, name: str) -> np.random.Generator:
        """A new generator at the start of the named stream."""
        return _stream(self.entropy, name)

    def order(self, batch_size: int, batches: int, known: Mask | None = None) -> npt.NDArray[np.int32]:
        """The samples (batches, batch_size) of the first ``batches`` batches, epoch by epoch without incomplete batches.

        Where ``known`` (n, K), the labelled training samples of each participating task, is given, a batch without a label of some
        task gets one in place of a sample that is no other task's only one, if there is such a sample.
        """
        rng = self.stream("order")
        per_epoch = len(self.rows) // batch_size
        whole = [rng.permutation(self.rows)[: per_epoch * batch_size].astype(np.int32) for _ in range(-(-batches // per_epoch))]
        order = np.concatenate(whole).reshape(-1, batch_size)[:batches]
        return order if known is None else complete_batches(order, known, self.stream("completed"))

    def label_source(self, problem: Problem) -> npt.NDArray[np.int32]:
        """Index (n, all tasks) of the training sample whose label each training sample has; its own where the label is correct.

        It is -1 where a label is missing because of ``labels``. A sample without a label of its own gets none from another.
        """
        rows = np.arange(len(problem.splits["train"]))
        known = None if problem.complete else self.labelled(problem)[:, self.tasks]
        source = self._source("labels", self.noise, problem.num_tasks, rows, self.rows, known)
        rng = self.stream("stuck")
        stuck = _wrong(rng, rows, self.constant_label, known)
        source[:, self.tasks] = np.where(stuck, _donors(rng, self.rows, known, (1, len(self.tasks))), source[:, self.tasks])
        for task in self.tasks[self.nearest_flip].tolist():
            own = self.members is not None or problem.family is not None
            source[:, task] = opposites_in(self.split(problem, "train"), problem, task) if own else opposites(problem, task)
        if (self.labels < 1).any():
            borne = np.take_along_axis(self.labelled(problem), source, axis=0)
            kept = kept_labels(borne[:, self.tasks], self.rows, self.labels, self.stream("kept"))
            source[:, self.tasks] = np.where(kept, source[:, self.tasks], -1)
        return source

    def arranged(self, problem: Problem, split: str, places: Indices) -> Indices:
        """A drawn split's samples (n,) in the pool, those at ``places`` with labels of every participating task if there is room.

        Without missing labels their order is ascending.
        """
        if self.members is None or problem.pool is None:
            raise ValueError(should("split", "be one that the instance has drawn; it has the problem's own", split))
        own = self.members[split]
        if problem.complete:
            return own
        known = labelled_samples(problem, problem.pool.samples.targets[own])[:, self.tasks]
        return own[with_labels(places, known, self.stream("fixed"))]

    def holdout_source(self, split: str, num_tasks: int, rows: Indices, known: Mask | None = None) -> npt.NDArray[np.int32]:
        """Index (len(rows), num_tasks) of the sample of *meta* or *reward* whose label each of ``rows`` has.

        ``known`` (n, K) says which samples of the split have a label of each participating task; ``None``: all have.
        """
        return self._source(split, self.noise * self.holdout_noise, num_tasks, rows, rows, known)

    def _source(
        self, stream: str, noise: npt.NDArray[np.float64], num_tasks: int, rows: Indices, donors: Indices, known: Mask | None
    ) -> npt.NDArray[np.int32]:
        rng, source = self.stream(stream), np.repeat(rows.astype(np.int32)[:, None], num_tasks, axis=1)
        wrong = _wrong(rng, rows, noise, known)
        source[:, self.tasks] = np.where(wrong, _donors(rng, donors, known, wrong.shape), source[:, self.tasks])
        return source


def _wrong(rng: np.random.Generator, rows: Indices, shares: npt.NDArray[np.float64], known: Mask | None) -> Mask:
    """Which labels (len(rows), K) become those of another sample: these fractions of the ones that there are."""
    wrong = rng.random((len(rows), len(shares))) < shares
    return wrong if known is None else wrong & known[rows]


def _donors(rng: np.random.Generator, rows: Indices, known: Mask | None, shape: tuple[int, int]) -> Indices:
    """Random samples (count, K) among ``rows``, each with a label of the task where there is one."""
    if known is None:
        return rng.choice(rows, shape)
    count, num_tasks = shape
    labelled = [rows[known[rows, task]] for task in range(num_tasks)]
    return np.stack([rng.choice(own if len(own) else rows, count) for own in labelled], axis=1)


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

    permuted = _stream(entropy, "subset").permutation(problem.num_tasks)
    chosen = _subset(problem, permuted, num_tasks, tasks, main_task)
    names = [problem.tasks[task].name for task in chosen.tolist()]

    def uniform(axis: str) -> float:
        return float(_stream(entropy, axis).uniform(*distribution[axis]))

    def each_task(axis: str, *, stream: str | None = None, scale: Any = np.asarray) -> npt.NDArray[np.float64]:
        low, high = bounds(distribution, axis, names)
        return _stream(entropy, stream or axis).uniform(scale(low), scale(high))

    count = len(problem.splits["train"])
    used = max(1, round(count * uniform("size")))
    shares = uniform("unrelated"), uniform("nearest_flip")
    unrelated, nearest_flip = _harmful(_stream(entropy, "harmful"), num_tasks, first=main_task is not None, shares=shares)
    return Instance(
        id=id,
        entropy=entropy,
        tasks=chosen,
        scales=np.exp(each_task("scale", scale=np.log)).astype(np.float32),
        noise=np.where(unrelated, 1.0, each_task("noise")),
        constant_label=each_task("constant_label"),
        nearest_flip=nearest_flip,
        holdout_noise=uniform("holdout_noise"),
        rows=np.sort(_stream(entropy, "size").permutation(count)[:used]) if used < count else np.arange(count),
        labels=each_task("labels", stream="share"),
        lr=float(np.exp(_stream(entropy, "lr").uniform(*np.log(distribution["lr"])))),
        members=draw_split(problem, _stream(entropy, "split")) if distribution["split"][0] else None,
        own=problem.family.values(distribution, _stream(entropy, "family")) if problem.family else {},
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

"""``teachers``: random networks label random inputs, and every instance draws its own: a family of problems that has no end.

The K tasks of an instance are drawn from a fixed pool of *slots*: as many binary ones as classes and regressions. What their labels
are is new in each instance, so a policy that is trained on them cannot learn a data set by heart.

An instance draws values of the axes below, then

- n inputs ``x``: normal, with a random mixing of the columns whose spectrum falls; columns that it does not use are 0;
- features that all tasks share, and some of each task's own: ``h = sin(omega P x + b)`` with random directions P, one such layer
  upon another at a larger ``depth``;
- a latent value (several for classes) of each task, ``f_k = sqrt(r_k) v_k h + sqrt(1 - r_k) u_k h_k`` with random unit vectors
  v_k and u_k, plus noise; r_k is spread around ``relatedness``;
- labels: the latent value itself, whether it is above a quantile, or which is largest.

With ``conflict`` a task's own features look along the directions of the shared ones with other phases, so that a unit of the trunk
cannot serve both; without it along directions of their own.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import ndtri

from mtl_gym.problems.base import Split, Task
from mtl_gym.problems.families import Family, OwnAxis, rows_of

Array = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]

KINDS = ("binary", "classes", "number")
SLOTS, MANY_SLOTS = 4, 14
"""Slots of each kind, in ``teachers`` and in ``teachers_many``."""
INPUTS, CLASSES = 24, 4
SIZES = {"train": 800, "meta": 256, "reward": 512, "test": 1_024}
SHARED, OWN = 6, 3
"""Features that all tasks share, and of each task's own."""

AXES = {
    "relatedness": OwnAxis(
        0.0, 1.0, 0.0, 1.0, "about the share of a task's latent variance that comes from features which all tasks share"
    ),
    "conflict": OwnAxis(0.0, 1.0, 0.0, 1.0, "how far a task's own features look along the directions of the shared ones"),
    "difficulty": OwnAxis(0.3, 1.0, 0.05, 4.0, "frequency of the features along their directions"),
    "depth": OwnAxis(1.0, 2.0, 1.0, 5.0, "layers of features, rounded"),
    "errors": OwnAxis(
        0.05, 1.0, 0.0, 5.0, "noise of the latent values over their own deviation, in all splits; tasks are spread around it"
    ),
    "imbalance": OwnAxis(0.0, 0.8, 0.0, 0.95, "how far classes are from being equally frequent"),
    "width": OwnAxis(0.35, 1.0, 0.1, 1.0, "share of the input columns that are used"),
}
SHIFTED = {
    "relatedness": (0.0, 1.0),
    "conflict": (0.0, 1.0),
    "difficulty": (1.0, 1.6),
    "depth": (3.0, 3.0),
    "errors": (1.0, 1.5),
    "imbalance": (0.8, 0.95),
    "width": (0.15, 0.35),
}
"""Ranges of ``teachers_shifted``, beyond those of training wherever there is a beyond."""


def load() -> tuple[tuple[Task, ...], dict[str, Split], Family]:
    """Returns 12 slots, the splits of an example, and the family."""
    return _family(SLOTS, AXES)


def load_many() -> tuple[tuple[Task, ...], dict[str, Split], Family]:
    """The same with 42 slots."""
    return _family(MANY_SLOTS, AXES)


def load_shifted() -> tuple[tuple[Task, ...], dict[str, Split], Family]:
    """The same with 12 slots, and ranges of all but relatedness and conflict that ``teachers`` never draws."""
    axes = {name: OwnAxis(*SHIFTED[name], own.least, own.most, own.meaning) for name, own in AXES.items()}
    return _family(SLOTS, axes)


def _family(slots: int, axes: Mapping[str, OwnAxis]) -> tuple[tuple[Task, ...], dict[str, Split], Family]:
    family = Family(axes, Teachers(slots))
    values = family.values(family.ranges, np.random.default_rng(0))
    samples = family.draw(values, np.arange(len(KINDS) * slots), np.random.default_rng(1))
    splits = {name: Split(samples.inputs[rows], samples.targets[rows]) for name, rows in rows_of(SIZES).items()}
    return tuple(_task(kind, place) for kind in KINDS for place in range(slots)), splits, family


def _task(kind: str, place: int) -> Task:
    name = f"{kind}_{place}"
    if kind == "binary":
        return Task(name, "bce", ("auc",))
    return Task(name, "cross_entropy", ("accuracy",), CLASSES) if kind == "classes" else Task(name, "mse", ("nrmse",))


class Teachers:
    """Draws the samples of an instance (:class:`mtl_gym.problems.families.Family`), with ``slots`` of each kind."""

    def __init__(self, slots: int) -> None:
        self.slots = slots

    def __call__(self, values: Mapping[str, float], tasks: Indices, rng: np.random.Generator) -> Split:
        """The samples; labels of tasks that do not take part are 0."""
        count = sum(SIZES.values())
        inputs = _inputs(rng, count, max(1, round(values["width"] * INPUTS)))
        latents = _latents(rng, inputs, values, [self._scores(task) for task in tasks.tolist()])
        targets = np.zeros((count, len(KINDS) * self.slots), np.float32)
        for task, latent in zip(tasks.tolist(), latents, strict=True):
            targets[:, task] = _LABELS[KINDS[task // self.slots]](rng, latent, values["imbalance"])
        padded = np.zeros((count, INPUTS), np.float32)
        padded[:, : inputs.shape[1]] = inputs
        return Split(torch.from_numpy(padded), torch.from_numpy(targets))

    def _scores(self, task: int) -> int:
        """Latent values of a task."""
        return CLASSES if KINDS[task // self.slots] == "classes" else 1


def _inputs(rng: np.random.Generator, count: int, columns: int) -> Array:
    """Standardised normal inputs (P, columns) that are correlated."""
    spectrum = np.arange(1.0, columns + 1) ** -rng.uniform(0, 1)
    mixing = np.linalg.qr(rng.normal(size=(columns, columns)))[0] * spectrum**0.5
    mixing /= np.linalg.norm(mixing, axis=1, keepdims=True)
    return np.asarray(rng.standard_normal((count, columns), np.float32) @ mixing.T.astype(np.float32))


def _latents(rng: np.random.Generator, inputs: Array, values: Mapping[str, float], scores: list[int]) -> list[Array]:
    """The latent values (P, scores) of each task, noise included, of mean 0 and variance 1 before it."""
    depth = round(values["depth"])
    directions = _unit(rng, inputs.shape[1], SHARED)
    shared = _features(rng, inputs, directions, values["difficulty"], depth)
    latents = []
    for width in scores:
        related = values["relatedness"]
        related += 0.4 * min(related, 1 - related) * rng.uniform(-1, 1)
        frequency = values["difficulty"] * float(np.exp(rng.uniform(-0.3, 0.3)))
        along = directions[:, rng.permutation(SHARED)[:OWN]]
        fresh = _unit(rng, inputs.shape[1], OWN)
        looks = _normed(values["conflict"] ** 0.5 * along + (1 - values["conflict"]) ** 0.5 * fresh)
        own = _features(rng, inputs, looks, frequency, depth)
        latent = related**0.5 * shared @ _unit(rng, SHARED, width) + (1 - related) ** 0.5 * own @ _unit(rng, OWN, width)
        latent = (latent - latent.mean(0)) / latent.std(0)
        errors = values["errors"] * float(np.exp(rng.uniform(-1, 1)))
        latents.append(latent + np.float32(errors) * rng.standard_normal(latent.shape, np.float32))
    return latents


def _features(rng: np.random.Generator, inputs: Array, directions: Array, frequency: float, depth: int) -> Array:
    """Standardised features (P, width) of ``depth`` layers, the first along ``directions`` (columns, width)."""
    values, width = inputs, directions.shape[1]
    for layer in range(depth):
        along = directions if layer == 0 else _unit(rng, width, width)
        phases = np.asarray(rng.uniform(0, 2 * np.pi, width), np.float32)
        values = np.sin(np.float32(frequency) * (values @ along) + phases)
        values = (values - values.mean(0)) / values.std(0)
    return values


def _unit(rng: np.random.Generator, rows: int, columns: int) -> Array:
    """Random unit vectors in the columns."""
    return _normed(rng.standard_normal((rows, columns), np.float32))


def _normed(vectors: Array) -> Array:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=0), np.float32)


def _binary(rng: np.random.Generator, latent: Array, imbalance: float) -> Array:
    """Whether a value is above a quantile of the samples; which of the two is rarer is random."""
    share = 0.5 + 0.5 * imbalance * rng.uniform(-1, 1)
    return np.asarray(latent[:, 0] > np.quantile(latent[:, 0], share), np.float32)


def _class(rng: np.random.Generator, latent: Array, imbalance: float) -> Array:
    """Which of the values, each with an offset, is the largest."""
    offsets = imbalance * ndtri(rng.permutation((np.arange(CLASSES) + 0.5) / CLASSES))
    return np.asarray((latent + offsets).argmax(1), np.float32)


def _number(rng: np.random.Generator, latent: Array, imbalance: float) -> Array:
    """The value, standardised by *train*."""
    train = latent[: SIZES["train"], 0]
    return np.asarray((latent[:, 0] - train.mean()) / train.std(), np.float32)


_LABELS = {"binary": _binary, "classes": _class, "number": _number}

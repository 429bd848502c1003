"""Problems from arrays: what kind each task is, four splits, standardised inputs, and defaults, in one call."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from mtl_gym.checks import LARGEST_FLOAT, number, positive_int, sequence, should
from mtl_gym.problems.divisions import Division, division
from mtl_gym.problems.encodings import Encoding, Scale
from mtl_gym.problems.inputs import unmasked
from mtl_gym.problems.kinds import Labels, labels_of
from mtl_gym.problems.naming import default_name
from mtl_gym.problems.pools import Pool
from mtl_gym.problems.rows import Defaults
from mtl_gym.problems.splits import Split

if TYPE_CHECKING:
    from mtl_gym.problems.base import Problem

Numbers = npt.NDArray[np.float64]
_BATCHES, _LARGEST_BATCH, _SMALLEST_BATCH = 8, 256, 16
"""Batches of an epoch, at least, and bounds of the batch size: ours, after the problems of the table."""
_EPOCHS, _FEWEST_STEPS, _MULTIPLE = 6, 300, 60
"""Of a training: epochs and steps, at least, and what its steps are a multiple of, so that every environment can divide them."""


def from_arrays(
    _cls: type[Problem],
    /,
    inputs: Any,
    targets: Mapping[str, Any],
    *,
    seed: int = 0,
    name: str | None = None,
    groups: Any = None,
    time: Any = None,
    kinds: Mapping[str, str] | None = None,
    fractions: Mapping[str, float] | None = None,
    standardise: bool | Sequence[int] = True,
    network: str | Callable[..., Any] | None = None,
    model: Callable[[], torch.nn.Module] | None = None,
    shared: str | Sequence[str] = "trunk",
    vectorize: str = "auto",
    hidden_sizes: Sequence[int] = (64, 64),
    batch_size: int | None = None,
    train_steps: int | None = None,
    lr: float = Defaults.lr,
) -> Problem:
    """Makes a problem from arrays: the short way in. ``problem.tasks`` shows what was inferred.

    Regression labels are standardised by the mean and deviation of *train*, so that losses start near 1; columns of one value, such
    as the corners of images, are only centred. :meth:`Problem.encode` and :meth:`Problem.decode` apply to new data what was learnt
    here. Instances can draw their own splits (axis ``split``) unless there is a ``time``, or ``groups`` are too large (see
    :func:`mtl_gym.problems.divisions.division`).

    Args:
        inputs: (n, *shape) of finite numbers: arrays, tensors, frames.
        targets: Labels by task: (n,) numbers, texts or booleans, or (n, C) numbers; NaN or None where a label is missing. The kinds
            of tasks are inferred, see :func:`mtl_gym.problems.kinds.labels_of`. Texts, booleans and whole numbers that do not count
            from 0 become indices of classes, and ``Task.classes`` says what each stands for.
        seed: Selects the random division into splits.
        name: The problem's name; part of every instance's seed. ``None``: where the problem is made at an address, the function's
            name, or, of a function ``make``, the file's (``shop`` of ``shop.py:make``); elsewhere ``mine``.
        groups: (n,) labels such as patients: samples with the same one are never in two splits.
        time: (n,) numbers or dates: later samples are in later splits, *train* first, *test* last.
        kinds: ``"regression"``, ``"classes"`` or ``"binary"`` for tasks of which another kind would be inferred, by name.
        fractions: Fraction of the samples in each split; by default 55 % *train*, 10 % *meta*, 15 % *reward*, 20 % *test*.
        standardise: Whether inputs are standardised feature by feature, by *train* alone; or the indices of a sample's first axis
            that are. A feature that is constant in *train* becomes 0 there. For images, which have one scale already, ``False``.
        network: As for :class:`Problem`.
        model: As for :class:`Problem`; your module gets inputs as float32.
        shared: As for :class:`Problem`.
        vectorize: As for :class:`Problem`.
        hidden_sizes: Default widths of the trunk's layers, of a network of ours.
        batch_size: Default batch size; ``None``: the largest power of two with at least 8 batches an epoch, from 16 to 256.
        train_steps: Default length of a training; ``None``: 6 epochs, and at least 300 steps.
        lr: Default learning rate, for Adam.

    Raises:
        TypeError: If inputs are no numbers, targets no mapping, or labels neither numbers nor texts nor booleans.
        ValueError: If lengths differ, inputs are missing or infinite, labels do not suit a task, or a split would be empty or, of
            *reward* and *test*, have equal labels only; the message names the task.

    Example:
        >>> import numpy as np, mtl_gym
        >>> x = np.random.default_rng(0).normal(size=(400, 5))
        >>> kind = np.array(["cat", "dog", "owl"])[x.argmax(1) // 2]
        >>> problem = mtl_gym.Problem.from_arrays(x, {"price": x.sum(1), "kind": kind})
        >>> [(task.name, task.loss) for task in problem.tasks]
        [('price', 'mse'), ('kind', 'cross_entropy')]
        >>> problem.tasks[1].classes
        ('cat', 'dog', 'owl')
    """
    values = input_numbers(inputs)
    labels = _all_labels(targets, len(values), kinds or {})
    divided = division(len(values), seed=seed, groups=groups, time=time, fractions=fractions)
    _check_train(labels, divided.rows["train"])
    sizes = tuple(positive_int("hidden_sizes", width) for width in sequence("hidden_sizes", hidden_sizes))
    defaults = _defaults(len(divided.rows["train"]), batch_size, train_steps, lr, sizes)
    encoding = _encoding(inputs, values, labels, _features(standardise, values), divided.rows["train"])
    pool, splits = _divided(values, labels, divided, encoding)
    chosen: dict[str, Any] = {"network": network, "model": model, "shared": shared, "vectorize": vectorize}
    problem = _cls(default_name() if name is None else name, encoding.tasks, splits, **chosen, defaults=defaults, pool=pool)
    problem.encoding = replace(encoding, moments=None if pool is None else pool.moments(pool.rows["train"]))
    return problem


@dataclass(frozen=True)
class Arrays:
    """What samples of a problem from arrays look like: ``shape``, and ``columns``, if they were a frame's."""

    shape: tuple[int, ...]
    columns: tuple[Any, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The columns."""
        return tuple(map(str, self.columns))

    def read(self, inputs: Any) -> Numbers:
        """Inputs (n, *shape) as float64; of a frame, these columns. Raises a TypeError or ValueError if there are none such."""
        if self.columns and hasattr(inputs, "columns"):
            if lacking := [own for own in self.columns if own not in [*inputs.columns]]:
                raise ValueError(should("inputs", f"have the columns {', '.join(self.names)}; not there", lacking))
            inputs = inputs[[*self.columns]]
        values = input_numbers(inputs)
        if values.shape[1:] != self.shape:
            raise ValueError(should("inputs", f"have samples of the shape {self.shape}, as the problem's", f"shape {values.shape}"))
        return values


def _encoding(
    inputs: Any, values: Numbers, labels: Sequence[Labels], features: tuple[int, ...], train: npt.NDArray[np.int64]
) -> Encoding:
    """What is learnt of the rows ``train``."""
    source = Arrays(values.shape[1:], tuple(inputs.columns) if hasattr(inputs, "columns") else ())
    scales = {own.task.name: Scale.over(own.values[train]) for own in labels if own.scaled}
    return Encoding(tuple(own.task for own in labels), source, features, Scale.over(values[train][:, [*features]]), scales)


def input_numbers(inputs: Any) -> Numbers:
    """Inputs (n, *shape) as finite float64 numbers; raises errors that name the features that are not."""
    raw = inputs.detach().cpu() if isinstance(inputs, torch.Tensor) else inputs
    try:
        table = np.asarray(unmasked(raw))
        values = table.astype(np.float64) if table.dtype.kind in "biufO" else None
    except (TypeError, ValueError):
        values = None
    if values is None:
        remedy = "Problem.from_frame encodes texts, categories and missing values."
        raise TypeError(should("inputs", "be an array of real numbers", inputs, remedy))
    if values.ndim == 0 or len(values) == 0:
        raise ValueError(should("inputs", "have one row per sample", f"shape {values.shape}"))
    values = values[:, None] if values.ndim == 1 else values
    if 0 in values.shape:
        raise ValueError(should("inputs", "have at least one feature", f"shape {values.shape}"))
    if (wrong := np.flatnonzero(~(np.abs(values) <= LARGEST_FLOAT).reshape(*values.shape[:2], -1).all((0, 2)))).size:
        remedy = "Problem.from_frame fills missing values."
        raise ValueError(should("inputs", "be finite; features that are not everywhere", wrong[:20].tolist(), remedy))
    return values


def _all_labels(targets: Any, count: int, kinds: Mapping[str, str]) -> list[Labels]:
    if not isinstance(targets, Mapping) or not targets:
        raise TypeError(should("targets", "be a mapping from names of tasks to labels", targets, 'For example: {"price": y}.'))
    if unused := [name for name in kinds if name not in targets]:
        raise ValueError(should("kinds", f"name tasks: {', '.join(map(str, targets))}", unused))
    labels = [labels_of(name, values, kinds.get(name)) for name, values in targets.items()]
    for own in labels:
        if len(own.values) != count:
            condition = f"have one label for each of the {count} inputs"
            raise ValueError(should(f"targets[{own.task.name!r}]", condition, f"{len(own.values)} labels"))
    return labels


def _features(standardise: bool | Sequence[int], values: Numbers) -> tuple[int, ...]:
    """The indices of the first axis of a sample that are standardised."""
    if isinstance(standardise, bool):
        return tuple(range(values.shape[1])) if standardise else ()
    return tuple(positive_int("standardise", index, least=0, most=values.shape[1] - 1) for index in standardise)


def _divided(
    values: Numbers, labels: Sequence[Labels], divided: Division, encoding: Encoding
) -> tuple[Pool | None, dict[str, Split]]:
    """The pool, where other splits can be drawn, and the splits.

    Samples are standardised by the problem's own *train* in float64, since float32 would lose the digits of large numbers that vary
    little, such as dates; the pool then standardises them by the *train* of other splits.
    """
    scales = encoding.labels
    columns = [scales[own.task.name].standardised(own.values) if own.scaled else own.values for own in labels]
    samples = Split.of(encoding.standardised(values), columns)
    if not divided.drawable:
        return None, {name: Split(samples.inputs[own], samples.targets[own]) for name, own in divided.rows.items()}
    ends = np.cumsum([own.values.shape[1] for own in labels]).tolist()
    of_numbers = [range(end - own.values.shape[1], end) for own, end in zip(labels, ends, strict=True) if own.scaled]
    every = len(encoding.features) == values.shape[1] or encoding.features
    pool = Pool(samples, divided.rows, divided.groups, every, tuple(column for own in of_numbers for column in own))
    return pool, pool.splits(pool.rows)


def _check_train(labels: Sequence[Labels], train: npt.NDArray[np.int64]) -> None:
    """Raises ValueError if a task has no label in *train*."""
    for own in labels:
        if np.isnan(own.values[train]).all(0).any():
            condition = "have a label in *train* in each column; its labels are in other splits"
            raise ValueError(
                should(f"targets[{own.task.name!r}]", condition, f"{int((~np.isnan(own.values)).any(1).sum())} labels")
            )


def _defaults(count: int, batch_size: int | None, train_steps: int | None, lr: float, hidden_sizes: tuple[int, ...]) -> Defaults:
    """An environment's defaults for ``count`` training samples."""
    usual = min(max(_SMALLEST_BATCH, 2 ** int(math.log2(max(1, count // _BATCHES)))), _LARGEST_BATCH, count)
    batch = usual if batch_size is None else positive_int("batch_size", batch_size, most=count)
    steps = _MULTIPLE * math.ceil(max(_FEWEST_STEPS, _EPOCHS * count / batch) / _MULTIPLE)
    return Defaults(
        lr=number("lr", lr, low=0.0, ends="(]"),
        batch_size=batch,
        train_steps=steps if train_steps is None else positive_int("train_steps", train_steps),
        hidden_sizes=hidden_sizes,
    )

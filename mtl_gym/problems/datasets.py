"""Splits from PyTorch's data sets: each item is a pair of inputs and targets.

n is the number of items, T the number of label columns of all tasks, S the spatial shape of dense labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from mtl_gym.checks import sequence, should
from mtl_gym.problems.inputs import KEPT, Inputs, tensor_of

if TYPE_CHECKING:
    from mtl_gym.problems.splits import Split

Key = str | int | None
"""A task: a name in a mapping, a position in a tuple, or ``None`` where the target is the only task's."""


def from_dataset(_cls: type[Split], /, dataset: Any, tasks: Sequence[str] | None = None) -> Split:
    """Makes a split from a map-style data set, such as ``torch.utils.data.Dataset`` or ``Subset``, or a list of pairs.

    Args:
        dataset: Its items are pairs ``(inputs, targets)``. Inputs are a tensor or array, all of one shape, or a mapping of names to
            such (tokens and their mask); dtypes are those of :class:`mtl_gym.Split`. Targets are a number, a tensor (C, *S) of a
            task's channels, or several of these: a mapping by task name, or a tuple or list with one entry for each task. Missing
            labels are None or NaN.
        tasks: The tasks in the order of the problem's; ``None``: in the order of the first item. Of mappings, only these are
            taken; of tuples, these are the names of all entries, for errors.

    Returns:
        Inputs (n, *shape) and targets (n, T, *S) of all tasks side by side. All items are read once and kept in memory.

    Raises:
        TypeError: If there is no length and no items by index, as in a stream, or an item is no pair of numbers.
        ValueError: If it is empty, or items differ in shape or in their tasks; the message names the item.

    Example:
        >>> import torch, mtl_gym
        >>> pairs = [(torch.ones(3) * i, {"kind": i % 2, "price": None if i == 1 else float(i)}) for i in range(3)]
        >>> mtl_gym.Split.from_dataset(pairs, tasks=["price", "kind"]).targets
        tensor([[0., 0.],
                [nan, 1.],
                [2., 0.]])
    """
    if isinstance(dataset, IterableDataset) or not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        stream = "Read a stream into a list first: list(itertools.islice(dataset, 10_000))."
        remedy = "Pass its `dataset`." if isinstance(dataset, DataLoader) else stream
        raise TypeError(should("dataset", "have a length and items by index", type(dataset).__name__, remedy))
    if len(dataset) == 0:
        raise ValueError(should("dataset", "have at least one item", f"{type(dataset).__name__} of 0 items"))
    names = None if tasks is None else sequence("tasks", tasks)
    pairs = [_pair(index, _item(dataset, index)) for index in range(len(dataset))]
    keys = _keys(pairs[0][1], names)
    columns = [_labels(key, [_target(index, own, key, keys) for index, (_, own) in enumerate(pairs)]) for key in keys]
    shapes = {own.shape[2:] for own in columns}
    if len(shapes) > 1:
        found = {str(key): tuple(own.shape[1:]) for key, own in zip(keys, columns, strict=True)}
        raise ValueError(should("dataset", "have labels of all tasks for the same pixels, or none for pixels", found))
    widths = tuple(own.shape[1] for own in columns)
    return _cls(_inputs([own for own, _ in pairs]), torch.cat(columns, dim=1), widths=widths)


def _item(dataset: Any, index: int) -> Any:
    try:
        return dataset[index]
    except IndexError as error:
        raise ValueError(should("dataset", f"have the {len(dataset)} items of its length", f"{index} items")) from error


def _inputs(several: Sequence[Any]) -> Inputs:
    """The items' inputs side by side: a tensor, or tensors by name."""
    if not isinstance(several[0], Mapping):
        return _column("inputs", several)
    for index, own in enumerate(several):
        if not isinstance(own, Mapping) or own.keys() != several[0].keys():
            condition = f"be a mapping with {', '.join(map(str, several[0]))}, as in dataset[0]"
            raise ValueError(should(f"dataset[{index}] inputs", condition, [*own] if isinstance(own, Mapping) else own))
    return {name: _column(f"inputs[{name!r}]", [own[name] for own in several]) for name in several[0]}


def _column(name: str, several: Sequence[Any]) -> Tensor:
    """Values of one shape side by side, of their own dtype if it is kept and all have it, and of float32 otherwise."""
    tensors = [_tensor(f"dataset[{index}] {name}", own, whole=True) for index, own in enumerate(several)]
    if len({own.dtype for own in tensors}) > 1:
        tensors = [own.to(torch.float32) for own in tensors]
    return _stacked(name, tensors)


def _pair(index: int, item: Any) -> tuple[Any, Any]:
    if not isinstance(item, (tuple, list)) or len(item) != 2:
        count = f" of {len(item)}" if isinstance(item, (tuple, list)) else ""
        remedy = "Several tasks are a mapping or tuple: (inputs, {'price': 3.0, 'kind': 1})."
        raise TypeError(should(f"dataset[{index}]", "be a pair (inputs, targets)", f"a {type(item).__name__}{count}", remedy))
    return item[0], item[1]


def _keys(target: Any, names: Sequence[str] | None) -> Sequence[Key]:
    """The tasks, given the first item's targets."""
    if isinstance(target, Mapping):
        keys: Sequence[Key] = [*target] if names is None else names
    elif isinstance(target, (tuple, list)):
        keys = range(len(target))
    else:
        keys = [None]
    if not keys or (names is not None and len(keys) != len(names)):
        raise ValueError(
            should("dataset[0] targets", f"have an entry for each of {len(names or ())} tasks", f"{len(keys)} entries")
        )
    return keys


def _target(index: int, target: Any, key: Key, keys: Sequence[Key]) -> Any:
    """An item's target of one task."""
    name = f"dataset[{index}] targets"
    if key is None:
        if isinstance(target, (Mapping, tuple, list)):
            raise ValueError(should(name, "be a number or tensor, as in dataset[0]", target))
        return target
    if isinstance(key, str) and not (isinstance(target, Mapping) and key in target):
        held = [*target] if isinstance(target, Mapping) else target
        raise ValueError(should(name, f"be a mapping with {key!r}, None where its label is missing", held))
    if isinstance(key, int) and not (isinstance(target, (tuple, list)) and len(target) == len(keys)):
        raise ValueError(should(name, f"have {len(keys)} entries, as in dataset[0]", target))
    return target[key]


def _labels(key: Key, targets: Sequence[Any]) -> Tensor:
    """Labels (n, C, *S) of a task, NaN where they are None."""
    task = "targets" if key is None else f"targets[{key!r}]"
    tensors = [None if own is None else _tensor(f"dataset[{index}] {task}", own) for index, own in enumerate(targets)]
    known = next((own for own in tensors if own is not None), torch.zeros(()))
    labels = _stacked(task, [torch.full_like(known, torch.nan) if own is None else own for own in tensors])
    return labels[:, None] if labels.ndim == 1 else labels


def _tensor(name: str, value: Any, *, whole: bool = False) -> Tensor:
    """A value as a tensor on the CPU: float32, or, if ``whole``, whole numbers and truth values of their own dtype."""
    if isinstance(value, Tensor) and not value.dtype.is_complex:
        return value.detach().to("cpu", value.dtype if whole and value.dtype in KEPT else torch.float32)
    try:
        array = np.asarray(value)
    except ValueError:  # rows of different lengths
        array = np.empty(0, dtype=object)
    if isinstance(value, Tensor) or array.dtype.kind not in "biuf":
        raise TypeError(should(name, "be real numbers", value))
    return tensor_of(name, array[None], whole=whole, columns=False)[0].clone()


def _stacked(name: str, values: Sequence[Tensor]) -> Tensor:
    """Values of one shape, side by side along a first axis."""
    for index, own in enumerate(values):
        if own.shape != values[0].shape:
            condition = f"have the shape {tuple(values[0].shape)}, as in dataset[0]"
            raise ValueError(should(f"dataset[{index}] {name}", condition, tuple(own.shape)))
    return torch.stack([*values])

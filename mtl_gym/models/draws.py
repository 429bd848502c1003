"""Random numbers inside people's modules, such as dropout's, as a function of each replica's seed and the number of the call.

Torch tags every operation that reads a generator, so nothing has to be known of layers: dropout of all kinds, attention with
dropout, noise. An operation that takes a generator is given its own; others run under the borrowed generator of the process.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from mtl_gym.randomness import borrowed_generator, mixed


class Draws(TorchDispatchMode):
    """Within it, the c-th random operation depends on a replica's seed and c alone; no generator of the process is read.

    Args:
        seeds: One for each replica that is computed.
        stacked: Whether operations have the axis of replicas in front, as below :func:`torch.vmap`; otherwise there is one seed.

    Attributes:
        calls: Number of random operations so far, counted for a replica.

    Raises:
        NotImplementedError: Under ``stacked``, if an operation draws for all replicas and cannot be taken apart.
    """

    def __init__(self, seeds: Sequence[int], *, stacked: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls, self._seeds, self._stacked = 0, [seed % 2**63 for seed in seeds], stacked

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        given = dict(kwargs or {})
        if not _may_draw(func) or _silent(func, args, given):
            return func(*args, **given)
        device = _device(args, given)
        if device.type == "meta":  # without numbers, as when memory is counted
            return func(*args, **given)
        self.calls += 1
        seeds = [mixed(seed, self.calls) for seed in self._seeds]
        if not self._stacked:
            return _drawn(func, args[0], args[1:], given, seeds[0], device) if args else func(**given)
        rows = _rows(func, args, given, len(seeds))
        found = [_drawn(func, row, args[1:], given, seed, device) for row, seed in zip(rows, seeds, strict=True)]
        return args[0] if _in_place(func) else tree_map(lambda *parts: torch.stack(parts), found[0], *found[1:])


@functools.cache
def _may_draw(func: Any) -> bool:
    return torch.Tag.nondeterministic_seeded in func.tags


@functools.cache
def _takes_generator(func: Any) -> bool:
    return any(argument.name == "generator" for argument in func._schema.arguments)


def _drawn(func: Any, first: Any, others: Sequence[Any], kwargs: dict[str, Any], seed: int, device: torch.device) -> Any:
    """An operation with a seed; tensors are contiguous, so that their order in memory does not decide who gets which number."""
    if isinstance(first, Tensor) and not first.is_contiguous():
        drawn = _drawn(func, first.contiguous(), others, kwargs, seed, device)
        return first.copy_(drawn) if _in_place(func) else drawn
    if _takes_generator(func):
        return func(first, *others, **kwargs | {"generator": torch.Generator(device).manual_seed(seed)})
    with borrowed_generator(seed, device):
        return func(first, *others, **kwargs)


def _rows(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], count: int) -> Sequence[Any]:
    """The first argument of an operation for each replica: rows of the only tensor, or the shape without its first axis."""
    tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
    first = args[0] if args else None
    if len(tensors) == 1 and first is tensors[0] and first.ndim and len(first) == count:
        return first.unbind(0)
    if not tensors and isinstance(first, (list, tuple)) and first and first[0] == count:
        return [first[1:]] * count
    raise NotImplementedError(f"{func} draws random numbers for all replicas at once")


def _silent(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether an operation that can be random is not: attention without dropout, or a layer outside training."""
    arguments = func._schema.arguments
    named = {own.name: own.default_value for own in arguments if own.has_default_value()}
    named |= dict(zip((own.name for own in arguments), args, strict=False)) | dict(kwargs)
    return named.get("dropout_p") == 0 or named.get("train") is False or named.get("training") is False


def _in_place(func: Callable[..., Any]) -> bool:
    return func._schema.name.endswith("_")  # type: ignore[attr-defined]


def _device(args: Sequence[Any], kwargs: Mapping[str, Any]) -> torch.device:
    given = [value.device for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
    return given[0] if given else torch.device(kwargs.get("device") or "cpu")

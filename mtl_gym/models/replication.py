"""One function for N replicas: by ``torch.vmap`` or by a loop in one graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from mtl_gym.models.draws import Draws
from mtl_gym.models.unfused import batchable

One = Callable[..., Any]
"""A pure function of tensors of one replica, in nested tuples, lists and dicts; returns such a container too."""
Replicate = Callable[[One, Sequence[int] | None, Sequence[Any]], Any]
"""``(function, seeds (N,) or None if it draws no random numbers, arguments with a leading axis N) -> results with that axis``."""


def by_vmap(one: One, seeds: Sequence[int] | None, arguments: Sequence[Any]) -> Any:
    """All replicas together."""
    if seeds is None:
        with batchable():
            return torch.vmap(one)(*arguments)
    with batchable(), Draws(seeds, stacked=True):
        return torch.vmap(one, randomness="different")(*arguments)


def by_loop(one: One, seeds: Sequence[int] | None, arguments: Sequence[Any]) -> Any:
    """One replica after the other."""
    leaves, form = tree_flatten(list(arguments))
    columns = [leaf.unbind(0) for leaf in leaves]  # a single backward node for all rows of a tensor
    rows = [tree_unflatten(list(row), form) for row in zip(*columns, strict=True)]
    if seeds is None:
        found = [one(*row) for row in rows]
    else:
        found = [_seeded(one, seed, row) for seed, row in zip(seeds, rows, strict=True)]
    return tree_map(lambda *parts: torch.stack(parts), found[0], *found[1:])


def _seeded(one: One, seed: int, row: Sequence[Any]) -> Any:
    with Draws([seed], stacked=False):
        return one(*row)


REPLICATIONS: dict[str, Replicate] = {"vmap": by_vmap, "loop": by_loop}

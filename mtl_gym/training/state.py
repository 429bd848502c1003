"""The state of N training runs: named tensors with a leading replica axis, each registered by the part that owns it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from mtl_gym.checks import should

_LARGE: Final = 2**26  # bytes


class State:
    """Named tensors (N, ...) and lists of N objects.

    Parts register their own, as modules register buffers, so that operations on rows apply to all of them. Tensors are changed only
    in place, so a part may keep what :meth:`add` returned. Invalid arguments raise a ValueError before anything is changed.

    Example:
        >>> state = State(2)
        >>> counts = state.add("counts", (3,))
        >>> counts[0] = 1
        >>> state.copy_rows([0], [1])
        >>> counts.sum().item()
        6.0
    """

    def __init__(self, num_replicas: int, device: str | torch.device = "cpu") -> None:
        self.num_replicas, self.device = num_replicas, torch.device(device)
        self._tensors: dict[str, Tensor] = {}
        self._objects: dict[str, list[Any]] = {}

    def add(self, name: str, shape: Sequence[int] = (), dtype: torch.dtype = torch.float32) -> Tensor:
        """Registers a tensor of zeros (N, *shape) under a new name and returns it."""
        self._check_free(name)
        self._tensors[name] = _zeros((self.num_replicas, *shape), dtype, self.device)
        return self._tensors[name]

    def add_objects(self, name: str) -> list[Any]:
        """Registers a list of N immutable objects, ``None`` at first, and returns it."""
        self._check_free(name)
        self._objects[name] = [None] * self.num_replicas
        return self._objects[name]

    def _check_free(self, name: str) -> None:
        if name in self._tensors or name in self._objects:
            raise ValueError(should("name", "be new: another part has registered it", name))

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __contains__(self, name: str) -> bool:
        return name in self._tensors or name in self._objects

    def check_rows(self, name: str, rows: Iterable[int], *, once: bool = True) -> list[int]:
        """The rows as a list, if all are in range and, with ``once``, different."""
        chosen = list(rows)
        if not all(0 <= row < self.num_replicas for row in chosen) or (once and len(set(chosen)) < len(chosen)):
            raise ValueError(should(name, f"be rows from 0 to {self.num_replicas - 1}{', each once' if once else ''}", chosen))
        return chosen

    def reset(self, rows: Iterable[int]) -> None:
        """Sets these rows to zeros and ``None``; the others keep their exact bits."""
        chosen = self.check_rows("rows", rows)
        for tensor in self._tensors.values():
            tensor[chosen] = 0
        for objects in self._objects.values():
            for row in chosen:
                objects[row] = None

    def clone(self) -> dict[str, Any]:
        """A copy of everything by name, for :meth:`load`."""
        tensors = {name: tensor.clone() for name, tensor in self._tensors.items()}
        return tensors | {name: list(objects) for name, objects in self._objects.items()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Copies what :meth:`clone` returned into the registered tensors, whose shapes and dtypes have to match."""
        if surplus := sorted(state.keys() - self._tensors.keys() - self._objects.keys()):
            raise ValueError(_other_arguments(surplus[0], "nothing", "a value"))
        for name, tensor in self._tensors.items():
            other = state.get(name)
            if not isinstance(other, Tensor) or (other.shape, other.dtype) != (tensor.shape, tensor.dtype):
                received = (tuple(other.shape), other.dtype) if isinstance(other, Tensor) else other
                raise ValueError(_other_arguments(name, (tuple(tensor.shape), tensor.dtype), received))
        for name, objects in self._objects.items():
            if len(state.get(name, ())) != len(objects):
                raise ValueError(_other_arguments(name, f"{len(objects)} objects", state.get(name)))
        for name, tensor in self._tensors.items():
            tensor.copy_(state[name])
        for name, objects in self._objects.items():
            objects[:] = state[name]

    def copy_rows(self, source: Sequence[int], target: Sequence[int]) -> None:
        """Copies each row of ``source`` to the row of ``target`` at the same position."""
        originals, copies = self.check_rows("source", source, once=False), self.check_rows("target", target)
        if len(originals) != len(copies):
            raise ValueError(should("target", f"be as many rows as the {len(originals)} of `source`", copies))
        for tensor in self._tensors.values():
            tensor[copies] = tensor[originals]
        for objects in self._objects.values():
            for copy, original in zip(copies, [objects[row] for row in originals], strict=True):
                objects[copy] = original


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros. The system provides large ones as they are first written, so that making an environment takes no time."""
    if device.type != "cpu" or prod(shape) * dtype.itemsize < _LARGE:
        return torch.zeros(shape, dtype=dtype, device=device)
    return torch.from_numpy(np.zeros(shape, dtype=torch.empty(0, dtype=dtype).numpy().dtype))


def _other_arguments(name: str, own: object, received: object) -> str:
    return should(f"state[{name!r}]", f"be {own}, as for training runs with the same arguments", received)

"""A policy's memory as tensors and JSON, which ``torch.load(weights_only=True)`` reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtl_gym.checks import should


def packed(memory: Any) -> tuple[Any, dict[str, Tensor]]:
    """A JSON-plain description of nested dicts, lists and tuples of arrays and numbers, and the arrays as tensors by number.

    Raises:
        TypeError: If it holds anything else, such as a function.
    """
    tensors: dict[str, Tensor] = {}

    def pack(value: Any) -> Any:
        if isinstance(value, (np.ndarray, np.generic, Tensor)):
            tensors[str(len(tensors))] = torch.as_tensor(np.array(value.cpu() if isinstance(value, Tensor) else value))
            return {"array": str(len(tensors) - 1)}
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        if isinstance(value, Mapping):
            return {"dict": [[str(name), pack(own)] for name, own in value.items()]}
        if isinstance(value, (list, tuple)):
            return {type(value).__name__: [pack(own) for own in value]}
        function = (
            "A function with values of its own cannot be saved; write a class with `predict` that returns them as its memory."
        )
        remedy = function if callable(value) else "Save the whole balancer, which is pickled: torch.save(balancer, path)."
        raise TypeError(should("policy", "have a memory of arrays and numbers to be saved", type(value).__name__, remedy))

    return pack(memory), tensors


def check_shapes(found: Mapping[str, Any], expected: Mapping[str, Tensor]) -> None:
    """Raises ``ValueError`` if one of the expected tensors is not there, or has another shape."""
    for name, own in expected.items():
        shape = tuple(found[name].shape) if isinstance(found.get(name), Tensor) else None
        if shape != tuple(own.shape):
            raise ValueError(should(f"state[{name!r}]", f"have the shape {tuple(own.shape)}", shape, "Give the same tasks."))


def unpacked(plain: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The memory that :func:`packed` described."""
    if not isinstance(plain, Mapping):
        return plain
    (kind, value), *_ = plain.items()
    if kind == "array":
        return tensors[value].numpy().copy()
    if kind == "dict":
        return {name: unpacked(own, tensors) for name, own in value}
    return {"list": list, "tuple": tuple}[kind](unpacked(own, tensors) for own in value)

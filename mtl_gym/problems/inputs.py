"""What networks are given: a tensor, or tensors by name, such as tokens and their mask; the first axis is that of samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from mtl_gym.checks import should

Inputs: TypeAlias = Any
"""A tensor (n, *shape), or a dict of such tensors by name; to the type checker anything, as most networks know tensors alone."""
KEPT = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
"""Dtypes that are kept where numbers may be names of something, such as tokens; all others become float32."""


def each(function: Callable[..., Tensor], *several: Inputs) -> Inputs:
    """Applies a function to inputs of one kind: to the tensors, or to those of each name."""
    first = several[0]
    if isinstance(first, Tensor):
        return function(*several)
    return {name: function(*(own[name] for own in several)) for name in first}


def parts(inputs: Inputs) -> list[Tensor]:
    """The tensors, at least one, whose leading axes are the same."""
    return [inputs] if isinstance(inputs, Tensor) else [*inputs.values()]


def shapes(inputs: Inputs) -> Any:
    """Shape of a sample, or shapes by name."""
    return tuple(inputs.shape[1:]) if isinstance(inputs, Tensor) else {name: tuple(own.shape[1:]) for name, own in inputs.items()}


def concatenated(several: Sequence[Inputs], dim: int) -> Inputs:
    """Inputs one after another along an axis."""
    return each(lambda *own: torch.cat(own, dim=dim), *several)


def features(inputs: Inputs) -> Tensor:
    """All numbers of a sample side by side (n, F), as float32."""
    return torch.cat([own.flatten(1).float() if own.ndim > 1 else own[:, None].float() for own in parts(inputs)], dim=1)


def as_numbers(inputs: Inputs) -> Inputs:
    """The same as float32."""
    return each(lambda own: own.to(torch.float32), inputs)


def as_inputs(values: Any) -> Inputs:
    """Arrays, lists or tensors, or a mapping of them, as tensors: float32, or whole numbers and truth values of their own dtype.

    Raises:
        TypeError: If they are not real numbers, or names are no texts.
        ValueError: If there is no axis of samples, or its length differs from name to name.
    """
    if not isinstance(values, Mapping):
        return tensor_of("inputs", values, whole=True)
    if not values or not all(isinstance(name, str) for name in values):
        raise TypeError(should("inputs", "be an array, or arrays by name", list(values)))
    found = {name: tensor_of(f"inputs[{name!r}]", own, whole=True, columns=False) for name, own in values.items()}
    sizes = {name: len(own) for name, own in found.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(should("inputs", "have equally many samples under each name", sizes))
    return found


def unmasked(values: Any, numbers: str = "biuf") -> Any:
    """The values of numpy's masked arrays, with NaN where the mask says that there is none; None, if the dtype's kind is not one of
    these numbers.
    """
    if not isinstance(values, np.ma.MaskedArray):
        return values
    if not np.ma.is_masked(values):
        return values.data
    missing, kind = (np.nan, np.float64) if values.dtype.kind in numbers else (None, object)
    filled = values.data.astype(kind)
    filled[np.ma.getmaskarray(values)] = missing
    return filled


def tensor_of(name: str, values: Any, *, whole: bool = False, columns: bool = True) -> Tensor:
    """Values as a tensor (n, ...).

    Args:
        name: In errors.
        values: An array, a list or a tensor; memory is shared where possible.
        whole: Whether whole numbers and truth values keep their dtype; otherwise everything becomes float32.
        columns: Whether (n,) becomes (n, 1).
    """
    if isinstance(values, Tensor) and values.layout == torch.strided and not values.dtype.is_complex:
        own = values.detach() if values.requires_grad else values
        samples = own if whole and own.dtype in KEPT else own.to(torch.float32)
    else:
        samples = _of_array(name, values, whole=whole)
    if samples.is_inference():
        with torch.inference_mode(False):
            samples = samples.clone()  # which autograd may keep
    if samples.ndim == 0:
        raise ValueError(should(name, "have one row per sample", samples.item()))
    return samples[:, None] if columns and samples.ndim == 1 else samples


def _of_array(name: str, values: Any, *, whole: bool) -> Tensor:
    try:
        array = None if isinstance(values, Tensor) else np.asarray(unmasked(values))
    except ValueError:  # rows of different lengths
        array = None
    if array is None or array.dtype.kind not in "biuf":
        raise TypeError(should(name, "be an array of real numbers", values))
    kept = whole and str(array.dtype) in {str(dtype).removeprefix("torch.") for dtype in KEPT}
    with np.errstate(over="ignore"):  # infinite values are refused by the problem
        # A tensor may write to its memory.
        return torch.from_numpy(np.require(array, dtype=None if kept else np.float32, requirements=["C", "W"]))

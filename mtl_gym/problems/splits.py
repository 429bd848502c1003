"""Samples with their labels, as float32 tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mtl_gym.checks import should

SPLITS = ("train", "meta", "reward", "test")
"""*train*: weights are applied here. *meta*: signals. *reward*: the reward. *test*: only in the last step's ``info``."""


@dataclass(frozen=True)
class Split:
    """Samples with their labels. Arrays, lists and tensors of any real dtype are converted to float32 tensors; shared memory is
    not copied where it has that type already.

    Attributes:
        inputs: (n, *shape); (n,) becomes (n, 1).
        targets: (n, T, *S), the labels of all tasks side by side; (n,) becomes (n, 1). Class indices, and NaN where a label is
            missing.

    Raises:
        TypeError: If they are not real numbers.
        ValueError: If they have no axis of samples.
    """

    inputs: Tensor
    targets: Tensor

    def __post_init__(self) -> None:
        for name in ("inputs", "targets"):
            object.__setattr__(self, name, _samples(name, getattr(self, name)))

    def __len__(self) -> int:
        return len(self.inputs)

    def __repr__(self) -> str:
        return f"Split(inputs {tuple(self.inputs.shape)}, targets {tuple(self.targets.shape)})"

    def to(self, device: torch.device) -> Split:
        """The same on a device."""
        return Split(self.inputs.to(device), self.targets.to(device))

    @classmethod
    def of(cls, inputs: npt.ArrayLike, labels: Sequence[npt.ArrayLike]) -> Split:
        """Makes a split from arrays.

        Args:
            inputs: (n, *shape).
            labels: One array per task: (n,), (n, channels) or (n, channels, *S); NaN where a label is missing.
        """
        return cls(_samples("inputs", inputs), torch.cat([_samples("labels", label) for label in labels], dim=1))


def _samples(name: str, values: Any) -> Tensor:
    """Values as a float32 tensor (n, ...) with at least two axes."""
    if isinstance(values, Tensor) and values.layout == torch.strided and not values.dtype.is_complex:
        samples = (values.detach() if values.requires_grad else values).to(torch.float32)
    else:
        array = None if isinstance(values, Tensor) else _array(values)
        if array is None or array.dtype.kind not in "biuf":
            raise TypeError(should(name, "be an array of real numbers", values))
        with np.errstate(over="ignore"):  # infinite values are refused by the problem
            # A tensor may write to its memory.
            samples = torch.from_numpy(np.require(array, dtype=np.float32, requirements=["C", "W"]))
    if samples.is_inference():
        with torch.inference_mode(False):
            samples = samples.clone()  # which autograd may keep
    if samples.ndim == 0:
        raise ValueError(should(name, "have one row per sample", samples.item()))
    return samples[:, None] if samples.ndim == 1 else samples


def _array(values: Any) -> npt.NDArray[Any] | None:
    try:
        return np.asarray(values)
    except ValueError:  # rows of different lengths
        return None

"""Samples with their labels, as tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy.typing as npt
import torch
from torch import Tensor

from mtl_gym.problems.datasets import from_dataset
from mtl_gym.problems.inputs import Inputs, as_inputs, as_numbers, each, parts, tensor_of

SPLITS = ("train", "meta", "reward", "test")
"""*train*: weights are applied here. *meta*: signals. *reward*: the reward. *test*: only in the last step's ``info``."""


@dataclass(frozen=True)
class Split:
    """Samples with their labels. Arrays, lists and tensors of any real dtype become tensors; memory is shared where possible.

    Labels become float32. So do inputs, except whole numbers and truth values, which a problem with a ``model`` of its own is given
    as they are (token ids for an embedding, say); every other problem converts them too.

    Attributes:
        inputs: (n, *shape); (n,) becomes (n, 1). Or a mapping of names to (n, *shape), for such models: tokens and their mask.
        targets: (n, T, *S), the labels of all tasks side by side; (n,) becomes (n, 1). Class indices, and NaN where a label is
            missing.
        widths: Number of columns of each task's labels, where they were given apart; otherwise empty.

    Raises:
        TypeError: If they are not real numbers.
        ValueError: If they have no axis of samples, or inputs by name have different numbers of samples.
    """

    inputs: Inputs
    targets: Tensor
    widths: tuple[int, ...] = field(default=(), kw_only=True, compare=False)

    from_dataset = classmethod(from_dataset)

    def __post_init__(self) -> None:
        object.__setattr__(self, "inputs", as_inputs(self.inputs))
        object.__setattr__(self, "targets", tensor_of("targets", self.targets))

    def __len__(self) -> int:
        return len(parts(self.inputs)[0])

    def __getitem__(self, rows: Tensor) -> Split:
        """The samples of these rows (m,)."""
        return replace(self, inputs=each(lambda own: own[rows], self.inputs), targets=self.targets[rows])

    def __repr__(self) -> str:
        return f"Split(inputs {tuple(self.inputs.shape)}, targets {tuple(self.targets.shape)})"

    def to(self, device: torch.device) -> Split:
        """The same on a device."""
        return replace(self, inputs=each(lambda own: own.to(device), self.inputs), targets=self.targets.to(device))

    @property
    def is_numbers(self) -> bool:
        """Whether inputs are one tensor of float32."""
        return isinstance(self.inputs, Tensor) and self.inputs.dtype is torch.float32

    def of_numbers(self) -> Split:
        """The same with inputs as float32."""
        return replace(self, inputs=as_numbers(self.inputs))

    @classmethod
    def of(cls, inputs: npt.ArrayLike | Mapping[str, npt.ArrayLike], labels: Sequence[npt.ArrayLike]) -> Split:
        """Makes a split from arrays.

        Args:
            inputs: (n, *shape), or such arrays by name.
            labels: One array per task: (n,), (n, channels) or (n, channels, *S); NaN where a label is missing.
        """
        tensors = [tensor_of("labels", label) for label in labels]
        return cls(as_inputs(inputs), torch.cat(tensors, dim=1), widths=tuple(own.shape[1] for own in tensors))

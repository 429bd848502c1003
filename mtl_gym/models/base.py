"""Models: named parameters and buffers, and a pure forward pass for N replicas at once.

N is the number of replicas, B the batch size, O the output channels of all heads together, P the parameters of one replica.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from mtl_gym.problems.inputs import Inputs

Tensors = Mapping[str, Tensor]
"""Name to tensor (N, *shape)."""
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Stage:
    """A shared layer with its activation and pooling."""

    names: tuple[str, ...]  # names of its parameters
    # ``(parameters, each (N, *shape); inputs (N, B, ...)) -> features (N, B, ...)``
    run: Callable[[Sequence[Tensor], Tensor], Tensor]


class Model(ABC):
    """A network, computed for N replicas at once.

    Optional capabilities are declared by attributes, not by the model's type: ``stages`` is empty unless the shared layers form a
    chain; models with parameters that may be unused override ``blocks`` and :meth:`used`; ``stochastic`` models need seeds.

    Attributes:
        identity: Identifies the model; part of an instance's seed, since it determines the initial weights.
        shapes: Name to shape of each parameter of one replica; the shared parameters come before those of the heads.
        shared: Number of parameter tensors that all tasks share.
        buffers: Name to shape and dtype of each buffer of one replica, such as running means.
        stochastic: Whether training passes draw random numbers and therefore need ``seeds``.
        stages: The shared layers from the inputs to the heads; empty unless they form a chain.
    """

    identity: str
    shapes: Shapes
    shared: int
    buffers: Mapping[str, tuple[tuple[int, ...], torch.dtype]] = {}
    stochastic: bool = False
    stages: tuple[Stage, ...] = ()

    @abstractmethod
    def init(self, rng: np.random.Generator, tasks: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
        """Draws the initial parameters (P,) of one replica, in the order of ``shapes``, and its buffers by name.

        ``tasks`` (K,) are the indices of the problem's tasks that take part in the replica's instance.
        """

    @abstractmethod
    def forward(
        self, parameters: Tensors, buffers: Tensors, inputs: Inputs, *, train: bool = False, seeds: Tensor | None = None
    ) -> tuple[Tensor, Tensors]:
        """Outputs (N, B, O, *S) of all heads, and the updated buffers; no argument is modified.

        Args:
            parameters: (N, *shape) by name.
            buffers: (N, *shape) by name.
            inputs: (N, B, *shape), or such tensors by name; models other than people's modules have one tensor.
            train: Whether this is a training pass, in which buffers may change and random layers draw.
            seeds: (N,) int64; random numbers of a training pass depend only on them and the layer.
        """

    def by_samples(self) -> AbstractContextManager[None]:
        """In it a pass has forward-mode rules; with or without tangents, it then gives the same bits."""
        return nullcontext()

    def outputs(self, parameters: Tensors, buffers: Tensors, inputs: Inputs, channels: slice) -> Tensor:
        """Outputs (N, B, channels, *S) of some channels, outside training; models with separate heads compute no others."""
        return self.forward(parameters, buffers, inputs)[0][:, :, channels]

    def features(self, parameters: Tensors, inputs: Tensor) -> list[Tensor]:
        """Features (N, B, ...) after each of the ``stages``."""
        found: list[Tensor] = []
        for stage in self.stages:
            found.append(stage.run([parameters[name] for name in stage.names], found[-1] if found else inputs))
        return found

    def plain(self, parameters: Tensors, buffers: Tensors, heads: Mapping[str, slice]) -> nn.Module:
        """One replica as a plain module that maps inputs (B, *shape) to outputs (B, O, *S) by task.

        Models override it if they can be written with PyTorch's own layers; this one calls :meth:`forward`.

        Args:
            parameters: (*shape) by name, without the replica axis.
            buffers: Likewise.
            heads: The output channels of the tasks that take part, by name.
        """
        return Whole(self, parameters, buffers, heads)

    @property
    def sizes(self) -> list[int]:
        """Number of entries of each parameter tensor."""
        return [prod(shape) for shape in self.shapes.values()]

    @property
    def size(self) -> int:
        """Number of parameters of one replica, P."""
        return sum(self.sizes)

    @property
    def num_shared(self) -> int:
        """Number of shared parameters, Q; they come first."""
        return sum(self.sizes[: self.shared])

    @property
    def blocks(self) -> list[int]:
        """Sizes of the parts of a replica's parameters (P,) that have their own step count in the optimiser; usually one part."""
        return [self.size]

    def used(self, buffers: Tensors) -> Tensor | None:
        """Which of the ``blocks`` are in use (N, blocks); ``None`` if all of them always are."""
        return None


class Whole(nn.Module):
    """One replica of any model as a module."""

    def __init__(self, model: Model, parameters: Tensors, buffers: Tensors, heads: Mapping[str, slice]) -> None:
        super().__init__()
        self._model, self._names, self._columns = model, {name: name.replace(".", "_") for name in parameters}, dict(heads)
        for name, value in parameters.items():
            self.register_parameter(self._names[name], nn.Parameter(value.detach().clone()))
        for name, value in buffers.items():
            self.register_buffer(name, value.detach().clone())
        self._buffer_names = [*buffers]

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """Outputs (B, O, *S) of inputs (B, *shape), by task."""
        parameters = {name: getattr(self, own)[None] for name, own in self._names.items()}
        buffers = {name: getattr(self, name)[None] for name in self._buffer_names}
        outputs = self._model.forward(parameters, buffers, inputs[None])[0][0]
        return {task: outputs[:, columns] for task, columns in self._columns.items()}

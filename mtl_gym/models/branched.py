"""Networks whose structure is data: each task has a copy of every stage, and a table says which copies are used.

N is the number of replicas, S of stages, K of participating tasks, B of samples. The buffer ``assign`` (N, S, K) holds the copy
that a task uses at a stage: the one of the lowest task that shares it. Copies are gathered in the forward pass, so replicas with
different structures are computed together; sharing saves parameters, not time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from mtl_gym.checks import should
from mtl_gym.models.base import Model, Tensors
from mtl_gym.models.plain import Branches
from mtl_gym.problems.base import Problem

ASSIGN, PLACES = "assign", "places"
"""Buffers: the copy (S, K) that each task uses at each stage, and the position (all tasks,) of each of the problem's tasks among
the K participating ones, 0 for the others."""


@runtime_checkable
class HasLayers(Protocol):
    """A model of PyTorch's own layers."""

    def stage_layer(self, stage: int, parameters: Sequence[Tensor]) -> nn.Module:
        """A stage."""

    def head_layer(self, parameters: Sequence[Tensor], channels: slice) -> nn.Module:
        """A head."""


@dataclass(frozen=True)
class Trace:
    """Intermediate results of a forward pass."""

    features: list[Tensor]  # (N, K, B, ...) of each stage
    copies: list[Tensor]  # (N K, size) gathered parameters that each task used, for each stage


def is_chain(model: Model) -> bool:
    """Whether the model's shared layers are stages in a chain, without buffers or random numbers."""
    return bool(model.stages) and not model.buffers and not model.stochastic


class BranchedModel(Model):
    """K copies of each stage of a model, with one head for each of the problem's tasks.

    The model has to consist of at least one stage (see :func:`is_chain`), and linear heads in its last two parameters; raises a
    ValueError otherwise.
    """

    def __init__(self, model: Model, problem: Problem, num_tasks: int) -> None:
        if not is_chain(model):
            condition = "give at least one hidden layer to merge, in a chain without buffers or dropout"
            raise ValueError(should("hidden_sizes", condition, model.identity))
        self.model, self.num_tasks, self.identity = model, num_tasks, model.identity
        self._parts = [[model.shapes[name] for name in stage.names] for stage in model.stages]
        self.copy_sizes = [sum(prod(shape) for shape in parts) for parts in self._parts]
        """Parameters of one copy of each stage."""
        self._heads = list(model.shapes)[-2:]
        stages = {f"stage{place}": (num_tasks, size) for place, size in enumerate(self.copy_sizes)}
        self.shapes = stages | {name: model.shapes[name] for name in self._heads}
        self.shared = len(self.copy_sizes)
        self.buffers = {ASSIGN: ((self.shared, num_tasks), torch.int64), PLACES: ((problem.num_tasks,), torch.int64)}
        self._columns = [(columns.start, columns.stop) for columns in problem.output_slices]

    @property
    def num_stages(self) -> int:
        """S."""
        return len(self.copy_sizes)

    @property
    def blocks(self) -> list[int]:
        """Each copy of each stage, and the heads."""
        heads = sum(prod(self.shapes[name]) for name in self._heads)
        return [size for size in self.copy_sizes for _ in range(self.num_tasks)] + [heads]

    def used(self, buffers: Tensors) -> Tensor:
        """Which copies are in use, and the heads, which always are (N, S K + 1)."""
        copies = self.copies_in_use(buffers[ASSIGN]).flatten(1)
        return torch.cat([copies, torch.ones_like(copies[:, :1])], dim=1)

    def init(self, rng: np.random.Generator, tasks: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
        """Draws the model's initial parameters, copied K times for each stage; each task starts with its own copy."""
        own, _ = self.model.init(rng, tasks)
        *stages, heads = np.split(own, list(accumulate(self.copy_sizes)))
        places = np.zeros(len(self._columns), dtype=np.int64)
        places[tasks] = np.arange(len(tasks))
        assign = np.tile(np.arange(self.num_tasks), (self.num_stages, 1))
        values = np.concatenate([*(np.tile(stage, self.num_tasks) for stage in stages), heads])
        return values, {ASSIGN: assign, PLACES: places}

    def copies_in_use(self, assign: Tensor) -> Tensor:
        """Whether a copy is used (N, S, K), from the table (N, S, K)."""
        return (assign[..., None, :] == torch.arange(self.num_tasks, device=assign.device)[:, None]).any(-1)

    def parameter_count(self, assign: Tensor, tasks: Tensor) -> Tensor:
        """Number of parameters (N,) in use, given ``assign`` (N, S, K) and ``tasks`` (N, K): used copies and the tasks' heads."""
        sizes = torch.tensor(self.copy_sizes, device=assign.device)
        features = self.shapes[self._heads[0]][0]
        heads = torch.tensor([(features + 1) * (stop - start) for start, stop in self._columns], device=assign.device)
        return (self.copies_in_use(assign).sum(2) * sizes).sum(1) + heads[tasks].sum(1)

    def plain(self, parameters: Tensors, buffers: Tensors, heads: Mapping[str, slice]) -> nn.Module:
        """The structure of PyTorch's own layers, if the model has such: only the copies in use; see :meth:`Model.plain`."""
        model = self.model
        if not isinstance(model, HasLayers):
            return super().plain(parameters, buffers, heads)
        assign, places = buffers[ASSIGN], buffers[PLACES]
        columns = {(start, stop): task for task, (start, stop) in enumerate(self._columns)}
        copies = {name: int(places[columns[own.start, own.stop]]) for name, own in heads.items()}  # among the participating tasks
        numbers: dict[tuple[int, int], int] = {}
        paths: dict[str, list[int]] = {}
        for name, task in copies.items():
            own = [(stage, int(assign[stage, task])) for stage in range(self.num_stages)]
            paths[name] = [numbers.setdefault(piece, len(numbers)) for piece in own]
        stages = [model.stage_layer(stage, self._split(stage, parameters[f"stage{stage}"][copy])) for stage, copy in numbers]
        own_heads = [parameters[name] for name in self._heads]
        return Branches(stages, paths, {name: model.head_layer(own_heads, channels) for name, channels in heads.items()})

    def _split(self, stage: int, values: Tensor) -> list[Tensor]:
        """The parameters of a copy (size,) in their shapes."""
        shapes = self._parts[stage]
        parts = values.split([prod(shape) for shape in shapes])
        return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]

    def forward(
        self, parameters: Tensors, buffers: Tensors, inputs: Tensor, *, train: bool = False, seeds: Tensor | None = None
    ) -> tuple[Tensor, Tensors]:
        """Outputs of all heads, each computed from its task's features; see :meth:`Model.forward`."""
        trace = self.trace([*parameters.values()], inputs, buffers[ASSIGN])
        return self.heads(parameters, buffers, trace.features[-1]), buffers

    def trace(self, stages: Sequence[Tensor], inputs: Tensor, assign: Tensor) -> Trace:
        """Runs the stages that ``assign`` (N, S, K) contains, all or only the first ones, on inputs (N, B, *shape).

        ``stages`` are the parameters (N, K, size) of each stage; those of the heads may follow.
        """
        count = self.num_tasks
        rows = torch.arange(len(inputs), device=inputs.device)[:, None] * count
        values = inputs[:, None].expand(-1, count, *inputs.shape[1:]).flatten(0, 1)  # (N K, B, ...)
        features, copies = [], []
        for stage in range(assign.shape[1]):
            copies.append(stages[stage].flatten(0, 1).index_select(0, (rows + assign[:, stage]).flatten()))
            values = self.run(stage, copies[-1], values)
            features.append(values.unflatten(0, (-1, count)))
        return Trace(features, copies)

    def heads(self, parameters: Tensors, buffers: Tensors, features: Tensor) -> Tensor:
        """Runs the heads on the features (N, K, B, F) of the last stage: outputs (N, B, O)."""
        weights, biases = (parameters[name] for name in self._heads)  # (N, F, O) and (N, 1, O)
        places = buffers[PLACES]
        rows = torch.arange(len(features), device=features.device)[:, None] * self.num_tasks
        own = features.flatten(0, 1).index_select(0, (rows + places).flatten()).unflatten(0, places.shape)  # (N, all tasks, B, F)
        outputs = [
            _head(biases[:, :, start:stop], own[:, task], weights[:, :, start:stop])
            for task, (start, stop) in enumerate(self._columns)
        ]
        return torch.cat(outputs, dim=2)

    def run(self, stage: int, copies: Tensor, inputs: Tensor) -> Tensor:
        """One stage with the parameters (M, size) of M copies, on inputs (M, B, ...)."""
        shapes = self._parts[stage]
        parts = copies.split([prod(shape) for shape in shapes], dim=1)
        return self.model.stages[stage].run([part.unflatten(1, own) for part, own in zip(parts, shapes, strict=True)], inputs)


def _head(bias: Tensor, features: Tensor, weight: Tensor) -> Tensor:
    """Outputs (N, B, O) of one task's head."""
    if weight.shape[2] == 1:  # with one output, a batched product rounds differently for N = 1 than for larger N
        return (features * weight.mT).sum(2, keepdim=True) + bias
    return torch.baddbmm(bias, features, weight)

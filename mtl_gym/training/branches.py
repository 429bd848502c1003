"""Networks whose structure is data: a copy of every stage for each task, and a table of who uses which.

N is the number of replicas, S of stages, K of the tasks that take part, B of samples. ``assign`` (N, S, K) says which copy a task
uses at a stage: the least task that shares it. Copies are gathered in the forward pass, so replicas with different structures are
one computation; sharing saves parameters, not time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mtl_gym.arguments import should
from mtl_gym.problems.base import Problem
from mtl_gym.training.networks import CHAINS, Network


@dataclass(frozen=True)
class Trace:
    """What a forward pass leaves.

    Attributes:
        features: Of each stage (N, K, B, ...).
        copies: Of each stage the parameters (N K, size) that each task used, gathered.
    """

    features: list[Tensor]
    copies: list[Tensor]


class BranchedNetwork:
    """K copies of each stage of a network, with one head for each of the problem's tasks.

    Args:
        network: The network of one replica of one task.
        problem: Gives the heads.
        num_tasks: K.

    Raises:
        ValueError: If the network has no stages to merge.
    """

    def __init__(self, network: Network, problem: Problem, num_tasks: int) -> None:
        if not network.stages:
            if problem.network in CHAINS:
                raise ValueError(should("hidden_sizes", "hold at least one layer that can be merged", []))
            raise ValueError(should("problem", f"have a network that is a chain of layers ({', '.join(CHAINS)})", problem.network))
        self.network, self.num_tasks = network, num_tasks
        self.sizes = [prod(weight) + prod(bias) for weight, bias in zip(network.shapes[:-2:2], network.shapes[1:-2:2], strict=True)]
        """Parameters of one copy of each stage."""
        self.shapes = (*((num_tasks, size) for size in self.sizes), *network.shapes[-2:])
        self.shared = len(self.sizes)
        self._columns = [(columns.start, columns.stop) for columns in problem.output_slices]

    @property
    def num_stages(self) -> int:
        """S."""
        return len(self.sizes)

    @property
    def size(self) -> int:
        """Number of parameters of one replica, all copies counted."""
        return sum(prod(shape) for shape in self.shapes)

    @property
    def blocks(self) -> list[int]:
        """Sizes of the pieces of a row of parameters that are optimised by themselves: each copy of each stage, and the heads."""
        heads = sum(prod(shape) for shape in self.shapes[self.shared :])
        return [size for size in self.sizes for _ in range(self.num_tasks)] + [heads]

    def initial(self, rng: np.random.Generator) -> npt.NDArray[np.float32]:
        """Draws the initial values (P,) of one replica: all copies of a stage are the same, and the network's own."""
        own = self.network.initial(rng)
        *stages, heads = np.split(own, list(accumulate(self.sizes)))
        return np.concatenate([*(np.tile(stage, self.num_tasks) for stage in stages), heads])

    def used(self, assign: Tensor) -> Tensor:
        """Whether a copy is used (N, S, K), from the table (N, S, K)."""
        return (assign[..., None, :] == torch.arange(self.num_tasks, device=assign.device)[:, None]).any(-1)

    def parameter_count(self, assign: Tensor, tasks: Tensor) -> Tensor:
        """Parameters (N,) in use: the copies that the table (N, S, K) names, and the heads of the tasks (N, K) that take part."""
        sizes = torch.tensor(self.sizes, device=assign.device)
        features = self.network.shapes[-2][0]
        heads = torch.tensor([(features + 1) * (stop - start) for start, stop in self._columns], device=assign.device)
        return (self.used(assign).sum(2) * sizes).sum(1) + heads[tasks].sum(1)

    def forward(self, parameters: Sequence[Tensor], inputs: Tensor, assign: Tensor) -> Trace:
        """Runs the stages.

        Args:
            parameters: Of each stage (N, K, size); those of the heads may follow.
            inputs: (N, B, *shape).
            assign: (N, S, K), or of the first stages alone, which are then run.
        """
        count = self.num_tasks
        rows = torch.arange(len(inputs), device=inputs.device)[:, None] * count
        values = inputs[:, None].expand(-1, count, *inputs.shape[1:]).flatten(0, 1)  # (N K, B, ...)
        features, copies = [], []
        for stage in range(assign.shape[1]):
            copies.append(parameters[stage].flatten(0, 1).index_select(0, (rows + assign[:, stage]).flatten()))
            values = self.run(stage, copies[-1], values)
            features.append(values.unflatten(0, (-1, count)))
        return Trace(features, copies)

    def heads(self, parameters: Sequence[Tensor], features: Tensor, places: Tensor) -> Tensor:
        """Runs the heads: outputs (N, B, O), those of each task from its own features.

        Args:
            parameters: The last two are the weights (N, F, O) and biases (N, 1, O) of all heads.
            features: Of the last stage (N, K, B, F).
            places: (N, all tasks) place of each of the problem's tasks among the K that take part; 0 for the others.
        """
        weights, biases = parameters[-2:]
        rows = torch.arange(len(features), device=features.device)[:, None] * self.num_tasks
        own = features.flatten(0, 1).index_select(0, (rows + places).flatten()).unflatten(0, places.shape)  # (N, all tasks, B, F)
        outputs = [
            _head(biases[:, :, start:stop], own[:, task], weights[:, :, start:stop])
            for task, (start, stop) in enumerate(self._columns)
        ]
        return torch.cat(outputs, dim=2)

    def run(self, stage: int, copies: Tensor, inputs: Tensor) -> Tensor:
        """One stage with the parameters (M, size) of M copies, on inputs (M, B, ...)."""
        weight, bias = self.network.shapes[2 * stage : 2 * stage + 2]
        parts = copies.split([prod(weight), prod(bias)], dim=1)
        return self.network.stages[stage](parts[0].unflatten(1, weight), parts[1].unflatten(1, bias), inputs)


def _head(bias: Tensor, features: Tensor, weight: Tensor) -> Tensor:
    """Outputs (N, B, O) of one task's head."""
    if weight.shape[2] == 1:  # of one output, batched products of N = 1 are rounded otherwise than those of more
        return (features * weight.mT).sum(2, keepdim=True) + bias
    return torch.baddbmm(bias, features, weight)

"""The batches of N training runs, whose order a decision may overwrite."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mtl_gym.models.base import Tensors
from mtl_gym.problems.inputs import Inputs
from mtl_gym.problems.instances import Instance, Mask
from mtl_gym.training.state import State


class Batches:
    """The samples of each batch of N training runs, epoch by epoch; the last is observed but not trained on."""

    def __init__(self, state: State, train_steps: int, batch_size: int) -> None:
        self.order = state.add("order", (train_steps + 1, batch_size), torch.int32)  # (N, H + 1, B) indices into *train*
        self._rows = torch.arange(state.num_replicas, device=state.device)

    def begin(self, row: int, instance: Instance, known: Mask | None = None) -> None:
        """Sets a row to an instance's order; ``known`` (n, K) are the labelled samples of each task, where labels are missing."""
        batches, batch_size = self.order.shape[1:]
        self.order[row] = torch.from_numpy(instance.order(batch_size, batches, known))

    def at(self, step: Tensor) -> Tensor:
        """The samples (N, B) of the batch at each replica's step (N,)."""
        steps = step.tolist()
        return self.order[:, steps[0]] if len(set(steps)) == 1 else self.order[self._rows, step]


@dataclass
class Batch:
    """The batch of a step."""

    samples: Tensor  # (N, B) indices into *train*
    inputs: Inputs  # (N, B, *shape), or such tensors by name
    labels: Tensor  # (N, B, T, *S), wrong ones included
    # (N, B, K) whether each sample has a label of each task; ``None`` if all have or losses are of whole batches
    known: Tensor | None = None


@dataclass
class Pending:
    """Results for the next batch, dropped by the step."""

    batch: Batch | None = None
    losses: Tensor | None = None  # (N, K) with their graph
    of_samples: Tensor | None = None  # (N, B, K) with their graph
    gradients: Tensor | None = None  # (N, K, P) of the tasks' losses
    buffers: Tensors = field(default_factory=dict)  # the model's buffers after the pass, stored by the step
    notes: dict[str, Any] = field(default_factory=dict)  # results of other parts by name

"""All that belongs to one training, for N trainings: tensors with a leading replica axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from mtl_gym.problems.base import Problem
from mtl_gym.problems.instances import Instance
from mtl_gym.training.networks import Network


@dataclass
class Replicas:
    """The state of N trainings. H is the number of training steps, B the batch size, K the tasks that take part, P the number of
    parameters.

    Attributes:
        parameters: (N, P).
        moments: (N, buffers, P) of the optimiser.
        updates: (N, pieces) updates that the optimiser made of each piece of the parameters; most often there is one.
        step: (N,) training steps taken.
        order: (N, H + 1, B) samples of each batch.
        tasks: (N, K) the problem's tasks that take part.
        scales: (N, K) factor of each loss.
        sources: For *train*, *meta* and *reward*: (N, n, all tasks), the sample whose label each sample bears.
        losses: (N, H, K) losses of each batch before its update.
        weights: (N, H, K) weights of each update.
        passes: (N, 2) forward and backward passes, in training batches.
        seen: (N, n, K) sums of each training sample's losses in the batches so far; n is 0 unless samples are weighted.
        visits: (N, n) numbers of those batches.
        assign: (N, S, K) the copy of each stage that each task uses; S is 0 unless layers are merged.
        groups: (N, K) tasks that may still be merged with each other: each bears the least number of its group.
        averages: (N, K, Q) moving averages of the tasks' gradients of the Q shared parameters; empty unless they are averaged.
        differentiated: (N,) batches up to the last one whose K gradients have been counted in ``passes``.
    """

    parameters: Tensor
    moments: Tensor
    updates: Tensor
    step: Tensor
    order: Tensor
    tasks: Tensor
    scales: Tensor
    sources: dict[str, Tensor]
    losses: Tensor
    weights: Tensor
    passes: Tensor
    seen: Tensor
    visits: Tensor
    assign: Tensor
    groups: Tensor
    averages: Tensor
    differentiated: Tensor

    @classmethod
    def empty(
        cls,
        num_replicas: int,
        *,
        size: int,
        buffers: int,
        train_steps: int,
        batch_size: int,
        num_tasks: int,
        sources: dict[str, tuple[int, int]],
        samples: int,
        blocks: int,
        stages: int,
        averaged: int,
        device: torch.device,
    ) -> Replicas:
        """Returns N trainings that have not begun.

        ``sources`` has the shape (n, all tasks) for each split with wrong labels; ``samples`` is the n of ``seen``,
        ``blocks`` the number of pieces, ``stages`` the S of ``assign``, ``averaged`` the Q of ``averages``.
        """

        def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros((num_replicas, *shape), dtype=dtype, device=device)

        return cls(
            parameters=zeros(size),
            moments=zeros(buffers, size),
            updates=zeros(blocks),
            step=zeros(dtype=torch.int64),
            order=zeros(train_steps + 1, batch_size, dtype=torch.int32),
            tasks=zeros(num_tasks, dtype=torch.int64),
            scales=zeros(num_tasks),
            sources={name: zeros(*shape, dtype=torch.int32) for name, shape in sources.items()},
            losses=zeros(train_steps, num_tasks),
            weights=zeros(train_steps, num_tasks),
            passes=zeros(2),
            seen=zeros(samples, num_tasks),
            visits=zeros(samples),
            assign=zeros(stages, num_tasks, dtype=torch.int64),
            groups=zeros(num_tasks, dtype=torch.int64),
            averages=zeros(num_tasks, averaged),
            differentiated=zeros(dtype=torch.int64),
        )

    def begin(self, row: int, instance: Instance, problem: Problem, network: Network, holdouts: dict[str, Tensor]) -> None:
        """Starts the training of an instance in a row.

        Args:
            row: The replica.
            instance: What it trains on.
            problem: What it is an instance of.
            network: Gives shapes and bounds of the initial weights.
            holdouts: The fixed samples of *meta* and *reward*, by their rows in the split.
        """
        begun_anew = (self.moments, self.updates, self.step, self.losses, self.weights, self.passes, self.groups)
        for tensor in (*begun_anew, self.seen, self.visits, self.averages, self.differentiated):
            tensor[row] = 0
        self.assign[row] = torch.arange(self.tasks.shape[1])
        self.parameters[row] = torch.from_numpy(network.initial(instance.stream("parameters")))
        batches, batch_size = self.order.shape[1:]
        self.order[row] = torch.from_numpy(instance.order(batch_size, batches))
        self.tasks[row] = torch.from_numpy(instance.tasks)
        self.scales[row] = torch.from_numpy(instance.scales)
        for split, source in self.sources.items():
            if split == "train":
                source[row] = torch.from_numpy(instance.label_source(problem))
            else:
                rows = holdouts[split].cpu().numpy()
                source[row] = torch.from_numpy(instance.holdout_source(split, problem.num_tasks, rows))

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by its name."""
        named = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "sources"}
        return named | {f"source_{split}": source for split, source in self.sources.items()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Copies the tensors of a state of trainings with the same arguments.

        Raises:
            ValueError: If one is missing or has another shape; nothing is changed then.
        """
        tensors = self.tensors()
        for name, tensor in tensors.items():
            if name not in state or state[name].shape != tensor.shape:
                raise ValueError(f"`state` should be of a learner with the same arguments: {name} differs in shape.")
        for name, tensor in tensors.items():
            tensor.copy_(state[name])

    def copy_rows(self, source: Sequence[int], target: Sequence[int]) -> None:
        """Makes each row of ``target`` a copy of the row of ``source`` at the same place."""
        for tensor in self.tensors().values():
            tensor[list(target)] = tensor[list(source)]

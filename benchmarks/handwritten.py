"""The code that people write by hand: an ``nn.Module``, ``torch.optim.Adam``, one training after another."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from mtl_gym.problems.axes import resolve
from mtl_gym.problems.base import Problem
from mtl_gym.problems.instances import draw

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": lambda outputs, targets: functional.cross_entropy(outputs, targets[:, 0].long(), ignore_index=-1),
    "bce": functional.binary_cross_entropy_with_logits,
    "mse": functional.mse_loss,
    "l1": functional.l1_loss,
    "cosine": lambda outputs, targets: (1 - functional.cosine_similarity(outputs, targets, dim=1)).mean(),
}


class Dense(nn.Module):
    """The hourglass of ``mtl_gym.models.native.dense``, without its heads."""

    def __init__(self, channels: int, hidden_sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, hidden_sizes[0], 3, padding=1)
        self.second = nn.Conv2d(hidden_sizes[0], hidden_sizes[1], 3, padding=1)

    def forward(self, inputs: Tensor) -> Tensor:
        skip = torch.relu(self.first(inputs))
        deep = torch.relu(self.second(functional.avg_pool2d(skip, 2)))
        return torch.cat([skip, functional.interpolate(deep, size=skip.shape[-2:])], dim=1)


def trunk(problem: Problem) -> tuple[nn.Module, int]:
    """The trunk of the problem's network, and the width of its features."""
    hidden_sizes, shape = problem.defaults.hidden_sizes, problem.input_shape
    if problem.network == "dense":
        return Dense(shape[0], hidden_sizes), hidden_sizes[0] + hidden_sizes[-1]
    layers: list[nn.Module] = []
    if problem.network == "mlp":
        width = shape[0]
        for size in hidden_sizes:
            layers += [nn.Linear(width, size), nn.ReLU()]
            width = size
        return nn.Sequential(*layers), width
    channels = shape[0]
    for size in hidden_sizes[:-1]:
        layers += [nn.Conv2d(channels, size, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        channels = size
    layers += [nn.Flatten(), nn.LazyLinear(hidden_sizes[-1]), nn.ReLU()]
    return nn.Sequential(*layers), hidden_sizes[-1]


class Network(nn.Module):
    """A trunk with a head for each task."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.trunk, width = trunk(problem)
        dense = problem.network == "dense"
        self.heads = nn.ModuleList(nn.Conv2d(width, t.outputs, 1) if dense else nn.Linear(width, t.outputs) for t in problem.tasks)

    def forward(self, inputs: Tensor) -> list[Tensor]:
        features = self.trunk(inputs)
        return [head(features) for head in self.heads]


def train(problem: Problem, ids: range, steps: int, *, fused: bool) -> None:
    """Trains the instances one after another, on their own batches, with equal weights."""
    inputs, targets = problem.splits["train"].inputs, problem.splits["train"].targets.nan_to_num(-1)
    labels = [targets[:, own] for own in problem.target_slices]
    losses = [LOSSES[task.loss] for task in problem.tasks]
    for id in ids:
        instance = draw(problem, distribution=resolve("clean"), num_tasks=problem.num_tasks, network="benchmark", id=id)
        order = torch.from_numpy(instance.order(problem.defaults.batch_size, steps)).long()
        network = Network(problem)
        network(inputs[:1])
        optimizer = torch.optim.Adam(network.parameters(), lr=problem.defaults.lr, fused=fused)
        for batch in order:
            outputs = network(inputs[batch])
            loss = sum(function(output, label[batch]) for function, output, label in zip(losses, outputs, labels, strict=True))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

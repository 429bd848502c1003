"""The code that people write by hand, to compare speeds with: an ``nn.Module``, ``torch.optim.Adam``, one training after another.

It shares nothing with the trainer but the instances' batches and the learning rate's schedule.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from mtl_gym.problems.base import Problem
from mtl_gym.problems.instances import Instance
from mtl_gym.randomness import borrowed_generator
from mtl_gym.training.optim import LR_SCHEDULES
from mtl_gym.training.recipe import Recipe

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": lambda outputs, targets: functional.cross_entropy(outputs, targets[:, 0].long(), ignore_index=-1),
    "bce": functional.binary_cross_entropy_with_logits,
    "mse": functional.mse_loss,
    "l1": functional.l1_loss,
    "cosine": lambda outputs, targets: (1 - functional.cosine_similarity(outputs, targets, dim=1)).mean(),
}


class Hourglass(nn.Module):
    """The network ``dense`` without its heads."""

    def __init__(self, channels: int, hidden_sizes: tuple[int, ...]) -> None:
        super().__init__()
        pairs = pairwise((channels, *hidden_sizes))
        self.first, *others = (nn.Conv2d(*pair, 3, padding=1) for pair in pairs)
        self.others = nn.Sequential(*(layer for own in others for layer in (own, nn.ReLU())))

    def forward(self, inputs: Tensor) -> Tensor:
        """Features of images."""
        skip = torch.relu(self.first(inputs))
        deep = self.others(functional.avg_pool2d(skip, 2))
        return torch.cat([skip, functional.interpolate(deep, size=skip.shape[-2:])], dim=1)


def _dense(problem: Problem, hidden_sizes: tuple[int, ...]) -> tuple[nn.Module, int]:
    return Hourglass(problem.input_shape[0], hidden_sizes), hidden_sizes[0] + hidden_sizes[-1]


def _mlp(problem: Problem, hidden_sizes: tuple[int, ...]) -> tuple[nn.Module, int]:
    widths = (math.prod(problem.input_shape), *hidden_sizes)
    layers = [layer for pair in pairwise(widths) for layer in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(*([] if len(problem.input_shape) == 1 else [nn.Flatten()]), *layers), widths[-1]


def _conv(problem: Problem, hidden_sizes: tuple[int, ...]) -> tuple[nn.Module, int]:
    channels, height, width = problem.input_shape
    *inner, features = hidden_sizes
    pairs = pairwise((channels, *inner))
    layers = [layer for pair in pairs for layer in (nn.Conv2d(*pair, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))]
    pixels = (height >> len(inner)) * (width >> len(inner))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(inner[-1] * pixels, features), nn.ReLU()), features


TRUNKS: dict[str, Callable[[Problem, tuple[int, ...]], tuple[nn.Module, int]]] = {"mlp": _mlp, "conv": _conv, "dense": _dense}
"""By the problem's network: makes the trunk, and says the width of its features."""


class Shared(nn.Module):
    """A trunk with a head for each task."""

    def __init__(self, problem: Problem, hidden_sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.trunk, width = TRUNKS[str(problem.network)](problem, hidden_sizes)
        self.heads = nn.ModuleList(_head(problem, width, task.outputs) for task in problem.tasks)

    def forward(self, inputs: Tensor) -> list[Tensor]:
        """The outputs of each task."""
        features = self.trunk(inputs)
        return [head(features) for head in self.heads]


class Separate(nn.Module):
    """A network for each task, side by side."""

    def __init__(self, problem: Problem, hidden_sizes: tuple[int, ...]) -> None:
        super().__init__()
        trunks, widths = zip(*(TRUNKS[str(problem.network)](problem, hidden_sizes) for _ in problem.tasks), strict=True)
        self.trunks = nn.ModuleList(trunks)
        self.heads = nn.ModuleList(_head(problem, width, task.outputs) for width, task in zip(widths, problem.tasks, strict=True))

    def forward(self, inputs: Tensor) -> list[Tensor]:
        """The outputs of each task."""
        return [head(trunk(inputs)) for trunk, head in zip(self.trunks, self.heads, strict=True)]


def _head(problem: Problem, width: int, outputs: int) -> nn.Module:
    return nn.Conv2d(width, outputs, 1) if problem.network == "dense" else nn.Linear(width, outputs)


Make = Callable[[Problem, tuple[int, ...]], nn.Module]
"""Makes a network that returns the outputs of each task, such as :class:`Shared`, for a problem and the widths of its layers."""


def missing(problem: Problem) -> str | None:
    """Why there is no loop for a problem; ``None`` if there is one."""
    if problem.network not in TRUNKS:
        return f"its network {problem.network_name} is not written by hand"
    losses = sorted({task.loss_name for task in problem.tasks} - LOSSES.keys())
    if losses:
        return f"its loss {losses[0]} is not written by hand"
    if problem.family is not None:
        return "its instances draw all their data"
    return None if problem.complete else "labels are missing"


def training(
    network: nn.Module, problem: Problem, recipe: Recipe, instance: Instance, *, fused: bool = False
) -> Iterator[list[Tensor]]:
    """Trains a network on an instance's batches with equal weights, and yields the tasks' losses before each step.

    Only the optimiser ``adam``, the distribution ``clean`` and all of the problem's tasks are written by hand. Missing labels count
    as -1, which takes the time of others; with classes they do not count.
    """
    train = problem.splits["train"]
    inputs, targets = train.inputs.to(recipe.device), train.targets.nan_to_num(-1).to(recipe.device)
    labels = [targets[:, own] for own in problem.target_slices]
    losses = [LOSSES[task.loss_name] for task in problem.tasks]
    order = torch.from_numpy(instance.order(recipe.batch_size, recipe.train_steps)).long().to(recipe.device)
    optimizer = torch.optim.Adam(network.to(recipe.device).parameters(), lr=recipe.lr, fused=fused)
    schedule = LR_SCHEDULES[recipe.lr_schedule]
    for step, batch in enumerate(order):
        outputs = network(inputs[batch])
        own = [function(output, label[batch]) for function, output, label in zip(losses, outputs, labels, strict=True)]
        optimizer.zero_grad()
        torch.stack(own).sum().backward()
        optimizer.param_groups[0]["lr"] = recipe.lr * schedule(step / len(order))
        optimizer.step()
        yield own


def trainings(make: Make, problem: Problem, recipe: Recipe, *, fused: bool = False) -> Iterator[list[Tensor]]:
    """One :func:`training` after another, without end: of instance 0, 1, and so on."""
    for id in itertools.count():
        with borrowed_generator(id):
            network = make(problem, recipe.hidden_sizes)
        yield from training(network, problem, recipe, recipe.draw(problem, "by hand", id), fused=fused)

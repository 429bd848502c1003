"""Trained networks as plain PyTorch modules, without a replica axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)


class Branches(nn.Module):
    """A network whose tasks share some of its stages: each task has a path through them, then its own head.

    With one path for all tasks, it is a shared trunk; with paths that part, a merged structure; with paths that never meet, groups.

    Args:
        stages: The stages of all paths.
        paths: Numbers of the stages that a task passes, by its name.
        heads: By task.
    """

    def __init__(self, stages: Sequence[nn.Module], paths: Mapping[str, Sequence[int]], heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.stages, self.paths = nn.ModuleList(stages), {task: tuple(path) for task, path in paths.items()}
        self.heads = nn.ModuleDict({key(task): head for task, head in heads.items()})

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """Outputs (B, O, *S) of inputs (B, *shape), by task; a stage that several paths begin with is computed once."""
        known: dict[tuple[int, ...], Tensor] = {(): inputs}
        for path in self.paths.values():
            for length in range(len(path)):
                if path[: length + 1] not in known:
                    known[path[: length + 1]] = self.stages[path[length]](known[path[:length]])
        return {task: self.heads[key(task)](known[path]) for task, path in self.paths.items()}


def joined(parts: Sequence[Branches]) -> Branches:
    """Networks of different tasks side by side."""
    stages: list[nn.Module] = []
    paths: dict[str, Sequence[int]] = {}
    heads: dict[str, nn.Module] = {}
    for part in parts:
        paths |= {task: [len(stages) + place for place in path] for task, path in part.paths.items()}
        heads |= {task: part.heads[key(task)] for task in part.paths}
        stages += part.stages
    return Branches(stages, paths, heads)


def key(task: str) -> str:
    """A task's name as the key of a module, which may contain no dot and be none of its attributes; different for each name."""
    name = task.replace("%", "%25").replace(".", "%2E")
    return f"%{name}" if hasattr(nn.ModuleDict(), name) else name


class Hourglass(nn.Module):
    """The features of the network ``dense``: those of the first convolution beside upsampled ones at half resolution."""

    def __init__(self, convolutions: Sequence[nn.Conv2d]) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(convolutions)

    def forward(self, inputs: Tensor) -> Tensor:
        """Features (B, C, H, W) of images (B, channels, H, W)."""
        first, *others = self.convolutions
        skip = torch.relu(first(inputs))
        image = functional.avg_pool2d(skip, 2)
        for convolution in others:
            image = torch.relu(convolution(image))
        return torch.cat([skip, functional.interpolate(image, size=skip.shape[-2:])], dim=1)


def linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """A linear layer from a weight (in, out) and a bias (1, out)."""
    layer = nn.utils.skip_init(nn.Linear, *weight.shape)
    return _filled(layer, weight.mT, bias[0])


def convolution(weight: Tensor, bias: Tensor) -> nn.Conv2d:
    """A convolution that keeps the size of images, from a weight (out, in, n, n) and a bias (out,)."""
    fan_out, fan_in, size, _ = weight.shape
    layer = nn.utils.skip_init(nn.Conv2d, fan_in, fan_out, size, padding=size // 2)
    return _filled(layer, weight, bias)


def linear_stage(weight: Tensor, bias: Tensor) -> nn.Module:
    """A linear layer with ReLU on flattened inputs."""
    return nn.Sequential(nn.Flatten(), linear(weight, bias), nn.ReLU())


def convolution_stage(weight: Tensor, bias: Tensor) -> nn.Module:
    """A convolution with ReLU and max-pooling."""
    return nn.Sequential(convolution(weight, bias), nn.ReLU(), nn.MaxPool2d(2))


def hourglass(*parameters: Tensor) -> nn.Module:
    """An :class:`Hourglass` from its convolutions' weights and biases in turn."""
    return Hourglass([convolution(weight, bias) for weight, bias in zip(parameters[::2], parameters[1::2], strict=True)])


def _filled(layer: Layer, weight: Tensor, bias: Tensor) -> Layer:
    layer.load_state_dict({"weight": weight, "bias": bias})
    return layer

"""Models whose parameters have a leading replica axis, so that N runs are one computation.

The heads are one layer; each task's head is a slice of its columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from mtl_gym.checks import should
from mtl_gym.models.base import Model, Stage, Tensors
from mtl_gym.models.plain import Branches, convolution, convolution_stage, hourglass, linear, linear_stage
from mtl_gym.problems.base import Problem

Parameters = Sequence[Tensor]
Layers = dict[str, tuple[tuple[int, ...], float]]
"""Name to shape and bound of each parameter."""
Run = Callable[[Parameters, Tensor], Tensor]
Build = Callable[..., nn.Module]
"""Makes a layer of a stage's or a head's parameters."""


class Network(Model):
    """A network of one of the families below.

    Args:
        identity: The family and its widths.
        layers: Name to shape and bound of each parameter; initial values are uniform in [-bound, bound], with the rule
            ``1 / sqrt(fan_in)`` of ``torch.nn.Linear`` and ``Conv2d``.
        run: ``(parameters, in their order; inputs (N, B, *input_shape)) -> outputs (N, B, O, *S)``.
        heads: Axis of the output channels in each of the heads' parameters, counted from the end.
        stages: The shared layers if they form a chain; each has two of the parameters.
        plain: What makes PyTorch's layers of the shared parameters, stage by stage, and of a head's; ``None`` if nothing does. A
            stage has two parameters, but a single one has all.
    """

    def __init__(
        self,
        identity: str,
        layers: Layers,
        run: Run,
        *,
        heads: tuple[int, ...] = (-1, -1),
        stages: Sequence[Run] = (),
        plain: tuple[Sequence[Build], Build] | None = None,
    ) -> None:
        self.identity, self._run, self._heads, self._plain = identity, run, heads, plain
        self.shapes = {name: shape for name, (shape, _) in layers.items()}
        self._bounds = [bound for _, bound in layers.values()]
        self.shared = len(layers) - len(heads)
        names = list(layers)
        self.stages = tuple(Stage((names[2 * place], names[2 * place + 1]), stage) for place, stage in enumerate(stages))

    def init(self, rng: np.random.Generator, tasks: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
        """Draws the initial parameters; see :meth:`Model.init`."""
        parts = [rng.uniform(-bound, bound, size) for size, bound in zip(self.sizes, self._bounds, strict=True)]
        return np.concatenate(parts).astype(np.float32), {}

    def forward(
        self, parameters: Tensors, buffers: Tensors, inputs: Tensor, *, train: bool = False, seeds: Tensor | None = None
    ) -> tuple[Tensor, Tensors]:
        """Outputs of all heads; see :meth:`Model.forward`."""
        return self._run([*parameters.values()], inputs), buffers

    def stage_layer(self, stage: int, parameters: Sequence[Tensor]) -> nn.Module:
        """A stage as PyTorch's layers; raises ``ValueError`` if it has none."""
        if self._plain is None:
            raise ValueError(should("model", "have stages of PyTorch's own layers", self.identity))
        return self._plain[0][stage](*parameters)

    def head_layer(self, parameters: Sequence[Tensor], channels: slice) -> nn.Module:
        """A head as one of PyTorch's layers, from the parameters of all heads; raises ``ValueError`` if it has none."""
        if self._plain is None:
            raise ValueError(should("model", "have heads of PyTorch's own layers", self.identity))
        # Parameters have no replica axis here, so axes are counted from the end.
        pairs = zip(parameters, self._heads, strict=True)
        own = [part.narrow(axis, channels.start, channels.stop - channels.start) for part, axis in pairs]
        return self._plain[1](*own)

    def plain(self, parameters: Tensors, buffers: Tensors, heads: Mapping[str, slice]) -> nn.Module:
        """One replica of PyTorch's own layers, if there are such; see :meth:`Model.plain`."""
        if self._plain is None:
            return super().plain(parameters, buffers, heads)
        ordered = [*parameters.values()]
        trunk, own, count = ordered[: self.shared], ordered[self.shared :], len(self._plain[0])
        pieces = [trunk] if count == 1 else [trunk[place : place + 2] for place in range(0, len(trunk), 2)]
        stages = [self.stage_layer(stage, piece) for stage, piece in enumerate(pieces)] if count else []
        layers = {task: self.head_layer(own, channels) for task, channels in heads.items()}
        return Branches(stages, dict.fromkeys(heads, range(len(stages))), layers)

    def outputs(self, parameters: Tensors, buffers: Tensors, inputs: Tensor, channels: slice) -> Tensor:
        """Outputs of some channels; other heads, if there are heads, are not computed."""
        if not self._heads:
            return super().outputs(parameters, buffers, inputs, channels)
        ordered = [*parameters.values()]
        trunk, own = ordered[: self.shared], zip(ordered[self.shared :], self._heads, strict=True)
        count = channels.stop - channels.start
        return self._run([*trunk, *(part.narrow(axis, channels.start, count) for part, axis in own)], inputs)


def mlp(problem: Problem, hidden_sizes: tuple[int, ...]) -> Network:
    """Linear layers of ``hidden_sizes`` with ReLU, then the heads."""
    _check_labels(problem)
    layers = _linear((math.prod(problem.input_shape), *hidden_sizes, problem.outputs))

    def run(parameters: Parameters, inputs: Tensor) -> Tensor:
        return _linear_forward(parameters, inputs.flatten(2))

    plain: tuple[list[Build], Build] = ([linear_stage] * len(hidden_sizes) or [nn.Flatten], linear)
    return Network(f"mlp{list(hidden_sizes)}", layers, run, stages=[_linear_stage] * len(hidden_sizes), plain=plain)


def conv(problem: Problem, hidden_sizes: tuple[int, ...]) -> Network:
    """Two or more 3 x 3 convolutions with ReLU and 2 x 2 max-pooling, one linear layer, then the heads.

    ``hidden_sizes`` lists the channels of the convolutions, then the width of the linear layer.
    """
    channels, height, width = _image(problem)
    _check_labels(problem)
    *widths, features = _at_least_two(hidden_sizes)
    shrink = 2 ** len(widths)
    if height < shrink or width < shrink:
        most = int(math.log2(min(height, width)))
        raise ValueError(should("hidden_sizes", f"pool an image of {height} x {width} at most {most} times", hidden_sizes))
    first_linear = 2 * len(widths)
    layers = _convolutions((channels, *widths))
    layers |= _linear((widths[-1] * (height // shrink) * (width // shrink), features, problem.outputs))

    def run(parameters: Parameters, inputs: Tensor) -> Tensor:
        images = list(inputs.unbind(0))
        for weight, bias in zip(parameters[:first_linear:2], parameters[1:first_linear:2], strict=True):
            images = [functional.max_pool2d(torch.relu(image), 2) for image in _convolve(images, weight, bias)]
        return _linear_forward(parameters[first_linear:], torch.stack(images).flatten(2))

    stages = [_convolution_stage] * len(widths) + [_linear_stage]
    plain = ([convolution_stage] * len(widths) + [linear_stage], linear)
    return Network(f"conv{list(hidden_sizes)}", layers, run, stages=stages, plain=plain)


def dense(problem: Problem, hidden_sizes: tuple[int, ...]) -> Network:
    """An hourglass for dense labels: 3 x 3 convolutions with ReLU, the first at full and the others at half resolution.

    The heads are a 1 x 1 convolution over the upsampled features and those of the first convolution. ``hidden_sizes`` lists the
    channels of the convolutions.
    """
    channels, *pixels = _image(problem)
    _check_labels(problem, *pixels)
    layers = _convolutions((channels, *_at_least_two(hidden_sizes)))
    features = hidden_sizes[0] + hidden_sizes[-1]
    bound = 1 / math.sqrt(features)
    layers |= {"heads.weight": ((problem.outputs, features, 1, 1), bound), "heads.bias": ((problem.outputs,), bound)}

    def run(parameters: Parameters, inputs: Tensor) -> Tensor:
        skip = [torch.relu(image) for image in _convolve(list(inputs.unbind(0)), parameters[0], parameters[1])]
        images = [functional.avg_pool2d(image, 2) for image in skip]
        for weight, bias in zip(parameters[2:-2:2], parameters[3:-2:2], strict=True):
            images = [torch.relu(image) for image in _convolve(images, weight, bias)]
        images = [functional.interpolate(image, size=full.shape[-2:]) for image, full in zip(images, skip, strict=True)]
        joined = [torch.cat(pair, dim=1) for pair in zip(skip, images, strict=True)]
        return torch.stack(_convolve(joined, parameters[-2], parameters[-1]))

    return Network(f"dense{list(hidden_sizes)}", layers, run, heads=(-4, -1), plain=([hourglass], convolution))


def point(problem: Problem, hidden_sizes: tuple[int, ...]) -> Network:
    """No network: the parameters are a point x, and the output is x times the input (K scales for each coordinate).

    There are no heads and no hidden layers. Initial values are uniform in [-2, 2].
    """
    if hidden_sizes:
        raise ValueError(should("hidden_sizes", "be empty for the network 'point'", hidden_sizes))
    dimensions = problem.tasks[0].outputs

    def run(parameters: Parameters, inputs: Tensor) -> Tensor:
        scales = inputs.unflatten(2, (-1, dimensions))  # (N, B, K, D)
        return (scales * parameters[0][:, None, None, :]).flatten(2)

    return Network(f"point{list(hidden_sizes)}", {"point": ((dimensions,), 2.0)}, run, heads=())


def _linear(widths: Sequence[int]) -> Layers:
    """Weights (in, out) and biases (1, out) between layers of these widths; the last layer holds the heads."""
    layers: Layers = {}
    for place, (fan_in, fan_out) in enumerate(pairwise(widths)):
        name, bound = "heads" if place == len(widths) - 2 else f"linear{place}", 1 / math.sqrt(fan_in)
        layers |= {f"{name}.weight": ((fan_in, fan_out), bound), f"{name}.bias": ((1, fan_out), bound)}
    return layers


def _linear_forward(parameters: Parameters, features: Tensor) -> Tensor:
    for weight, bias in zip(parameters[:-2:2], parameters[1:-2:2], strict=True):
        features = torch.relu(torch.baddbmm(bias, features, weight))  # (N, B, width)
    return torch.baddbmm(parameters[-1], features, parameters[-2])


def _linear_stage(parameters: Parameters, inputs: Tensor) -> Tensor:
    weight, bias = parameters
    return torch.relu(torch.baddbmm(bias, inputs.flatten(2), weight))


def _convolution_stage(parameters: Parameters, inputs: Tensor) -> Tensor:
    images = _convolve(inputs.unbind(0), *parameters)
    return torch.stack([functional.max_pool2d(torch.relu(image), 2) for image in images])


def _convolutions(channels: Sequence[int]) -> Layers:
    """Weights and biases of 3 x 3 convolutions."""
    layers: Layers = {}
    for place, (fan_in, fan_out) in enumerate(pairwise(channels)):
        bound = 1 / math.sqrt(9 * fan_in)
        layers |= {f"conv{place}.weight": ((fan_out, fan_in, 3, 3), bound), f"conv{place}.bias": ((fan_out,), bound)}
    return layers


def _convolve(images: Sequence[Tensor], weight: Tensor, bias: Tensor) -> list[Tensor]:
    """Convolves each replica's images (B, C, H, W) with its own weight; on a CPU a loop is faster than grouped convolutions."""
    padding = weight.shape[-1] // 2
    rows = zip(images, weight.unbind(0), bias.unbind(0), strict=True)
    return [functional.conv2d(image, row_weight, row_bias, padding=padding) for image, row_weight, row_bias in rows]


def _image(problem: Problem) -> tuple[int, ...]:
    if len(problem.input_shape) != 3:
        raise ValueError(should("problem", "have images (channels, height, width) as inputs for a convolutional network", problem))
    return problem.input_shape


def _check_labels(problem: Problem, *pixels: int) -> None:
    """Raises ValueError unless each label is a number, or one for each of these pixels, as the network's outputs."""
    if problem.splits["train"].targets.shape[2:] != pixels:
        shape = (len(problem.splits["train"]), sum(task.target_channels for task in problem.tasks), *pixels)
        condition = f"have labels of shape {shape} for the network {problem.network_name!r}"
        raise ValueError(should("problem", condition, tuple(problem.splits["train"].targets.shape)))


def _at_least_two(hidden_sizes: tuple[int, ...]) -> tuple[int, ...]:
    if len(hidden_sizes) < 2:
        raise ValueError(should("hidden_sizes", "contain at least 2 widths for a convolutional network", hidden_sizes))
    return hidden_sizes

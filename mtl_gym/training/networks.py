"""Networks whose every parameter carries a leading replica axis, so that N trainings are one computation.

N is the number of replicas, B the batch, O the output channels of all heads side by side. The heads are one layer: the
columns of a task are its head. ``NETWORKS`` is the table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from mtl_gym.arguments import should
from mtl_gym.problems.base import Problem

Parameters = Sequence[Tensor]
Stage = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``(weight, bias, inputs (N, B, ...)) -> features (N, B, ...)``: a layer with all that follows it before the next."""


@dataclass(frozen=True)
class Network:
    """A family member: shapes of its parameters and a forward pass for N of them.

    Attributes:
        shapes: Shape of each parameter of one replica.
        bounds: Initial values of each parameter are uniform in [-bound, bound] (``torch.nn.Linear``'s and ``Conv2d``'s rule,
            ``1 / sqrt(fan_in)``).
        shared: Number of leading parameters that all tasks share.
        forward: ``(parameters, each (N, *shape); inputs (N, B, *input_shape)) -> outputs (N, B, O, *S)``.
        stages: The shared layers one by one, each with two of the parameters; empty where they are no chain.
        heads: Axes of the output channels in the last parameters, those of the heads; counted from the end.
    """

    shapes: tuple[tuple[int, ...], ...]
    bounds: tuple[float, ...]
    shared: int
    forward: Callable[[Parameters, Tensor], Tensor]
    heads: tuple[int, ...] = (-1, -1)
    stages: tuple[Stage, ...] = ()

    def initial(self, rng: np.random.Generator) -> npt.NDArray[np.float32]:
        """Draws the initial values (P,) of one replica."""
        parts = [rng.uniform(-bound, bound, math.prod(shape)) for shape, bound in zip(self.shapes, self.bounds, strict=True)]
        return np.concatenate(parts).astype(np.float32)

    def outputs(self, parameters: Parameters, inputs: Tensor, channels: slice) -> Tensor:
        """Some output channels alone (N, B, channels, *S): the heads of the others are not computed, where there are heads."""
        if not self.heads:
            return self.forward(parameters, inputs)[:, :, channels]
        trunk, own = parameters[: -len(self.heads)], zip(parameters[-len(self.heads) :], self.heads, strict=True)
        count = channels.stop - channels.start
        return self.forward([*trunk, *(part.narrow(axis, channels.start, count) for part, axis in own)], inputs)

    @property
    def size(self) -> int:
        """Number of parameters of one replica, P."""
        return sum(math.prod(shape) for shape in self.shapes)


def mlp(problem: Problem, hidden_sizes: tuple[int, ...]) -> Network:
    """Linear layers with ReLU, then the heads; ``hidden_sizes`` holds the widths."""
    widths = (math.prod(problem.input_shape), *hidden_sizes, problem.outputs)
    shapes, bounds = _linear(widths)

    def forward(parameters: Parameters, inputs: Tensor) -> Tensor:
        return _linear_forward(parameters, inputs.flatten(2))

    return Network(shapes, bounds, len(shapes) - 2, forward, stages=(_linear_stage,) * len(hidden_sizes))


def conv(problem: Problem, hidden_sizes: tuple[int, ...]) -> Network:
    """Two or more 3 x 3 convolutions with ReLU and 2 x 2 max-pooling, one linear layer, then the heads.

    ``hidden_sizes`` holds the channels of the convolutions and, last, the width of the linear layer.
    """
    channels, height, width = _image(problem)
    *stages, features = hidden_sizes if len(hidden_sizes) > 1 else _too_short(hidden_sizes, 2)
    shrink = 2 ** len(stages)
    if height < shrink or width < shrink:
        raise ValueError(
            should(
                "hidden_sizes",
                f"pool an image of {height} x {width} at most {int(math.log2(min(height, width)))} times",
                hidden_sizes,
            )
        )
    shapes, bounds = _convolutions((channels, *stages))
    more_shapes, more_bounds = _linear((stages[-1] * (height // shrink) * (width // shrink), features, problem.outputs))
    first_linear = len(shapes)

    def forward(parameters: Parameters, inputs: Tensor) -> Tensor:
        images = list(inputs.unbind(0))
        for weight, bias in zip(parameters[:first_linear:2], parameters[1:first_linear:2], strict=True):
            images = [functional.max_pool2d(torch.relu(image), 2) for image in _convolve(images, weight, bias)]
        return _linear_forward(parameters[first_linear:], torch.stack(images).flatten(2))

    of_stages = (_convolution_stage,) * len(stages) + (_linear_stage,)
    return Network(shapes + more_shapes, bounds + more_bounds, first_linear + 2, forward, stages=of_stages)


def dense(problem: Problem, hidden_sizes: tuple[int, ...]) -> Network:
    """An hourglass for labels at every pixel: 3 x 3 convolutions with ReLU, the first at full and the others at half resolution.

    The heads are a 1 x 1 convolution over the upsampled features beside those of the first convolution. ``hidden_sizes`` holds the
    channels of the convolutions.
    """
    channels, _, _ = _image(problem)
    if len(hidden_sizes) < 2:
        _too_short(hidden_sizes, 2)
    shapes, bounds = _convolutions((channels, *hidden_sizes))
    features = hidden_sizes[0] + hidden_sizes[-1]
    shapes += ((problem.outputs, features, 1, 1), (problem.outputs,))
    bounds += (1 / math.sqrt(features),) * 2

    def forward(parameters: Parameters, inputs: Tensor) -> Tensor:
        skip = [torch.relu(image) for image in _convolve(list(inputs.unbind(0)), parameters[0], parameters[1])]
        images = [functional.avg_pool2d(image, 2) for image in skip]
        for weight, bias in zip(parameters[2:-2:2], parameters[3:-2:2], strict=True):
            images = [torch.relu(image) for image in _convolve(images, weight, bias)]
        images = [functional.interpolate(image, size=full.shape[-2:]) for image, full in zip(images, skip, strict=True)]
        features = [torch.cat(pair, dim=1) for pair in zip(skip, images, strict=True)]
        return torch.stack(_convolve(features, parameters[-2], parameters[-1]))

    return Network(shapes, bounds, len(shapes) - 2, forward, heads=(-4, -1))


def point(problem: Problem, hidden_sizes: tuple[int, ...]) -> Network:
    """No network: the parameters are one point x, and the output is the input (K scales of each coordinate) times x.

    There are no heads and no hidden layers. Initial values are uniform in [-2, 2].
    """
    if hidden_sizes:
        raise ValueError(should("hidden_sizes", "be empty for the network 'point'", hidden_sizes))
    dimensions = problem.tasks[0].outputs

    def forward(parameters: Parameters, inputs: Tensor) -> Tensor:
        scales = inputs.unflatten(2, (-1, dimensions))  # (N, B, K, D)
        return (scales * parameters[0][:, None, None, :]).flatten(2)

    return Network(((dimensions,),), (2.0,), 1, forward, heads=())


NETWORKS: dict[str, Callable[[Problem, tuple[int, ...]], Network]] = {"mlp": mlp, "conv": conv, "dense": dense, "point": point}
CHAINS = ("mlp", "conv")
"""Networks that are chains of layers, before their heads."""


def _linear(widths: Sequence[int]) -> tuple[tuple[tuple[int, ...], ...], tuple[float, ...]]:
    """Shapes and bounds of weights (in, out) and biases (1, out) between layers of these widths."""
    shapes: tuple[tuple[int, ...], ...] = ()
    bounds: tuple[float, ...] = ()
    for fan_in, fan_out in pairwise(widths):
        shapes += ((fan_in, fan_out), (1, fan_out))
        bounds += (1 / math.sqrt(fan_in),) * 2
    return shapes, bounds


def _linear_forward(parameters: Parameters, features: Tensor) -> Tensor:
    for weight, bias in zip(parameters[:-2:2], parameters[1:-2:2], strict=True):
        features = torch.relu(torch.baddbmm(bias, features, weight))  # (N, B, width)
    return torch.baddbmm(parameters[-1], features, parameters[-2])


def _linear_stage(weight: Tensor, bias: Tensor, inputs: Tensor) -> Tensor:
    return torch.relu(torch.baddbmm(bias, inputs.flatten(2), weight))


def _convolution_stage(weight: Tensor, bias: Tensor, inputs: Tensor) -> Tensor:
    images = _convolve(inputs.unbind(0), weight, bias)
    return torch.stack([functional.max_pool2d(torch.relu(image), 2) for image in images])


def _convolutions(channels: Sequence[int]) -> tuple[tuple[tuple[int, ...], ...], tuple[float, ...]]:
    """Shapes and bounds of the weights and biases of 3 x 3 convolutions."""
    shapes: tuple[tuple[int, ...], ...] = ()
    bounds: tuple[float, ...] = ()
    for fan_in, fan_out in pairwise(channels):
        shapes += ((fan_out, fan_in, 3, 3), (fan_out,))
        bounds += (1 / math.sqrt(9 * fan_in),) * 2
    return shapes, bounds


def _convolve(images: Sequence[Tensor], weight: Tensor, bias: Tensor) -> list[Tensor]:
    """Convolves each replica's images (B, C, H, W) with its own weight; on a CPU a loop beats grouped convolutions."""
    padding = weight.shape[-1] // 2
    rows = zip(images, weight.unbind(0), bias.unbind(0), strict=True)
    return [functional.conv2d(image, row_weight, row_bias, padding=padding) for image, row_weight, row_bias in rows]


def _image(problem: Problem) -> tuple[int, ...]:
    if len(problem.input_shape) != 3:
        raise ValueError(should("problem", "have images (channels, height, width) as inputs for a convolutional network", problem))
    return problem.input_shape


def _too_short(hidden_sizes: tuple[int, ...], least: int) -> tuple[int, ...]:
    raise ValueError(should("hidden_sizes", f"hold at least {least} widths for a convolutional network", hidden_sizes))

"""Corruptions of inputs, to see how a network that was trained on clean ones bears others. ``CORRUPTIONS`` is the table.

After Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", ICLR 2019:
kinds of corruption at five severities each. Their kinds are for photographs; these are for any inputs, feature by feature,
and where inputs are images (channels, height, width) also for images. What is *usual* is measured on the training inputs, so
that a severity means the same on every problem.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from mtl_gym.arguments import choose, positive_int, should
from mtl_gym.problems.base import Problem, Split

SEVERITIES = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class Usual:
    """Statistics of the training inputs, of each feature (*shape): mean, standard deviation, least and largest value."""

    mean: Tensor
    deviation: Tensor
    low: Tensor
    high: Tensor


@dataclass(frozen=True)
class Corruption:
    """One row of ``CORRUPTIONS``.

    Attributes:
        function: ``(inputs (n, *shape), strength, usual, generator) -> inputs``.
        strengths: At the five severities.
        images: Whether it is for images alone.
    """

    function: Callable[[Tensor, float, Usual, torch.Generator], Tensor]
    strengths: tuple[float, float, float, float, float]
    images: bool = False


def _uniform(inputs: Tensor, rng: torch.Generator) -> Tensor:
    return torch.rand(inputs.shape, generator=rng)


def _gaussian(inputs: Tensor, strength: float, usual: Usual, rng: torch.Generator) -> Tensor:
    return inputs + strength * usual.deviation * torch.randn(inputs.shape, generator=rng)


def _impulse(inputs: Tensor, strength: float, usual: Usual, rng: torch.Generator) -> Tensor:
    extremes = torch.where(_uniform(inputs, rng) < 0.5, usual.low, usual.high)
    return torch.where(_uniform(inputs, rng) < strength, extremes, inputs)


def _dropout(inputs: Tensor, strength: float, usual: Usual, rng: torch.Generator) -> Tensor:
    return torch.where(_uniform(inputs, rng) < strength, usual.mean, inputs)


def _contrast(inputs: Tensor, strength: float, usual: Usual, rng: torch.Generator) -> Tensor:
    return usual.mean + (1 - strength) * (inputs - usual.mean)


def _brightness(inputs: Tensor, strength: float, usual: Usual, rng: torch.Generator) -> Tensor:
    return inputs + strength * usual.deviation.mean()


def _gain(inputs: Tensor, strength: float, usual: Usual, rng: torch.Generator) -> Tensor:
    factors = 1 + strength * torch.randn(len(inputs), *[1] * (inputs.ndim - 1), generator=rng)
    return usual.mean + factors * (inputs - usual.mean)


def _quantised(inputs: Tensor, strength: float, usual: Usual, rng: torch.Generator) -> Tensor:
    step = strength * usual.deviation.clamp(min=1e-12)
    return usual.mean + ((inputs - usual.mean) / step).round() * step


def _swapped(inputs: Tensor, strength: float, usual: Usual, rng: torch.Generator) -> Tensor:
    """Values of features that come from other samples."""
    others = inputs[torch.randperm(len(inputs), generator=rng)]
    return torch.where(_uniform(inputs, rng) < strength, others, inputs)


def _blurred(inputs: Tensor, strength: float, usual: Usual, rng: torch.Generator) -> Tensor:
    reach = max(1, round(2 * strength))
    places = torch.arange(-reach, reach + 1.0)
    kernel = torch.exp(-(places**2) / (2 * strength**2))
    kernel = (kernel / kernel.sum()).expand(inputs.shape[1], 1, 1, -1)
    for own, padding in ((kernel, (reach, reach, 0, 0)), (kernel.mT, (0, 0, reach, reach))):
        inputs = functional.conv2d(functional.pad(inputs, padding, mode="replicate"), own, groups=inputs.shape[1])
    return inputs


def _shifted(inputs: Tensor, strength: float, usual: Usual, rng: torch.Generator) -> Tensor:
    """Images moved by a share of their width in one of four directions; what leaves comes in as the corner's value."""
    pixels = max(1, round(strength * inputs.shape[-1]))
    padded = functional.pad(inputs, (pixels,) * 4, mode="replicate")
    height, width = inputs.shape[-2:]
    starts = torch.tensor([[0, pixels], [2 * pixels, pixels], [pixels, 0], [pixels, 2 * pixels]])
    ways = torch.randint(4, (len(inputs),), generator=rng)
    parts = [padded[:, :, top : top + height, left : left + width] for top, left in starts.tolist()]
    return torch.stack(parts)[ways, torch.arange(len(inputs))]


def _occluded(inputs: Tensor, strength: float, usual: Usual, rng: torch.Generator) -> Tensor:
    """A square of mean values, with a share of the width, at a random place."""
    height, width = inputs.shape[-2:]
    side = max(1, round(strength * width))
    top = torch.randint(max(1, height - side + 1), (len(inputs), 1, 1, 1), generator=rng)
    left = torch.randint(max(1, width - side + 1), (len(inputs), 1, 1, 1), generator=rng)
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    inside = (rows >= top) & (rows < top + side) & (columns >= left) & (columns < left + side)
    return torch.where(inside, usual.mean, inputs)


CORRUPTIONS = {
    "gaussian": Corruption(_gaussian, (0.2, 0.4, 0.6, 0.8, 1.0)),
    "impulse": Corruption(_impulse, (0.02, 0.05, 0.1, 0.15, 0.2)),
    "dropout": Corruption(_dropout, (0.1, 0.2, 0.3, 0.4, 0.5)),
    "contrast": Corruption(_contrast, (0.2, 0.4, 0.5, 0.6, 0.7)),
    "brightness": Corruption(_brightness, (0.2, 0.4, 0.6, 0.8, 1.0)),
    "gain": Corruption(_gain, (0.1, 0.2, 0.3, 0.45, 0.6)),
    "quantised": Corruption(_quantised, (0.5, 1.0, 1.5, 2.0, 3.0)),
    "swapped": Corruption(_swapped, (0.05, 0.1, 0.15, 0.2, 0.3)),
    "blurred": Corruption(_blurred, (0.4, 0.6, 0.8, 1.0, 1.4), images=True),
    "shifted": Corruption(_shifted, (0.06, 0.12, 0.18, 0.25, 0.31), images=True),
    "occluded": Corruption(_occluded, (0.15, 0.2, 0.3, 0.4, 0.5), images=True),
}
"""Kind to row. Strengths are in standard deviations, in shares of features, or in shares of an image's width (blur: in pixels)."""


def kinds(problem: Problem) -> list[str]:
    """The corruptions that a problem's inputs can bear: those of images only where inputs are images."""
    return [name for name, row in CORRUPTIONS.items() if len(problem.input_shape) == 3 or not row.images]


def corrupted(problem: Problem, split: str, kind: str, severity: int) -> Split:
    """A split with corrupted inputs and its own labels; the same whenever it is asked for.

    Args:
        problem: The problem.
        split: Name of the split.
        kind: Row of ``CORRUPTIONS``.
        severity: 1 to 5.

    Raises:
        ValueError: If one of them is unknown, or the kind is for images and the inputs are none.
    """
    row = choose("kind", kind, CORRUPTIONS)
    if kind not in kinds(problem):
        raise ValueError(should("kind", f"be one for inputs that are no images: {', '.join(kinds(problem))}", kind))
    if positive_int("severity", severity) > len(SEVERITIES):
        raise ValueError(should("severity", f"be at most {len(SEVERITIES)}", severity))
    train = problem.splits["train"].inputs
    usual = Usual(train.mean(0), train.std(0), train.amin(0), train.amax(0))
    rng = torch.Generator().manual_seed(1000 * list(CORRUPTIONS).index(kind) + severity)
    own = problem.splits[split]
    return Split(row.function(own.inputs, row.strengths[severity - 1], usual, rng), own.targets)

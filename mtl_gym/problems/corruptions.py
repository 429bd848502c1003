"""Corruptions of inputs, to test the robustness of a network trained on clean ones. ``CORRUPTIONS`` is the table.

After Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", ICLR 2019, with
five severities each. Their corruptions are for photographs; these apply feature by feature to any inputs, and some only to images
(channels, height, width). Strengths are relative to the training inputs, so that a severity means the same on every problem.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from mtl_gym.checks import choose, positive_int, should
from mtl_gym.problems.base import Problem, Split

SEVERITIES = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class Usual:
    """Statistics (*shape) of each feature over the training inputs: mean, standard deviation, minimum and maximum."""

    mean: Tensor
    deviation: Tensor
    low: Tensor
    high: Tensor


@dataclass(frozen=True)
class Corruption:
    """One row of ``CORRUPTIONS``."""

    # ``(inputs (n, *shape), strength, usual, generator) -> inputs``
    function: Callable[[Tensor, float, Usual, torch.Generator], Tensor]
    strengths: tuple[float, float, float, float, float]  # strength at each of the five severities
    images: bool = False  # whether it applies only to images


def _uniform(inputs: Tensor, rng: torch.Generator) -> Tensor:
    return torch.rand(inputs.shape, generator=rng)


def _gaussian(inputs: Tensor, strength: float, usual: Usual, rng: torch.Generator) -> Tensor:
    return inputs + strength * usual.deviation * torch.randn(inputs.shape, generator=rng)


def _impulse(inputs: Tensor, strength: float, usual: Usual, rng: torch.Generator) -> Tensor:
    extremes = torch.where(_uniform(inputs, rng) < 0.5, usual.low, usual.high)
    return torch.where(_uniform(inputs, rng) < strength, extremes, inputs)


def _gain(inputs: Tensor, strength: float, usual: Usual, rng: torch.Generator) -> Tensor:
    factors = 1 + strength * torch.randn(len(inputs), *[1] * (inputs.ndim - 1), generator=rng)
    return usual.mean + factors * (inputs - usual.mean)


def _quantised(inputs: Tensor, strength: float, usual: Usual, rng: torch.Generator) -> Tensor:
    step = strength * usual.deviation.clamp(min=1e-12)
    return usual.mean + ((inputs - usual.mean) / step).round() * step


def _swapped(inputs: Tensor, strength: float, usual: Usual, rng: torch.Generator) -> Tensor:
    """Replaces values by those of other samples."""
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
    """Shifts images by a fraction of their width in one of four directions; edge values fill the gap."""
    pixels = max(1, round(strength * inputs.shape[-1]))
    padded = functional.pad(inputs, (pixels,) * 4, mode="replicate")
    height, width = inputs.shape[-2:]
    starts = torch.tensor([[0, pixels], [2 * pixels, pixels], [pixels, 0], [pixels, 2 * pixels]])
    ways = torch.randint(4, (len(inputs),), generator=rng)
    parts = [padded[:, :, top : top + height, left : left + width] for top, left in starts.tolist()]
    return torch.stack(parts)[ways, torch.arange(len(inputs))]


def _occluded(inputs: Tensor, strength: float, usual: Usual, rng: torch.Generator) -> Tensor:
    """Covers a square at a random place, its side a fraction of the width, with mean values."""
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
    "dropout": Corruption(
        lambda x, strength, usual, rng: torch.where(_uniform(x, rng) < strength, usual.mean, x), (0.1, 0.2, 0.3, 0.4, 0.5)
    ),
    "contrast": Corruption(
        lambda x, strength, usual, rng: usual.mean + (1 - strength) * (x - usual.mean), (0.2, 0.4, 0.5, 0.6, 0.7)
    ),
    "brightness": Corruption(lambda x, strength, usual, rng: x + strength * usual.deviation.mean(), (0.2, 0.4, 0.6, 0.8, 1.0)),
    "gain": Corruption(_gain, (0.1, 0.2, 0.3, 0.45, 0.6)),
    "quantised": Corruption(_quantised, (0.5, 1.0, 1.5, 2.0, 3.0)),
    "swapped": Corruption(_swapped, (0.05, 0.1, 0.15, 0.2, 0.3)),
    "blurred": Corruption(_blurred, (0.4, 0.6, 0.8, 1.0, 1.4), images=True),
    "shifted": Corruption(_shifted, (0.06, 0.12, 0.18, 0.25, 0.31), images=True),
    "occluded": Corruption(_occluded, (0.15, 0.2, 0.3, 0.4, 0.5), images=True),
}
"""Kind to row. Strengths are in standard deviations, fractions of features, or fractions of an image's width (blur: pixels)."""


def kinds(problem: Problem) -> list[str]:
    """The corruptions that apply to a problem's inputs."""
    return [name for name, row in CORRUPTIONS.items() if len(problem.input_shape) == 3 or not row.images]


def corrupted(problem: Problem, split: str | Split, kind: str, severity: int, train: Split | None = None) -> Split:
    """A split, one of the problem's or one that an instance has drawn, with corrupted inputs and its own labels; deterministic.

    How large a corruption is follows from the inputs of ``train``; of the problem's own, unless another is given.

    Raises a ValueError if ``kind`` is not in :func:`kinds` or ``severity`` is not from 1 to 5.
    """
    row = choose("kind", kind, CORRUPTIONS)
    if kind not in kinds(problem):
        raise ValueError(should("kind", f"be one for inputs that are not images: {', '.join(kinds(problem))}", kind))
    if positive_int("severity", severity) > len(SEVERITIES):
        raise ValueError(should("severity", f"be at most {len(SEVERITIES)}", severity))
    known = (problem.splits["train"] if train is None else train).inputs
    usual = Usual(known.mean(0), known.std(0), known.amin(0), known.amax(0))
    rng = torch.Generator().manual_seed(1000 * list(CORRUPTIONS).index(kind) + severity)
    own = problem.splits[split] if isinstance(split, str) else split
    return Split(row.function(own.inputs, row.strengths[severity - 1], usual, rng), own.targets)

"""Channel adapters of MTSL's knowledge transfer: factors of a group's features with which they resemble each task's.

R trainings, K tasks, M samples, C channels. An adapter maps the features of a sample, averaged over pixels, to a factor for each
channel. It is dropped after the transfer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Arrays = list[npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Adapter:
    """A row of ``ADAPTERS``.

    Attributes:
        init: Draws the parameters (K, ...) of K adapters: ``(rng, K, C) -> arrays``.
        factors: ``(parameters (R, K, ...), pooled features (R, K, M, C)) -> factors (R, K, M, C)``.
        guarded: Whether copies that end up farther from the targets, without their adapters, than they began are not changed.
    """

    init: Callable[[np.random.Generator, int, int], Arrays]
    factors: Callable[[Sequence[Tensor], Tensor], Tensor]
    guarded: bool


def _gate(parameters: Sequence[Tensor], pooled: Tensor) -> Tensor:
    first, first_bias, second, second_bias = parameters
    return torch.sigmoid(torch.relu(pooled @ first + first_bias) @ second + second_bias)


def _gates(rng: np.random.Generator, count: int, channels: int) -> Arrays:
    """Both layers are C wide and begin as PyTorch's linear layers do, uniform within 1 / sqrt(C)."""
    shapes = 2 * [(count, channels, channels), (count, 1, channels)]
    return [(rng.uniform(-1, 1, shape) / channels**0.5).astype(np.float32) for shape in shapes]


def _affine(parameters: Sequence[Tensor], pooled: Tensor) -> Tensor:
    slopes, offsets = parameters
    return 1 + pooled @ slopes + offsets


def _identities(rng: np.random.Generator, count: int, channels: int) -> Arrays:
    return [np.zeros((count, channels, channels), np.float32), np.zeros((count, 1, channels), np.float32)]


ADAPTERS = {"affine": Adapter(_identities, _affine, guarded=True), "gate": Adapter(_gates, _gate, guarded=False)}
"""``affine``: ``1 + p A + b``, from the identity, so that a copy of equal stages is exact. ``gate``: Linear, ReLU, Linear, Sigmoid,
as in MTSL's code (github.com/NeurAI-Lab/MTSL), with factors in (0, 1), which a copy without its adapters lacks."""

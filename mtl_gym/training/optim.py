"""Optimisers of N replicas. Each replica's row of the parameters is a separate tensor for PyTorch's fused kernels, with its own
step count and learning rate, so that inactive rows are not touched. ``OPTIMIZERS`` is the table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.sgd import sgd

Rows = list[Tensor]
"""One tensor (P,) for each replica that is updated."""


@dataclass(frozen=True)
class Optimizer:
    """One row of ``OPTIMIZERS``."""

    buffers: int  # number of (N, P) buffers that it keeps
    # ``(parameters, gradients, buffers, steps, lr=, momentum=, weight_decay=)``, in place; each is a list with one tensor per row,
    # and ``steps`` counts each row's updates
    update: Callable[..., None]


def _sgd(rows: Rows, gradients: Rows, buffers: Sequence[Rows], steps: Rows, **options: Any) -> None:
    sgd(rows, gradients, list(buffers[0]), fused=True, dampening=0.0, nesterov=False, maximize=False, **options)
    torch._foreach_add_(steps, 1)


def _adam(decoupled: bool) -> Callable[..., None]:
    fused = partial(adam, fused=True, decoupled_weight_decay=decoupled, beta2=0.999, eps=1e-8, amsgrad=False, maximize=False)

    def update(rows: Rows, gradients: Rows, buffers: Sequence[Rows], steps: Rows, *, momentum: float, **options: Any) -> None:
        fused(rows, gradients, list(buffers[0]), list(buffers[1]), [], steps, beta1=momentum, **options)

    return update


OPTIMIZERS = {"adam": Optimizer(2, _adam(decoupled=False)), "adamw": Optimizer(2, _adam(decoupled=True)), "sgd": Optimizer(1, _sgd)}


def constant(progress: float) -> float:
    """The initial learning rate throughout."""
    return 1.0


def step(progress: float) -> float:
    """A tenth after half of the training steps, a hundredth after three quarters of them."""
    return 0.1 ** ((progress >= 0.5) + (progress >= 0.75))


def cosine(progress: float) -> float:
    """Half a period of a cosine, from 1 towards 0 (Loshchilov and Hutter, "SGDR", ICLR 2017, without restarts)."""
    return 0.5 * (1 + math.cos(math.pi * progress))


LR_SCHEDULES: dict[str, Callable[[float], float]] = {"constant": constant, "step": step, "cosine": cosine}
"""Factor of the learning rate as a function of progress in [0, 1)."""

"""Optimisers of N replicas. Each replica's row of the parameters is one tensor to PyTorch's fused kernels, so that it has a
step count and a learning rate of its own, and a row that is left out is not touched. ``OPTIMIZERS`` is the table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.sgd import sgd

Rows = list[Tensor]
"""One tensor (P,) for each replica that steps."""


@dataclass(frozen=True)
class Optimizer:
    """One row of ``OPTIMIZERS``.

    Attributes:
        buffers: Number of (N, P) buffers that it keeps beside the parameters.
        update: ``(parameters, gradients, buffers, steps, lr=, momentum=, weight_decay=)``, in place, each a list with one
            tensor for each row; ``steps`` counts the updates of each row.
    """

    buffers: int
    update: Callable[..., None]


def _sgd(
    rows: Rows, gradients: Rows, buffers: Sequence[Rows], steps: Rows, *, lr: float, momentum: float, weight_decay: float
) -> None:
    sgd(
        rows,
        gradients,
        list(buffers[0]),
        fused=True,
        lr=lr,
        momentum=momentum,
        weight_decay=weight_decay,
        dampening=0.0,
        nesterov=False,
        maximize=False,
    )
    torch._foreach_add_(steps, 1)


def _adam(decoupled: bool) -> Callable[..., None]:
    def update(
        rows: Rows, gradients: Rows, buffers: Sequence[Rows], steps: Rows, *, lr: float, momentum: float, weight_decay: float
    ) -> None:
        adam(
            rows,
            gradients,
            list(buffers[0]),
            list(buffers[1]),
            [],
            steps,
            fused=True,
            decoupled_weight_decay=decoupled,
            amsgrad=False,
            beta1=momentum,
            beta2=0.999,
            lr=lr,
            weight_decay=weight_decay,
            eps=1e-8,
            maximize=False,
        )

    return update


OPTIMIZERS = {
    "adam": Optimizer(2, _adam(decoupled=False)),
    "adamw": Optimizer(2, _adam(decoupled=True)),
    "sgd": Optimizer(1, _sgd),
}


def constant(progress: float) -> float:
    """The initial learning rate throughout."""
    return 1.0


def step(progress: float) -> float:
    """A tenth after half of the training steps, a hundredth after three quarters."""
    return 0.1 ** ((progress >= 0.5) + (progress >= 0.75))


def cosine(progress: float) -> float:
    """Half a cosine from 1 towards 0 (Loshchilov and Hutter, "SGDR", ICLR 2017, without restarts)."""
    return 0.5 * (1 + math.cos(math.pi * progress))


LR_SCHEDULES: dict[str, Callable[[float], float]] = {"constant": constant, "step": step, "cosine": cosine}
"""Factor of the learning rate as a function of progress in [0, 1)."""

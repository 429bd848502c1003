"""How every replica is trained."""

from __future__ import annotations

from dataclasses import dataclass

from mtl_gym.problems.instances import Distribution


@dataclass(frozen=True)
class Recipe:
    """How every replica is trained; the arguments of an environment that are the learner's.

    Attributes:
        distribution: The range of every axis of the instances.
        num_tasks: Tasks that take part, K.
        hidden: Widths of the trunk.
        horizon: Optimiser steps of a training.
        batch_size: Samples of a batch.
        optimizer: Row of ``OPTIMIZERS``.
        lr: Initial learning rate.
        lr_schedule: Row of ``LR_SCHEDULES``.
        momentum: Of SGD; first decay rate of Adam.
        weight_decay: L2 penalty (decoupled for AdamW).
        holdout_size: Fixed samples of *meta* and of *reward* that losses are measured on.
        device: Of the tensors.
    """

    distribution: Distribution
    num_tasks: int
    hidden: tuple[int, ...]
    horizon: int
    batch_size: int
    optimizer: str
    lr: float
    lr_schedule: str
    momentum: float
    weight_decay: float
    holdout_size: int
    device: str

"""MTSL's transfer of knowledge: the new copy of a stage learns to give each task the features that it had.

R is the number of trainings that learn, K of tasks, M of samples, C of channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from mtl_gym.training.signals import pooled


@dataclass(frozen=True)
class Lesson:
    """What a stage has to learn.

    Attributes:
        run: ``(parameters of R K copies, inputs (R K, M, ...)) -> features (R K, M, C, ...)``.
        inputs: What enters the stage (R, K, M, ...) of each task.
        targets: What left it before (R, K, M, C, ...).
        users: The copy (R, K) that each task uses from now on.
        learning: Whether that is a new one (R, K).
    """

    run: Callable[[Tensor, Tensor], Tensor]
    inputs: Tensor
    targets: Tensor
    users: Tensor
    learning: Tensor

    def features(self, copies: Tensor, inputs: Tensor) -> Tensor:
        """Features (R, K, M, C, ...) of inputs, each task's by the one of the copies (R, K, size) that it uses."""
        rows = torch.arange(len(copies), device=copies.device)[:, None] * copies.shape[1]
        used = copies.flatten(0, 1).index_select(0, (rows + self.users).flatten())
        return self.run(used, inputs.flatten(0, 1)).unflatten(0, (len(copies), -1))


def imitate(lesson: Lesson, begin: Tensor, *, lr: float, batch_size: int) -> Tensor:
    """Trains copies, and adapters that are dropped, batch by batch with Adam; returns the copies (R, K, size).

    A copy is changed only if it has come closer than it was without its adapters: of equal stages the mean is exact.

    Args:
        lesson: What they learn.
        begin: The copies (R, K, size) from which they start.
        lr: Learning rate.
        batch_size: Samples of a step.
    """
    copies = begin.detach().clone().requires_grad_()
    (rows, tasks), channels = copies.shape[:2], lesson.targets.shape[3]
    slopes = copies.new_zeros(rows, tasks, channels, channels).requires_grad_()
    offsets = copies.new_zeros(rows, tasks, 1, channels).requires_grad_()
    optimizer = torch.optim.Adam([copies, slopes, offsets], lr=lr)
    learning = lesson.learning.to(copies.dtype)
    for part, wanted in zip(lesson.inputs.split(batch_size, dim=2), lesson.targets.split(batch_size, dim=2), strict=True):
        loss = (imitation_loss(wanted, lesson.features(copies, part), slopes, offsets) * learning).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        after, before = (_distances(lesson, table) for table in (copies, begin))
        gains = torch.zeros_like(after).scatter_add(1, lesson.users, (before - after) * learning)
        return torch.where((gains > 0)[:, :, None], copies, begin)


def _distances(lesson: Lesson, copies: Tensor) -> Tensor:
    """Mean squared errors (R, K) of the tasks' features against what they had."""
    return (lesson.features(copies, lesson.inputs) - lesson.targets).square().flatten(2).mean(2)


def imitation_loss(targets: Tensor, features: Tensor, slopes: Tensor, offsets: Tensor) -> Tensor:
    """MTSL's transfer: mean squared errors (R, K) of a group's features, scaled channel by channel, against each task's own.

    ``MSE(F_k, c_k(pool(F_g)) * F_g)`` with the channel adapter ``c_k(p) = 1 + p A_k + b_k``, which begins as the identity.

    Args:
        targets: F_k (R, K, M, C, ...).
        features: F_g, likewise.
        slopes: A (R, K, C, C).
        offsets: b (R, K, 1, C).
    """
    scales = 1 + pooled(features) @ slopes + offsets  # (R, K, M, C)
    scaled = scales.view(*scales.shape, *[1] * (features.ndim - 4)) * features
    return functional.mse_loss(scaled, targets, reduction="none").flatten(2).mean(2)

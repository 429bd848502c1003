"""MTSL's knowledge transfer: the new copy of a stage learns to reproduce each task's previous features.

R trainings, K tasks, M samples, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from mtl_gym.decisions.merging.adapters import Adapter
from mtl_gym.training.formulas import pooled


@dataclass(frozen=True)
class Lesson:
    """What the new copies of a stage learn.

    Attributes:
        run: ``(parameters of R K copies, inputs (R K, M, ...)) -> features (R K, M, C, ...)``.
        inputs: Each task's inputs of the stage (R, K, M, ...).
        targets: Its previous features (R, K, M, C, ...).
        users: The copy (R, K) that each task uses from now on.
        learning: Whether that copy is new (R, K).
        adapter: The kind of channel adapters.
        adapters: Initial parameters (R, K, ...) of the tasks' adapters.
    """

    run: Callable[[Tensor, Tensor], Tensor]
    inputs: Tensor
    targets: Tensor
    users: Tensor
    learning: Tensor
    adapter: Adapter
    adapters: Sequence[Tensor]

    def features(self, copies: Tensor, inputs: Tensor) -> Tensor:
        """Features (R, K, M, C, ...) of each task's inputs, from its own copy among ``copies`` (R, K, size)."""
        rows = torch.arange(len(copies), device=copies.device)[:, None] * copies.shape[1]
        used = copies.flatten(0, 1).index_select(0, (rows + self.users).flatten())
        return self.run(used, inputs.flatten(0, 1)).unflatten(0, (len(copies), -1))


def imitate(lesson: Lesson, begin: Tensor, *, rates: Sequence[float], batch_size: int) -> Tensor:
    """Trains copies (R, K, size), starting from ``begin``, and adapters, which are dropped, batch by batch with Adam.

    ``rates`` are the learning rates of the R trainings. With guarded adapters, a copy changes only if it is closer to the targets
    without them than before: of equal stages, the mean is exact.
    """
    trained = _Trained([begin, *lesson.adapters], rates)
    learning = lesson.learning.to(begin.dtype)
    for part, wanted in zip(lesson.inputs.split(batch_size, dim=2), lesson.targets.split(batch_size, dim=2), strict=True):
        copies, *adapters = trained.tables()
        features = lesson.features(copies, part)
        factors = lesson.adapter.factors(adapters, pooled(features))  # (R, K, M, C)
        loss = (imitation_loss(wanted, features, factors) * learning).sum()
        trained.step(loss)
    copies = trained.tables()[0].detach()
    if not lesson.adapter.guarded:
        return torch.where(_new(lesson), copies, begin)
    with torch.no_grad():
        after, before = (_distances(lesson, table) for table in (copies, begin))
        gains = torch.zeros_like(after).scatter_add(1, lesson.users, (before - after) * learning)
        return torch.where((gains > 0)[:, :, None], copies, begin)


class _Trained:
    """Tables (R, ...) that Adam trains with a learning rate for each row; rows of one rate are one tensor each."""

    def __init__(self, tables: Sequence[Tensor], rates: Sequence[float]) -> None:
        alike: dict[float, list[int]] = {}
        for row, lr in enumerate(rates):
            alike.setdefault(lr, []).append(row)
        self._parts = [[table.detach()[rows].requires_grad_() for table in tables] for rows in alike.values()]
        self._optimizer = torch.optim.Adam([{"params": part, "lr": lr} for lr, part in zip(alike, self._parts, strict=True)])
        self._places = torch.tensor([row for rows in alike.values() for row in rows], device=tables[0].device).argsort()

    def tables(self) -> list[Tensor]:
        """The tables with their graph."""
        return [torch.cat(own).index_select(0, self._places) for own in zip(*self._parts, strict=True)]

    def step(self, loss: Tensor) -> None:
        """One step of Adam."""
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()


def _new(lesson: Lesson) -> Tensor:
    """Which copies (R, K, 1) learn."""
    return torch.zeros_like(lesson.users).scatter_add(1, lesson.users, lesson.learning.long()).bool()[:, :, None]


def _distances(lesson: Lesson, copies: Tensor) -> Tensor:
    """Mean squared errors (R, K) between the tasks' features and their previous ones."""
    return (lesson.features(copies, lesson.inputs) - lesson.targets).square().flatten(2).mean(2)


def imitation_loss(targets: Tensor, features: Tensor, factors: Tensor) -> Tensor:
    """MTSL's transfer: mean squared errors (R, K) between each task's features and its group's, scaled per channel.

    ``MSE(F_k, c_k(pool(F_g)) * F_g)`` with the factors (R, K, M, C) of the channel adapter c_k. Targets F_k and features F_g are
    (R, K, M, C, ...).
    """
    scaled = factors.view(*factors.shape, *[1] * (features.ndim - 4)) * features
    return functional.mse_loss(scaled, targets, reduction="none").flatten(2).mean(2)

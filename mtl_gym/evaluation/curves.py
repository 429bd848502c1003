"""Learning curves: losses, weights and gaps of trainings at checkpoints, and the traces of decisions."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mtl_gym.decisions.base import Decision
from mtl_gym.training.formulas import improvable_gap
from mtl_gym.training.loss_history import second_epoch_mean
from mtl_gym.training.measurements import steps_per_epoch
from mtl_gym.training.trainer import Trainer

CHECKPOINTS = 30
"""Points of a learning curve after its start."""

Table = npt.NDArray[np.float64]


class Curves:
    """Records trainings, which have just begun, at checkpoints; ``length`` is the number of optimiser steps per decision.

    The decision may trace tables (N, K).
    """

    def __init__(self, decision: Decision, trainer: Trainer, length: int) -> None:
        self._decision, self._trainer, self._length = decision, trainer, length
        self._steps, self._reached = _checkpoints(trainer.recipe.train_steps, length), 0
        self._losses = [_losses(trainer)]
        self._open: list[Mapping[str, Table]] = []
        self._traced: list[dict[str, Table]] = []

    def add(self) -> None:
        """Records the trainings after one more decision."""
        self._reached += self._length
        traces = {name: table.double().cpu().numpy() for name, table in self._decision.traces.items()}
        self._open.append(traces)
        if self._reached not in self._steps:
            return
        self._traced.append({name: _mean(np.stack([own[name] for own in self._open])) for name in traces})
        self._losses.append(_losses(self._trainer))
        self._open = []

    def rows(self) -> list[dict[str, Any]]:
        """The curves of each replica, JSON-plain: ``step`` (S,), and by task ``loss``, ``weight``, ``gap`` and the traces (S,).

        Losses are those at the checkpoint, all others means since the previous one; numbers that are not finite are ``None``.
        """
        trainer, steps = self._trainer, self._steps[: len(self._losses)]
        spans = [slice(steps[max(index - 1, 0)], max(step, 1)) for index, step in enumerate(steps)]
        weights = trainer.weights.double().cpu().numpy()
        tables = {
            "loss": np.stack(self._losses, axis=1),
            "weight": np.stack([weights[:, span].mean(1) for span in spans], axis=1),  # (N, S, K)
            "gap": _gaps(trainer, steps, spans),
            **self._traces(),
        }
        names = [trainer.ledger.task_names(row) for row in range(trainer.num_replicas)]
        return [
            {"step": steps, **{kind: _columns(own, table[row]) for kind, table in tables.items()}} for row, own in enumerate(names)
        ]

    def _traces(self) -> dict[str, Table]:
        """(N, S, K) by name; NaN at the first checkpoint."""
        first = self._traced[0] if self._traced else {}
        return {
            name: np.stack([np.full_like(table, np.nan), *(own[name] for own in self._traced)], axis=1)
            for name, table in first.items()
        }


def _checkpoints(train_steps: int, length: int) -> list[int]:
    """The ends of decisions at which curves are recorded; 0 is the first."""
    return sorted({round(fraction * train_steps / length) * length for fraction in np.linspace(0, 1, CHECKPOINTS + 1)})


def _losses(trainer: Trainer) -> Table:
    """Losses (N, K) on *reward*, without the instances' scales; not counted as the policy's cost."""
    return (trainer.losses.held_out(["reward"])["reward"] / trainer.ledger.scales).double().cpu().numpy()


def _gaps(trainer: Trainer, steps: Sequence[int], spans: Sequence[slice]) -> Table:
    """The observation ``gap`` (N, S, K) of decisions that end at the checkpoints; NaN after the end of a training."""
    epochs = steps_per_epoch(trainer)
    taken = torch.arange(trainer.recipe.train_steps, device=epochs.device) < trainer.ledger.step[:, None]  # (N, H)
    losses = trainer.losses.history.double().masked_fill(~taken[:, :, None], torch.nan)
    bases: list[Tensor] = [losses[:, 0]]
    for before, step in itertools.pairwise(steps):
        bases.append(second_epoch_mean(bases[-1], losses, torch.full_like(epochs, step), epochs, step - before))
    means = torch.stack([losses[:, span].mean(1) for span in spans], dim=1)  # (N, S, K)
    return improvable_gap(means, torch.stack(bases, dim=1)).cpu().numpy()


def _mean(values: Table) -> Table:
    """Mean of the finite values over the first axis; NaN where there are none."""
    known = np.isfinite(values)
    counts = known.sum(0)
    return np.where(counts > 0, np.where(known, values, 0).sum(0) / counts.clip(min=1), np.nan)


def _columns(names: Sequence[str], table: Table) -> dict[str, list[float | None]]:
    """Columns of a table by name, to six digits; ``None`` where a number is not finite."""
    return {
        name: [float(f"{value:.6g}") if np.isfinite(value) else None for value in column]
        for name, column in zip(names, table.T, strict=True)
    }

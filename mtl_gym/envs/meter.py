"""Measures the signals: what the tables of observations and rewards need, once for each decision."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from mtl_gym.envs.arguments import Arguments
from mtl_gym.envs.observations import OBSERVATIONS
from mtl_gym.envs.rewards import REWARDS
from mtl_gym.envs.signals import AFTER, BASE, GAINS, GRAMIAN, META, REWARD, SCORE, UPCOMING, Signals
from mtl_gym.problems.metrics import WORST_DELTA_M, relative_gains
from mtl_gym.training.learner import Learner
from mtl_gym.training.references import average_references


class Meter:
    """Measures N trainings.

    Args:
        arguments: Name the observations and the reward, and so what is measured.
        learner: The trainings.
    """

    def __init__(self, arguments: Arguments, learner: Learner) -> None:
        self._arguments, self._learner = arguments, learner
        rows = [OBSERVATIONS[name] for name in arguments.observe] + [REWARDS[arguments.reward]]
        self._needs = {need for row in rows for need in row.needs}

    def first(self, rows: Tensor) -> Signals:
        """The signals of trainings that have just begun; the passes are counted for ``rows`` (N,) bool."""
        losses, measures = self._learner.forward(), self._measure(rows)
        return Signals(
            initial=losses,
            mean=losses,
            previous_mean=losses,
            first=losses,
            last=losses,
            base=losses,
            factors=torch.ones_like(losses),
            previous_holdout=measures["holdout"],
            previous_gains=measures["gains"],
            initial_lr=self._arguments.recipe.lr,
            previous_lr=measures["lr"],
            progress=torch.zeros_like(measures["lr"]),
            **measures,
        )

    def next(self, previous: Signals, factors: Tensor, active: Tensor) -> Signals:
        """The signals after a decision's training steps in the ``active`` rows (N,); the other rows keep theirs."""
        replicas, length = self._learner.replicas, self._arguments.steps_per_action
        step = replicas.step
        window = (step[:, None] - length + torch.arange(length, device=step.device)).clamp(min=0)  # (N, steps)
        batches = replicas.losses[torch.arange(len(step), device=step.device)[:, None], window]  # (N, steps, K)
        signals = replace(
            previous,
            mean=batches.mean(1),
            previous_mean=previous.mean,
            first=batches[:, 0],
            last=batches[:, -1],
            base=self._base(previous.base) if BASE in self._needs else previous.base,
            factors=factors,
            previous_holdout=previous.holdout,
            previous_gains=previous.gains,
            previous_lr=previous.lr,
            progress=step / self._arguments.recipe.horizon,
            **self._measure(active),
        )
        return signals if bool(active.all()) else signals.where(active, previous)

    def is_finite(self, signals: Signals) -> Tensor:
        """Whether a training's losses and parameters are all finite (N,)."""
        seen = [signals.upcoming, signals.after, signals.mean, *signals.holdout.values()]
        losses = torch.stack([losses for losses in seen if losses is not None])
        return self._learner.finite() & torch.isfinite(losses).all(2).all(0)

    def scored(self, signals: Signals, ended: Tensor) -> Signals:
        """Adds delta_m on *reward*, if it is needed, in the rows (N,) whose episode has ended."""
        if SCORE not in self._needs or not ended.any():
            return signals
        score = self._gains().mean(1).nan_to_num(nan=WORST_DELTA_M).clamp(min=WORST_DELTA_M)
        return replace(signals, score=torch.where(ended, score.to(signals.progress.dtype), 0))

    def _gains(self) -> Tensor:
        """Relative gains (N, K) in percent of the tasks that take part, on *reward*, over averaged single-task references."""
        problem, learner = self._arguments.problem, self._learner
        gains = relative_gains(problem, learner.metrics(REWARD), average_references(problem, self._arguments.recipe))
        return gains.gather(1, learner.replicas.tasks)

    def _measure(self, payers: Tensor) -> dict[str, Any]:
        learner, needs = self._learner, self._needs
        splits = [name for name in (META, REWARD) if name in needs]
        lr = learner.lr()
        return {
            "holdout": learner.holdout(splits, payers) if splits else {},
            "upcoming": learner.forward() if UPCOMING in needs else None,
            "after": learner.last_batch(payers) if AFTER in needs else None,
            "gramian": learner.gramian(payers) if GRAMIAN in needs else None,
            "score": torch.zeros_like(lr) if SCORE in needs else None,
            "gains": self._gains() if GAINS in needs else None,
            "lr": lr,
            "epoch": learner.epoch(),
        }

    def _base(self, base: Tensor) -> Tensor:
        """Mean losses (N, K) of the second epoch, in the rows where the last decision completed it."""
        replicas, length = self._learner.replicas, self._learner.steps_per_epoch()
        base = base.clone()
        complete = (replicas.step >= 2 * length) & (replicas.step - self._arguments.steps_per_action < 2 * length)
        for row in complete.nonzero()[:, 0].tolist():
            base[row] = replicas.losses[row, length[row] : 2 * length[row]].mean(0)
        return base

"""Measures the signals: what the tables of observations and rewards need, once for each decision."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from mtl_gym.envs.arguments import Arguments
from mtl_gym.envs.observations import OBSERVATIONS
from mtl_gym.envs.rewards import REWARDS
from mtl_gym.envs.signals import AFTER, BASE, GAINS, GRAMIAN, META, REWARD, SCORE, UPCOMING, Signals, measured
from mtl_gym.problems.metrics import WORST_DELTA_M, relative_gains
from mtl_gym.training.learner import Learner
from mtl_gym.training.references import average_references


class Measures(Protocol):
    """What measures N trainings for an environment, once for each decision."""

    def first(self, rows: Tensor) -> Any:
        """The signals of trainings that have just begun; the passes are counted for ``rows`` (N,) bool."""

    def next(self, previous: Any, factors: Tensor, active: Tensor) -> Any:
        """The signals after a decision in the ``active`` rows (N,), of which ``factors`` says what was done; others keep theirs."""

    def scored(self, signals: Any, ended: Tensor) -> Any:
        """Adds what is measured at the end alone, in the rows (N,) whose episode has ended."""

    def is_finite(self, signals: Any) -> Tensor:
        """Whether a training's losses and parameters are all finite (N,)."""


class Meter:
    """Measures N trainings.

    Args:
        arguments: Name the observations and the reward, and so what is measured.
        learner: The trainings.
        probes: What the learner is to probe, beyond what is observed.
    """

    def __init__(self, arguments: Arguments, learner: Learner, probes: Collection[str] = ()) -> None:
        self._arguments, self._learner = arguments, learner
        rows = [OBSERVATIONS[name] for name in arguments.observe] + [REWARDS[arguments.reward]]
        self._needs = {need for row in rows for need in row.needs}
        self._probes = {probe for row in rows for probe in row.probes} | set(probes)

    def first(self, rows: Tensor) -> Signals:
        """The signals of trainings that have just begun; the passes are counted for ``rows`` (N,) bool."""
        measures = self._measure(rows, torch.ones_like(rows))
        losses = self._learner.forward()
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
        due = step % self._arguments.reward_every == 0
        window = (step[:, None] - length + torch.arange(length, device=step.device)).clamp(min=0)  # (N, steps)
        batches = replicas.losses[torch.arange(len(step), device=step.device)[:, None], window]  # (N, steps, K)
        measures = self._measure(active, due, previous)
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
            progress=step / self._arguments.recipe.train_steps,
            **measures,
        )
        return signals if bool(active.all()) else signals.where(active, previous)

    def is_finite(self, signals: Signals) -> Tensor:
        """Whether a training's losses and parameters are all finite (N,)."""
        seen = [signals.upcoming, signals.after, signals.mean, *signals.holdout.values()]
        losses = torch.cat([losses for losses in seen if losses is not None], dim=1)
        return self._learner.finite() & torch.isfinite(losses).all(1)

    def scored(self, signals: Signals, ended: Tensor) -> Signals:
        """Adds delta_m on *reward*, if it is needed, in the rows (N,) whose episode has ended."""
        if SCORE not in self._needs or not ended.any():
            return signals
        score = self._gains().mean(1).nan_to_num(nan=WORST_DELTA_M).clamp(min=WORST_DELTA_M)
        return replace(signals, score=torch.where(ended, score.to(signals.progress.dtype), 0))

    def _gains(self) -> Tensor:
        """Relative gains (N, K) in percent of the tasks that count, on *reward*, over averaged single-task references."""
        problem, learner = self._arguments.problem, self._learner
        gains = relative_gains(problem, learner.metrics(REWARD), average_references(problem, self._arguments.recipe))
        return self._counting(gains.gather(1, learner.replicas.tasks))

    def _counting(self, values: Tensor) -> Tensor:
        """Of values (N, K) of tasks those that rewards are made of: all, or the main one's (N, 1)."""
        return values if self._arguments.recipe.main_task is None else values[:, :1]

    def _holdout(self, charged: Tensor, due: Tensor, previous: Signals | None) -> dict[str, Tensor]:
        """Losses on *meta* and, in the rows (N,) that are due, on *reward*; the other rows keep the last that was measured."""
        splits = [name for name in (META, REWARD) if name in self._needs and (name == META or bool(due.any()))]
        losses = self._learner.holdout(splits, charged) if splits else {}
        if REWARD in losses:
            losses[REWARD] = self._counting(losses[REWARD])
        if previous is not None and REWARD in self._needs and not due.all():
            known = previous.holdout[REWARD]
            losses[REWARD] = torch.where(due[:, None], losses.get(REWARD, known), known)
        return losses

    def _gains_if_due(self, due: Tensor, previous: Signals | None) -> Tensor | None:
        if GAINS not in self._needs:
            return None
        if previous is None or due.all():
            return self._gains()
        known = measured(previous.gains)
        return torch.where(due[:, None], self._gains(), known) if due.any() else known

    def _measure(self, charged: Tensor, due: Tensor, previous: Signals | None = None) -> dict[str, Any]:
        learner, needs = self._learner, self._needs
        probes = learner.probe(self._probes, charged)  # first: others use its pass
        lr = learner.lr()
        return {
            "probes": probes,
            "holdout": self._holdout(charged, due, previous),
            "upcoming": learner.forward() if UPCOMING in needs else None,
            "after": learner.last_batch(charged) if AFTER in needs else None,
            "gramian": learner.gramian(charged) if GRAMIAN in needs else None,
            "score": torch.zeros_like(lr) if SCORE in needs else None,
            "gains": self._gains_if_due(due, previous),
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

"""Measures what observations and rewards need, once per decision, and charges the cost."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from mtl_gym.checks import should
from mtl_gym.decisions.base import Decision
from mtl_gym.training.data import check_first_losses
from mtl_gym.training.probes import AFTER, BASE, META, REWARD, UPCOMING, Probe, Reading, View, pick

_OF_LOSSES = (UPCOMING, AFTER, META, REWARD)
"""Measurements that become non-finite when a training diverges."""
_ROUNDING = 1e-3
"""A loss of 0 may be rounded to a smaller number by less than this, times its scale."""


class Meter:
    """Measures the N rows of a decision.

    Args:
        decision: Provides the probes.
        needs: Names of the measurements to take.
        reward_every: Training steps between periodic measurements.
    """

    def __init__(self, decision: Decision, needs: Iterable[str], *, reward_every: int) -> None:
        self._decision, self._needs = decision, {*needs, *decision.needs}
        self._every = reward_every

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_probes"}

    @functools.cached_property
    def _probes(self) -> list[tuple[Probe, list[str]]]:
        """The needed probes and the names to measure with each."""
        wanted = [(probe, [name for name in probe.names if name in self._needs]) for probe in self._decision.probes()]
        return [(probe, names) for probe, names in wanted if names]

    def first(self, rows: Tensor) -> View:
        """The view of episodes that have just begun in ``rows`` (N,) bool, which are charged.

        Raises:
            ValueError: If a measured loss of theirs is negative or not finite.
        """
        now = self._measure(rows, torch.ones_like(rows), None)
        history = self._decision.history(None, base=BASE in self._needs)
        view = View(now, now, history, self._decision.progress())
        for losses in self._losses(view):
            check_first_losses(self._decision.trainings.ledger, losses, rows[:, None].expand_as(losses))
        return view

    def next(self, previous: View, active: Tensor) -> View:
        """The view after a decision in the ``active`` rows (N,), which are charged; the others keep the previous one."""
        due = self._decision.trainings.ledger.step % self._every == 0
        now = self._measure(active, due, previous)
        history = self._decision.history(previous.history, base=BASE in self._needs)
        view = View(now, previous.now, history, self._decision.progress())
        return view if bool(active.all()) else view.where(active, previous)

    def ended(self, view: View, rows: Tensor) -> View:
        """Adds the final measurements in the rows (N,) bool whose episode has ended, which are charged."""
        final = [(probe, names) for probe, names in self._probes if probe.final]
        if not final or not rows.any():
            return view
        values: dict[str, Tensor] = {}
        for probe, names in final:
            found, forward, backward = probe.measure(names)
            self._decision.trainings.ledger.charge(rows, forward, backward)
            values |= found
        known = {name: torch.where(rows, value.to(view.now[name].dtype), 0) for name, value in values.items()}
        return replace(view, now={**view.now, **known})

    def finite(self, view: View) -> Tensor:
        """Whether all losses and parameters of a row are finite (N,); raises a ValueError if a loss is negative."""
        losses, reached = self._losses(view), self._decision.trainings.finite()
        return reached & torch.isfinite(torch.cat(losses, dim=1)).all(1) if losses else reached

    def _losses(self, view: View) -> list[Tensor]:
        """The measured losses, each (N, K), or (N, 1) of the main task; they are at least 0, since their logarithms are used."""
        losses = [view.now[name] for name in _OF_LOSSES if name in view.now] + ([view.history.mean] if view.history else [])
        scales = self._decision.trainings.ledger.scales
        for own in losses:
            negative = own < -_ROUNDING * scales[:, : own.shape[1]]
            if negative.any():
                row, column = negative.nonzero()[0].tolist()
                task, value = self._decision.trainings.ledger.task_names(row)[column], own[row, column].item()
                condition = f"be at least 0, since its logarithm is used: that of the task {task!r} is not"
                raise ValueError(should("loss", condition, value, "Add a constant to it; its gradient stays the same."))
        return losses

    def _measure(self, charged: Tensor, due: Tensor, previous: View | None) -> dict[str, Tensor]:
        """The needed measurements; periodic ones only in the rows (N,) that are due, while the others keep the previous values."""
        values: dict[str, Tensor] = {}
        for probe, names in self._probes:
            if probe.final:
                values |= {name: torch.zeros(len(due), device=due.device) for name in names}
                continue
            measured = [name for name in names if previous is None or name not in probe.periodic or bool(due.any())]
            found, forward, backward = probe.measure(measured) if measured else Reading({})
            self._decision.trainings.ledger.charge(charged, forward, backward)
            values |= {name: self._latest(name, found, due, previous if name in probe.periodic else None) for name in names}
        return values

    @staticmethod
    def _latest(name: str, found: dict[str, Tensor], due: Tensor, previous: View | None) -> Tensor:
        if previous is None or bool(due.all()):
            return found[name]
        known = previous.now[name]
        return pick(due, found.get(name, known), known)

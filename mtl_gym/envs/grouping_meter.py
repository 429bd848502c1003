"""Measures groupings: what the tables of observations and rewards need of them, once for each decision."""

from __future__ import annotations

import torch
from torch import Tensor

from mtl_gym.envs.arguments import Arguments
from mtl_gym.envs.grouping import Grouping
from mtl_gym.envs.observations import ACTION_MASK, OBSERVATIONS
from mtl_gym.envs.rewards import REWARDS
from mtl_gym.envs.signals import View
from mtl_gym.training.group_learner import MEMBERS, GroupLearner


class GroupingMeter:
    """What is known of N groupings; see :class:`mtl_gym.envs.meter.Measures`.

    Args:
        arguments: Name the observations and the reward.
        learner: The trainings.
        grouping: Says which actions are legal.
    """

    def __init__(self, arguments: Arguments, learner: GroupLearner, grouping: Grouping) -> None:
        rows = [OBSERVATIONS[name] for name in arguments.observe if name != ACTION_MASK] + [REWARDS[arguments.reward]]
        self._probes = {MEMBERS} | {probe for row in rows for probe in row.probes}
        self._learner, self._grouping = learner, grouping

    def first(self, rows: Tensor) -> View:
        """What is known after the warm-ups."""
        return self._view(torch.zeros(self._learner.num_replicas), rows)

    def next(self, previous: View, factors: Tensor, active: Tensor) -> View:
        """What is known after a decision in the ``active`` rows (N,); ``factors`` (N,) are the shares of the episodes done."""
        return self._view(factors, active).where(active, previous)

    def scored(self, signals: View, ended: Tensor) -> View:
        """The same: what groups reach is known once they are decided."""
        return signals

    def is_finite(self, signals: View) -> Tensor:
        """Whether the trainings have come to finite numbers (N,)."""
        return self._learner.finite()

    def _view(self, progress: Tensor, rows: Tensor) -> View:
        probes = self._learner.probe(self._probes, rows)
        return View({**probes, ACTION_MASK: self._grouping.legal(probes[MEMBERS].cpu()).to(rows.device)}, progress.to(rows.device))

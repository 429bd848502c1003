"""Which tasks should be trained together: effect of actions on groups, and outcome."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtl_gym.decisions.base import ACTION_MASK, Decision
from mtl_gym.decisions.grouping.data_maps import FEATURES
from mtl_gym.decisions.grouping.group_training import masks_of
from mtl_gym.decisions.grouping.known_groups import MOST_TASKS, REWARD, SIGNALS
from mtl_gym.decisions.grouping.modes import Grouping
from mtl_gym.decisions.grouping.trainings import GROUP_GAINS, MEMBERS, GroupTrainings
from mtl_gym.decisions.grouping.warm_up import MAP_FEATURES
from mtl_gym.decisions.partitions import partitions
from mtl_gym.problems.instances import TRAINING_IDS
from mtl_gym.training.probes import Probe, Reading, View


class TaskGroups(Decision):
    """Assigns tasks to groups and finally trains a network for each; ``group_price`` is that of every group beyond the first."""

    needs = (MEMBERS,)
    masked = True

    def __init__(self, trainings: GroupTrainings, grouping: Grouping, group_price: float) -> None:
        self.trainings: GroupTrainings = trainings
        self.grouping, self.space, self.group_price = grouping, grouping.space, group_price
        self._progress = trainings.state.add("progress")
        self._invalid = torch.zeros(trainings.num_replicas, dtype=torch.bool)

    @property
    def length(self) -> int:
        """One decision per task."""
        return self.trainings.recipe.num_tasks

    def begin(self, rows: Sequence[int]) -> None:
        """Resets infos."""
        self._invalid[list(rows)] = False

    def probes(self) -> list[Probe]:
        """The signals of the instances, and the valid actions."""
        known = Probe((*SIGNALS, MEMBERS, GROUP_GAINS), lambda names: Reading(self.trainings.signals(names)))
        mask = Probe((ACTION_MASK,), lambda names: Reading({ACTION_MASK: self.grouping.valid(self.trainings.memberships)}))
        return [known, mask]

    def sizes(self) -> dict[str, int]:
        """See :func:`group_sizes`."""
        return group_sizes(self.grouping, self.trainings.recipe.num_tasks, self.trainings.groups.watching.snapshots)

    def masks(self, view: View) -> Tensor:
        """The valid actions (N, A); memberships are never masked."""
        return self.grouping.valid(view[MEMBERS].cpu())

    def progress(self) -> Tensor:
        """Completed fraction (N,) of the decisions."""
        return self._progress.clone()

    def apply(self, actions: Tensor, active: Tensor, view: View) -> None:
        """Assigns tasks to groups, and trains the groups of completed rows."""
        trainings = self.trainings
        taken, self._invalid = self.grouping.checked(actions, trainings.memberships)
        after, progress = self.grouping.act(taken, trainings.memberships)
        trainings.memberships.copy_(torch.where(active[:, None, None], after, trainings.memberships))
        self._progress.copy_(torch.where(active, progress, self._progress))
        trainings.decide(active & (progress >= 1) & trainings.finite())

    def bonus(self, view: View, previous: View) -> Tensor:
        """The negative price of the groups, once they are decided."""
        price = self.group_price * (self.trainings.num_groups() - 1).double()
        return -torch.where(view.progress >= 1, price, 0)

    def infos(self, view: View) -> dict[str, Tensor]:
        """Whether the action was masked, and the number of groups with a member so far."""
        return {"invalid_action": self._invalid, "num_groups": self.trainings.num_groups()}

    def draw_id(self, stream: np.random.Generator) -> int:
        """Draws the id of a training instance, from the group table if it contains any."""
        table = self.trainings.groups.group_table
        stored = [] if table is None else [id for id in table.places if id >= TRAINING_IDS[0]]
        return stored[stream.integers(len(stored))] if stored else super().draw_id(stream)

    def outcome(self, row: int) -> dict[str, Any]:
        """A row's groups.

        Returns:
            ``tasks`` (K names), ``groups`` (K labels, numbered by first use; of soft memberships the largest), ``memberships``
            (K, C), ``num_groups``, ``gains`` (K) over all together on *reward*, as fractions, :meth:`regret`, and, if data map
            features are observed, ``confidence`` and ``variability`` (K, E), their means at the snapshots.
        """
        trainings = self.trainings
        return {
            "tasks": trainings.ledger.task_names(row),
            "groups": trainings.labels(row),
            "memberships": np.round(trainings.memberships[row].double().numpy(), 4).tolist(),
            "num_groups": int(trainings.num_groups()[row]),
            "gains": trainings.gains()[row].nan_to_num(nan=-1).tolist(),
            **self._of_maps(row),
            **self.regret(row),
        }

    def _of_maps(self, row: int) -> dict[str, Any]:
        if MAP_FEATURES not in self.trainings.needs:
            return {}
        features = np.round(self.trainings.known[row].signals[MAP_FEATURES].double().nan_to_num().numpy(), 4)  # (K, E, 7)
        return {"confidence": features[:, :, 0].tolist(), "variability": features[:, :, 1].tolist()}

    def regret(self, row: int) -> dict[str, float]:
        """``regret`` for up to 6 tasks: how far a row's groups are from the best grouping; their unknown groups are trained.

        It is the largest *reward* return of all partitions minus that of the row's groups (of soft memberships the largest), as a
        fraction. The trainings are shared by all policies and not charged to them.
        """
        trainings = self.trainings
        if trainings.recipe.num_tasks > MOST_TASKS or trainings.ledger.instances[row] is None:
            return {}
        trainings.train_all_groups()
        masks = range(1, trainings.groups.everything + 1)
        gains = trainings.outcomes_of(row, masks, REWARD).nan_to_num(nan=-1).clamp(min=-1)  # (2^K - 1, K)
        returns = [self._return(gains, labels) for labels in partitions(trainings.recipe.num_tasks).tolist()]
        return {"regret": max(returns) - self._return(gains, trainings.labels(row))}

    def _return(self, gains: Tensor, labels: Sequence[int]) -> float:
        """The return of a partition, from the gains (2^K - 1, K) of tasks in all groups."""
        masks = set(masks_of(labels))
        return float(sum(gains[mask - 1].sum() for mask in masks)) / len(labels) - self.group_price * (len(masks) - 1)


def group_sizes(grouping: Grouping, num_tasks: int, snapshots: int) -> dict[str, int]:
    """Lengths of data map features, memberships and mask, by rows of ``SIZES``."""
    return {"map": num_tasks * snapshots * FEATURES, "member": num_tasks * grouping.columns, "choice": grouping.choices}

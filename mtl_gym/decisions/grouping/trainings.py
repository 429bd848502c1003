"""N instances after their warm-ups, and the groups that their tasks are assigned to."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from mtl_gym.decisions.grouping.group_training import MEASURED, check_stages, ensemble_metrics, mask_of, masks_of, members
from mtl_gym.decisions.grouping.known_groups import LAYER_CKA, META, OUTCOMES, PAIR_GAINS, REWARD, SIGNALS, Known, KnownGroups
from mtl_gym.decisions.grouping.warm_up import Watching
from mtl_gym.models import make_model
from mtl_gym.problems.base import Problem
from mtl_gym.problems.scores import MetricTable
from mtl_gym.training.checkpoints import checkpoint_cost
from mtl_gym.training.data import check_data
from mtl_gym.training.ledger import Ledger
from mtl_gym.training.recipe import Recipe
from mtl_gym.training.state import State

MEMBERS, GROUP_GAINS = "members", "group_gains"
"""Further measurements: the memberships (N, K, C), and the gains (N, K) over all together on *reward*, as fractions."""


class GroupTrainings:
    """N instances of one problem. Full trainings run when an instance begins and when its groups are decided.

    Args:
        problem: The problem.
        recipe: How to train every group.
        num_replicas: N.
        watching: What warm-ups record.
        start: Memberships (K, C) before the first decision.
        needs: The signals to charge: names of ``SIGNALS``.
        group_table: Path of a group table, if any.

    Attributes:
        groups: The cache of groups' results.
        memberships: (N, K, C) the fraction of each task in each group.
        known: The cached results of each row's instance.

    Raises:
        ValueError: If the data do not suffice, or the table does not match.
    """

    def __init__(
        self,
        problem: Problem,
        recipe: Recipe,
        num_replicas: int,
        *,
        watching: Watching,
        start: Tensor,
        needs: Collection[str] = (),
        group_table: str | None = None,
    ) -> None:
        check_data(problem, recipe)
        model = make_model(problem, recipe.hidden_sizes)
        if LAYER_CKA in needs:
            check_stages(model, recipe)
        self.problem, self.recipe, self.num_replicas = problem, recipe, num_replicas
        self.groups = KnownGroups(problem, recipe, watching, group_table)
        self.needs = tuple(name for name in SIGNALS if name in needs)
        self._metrics, self._start = MetricTable(problem), start
        self.state = State(num_replicas)
        self.ledger = Ledger(problem, recipe, model.identity, self.state)
        self.memberships = self.state.add("memberships", start.shape)
        self.known: list[Known] = self.state.add_objects("known")
        self._results = self.state.add("results", (len(MEASURED), len(self._metrics.names)), torch.float64)

    def begin(self, rows: Iterable[int], ids: Iterable[int]) -> None:
        """Runs the warm-ups of these instances or looks them up; the other rows do not change at all."""
        rows, ids = list(rows), list(ids)
        found = self.groups.known(ids, self.needs)
        self.ledger.begin(rows, ids)
        for row, known in zip(rows, found, strict=True):
            self.known[row] = known
            self.ledger.step[row] = self.recipe.train_steps
            self.ledger.passes[row] = torch.tensor(self.groups.cost(self.needs))
            self.memberships[row] = self._start
            self._results[row] = known.outcomes[self.groups.everything]

    def clone(self) -> dict[str, Any]:
        """A copy of the state for :meth:`load`."""
        return self.state.clone()

    def load(self, state: dict[str, Any]) -> None:
        """Restores a :meth:`clone`."""
        self.state.load(state)

    def copy_rows(self, source: Sequence[int], target: Sequence[int]) -> None:
        """Copies each row of ``source`` to the row of ``target`` at the same place."""
        self.state.copy_rows(source, target)

    def decide(self, rows: Tensor) -> None:
        """Trains and measures the groups of the rows (N,) bool in one batch, according to ``memberships``.

        The warm-up is the training of all tasks in one group. In hard groups (all memberships are 0 or 1), a task's metrics are
        those of its group's network.
        """
        hard = ((self.memberships == 0) | (self.memberships == 1)).flatten(1).all(1)
        firm, soft = ((rows & own).nonzero()[:, 0].tolist() for own in (hard, ~hard))
        masks = [masks_of(self.labels(row)) for row in firm]
        for row, own, known in zip(firm, masks, self.groups.train(self._ids(firm), masks), strict=True):
            self._results[row] = self._of_groups(row, {mask: known.outcomes[mask] for mask in own})
            self.ledger.passes[row] = torch.tensor(self.groups.cost(self.needs, own))
        if soft:
            shares = self.memberships[soft]
            self._results[soft] = ensemble_metrics(self.problem, self.recipe, self._ids(soft), shares)
            steps, looks = float(self.recipe.train_steps), checkpoint_cost(self.problem, self.recipe)
            trained = (shares > 0).any(1).sum(1)[:, None].to(self.ledger.passes)
            self.ledger.passes[soft] += trained * self.ledger.passes.new_tensor([steps + looks, steps])

    def train_all_groups(self) -> None:
        """Trains all groups of the rows' instances that are not known yet, in one batch; nothing is charged."""
        rows = [row for row, instance in enumerate(self.ledger.instances) if instance is not None]
        every = range(1, self.groups.everything + 1)
        for row, known in zip(rows, self.groups.train(self._ids(rows), [every] * len(rows)), strict=True):
            self.known[row].outcomes.update(known.outcomes)

    def _ids(self, rows: Sequence[int]) -> list[int]:
        return [instance.id for instance in (self.ledger.instances[row] for row in rows) if instance]

    def _of_groups(self, row: int, outcomes: dict[int, Tensor]) -> Tensor:
        """Metrics (3, M), each task's from its group."""
        result = outcomes[max(outcomes)].clone()
        for place, task in enumerate(self.ledger.tasks[row].tolist()):
            own = self._metrics.tasks == task
            result[:, own] = next(values for mask, values in outcomes.items() if mask >> place & 1)[:, own]
        return result

    def labels(self, row: int) -> list[int]:
        """The group (K) with each task's largest membership in a row, numbered by first use."""
        places = self.memberships[row].argmax(1).tolist()
        numbers = {place: number for number, place in enumerate(dict.fromkeys(places))}
        return [numbers[place] for place in places]

    def num_groups(self) -> Tensor:
        """Number of groups (N,) with a member."""
        return (self.memberships > 0).any(1).sum(1)

    def gains(self) -> Tensor:
        """Gains (N, K) of the decided groups over all together on *reward*, as fractions; 0 before the decision."""
        together = torch.stack([known.outcomes[self.groups.everything][REWARD] for known in self.known])
        return self._metrics.gains(self._results[:, REWARD], together).gather(1, self.ledger.tasks)

    def outcomes(self, masks: Sequence[int], split: int) -> Tensor:
        """Gains (N, len(masks), K) of known groups over all together, as fractions; 0 for tasks outside a group."""
        return torch.stack([self.outcomes_of(row, masks, split) for row in range(self.num_replicas)])

    def outcomes_of(self, row: int, masks: Sequence[int], split: int) -> Tensor:
        """The same of one row (len(masks), K)."""
        known = self.known[row].outcomes
        gains = self._metrics.gains(torch.stack([known[mask][split] for mask in masks]), known[self.groups.everything][split])
        return torch.where(members(masks, self.recipe.num_tasks).bool(), gains[:, self.ledger.tasks[row]], 0)

    @property
    def all_metrics(self) -> list[str]:
        """Names ``task/metric`` of the M metrics."""
        return list(self._metrics.names)

    def pair_gains(self) -> Tensor:
        """*meta* gains (N, K, K) over all together of task i trained with task j alone; of i alone on the diagonal."""
        count = range(self.recipe.num_tasks)
        masks = [mask_of({one, other}) for one in count for other in count]
        table = self.outcomes(masks, META).unflatten(1, (len(count), -1))  # (N, i, j, K)
        return table.diagonal(dim1=1, dim2=3).mT  # (N, i, j): task i's own

    def signals(self, names: Collection[str]) -> dict[str, Tensor]:
        """Measurements of the instances, which have been charged already.

        Returns:
            By name: the signals of :class:`~mtl_gym.decisions.grouping.known_groups.Known` (N, ...); ``pair_gains`` (N, K, K) and
            ``outcomes`` (N, 2^K - 1, K), see :meth:`pair_gains` and :meth:`outcomes`; ``members`` and ``group_gains``.
        """
        computed = {
            PAIR_GAINS: self.pair_gains,
            OUTCOMES: lambda: self.outcomes(range(1, self.groups.everything + 1), REWARD),
            MEMBERS: self.memberships.clone,
            GROUP_GAINS: self.gains,
        }
        found = {name: compute() for name, compute in computed.items() if name in names}
        stored = [name for name in names if name not in computed]
        return found | {name: torch.stack([known.signals[name] for known in self.known]) for name in stored}

    def finite(self) -> Tensor:
        """Whether the results of a row's groups, or before that of its warm-up, are finite (N,)."""
        return torch.isfinite(self.gains()).all(1)

    def metrics(self, split: str) -> dict[str, Tensor]:
        """Metrics (N,) by ``task/metric`` of the decided groups, or before that of the warm-up, on a split of ``MEASURED``."""
        table = self._results[:, MEASURED.index(split)]
        return {name: table[:, place].clone() for place, name in enumerate(self._metrics.names)}

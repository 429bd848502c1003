"""The learner of groupings: N instances whose warm-ups are over, and the groups that their tasks are put in."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from mtl_gym.problems.base import Problem, Split
from mtl_gym.problems.metrics import MetricTable
from mtl_gym.training.groupings import LAYER_CKA, META, OUTCOMES, PAIR_GAINS, REWARD, SIGNALS, Groupings, Known
from mtl_gym.training.groups import MEASURED, check_stages, ensemble_metrics, mask_of, masks_of, members
from mtl_gym.training.learner import Learner
from mtl_gym.training.recipe import Recipe
from mtl_gym.training.warm_up import Watching

MEMBERS, GAINS = "members", "gains"
"""What else can be known: the memberships (N, K, C), and the gains (N, K) over all together on *reward*, as fractions."""


class GroupLearner(Learner):
    """N instances of one problem. Trainings are run to their end when an instance begins and when its groups are decided.

    Of the replicas it keeps the books alone: instances, tasks, steps and passes; ``memberships`` (N, K, C) says which share of each
    task belongs to which group.

    Args:
        problem: The problem.
        recipe: How every group is trained.
        num_replicas: N.
        watching: How warm-ups are watched.
        start: Memberships (K, C) before the first decision.
        needs: The signals that are paid for: names of ``SIGNALS``.
        group_table: Path of a group table, if there is one.
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
        super().__init__(problem, recipe, num_replicas)
        self.groupings = Groupings(problem, recipe, watching, group_table)
        self.needs = tuple(name for name in SIGNALS if name in needs)
        if LAYER_CKA in needs:
            check_stages(self)
        self._start = start
        self.memberships = start.repeat(num_replicas, 1, 1)
        self.known: list[Known] = [Known() for _ in range(num_replicas)]
        self._metrics = MetricTable(problem)
        self._results = torch.zeros(num_replicas, len(MEASURED), len(self._metrics.names), dtype=torch.float64)

    def __getstate__(self) -> dict[str, Any]:
        own = ("groupings", "needs", "_start", "memberships", "known", "_metrics", "_results")
        return super().__getstate__() | {name: self.__dict__[name] for name in own}

    def begin(self, rows: Iterable[int], ids: Iterable[int]) -> None:
        """Runs the warm-ups of these instances, or looks them up; the other rows are left as they are, bit for bit."""
        rows, ids = list(rows), list(ids)
        replicas, together = self.replicas, self.groupings.everything
        for row, id, known in zip(rows, ids, self.groupings.known(ids, self.needs), strict=True):
            self.instances[row] = instance = self.recipe.draw(self.problem, id)
            self.known[row] = known
            replicas.tasks[row] = torch.from_numpy(instance.tasks)
            replicas.scales[row] = torch.from_numpy(instance.scales)
            replicas.parameters[row] = 0
            replicas.step[row] = self.recipe.train_steps
            replicas.passes[row] = torch.tensor(self.groupings.cost(self.needs))
            self.memberships[row] = self._start
            self._results[row] = known.outcomes[together]

    def decide(self, rows: Tensor) -> None:
        """Trains the groups of the rows (N,) bool, all in one batch, as ``memberships`` has them; knows then what they reach.

        All tasks in one group cost no training, and reach what the warm-up has reached. In hard groups (all memberships are 0 or 1)
        a task's metrics are those of its group's network.
        """
        chosen, hard = rows.cpu(), ((self.memberships == 0) | (self.memberships == 1)).flatten(1).all(1)
        firm, soft = ((chosen & own).nonzero()[:, 0].tolist() for own in (hard, ~hard))
        masks = [masks_of(self.labels(row)) for row in firm]
        for row, own, known in zip(firm, masks, self.groupings.train(self._ids(firm), masks), strict=True):
            self._results[row] = self._of_groups(row, {mask: known.outcomes[mask] for mask in own})
            self.replicas.passes[row] = torch.tensor(self.groupings.cost(self.needs, own))
        if soft:
            shares = self.memberships[soft]
            self._results[soft] = ensemble_metrics(self.problem, self.recipe, self._ids(soft), shares)
            trained = (shares > 0).any(1).sum(1) * float(self.recipe.train_steps)
            self.replicas.passes[soft] += trained[:, None].to(self.replicas.passes)

    def _ids(self, rows: Sequence[int]) -> list[int]:
        return [instance.id for instance in (self.instances[row] for row in rows) if instance]

    def _of_groups(self, row: int, outcomes: dict[int, Tensor]) -> Tensor:
        """Metrics (3, M): those of each task from its group."""
        result = outcomes[max(outcomes)].clone()
        for place, task in enumerate(self.replicas.tasks[row].tolist()):
            own = self._metrics.tasks == task
            result[:, own] = next(values for mask, values in outcomes.items() if mask >> place & 1)[:, own]
        return result

    def labels(self, row: int) -> list[int]:
        """The group (K) of each task of a row: that of its largest membership, numbered by first use."""
        places = self.memberships[row].argmax(1).tolist()
        numbers = {place: number for number, place in enumerate(dict.fromkeys(places))}
        return [numbers[place] for place in places]

    def num_groups(self) -> Tensor:
        """Groups (N,) that have a member."""
        return (self.memberships > 0).any(1).sum(1)

    def gains(self) -> Tensor:
        """Gains (N, K) of the decided groups over all together on *reward*, as fractions; 0 before the decision."""
        together = torch.stack([known.outcomes[self.groupings.everything][REWARD] for known in self.known])
        return self._metrics.gains(self._results[:, REWARD], together).gather(1, self.replicas.tasks.cpu())

    def outcomes(self, masks: Sequence[int], split: int) -> Tensor:
        """Gains (N, len(masks), K) over all together of groups that are known, as fractions; 0 of tasks that are not in a group."""
        return torch.stack([self.outcomes_of(row, masks, split) for row in range(self.num_replicas)])

    def outcomes_of(self, row: int, masks: Sequence[int], split: int) -> Tensor:
        """The same of one row (len(masks), K)."""
        known = self.known[row].outcomes
        gains = self._metrics.gains(torch.stack([known[mask][split] for mask in masks]), known[self.groupings.everything][split])
        gains = gains[:, self.replicas.tasks[row].cpu()]
        return torch.where(members(masks, self.recipe.num_tasks).bool(), gains, 0)

    @property
    def all_metrics(self) -> list[str]:
        """Names ``task/metric`` of the M metrics."""
        return list(self._metrics.names)

    def pair_gains(self) -> Tensor:
        """Gains (N, K, K) over all together on *meta* of task i trained with task j alone; of i alone on the diagonal."""
        count = range(self.recipe.num_tasks)
        masks = [mask_of({one, other}) for one in count for other in count]
        table = self.outcomes(masks, META).unflatten(1, (len(count), -1))  # (N, i, j, K)
        return table.diagonal(dim1=1, dim2=3).mT  # (N, i, j): task i's own

    def probe(self, needs: Collection[str], charged: Tensor) -> dict[str, Tensor]:
        """What is known of the instances; it has been paid for already.

        Args:
            needs: Names of ``SIGNALS``, of those that the learner was made for, or ``members`` or ``gains``.
            charged: Not used.

        Returns:
            By name: the signals of :class:`~mtl_gym.training.groupings.Known` (N, ...); ``pair_gains`` (N, K, K) and ``outcomes``
            (N, 2^K - 1, K), see :meth:`pair_gains` and :meth:`outcomes`; ``members`` and ``gains``.
        """
        device = self._rows.device
        computed = {
            PAIR_GAINS: self.pair_gains,
            OUTCOMES: lambda: self.outcomes(range(1, self.groupings.everything + 1), REWARD),
            MEMBERS: self.memberships.clone,
            GAINS: self.gains,
        }
        found = {name: compute() for name, compute in computed.items() if name in needs}
        stored = [name for name in needs if name not in computed]
        found |= {name: torch.stack([known.signals[name] for known in self.known]) for name in stored}
        return {name: values.to(device) for name, values in found.items()}

    def finite(self) -> Tensor:
        """Whether the groups of a row have been trained to finite numbers (N,), or the warm-up before that."""
        reached = torch.isfinite(self.gains()).all(1).to(self._rows.device)
        return reached & super().finite()

    def metrics(self, split: str | Split) -> dict[str, Tensor]:
        """Metrics (N,) of the decided groups by ``task/metric``, of all together before that; on a split by its name."""
        table = self._results[:, MEASURED.index(str(split))]
        return {name: table[:, place].clone() for place, name in enumerate(self._metrics.names)}

    def state(self) -> dict[str, Any]:
        """A copy of all that is known; see :meth:`Learner.state`."""
        own = {"memberships": self.memberships.clone(), "results": self._results.clone(), "known": list(self.known)}
        return super().state() | own

    def restore(self, state: dict[str, Any]) -> None:
        """Goes back to a state; see :meth:`Learner.restore`."""
        super().restore(state)
        self.memberships.copy_(state["memberships"])
        self._results.copy_(state["results"])
        self.known = list(state["known"])

    def fork(self, source: Sequence[int], target: Sequence[int]) -> None:
        """Copies rows; see :meth:`Learner.fork`."""
        super().fork(source, target)
        for table in (self.memberships, self._results):
            table[list(target)] = table[list(source)]
        for copy, original in zip(target, [self.known[row] for row in source], strict=True):
            self.known[copy] = original

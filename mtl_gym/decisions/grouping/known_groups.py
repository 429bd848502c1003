"""Caches instances' warm-up signals and their groups' results, which are trained once or looked up."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from torch import Tensor

from mtl_gym.decisions.grouping.group_tables import GroupTable, read_group_table
from mtl_gym.decisions.grouping.group_training import (
    AT_ONCE,
    COMPARED,
    LAYER_CKA as LAYER_CKA,
    MEASURED,
    group_metrics,
    layer_similarity,
    mask_of,
    measure,
)
from mtl_gym.decisions.grouping.warm_up import COSINES, LOOKAHEAD, OF_WARM_UP, WarmUp, Watching
from mtl_gym.problems.base import Problem
from mtl_gym.problems.scores import MetricTable
from mtl_gym.training.checkpoints import checkpoint_cost
from mtl_gym.training.recipe import Recipe
from mtl_gym.training.references import fingerprint

PAIR_GAINS, OUTCOMES = "pair_gains", "outcomes"
SIGNALS = (*OF_WARM_UP, LAYER_CKA, PAIR_GAINS, OUTCOMES)
"""Signals of how an instance's tasks relate."""
MOST_TASKS = 6
"""Largest number of tasks for which all groups are trained: 63 groups for 6 tasks."""
META, REWARD, TEST = range(len(MEASURED))
_KEPT = 1024  # cached instances


@dataclass
class Known:
    """Cached results of one instance.

    Attributes:
        signals: By name: those of :meth:`~mtl_gym.decisions.grouping.warm_up.WarmUp.run`, and ``layer_cka`` (K (K - 1) / 2).
        outcomes: By the bit mask of a group's tasks: its metrics (3, M) on *meta*, *reward* and *test*; NaN if it diverged.
    """

    signals: dict[str, Tensor] = field(default_factory=dict)
    outcomes: dict[int, Tensor] = field(default_factory=dict)


_remembered: OrderedDict[tuple[str, int], Known] = OrderedDict()


class KnownGroups:
    """Warm-ups and groups of one problem's instances, cached in the process for all objects with the same arguments.

    Raises ``ValueError`` if ``group_table``, the path of a table to look up, does not match the other arguments.
    """

    def __init__(self, problem: Problem, recipe: Recipe, watching: Watching, group_table: str | None = None) -> None:
        self.problem, self.recipe, self.watching, self.path = problem, recipe, watching, group_table
        self.training = {**fingerprint(problem, recipe), **asdict(watching)}
        if group_table is not None:
            read_group_table(group_table).check(self.training, MetricTable(problem).names)
        self._key = json.dumps([self.training, recipe.device, group_table], sort_keys=True)

    @property
    def group_table(self) -> GroupTable | None:
        """The table to look up, if any."""
        return None if self.path is None else read_group_table(self.path)

    @property
    def everything(self) -> int:
        """The bit mask of all tasks."""
        return mask_of(range(self.recipe.num_tasks))

    def known(self, ids: Sequence[int], needs: Collection[str]) -> list[Known]:
        """The instances' results, at least those of all tasks together and the needed ``SIGNALS``; trains what is missing."""
        found = {id: self._remember(id) for id in ids}
        signals = [name for name in needs if name in OF_WARM_UP]
        missing = [id for id, own in found.items() if self.everything not in own.outcomes or not own.signals.keys() >= {*signals}]
        for start in range(0, len(missing), AT_ONCE):
            self._warm_up(found, missing[start : start + AT_ONCE], signals)
        unlike = [id for id, own in found.items() if LAYER_CKA in needs and LAYER_CKA not in own.signals]
        if unlike:
            self._compare_layers(found, unlike)
        self._train({id: (own, required(needs, self.recipe.num_tasks)) for id, own in found.items()})
        return [found[id] for id in ids]

    def train(self, ids: Sequence[int], masks: Sequence[Collection[int]]) -> list[Known]:
        """The instances' results, at least these groups of each; missing ones are trained in parallel."""
        wanted: dict[int, tuple[Known, set[int]]] = {}
        for id, own in zip(ids, masks, strict=True):
            wanted.setdefault(id, (self._remember(id), set()))[1].update(own)
        self._train(wanted)
        return [wanted[id][0] for id in ids]

    def cost(self, needs: Collection[str], masks: Collection[int] = ()) -> tuple[float, float]:
        """Forward and backward passes, in training batches, of a warm-up, the needed signals and these groups, as if not cached."""
        num_tasks, train_steps = self.recipe.num_tasks, self.recipe.train_steps
        trained = {self.everything, *required(needs, num_tasks), *masks}
        probes = -(-train_steps // self.watching.affinity_every) * num_tasks
        backward = float(len(trained) * train_steps)
        forward = backward + len(trained) * checkpoint_cost(self.problem, self.recipe)
        forward += probes * (LOOKAHEAD in needs) + num_tasks * COMPARED / self.recipe.batch_size * (LAYER_CKA in needs)
        return forward, backward + probes * (LOOKAHEAD in needs or COSINES in needs)

    def _remember(self, id: int) -> Known:
        key = (self._key, id)
        if key not in _remembered:
            table = self.group_table
            _remembered[key] = Known(*table.entry(id)) if table and id in table.places else Known()
        _remembered.move_to_end(key)
        while len(_remembered) > _KEPT:
            _remembered.popitem(last=False)
        return _remembered[key]

    def _warm_up(self, found: Mapping[int, Known], ids: Sequence[int], signals: Sequence[str]) -> None:
        warm_up = WarmUp(self.problem, self.recipe, ids)
        shown, together = warm_up.run(self.watching, signals), measure(warm_up.trainer)
        for row, id in enumerate(ids):
            found[id].outcomes.setdefault(self.everything, together[row].clone())
            for name, values in shown.items():
                found[id].signals.setdefault(name, values[row].cpu().clone())

    def _compare_layers(self, found: Mapping[int, Known], ids: Sequence[int]) -> None:
        similar, metrics = layer_similarity(self.problem, self.recipe, ids)
        for row, id in enumerate(ids):
            found[id].signals[LAYER_CKA] = similar[row].cpu().clone()
            for task, own in enumerate(metrics[row]):
                found[id].outcomes.setdefault(mask_of([task]), own.clone())

    def _train(self, wanted: Mapping[int, tuple[Known, Collection[int]]]) -> None:
        missing = [(id, mask) for id, (own, masks) in wanted.items() for mask in sorted(masks) if mask not in own.outcomes]
        metrics = group_metrics(self.problem, self.recipe, [id for id, _ in missing], [mask for _, mask in missing])
        for (id, mask), own in zip(missing, metrics, strict=True):
            wanted[id][0].outcomes[mask] = own.clone()


def required(needs: Collection[str], num_tasks: int) -> set[int]:
    """The bit masks of the groups to train for the needed signals."""
    singles = {mask_of([task]) for task in range(num_tasks)}
    if OUTCOMES in needs:
        return set(range(1, 1 << num_tasks))
    if PAIR_GAINS in needs:
        return singles | {one | other for one in singles for other in singles}
    return singles if LAYER_CKA in needs else set()

"""Maps actions to structures (which tasks share which stage); only this module decides which actions are valid.

N rows, S stages, K tasks. Tasks that can still be merged form a *group*; its *frontier* is the first stage that its tasks do not
share. :meth:`mtl_gym.decisions.merging.decision.Merging.observe` explains the measurements below.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from torch import Tensor

from mtl_gym.checks import choose
from mtl_gym.decisions.partitions import MOST_LISTED, RULES, joined, labels, partitions, refines, together
from mtl_gym.models.branched import ASSIGN

CKA, GRADIENT, USED, DEPTH, OPEN = "cka", "gradient", "used", "depth", "open"
GROUPS, BEGUN = "groups", "begun"
STRUCTURE = (ASSIGN, GROUPS, DEPTH, OPEN, BEGUN)
"""Measurements that actions depend on."""

Structures = Mapping[str, Tensor]
MERGE_ACTIONS = ("merge", "threshold")
SIMILARITIES = {"cka": CKA, "gradient": GRADIENT}


def choices(num_tasks: int) -> int:
    """Number of ``merge`` actions: all partitions of up to 6 tasks; beyond that, waiting and every pair."""
    return len(partitions(num_tasks)) if num_tasks <= MOST_LISTED else 1 + num_tasks * (num_tasks - 1) // 2


def frontier(table: Tensor, depths: Tensor) -> Tensor:
    """Each pair's entry (N, K, K) of a table (N, S, K, K) at the first stage that it does not share, or at the last."""
    return table.gather(1, depths.clamp(max=table.shape[1] - 1)[:, None])[:, 0]


def valid_merges(known: Structures) -> Tensor:
    """The valid ``merge`` actions (N, choices), bool.

    A partition is valid if it refines the current groups (separated tasks never rejoin) and leaves fully shared ones unchanged.
    Before the first step all networks are equal, and nothing can be merged. The first valid action always merges nothing.
    """
    groups, begun = known[GROUPS], known[BEGUN][:, None]
    if groups.shape[1] <= MOST_LISTED:
        listed = partitions(groups.shape[1]).to(groups.device)
        finished = together(groups) & ~known[OPEN]
        keeps = (together(listed) | ~finished[:, None]).flatten(2).all(2)
        waits = torch.arange(len(listed), device=groups.device) == 0
        return refines(listed, groups[:, None]) & keeps & (begun | waits)
    pairs = torch.triu(_least(known) & known[OPEN], 1)
    first, second = torch.triu_indices(pairs.shape[1], pairs.shape[1], offset=1)
    return torch.cat([torch.ones_like(begun), pairs[:, first, second] & begun], dim=1)


def _least(known: Structures) -> Tensor:
    """Whether both tasks of a pair (N, K, K) are the lowest of their blocks at the first stage that they do not share."""
    stages = known[ASSIGN].shape[1]
    own = known[ASSIGN] == torch.arange(known[ASSIGN].shape[2], device=known[ASSIGN].device)  # (N, S, K)
    return frontier(own[:, :, :, None] & own[:, :, None], known[DEPTH].clamp(max=stages - 1))


@dataclass(frozen=True)
class Structure:
    """Which tasks share what: ``assign`` (N, S, K) and ``groups`` (N, K)."""

    assign: Tensor
    groups: Tensor


class StructureActions:
    """One mode of mapping actions to structures, of ``MERGE_ACTIONS``; ``threshold`` has rows of ``SIMILARITIES`` and ``RULES``."""

    def __init__(self, *, action: str, similarity: str, num_tasks: int, rule: str = "code") -> None:
        choose("action", action, {name: name for name in MERGE_ACTIONS})
        self._similarity = choose("similarity", similarity, SIMILARITIES)
        self._rule = choose("rule", rule, RULES)
        self._by_threshold, self._num_tasks = action == "threshold", num_tasks
        self.space: Box | Discrete = Box(-1, 1, (1,), np.float32) if self._by_threshold else Discrete(choices(num_tasks))

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the required measurements."""
        return (*STRUCTURE, self._similarity) if self._by_threshold else STRUCTURE

    def invalid(self, actions: Tensor, known: Structures) -> Tensor:
        """Whether each row's action is masked (N,)."""
        if self._by_threshold:
            return torch.zeros_like(known[BEGUN])
        return ~valid_merges(known).gather(1, actions[:, None])[:, 0]

    def structure(self, actions: Tensor, known: Structures) -> Structure:
        """The structures after the actions (N,) or (N, 1); a masked action is replaced by the first valid one."""
        if self._by_threshold:
            return _divided(self._by_similarity(actions[:, 0], known), known, rest=self._rule.rest)
        taken = torch.where(self.invalid(actions, known), valid_merges(known).int().argmax(1), actions)
        if self._num_tasks <= MOST_LISTED:
            return _divided(partitions(self._num_tasks).to(taken.device)[taken], known)
        return _paired(taken, known)

    def _by_similarity(self, actions: Tensor, known: Structures) -> Tensor:
        """Labels (N, K) of each group divided by the rule at its frontier, with the threshold (1 + a) / 2."""
        similar = frontier(known[self._similarity], known[DEPTH]).cpu()
        similar = (1 + similar) / 2 if self._similarity == GRADIENT else similar
        groups, chosen = known[GROUPS].cpu(), known[GROUPS].cpu().clone()
        for row, threshold in enumerate(((1 + actions.double()) / 2).tolist()):
            for group in groups[row].unique().tolist():
                members = (groups[row] == group).nonzero()[:, 0]
                if not known[OPEN][row, members[0], members[-1]]:
                    continue
                level = threshold if known[BEGUN][row] else 1.0
                chosen[row, members] = members[self._rule.divide(similar[row][members][:, members], level)]
        return chosen.to(known[GROUPS].device)


def _divided(chosen: Tensor, known: Structures, *, rest: bool = False) -> Structure:
    """Divides groups into the blocks of partitions (N, K) that refine them, whose tasks share the frontier; all apart: waits.

    The other tasks of a group in which some start to share are separated for good, or with ``rest`` form a group.
    """
    groups, pairs = together(known[GROUPS]), together(chosen)
    merging = (pairs & known[OPEN] & ~torch.eye(chosen.shape[1], dtype=torch.bool, device=chosen.device)).any(2)  # (N, K)
    changed = (groups & merging[:, None]).any(2)  # tasks of a group in which some start to share
    depth = torch.where(groups, known[DEPTH], known[ASSIGN].shape[1]).amin(2)  # (N, K), the frontier of a task's group
    here = torch.arange(known[ASSIGN].shape[1], device=chosen.device)[:, None] == depth[:, None]  # (N, S, K)
    assign = torch.where(here & changed[:, None], chosen[:, None], known[ASSIGN])
    left = ~merging & rest
    kept = groups & (pairs | (left[:, :, None] & left[:, None]))
    return Structure(assign, torch.where(changed, labels(kept), known[GROUPS]))


def _paired(actions: Tensor, known: Structures) -> Structure:
    """Joins the blocks of two tasks at the first stage that they do not share; action 0 joins none."""
    assign = known[ASSIGN].clone()
    first, second = torch.triu_indices(assign.shape[2], assign.shape[2], offset=1).tolist()
    for row, action in enumerate(actions.tolist()):
        if action:
            one, other = first[action - 1], second[action - 1]
            stage = int(known[DEPTH][row, one, other])
            assign[row, stage] = joined(assign[row, stage], one, other)
    return Structure(assign, known[GROUPS])

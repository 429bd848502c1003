"""From actions to structures: which tasks share which stage; the only place that decides what is legal.

N rows, S stages, K tasks. Tasks that may still be merged are a *group*; its *frontier* is the first stage that its tasks do not
share. What is known of the structures is a mapping as :meth:`mtl_gym.training.branch_learner.BranchLearner.probe` returns it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from torch import Tensor

from mtl_gym.arguments import choose
from mtl_gym.training.branch_learner import ASSIGN, BEGUN, CKA, DEPTH, GRADIENT, GROUPS, OPEN, STRUCTURE
from mtl_gym.training.partitions import MOST_LISTED, coarsest, joined, labels, partitions, refines, together

Structures = Mapping[str, Tensor]
MERGE_ACTIONS = ("merge", "threshold")
SIMILARITIES = {"cka": CKA, "gradient": GRADIENT}


def choices(num_tasks: int) -> int:
    """Number of actions of ``merge``: all partitions of up to 6 tasks; beyond that, waiting and every pair."""
    return len(partitions(num_tasks)) if num_tasks <= MOST_LISTED else 1 + num_tasks * (num_tasks - 1) // 2


def frontier(table: Tensor, depths: Tensor) -> Tensor:
    """What a table (N, S, K, K) says of each pair at the first stage that it does not share, or at the last: (N, K, K)."""
    return table.gather(1, depths.clamp(max=table.shape[1] - 1)[:, None])[:, 0]


def legal(known: Structures) -> Tensor:
    """The actions of ``merge`` that are allowed (N, choices), bool.

    A partition has to refine the groups: tasks that were put apart never rejoin. A group that shares all its stages stays as it
    is. Before the first step all networks are the same, and nothing can be merged. Among partitions the first legal one is that
    which merges nothing; among pairs it is waiting.
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
    """Whether both tasks of a pair (N, K, K) are the least of their blocks at the first stage that they do not share."""
    stages = known[ASSIGN].shape[1]
    own = known[ASSIGN] == torch.arange(known[ASSIGN].shape[2], device=known[ASSIGN].device)  # (N, S, K)
    return frontier(own[:, :, :, None] & own[:, :, None], known[DEPTH].clamp(max=stages - 1))


@dataclass(frozen=True)
class Structure:
    """Who shares what: ``assign`` (N, S, K) and ``groups`` (N, K), as the learner's replicas have them."""

    assign: Tensor
    groups: Tensor


class Merging:
    """One mode of turning actions into structures.

    Args:
        action: One of ``MERGE_ACTIONS``.
        similarity: Row of ``SIMILARITIES``; used by ``threshold`` alone.
        num_tasks: K.

    Raises:
        ValueError: If a name is unknown.
    """

    def __init__(self, *, action: str, similarity: str, num_tasks: int) -> None:
        choose("action", action, {name: name for name in MERGE_ACTIONS})
        self._similarity = choose("similarity", similarity, SIMILARITIES)
        self._by_threshold, self._num_tasks = action == "threshold", num_tasks
        self.space: Box | Discrete = Box(-1, 1, (1,), np.float32) if self._by_threshold else Discrete(choices(num_tasks))

    @property
    def probes(self) -> tuple[str, ...]:
        """What has to be known of the structures."""
        return (*STRUCTURE, self._similarity) if self._by_threshold else STRUCTURE

    def invalid(self, actions: Tensor, known: Structures) -> Tensor:
        """Whether each row's action is masked (N,)."""
        if self._by_threshold:
            return torch.zeros_like(known[BEGUN])
        return ~legal(known).gather(1, actions[:, None])[:, 0]

    def structure(self, actions: Tensor, known: Structures) -> Structure:
        """The structures after the actions (N,) or (N, 1); in the place of a masked action stands the first that is legal."""
        if self._by_threshold:
            return _divided(self._by_similarity(actions[:, 0], known), known)
        allowed = legal(known)
        taken = torch.where(self.invalid(actions, known), allowed.int().argmax(1), actions)
        if self._num_tasks <= MOST_LISTED:
            return _divided(partitions(self._num_tasks).to(taken.device)[taken], known)
        return _paired(taken, known)

    def _by_similarity(self, actions: Tensor, known: Structures) -> Tensor:
        """Labels (N, K): each group divided by MTSL's rule at its frontier, with the threshold (1 + a) / 2."""
        similar = frontier(known[self._similarity], known[DEPTH]).cpu()
        similar = (1 + similar) / 2 if self._similarity == GRADIENT else similar
        groups, chosen = known[GROUPS].cpu(), known[GROUPS].cpu().clone()
        for row, threshold in enumerate(((1 + actions.double()) / 2).tolist()):
            for group in groups[row].unique().tolist():
                members = (groups[row] == group).nonzero()[:, 0]
                if not known[OPEN][row, members[0], members[-1]]:
                    continue
                level = threshold if known[BEGUN][row] else 1.0
                chosen[row, members] = members[coarsest(similar[row][members][:, members], level)]
        return chosen.to(known[GROUPS].device)


def _divided(chosen: Tensor, known: Structures) -> Structure:
    """Groups divided into the blocks of partitions (N, K) that refine them; a group that is all apart waits.

    The tasks of a block begin to share the group's frontier, and are a group from now on.
    """
    groups, pairs = together(known[GROUPS]), together(chosen)
    merging = (pairs & known[OPEN] & ~torch.eye(chosen.shape[1], dtype=torch.bool, device=chosen.device)).any(2)  # (N, K)
    changed = (groups & merging[:, None]).any(2)  # tasks of a group of which some begin to share
    depth = torch.where(groups, known[DEPTH], known[ASSIGN].shape[1]).amin(2)  # (N, K), the frontier of a task's group
    here = torch.arange(known[ASSIGN].shape[1], device=chosen.device)[:, None] == depth[:, None]  # (N, S, K)
    assign = torch.where(here & changed[:, None], chosen[:, None], known[ASSIGN])
    return Structure(assign, torch.where(changed, labels(pairs & groups), known[GROUPS]))


def _paired(actions: Tensor, known: Structures) -> Structure:
    """Blocks of two tasks joined at the first stage that the tasks do not share; action 0 joins none."""
    assign = known[ASSIGN].clone()
    first, second = torch.triu_indices(assign.shape[2], assign.shape[2], offset=1).tolist()
    for row, action in enumerate(actions.tolist()):
        if action:
            one, other = first[action - 1], second[action - 1]
            stage = int(known[DEPTH][row, one, other])
            assign[row, stage] = joined(assign[row, stage], one, other)
    return Structure(assign, known[GROUPS])

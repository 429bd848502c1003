"""Which parameters a training ends with: the last ones, or those that were best on *meta*. ``CHECKPOINTS`` is the table."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mtl_gym.problems.base import Problem
from mtl_gym.training.batch_losses import BatchLosses
from mtl_gym.training.formulas import log_loss
from mtl_gym.training.ledger import Ledger
from mtl_gym.training.recipe import Recipe
from mtl_gym.training.replicas import Replicas
from mtl_gym.training.state import State

CHECKPOINTS = {"last": False, "best_meta": True}
"""Name to whether parameters are kept during training."""
LOOKS = 10
"""Number of times that *meta* is looked at during a training."""


def checkpoint_cost(problem: Problem, recipe: Recipe) -> float:
    """Forward passes, in training batches, of the looks at *meta* of a whole training, by which its checkpoint is chosen."""
    if not CHECKPOINTS[recipe.checkpoint]:
        return 0.0
    return min(LOOKS, recipe.train_steps) * min(recipe.holdout_size, len(problem.splits["meta"])) / recipe.batch_size


class BestOnMeta:
    """Keeps the parameters and buffers, and so the structure, with the least losses on *meta*; a training ends with them.

    Losses are compared by the mean of ``log(L_k / L_k(0))`` over the tasks that count, of which only ``log L_k`` changes during a
    training. They are measured after every tenth of the steps, on the fixed samples; this costs forward passes. A training also
    ends with them where it diverges, but not where it is only interrupted.

    Attributes:
        counting: (N, K) 1 for the tasks that count, else 0: all, or the main one; in a training on some tasks alone, these.
    """

    def __init__(self, recipe: Recipe, state: State, ledger: Ledger, replicas: Replicas, losses: BatchLosses) -> None:
        self._recipe, self._ledger, self._replicas, self._losses = recipe, ledger, replicas, losses
        self.counting = state.add("best counting", (recipe.num_tasks,))
        self._score = state.add("best score", ())
        self._found = state.add("best found", (), torch.bool)
        self._current: dict[str, Tensor] = {}
        self._kept: dict[str, Tensor] = {}
        self._state = state
        self.keep("parameters", replicas.flat)
        for name, own in replicas.buffers.items():
            self.keep(f"buffer {name}", own)

    def keep(self, name: str, own: Tensor) -> None:
        """Has a tensor (N, ...) of the state kept and restored with the parameters, such as a decision's own of the structure."""
        self._current[name] = own
        self._kept[name] = self._state.add(f"best {name}", own.shape[1:], own.dtype)

    def begin(self, rows: Sequence[int]) -> None:
        """Sets the tasks that count in rows whose training begins; the state has set everything else to 0."""
        self.counting[list(rows), : None if self._recipe.main_task is None else 1] = 1

    def look(self, stepped: Tensor) -> bool:
        """To be called after a step of the rows (N,) bool; returns whether the parameters of some rows were replaced."""
        step, train_steps = self._ledger.step, self._recipe.train_steps
        due = stepped & (step * LOOKS // train_steps > (step - 1) * LOOKS // train_steps)
        if not due.any():
            return False
        scores = self._measured(due)
        better = due & torch.isfinite(scores) & (~self._found | (scores < self._score))
        self._score.copy_(torch.where(better, scores, self._score))
        self._found |= better
        _copy(better, self._current, self._kept)
        return self.restore(due & (step == train_steps) & ~better)

    def restore(self, rows: Tensor) -> bool:
        """Gives the rows (N,) bool their best parameters so far, where there are any; returns whether some were replaced."""
        chosen = rows & self._found
        _copy(chosen, self._kept, self._current)
        return bool(chosen.any())

    def _measured(self, due: Tensor) -> Tensor:
        """Mean log losses (N,) on *meta* of the tasks that count, without their scales; the rows are charged."""
        losses = log_loss(self._losses.held_out(["meta"])["meta"] / self._ledger.scales)
        self._ledger.charge(due, self._losses.held_out_cost(["meta"]), 0.0)
        return torch.where(self.counting > 0, losses, 0).sum(1) / self.counting.sum(1)


def _copy(rows: Tensor, source: dict[str, Tensor], target: dict[str, Tensor]) -> None:
    chosen = rows.nonzero()[:, 0]
    if len(chosen):
        for name, own in target.items():
            own[chosen] = source[name][chosen]

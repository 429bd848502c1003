"""Statistics of losses between two decisions, for N rows (one in a custom loop) and K tasks."""

from __future__ import annotations

from typing import NamedTuple, Self

import torch
from torch import Tensor

from mtl_gym.training.formulas import noise_of


class LossHistory(NamedTuple):
    """Batch losses in the form that observations use; all (N, K), from N training runs or any other source."""

    initial: Tensor  # losses L(0) of the first batch at the initial weights
    mean: Tensor  # mean of the batch losses since the last decision; L(0) before the first
    previous_mean: Tensor  # the same for the decision before
    first: Tensor  # losses of the first batch after the last decision
    last: Tensor  # losses of the last batch before its update
    base: Tensor  # mean batch losses of the second epoch; L(0) until it is complete
    noise: Tensor  # relative deviation of the batch losses since the last decision around their trend; 0 before the first

    @classmethod
    def begin(cls, losses: Tensor) -> Self:
        """The initial history, given the losses (N, K) of the first batch."""
        return cls(losses, losses, losses, losses, losses, losses, torch.zeros_like(losses))

    def extended(self, batches: Tensor, base: Tensor | None = None) -> Self:
        """The history after a decision, given the losses (N, steps, K) of its batches, each before its update, and a new base."""
        last, kept = batches[:, -1], self.base if base is None else base
        mean, first = (last, last) if batches.shape[1] == 1 else (batches.mean(1), batches[:, 0])  # a single one is its own mean
        return type(self)(self.initial, mean, self.mean, first, last, kept, noise_of(batches))


def second_epoch_mean(base: Tensor, losses: Tensor, step: Tensor, length: Tensor, steps: int) -> Tensor:
    """Updates the base (N, K) in the rows whose second epoch was completed by the last decision, of ``steps`` steps.

    ``losses`` (N, H, K) are those of all batches, ``step`` (N,) the steps taken, ``length`` (N,) the batches per epoch.
    """
    complete = (step >= 2 * length) & (step - steps < 2 * length)
    base = base.clone()
    for row in complete.nonzero()[:, 0].tolist():
        base[row] = losses[row, length[row] : 2 * length[row]].mean(0)
    return base

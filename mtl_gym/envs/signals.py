"""What an environment knows when it observes and rewards: measured once for each decision, read by the tables."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Self

import torch
from torch import Tensor

UPCOMING, AFTER, BASE, META, REWARD, GRAMIAN, SCORE, GAINS = (
    "upcoming",
    "after",
    "base",
    "meta",
    "reward",
    "gramian",
    "score",
    "gains",
)
"""What can be measured beside the training's own losses; it is measured only if a table's row needs it."""


@dataclass
class View:
    """What is known of N rows between two decisions.

    Attributes:
        probes: What the learner's ``probe`` says, if needed: of the next batch's samples, of the network's structure, of groups.
        progress: (N,) share of the episode that is done.
    """

    probes: dict[str, Tensor]
    progress: Tensor

    def where(self, rows: Tensor, other: Self) -> Self:
        """These signals in ``rows`` (N,) bool, and the other's elsewhere."""

        def pick(own: Any, others: Any) -> Any:
            if isinstance(own, dict):
                return {name: pick(own[name], others[name]) for name in own}
            if not isinstance(own, Tensor):
                return own
            return torch.where(rows.view(-1, *[1] * (own.ndim - 1)), own, others)

        return type(self)(**{field.name: pick(getattr(self, field.name), getattr(other, field.name)) for field in fields(self)})


@dataclass
class Signals(View):
    """The training as it shows itself between two decisions. N rows, K tasks; all losses include the instance's scales.

    Attributes:
        initial: (N, K) losses L(0) of the first batch at the initial weights.
        mean: (N, K) mean of the batch losses since the last decision; L(0) before the first.
        previous_mean: (N, K) the same for the decision before.
        first: (N, K) losses of the last decision's first batch.
        last: (N, K) losses of the last batch before its update.
        base: (N, K) mean of the second epoch's batch losses; L(0) until it is complete.
        factors: (N, K) what the last action said; ones before the first.
        holdout: Losses (N, K) on *meta* and *reward* now; where there is a main task, (N, 1) of it alone on *reward*.
        previous_holdout: The same before the last decision.
        upcoming: (N, K) losses of the batch about to be trained on, if needed.
        after: (N, K) losses of the last batch after its update, if needed.
        gramian: (N, K, K) inner products of the gradients on the batch about to be trained on, if needed.
        score: (N,) delta_m on *reward* at the end of an episode and 0 before, if needed.
        gains: (N, K) relative gains in percent over single-task learning on *reward*, if needed; (N, 1) of a main task.
        previous_gains: The same before the last decision.
        lr: (N,) learning rate of the next step.
        previous_lr: (N,) learning rate of the last decision's first step.
        initial_lr: Learning rate of the first step.
        epoch: (N,) epoch of the next step, from 0.
    """

    initial: Tensor
    mean: Tensor
    previous_mean: Tensor
    first: Tensor
    last: Tensor
    base: Tensor
    factors: Tensor
    holdout: dict[str, Tensor]
    previous_holdout: dict[str, Tensor]
    upcoming: Tensor | None
    after: Tensor | None
    gramian: Tensor | None
    score: Tensor | None
    gains: Tensor | None
    previous_gains: Tensor | None
    lr: Tensor
    previous_lr: Tensor
    initial_lr: float
    epoch: Tensor


def measured(signal: Tensor | None) -> Tensor:
    """Returns a signal that a row of a table needs.

    Raises:
        RuntimeError: If the row does not name it in ``needs``.
    """
    if signal is None:
        raise RuntimeError("a signal was not measured: the row of the table that reads it should name it in `needs`")
    return signal

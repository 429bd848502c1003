"""What a policy may see: ``OBSERVATIONS`` maps a name to a space and a function. A row is one line.

K tasks. Rows that are *relative* are logarithms relative to L_k(0), the loss of the first training batch, and reveal no
scale; the raw ones are for policies that require them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from gymnasium.spaces import Box, Dict
from torch import Tensor

from mtl_gym.envs.signals import AFTER, BASE, GRAMIAN, META, UPCOMING, Signals, measured
from mtl_gym.training.signals import cosines, improvable_gap, log_loss, log_norms

SIZES: dict[str, Callable[[int], int]] = {
    "one": lambda num_tasks: 1,
    "task": lambda num_tasks: num_tasks,
    "pair": lambda num_tasks: num_tasks * (num_tasks - 1) // 2,
}
"""Length of an observation as a function of K; pairs are the upper triangle by rows."""


@dataclass(frozen=True)
class Observation:
    """One row of ``OBSERVATIONS``.

    Attributes:
        size: Row of ``SIZES``.
        low: Lower bound; smaller values are raised to it.
        high: Upper bound.
        function: Signals to (N, length), or (N,) where the size is one.
        meaning: One line for the manual.
        needs: What has to be measured for it.
    """

    size: str
    low: float
    high: float
    function: Callable[[Signals], Tensor]
    meaning: str
    needs: tuple[str, ...] = ()


def _relative(losses: Tensor, reference: Tensor) -> Tensor:
    return log_loss(losses) - log_loss(reference)


OBSERVATIONS = {
    "log_loss": Observation(
        "task", -30, 30, lambda s: log_loss(measured(s.upcoming)), "log loss of the batch about to be trained on, raw", (UPCOMING,)
    ),
    "log_loss_after": Observation(
        "task", -30, 30, lambda s: log_loss(measured(s.after)), "log loss of the last batch after its step, raw", (AFTER,)
    ),
    "log_loss_mean": Observation(
        "task", -20, 20, lambda s: _relative(s.mean, s.initial), "log of the mean batch loss since the last decision, relative"
    ),
    "slope": Observation(
        "task", -20, 20, lambda s: _relative(s.mean, s.previous_mean), "change of `log_loss_mean` since the decision before"
    ),
    "gap": Observation(
        "task",
        0,
        100,
        lambda s: improvable_gap(s.mean, s.base),
        "improvable gap: mean batch loss since the last decision over the mean of the second epoch (before that over L(0))",
        (BASE,),
    ),
    "meta_log_loss": Observation(
        "task", -20, 20, lambda s: _relative(s.holdout[META], s.initial), "log loss on the *meta* split, relative", (META,)
    ),
    "meta_slope": Observation(
        "task",
        -20,
        20,
        lambda s: _relative(s.holdout[META], s.previous_holdout[META]),
        "change of `meta_log_loss` since the last decision",
        (META,),
    ),
    "last_weights": Observation(
        "task",
        -1,
        1,
        lambda s: s.factors / s.factors.abs().sum(1, keepdim=True).clamp(min=1e-12),
        "what the last action said (before a rule's factor), as shares of its absolute sum",
    ),
    "cosines": Observation(
        "pair",
        -1,
        1,
        lambda s: cosines(measured(s.gramian)),
        "cosines between the tasks' gradients of the shared parameters",
        (GRAMIAN,),
    ),
    "log_norms": Observation(
        "task", -30, 30, lambda s: log_norms(measured(s.gramian)), "log norms of the tasks' gradients, raw", (GRAMIAN,)
    ),
    "epoch": Observation("one", 0, 1e6, lambda s: s.epoch, "epoch of the next step, from 0"),
    "lr": Observation("one", 0, 1e6, lambda s: s.lr, "learning rate of the next step"),
    "progress": Observation("one", 0, 1, lambda s: s.progress, "share of the horizon that is done"),
}

DEFAULT = ("log_loss_mean", "slope", "gap", "meta_log_loss", "meta_slope", "last_weights", "progress")
"""What agents see: nothing that reveals planted scales."""


def space(names: Iterable[str], num_tasks: int) -> Dict:
    """The space of one environment's observations: a flat Dict of one-dimensional float32 Boxes."""
    rows = {name: OBSERVATIONS[name] for name in names}
    return Dict({name: Box(row.low, row.high, (SIZES[row.size](num_tasks),), np.float32) for name, row in rows.items()})


def observe(names: Iterable[str], signals: Signals) -> dict[str, np.ndarray]:
    """The observations of all rows, as fresh arrays (N, length), finite and within their bounds even where a training diverged."""
    values = {}
    for name in names:
        row = OBSERVATIONS[name]
        value = row.function(signals).to(torch.float32)
        value = torch.nan_to_num(value, nan=row.high).clamp(row.low, row.high)
        values[name] = (value.unsqueeze(1) if row.size == "one" else value).cpu().numpy().copy()
    return values

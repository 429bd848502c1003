"""What a policy can observe of any training: ``OBSERVATIONS`` maps a name to a space and a function.

K tasks. *Relative* rows are logarithms relative to L_k(0), the loss of the first training batch, and do not reveal the loss scale;
*raw* ones are for policies that require them. Environments add their own rows in their own files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from gymnasium.spaces import Box, Dict
from torch import Tensor

from mtl_gym.decisions.task_features import log_gap, overfit, overfit_slope
from mtl_gym.training.formulas import cosines, improvable_gap, log_loss, log_norms, relative
from mtl_gym.training.probes import AFTER, BASE, EPOCH, GRAMIAN, LAST_WEIGHTS, LR, META, PRESENT, UPCOMING, View

SIZES: dict[str, tuple[str, Callable[[int, int], int]]] = {
    "one": ("1", lambda num_tasks, batch_size: 1),
    "task": ("K", lambda num_tasks, batch_size: num_tasks),
    "pair": ("K (K - 1) / 2", lambda num_tasks, batch_size: num_tasks * (num_tasks - 1) // 2),
    "sample": ("B K", lambda num_tasks, batch_size: batch_size * num_tasks),
    "square": ("K K", lambda num_tasks, batch_size: num_tasks * num_tasks),
    "group": ("(2^K - 1) K", lambda num_tasks, batch_size: (2**num_tasks - 1) * num_tasks),
    "choice": ("A", lambda num_tasks, batch_size: 0),
    "map": ("7 E K", lambda num_tasks, batch_size: 0),
    "member": ("K C", lambda num_tasks, batch_size: 0),
    "pooled": ("4", lambda num_tasks, batch_size: 4),
}
"""Length of an observation, in words and as a function of K and B; pairs are the upper triangle by rows, samples (B, K) by rows.
Lengths of 0 depend on the decision's options: :meth:`mtl_gym.decisions.base.Decision.sizes`."""


@dataclass(frozen=True)
class Observation:
    """One row of ``OBSERVATIONS``.

    Attributes:
        size: Row of ``SIZES``.
        low, high: Bounds to which values are clipped.
        function: Maps a view to (N, length), or to (N,) if the size is one.
        meaning: One line for the manual.
        needs: Names of the measurements that it uses.
    """

    size: str
    low: float
    high: float
    function: Callable[[View], Tensor]
    meaning: str
    needs: tuple[str, ...] = ()


def upper_triangle(pairs: Tensor) -> Tensor:
    """The upper triangle (N, K (K - 1) / 2) of matrices (N, K, K), by rows."""
    first, second = torch.triu_indices(pairs.shape[1], pairs.shape[1], offset=1)
    return pairs[:, first, second]


def observes_gradients(names: Iterable[str]) -> bool:
    """Whether any of these common observations needs the gradients of the tasks apart."""
    return any(GRAMIAN in OBSERVATIONS[name].needs for name in names if name in OBSERVATIONS)


def measured(size: str, low: float, high: float, name: str, meaning: str, extra: tuple[str, ...] = ()) -> Observation:
    """An observation of what is measured under that name, unchanged; ``extra`` names what it needs besides."""
    return Observation(size, low, high, lambda v: v[name], meaning, (*extra, name))


def pooled(row: Observation, over: str = "tasks") -> Observation:
    """Mean, standard deviation, minimum and maximum of an observation of each task (or pair), whatever their number; 0 of none."""

    def pool(view: View) -> Tensor:
        values = finite(row, view)
        if not values.shape[1]:
            return values.new_zeros(len(values), 4)
        return torch.stack([values.mean(1), values.std(1, correction=0), values.amin(1), values.amax(1)], dim=1)

    meaning = f"mean, standard deviation, minimum and maximum over {over}: {row.meaning}"
    return Observation("pooled", row.low, row.high, pool, meaning, row.needs)


def finite(row: Observation, view: View) -> Tensor:
    """The values of an observation, within its bounds even if a training diverged."""
    return torch.nan_to_num(row.function(view).float(), nan=row.high).clamp_(row.low, row.high)


OBSERVATIONS = {
    "log_loss": Observation(
        "task", -30, 30, lambda v: log_loss(v[UPCOMING]), "log loss of the batch about to be trained on, raw", (UPCOMING,)
    ),
    "log_loss_after": Observation(
        "task", -30, 30, lambda v: log_loss(v[AFTER]), "log loss of the last batch after its step, raw", (AFTER,)
    ),
    "log_loss_mean": Observation(
        "task", -20, 20, lambda v: relative(v.losses.mean, v.losses.initial), "log mean batch loss of the last decision, relative"
    ),
    "slope": Observation(
        "task", -20, 20, lambda v: relative(v.losses.mean, v.losses.previous_mean), "change of `log_loss_mean` per decision"
    ),
    "gap": Observation(
        "task",
        0,
        100,
        lambda v: improvable_gap(v.losses.mean, v.losses.base),
        "improvable gap: mean batch loss of the last decision over the mean of the second epoch (over L(0) before that)",
        (BASE,),
    ),
    "meta_log_loss": Observation(
        "task", -20, 20, lambda v: relative(v[META], v.losses.initial), "log loss on the *meta* split, relative", (META,)
    ),
    "meta_slope": Observation(
        "task", -20, 20, lambda v: relative(v[META], v.previous[META]), "change of `meta_log_loss` since the last decision", (META,)
    ),
    "overfit": Observation(
        "task", -20, 20, overfit, "log *meta* loss minus log mean batch loss of the last decision, both relative", (META,)
    ),
    "overfit_slope": Observation("task", -20, 20, overfit_slope, "change of `overfit` since the last decision", (META,)),
    "noise": Observation(
        "task",
        0,
        20,
        lambda v: v.losses.noise,
        "standard deviation of the last decision's batch losses around their linear trend, over their mean; 0 for fewer than 3",
    ),
    "last_weights": Observation(
        "task",
        -1,
        1,
        lambda v: v[LAST_WEIGHTS] / v[LAST_WEIGHTS].abs().sum(1, keepdim=True).clamp(min=1e-12),
        'weights of the last action (before a rule\'s factor; of `action="rule"` those of its last step, without features that '
        "reveal scales), as fractions of their absolute sum",
        (LAST_WEIGHTS,),
    ),
    "cosines": Observation(
        "pair", -1, 1, lambda v: cosines(v[GRAMIAN]), "cosines between the tasks' gradients of the shared parameters", (GRAMIAN,)
    ),
    "log_norms": Observation(
        "task", -30, 30, lambda v: log_norms(v[GRAMIAN]), "log norms of the tasks' gradients, raw", (GRAMIAN,)
    ),
    "labelled": measured("task", 0, 1, PRESENT, "1 if the batch about to be trained on has a label of a task, else 0"),
    "epoch": measured("one", 0, 1e6, EPOCH, "epoch of the next step, from 0"),
    "log_epoch": Observation("one", 0, 20, lambda v: v[EPOCH].float().log1p(), "log of 1 + the epoch of the next step", (EPOCH,)),
    "lr": measured("one", 0, 1e6, LR, "learning rate of the next step"),
    "log_lr": Observation("one", -30, 30, lambda v: log_loss(v[LR].float()), "log learning rate of the next step", (LR,)),
    "log_num_tasks": Observation("one", 0, 20, lambda v: torch.full_like(v.progress, v.losses.initial.shape[1]).log(), "log of K"),
    "progress": Observation("one", 0, 1, lambda v: v.progress, "completed fraction of the episode"),
}
"""Observations of any training."""

_POOLED = {
    "log_loss": OBSERVATIONS["log_loss_mean"],
    **{name: OBSERVATIONS[name] for name in ("slope", "meta_log_loss", "meta_slope", "overfit", "overfit_slope", "noise")},
    "gap": Observation("task", -20, 20, log_gap, "log of `gap`", (BASE,)),
    "first": Observation(
        "task",
        -30,
        30,
        lambda v: log_loss(v.losses.initial) - log_loss(v.losses.initial).mean(1, keepdim=True),
        "log L_k(0) minus its mean over tasks, so that scales common to all stay hidden, but not how different they are",
    ),
}
OBSERVATIONS |= {f"pooled_{name}": pooled(row) for name, row in _POOLED.items()}
OBSERVATIONS["pooled_cosine"] = pooled(OBSERVATIONS["cosines"], over="pairs of tasks")


def space(rows: Mapping[str, Observation], num_tasks: int, batch_size: int, sizes: Mapping[str, int]) -> Dict:
    """The observation space: a flat Dict of one-dimensional float32 Boxes, for K, B and the decision's ``sizes``."""
    known = {size: length(num_tasks, batch_size) for size, (_, length) in SIZES.items()} | dict(sizes)
    return Dict({name: Box(row.low, row.high, (known[row.size],), np.float32) for name, row in rows.items()})


def observe(rows: Iterable[tuple[str, Observation]], view: View) -> dict[str, np.ndarray]:
    """The observations of all rows as new arrays (N, length), finite and within their bounds even if a training diverged."""
    values = {}
    for name, row in rows:
        value = finite(row, view)
        values[name] = value.reshape(len(value), -1).cpu().numpy()
    return values

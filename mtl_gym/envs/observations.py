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

from mtl_gym.envs.sample_weights import FEATURES, Feature
from mtl_gym.envs.signals import AFTER, BASE, GRAMIAN, META, UPCOMING, Signals, measured
from mtl_gym.problems import LOSS_WEIGHTING, SAMPLE_WEIGHTING
from mtl_gym.training.recipe import Recipe
from mtl_gym.training.sample_learner import ALIGNMENT, COSINE, LOSS, MEAN, RIGHT
from mtl_gym.training.signals import cosines, improvable_gap, log_loss, log_norms

SIZES: dict[str, Callable[[int, int], int]] = {
    "one": lambda num_tasks, batch_size: 1,
    "task": lambda num_tasks, batch_size: num_tasks,
    "pair": lambda num_tasks, batch_size: num_tasks * (num_tasks - 1) // 2,
    "sample": lambda num_tasks, batch_size: batch_size * num_tasks,
}
"""Length of an observation as a function of K and B; pairs are the upper triangle by rows, samples (B, K) by rows."""


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
        of_samples: What has to be known of the batch's samples for it.
    """

    size: str
    low: float
    high: float
    function: Callable[[Signals], Tensor]
    meaning: str
    needs: tuple[str, ...] = ()
    of_samples: tuple[str, ...] = ()


def _sample_ratio(signals: Signals, name: str) -> Tensor:
    return _relative(signals.samples[name], signals.initial[:, None])


def _relative(losses: Tensor, reference: Tensor) -> Tensor:
    return log_loss(losses) - log_loss(reference)


def _of_feature(feature: Feature) -> Observation:
    meaning = f"feature of rules: {feature.meaning}"
    return Observation("sample", -1, 1, lambda s: feature.function(s.samples), meaning, of_samples=feature.needs)


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
    "sample_log_loss": Observation(
        "sample", -30, 30, lambda s: log_loss(s.samples[LOSS]), "log loss of each sample and task, raw", of_samples=(LOSS,)
    ),
    "sample_loss": Observation(
        "sample", -20, 20, lambda s: _sample_ratio(s, LOSS), "log loss of each sample and task, relative", of_samples=(LOSS,)
    ),
    "sample_mean": Observation(
        "sample",
        -20,
        20,
        lambda s: _sample_ratio(s, MEAN),
        "log of the mean of this sample's losses in all batches so far and in this one, relative",
        of_samples=(MEAN,),
    ),
    "alignment": Observation(
        "sample",
        -1e6,
        1e6,
        lambda s: s.samples[ALIGNMENT],
        "inner product of the sample's gradient with that of the main task's *meta* loss over the latter's norm, raw",
        of_samples=(ALIGNMENT,),
    ),
    "alignment_cosine": Observation(
        "sample",
        -1,
        1,
        lambda s: s.samples[COSINE],
        "cosine of the same two gradients, for B K more backward passes",
        of_samples=(COSINE,),
    ),
    **{f"{name}_feature": _of_feature(row) for name, row in FEATURES.items()},
    "label_right": Observation(
        "sample",
        0,
        1,
        lambda s: s.samples[RIGHT],
        "1 where the label is right, else 0: for the policy `oracle` alone",
        of_samples=(RIGHT,),
    ),
    "main_meta_log_loss": Observation(
        "one", -20, 20, lambda s: _relative(s.holdout[META], s.initial)[:, 0], "`meta_log_loss` of the main task", (META,)
    ),
    "epoch": Observation("one", 0, 1e6, lambda s: s.epoch, "epoch of the next step, from 0"),
    "log_epoch": Observation("one", 0, 20, lambda s: s.epoch.float().log1p(), "log of 1 + the epoch of the next step"),
    "lr": Observation("one", 0, 1e6, lambda s: s.lr, "learning rate of the next step"),
    "progress": Observation("one", 0, 1, lambda s: s.progress, "share of the horizon that is done"),
}

_OF_TASKS = ("log_loss_mean", "slope", "gap", "meta_log_loss", "meta_slope", "last_weights", "progress")
DEFAULTS = {
    LOSS_WEIGHTING: _OF_TASKS,
    SAMPLE_WEIGHTING: ("sample_loss", "sample_mean", *(f"{name}_feature" for name in FEATURES), *_OF_TASKS),
}
"""What agents see, by environment: nothing that reveals a planted scale of all losses or which labels are wrong."""
_OF_MAIN = ("main_meta_log_loss",)


def of_environment(environment: str) -> dict[str, Observation]:
    """The rows that an environment can show; those of samples and of a main task are SampleWeighting's."""
    if environment == SAMPLE_WEIGHTING:
        return dict(OBSERVATIONS)
    return {name: row for name, row in OBSERVATIONS.items() if row.size != "sample" and name not in _OF_MAIN}


def space(names: Iterable[str], recipe: Recipe) -> Dict:
    """The space of one environment's observations: a flat Dict of one-dimensional float32 Boxes."""
    rows = {name: OBSERVATIONS[name] for name in names}
    lengths = {name: SIZES[row.size](recipe.num_tasks, recipe.batch_size) for name, row in rows.items()}
    return Dict({name: Box(row.low, row.high, (lengths[name],), np.float32) for name, row in rows.items()})


def observe(names: Iterable[str], signals: Signals) -> dict[str, np.ndarray]:
    """The observations of all rows, as fresh arrays (N, length), finite and within their bounds even where a training diverged."""
    values = {}
    for name in names:
        row = OBSERVATIONS[name]
        value = row.function(signals).to(torch.float32)
        value = torch.nan_to_num(value, nan=row.high).clamp(row.low, row.high)
        values[name] = value.reshape(len(value), -1).cpu().numpy().copy()
    return values

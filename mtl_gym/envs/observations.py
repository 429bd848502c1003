"""What a policy may see: ``OBSERVATIONS`` maps a name to a space and a function. A row is one line.

K tasks. Rows that are *relative* are logarithms relative to L_k(0), the loss of the first training batch, and reveal no
scale; the raw ones are for policies that require them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box, Dict
from torch import Tensor

from mtl_gym.envs.grouping import next_task
from mtl_gym.envs.merging import choices, frontier, legal
from mtl_gym.envs.sample_weights import FEATURES, Feature
from mtl_gym.envs.signals import AFTER, BASE, GRAMIAN, META, UPCOMING, Signals, measured
from mtl_gym.problems import LAYER_MERGING, LOSS_WEIGHTING, SAMPLE_WEIGHTING, TASK_GROUPING
from mtl_gym.training.branch_learner import CKA, DEPTH, GRADIENT, OPEN, SHARE, STRUCTURE
from mtl_gym.training.group_learner import MEMBERS
from mtl_gym.training.groupings import LAYER_CKA, OUTCOMES, PAIR_GAINS
from mtl_gym.training.recipe import Recipe
from mtl_gym.training.sample_learner import ALIGNMENT, COSINE, LOSS, MEAN, RIGHT
from mtl_gym.training.signals import cosines, improvable_gap, log_loss, log_norms
from mtl_gym.training.warm_up import COSINES, LOOKAHEAD, MAP_DISTANCES, MAP_FEATURES

SIZES: dict[str, Callable[[int, int], int]] = {
    "one": lambda num_tasks, batch_size: 1,
    "task": lambda num_tasks, batch_size: num_tasks,
    "pair": lambda num_tasks, batch_size: num_tasks * (num_tasks - 1) // 2,
    "sample": lambda num_tasks, batch_size: batch_size * num_tasks,
    "choice": lambda num_tasks, batch_size: choices(num_tasks),
    "square": lambda num_tasks, batch_size: num_tasks * num_tasks,
    "group": lambda num_tasks, batch_size: (2**num_tasks - 1) * num_tasks,
    "map": lambda num_tasks, batch_size: 0,
    "member": lambda num_tasks, batch_size: 0,
}
"""Length of an observation as a function of K and B; pairs are the upper triangle by rows, samples (B, K) by rows.

An environment whose arguments say more of a length gives it to :func:`space`.
"""
ACTION_MASK = "action_mask"
"""The allowed actions (N, A), where groups are chosen."""


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
        probes: What the learner has to probe for it.
    """

    size: str
    low: float
    high: float
    function: Callable[[Signals], Tensor]
    meaning: str
    needs: tuple[str, ...] = ()
    probes: tuple[str, ...] = ()


def _sample_ratio(signals: Signals, name: str) -> Tensor:
    return _relative(signals.probes[name], signals.initial[:, None])


def _upper(pairs: Tensor) -> Tensor:
    """The upper triangle (N, K (K - 1) / 2) of a table (N, K, K), by rows."""
    first, second = torch.triu_indices(pairs.shape[1], pairs.shape[1], offset=1)
    return pairs[:, first, second]


def _relative(losses: Tensor, reference: Tensor) -> Tensor:
    return log_loss(losses) - log_loss(reference)


def _of_feature(feature: Feature) -> Observation:
    meaning = f"feature of rules: {feature.meaning}"
    return Observation("sample", -1, 1, lambda s: feature.function(s.probes), meaning, probes=feature.needs)


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
        "sample", -30, 30, lambda s: log_loss(s.probes[LOSS]), "log loss of each sample and task, raw", probes=(LOSS,)
    ),
    "sample_loss": Observation(
        "sample", -20, 20, lambda s: _sample_ratio(s, LOSS), "log loss of each sample and task, relative", probes=(LOSS,)
    ),
    "sample_mean": Observation(
        "sample",
        -20,
        20,
        lambda s: _sample_ratio(s, MEAN),
        "log of the mean of this sample's losses in all batches so far and in this one, relative",
        probes=(MEAN,),
    ),
    "alignment": Observation(
        "sample",
        -1e6,
        1e6,
        lambda s: s.probes[ALIGNMENT],
        "inner product of the sample's gradient with that of the main task's *meta* loss over the latter's norm, raw",
        probes=(ALIGNMENT,),
    ),
    "alignment_cosine": Observation(
        "sample",
        -1,
        1,
        lambda s: s.probes[COSINE],
        "cosine of the same two gradients, for B K more backward passes",
        probes=(COSINE,),
    ),
    **{f"{name}_feature": _of_feature(row) for name, row in FEATURES.items()},
    "label_right": Observation(
        "sample",
        0,
        1,
        lambda s: s.probes[RIGHT],
        "1 where the label is right, else 0: for the policy `oracle` alone",
        probes=(RIGHT,),
    ),
    "main_meta_log_loss": Observation(
        "one", -20, 20, lambda s: _relative(s.holdout[META], s.initial)[:, 0], "`meta_log_loss` of the main task", (META,)
    ),
    "frontier_cka": Observation(
        "pair",
        -1,
        1,
        lambda s: _upper(frontier(s.probes[CKA], s.probes[DEPTH])),
        "debiased linear CKA of two tasks' features at the first stage that they do not share (the last, if they share all)",
        probes=(CKA, DEPTH),
    ),
    "last_cka": Observation("pair", -1, 1, lambda s: _upper(s.probes[CKA][:, -1]), "the same at the last stage", probes=(CKA,)),
    "frontier_cosine": Observation(
        "pair",
        -1,
        1,
        lambda s: _upper(frontier(s.probes[GRADIENT], s.probes[DEPTH])),
        "cosine of the gradients of two tasks' losses, each with respect to its own copy of that stage, on the next batch",
        probes=(GRADIENT, DEPTH),
    ),
    "shared_stages": Observation(
        "pair", 0, 1e3, lambda s: _upper(s.probes[DEPTH]), "number of the stages that two tasks share", probes=(DEPTH,)
    ),
    "open": Observation(
        "pair", 0, 1, lambda s: _upper(s.probes[OPEN]), "1 where two tasks may still be merged at a stage, else 0", probes=(OPEN,)
    ),
    "action_mask": Observation(
        "choice",
        0,
        1,
        lambda s: s.probes[ACTION_MASK] if ACTION_MASK in s.probes else legal(s.probes),
        "1 for the actions that are allowed, else 0; under `threshold` those of `merge`, under `memberships` always 1",
        probes=STRUCTURE,
    ),
    "parameter_fraction": Observation(
        "one", 0, 1, lambda s: s.probes[SHARE], "parameters in use, as a share of those of separate networks", probes=(SHARE,)
    ),
    "map_features": Observation(
        "map",
        0,
        1,
        lambda s: s.probes[MAP_FEATURES],
        "of each task's data map at each snapshot: mean confidence, mean variability, the deviations of both over the samples, and "
        "the shares of easy, ambiguous and hard samples; by tasks, then snapshots",
        probes=(MAP_FEATURES,),
    ),
    "map_distances": Observation(
        "pair",
        0,
        1,
        lambda s: s.probes[MAP_DISTANCES],
        "Euclidean distance of two tasks' data maps at all snapshots, over `sqrt(E n 2)`",
        probes=(MAP_DISTANCES,),
    ),
    "gradient_cosines": Observation(
        "pair",
        -1,
        1,
        lambda s: s.probes[COSINES],
        "cosine of the tasks' gradients of the shared parameters, mean over the warm-up",
        probes=(COSINES,),
    ),
    "lookahead": Observation(
        "square",
        -10,
        10,
        lambda s: s.probes[LOOKAHEAD],
        "TAG's affinity of task i to task j, `1 - L_j(theta - lr g_i) / L_j(theta)`, mean over the warm-up; by rows i",
        probes=(LOOKAHEAD,),
    ),
    "layer_cka": Observation(
        "pair",
        -1,
        1,
        lambda s: s.probes[LAYER_CKA],
        "debiased linear CKA of the last hidden layers of two tasks' own networks, each trained alone",
        probes=(LAYER_CKA,),
    ),
    "pair_gains": Observation(
        "square",
        -10,
        10,
        lambda s: s.probes[PAIR_GAINS],
        "gain over all together on *meta*, as a share, of task i (row) trained with task j alone; on the diagonal: alone",
        probes=(PAIR_GAINS,),
    ),
    "outcomes": Observation(
        "group",
        -10,
        10,
        lambda s: s.probes[OUTCOMES],
        "the truth, for exhaustive search: the same on *reward* of each task in each group, by the groups' bit masks from 1 on "
        "(bit t: task t), 0 of tasks that are not in it; for up to 6 tasks",
        probes=(OUTCOMES,),
    ),
    "groups": Observation(
        "member", 0, 1, lambda s: s.probes[MEMBERS], "share of each task in each group so far", probes=(MEMBERS,)
    ),
    "next_task": Observation(
        "task", 0, 1, lambda s: next_task(s.probes[MEMBERS]), "1 for the task that is placed next, else 0", probes=(MEMBERS,)
    ),
    "epoch": Observation("one", 0, 1e6, lambda s: s.epoch, "epoch of the next step, from 0"),
    "log_epoch": Observation("one", 0, 20, lambda s: s.epoch.float().log1p(), "log of 1 + the epoch of the next step"),
    "lr": Observation("one", 0, 1e6, lambda s: s.lr, "learning rate of the next step"),
    "progress": Observation("one", 0, 1, lambda s: s.progress, "share of the training steps that are done"),
}

_OF_TASKS = ("log_loss_mean", "slope", "gap", "meta_log_loss", "meta_slope", "last_weights", "progress")
DEFAULTS = {
    LOSS_WEIGHTING: _OF_TASKS,
    LAYER_MERGING: (
        *("frontier_cka", "last_cka", "shared_stages", "open", "action_mask", "parameter_fraction"),
        *("log_loss_mean", "slope", "gap", "meta_log_loss", "meta_slope", "progress"),
    ),
    TASK_GROUPING: ("map_features", "map_distances", "gradient_cosines", "groups", "next_task", "action_mask", "progress"),
    SAMPLE_WEIGHTING: ("sample_loss", "sample_mean", *(f"{name}_feature" for name in FEATURES), *_OF_TASKS),
}
"""What agents see, by environment: nothing that reveals a planted scale of all losses or which labels are wrong."""
_ONLY = {
    SAMPLE_WEIGHTING: {"main_meta_log_loss", *(name for name, row in OBSERVATIONS.items() if row.size == "sample")},
    LAYER_MERGING: {name for name, row in OBSERVATIONS.items() if {*STRUCTURE, CKA, GRADIENT, SHARE} & {*row.probes}},
    TASK_GROUPING: {
        *("map_features", "map_distances", "gradient_cosines", "lookahead", "layer_cka", "pair_gains", "outcomes"),
        *("groups", "next_task"),
    },
}
"""Observations of one environment alone; where tasks are grouped, trainings are over, and of the others few say anything."""


def of_environment(environment: str) -> dict[str, Observation]:
    """The rows that an environment can show: all but those of others alone."""
    if environment == TASK_GROUPING:
        return {name: row for name, row in OBSERVATIONS.items() if name in {*_ONLY[environment], "action_mask", "progress"}}
    others = {name for id, names in _ONLY.items() if id != environment for name in names}
    return {name: row for name, row in OBSERVATIONS.items() if name not in others}


def space(names: Iterable[str], recipe: Recipe, sizes: Mapping[str, int] | None = None) -> Dict:
    """The space of one environment's observations: a flat Dict of one-dimensional float32 Boxes.

    Args:
        names: Rows of ``OBSERVATIONS``.
        recipe: Gives K and B.
        sizes: Lengths that follow from the environment's arguments, by rows of ``SIZES``.
    """
    rows = {name: OBSERVATIONS[name] for name in names}
    known = {size: length(recipe.num_tasks, recipe.batch_size) for size, length in SIZES.items()} | dict(sizes or {})
    lengths = {name: known[row.size] for name, row in rows.items()}
    return Dict({name: Box(row.low, row.high, (lengths[name],), np.float32) for name, row in rows.items()})


def observe(names: Iterable[str], signals: Any) -> dict[str, np.ndarray]:
    """The observations of all rows, as fresh arrays (N, length), finite and within their bounds even where a training diverged."""
    values = {}
    for name in names:
        row = OBSERVATIONS[name]
        value = row.function(signals).to(torch.float32)
        value = torch.nan_to_num(value, nan=row.high).clamp(row.low, row.high)
        values[name] = value.reshape(len(value), -1).cpu().numpy().copy()
    return values

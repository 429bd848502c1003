"""What has become of tasks that were grouped, and the tables that tell what would have been best."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

import mtl_gym
from mtl_gym.arguments import should
from mtl_gym.envs.base import MTLVectorEnv
from mtl_gym.envs.task_grouping import TaskGroupingVectorEnv
from mtl_gym.training.group_learner import GroupLearner
from mtl_gym.training.group_tables import read_group_table, write_group_table
from mtl_gym.training.groupings import LAYER_CKA, MOST_TASKS, OUTCOMES, REWARD
from mtl_gym.training.groups import mask_of
from mtl_gym.training.partitions import partitions
from mtl_gym.training.warm_up import COSINES, LOOKAHEAD, MAP_DISTANCES, MAP_FEATURES

_STORED = (MAP_FEATURES, MAP_DISTANCES, COSINES, LOOKAHEAD, LAYER_CKA)
_AT_ONCE = 8  # instances between two writings of a table


def groupings(base: MTLVectorEnv) -> list[dict[str, Any]]:
    """What each row's tasks have been divided into; nothing, where tasks are not grouped.

    Returns:
        For each row ``tasks`` (K names), ``groups`` (K labels, numbered by first use; of soft memberships the largest),
        ``memberships`` (K, C), ``num_groups``, ``gains`` (K) over all together on *reward*, as fractions, ``regret``, see
        :func:`regret`, and where anything of the data maps is observed ``confidence`` and ``variability`` (K, E), their means
        at the snapshots.
    """
    if not isinstance(base, TaskGroupingVectorEnv):
        return [{} for _ in range(base.num_envs)]
    learner = base.learner
    counts, gains = learner.num_groups().tolist(), learner.gains().nan_to_num(nan=-1).tolist()
    return [
        {
            "tasks": [learner.problem.tasks[task].name for task in learner.replicas.tasks[row].tolist()],
            "groups": learner.labels(row),
            "memberships": np.round(learner.memberships[row].double().numpy(), 4).tolist(),
            "num_groups": counts[row],
            "gains": gains[row],
            **_of_maps(learner, row),
            **regret(learner, row, base.group_price),
        }
        for row in range(base.num_envs)
    ]


def _of_maps(learner: GroupLearner, row: int) -> dict[str, Any]:
    if MAP_FEATURES not in learner.needs:
        return {}
    features = np.round(learner.known[row].signals[MAP_FEATURES].double().nan_to_num().numpy(), 4)  # (K, E, 7)
    return {"confidence": features[:, :, 0].tolist(), "variability": features[:, :, 1].tolist()}


def regret(learner: GroupLearner, row: int, group_price: float) -> dict[str, float]:
    """What a row's grouping falls short of the best, where a group table holds its instance or `outcomes` is observed.

    Returns:
        ``regret``: the largest return of all partitions, minus that of the row's groups (of soft memberships the largest ones), on
        *reward*, as a fraction; 0 is the best.
    """
    group_table, instance = learner.groupings.group_table, learner.instances[row]
    stored = group_table is not None and instance is not None and instance.id in group_table.places
    if not stored and OUTCOMES not in learner.needs:
        return {}
    masks = range(1, learner.groupings.everything + 1)
    table = learner.outcomes_of(row, masks, REWARD).nan_to_num(nan=-1).clamp(min=-1)  # (2^K - 1, K)
    returns = [_return(table, labels, group_price) for labels in partitions(learner.recipe.num_tasks).tolist()]
    return {"regret": max(returns) - _return(table, learner.labels(row), group_price)}


def _return(gains: torch.Tensor, labels: Sequence[int], group_price: float) -> float:
    """The return of a partition, from the gains (2^K - 1, K) of all groups' tasks."""
    masks = {mask_of([task for task, own in enumerate(labels) if own == label]) for label in set(labels)}
    return float(sum(gains[mask - 1].sum() for mask in masks)) / len(labels) - group_price * (len(masks) - 1)


def make_table(
    out: Path,
    ids: Sequence[int],
    *,
    command: str | None = None,
    advance: Callable[[int], None] | None = None,
    **arguments: Any,
) -> None:
    """Trains all groups of the tasks of instances and writes a group table; those that ``out`` holds already are kept.

    Args:
        out: The table's path.
        ids: The instances.
        command: How the table was made, for its header.
        advance: Is told the number of instances that have been done.
        arguments: Those of ``mtl_gym/TaskGrouping-v0`` that say how to train.

    Raises:
        ValueError: If there are more than 6 tasks, or ``out`` is a table of something else; before anything is trained.
    """
    env = TaskGroupingVectorEnv(1, group_table="train", reward="none", **arguments)
    store, num_tasks = env.learner.groupings, env.arguments.recipe.num_tasks
    if num_tasks > MOST_TASKS:
        raise ValueError(should("num_tasks", f"be at most {MOST_TASKS}: of K tasks, 2^K - 1 groups are trained", num_tasks))
    names = [name for name in _STORED if name != LAYER_CKA or env.learner.network.stages]
    rows: dict[int, tuple[dict[str, Any], dict[int, Any]]] = {}
    if out.exists():
        table = read_group_table(str(out))
        table.check(store.training)
        rows = {id: table.entry(id) for id in table.places}
    missing = [id for id in ids if id not in rows]
    if advance:
        advance(len(ids) - len(missing))
    header = {
        "training": store.training,
        "metrics": env.learner.all_metrics,
        "versions": {"mtl-gym": mtl_gym.__version__, "python": platform.python_version(), "torch": version("torch")},
        "command": command,
    }
    for start in range(0, len(missing), _AT_ONCE):
        batch = missing[start : start + _AT_ONCE]
        store.known(batch, names)
        trained = store.train(batch, [range(1, 1 << num_tasks)] * len(batch))
        rows |= {id: (own.signals, own.outcomes) for id, own in zip(batch, trained, strict=True)}
        write_group_table(out, header, _arrays(rows, names, num_tasks))
        if advance:
            advance(len(batch))


def _arrays(
    rows: dict[int, tuple[dict[str, Any], dict[int, Any]]], names: Sequence[str], num_tasks: int
) -> dict[str, np.ndarray[Any, Any]]:
    masks = range(1, 1 << num_tasks)
    outcomes = torch.stack([torch.stack([own[mask] for mask in masks]) for _, own in rows.values()])
    signals = {name: torch.stack([own[name] for own, _ in rows.values()]).float().numpy() for name in names}
    return {"ids": np.array([*rows], dtype=np.int64), "outcomes": outcomes.float().numpy(), **signals}

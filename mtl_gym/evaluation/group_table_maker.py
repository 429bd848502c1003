"""Makes group tables: the results of every group of an instance's tasks, from which the best grouping is known."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

import mtl_gym
from mtl_gym.cache import check_writable, locked
from mtl_gym.checks import should
from mtl_gym.context import own_mode
from mtl_gym.decisions.grouping.group_tables import read_group_table, write_group_table
from mtl_gym.decisions.grouping.known_groups import LAYER_CKA, MOST_TASKS
from mtl_gym.decisions.grouping.trainings import GroupTrainings
from mtl_gym.decisions.grouping.warm_up import COSINES, LOOKAHEAD, MAP_DISTANCES, MAP_FEATURES
from mtl_gym.envs.task_grouping import TaskGroupingVectorEnv
from mtl_gym.models import make_model

_STORED = (MAP_FEATURES, MAP_DISTANCES, COSINES, LOOKAHEAD, LAYER_CKA)
_CHOSEN = ("group_table", "reward")
"""Arguments that are set here."""
_AT_ONCE = 8  # instances between two writes of a table
Rows = dict[int, tuple[dict[str, Any], dict[int, Any]]]
"""Signals by name and metrics by groups' bit masks, by instance."""


@own_mode()
def make_table(
    out: Path, ids: Sequence[int], *, command: str | None = None, advance: Callable[[int], None] | None = None, **arguments: Any
) -> None:
    """Trains all groups of the tasks of instances and writes a group table; instances that ``out`` already holds are kept.

    ``command``, which makes the table, is recorded in it. ``advance`` is called with the number of instances just done. The other
    arguments are those of ``mtl_gym/TaskGrouping-v0`` that determine the training.

    Raises:
        ValueError: If there are more than 6 tasks, ``out`` is a table of other trainings or cannot be written, or an argument does
            not determine the training; before anything is trained.
    """
    for name in set(_CHOSEN) & set(arguments):
        raise ValueError(should(name, "be left out: a group table does not depend on it", arguments[name]))
    env = TaskGroupingVectorEnv(1, group_table="train", reward="none", **arguments)
    trainings: GroupTrainings = env.decision.trainings  # type: ignore[assignment]
    recipe, groups = trainings.recipe, trainings.groups
    num_tasks, stages = recipe.num_tasks, make_model(trainings.problem, recipe.hidden_sizes).stages
    if num_tasks > MOST_TASKS:
        raise ValueError(should("num_tasks", f"be at most {MOST_TASKS}: of K tasks, 2^K - 1 groups are trained", num_tasks))
    names = [name for name in _STORED if name != LAYER_CKA or stages]
    check_writable(out.parent, [out.name])
    stored = _stored(out, trainings)
    missing = [id for id in ids if id not in stored]
    advance = advance or (lambda count: None)
    advance(len(ids) - len(missing))
    header = {
        "training": groups.training,
        "metrics": trainings.all_metrics,
        "versions": {"mtl-gym": mtl_gym.__version__, "python": platform.python_version(), "torch": version("torch")},
        "command": command,
    }
    for start in range(0, len(missing), _AT_ONCE):
        batch = missing[start : start + _AT_ONCE]
        groups.known(batch, names)
        trained = groups.train(batch, [range(1, 1 << num_tasks)] * len(batch))
        rows = {id: (own.signals, own.outcomes) for id, own in zip(batch, trained, strict=True)}
        out.parent.mkdir(parents=True, exist_ok=True)
        with locked(out.parent):  # other processes may add to the table too
            stored = _stored(out, trainings)
            added = {id: own for id, own in rows.items() if id not in stored}
            write_group_table(out, header, _arrays(stored | added, names, num_tasks))
        advance(len(batch))


def _stored(out: Path, trainings: GroupTrainings) -> Rows:
    """The rows of a table; none if there is no file. Raises ValueError if it is no table of these trainings."""
    if not out.exists():
        return {}
    table = read_group_table(str(out))
    table.check(trainings.groups.training, trainings.all_metrics)
    return {id: table.entry(id) for id in table.places}


def _arrays(rows: Rows, names: Sequence[str], num_tasks: int) -> dict[str, np.ndarray[Any, Any]]:
    masks = range(1, 1 << num_tasks)
    outcomes = torch.stack([torch.stack([own[mask] for mask in masks]) for _, own in rows.values()])
    signals = {name: torch.stack([own[name] for own, _ in rows.values()]).float().numpy() for name in names}
    return {"ids": np.array([*rows], dtype=np.int64), "outcomes": outcomes.float().numpy(), **signals}

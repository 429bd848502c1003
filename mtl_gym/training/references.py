"""Single-task references: the same trunk with one head and weight 1, with the same steps, learning rate and noise.

One-hot weights train one task alone, so K replicas of an instance give its K references.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtl_gym.cache import cache_folder, write_whole
from mtl_gym.problems.base import Problem
from mtl_gym.problems.instances import TRAINING_IDS
from mtl_gym.training.recipe import Recipe
from mtl_gym.training.trainer import Trainer

_REPLICAS = 64
_AVERAGED = 32


def single_task_metrics(problem: Problem, recipe: Recipe, ids: Sequence[int], split: str) -> dict[str, Tensor]:
    """Trains each task of each instance alone, and measures it on the whole ``split``.

    Returns metrics (len(ids),) float64 by ``task/metric``; NaN where a task does not take part, infinite where training diverged.
    """
    results: dict[str, Tensor] = {}
    per_round = max(1, _REPLICAS // recipe.num_tasks)
    for start in range(0, len(ids), per_round):
        for name, values in _one_round(problem, recipe, ids[start : start + per_round], split).items():
            results[name] = torch.cat([results.get(name, values[:0]), values])
    return results


def reference_rows(recipe: Recipe) -> int:
    """The largest number of trainings of :func:`average_references` that run side by side."""
    return max(_REPLICAS, len(recipe.tasks))


def _one_round(problem: Problem, recipe: Recipe, ids: Sequence[int], split: str) -> dict[str, Tensor]:
    count = recipe.num_tasks
    trainer = Trainer(problem, recipe, len(ids) * count)
    trainer.begin(range(len(ids) * count), [id for id in ids for _ in range(count)])
    weights = torch.eye(count, device=trainer.state.device).repeat(len(ids), 1)  # row i * K + k trains task k alone
    train(trainer, weights)
    return {name: _own(trainer, name, values) for name, values in trainer.metrics(split).items()}


@torch.enable_grad()
def train(trainer: Trainer, weights: Tensor) -> None:
    """Trains all rows to the end, with constant weights (N, K)."""
    active = torch.ones(trainer.num_replicas, dtype=torch.bool, device=trainer.state.device)
    for _ in range(trainer.recipe.train_steps):
        trainer.update(weights, active)


def _own(trainer: Trainer, name: str, values: Tensor) -> Tensor:
    """Selects, for each instance, the replica that trained this metric's task: (n,) from (n K,)."""
    task = [task.name for task in trainer.problem.tasks].index(name.rsplit("/", 1)[0])
    tasks = trainer.ledger.tasks[:: trainer.recipe.num_tasks].cpu()  # (n, K)
    table = values.cpu().unflatten(0, tasks.shape).double()
    own = torch.where(tasks == task, table.nan_to_num(nan=torch.inf), 0).sum(1)
    return own.where((tasks == task).any(1), torch.nan)


def fingerprint(problem: Problem, recipe: Recipe) -> dict[str, Any]:
    """Everything that determines a training run, except its instance and weights, JSON-serialisable."""
    trained = {name: value for name, value in recipe.plain(problem).items() if name not in ("device", "holdout_size")}
    return {"problem": problem.identity, "network": problem.network_name, **trained}


def average_references(problem: Problem, recipe: Recipe) -> Mapping[str, float]:
    """Single-task metrics on *reward* by ``task/metric`` of the tasks that may take part, averaged over 32 training instances.

    All of them take part in these instances, so that each has a reference whatever ``num_tasks`` is. References for the default
    arguments are precomputed (``mtl_gym/data/references.json``); others are trained on first use and cached.
    """
    recipe = replace(recipe, num_tasks=len(recipe.tasks))
    key = json.dumps(fingerprint(problem, recipe), sort_keys=True)
    if key not in _known:
        _known[key] = _read_references(key) or train_average_references(problem, recipe)
        if key not in _shipped():
            write_whole(_cache_file(key), json.dumps({key: _known[key]}))
    return _known[key]


_known: dict[str, dict[str, float]] = {}


@functools.cache
def _shipped() -> dict[str, dict[str, float]]:
    return dict(json.loads((resources.files("mtl_gym") / "data" / "references.json").read_text()))


def _cache_file(key: str) -> Path:
    return cache_folder() / f"references-{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"


def _read_references(key: str) -> dict[str, float] | None:
    path = _cache_file(key)
    known = _shipped() if key in _shipped() or not path.is_file() else json.loads(path.read_text())
    return known.get(key)


def train_average_references(problem: Problem, recipe: Recipe) -> dict[str, float]:
    """Computes the result of :func:`average_references`."""
    ids = range(TRAINING_IDS[0], TRAINING_IDS[0] + _AVERAGED)
    metrics = single_task_metrics(problem, recipe, ids, "reward")
    return {name: float(values.nanmean()) for name, values in metrics.items() if name.rsplit("/", 1)[0] in recipe.tasks}

"""Single-task references: the same trunk with one head, weight 1, same steps, learning rate and noise.

Weights that are zero but for one task train that task alone, so K more replicas of an instance give its K references.
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
from mtl_gym.training.learner import Learner, Recipe

_REPLICAS = 64
_AVERAGED = 32


def single_task_metrics(problem: Problem, recipe: Recipe, ids: Sequence[int], split: str) -> dict[str, Tensor]:
    """Trains each task of each instance by itself.

    Args:
        problem: The problem.
        recipe: How to train.
        ids: The instances.
        split: The whole split on which to measure.

    Returns:
        Metrics (len(ids),) float64 by ``task/metric``; NaN where a task does not take part in an instance, infinite where its
        training diverged.
    """
    results: dict[str, Tensor] = {}
    per_round = max(1, _REPLICAS // recipe.num_tasks)
    for start in range(0, len(ids), per_round):
        for name, values in _one_round(problem, recipe, ids[start : start + per_round], split).items():
            results[name] = torch.cat([results.get(name, values[:0]), values])
    return results


def _one_round(problem: Problem, recipe: Recipe, ids: Sequence[int], split: str) -> dict[str, Tensor]:
    count = recipe.num_tasks
    learner = Learner(problem, recipe, len(ids) * count)
    learner.begin(range(len(ids) * count), [id for id in ids for _ in range(count)])
    weights = torch.eye(count, device=learner.replicas.weights.device).repeat(len(ids), 1)  # row i * K + k trains task k alone
    active = torch.ones(len(weights), dtype=torch.bool, device=weights.device)
    for _ in range(recipe.train_steps):
        learner.update(weights, active)
    return {name: _own(learner, name, values) for name, values in learner.metrics(split).items()}


def _own(learner: Learner, name: str, values: Tensor) -> Tensor:
    """Picks, for each instance, the replica that trained the task of this metric: (n,) from (n K,)."""
    names = [task.name for task in learner.problem.tasks]
    task = names.index(name.rsplit("/", 1)[0])
    tasks = learner.replicas.tasks[:: learner.recipe.num_tasks]  # (n, K)
    table = values.cpu().unflatten(0, tasks.shape).double()
    own = torch.where(tasks.cpu() == task, table.nan_to_num(nan=torch.inf), 0).sum(1)
    return own.where((tasks.cpu() == task).any(1), torch.nan)


def fingerprint(problem: Problem, recipe: Recipe) -> dict[str, Any]:
    """All that a training depends on but its instance and its weights, JSON-plain."""
    trained = {name: value for name, value in recipe.plain(problem).items() if name not in ("device", "holdout_size")}
    return {"problem": problem.identity, "network": problem.network, **trained}


def average_references(problem: Problem, recipe: Recipe) -> Mapping[str, float]:
    """Single-task metrics on *reward* by ``task/metric`` of the tasks that may take part, averaged over 32 training instances.

    In these instances all of them take part, so that each has its reference whatever ``num_tasks`` is. Those of default arguments
    are shipped (``mtl_gym/data/references.json``); others are trained on first use and cached.
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
    text = resources.files("mtl_gym").joinpath("data").joinpath("references.json").read_text()
    return dict(json.loads(text))


def _cache_file(key: str) -> Path:
    return cache_folder() / f"references-{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"


def _read_references(key: str) -> dict[str, float] | None:
    path = _cache_file(key)
    known = _shipped() if key in _shipped() or not path.is_file() else json.loads(path.read_text())
    return known.get(key)


def train_average_references(problem: Problem, recipe: Recipe) -> dict[str, float]:
    """Trains what :func:`average_references` returns."""
    ids = range(TRAINING_IDS[0], TRAINING_IDS[0] + _AVERAGED)
    metrics = single_task_metrics(problem, recipe, ids, "reward")
    return {name: float(values.nanmean()) for name, values in metrics.items() if name.rsplit("/", 1)[0] in recipe.tasks}

"""Single-task references: the same trunk with one head and weight 1, with the same steps, learning rate and noise.

One-hot weights train one task alone, so K replicas of an instance give its K references.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import resources
from typing import Any

import torch
from torch import Tensor

from mtl_gym.cache import keep_cached, read_cached
from mtl_gym.checks import should
from mtl_gym.context import own_mode
from mtl_gym.problems.base import Problem
from mtl_gym.problems.instances import TRAINING_IDS
from mtl_gym.problems.metrics import impossible
from mtl_gym.progress import progress_bar
from mtl_gym.training.checkpoints import CHECKPOINTS
from mtl_gym.training.data import check_first_losses
from mtl_gym.training.recipe import Recipe
from mtl_gym.training.trainer import Trainer

_REPLICAS = 64
AVERAGED = 32
"""Instances over which :func:`average_references` averages."""


@own_mode()
def single_task_metrics(
    problem: Problem, recipe: Recipe, ids: Sequence[int], split: str, advance: Callable[[int], None] | None = None
) -> dict[str, Tensor]:
    """Trains each task of each instance alone, and measures it on the whole ``split``.

    ``advance`` is called with the number of training steps just done, over all instances; an instance's tasks count as one.

    Returns metrics (len(ids),) float64 by ``task/metric``; NaN where a task does not take part, infinite where training diverged.
    """
    results: dict[str, Tensor] = {}
    per_round = _per_round(recipe)
    for start in range(0, len(ids), per_round):
        for name, values in _one_round(problem, recipe, ids[start : start + per_round], split, advance).items():
            results[name] = torch.cat([results.get(name, values[:0]), values])
    return results


@contextmanager
def shown_references(recipe: Recipe, instances: int) -> Iterator[Callable[[int], None]]:
    """Shows the progress of :func:`single_task_metrics`; yields its ``advance``."""
    told = f"references of {instances} instances: {instances * recipe.num_tasks} trainings"
    with progress_bar(instances * recipe.train_steps, told) as update:
        yield lambda steps: update(advance=steps)


def single_task_rows(recipe: Recipe, instances: int) -> int:
    """The largest number of trainings of :func:`single_task_metrics` that run side by side."""
    return min(instances, _per_round(recipe)) * recipe.num_tasks


def _per_round(recipe: Recipe) -> int:
    """The number of instances that are trained side by side."""
    return max(1, _REPLICAS // recipe.num_tasks)


def reference_rows(recipe: Recipe) -> int:
    """The largest number of trainings of :func:`average_references` that run side by side."""
    return max(_REPLICAS, len(recipe.tasks))


def _one_round(
    problem: Problem, recipe: Recipe, ids: Sequence[int], split: str, advance: Callable[[int], None] | None
) -> dict[str, Tensor]:
    count = recipe.num_tasks
    trainer = Trainer(problem, recipe, len(ids) * count)
    trainer.begin(range(len(ids) * count), [id for id in ids for _ in range(count)])
    weights = torch.eye(count, device=trainer.state.device).repeat(len(ids), 1)  # row i * K + k trains task k alone
    train(trainer, weights, lambda: advance(len(ids)) if advance else None)
    return {name: _own(trainer, name, values) for name, values in trainer.metrics(split).items()}


def train(trainer: Trainer, weights: Tensor, after_step: Callable[[], object] = lambda: None) -> None:
    """Trains all rows to the end, with constant weights (N, K); calls ``after_step`` after each step.

    A checkpoint is chosen by the tasks that have a weight.

    Raises:
        ValueError: If the loss of one of these tasks is not finite before the first step.
    """
    check_first_losses(trainer.ledger, trainer.losses.forward(), weights != 0)
    if trainer.best is not None:
        trainer.best.counting.copy_(weights != 0)
    active = torch.ones(trainer.num_replicas, dtype=torch.bool, device=trainer.state.device)
    for _ in range(trainer.recipe.train_steps):
        trainer.update(weights, active)
        after_step()


def _own(trainer: Trainer, name: str, values: Tensor) -> Tensor:
    """Selects, for each instance, the replica that trained this metric's task: (n,) from (n K,)."""
    task = [task.name for task in trainer.problem.tasks].index(name.rsplit("/", 1)[0])
    tasks = trainer.ledger.tasks[:: trainer.recipe.num_tasks].cpu()  # (n, K)
    table = values.cpu().unflatten(0, tasks.shape).double()
    own = torch.where(tasks == task, table.nan_to_num(nan=torch.inf), 0).sum(1)
    return own.where((tasks == task).any(1), torch.nan)


def fingerprint(problem: Problem, recipe: Recipe) -> dict[str, Any]:
    """Everything that determines a training run, except its instance and weights, JSON-serialisable."""
    silent = ("device",) if CHECKPOINTS[recipe.checkpoint] else ("device", "holdout_size")  # which chooses the checkpoint
    trained = {name: value for name, value in recipe.plain(problem).items() if name not in silent}
    return {"problem": problem.identity, "network": problem.network_name, **trained}


def average_references(problem: Problem, recipe: Recipe) -> Mapping[str, float]:
    """Single-task metrics on *reward* by ``task/metric`` of the tasks that may take part, averaged over 32 training instances.

    All of them take part in these instances, so that each has a reference whatever ``num_tasks`` is. References for the default
    arguments are precomputed (``mtl_gym/data/references.json``); others are trained on first use and cached.
    """
    recipe = replace(recipe, num_tasks=len(recipe.tasks))
    key = json.dumps(fingerprint(problem, recipe), sort_keys=True)
    if key not in _known:
        names = [f"{task.name}/{metric}" for task in problem.tasks if task.name in recipe.tasks for metric in task.metrics]
        _known[key] = _shipped().get(key) or read_metrics("references", key, names) or _train_and_keep(problem, recipe, key)
    return _known[key]


_known: dict[str, dict[str, float]] = {}


@functools.cache
def _shipped() -> dict[str, dict[str, float]]:
    return dict(json.loads((resources.files("mtl_gym") / "data" / "references.json").read_text()))


def _train_and_keep(problem: Problem, recipe: Recipe, key: str) -> dict[str, float]:
    metrics = train_average_references(problem, recipe)
    if diverged := [name for name, value in metrics.items() if not math.isfinite(value)]:
        text = should("lr", "be smaller: single-task training, which rewards refer to, diverged", recipe.lr, ", ".join(diverged))
        warnings.warn(text, RuntimeWarning, stacklevel=2)
    keep_metrics("references", key, metrics)
    return metrics


def train_average_references(problem: Problem, recipe: Recipe) -> dict[str, float]:
    """Computes the result of :func:`average_references`."""
    ids = range(TRAINING_IDS[0], TRAINING_IDS[0] + AVERAGED)
    with shown_references(recipe, len(ids)) as advance:
        metrics = single_task_metrics(problem, recipe, ids, "reward", advance)
    return {name: float(values.nanmean()) for name, values in metrics.items() if name.rsplit("/", 1)[0] in recipe.tasks}


def read_metrics(kind: str, key: str, names: Collection[str]) -> dict[str, float] | None:
    """The cached metrics of a training; ``None`` if there are none or, with a warning, they cannot be those of these names.

    Metrics of training are finite and in their range. An exact 0 is not believed either: see :func:`keep_metrics`.

    Args:
        kind: What they are, the beginning of the file's name.
        key: JSON of everything that determines the training.
        names: The metrics, ``task/metric``.
    """

    def check(content: Any) -> dict[str, float]:
        metrics = content[key]
        if set(metrics) != set(names):
            raise ValueError(f"it should hold {', '.join(names)}, not {', '.join(metrics)}")
        if not all(type(value) in (int, float) and math.isfinite(value) for value in metrics.values()):
            raise ValueError(f"its metrics should be finite numbers, not {metrics}")
        if doubtful := _doubtful(metrics):
            raise ValueError(f"its metrics should be above 0 and in their range, not {doubtful}")
        return {name: float(metrics[name]) for name in names}

    return read_cached(_file_of(kind, key), check)


def keep_metrics(kind: str, key: str, metrics: Mapping[str, float]) -> None:
    """Caches metrics for :func:`read_metrics`; not those of a training that diverged, nor an exact 0.

    A file of zeros is what damage leaves, and as a reference 0 makes ``delta_m`` -100. A training that really ends at 0, which is
    rare, is trained again by the next process instead.
    """
    if all(map(math.isfinite, metrics.values())) and not _doubtful(metrics):
        keep_cached(_file_of(kind, key), {key: dict(metrics)})


def _doubtful(metrics: Mapping[str, float]) -> dict[str, float]:
    """Finite metrics that are out of range or exactly 0, by name."""
    return impossible(metrics) | {name: value for name, value in metrics.items() if value == 0}


def _file_of(kind: str, key: str) -> str:
    return f"{kind}-{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"

"""Single-task references of instances, trained once and cached by content."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterable, Sequence

import mtl_gym
from mtl_gym.envs.arguments import Arguments
from mtl_gym.models import make_model
from mtl_gym.problems.base import Problem
from mtl_gym.problems.data_checks import check_magnitudes
from mtl_gym.training.memory import check_memory
from mtl_gym.training.references import (
    fingerprint,
    keep_metrics,
    read_metrics,
    shown_references,
    single_task_metrics,
    single_task_rows,
)

_AT_ONCE = 8
_KIND = "instances/reference"
"""The beginning of the names of files in the cache: one for each instance, so that several processes can write them."""


Metrics = dict[int, dict[str, float]]
"""Test metrics of single-task learning by instance and ``task/metric``."""


def reference_metrics(arguments: Arguments, ids: Sequence[int], advance: Callable[[int], None] | None = None) -> Metrics:
    """The references of instances, cached or trained.

    ``advance`` is called with the number of training steps just done, over all instances.

    Raises:
        ValueError: If a single-task training diverged.
    """
    advance, train_steps = advance or (lambda steps: None), arguments.recipe.train_steps
    known = known_references(arguments, ids)
    batches = missing_batches(ids, known)
    missing = sum(map(len, batches))
    advance((len(ids) - missing) * train_steps)
    with shown_references(arguments.recipe, missing) as show:

        def both(steps: int) -> None:
            show(steps)
            advance(steps)

        for batch in batches:
            known = keep_references(arguments, train_references(arguments, batch, advance=both), known)
    return known


def known_references(arguments: Arguments, ids: Sequence[int]) -> Metrics:
    """The references that are cached."""
    names = metric_names(arguments, ids)
    found = {id: read_metrics(_KIND, key, names[id]) for id, key in _keys(arguments, ids).items()}
    return {id: metrics for id, metrics in found.items() if metrics}


def missing_batches(ids: Sequence[int], known: Collection[int]) -> list[list[int]]:
    """The batches in which missing references are trained.

    A batch is trained again as a whole if an instance of it is missing: what is trained side by side may change the last bits, so
    it must not depend on how much of it was written before the process was killed.
    """
    batches = [[*ids[start : start + _AT_ONCE]] for start in range(0, len(ids), _AT_ONCE)]
    return [batch for batch in batches if not set(batch) <= {*known}]


def train_references(arguments: Arguments, ids: Sequence[int], *, advance: Callable[[int], None]) -> Metrics:
    """Trains the references of a batch; raises ValueError if a training diverged."""
    metrics, names = single_task_metrics(arguments.problem, arguments.recipe, ids, "test", advance), metric_names(arguments, ids)
    found = {id: {name: float(metrics[name][index]) for name in names[id]} for index, id in enumerate(ids)}
    return {id: _checked(own, id, arguments.problem) for id, own in found.items()}


def keep_references(arguments: Arguments, found: Metrics, known: Metrics) -> Metrics:
    """Caches references that are not known yet; returns them and those that are."""
    for id, key in _keys(arguments, [id for id in found if id not in known]).items():
        keep_metrics(_KIND, key, found[id])
    return found | known


def _keys(arguments: Arguments, ids: Iterable[int]) -> dict[int, str]:
    """By instance, JSON of everything that determines its references."""
    common = {"single_task": fingerprint(arguments.problem, arguments.recipe), "version": mtl_gym.__version__}
    return {id: json.dumps({**common, "instance": id}, sort_keys=True) for id in ids}


def check_reference_memory(arguments: Arguments, instances: int) -> float:
    """Refuses single-task references of a number of instances that would take too much memory to train; returns the bytes."""
    rows = single_task_rows(arguments.recipe, min(instances, _AT_ONCE))
    return check_memory(arguments.problem, arguments.recipe, rows, argument=None)


def metric_names(arguments: Arguments, ids: Sequence[int]) -> dict[int, list[str]]:
    """The metrics ``task/metric`` of each instance's tasks."""
    problem, recipe = arguments.problem, arguments.recipe
    network = make_model(problem, recipe.hidden_sizes).identity
    tasks = {id: [problem.tasks[task] for task in sorted(recipe.draw(problem, network, id).tasks)] for id in ids}
    return {id: [f"{task.name}/{metric}" for task in own for metric in task.metrics] for id, own in tasks.items()}


def _checked(metrics: dict[str, float], id: int, problem: Problem) -> dict[str, float]:
    """The metrics; raises ValueError if a single-task training diverged, or *test* is out of all proportion to *train*."""
    diverged = [name for name, value in metrics.items() if not math.isfinite(value)]
    if diverged:
        check_magnitudes("test", problem.splits)
        raise ValueError(f"`lr` should be smaller: single-task training diverged on instance {id} ({', '.join(diverged)}).")
    return metrics

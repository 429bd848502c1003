"""Single-task references of instances, trained once and cached by content."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence

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


def reference_metrics(
    arguments: Arguments, ids: Sequence[int], advance: Callable[[int], None] | None = None
) -> dict[int, dict[str, float]]:
    """Test metrics of single-task learning by instance and ``task/metric``.

    ``advance`` is called with the number of training steps just done, over all instances.

    Raises:
        ValueError: If a single-task training diverged.
    """
    advance, train_steps = advance or (lambda steps: None), arguments.recipe.train_steps
    common = {"single_task": fingerprint(arguments.problem, arguments.recipe), "version": mtl_gym.__version__}
    keys = {id: json.dumps({**common, "instance": id}, sort_keys=True) for id in ids}
    names = metric_names(arguments, ids)
    found = {id: read_metrics(_KIND, key, names[id]) for id, key in keys.items()}
    known = {id: metrics for id, metrics in found.items() if metrics}
    missing = [id for id in ids if id not in known]
    advance((len(ids) - len(missing)) * train_steps)
    with shown_references(arguments.recipe, len(missing)) as show:

        def both(steps: int) -> None:
            show(steps)
            advance(steps)

        for start in range(0, len(missing), _AT_ONCE):
            batch = missing[start : start + _AT_ONCE]
            metrics = single_task_metrics(arguments.problem, arguments.recipe, batch, "test", both)
            for index, id in enumerate(batch):
                known[id] = _checked({name: float(metrics[name][index]) for name in names[id]}, id, arguments.problem)
            for id in batch:
                keep_metrics(_KIND, keys[id], known[id])
    return {id: known[id] for id in ids}


def check_reference_memory(arguments: Arguments, instances: int) -> None:
    """Refuses single-task references of a number of instances that would take too much memory to train."""
    rows = single_task_rows(arguments.recipe, min(instances, _AT_ONCE))
    check_memory(arguments.problem, arguments.recipe, rows, argument=None)


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

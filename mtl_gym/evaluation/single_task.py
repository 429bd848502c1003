"""Single-task references of instances, trained once and cached by content."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import mtl_gym
from mtl_gym.cache import cache_folder
from mtl_gym.envs.arguments import Arguments
from mtl_gym.evaluation.results import Result, Results, spec_key
from mtl_gym.training.references import fingerprint, single_task_metrics

_AT_ONCE = 8


def reference_metrics(
    arguments: Arguments, ids: Sequence[int], advance: Callable[[int], None] | None = None
) -> dict[int, dict[str, float]]:
    """Test metrics of single-task learning by instance and ``task/metric``.

    ``advance`` is called with the number of training steps just done, over all instances.
    """
    advance, train_steps = advance or (lambda steps: None), arguments.recipe.train_steps
    common = {"single_task": fingerprint(arguments.problem, arguments.recipe), "version": mtl_gym.__version__}
    specs: dict[int, dict[str, Any]] = {id: {**common, "instance": id} for id in ids}
    store = Results(cache_folder() / "references.sqlite")
    keys = {id: spec_key(spec) for id, spec in specs.items()}
    known = store.read(keys.values())
    missing = [id for id in ids if keys[id] not in known]
    advance((len(ids) - len(missing)) * train_steps)
    for start in range(0, len(missing), _AT_ONCE):
        batch = missing[start : start + _AT_ONCE]
        metrics = single_task_metrics(arguments.problem, arguments.recipe, batch, "test", advance)
        rows = [_checked({name: float(values[index]) for name, values in metrics.items()}, id) for index, id in enumerate(batch)]
        results = [Result("single-task", id, own, own, 0.0, {}, False) for id, own in zip(batch, rows, strict=True)]
        store.write([specs[id] for id in batch], results)
        known |= {keys[result.instance]: result for result in results}
    return {id: known[keys[id]].metrics for id in ids}


def _checked(metrics: dict[str, float], id: int) -> dict[str, float]:
    """The metrics of the tasks in an instance (others are NaN); raises ValueError if a single-task training diverged."""
    diverged = [name for name, value in metrics.items() if math.isinf(value)]
    if diverged:
        raise ValueError(f"`lr` should be smaller: single-task training diverged on instance {id} ({', '.join(diverged)}).")
    return {name: value for name, value in metrics.items() if not math.isnan(value)}

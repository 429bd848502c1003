"""What a problem's data are like: labels that are missing, classes and deviations, inputs, and samples that recur across splits."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor

from mtl_gym.problems.base import Problem, Task
from mtl_gym.problems.inputs import features, parts, shapes
from mtl_gym.problems.losses import labelled
from mtl_gym.problems.modules import ModuleFactory
from mtl_gym.problems.splits import SPLITS, Split

_DIGEST = 16  # bytes


def task_data(problem: Problem) -> dict[str, dict[str, Any]]:
    """Each task's labels, JSON-plain.

    Returns:
        By task: ``kind`` (``"binary"``, ``"classes"`` or ``"real"``), ``loss``, ``metrics``, ``outputs``, ``labels`` and
        ``missing`` (by split: number of samples that have one, and fraction of those that have none), and over *train* either
        ``balance``, the fraction of each class, by its name, or ``mean`` and ``deviation``.
    """
    return {task.name: _of_task(problem, task, own) for task, own in zip(problem.tasks, problem.target_slices, strict=True)}


def _of_task(problem: Problem, task: Task, own: slice) -> dict[str, Any]:
    kind, joint = task.objective.labels, task.objective.joint
    known = {name: int(labelled(problem.splits[name].targets[:, own], joint=joint).sum()) for name in SPLITS}
    values = problem.splits["train"].targets[:, own].flatten()
    values = values[~torch.isnan(values)]
    return {
        "kind": kind,
        "loss": task.loss_name,
        "metrics": [*task.metrics],
        "outputs": task.outputs,
        "labels": known,
        "missing": {name: 1 - count / len(problem.splits[name]) for name, count in known.items()},
        **(_moments(values) if kind == "real" else {"balance": _balance(task, values)}),
    }


def _moments(values: Tensor) -> dict[str, float | None]:
    spread = float(values.double().std(unbiased=False)) if len(values) else None
    return {"mean": float(values.double().mean()) if len(values) else None, "deviation": spread}


def _balance(task: Task, values: Tensor) -> dict[str, float]:
    """The fraction of each class among labels."""
    number = 2 if task.objective.labels == "binary" else task.outputs
    counts = torch.bincount(values.long(), minlength=number)
    names = [str(name) for name in task.classes or range(number)]
    return dict(zip(names, (counts / max(1, len(values))).tolist(), strict=True))


def input_data(problem: Problem) -> dict[str, Any]:
    """The inputs of *train*, JSON-plain.

    Returns:
        ``shape`` of a sample, or shapes by name; ``table``, whether inputs are the columns of a table: one axis, and no network of
        one's own, which may make something else of them; and of all features that are real numbers, not codes such as tokens:
        ``features``, how many; ``constant``, indices of those that have one value; ``largest_mean``, the largest absolute one;
        ``smallest_deviation`` and ``largest_deviation`` of those that vary, ``None`` if none does.
    """
    inputs = problem.splits["train"].inputs
    numbers = [own for own in parts(inputs) if own.is_floating_point()]
    values = features(dict(enumerate(numbers))).double() if numbers else torch.zeros(2, 0)
    constant = (values == values[0]).all(0)
    spread, shape = values.std(0, unbiased=False)[~constant], shapes(inputs)
    return {
        "shape": {name: [*own] for name, own in shape.items()} if isinstance(shape, dict) else [*shape],
        "table": isinstance(inputs, Tensor) and inputs.ndim == 2 and not isinstance(problem.network, ModuleFactory),
        "features": values.shape[1],
        "constant": constant.nonzero()[:, 0].tolist(),
        "largest_mean": float(values.mean(0).abs().max()) if values.shape[1] else 0.0,
        "smallest_deviation": float(spread.min()) if len(spread) else None,
        "largest_deviation": float(spread.max()) if len(spread) else None,
    }


def recurring(problem: Problem) -> dict[str, int]:
    """The number of samples of each split whose inputs are those of a sample of another split too."""
    digests = {name: _digests(problem.splits[name]) for name in SPLITS}
    found = {}
    for name, own in digests.items():
        others = set[bytes]().union(*(rows for other, rows in digests.items() if other != name))
        found[name] = sum(digest in others for digest in own)
    return found


def _digests(split: Split) -> list[bytes]:
    values = (features(split.inputs) + 0.0).contiguous().numpy()  # -0 equals 0
    return [hashlib.blake2b(row.tobytes(), digest_size=_DIGEST).digest() for row in values]

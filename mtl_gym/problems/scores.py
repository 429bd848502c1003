"""Scores: metrics of all tasks, and relative gains over a reference, for N replicas, T tasks and M metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor

from mtl_gym.problems.base import Problem
from mtl_gym.problems.losses import KINDS
from mtl_gym.problems.metrics import METRICS

Value = TypeVar("Value", float, Tensor)
WORST_DELTA_M = -100.0
"""Smallest delta_m in percent, and that of diverged runs: everything that single-task learning achieves is lost."""
PERCENT, FRACTION = 100.0, 1.0
"""Units of gains."""


def task_metrics(problem: Problem, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Metrics (N,) of every task by ``task/metric``, over the labelled values of outputs (N, O, M) and targets (T, M)."""
    results = {}
    for task, own, labels in zip(problem.tasks, problem.output_slices, problem.target_slices, strict=True):
        known = ~torch.isnan(targets[labels]).any(0)
        for metric in task.metrics:
            results[f"{task.name}/{metric}"] = METRICS[metric].function(outputs[:, own, known], targets[labels][:, known])
    return results


def split_metrics(problem: Problem, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Metrics (N,) of every task by ``task/metric`` from outputs (N, n, O, *S) on a split, and its targets.

    Targets are (n, T, *S), or (N, n, T, *S) where each replica has a split of its own.
    """
    values = outputs.movedim(1, 2).flatten(2)  # (N, O, M)
    if targets.ndim < outputs.ndim:
        return task_metrics(problem, values, targets.movedim(0, 1).flatten(1))
    rows = [task_metrics(problem, value[None], own.movedim(0, 1).flatten(1)) for value, own in zip(values, targets, strict=True)]
    return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}


def relative_gain(value: Value, reference: float | Tensor, metric: str, *, unit: float = PERCENT) -> Value:
    """Gain of a metric over its reference, divided by ``max(reference, floor)``, times ``unit``; positive is better."""
    row = METRICS[metric]
    divisor = reference.clamp(min=row.floor) if isinstance(reference, Tensor) else max(reference, row.floor)
    gain: Value = unit * (value - reference) / divisor  # type: ignore[assignment]  # a number's reference is a number
    return gain if row.higher_is_better else -gain


def relative_gains(problem: Problem, values: Mapping[str, Tensor], references: Mapping[str, float]) -> Tensor:
    """Relative gains (N, T) in percent, each the mean over a task's metrics; NaN for tasks without a reference.

    ``values`` holds metrics (N,) by ``task/metric``, ``references`` those of single-task learning.
    """
    tasks = []
    for task in problem.tasks:
        names = {f"{task.name}/{metric}": metric for metric in task.metrics}
        own = [relative_gain(values[name].double(), references.get(name, math.nan), metric) for name, metric in names.items()]
        tasks.append(torch.stack(own).mean(0))
    return torch.stack(tasks, dim=1)


def log_qualities(problem: Problem, values: Mapping[str, Tensor]) -> Tensor:
    """Qualities (N, T): for each task the mean over its metrics of the metric's log, or of minus its log if lower is better.

    Differences are log ratios; small ones, in percent, are those of :func:`relative_gain` whatever the reference. Metrics, (N,) by
    ``task/metric``, count as no smaller than their floors.
    """
    tasks = []
    for task in problem.tasks:
        rows = [(METRICS[metric], values[f"{task.name}/{metric}"].double()) for metric in task.metrics]
        own = [(1 if row.higher_is_better else -1) * known.clamp(min=row.floor).log() for row, known in rows]
        tasks.append(torch.stack(own).mean(0))
    return torch.stack(tasks, dim=1)


class MetricTable:
    """All M metrics of a problem side by side."""

    def __init__(self, problem: Problem) -> None:
        of_tasks = [(task.name, metric) for task in problem.tasks for metric in task.metrics]
        self.names = [f"{task}/{metric}" for task, metric in of_tasks]  # (M)
        self._metrics = [metric for _, metric in of_tasks]
        counts = [len(task.metrics) for task in problem.tasks]
        self.tasks = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))  # (M,) index of each metric's task
        self._averages = torch.block_diag(*[torch.full((count, 1), 1 / count, dtype=torch.float64) for count in counts])

    def gains(self, values: Tensor, references: Tensor) -> Tensor:
        """Relative gains (..., T) as fractions, averaged over each task's metrics, from ``values`` and ``references`` (..., M)."""
        columns = zip(values.unbind(-1), references.unbind(-1), self._metrics, strict=True)
        gains = [relative_gain(value, reference, metric, unit=FRACTION) for value, reference, metric in columns]
        return torch.stack(gains, dim=-1) @ self._averages


def delta_m(values: Mapping[str, float], references: Mapping[str, float]) -> float:
    """Mean relative gain over single-task learning, in percent; higher is better; at least -100.

    Each task first averages the gains of its metrics. (Some papers average over all metrics and report a drop, with the opposite
    sign.) ``values`` and ``references``, those of single-task learning, are by ``task/metric``.
    """
    gains: dict[str, list[float]] = {}
    for name, value in values.items():
        task, metric = name.rsplit("/", 1)
        gains.setdefault(task, []).append(relative_gain(value, references[name], metric))
    mean = sum(sum(own) / len(own) for own in gains.values()) / len(gains)
    return max(mean, WORST_DELTA_M) if math.isfinite(mean) else WORST_DELTA_M


def delta_m_by_kind(values: Mapping[str, float], references: Mapping[str, float]) -> dict[str, float]:
    """:func:`delta_m` of the tasks of each kind, ``classification`` or ``regression``; a kind without a task has none.

    A task's kind is that of the labels of its loss, which all of its metrics share.
    """
    kinds: dict[str, dict[str, float]] = {}
    for name, value in values.items():
        kinds.setdefault(KINDS[METRICS[name.rsplit("/", 1)[1]].labels[0]], {})[name] = value
    return {kind: delta_m(kinds[kind], references) for kind in dict.fromkeys(KINDS.values()) if kind in kinds}

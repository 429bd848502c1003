"""The metrics that a task is judged by. All are positive and have a floor, so that a relative gain is well defined.

N is the number of replicas, M the number of labelled values (samples, or pixels of a dense problem), C and T the output and
target channels. R2 is not among them: it crosses zero, where relative gains explode.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import scipy.stats
import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from mtl_gym.problems.base import Problem


@dataclass(frozen=True)
class Metric:
    """One row of ``METRICS``.

    Attributes:
        function: ``(outputs (N, C, M), targets (T, M)) -> (N,)``.
        higher_is_better: The direction.
        floor: The least value by which a difference is divided in ``delta_m``.
    """

    function: Callable[[Tensor, Tensor], Tensor]
    higher_is_better: bool
    floor: float


def accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Share of the values whose class is right, in [0, 1]; one output channel is read as a logit."""
    predicted = outputs.argmax(1) if outputs.shape[1] > 1 else (outputs[:, 0] > 0).long()
    return (predicted == targets[0].long()).double().mean(1)


def area_under_curve(outputs: Tensor, targets: Tensor) -> Tensor:
    """Area under the ROC curve, in [0, 1], ties counted half (Mann-Whitney); 0.5 where only one class is present."""
    positive = targets[0] > 0.5
    pairs = int(positive.sum()) * int((~positive).sum())
    if pairs == 0:
        return torch.full((len(outputs),), 0.5, dtype=torch.float64)
    ranks = torch.from_numpy(scipy.stats.rankdata(outputs[:, 0].cpu().numpy(), axis=1))
    count = int(positive.sum())
    return (ranks[:, positive.cpu()].sum(1) - count * (count + 1) / 2) / pairs


def root_mean_squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Root of the mean squared error, in the target's unit."""
    return (outputs.double() - targets.double()).square().mean((1, 2)).sqrt()


def normalised_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Root mean squared error over the root of the mean (over channels) variance of the targets that it is measured on."""
    variance = (targets.double() - targets.double().mean(1, keepdim=True)).square().mean()
    return root_mean_squared_error(outputs, targets) / variance.sqrt().clamp(min=1e-12)


def angular_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean angle between vectors of channels, in degrees."""
    cosines = functional.cosine_similarity(outputs.double(), targets.double().expand_as(outputs), dim=1)
    return torch.rad2deg(torch.arccos(cosines.clamp(-1, 1))).mean(1)


METRICS = {
    "accuracy": Metric(accuracy, higher_is_better=True, floor=0.1),
    "auc": Metric(area_under_curve, higher_is_better=True, floor=0.1),
    "nrmse": Metric(normalised_error, higher_is_better=False, floor=0.01),
    "rmse": Metric(root_mean_squared_error, higher_is_better=False, floor=0.01),
    "angle": Metric(angular_error, higher_is_better=False, floor=1.0),
}


def task_metrics(problem: Problem, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Metrics (N,) of every task by ``task/metric``, over the labelled values of outputs (N, O, M) and targets (T, M)."""
    results = {}
    for task, own, labels in zip(problem.tasks, problem.output_slices, problem.target_slices, strict=True):
        known = ~torch.isnan(targets[labels]).any(0)
        for metric in task.metrics:
            results[f"{task.name}/{metric}"] = METRICS[metric].function(outputs[:, own, known], targets[labels][:, known])
    return results


WORST_DELTA_M = -100.0
"""Least delta_m in percent, and that of a diverged training: all that single-task learning reaches is lost."""


def relative_gain(value: float, reference: float, metric: str) -> float:
    """Gain of one metric over its reference in percent, divided by ``max(reference, floor)``; positive is better."""
    row = METRICS[metric]
    gain = 100 * (value - reference) / max(reference, row.floor)
    return gain if row.higher_is_better else -gain


def relative_gains(problem: Problem, values: Mapping[str, Tensor], references: Mapping[str, float]) -> Tensor:
    """Relative gains (N, T) in percent of every task, each the mean over its metrics; tasks without a reference have NaN.

    Args:
        problem: The problem.
        values: Metrics (N,) by ``task/metric``.
        references: Those of single-task learning.
    """
    tasks = []
    for task in problem.tasks:
        own = []
        for metric in task.metrics:
            row, reference = METRICS[metric], references.get(f"{task.name}/{metric}", math.nan)
            gain = 100 * (values[f"{task.name}/{metric}"].double() - reference) / max(reference, row.floor)
            own.append(gain if row.higher_is_better else -gain)
        tasks.append(torch.stack(own).mean(0))
    return torch.stack(tasks, dim=1)


class MetricTable:
    """All metrics of a problem side by side, M of them, for what is computed of many at once.

    Args:
        problem: The problem.

    Attributes:
        names: (M) ``task/metric``, in the order of the tasks.
    """

    def __init__(self, problem: Problem) -> None:
        of_tasks = [(task.name, metric) for task in problem.tasks for metric in task.metrics]
        self.names = [f"{task}/{metric}" for task, metric in of_tasks]
        rows = [METRICS[metric] for _, metric in of_tasks]
        self._signs = torch.tensor([1.0 if row.higher_is_better else -1.0 for row in rows], dtype=torch.float64)
        self._floors = torch.tensor([row.floor for row in rows], dtype=torch.float64)
        counts = [len(task.metrics) for task in problem.tasks]
        self.tasks = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
        """(M,) the task that each metric belongs to."""
        self._averages = torch.block_diag(*[torch.full((count, 1), 1 / count, dtype=torch.float64) for count in counts])

    def gains(self, values: Tensor, references: Tensor) -> Tensor:
        """Relative gains (..., T) of all tasks, as fractions: means over each task's metrics of (value - reference) / reference.

        The divisor is at least the metric's floor; positive is better.

        Args:
            values: (..., M).
            references: (..., M).
        """
        return self._signs * (values - references) / torch.maximum(references, self._floors) @ self._averages


def delta_m(values: Mapping[str, float], references: Mapping[str, float]) -> float:
    """Mean relative gain over single-task learning, in percent; higher is better; at least -100.

    Each task first averages the gains of its own metrics. (Some papers average over all metrics and print a drop, whose sign
    is the opposite.)

    Args:
        values: Metrics by ``task/metric``.
        references: The same of single-task learning.
    """
    gains: dict[str, list[float]] = {}
    for name, value in values.items():
        task, metric = name.rsplit("/", 1)
        gains.setdefault(task, []).append(relative_gain(value, references[name], metric))
    mean = sum(sum(own) / len(own) for own in gains.values()) / len(gains)
    return max(mean, WORST_DELTA_M) if math.isfinite(mean) else WORST_DELTA_M

"""The metrics of tasks. None is negative, and each has a floor, so that a relative gain is well defined.

N is the number of replicas, M the number of labelled values (samples, or pixels of a dense problem), C and T the output and
target channels. R2 is not included: it crosses zero, where relative gains diverge.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import scipy.stats
import torch
from torch import Tensor
from torch.nn import functional

from mtl_gym.checks import LARGEST_FLOAT, printable, should


@dataclass(frozen=True)
class Metric:
    """One row of ``METRICS``, or a metric of one's own, which a :class:`~mtl_gym.problems.base.Task` adds to them by its name."""

    function: Callable[[Tensor, Tensor], Tensor]  # ``(outputs (N, C, M), targets (T, M)) -> (N,)``
    higher_is_better: bool  # whether larger values are better
    floor: float  # smallest divisor of a difference in ``delta_m``
    most: float = LARGEST_FLOAT  # largest possible value; the smallest is 0
    labels: tuple[str, ...] = ("real",)  # kinds of labels that it suits, see :class:`~mtl_gym.problems.losses.Loss`
    varied: bool = False  # whether it is undefined if all labels are equal
    single: bool = False  # whether it is defined for one output only
    name: str = ""  # in tables, if it is one's own; that of the function if none is given


def accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Fraction of correctly classified values, in [0, 1]; output channels are logits of classes, or each of a binary target."""
    predicted = outputs > 0 if outputs.shape[1] == len(targets) else outputs.argmax(1, keepdim=True)
    return (predicted == targets.long()).double().mean((1, 2))


def area_under_curve(outputs: Tensor, targets: Tensor) -> Tensor:
    """Area under the ROC curve, in [0, 1], ties counted half (Mann-Whitney); 0.5 where only one class is present."""
    positive = targets[0] > 0.5
    pairs = int(positive.sum()) * int((~positive).sum())
    if pairs == 0:
        return torch.full((len(outputs),), 0.5, dtype=torch.float64, device=outputs.device)
    ranks = torch.from_numpy(scipy.stats.rankdata(outputs[:, 0].cpu().numpy(), axis=1))
    count = int(positive.sum())
    return ((ranks[:, positive.cpu()].sum(1) - count * (count + 1) / 2) / pairs).to(outputs.device)


def root_mean_squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Root of the mean squared error, in the target's unit."""
    return (outputs.double() - targets.double()).square().mean((1, 2)).sqrt()


def normalized_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Root mean squared error divided by the root of the variance of the same targets (its mean over channels)."""
    variance = (targets.double() - targets.double().mean(1, keepdim=True)).square().mean()
    return root_mean_squared_error(outputs, targets) / variance.sqrt().clamp(min=1e-12)


def angular_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean angle between vectors of channels, in degrees."""
    cosines = functional.cosine_similarity(outputs.double(), targets.double().expand_as(outputs), dim=1)
    return torch.rad2deg(torch.arccos(cosines.clamp(-1, 1))).mean(1)


METRICS = {
    "accuracy": Metric(accuracy, higher_is_better=True, floor=0.1, most=1.0, labels=("classes", "binary")),
    "auc": Metric(area_under_curve, higher_is_better=True, floor=0.1, most=1.0, labels=("binary",), single=True),
    "nrmse": Metric(normalized_error, higher_is_better=False, floor=0.01, varied=True),
    "rmse": Metric(root_mean_squared_error, higher_is_better=False, floor=0.01),
    "angle": Metric(angular_error, higher_is_better=False, floor=1.0, most=180.0),
}


_BUILT_IN = frozenset(METRICS)


def is_own(name: str) -> bool:
    """Whether a metric was added by a task."""
    return name not in _BUILT_IN


def add_metric(metric: Metric) -> str:
    """Adds a metric of one's own to ``METRICS`` and returns its name.

    A later one of the same name takes its place, as where a notebook's cell runs again.

    Raises:
        ValueError: If the name is that of a built-in metric, or of one with another direction or floor.
    """
    name = printable("metrics", metric.name or getattr(metric.function, "__name__", ""))
    known = METRICS.get(name)
    alike = known is None or (known.higher_is_better, known.floor, known.labels) == (
        metric.higher_is_better,
        metric.floor,
        metric.labels,
    )
    if "/" in name or "<" in name or name in _BUILT_IN or not alike:
        raise ValueError(should("metrics", "have names of their own, without '/' and '<'", name, "Give `Metric` a `name`."))
    METRICS[name] = metric
    return name


def own_metrics(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """What is to be stored of metrics of one's own, by name, so that results can be read without their functions."""
    own = {name: METRICS[name] for name in names if is_own(name)}
    return {name: {key: value for key, value in vars(row).items() if key not in ("function", "name")} for name, row in own.items()}


def add_stored(metrics: Mapping[str, Mapping[str, Any]]) -> None:
    """Adds what was stored of metrics to ``METRICS``, except those that are known."""
    for name, row in metrics.items():
        if name not in METRICS:
            METRICS[name] = Metric(_not_stored, **{**row, "labels": tuple(row["labels"])}, name=name)


def _not_stored(outputs: Tensor, targets: Tensor) -> Tensor:
    raise ValueError(should("metrics", "be measured where their functions are known", "stored results", "Load the problem first."))


def impossible(metrics: Mapping[str, float]) -> dict[str, float]:
    """Those of metrics, by ``task/metric``, that are finite but out of range: what no training has, and a damaged file may hold.

    Of metrics that are not known here, which are of somebody's own, the range is not known either.
    """
    known = {name: METRICS.get(name.rsplit("/", 1)[-1]) for name in metrics}
    out = {name for name, row in known.items() if row is not None and not 0 <= metrics[name] <= row.most}
    return {name: metrics[name] for name in out if math.isfinite(metrics[name])}

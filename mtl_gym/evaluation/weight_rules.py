"""How a task's weight depends on the task's properties.

Tasks differ in several properties at once, each of which would blur the effect of the others. So everything is relative within one
training (to the geometric mean over its tasks, which, unlike the arithmetic mean, preserves the slope of a power law), and against
gap and noise the figure shows the change of the weight since the first batch, when neither was known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mtl_gym.envs.looks import RULE
from mtl_gym.envs.panels import log_axis
from mtl_gym.evaluation.layout import fitting, legend, page_width
from mtl_gym.evaluation.results import Array, Result
from mtl_gym.evaluation.styles import line

_BINS = 8
_PARTS = ("first third of the training", "second third", "last third")


@dataclass(frozen=True)
class _Quantity:
    """A property of tasks: its name, its axes' labels, and whether it is relative and plotted against the change of weights."""

    name: str
    across: str
    up: str
    relative: bool
    change: bool


_WEIGHT, _CHANGE = "weight, relative", "weight / first weight, relative"
_QUANTITIES = {
    "gap": _Quantity("improvable gap", "improvable gap, relative", _CHANGE, relative=True, change=True),
    "scale": _Quantity("loss scale", "planted loss scale, relative", _WEIGHT, relative=True, change=False),
    "noise": _Quantity("label noise", "planted label noise: fraction of wrong labels", _CHANGE, relative=False, change=True),
}


def weight_rules(results: Sequence[Result], summary: Mapping[str, Any]) -> Figure | None:
    """Weights against gap, loss scale and label noise (rows) in each third of the training (columns), a line for each policy.

    ``None`` if none of them varies, or if the results are older than the traces that this needs.
    """
    names, drawn = list(summary["policies"]), _varying(results)
    if not drawn:
        return None
    columns = fitting(len(_PARTS), 2.4)
    lines = -(-len(_PARTS) // columns)  # for each quantity
    figure = Figure(figsize=(min(page_width(), 0.6 + 4.0 * columns), 0.6 + 2.2 * lines * len(drawn)), layout="constrained")
    panels = figure.subplots(lines * len(drawn), columns, squeeze=False).reshape(len(drawn), -1)
    for row, quantity in zip(panels, drawn, strict=True):
        own = list(row[: len(_PARTS)])
        for part, (axes, title) in enumerate(zip(own, _PARTS, strict=True)):
            for name in names:
                points = [_points(result, quantity, _part(results, part)) for result in results if result.policy == name]
                x, y = binned(np.concatenate(points, axis=1), _BINS)
                axes.plot(x, np.where(y > 0, y, np.nan), **line(summary, name) | {"markersize": 3})
            axes.set_title(title)
        _finish(own, _QUANTITIES[quantity], columns)
        for axes in row[len(_PARTS) :]:
            axes.remove()
    legend(figure, panels[0, 0].get_lines()[: len(names)], names)
    return figure


def constant_quantities(results: Sequence[Result]) -> str:
    """A sentence for the caption on the constant quantities that :func:`weight_rules` omits; empty if there are none."""
    names = [quantity.name for key, quantity in _QUANTITIES.items() if key not in _varying(results)]
    return f"Not shown: {' and '.join(names)}, the same for all tasks here." if names else ""


def binned(points: Array, bins: int) -> Array:
    """Medians (2, bins) of points (2, P) in bins of about equal size; points of equal x share a bin, and empty bins are omitted."""
    x = points[0]
    _, place, counts = np.unique(x, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - counts / 2  # of each value, from 0 to P
    number = (ranks * bins / max(len(x), 1)).astype(int)[place]
    medians = [np.median(points[:, number == bin], axis=1) for bin in np.unique(number)]
    return np.stack(medians, axis=1) if medians else np.empty((2, 0))


def relative(values: Array) -> Array:
    """Values (S, K) over the geometric mean of the positive values in their row; NaN where there is none."""
    positive = values > 0
    logs = np.log(np.where(positive, values, 1)).sum(1, keepdims=True)
    count = positive.sum(1, keepdims=True)
    return np.where(count > 0, values / np.exp(logs / np.maximum(count, 1)), np.nan)


def _varying(results: Sequence[Result]) -> list[str]:
    """The quantities to plot."""
    if not all("gap" in result.curves and result.planted for result in results):
        return []
    known = {quantity: [_points(result, quantity, (0, np.inf))[0] for result in results] for quantity in _QUANTITIES}
    across = {quantity: np.concatenate(values) for quantity, values in known.items()}
    return [quantity for quantity, values in across.items() if values.size and np.ptp(values) > 1e-6]


def _part(results: Sequence[Result], part: int) -> tuple[float, float]:
    """The first (exclusive) and last step of a part of the training."""
    train_steps = max(result.curves["step"][-1] for result in results)
    return part * train_steps / len(_PARTS), (part + 1) * train_steps / len(_PARTS)


def _points(result: Result, quantity: str, steps: tuple[float, float]) -> Array:
    """Quantity and weight (2, P) of every task at the checkpoints between two steps, as plotted."""
    curves, kind, tasks = result.curves, _QUANTITIES[quantity], list(result.curves["weight"])
    weights = _table(curves["weight"], tasks)  # (S, K)
    if kind.change:
        weights = np.divide(weights, weights[:1], out=np.full_like(weights, np.nan), where=weights[:1] != 0)
    if quantity == "gap":
        across = _table(curves["gap"], tasks)
    else:
        across = np.broadcast_to([result.planted[quantity].get(task, np.nan) for task in tasks], weights.shape)
    points = np.stack([relative(across) if kind.relative else across, relative(weights)])
    first, last = steps
    there = (np.asarray(curves["step"]) > first) & (np.asarray(curves["step"]) <= last)
    points = points[:, there].reshape(2, -1)
    usable = np.isfinite(points).all(0) & ((points[0] > 0) | (not kind.relative)) & (len(tasks) > 1)  # one task has no others
    return points[:, usable]


def _table(columns: Mapping[str, Sequence[float | None]], tasks: Sequence[str]) -> Array:
    return np.array([columns[task] for task in tasks], dtype=float).T


def _finish(row: Sequence[Axes], quantity: _Quantity, columns: int) -> None:
    """Common scales, labels, and reference lines: weights that do not depend on the quantity, and weights that cancel it."""
    lines = [line.get_xydata() for axes in row for line in axes.get_lines()]
    points = np.concatenate([np.asarray(line, dtype=float) for line in lines])
    points = points[np.isfinite(points).all(1)]
    reach = _reach(points[:, 0])
    height = max(1.5, float(np.exp(np.abs(np.log(points[:, 1])).max(initial=0))) * 1.15)
    width = max(1.2, float(np.exp(np.abs(np.log(points[:, 0])).max(initial=0))) * 1.1) if quantity.relative else 0.0
    for place, axes in enumerate(row):
        axes.axhline(1, color=RULE, linewidth=0.8, zorder=1)
        log_axis(axes, 1 / height, height)
        if quantity.relative:
            axes.plot([1 / width, width], [width, 1 / width], color=RULE, linewidth=0.8, linestyle=(0, (6, 4)), zorder=1)
            log_axis(axes, 1 / width, width, name="x")
        else:
            axes.set_xlim(*reach)
            axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        if place % columns == 0:
            axes.set_ylabel(quantity.up)
        if place + columns >= len(row):
            axes.set_xlabel(quantity.across)


def _reach(across: Array) -> tuple[float, float]:
    """The common limits of axes with these positions, with a margin."""
    low, high = across.min(initial=np.inf), across.max(initial=-np.inf)
    margin = 0.05 * (high - low) or 0.05
    return (float(low - margin), float(high + margin)) if low <= high else (0.0, 1.0)

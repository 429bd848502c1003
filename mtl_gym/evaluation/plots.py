"""The figures shared by all environments: scores, gains, learning curves, weights and probabilities of improvement."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from mtl_gym.envs.looks import RULE, task_looks
from mtl_gym.envs.panels import GAINS, log_axis
from mtl_gym.evaluation.layout import MOST_DRAWN, Block, grid, heat_map, legend, name_length, page_width
from mtl_gym.evaluation.medians import median_curves
from mtl_gym.evaluation.results import Array, Result, traced_tasks
from mtl_gym.evaluation.styles import line, ranked, shortened, style, wrapped
from mtl_gym.problems.scores import relative_gain

Results = Sequence[Result]
Summary = Mapping[str, Any]

EXTREME = 10
"""Tasks at either end of the order by gain that are drawn where there are too many for all of them."""
_QUANTILES = {"worst": 0.0, "10 %": 0.1, "25 %": 0.25, "median": 0.5, "75 %": 0.75, "90 %": 0.9, "best": 1.0}
_SPREAD = {"10 % of the tasks are below": 0.1, "median task": 0.5, "10 % of the tasks are above": 0.9}
_MARKED = 6  # points of a curve from one marker to the next


def forest(results: Results, summary: Summary) -> Figure:
    """Each policy's mean delta_m with its interval, over the dots of its instances; best on top."""
    names = ranked(summary)
    values = {name: [result.delta_m for result in results if result.policy == name] for name in names}
    axes = dot_plot(summary, {name: summary["policies"][name]["delta_m"] for name in names}, values, "mean")
    axes.axvline(0, color=RULE, linewidth=1, zorder=1.9)
    axes.set_xlabel("\n".join(_joined(["delta_m, %", "0 = single-task learning", "higher is better"])))
    return axes.get_figure()  # type: ignore[return-value]


def dot_plot(summary: Summary, rows: Summary, values: Mapping[str, Sequence[float]], middle: str, unit: float = 1) -> Axes:
    """Policies from top to bottom: ``middle`` (marker), interval (bar) and instances (small dots), all multiplied by ``unit``."""
    width = min(page_width(), 9.0)
    axes = Figure(figsize=(width, 0.9 + 0.4 * len(rows)), layout="constrained").subplots()
    for place, (name, row) in enumerate(rows.items()):
        look, own = style(summary, name), [unit * value for value in values[name]]
        axes.scatter(own, np.full(len(own), place) + 0.25, s=7, color=look["color"], alpha=0.4, linewidths=0)
        if row["low"] is not None:
            axes.hlines(place, unit * row["low"], unit * row["high"], color=look["color"], linewidth=2.5)
        axes.plot(unit * row[middle], place, color=look["color"], marker=look["marker"], markersize=6.5)
    axes.set_yticks(range(len(rows)), wrapped(list(rows), name_length()))
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.locator_params(axis="x", nbins=max(3, int(width)))
    return axes


def task_gains(results: Results, summary: Summary) -> Figure:
    """Mean relative gain of each task's metrics over single-task learning, in percent; of many, quantiles and both ends."""
    names, metrics = ranked(summary), list(summary["about"]["metrics"])
    table = np.array([[_mean_gain(results, name, metric) for metric in metrics] for name in names])
    labels = [metric.replace("/", "\n") for metric in metrics]
    finite = np.abs(table[np.isfinite(table)])
    # The ninth decile sets the scale, so that one bad task does not fade all others.
    reach = max(float(np.quantile(finite, 0.9)) if finite.size else 1.0, 1e-9)
    blocks = [Block("", labels, table)] if len(metrics) <= MOST_DRAWN else _ends(table, labels)
    return heat_map(blocks, names, form="+z.1f", cmap=GAINS, norm=Normalize(-reach, reach))


def _ends(table: Array, labels: Sequence[str]) -> list[Block]:
    """Quantiles over all columns, and the columns with the lowest and the highest means over the rows."""
    known = np.isfinite(table)
    means = np.where(known, table, 0).sum(0) / known.sum(0).clip(min=1)
    order = np.argsort(np.where(known.any(0), means, np.inf), kind="stable")[: int(known.any(0).sum())]
    quantiles = _quantiles(table.T, list(_QUANTILES.values())).T
    ends = {f"the {EXTREME} lowest": order[:EXTREME], f"the {EXTREME} highest": order[::-1][:EXTREME]}
    chosen = [Block(title, [labels[place] for place in own], table[:, own]) for title, own in ends.items() if len(own)]
    return [Block(f"over all {len(labels)}", list(_QUANTILES), quantiles), *chosen]


def probability_of_improvement(results: Results, summary: Summary) -> Figure:
    """Fraction of the instances on which the row's policy is better than the column's."""
    names = ranked(summary)
    rows = [summary["policies"][name]["probability_of_improvement"] for name in names]
    table = np.array([[np.nan if row.get(other) is None else row[other] for other in names] for row in rows], dtype=float)
    return heat_map([Block("", names, table)], names, form=".2f", cmap=GAINS, norm=Normalize(0, 1))


def learning_curves(results: Results, summary: Summary) -> Figure | None:
    """Median held-out loss of each task over that before the training, a line for each policy; ``None`` without curves.

    Of many tasks, quantiles over the tasks.
    """
    tasks, names = traced_tasks(results), list(summary["policies"])
    if not tasks:
        return None
    panels = tasks if len(tasks) <= MOST_DRAWN else list(_SPREAD)
    figure, axes_of = grid(len(panels), least=2.3, height=1.9, shared="xy")
    for name in names:
        steps, curves = median_curves(results, name, tasks, "loss")
        relative = np.stack([over_first(curve) for curve in curves])  # (K, S)
        for axes, curve in zip(axes_of, relative if panels == tasks else _quantiles(relative, [*_SPREAD.values()]), strict=True):
            axes.plot(steps, curve, **line(summary, name, _MARKED))
    for axes, title in zip(axes_of, panels, strict=True):
        axes.set_title(shortened([title])[0])
    values = heights(axes_of)
    values = values[values > 0]
    log_axis(axes_of[0], values.min(initial=1.0) / 1.1, values.max(initial=1.0) * 1.1)
    return _labelled(figure, axes_of, names, "loss / loss before training")


def weight_trajectories(results: Results, summary: Summary) -> Figure | None:
    """Median fraction of each task's weight over the training, a panel for each policy; ``None`` without curves.

    Of many tasks, quantiles over the tasks.
    """
    tasks, names = traced_tasks(results), list(summary["policies"])
    if not tasks:
        return None
    many = len(tasks) > MOST_DRAWN
    shown = list(_SPREAD) if many else tasks
    looks = task_looks(shown)
    figure, panels = grid(len(names), least=2.3, height=1.7, shared="xy")
    for axes, name in zip(panels, names, strict=True):
        steps, curves = median_curves(results, name, tasks, "fraction")
        for label, curve in zip(shown, _quantiles(curves, [*_SPREAD.values()]) if many else curves, strict=True):
            axes.plot(steps[1:], curve[1:], **looks[label])
        axes.set_title(shortened([name])[0])
    values = heights(panels)
    panels[0].set_ylim(min(0.0, values.min(initial=0.0) * 1.1), max(values.max(initial=0.0), 1e-3) * 1.1)
    return _labelled(figure, panels, shown, "fraction of the weights")


def over_first(curve: Array) -> Array:
    """A curve over its first value; NaN where that or a value is not positive."""
    start = curve[0] if len(curve) and curve[0] > 0 else np.nan
    return np.asarray(np.where(curve > 0, curve, np.nan) / start)


def _quantiles(columns: Array, levels: Sequence[float]) -> Array:
    """Quantiles (L, S) of the finite values in each column (K, S); NaN where there is none."""
    known = np.asarray(np.isfinite(columns).any(0))
    result = np.full((len(levels), columns.shape[1]), np.nan)
    result[:, known] = np.nanquantile(np.where(np.isfinite(columns), columns, np.nan)[:, known], levels, axis=0)
    return result


def heights(panels: Iterable[Axes]) -> Array:
    """The finite y values of all lines."""
    lines = [own for axes in panels for own in axes.get_lines()]
    found = np.concatenate([np.asarray(own.get_ydata(), dtype=float) for own in lines])
    return found[np.isfinite(found)]


def _labelled(figure: Figure, panels: Sequence[Axes], names: Sequence[str], up: str) -> Figure:
    """The figure with a legend of the first panel's lines, and the labels of both axes."""
    legend(figure, panels[0].get_lines(), names)
    figure.supxlabel("optimiser step", fontsize=9)
    figure.supylabel(up, fontsize=9)
    return figure


def _joined(parts: Sequence[str]) -> list[str]:
    """Parts of a label in as few lines as fit a panel's width."""
    return [";  ".join(parts)] if page_width() > 6 else list(parts)


def _mean_gain(results: Results, name: str, metric: str) -> float:
    gains = [
        relative_gain(result.metrics[metric], result.references[metric], metric.rsplit("/", 1)[1])
        for result in results
        if result.policy == name and metric in result.metrics and not result.diverged
    ]
    return float(np.mean(gains)) if gains else float("nan")

"""The figures shared by all environments: scores, gains, learning curves, weights and probabilities of improvement."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mtl_gym.envs.panels import TASK_COLOURS, label_lines, line_style, log_axis
from mtl_gym.evaluation.results import Array, Result, median_curve, traced_tasks
from mtl_gym.evaluation.styles import ranked, shortened, style
from mtl_gym.problems.scores import relative_gain

Results = Sequence[Result]
Summary = Mapping[str, Any]


def forest(results: Results, summary: Summary) -> Figure:
    """Each policy's interquartile mean of delta_m with its interval, over the dots of its instances; best on top."""
    names = ranked(summary)
    values = {name: [result.delta_m for result in results if result.policy == name] for name in names}
    axes = dot_plot(summary, {name: summary["policies"][name]["delta_m"] for name in names}, values, "iqm")
    axes.axvline(0, color="#444", linewidth=1, zorder=1.9)
    axes.set_xlabel("delta_m in percent; 0 = single-task learning; higher is better")
    return axes.get_figure()  # type: ignore[return-value]


def dot_plot(summary: Summary, rows: Summary, values: Mapping[str, Sequence[float]], middle: str, unit: float = 1) -> Axes:
    """Policies from top to bottom: ``middle`` (dot), interval (bar) and instances (small dots), all multiplied by ``unit``."""
    axes = Figure(figsize=(8.6, 0.9 + 0.36 * len(rows)), layout="constrained").subplots()
    for place, (name, row) in enumerate(rows.items()):
        color, own = str(style(summary, name)["color"]), [unit * value for value in values[name]]
        axes.scatter(own, np.full(len(own), place) + 0.22, s=7, color=color, alpha=0.35, linewidths=0)
        if row["low"] is not None:
            axes.hlines(place, unit * row["low"], unit * row["high"], color=color, linewidth=3)
        axes.plot(unit * row[middle], place, "o", color=color, markersize=6)
    axes.set_yticks(range(len(rows)), shortened(list(rows)))
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    return axes


def task_gains(results: Results, summary: Summary) -> Figure:
    """Mean relative gain of each task's metrics over single-task learning, in percent."""
    names, metrics = ranked(summary), list(summary["about"]["metrics"])
    table = np.array([[_mean_gain(results, name, metric) for metric in metrics] for name in names])
    return _heat_map(table, names, [metric.replace("/", "\n") for metric in metrics], form="+.1f", colors="RdBu", centre=0.0)


def probability_of_improvement(results: Results, summary: Summary) -> Figure:
    """Fraction of the instances on which the row's policy is better than the column's."""
    names = ranked(summary)
    rows = [summary["policies"][name]["probability_of_improvement"] for name in names]
    table = np.array([[np.nan if row.get(other) is None else row[other] for other in names] for row in rows], dtype=float)
    return _heat_map(table, names, names, form=".2f", colors="PuOr_r", centre=0.5, reach=0.5)


def learning_curves(results: Results, summary: Summary) -> Figure | None:
    """Median held-out loss of each task over the training, a line for each policy; ``None`` without curves."""
    tasks, names = traced_tasks(results), list(summary["policies"])
    if not tasks:
        return None
    figure, panels = _grid(len(tasks), columns=3, height=2.3)
    for axes, task in zip(panels, tasks, strict=True):
        for name in names:
            axes.plot(*median_curve(results, name, task, "loss"), **style(summary, name))  # type: ignore[arg-type]
        axes.set_title(shortened([task])[0])
        log_axis(axes, _extreme(axes, np.min, positive=True) / 1.1, _extreme(axes, np.max, positive=True) * 1.1)
    return _labelled(figure, panels, names, columns=5, up="held-out loss")


def weight_trajectories(results: Results, summary: Summary) -> Figure | None:
    """Median fraction of each task's weight over the training, a panel for each policy; ``None`` without curves."""
    tasks, names = traced_tasks(results), list(summary["policies"])
    if not tasks:
        return None
    figure, panels = _grid(len(names), columns=4, height=1.9)
    for axes, name in zip(panels, names, strict=True):
        for number, task in enumerate(tasks):
            steps, fractions = median_curve(results, name, task, "fraction")
            axes.plot(steps[1:], fractions[1:], **line_style(TASK_COLOURS, number))  # type: ignore[arg-type]
        axes.set_title(shortened([name])[0])
        axes.set_ylim(min(0.0, _extreme(axes, np.min) * 1.1), None)
    return _labelled(figure, panels, tasks, columns=7, up="fraction of the weights")


def _labelled(figure: Figure, panels: Sequence[Axes], names: Sequence[str], *, columns: int, up: str) -> Figure:
    label_lines(figure, list(panels[0].get_lines()), shortened(names), columns=columns, place="outside upper left")
    figure.supxlabel("optimiser step", fontsize=9)
    figure.supylabel(up, fontsize=9)
    return figure


def _mean_gain(results: Results, name: str, metric: str) -> float:
    gains = [
        relative_gain(result.metrics[metric], result.references[metric], metric.rsplit("/", 1)[1])
        for result in results
        if result.policy == name and metric in result.metrics and not result.diverged
    ]
    return float(np.mean(gains)) if gains else float("nan")


def _extreme(axes: Axes, choose: Callable[[Array], Any], *, positive: bool = False) -> float:
    """The smallest or largest finite (and positive) value of all lines; 1 if there is none."""
    heights = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in axes.get_lines()])
    heights = heights[np.isfinite(heights) & ((heights > 0) | (not positive))]
    return float(choose(heights)) if heights.size else 1.0


def _grid(count: int, *, columns: int, height: float) -> tuple[Figure, list[Axes]]:
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(10.5, 0.8 + height * rows), layout="constrained")
    panels = list(figure.subplots(rows, columns, sharex=True, squeeze=False).ravel())
    for axes in panels[count:]:
        axes.set_axis_off()
    return figure, panels[:count]


def _heat_map(
    table: Array, rows: Sequence[str], columns: Sequence[str], *, form: str, colors: str, centre: float, reach: float | None = None
) -> Figure:
    """An annotated table, colored around ``centre``."""
    rows, columns = shortened(rows), shortened(columns)
    slanted = max(map(len, columns)) >= 26
    size = (2.0 + 0.05 * max(map(len, rows)) + 0.85 * len(columns), 0.9 + 0.34 * len(rows) + 1.5 * slanted)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    finite = np.abs(table[np.isfinite(table)] - centre)
    # The ninth decile sets the scale, so that one bad task does not fade all others.
    reach = reach or max(float(np.quantile(finite, 0.9)) if finite.size else 1.0, 1e-9)
    axes.imshow(table, cmap=colors, vmin=centre - reach, vmax=centre + reach, aspect="auto")
    for (row, column), value in np.ndenumerate(table):
        dark = abs(value - centre) > 0.6 * reach
        text = format(value, form) if np.isfinite(value) else ""
        axes.text(column, row, text, ha="center", va="center", color="white" if dark else "#222")
    axes.set_xticks(range(len(columns)), columns, rotation=45 if slanted else 0)
    axes.set_yticks(range(len(rows)), rows)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    return figure

"""Figures of a comparison, as SVG for a page."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mtl_gym.envs.panels import TASK_COLOURS, label_lines, line_style, log_axis
from mtl_gym.evaluation.grouping_plots import data_maps, groups, memberships, regret
from mtl_gym.evaluation.results import Result
from mtl_gym.evaluation.sample_plots import separations
from mtl_gym.evaluation.structure_plots import front, merged_layers, similarities
from mtl_gym.evaluation.styles import SETTINGS, shortened, style
from mtl_gym.evaluation.weight_rules import weight_rules
from mtl_gym.problems.metrics import relative_gain

Array = npt.NDArray[np.float64]
Results = Sequence[Result]
Summary = Mapping[str, Any]


def figures(results: Results, summary: Summary) -> dict[str, str]:
    """All figures as SVG texts, by name; those that have nothing to show are left out."""
    draws: dict[str, Callable[[Results, Summary], Figure | None]] = {
        "forest": forest,
        "gains": task_gains,
        "curves": learning_curves,
        "weights": weight_trajectories,
        "samples": separations,
        "front": front,
        "structures": merged_layers,
        "similarities": similarities,
        "regret": regret,
        "groups": groups,
        "memberships": memberships,
        "data_maps": data_maps,
        "rules": weight_rules,
        "probability": probability_of_improvement,
    }
    with matplotlib.rc_context({"font.family": "sans-serif"}):
        matplotlib.rcParams.update(SETTINGS)
        idle = _idle(results)
        drawn = {name: draw(results, summary) for name, draw in draws.items() if name not in idle}
        return {name: _svg(figure) for name, figure in drawn.items() if figure}


def _idle(results: Results) -> tuple[str, ...]:
    """Figures that would say nothing."""
    if any(result.grouping for result in results):
        return ("curves", "weights", "rules", "samples")  # groups are trained at once
    return ("weights", "rules") if any(result.structure for result in results) else ()  # all weights are 1


def forest(results: Results, summary: Summary) -> Figure:
    """Each policy's interquartile mean of delta_m with its interval, over the dots of its instances; best on top."""
    names = ranked(summary)
    figure = Figure(figsize=(8.6, 0.9 + 0.36 * len(names)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color="#444", linewidth=1)
    for place, name in enumerate(names):
        row, colour = summary["policies"][name]["delta_m"], str(style(summary, name)["color"])
        values = [result.delta_m for result in results if result.policy == name]
        axes.scatter(values, np.full(len(values), place) + 0.22, s=7, color=colour, alpha=0.35, linewidths=0)
        if row["low"] is not None:
            axes.hlines(place, row["low"], row["high"], color=colour, linewidth=3)
        axes.plot(row["iqm"], place, "o", color=colour, markersize=6)
    axes.set_yticks(range(len(names)), shortened(names))
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("delta_m in percent; 0 = single-task learning; higher is better")
    return figure


def task_gains(results: Results, summary: Summary) -> Figure:
    """Mean relative gain of each task's metrics over single-task learning, in percent."""
    names, metrics = ranked(summary), list(summary["about"]["metrics"])
    table = np.array([[_mean_gain(results, name, metric) for metric in metrics] for name in names])
    labels = [metric.replace("/", "\n") for metric in metrics]
    return _heat_map(table, names, labels, form="+.1f", colours="RdBu", centre=0.0)


def probability_of_improvement(results: Results, summary: Summary) -> Figure:
    """Share of the instances on which the row's policy is better than the column's."""
    names = ranked(summary)
    rows = [summary["policies"][name]["probability_of_improvement"] for name in names]
    table = np.array([[np.nan if row.get(other) is None else row[other] for other in names] for row in rows], dtype=float)
    return _heat_map(table, names, names, form=".2f", colours="PuOr_r", centre=0.5, reach=0.5)


def learning_curves(results: Results, summary: Summary) -> Figure:
    """Median held-out loss of each task over the training, a line for each policy."""
    tasks, names = _tasks(results), list(summary["policies"])
    figure, panels = _grid(len(tasks), columns=3, height=2.3)
    for axes, task in zip(panels, tasks, strict=True):
        for name in names:
            axes.plot(*_median_curve(results, name, task, "loss"), **style(summary, name))  # type: ignore[arg-type]
        axes.set_title(shortened([task])[0])
        _log_axis(axes)
    label_lines(figure, list(panels[0].get_lines()), shortened(names), columns=5, place="outside upper left")
    figure.supxlabel("optimiser step", fontsize=9)
    figure.supylabel("held-out loss", fontsize=9)
    return figure


def weight_trajectories(results: Results, summary: Summary) -> Figure:
    """Median share of each task's weight over the training, a panel for each policy."""
    tasks, names = _tasks(results), list(summary["policies"])
    figure, panels = _grid(len(names), columns=4, height=1.9)
    for axes, name in zip(panels, names, strict=True):
        for number, task in enumerate(tasks):
            steps, shares = _median_curve(results, name, task, "share")
            axes.plot(steps[1:], shares[1:], **line_style(TASK_COLOURS, number))  # type: ignore[arg-type]
        axes.set_title(shortened([name])[0])
        axes.set_ylim(min(0.0, _extreme(axes, np.min) * 1.1), None)
    label_lines(figure, list(panels[0].get_lines()), shortened(tasks), columns=7, place="outside upper left")
    figure.supxlabel("optimiser step", fontsize=9)
    figure.supylabel("share of the weights", fontsize=9)
    return figure


def ranked(summary: Summary) -> list[str]:
    """The policies, best first."""
    return sorted(summary["policies"], key=lambda name: -summary["policies"][name]["delta_m"]["iqm"])


def _tasks(results: Results) -> list[str]:
    return list(dict.fromkeys(task for result in results for task in result.curves["loss"]))


def _mean_gain(results: Results, name: str, metric: str) -> float:
    gains = [
        relative_gain(result.metrics[metric], result.references[metric], metric.rsplit("/", 1)[1])
        for result in results
        if result.policy == name and metric in result.metrics and not result.diverged
    ]
    return float(np.mean(gains)) if gains else float("nan")


def _median_curve(results: Results, name: str, task: str, what: str) -> tuple[Array, Array]:
    """Steps and medians over the instances that got so far; a ``share`` is the weight's part of their absolute sum."""
    curves = [result.curves for result in results if result.policy == name and task in result.curves["loss"]]
    longest: list[int] = max((curve["step"] for curve in curves), key=len, default=[])
    columns = []
    for place in range(len(longest)):
        values = [_value(curve, task, what, place) for curve in curves if len(curve["step"]) > place]
        finite = [value for value in values if value is not None and np.isfinite(value)]
        columns.append(float(np.median(finite)) if finite else np.nan)
    return np.asarray(longest, dtype=float), np.asarray(columns, dtype=float)


def _value(curve: Mapping[str, Any], task: str, what: str, place: int) -> float | None:
    if what == "loss":
        return curve["loss"][task][place]
    weights = [own[place] for own in curve["weight"].values()]
    total = sum(abs(weight) for weight in weights if weight is not None)
    own = curve["weight"][task][place]
    return None if own is None or total == 0 else own / total


def _extreme(axes: Axes, choose: Callable[[Array], Any], *, positive: bool = False) -> float:
    """The least or largest finite (and positive) height of all lines; 1 if there is none."""
    heights = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in axes.get_lines()])
    heights = heights[np.isfinite(heights) & ((heights > 0) | (not positive))]
    return float(choose(heights)) if heights.size else 1.0


def _log_axis(axes: Axes) -> None:
    log_axis(axes, _extreme(axes, np.min, positive=True) / 1.1, _extreme(axes, np.max, positive=True) * 1.1)


def _grid(count: int, *, columns: int, height: float) -> tuple[Figure, list[Axes]]:
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(10.5, 0.8 + height * rows), layout="constrained")
    panels = list(figure.subplots(rows, columns, sharex=True, squeeze=False).ravel())
    for axes in panels[count:]:
        axes.set_axis_off()
    return figure, panels[:count]


def _heat_map(
    table: Array, rows: Sequence[str], columns: Sequence[str], *, form: str, colours: str, centre: float, reach: float | None = None
) -> Figure:
    """An annotated table, coloured around ``centre``."""
    rows, columns = shortened(rows), shortened(columns)
    slanted = max(map(len, columns)) >= 26
    size = (2.0 + 0.05 * max(map(len, rows)) + 0.85 * len(columns), 0.9 + 0.34 * len(rows) + 1.5 * slanted)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    finite = np.abs(table[np.isfinite(table)] - centre)
    # The ninth decile sets the scale, so that one bad task does not make all others pale.
    reach = reach or max(float(np.quantile(finite, 0.9)) if finite.size else 1.0, 1e-9)
    axes.imshow(table, cmap=colours, vmin=centre - reach, vmax=centre + reach, aspect="auto")
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


def _svg(figure: Figure) -> str:
    stream = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # the browser draws the text, with its own fonts
        figure.savefig(stream, format="svg", metadata={"Date": None})
    text = stream.getvalue()
    text = re.sub(r'="[^"<>]*"', _rounded, text[text.index("<svg") :])
    return re.sub(r'<svg ([^>]*?)height="[^"]*"([^>]*?)width="[^"]*"', r"<svg \1\2", text)


def _rounded(attribute: re.Match[str]) -> str:
    """An attribute's numbers to a hundredth of a point; what is written in the figure is left alone."""
    return re.sub(r"(\d+\.\d{2})\d+", r"\1", attribute.group())

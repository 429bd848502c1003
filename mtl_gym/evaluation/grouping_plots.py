"""Figures of task grouping: data maps, memberships, co-grouping frequency and regret."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mtl_gym.envs.panels import TASK_COLOURS, draw_memberships, label_lines, line_style
from mtl_gym.evaluation.plots import Results, Summary, dot_plot
from mtl_gym.evaluation.results import Array, outcomes
from mtl_gym.evaluation.styles import shortened

_MOST_NAMED = 24  # most tasks with labels in a figure; more are sorted by name
_PER_LINE = 4  # heat maps per row


def data_maps(results: Results, summary: Summary) -> Figure | None:
    """Mean confidence against mean variability of each task during the warm-up, for the first instance with data maps."""
    known = next((result for result in results if "confidence" in result.outcome), None)
    if known is None:
        return None
    tasks, few = known.outcome["tasks"], len(known.outcome["tasks"]) <= _MOST_NAMED
    figure = Figure(figsize=(8.6, 4.4), layout="constrained")
    axes = figure.subplots()
    lines = []
    for place, (heights, across) in enumerate(zip(known.outcome["confidence"], known.outcome["variability"], strict=True)):
        look = line_style(TASK_COLOURS, place) if few else {"color": TASK_COLOURS[0], "alpha": 0.5}
        axes.plot(across[-1], heights[-1], "o", markersize=5 if few else 3, zorder=3, **{**look, "linestyle": ""})  # type: ignore[arg-type]
        lines += axes.plot(across, heights, linewidth=1.1 if few else 0.5, **look)  # type: ignore[arg-type]
    axes.set(title=f"instance {known.instance}", xlabel="variability, mean over samples", ylabel="confidence, mean over samples")
    if few:
        label_lines(figure, lines, shortened(tasks), columns=1, place="outside right upper")
    return figure


def memberships(results: Results, summary: Summary) -> Figure | None:
    """Each policy's memberships of tasks in groups, on its first instance."""
    firsts = {name: own[0] for name, own in outcomes(results, "memberships").items()}
    if not firsts:
        return None
    names = firsts[next(iter(firsts))]["tasks"]
    figure, panels = _heat_maps(len(firsts), width=1.7, height=min(max(0.13 * len(names), 1.3), 2.6))
    for place, (axes, (name, own)) in enumerate(zip(panels, firsts.items(), strict=True)):
        order = range(len(names)) if len(names) <= _MOST_NAMED else np.argsort(own["tasks"])
        table = np.asarray(own["memberships"])[order]
        named = own["tasks"] if place % _PER_LINE == 0 and len(names) <= _MOST_NAMED else None
        draw_memberships(axes, table[:, : max(int((table > 0).any(0).sum()), 1)], named)
        axes.set_title(shortened([name])[0], fontsize=8)
    return figure


def groups(results: Results, summary: Summary) -> Figure | None:
    """For each policy, how often two tasks share a group among the instances with both."""
    known = outcomes(results, "groups")
    if not known:
        return None
    first = next(iter(known.values()))[0]["tasks"]
    drawn = {task for own in known.values() for row in own for task in row["tasks"]}
    tasks = first if len(drawn) <= _MOST_NAMED and len(drawn) == len(first) else sorted(drawn)
    figure, panels = _heat_maps(len(known), width=1.9, height=1.9)
    for place, (axes, (name, own)) in enumerate(zip(panels, known.items(), strict=True)):
        image = axes.imshow(together(own, tasks), vmin=0, vmax=1, cmap="cividis", interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        axes.set_facecolor("#dddddd")
        axes.grid(visible=False)
        if place % _PER_LINE == 0 and len(tasks) <= _MOST_NAMED:
            _name_rows(axes, tasks)
        axes.set_title(shortened([name])[0], fontsize=8)
    figure.colorbar(image, ax=panels, shrink=0.6, aspect=30, label="fraction of the instances")
    return figure


def regret(results: Results, summary: Summary) -> Figure | None:
    """Each policy's regret: mean with interval, over the dots of the instances."""
    rows = {name: row["regret"] for name, row in summary["policies"].items() if row.get("regret", {}).get("mean") is not None}
    if not rows:
        return None
    ordered = dict(sorted(rows.items(), key=lambda row: float(row[1]["mean"])))
    values = {name: [own["regret"] for own in outcomes(results, "regret")[name]] for name in ordered}
    axes = dot_plot(summary, ordered, values, "mean", unit=100)
    axes.set_xlim(left=min(0, *axes.get_xlim()))
    axes.set_xlabel("regret, percentage points of gain over joint training; 0 = the best grouping; lower is better")
    return axes.get_figure()  # type: ignore[return-value]


def together(own: Sequence[Mapping[str, Any]], tasks: Sequence[str]) -> Array:
    """Fraction (T, T) of the instances with two tasks in which they share a group; NaN where there is none."""
    place = {task: number for number, task in enumerate(tasks)}
    same, both = np.zeros((2, len(tasks), len(tasks)))
    for row in own:
        here, labels = [place[task] for task in row["tasks"]], np.asarray(row["groups"])
        same[np.ix_(here, here)] += labels[:, None] == labels
        both[np.ix_(here, here)] += 1
    return np.asarray(np.where(both > 0, same / np.maximum(both, 1), np.nan))


def _heat_maps(count: int, *, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure with ``count`` panels of this size in inches, with room for titles above and names on the left."""
    columns, lines = min(count, _PER_LINE), -(-count // _PER_LINE)
    figure = Figure(figsize=(1.3 + width * columns, 0.2 + (0.35 + height) * lines), layout="constrained")
    panels = list(figure.subplots(lines, columns, squeeze=False).flat)
    for axes in panels[count:]:
        axes.set_visible(False)
    return figure, panels[:count]


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), shortened(names), fontsize=6.5)
    axes.tick_params(length=0)
    for label in axes.get_yticklabels():
        label.set_parse_math(False)

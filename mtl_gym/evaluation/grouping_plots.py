"""Figures of task grouping: data maps, memberships, co-grouping frequency and regret."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mtl_gym.envs.looks import FAINT, TASK_COLOURS, task_looks
from mtl_gym.envs.panels import SHARES, draw_memberships
from mtl_gym.evaluation.layout import (
    MOST_DRAWN,
    fitting,
    grid,
    label_columns,
    label_sparsely,
    legend,
    name_x,
    page_width,
    with_scale,
)
from mtl_gym.evaluation.plots import Results, Summary, dot_plot
from mtl_gym.evaluation.results import Array, outcomes
from mtl_gym.evaluation.styles import shortened

_LEAST = 1.9  # width of a heat map in inches
_SIZES = (1.4, 3.0)  # least and largest height of a heat map in inches


def data_maps(results: Results, summary: Summary) -> Figure | None:
    """Mean confidence against mean variability of each task during the warm-up, for the first instance with data maps."""
    known = next((result for result in results if "confidence" in result.outcome), None)
    if known is None:
        return None
    tasks, few = known.outcome["tasks"], len(known.outcome["tasks"]) <= MOST_DRAWN
    figure = Figure(figsize=(min(page_width(), 8.6), 4.0), layout="constrained")
    axes, looks = figure.subplots(), task_looks(tasks)
    lines = []
    for task, heights, across in zip(tasks, known.outcome["confidence"], known.outcome["variability"], strict=True):
        look: dict[str, Any] = looks[task] if few else {"color": TASK_COLOURS[0], "alpha": 0.5}
        axes.plot(across[-1], heights[-1], **(look | {"linestyle": ""}), marker="o", markersize=5 if few else 3, zorder=3)
        lines += axes.plot(across, heights, linewidth=1.1 if few else 0.5, **look)
    axes.set(title=f"instance {known.instance}", xlabel="variability, mean over samples", ylabel="confidence, mean over samples")
    if few:
        legend(figure, lines, tasks)
    return figure


def memberships(results: Results, summary: Summary) -> Figure | None:
    """Each policy's memberships of tasks in groups, on its first instance."""
    firsts = {name: own[0] for name, own in outcomes(results, "memberships").items()}
    if not firsts:
        return None
    count = len(next(iter(firsts.values()))["tasks"])
    figure, panels, height = _heat_maps(len(firsts), count)
    for place, (axes, (name, own)) in enumerate(zip(panels, firsts.items(), strict=True)):
        order = list(range(count))
        if count > MOST_DRAWN:
            order.sort(key=own["tasks"].__getitem__)
        table = np.asarray(own["memberships"])[order]
        draw_memberships(axes, table[:, : max(int((table > 0).any(0).sum()), 1)], None)
        if _first_of_a_line(place, len(firsts)):
            label_sparsely(axes.yaxis, [own["tasks"][task] for task in order], height)
        axes.set_title(shortened([name])[0])
    return with_scale(figure, panels, "membership")


def groups(results: Results, summary: Summary) -> Figure | None:
    """For each policy, how often two tasks share a group among the instances with both."""
    known = outcomes(results, "groups")
    if not known:
        return None
    first = next(iter(known.values()))[0]["tasks"]
    drawn = {task for own in known.values() for row in own for task in row["tasks"]}
    tasks = first if len(drawn) <= MOST_DRAWN and len(drawn) == len(first) else sorted(drawn)
    figure, panels, height = _heat_maps(len(known), len(tasks))
    for place, (axes, (name, own)) in enumerate(zip(panels, known.items(), strict=True)):
        axes.imshow(
            together(own, tasks), vmin=0, vmax=1, cmap=SHARES.with_extremes(bad=FAINT), interpolation="nearest", aspect="auto"
        )
        axes.set(xticks=[], yticks=[])
        axes.grid(visible=False)
        axes.spines[:].set_visible(True)
        if _first_of_a_line(place, len(known)):
            label_sparsely(axes.yaxis, tasks, height)
        axes.set_title(shortened([name])[0])
    columns = fitting(len(known), _LEAST)
    label_columns(panels, columns, tasks, 0.6 * figure.get_figwidth() / columns)
    return with_scale(figure, panels, "fraction of the instances")


def regret(results: Results, summary: Summary) -> Figure | None:
    """Each policy's regret: mean with interval, over the dots of the instances."""
    rows = {name: row["regret"] for name, row in summary["policies"].items() if row.get("regret", {}).get("mean") is not None}
    if not rows:
        return None
    ordered = dict(sorted(rows.items(), key=lambda row: float(row[1]["mean"])))
    values = {name: [own["regret"] for own in outcomes(results, "regret")[name]] for name in ordered}
    axes = dot_plot(summary, ordered, values, "mean", unit=100)
    axes.set_xlim(left=min(0, *axes.get_xlim()))
    name_x(axes, "regret, percentage points of gain over joint training; 0 = the best grouping; lower is better")
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


def _heat_maps(count: int, tasks: int) -> tuple[Figure, list[Axes], float]:
    """A figure with ``count`` panels for heat maps with a row for each task, and the panels' height in inches."""
    height = min(max(0.14 * tasks, _SIZES[0]), _SIZES[1])
    return *grid(count, least=_LEAST, height=height + 0.4), height


def _first_of_a_line(place: int, count: int) -> bool:
    return place % fitting(count, _LEAST) == 0

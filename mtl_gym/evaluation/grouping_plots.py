"""Tasks that were grouped, to look at: their data maps, memberships, who is with whom, and what was missed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mtl_gym.envs.panels import TASK_COLOURS, draw_memberships, label_lines, line_style
from mtl_gym.evaluation.results import Result
from mtl_gym.evaluation.styles import shortened, style

Array = npt.NDArray[np.float64]
Results = Sequence[Result]
Summary = Mapping[str, Any]

_MOST_NAMED = 24  # tasks that are named in a figure; more are sorted by their names
_PER_LINE = 4  # heat maps in a row


def data_maps(results: Results, summary: Summary) -> Figure | None:
    """Mean confidence over mean variability of each task through the warm-up of the first instance that shows it."""
    known = next((result for result in results if "confidence" in result.grouping), None)
    if known is None:
        return None
    tasks, few = known.grouping["tasks"], len(known.grouping["tasks"]) <= _MOST_NAMED
    figure = Figure(figsize=(8.6, 4.4), layout="constrained")
    axes = figure.subplots()
    lines = []
    for place, (heights, across) in enumerate(zip(known.grouping["confidence"], known.grouping["variability"], strict=True)):
        look = line_style(TASK_COLOURS, place) if few else {"color": TASK_COLOURS[0], "alpha": 0.5}
        axes.plot(across[-1], heights[-1], "o", markersize=5 if few else 3, zorder=3, **{**look, "linestyle": ""})  # type: ignore[arg-type]
        lines += axes.plot(across, heights, linewidth=1.1 if few else 0.5, **look)  # type: ignore[arg-type]
    axes.set(title=f"instance {known.instance}", xlabel="variability, mean over samples", ylabel="confidence, mean over samples")
    if few:
        label_lines(figure, lines, shortened(tasks), columns=1, place="outside right upper")
    return figure


def memberships(results: Results, summary: Summary) -> Figure | None:
    """Each policy's memberships of the tasks in the groups, of its first instance."""
    firsts = {name: own[0] for name, own in _by_policy(results).items()}
    if not firsts:
        return None
    names = firsts[next(iter(firsts))]["tasks"]
    figure, panels = _heat_maps(len(firsts), width=1.7, height=min(max(0.13 * len(names), 1.3), 2.6))
    for place, (axes, (name, own)) in enumerate(zip(panels, firsts.items(), strict=True)):
        order = range(len(names)) if len(names) <= _MOST_NAMED else np.argsort(own["tasks"])
        shares = np.asarray(own["memberships"])[order]
        named = own["tasks"] if place % _PER_LINE == 0 and len(names) <= _MOST_NAMED else None
        draw_memberships(axes, shares[:, : max(int((shares > 0).any(0).sum()), 1)], named)
        axes.set_title(shortened([name])[0], fontsize=8)
    return figure


def groups(results: Results, summary: Summary) -> Figure | None:
    """How often two tasks are in one group, of the instances in which both take part, for each policy."""
    known = _by_policy(results)
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
    figure.colorbar(image, ax=panels, shrink=0.6, aspect=30, label="share of the instances")
    return figure


def regret(results: Results, summary: Summary) -> Figure | None:
    """What each policy's return falls short of the best grouping's: means with intervals, over the dots of the instances."""
    rows = {name: row["regret"] for name, row in summary["policies"].items() if row.get("regret", {}).get("mean") is not None}
    if not rows:
        return None
    names = sorted(rows, key=lambda name: float(rows[name]["mean"]))
    figure = Figure(figsize=(8.6, 0.9 + 0.36 * len(names)), layout="constrained")
    axes = figure.subplots()
    for place, name in enumerate(names):
        row, colour = rows[name], str(style(summary, name)["color"])
        values = [100 * own.grouping["regret"] for own in results if own.policy == name and "regret" in own.grouping]
        axes.scatter(values, np.full(len(values), place) + 0.22, s=7, color=colour, alpha=0.35, linewidths=0)
        if row["low"] is not None:
            axes.hlines(place, 100 * row["low"], 100 * row["high"], color=colour, linewidth=3)
        axes.plot(100 * row["mean"], place, "o", color=colour, markersize=6)
    axes.set_yticks(range(len(names)), shortened(names))
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(left=min(0, *axes.get_xlim()))
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("regret in percent of what all together reach; 0 = the best grouping; lower is better")
    return figure


def together(own: Sequence[Mapping[str, Any]], tasks: Sequence[str]) -> Array:
    """Share (T, T) of the instances in which two of the named tasks are in one group, of those in which both take part."""
    place = {task: number for number, task in enumerate(tasks)}
    same, both = np.zeros((2, len(tasks), len(tasks)))
    for row in own:
        here, labels = [place[task] for task in row["tasks"]], np.asarray(row["groups"])
        same[np.ix_(here, here)] += labels[:, None] == labels
        both[np.ix_(here, here)] += 1
    shares: Array = np.where(both > 0, same / np.maximum(both, 1), np.nan)
    return shares


def _by_policy(results: Results) -> dict[str, list[dict[str, Any]]]:
    known: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        if result.grouping:
            known.setdefault(result.policy, []).append(result.grouping)
    return known


def _heat_maps(count: int, *, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels of that size in inches, with titles above and names at the left."""
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

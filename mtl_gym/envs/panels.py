"""Building blocks of rendered images and of plots on pages: colours, axes, legends, trees, heat maps and data maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

TASK_COLOURS = ("#332288", "#CC6677", "#44AA99", "#DDAA33", "#AA4499", "#6FB7E0", "#117733", "#882255", "#777777")
"""Tol's muted colour-blind-safe scheme, with the pale yellow darkened to be visible on white."""
LINE_STYLES = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)))
"""When the colours are used up, they repeat in the next style."""

_LONGEST_NAME = 16  # characters of a task's name
_MOST_NUMBERS = 8  # largest heat map, in rows, with written numbers


def line_style(colours: tuple[str, ...], index: int) -> dict[str, object]:
    """Colour and dashes of a line; they repeat only after all combinations have been used."""
    return {"color": colours[index % len(colours)], "linestyle": LINE_STYLES[index // len(colours) % len(LINE_STYLES)]}


def log_axis(axes: Axes, low: float, high: float, *, name: str = "y") -> None:
    """Makes the named axis logarithmic from ``low`` to ``high``, both positive, with a few plain tick labels."""
    ratio = high / low
    ticks = MaxNLocator(4) if ratio < 5 else LogLocator(subs=(1, 2, 5)) if ratio < 200 else LogLocator()
    axes.set(**{f"{name}lim": (low, high)})  # first, since a scale warns of lines without positive values
    axes.set(**{f"{name}scale": "log"})
    axis: Axis = getattr(axes, f"{name}axis")
    axis.set_major_locator(ticks)
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))


def label_lines(figure: Figure, lines: list[Line2D], labels: list[str], *, columns: int, place: str) -> None:
    """Adds a legend to the figure. Labels are set afterwards, since matplotlib omits those that start with an underscore."""
    where: Any = place  # matplotlib's type lists all places
    legend = figure.legend(lines, ["-"] * len(lines), ncols=columns, loc=where, frameon=False)
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set_parse_math(False)
        text.set_text(label)


def short(name: str) -> str:
    """A task's name, truncated if it is too long for an image."""
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


def draw_tree(axes: Axes, assign: npt.NDArray[Any], names: Sequence[str]) -> None:
    """Draws which tasks share which stages as a tree, from the inputs on the left to the tasks' heads on the right.

    ``assign`` (S, K) is the lowest task that shares a task's copy of the stage.
    """
    stages, count = assign.shape
    order = sorted(range(count), key=lambda task: (*assign[:, task].tolist(), task))
    places = np.empty(count)
    places[order] = np.arange(count)
    nodes = np.stack([[places[row == row[task]].mean() for task in range(count)] for row in assign])  # (S, K)
    heights = np.vstack([np.full(count, places.mean()), nodes, places])
    for task in range(count):
        axes.plot(range(stages + 2), heights[:, task], color="#999999", linewidth=1.0, zorder=1)
        axes.plot(stages + 1, places[task], "o", color=TASK_COLOURS[task % len(TASK_COLOURS)], markersize=5, zorder=2)
        axes.text(stages + 1.15, places[task], short(names[task]), va="center", fontsize=8, parse_math=False)
    for stage, row in enumerate(assign):
        for copy in np.unique(row):
            tasks = np.flatnonzero(row == copy)
            colour = TASK_COLOURS[copy % len(TASK_COLOURS)] if len(tasks) == 1 else "#333333"
            axes.plot(stage + 1, nodes[stage, tasks[0]], "o", color=colour, markersize=min(3.5 + 1.5 * len(tasks), 12), zorder=2)
    axes.set(xlim=(-0.2, stages + 2.3), ylim=(count - 0.5, -0.5), yticks=[], xticks=range(1, stages + 1))
    labels = [f"stage {stage}" if stages <= 3 else str(stage) for stage in range(1, stages + 1)]
    axes.set_xticklabels(labels, fontsize=7)
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def _name_rows(axes: Axes, names: Sequence[str] | None) -> None:
    """Writes tasks' names, if given, to the left of a heat map without a grid."""
    axes.grid(visible=False)
    if names is not None:
        axes.set_yticks(range(len(names)), [short(name) for name in names], fontsize=6.5)
        axes.tick_params(length=0)
        for label in axes.get_yticklabels():
            label.set_parse_math(False)


def draw_similarity(axes: Axes, values: npt.NDArray[Any], names: Sequence[str] | None) -> None:
    """Draws a matrix (K, K) of numbers in [0, 1] as a heat map, with the tasks' names, if given, to the left."""
    axes.imshow(np.clip(values, 0, 1), vmin=0, vmax=1, cmap="cividis")
    for (row, column), value in np.ndenumerate(values):
        if len(values) <= _MOST_NUMBERS:
            colour = "#000000" if value > 0.6 else "#ffffff"
            axes.text(column, row, f"{value:.2f}".replace("0.", "."), ha="center", va="center", fontsize=5.5, color=colour)
    axes.set(xticks=[], yticks=[])
    _name_rows(axes, names)


def draw_memberships(axes: Axes, memberships: npt.NDArray[Any], names: Sequence[str] | None) -> None:
    """Draws the membership (K, C) of each task in each group as a heat map, with the tasks' names, if given, to the left."""
    axes.imshow(memberships, vmin=0, vmax=1, cmap="cividis", aspect="auto", interpolation="nearest")
    axes.set(xticks=[], yticks=[], xlabel="group")
    _name_rows(axes, names)


def draw_data_map(axes: Axes, map_: npt.NDArray[Any], colour: str) -> None:
    """Draws a task's data map (n, 2): one dot per training sample, variability on the x axis, confidence on the y axis."""
    axes.scatter(map_[:, 1], map_[:, 0], s=3, alpha=0.25, linewidths=0, color=colour)
    axes.set(xlim=(-0.02, 0.62), ylim=(-0.03, 1.03), xticks=[], yticks=[])

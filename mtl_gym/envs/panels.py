"""Building blocks of rendered images and of plots on pages: colours, axes, legends, trees, heat maps and data maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import LinearSegmentedColormap, to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from mtl_gym.envs.looks import BETTER, INK, RULE, WORSE

SHARES = LinearSegmentedColormap.from_list("shares", [to_rgba(BETTER, 0.0), to_rgba(BETTER, 0.85)])
"""Of values from 0, transparent, to 1."""
_OF_GAINS = [(0.0, to_rgba(WORSE, 0.8)), (0.5, to_rgba(WORSE, 0.0)), (0.5, to_rgba(BETTER, 0.0)), (1.0, to_rgba(BETTER, 0.8))]
GAINS = LinearSegmentedColormap.from_list("gains", _OF_GAINS)
"""Of values below and above a neutral one, which is transparent: any background shows, and texts keep their colour."""

_LONGEST_NAME = 16  # characters of a task's name
_MOST_NUMBERS = 6  # largest heat map, in rows, with written numbers
_MOST_GROUPS = 8  # numbers of groups below a heat map


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


def draw_tree(axes: Axes, assign: npt.NDArray[Any], names: Sequence[str], looks: Mapping[str, Mapping[str, Any]]) -> None:
    """Draws which tasks share which stages as a tree, from the inputs on the left to the tasks' heads on the right.

    ``assign`` (S, K) is the lowest task that shares a task's copy of the stage; ``looks`` are :func:`task_looks`.
    """
    stages, count = assign.shape
    order = sorted(range(count), key=lambda task: (*assign[:, task].tolist(), task))
    places = np.empty(count)
    places[order] = np.arange(count)
    nodes = np.stack([[places[row == row[task]].mean() for task in range(count)] for row in assign])  # (S, K)
    heights = np.vstack([np.full(count, places.mean()), nodes, places])
    for task in range(count):
        axes.plot(range(stages + 2), heights[:, task], color=RULE, linewidth=1.0, zorder=1)
        axes.plot(stages + 1, places[task], "o", color=looks[names[task]]["color"], markersize=5, zorder=2)
        axes.text(stages + 1.15, places[task], short(names[task]), va="center", fontsize=8, parse_math=False)
    for stage, row in enumerate(assign):
        for copy in np.unique(row):
            tasks = np.flatnonzero(row == copy)
            colour = looks[names[copy]]["color"] if len(tasks) == 1 else INK
            axes.plot(stage + 1, nodes[stage, tasks[0]], "o", color=colour, markersize=min(3.5 + 1.5 * len(tasks), 12), zorder=2)
    axes.set(xlim=(-0.2, stages + 2.3), ylim=(count - 0.5, -0.5), yticks=[], xticks=range(1, stages + 1))
    labels = [f"stage {stage}" if stages <= 3 else str(stage) for stage in range(1, stages + 1)]
    axes.set_xticklabels(labels, fontsize=8)
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def name_rows(axes: Axes, names: Sequence[str] | None) -> None:
    """Writes tasks' names, if given, to the left of a heat map without a grid."""
    axes.grid(visible=False)
    axes.spines[:].set_visible(True)
    if names is not None:
        axes.set_yticks(range(len(names)), [short(name) for name in names], fontsize=8)
        axes.tick_params(length=0)
        for label in axes.get_yticklabels():
            label.set_parse_math(False)


def draw_similarity(axes: Axes, values: npt.NDArray[Any], names: Sequence[str] | None) -> None:
    """Draws a matrix (K, K) of numbers in [0, 1] as a heat map, with the tasks' names, if given, to the left."""
    axes.imshow(np.clip(values, 0, 1), vmin=0, vmax=1, cmap=SHARES, interpolation="nearest")
    for (row, column), value in np.ndenumerate(values):
        if len(values) <= _MOST_NUMBERS and np.isfinite(value):
            text = f"{value:z.2f}".replace("0.", ".").removesuffix(".00") or "0"
            axes.text(column, row, text, ha="center", va="center", fontsize=8)
    axes.set(xticks=[], yticks=[])
    name_rows(axes, names)


def draw_memberships(axes: Axes, memberships: npt.NDArray[Any], names: Sequence[str] | None) -> None:
    """Draws the membership (K, C) of each task in each group as a heat map, with the tasks' names, if given, to the left."""
    axes.imshow(memberships, vmin=0, vmax=1, cmap=SHARES, aspect="auto", interpolation="nearest")
    count = memberships.shape[1]
    every = -(-count // _MOST_GROUPS)
    axes.set(xticks=range(0, count, every), xticklabels=range(1, count + 1, every), yticks=[], xlabel="group")
    name_rows(axes, names)
    axes.tick_params(length=0, labelsize=8)


def draw_data_map(axes: Axes, map_: npt.NDArray[Any], colour: str) -> None:
    """Draws a task's data map (n, 2): one dot per training sample, variability on the x axis, confidence on the y axis."""
    axes.scatter(map_[:, 1], map_[:, 0], s=3, alpha=0.25, linewidths=0, color=colour)
    axes.set(xlim=(-0.02, 0.52), ylim=(-0.03, 1.03), xticks=[0, 0.25, 0.5], yticks=[0, 0.5, 1])
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.tick_params(labelsize=8)

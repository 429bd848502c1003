"""How figures fill a page: as many panels side by side as its width has room for, below each other if it is narrow.

The width of a page in inches is that of matplotlib's ``figure.figsize``, so figures adapt wherever they are drawn. Texts keep their
size.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mtl_gym.envs.panels import SHARES, label_lines
from mtl_gym.evaluation.styles import shortened, wrapped

WIDE, NARROW = 10.0, 3.7
"""Widths of pages in inches, for screens, prints and phones; at 96 pixels per inch."""
MOST_DRAWN = 24
"""Most tasks that are drawn one by one; of more, a figure shows a summary."""

_LETTER = 0.075  # inches, the mean width of a letter of a label
_LINE = 0.17  # inches, the height of a line of labels
_CELL = (0.5, 0.95)  # least and largest width of a heat map's cell in inches


def page_width() -> float:
    """The width of the page in inches."""
    return float(matplotlib.rcParams["figure.figsize"][0])


def name_length() -> int:
    """Most letters of a line in labels beside a panel: about a third of the page."""
    return max(10, min(28, int(page_width() / 3 / _LETTER)))


def fitting(count: int, least: float) -> int:
    """How many of ``count`` panels of at least this width in inches stand side by side: at least one."""
    return _balanced(count, int(page_width() / least))


def _balanced(count: int, most: int) -> int:
    """Columns, at most ``most``, of which the last row leaves as few empty as possible."""
    return math.ceil(count / math.ceil(count / max(1, most)))


def grid(count: int, *, least: float, height: float, shared: str = "") -> tuple[Figure, list[Axes]]:
    """A figure with ``count`` panels, by rows, each at least ``least`` and at most twice as wide, and ``height`` high, in inches.

    ``shared`` names the axes with a common scale: "x", "y" or "xy".
    """
    columns = fitting(count, least)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(min(page_width(), 0.6 + 2 * least * columns), 0.6 + height * rows), layout="constrained")
    panels = list(figure.subplots(rows, columns, sharex="x" in shared, sharey="y" in shared, squeeze=False).flat)
    for axes in panels[count:]:
        axes.remove()
    for axes in panels[max(count - columns, 0) : count]:
        axes.tick_params(labelbottom=True)  # also where there is no panel below
    return figure, panels[:count]


def name_x(axes: Axes, label: str) -> None:
    """Writes a label below a panel as wide as the page, in as many lines as it takes."""
    axes.set_xlabel(textwrap.fill(label, int(page_width() / _LETTER)))


def legend(figure: Figure, lines: Sequence[Line2D], names: Sequence[str]) -> None:
    """Adds a legend on top of a figure, which grows by its height, in as many columns as the names leave room for."""
    labels = shortened(names)
    columns = _balanced(len(labels), int(figure.get_figwidth() / (0.65 + _LETTER * max(map(len, labels)))))
    label_lines(figure, list(lines), labels, columns=columns, place="outside upper left")
    figure.set_figheight(figure.get_figheight() + 0.1 + 1.1 * _LINE * math.ceil(len(labels) / columns))


class Block(NamedTuple):
    """Columns of a heat map: a title, the columns' labels, and the values (rows, columns)."""

    title: str
    columns: Sequence[str]
    values: npt.NDArray[np.float64]


def heat_map(blocks: Sequence[Block], rows: Sequence[str], *, form: str, cmap: Colormap, norm: Normalize) -> Figure:
    """Annotated tables of the same rows, one below the other; columns for which there is no room follow below."""
    names = wrapped(rows, name_length())
    beside = 0.3 + _LETTER * max(len(part) for name in names for part in name.split("\n"))
    blocks = [block._replace(columns=["\n".join(shortened(name.split("\n"))) for name in block.columns]) for block in blocks]
    longest = _LETTER * max(len(part) for block in blocks for name in block.columns for part in name.split("\n")) + 0.1
    upright = longest <= _CELL[1]
    cell = max(longest, _CELL[0]) if upright else _CELL[0]
    fit = max(1, int((page_width() - beside) / cell))
    drawn = [part for block in blocks for part in _parts(block, fit)]
    widest = max(len(part.columns) for part in drawn)
    body = sum(_LINE * (1.5 + name.count("\n")) for name in names)
    heads = [_head(part, longest, upright) for part in drawn]
    figure = Figure(figsize=(beside + widest * cell, sum(heads) + len(drawn) * body + 0.2), layout="constrained")
    for axes, part in zip(figure.subplots(len(drawn), 1, squeeze=False).flat, drawn, strict=True):
        _draw_part(axes, part, names, form=form, cmap=cmap, norm=norm)
        axes.set_xticks(range(len(part.columns)), part.columns, rotation=0 if upright else 90)
        axes.set_xlim(-0.5, widest - 0.5)  # cells of the same width
    return figure


def _parts(block: Block, fit: int) -> list[Block]:
    """A block in parts of about equally many columns, at most ``fit``."""
    count = math.ceil(len(block.columns) / fit)
    places = np.array_split(np.arange(len(block.columns)), count)
    return [Block(block.title, [block.columns[place] for place in own], block.values[:, own]) for own in places]


def _head(part: Block, longest: float, upright: bool) -> float:
    """The height of the labels above a part, in inches."""
    lines = max(1 + column.count("\n") for column in part.columns)
    return 0.15 + bool(part.title) * 1.3 * _LINE + (lines * _LINE if upright else longest)


def _draw_part(axes: Axes, part: Block, names: Sequence[str], *, form: str, cmap: Colormap, norm: Normalize) -> None:
    axes.imshow(part.values, cmap=cmap, norm=norm, aspect="auto", interpolation="nearest")
    for (row, column), value in np.ndenumerate(part.values):
        axes.text(column, row, format(value, form) if np.isfinite(value) else "", ha="center", va="center")
    axes.set_yticks(range(len(names)), names)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    if part.title:
        axes.set_title(part.title)


def with_scale(figure: Figure, panels: Sequence[Axes], label: str) -> Figure:
    """The figure with the colours' scale from 0 to 1 below its heat maps of fractions."""
    figure.colorbar(ScalarMappable(Normalize(0, 1), SHARES), ax=list(panels), location="bottom", shrink=0.6, aspect=40, label=label)
    figure.set_figheight(figure.get_figheight() + 0.5)
    return figure


def label_columns(panels: Sequence[Axes], columns: int, names: Sequence[str], inches: float) -> None:
    """Writes the names below the columns of heat maps, ``inches`` wide, that have no other below them; the figure grows by them.

    ``panels`` are those of a grid with so many ``columns``, by rows.
    """
    for axes in panels[-columns:]:
        label_sparsely(axes.xaxis, names, inches)
        axes.tick_params(axis="x", rotation=90)
    figure, lines = panels[0].get_figure(), 1 + (len(panels) > columns and len(panels) % columns > 0)
    figure.set_figheight(figure.get_figheight() + lines * (0.1 + _LETTER * max(map(len, shortened(names)))))  # type: ignore[union-attr]


def label_sparsely(axis: Axis, names: Sequence[str], inches: float) -> None:
    """Writes the names beside a heat map's rows or columns: all of them if they fit into ``inches``, else some, evenly spaced."""
    every = max(1, math.ceil(len(names) * 0.14 / inches))
    places = range(0, len(names), every)
    axis.set_ticks(places, shortened([names[place] for place in places]), fontsize=8)
    axis.set_tick_params(length=0 if every == 1 else 2)
    for label in axis.get_ticklabels():
        label.set_parse_math(False)

"""The figures of a comparison's page, drawn as SVG: a table of those of all environments, then each environment's own."""

from __future__ import annotations

import io
import pkgutil
import re
import warnings
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from mtl_gym.envs.looks import ON_DARK
from mtl_gym.envs.spec import PageFigure
from mtl_gym.evaluation.columns import installed
from mtl_gym.evaluation.layout import WIDE
from mtl_gym.evaluation.results import Result
from mtl_gym.evaluation.styles import SETTINGS

_FIRST = {
    "forest": PageFigure(
        "mtl_gym.evaluation.plots:forest",
        "Gain over single-task learning",
        "Mean over instances (marker) with its 95 % interval (bar, Student's t); small dots are individual instances.",
    ),
    "gains": PageFigure(
        "mtl_gym.evaluation.plots:task_gains",
        "Gain of each task",
        "Mean gain of each metric over single-task learning, in percent; blue is better, orange is worse.",
    ),
    "curves": PageFigure(
        "mtl_gym.evaluation.plots:learning_curves",
        "Learning curves",
        "Held-out loss (the reward split) of each task, median over instances, divided by its value before training. All panels "
        "have the same scale.",
    ),
    "weights": PageFigure(
        "mtl_gym.evaluation.plots:weight_trajectories",
        "Weights",
        "Each task's fraction of the weights, median over instances, all panels on the same scale. Dividing by the loss gives "
        "large weights to small losses.",
    ),
}
_LAST = {
    "rules": PageFigure(
        "mtl_gym.evaluation.weight_rules:weight_rules",
        "What did it learn?",
        "How a task's weight depends on the properties of the task. Tasks further right have a loss that is still high relative to "
        "an early epoch (improvable gap), a larger loss scale, or more wrong labels (label noise). A level line ignores the "
        "property, a falling line gives such tasks less weight, a rising line more; along the dashed line the weight halves when "
        "the property doubles, which cancels a loss scale. <i>Relative</i> means divided by the geometric mean over the tasks of "
        "one training; against gap and noise, weights are divided by those of the first batch, since loss scales would dominate. "
        "Points are medians over instances, tasks and steps, in bins of about equal size.",
    ),
    "probability": PageFigure(
        "mtl_gym.evaluation.plots:probability_of_improvement",
        "Probability of improvement",
        "Fraction of the instances on which the policy of the row is better than that of the column; ties count half.",
    ),
}
"""Figures by name, which an environment's ``without`` may omit; its own come between the two."""


_BACKGROUNDS = ("figure.facecolor", "axes.facecolor", "savefig.facecolor")


def page_figures(env: str) -> dict[str, PageFigure]:
    """The figures of an environment's pages by name, in order; its own are named after their functions."""
    found = installed(env)
    own = {figure.draw.partition(":")[2]: figure for figure in found.figures} if found else {}
    without = found.without if found else ()
    return {name: row for name, row in {**_FIRST, **own, **_LAST}.items() if name not in without}


def draw_figures(
    rows: Mapping[str, PageFigure], results: Sequence[Result], summary: Mapping[str, Any], width: float = WIDE
) -> dict[str, str]:
    """Draws figures of a comparison as SVG by name; as :func:`draw_each`."""
    return draw_each(rows, (results, summary), width)


def draw_each(rows: Mapping[str, PageFigure], given: Sequence[Any], width: float = WIDE) -> dict[str, str]:
    """Draws figures as SVG by name, for a page this wide (inches), from what their functions are ``given``.

    Those without data are omitted, broken ones with a warning.
    """
    drawn = {}
    with matplotlib.rc_context({"font.family": "sans-serif"}):
        matplotlib.rcParams.update(SETTINGS | dict.fromkeys(_BACKGROUNDS, "none"))
        matplotlib.rcParams["figure.figsize"] = (width, 0.6 * width)
        for name, row in rows.items():
            try:
                figure = pkgutil.resolve_name(row.draw)(*given)
            except Exception as error:  # another package may raise anything, which must not lose the results
                warnings.warn(f"the figure {row.draw} is left out: {type(error).__name__}: {error}", RuntimeWarning, stacklevel=2)
                continue
            if figure is not None:
                drawn[name] = _svg(figure)
    return drawn


def _svg(figure: Figure) -> str:
    stream = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # the browser draws the text, with its own fonts
        engine = figure.get_layout_engine()
        if engine is not None:  # otherwise `savefig` draws all of the figure once more for it
            engine.execute(figure)
            figure.set_layout_engine("none")
        figure.savefig(stream, format="svg", metadata={"Date": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, count=1, flags=re.DOTALL)
    return re.sub(r'="[^"<>]*"', _adapted, text)


def _adapted(attribute: re.Match[str]) -> str:
    """Rounds an attribute's numbers to a hundredth of a point, and lets the page replace colours; texts stay unchanged."""
    rounded = re.sub(r"(\d+\.\d{2})\d+", r"\1", attribute.group())
    return _COLOURS.sub(lambda colour: f"var({variable(colour.group())}, {colour.group()})", rounded)


def variable(colour: str) -> str:
    """The CSS variable that replaces a colour, such as ``#1c1c1c``, where it is defined."""
    return f"--c{colour[1:].lower()}"


_COLOURS = re.compile("|".join(ON_DARK), re.IGNORECASE)


def accessible(svg: str, id: str, title: str) -> str:
    """The SVG as one image with a title, which screen readers read; ``id`` is unique on the page."""
    role = f'<svg role="img" aria-labelledby="{id}" '
    return re.sub(r"<svg ([^>]*)>", lambda head: f'{role}{head[1]}><title id="{id}">{escape(title)}</title>', svg, count=1)

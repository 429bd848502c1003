"""The figures of a comparison's or a suite's page, as matplotlib figures: ``mtl_gym.plots.forest(frame)``.

Every figure is a function of the frame of :func:`mtl_gym.compare`, of a part of its rows, or of the comparison's output folder. A
suite's, of :func:`mtl_gym.compare_suite`, are ``standings``, ``profiles``, ``shift``, ``studies``, ``cost`` and ``curves``. All
environments have ``forest``, ``gains``, ``curves``, ``weights``, ``rules`` and ``probability``, as far as they have data for it; an
environment's own are called as their functions (``regret``, ``groups``, ``front`` ...). :func:`names` lists them.

Example:
    >>> import mtl_gym
    >>> frame = mtl_gym.compare("ew,si", problem="quadratic", instances=2, train_steps=20)
    >>> figure = mtl_gym.plots.forest(frame)  # in a notebook, it is shown
    >>> mtl_gym.plots.names(frame)
    ['forest', 'gains', 'curves', 'weights', 'rules', 'probability']
"""

from __future__ import annotations

import functools
import io
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from mtl_gym.checks import choose, should
from mtl_gym.environments import find_environments
from mtl_gym.envs.spec import PageFigure
from mtl_gym.evaluation.figures import page_figures
from mtl_gym.evaluation.frames import Source, results_of, to_frame
from mtl_gym.evaluation.results import finite
from mtl_gym.evaluation.standings import ranking
from mtl_gym.evaluation.styles import SETTINGS
from mtl_gym.evaluation.suite_figures import SUITE_FIGURES
from mtl_gym.evaluation.suite_frames import is_suite
from mtl_gym.evaluation.summary import summarize

__all__ = ["draw", "names"]


class Picture(Figure):
    """A figure that notebooks show; those without pyplot otherwise stay a line of text."""

    def _repr_png_(self) -> bytes:
        stream = io.BytesIO()
        self.savefig(stream, format="png", dpi=120)
        return stream.getvalue()


def names(source: Source) -> list[str]:
    """The figures of a suite, or of a comparison's environment, in the order of its page; some may have no data."""
    return [*(SUITE_FIGURES if is_suite(source) else page_figures(results_of(source)[1]["env"]))]


def draw(source: Source, name: str, baseline: str | None = None) -> Figure:
    """Draws the figure of that name.

    Args:
        source: The frame of :func:`mtl_gym.compare` or :func:`mtl_gym.compare_suite`, or a part of its rows; or the output folder.
        name: One of :func:`names`.
        baseline: For a suite: the policy from which differences are; by default the first one.

    Returns:
        A figure that does not belong to pyplot; matplotlib's settings stay as they are.

    Raises:
        ValueError: If there is no such figure, or the comparison has no data for it, or no such baseline.
    """
    rows, given, what = _of_suite(source, baseline) if is_suite(source) else _of_comparison(source, baseline)
    row = choose("name", name, rows)
    with matplotlib.rc_context():
        matplotlib.rcParams.update(SETTINGS)
        figure: Figure | None = pkgutil.resolve_name(row.draw)(*given)
    if figure is None:
        raise ValueError(should("name", f"be a figure for which this {what} has data", name))
    figure.__class__ = Picture  # made by a function that knows nothing of notebooks; a Picture has no state of its own
    return figure


_Drawn = tuple[Mapping[str, PageFigure], Sequence[Any], str]
"""Figures, what their functions are given, and of what they are."""


def _of_suite(source: Source, baseline: str | None) -> _Drawn:
    found = ranking(source, baseline)
    return SUITE_FIGURES, (found,), f"run of the suite {found.frame.attrs['suite']['name']}"


def _of_comparison(source: Source, baseline: str | None) -> _Drawn:
    results, about = results_of(source)
    if baseline is not None:
        raise ValueError(should("baseline", "be left out for a comparison, whose figures have none", baseline))
    summary = finite(summarize(to_frame(results, about)))
    return page_figures(about["env"]), (results, summary), f"comparison of {about['env']}"


def __getattr__(name: str) -> Callable[..., Figure]:
    if name.startswith("_") or name not in _known():
        raise AttributeError(f"module {__name__!r} has no figure {name!r}")
    drawing = functools.partial(draw, name=name)
    drawing.__doc__ = _known()[name]
    return drawing


def __dir__() -> list[str]:
    return sorted([*globals(), *_known()])


@functools.cache
def _known() -> dict[str, str]:
    """The titles of the figures of suites and of all environments, by name."""
    own = {name: row.title for name, row in SUITE_FIGURES.items()}
    return own | {name: row.title for env in find_environments() for name, row in page_figures(env).items()}

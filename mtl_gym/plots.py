"""The figures of a comparison's page, as matplotlib figures: ``mtl_gym.plots.forest(frame)``.

Every figure is a function of the frame of :func:`mtl_gym.compare`, of a part of its rows, or of the comparison's output folder. All
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
from collections.abc import Callable

import matplotlib
from matplotlib.figure import Figure

from mtl_gym.checks import choose, should
from mtl_gym.environments import find_environments
from mtl_gym.evaluation.figures import page_figures
from mtl_gym.evaluation.frames import Source, results_of, to_frame
from mtl_gym.evaluation.results import finite
from mtl_gym.evaluation.styles import SETTINGS
from mtl_gym.evaluation.summary import summarize

__all__ = ["draw", "names"]


class Picture(Figure):
    """A figure that notebooks show; those without pyplot otherwise stay a line of text."""

    def _repr_png_(self) -> bytes:
        stream = io.BytesIO()
        self.savefig(stream, format="png", dpi=120)
        return stream.getvalue()


def names(source: Source) -> list[str]:
    """The figures of a comparison's environment, in the order of its page; some may have no data."""
    _, about = results_of(source)
    return [*page_figures(about["env"])]


def draw(source: Source, name: str) -> Figure:
    """Draws the figure of that name.

    Args:
        source: The frame of :func:`mtl_gym.compare`, or a part of its rows; or the comparison's output folder.
        name: One of :func:`names`.

    Returns:
        A figure that does not belong to pyplot; matplotlib's settings stay as they are.

    Raises:
        ValueError: If there is no such figure, or the comparison has no data for it.
    """
    results, about = results_of(source)
    row = choose("name", name, page_figures(about["env"]))
    summary = finite(summarize(to_frame(results, about)))
    with matplotlib.rc_context():
        matplotlib.rcParams.update(SETTINGS)
        figure: Figure | None = pkgutil.resolve_name(row.draw)(results, summary)
    if figure is None:
        raise ValueError(should("name", f"be a figure for which this comparison of {about['env']} has data", name))
    figure.__class__ = Picture  # made by a function that knows nothing of notebooks; a Picture has no state of its own
    return figure


def __getattr__(name: str) -> Callable[[Source], Figure]:
    if name.startswith("_") or name not in _known():
        raise AttributeError(f"module {__name__!r} has no figure {name!r}")
    drawing = functools.partial(draw, name=name)
    drawing.__doc__ = _known()[name]
    return drawing


def __dir__() -> list[str]:
    return sorted([*globals(), *_known()])


@functools.cache
def _known() -> dict[str, str]:
    """The titles of the figures of all environments, by name."""
    return {name: row.title for env in find_environments() for name, row in page_figures(env).items()}

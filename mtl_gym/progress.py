"""Progress bars: on stderr, or below a notebook's cell; never on stdout."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from rich.progress import Progress

_PATIENCE = 1.0
"""Seconds after which a bar appears that was not asked for."""
_PAUSE = 0.25
"""Seconds between two pictures in a notebook."""
_LONGEST = 24
"""Characters of a description; half of them in a narrow terminal."""
_NARROW = 60


class Update(Protocol):
    """Updates a bar."""

    def __call__(self, *, description: str | None = None, completed: int | None = None, advance: int | None = None) -> None:
        """Says what is being done, sets the completed steps, or adds steps."""
        ...


@contextmanager
def progress_bar(total: int, description: str = "", *, show: bool | None = None) -> Iterator[Update]:
    """A bar with the time left; yields an :class:`Update`. After an error, nothing of it is left.

    Args:
        total: Number of steps.
        description: What is being done.
        show: ``True``: shows it at once, and its end even where stderr is no terminal. ``None``: only in a terminal or a notebook,
            once it has taken a second. ``False``: never.
    """
    bar = None if show is False else _bar(show, total, description)
    if bar is None:
        yield lambda *, description=None, completed=None, advance=None: None
        return
    try:
        yield bar.update
    except BaseException:
        bar.close(failed=True)
        raise
    bar.close(failed=False)


def _bar(show: bool | None, total: int, description: str) -> _Bar | None:
    """A bar where it can be seen; ``None`` elsewhere, unless it is asked for."""
    from rich.console import Console  # here, so that `import mtl_gym` stays light
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.table import Column

    console = Console(stderr=True)
    if not (show or console.is_terminal or console.is_jupyter):
        return None
    narrow = console.width < _NARROW
    name = Column(width=_LONGEST // (1 + narrow), no_wrap=True)
    doing = TextColumn("{task.description}", markup=False, table_column=name)
    times = [TimeRemainingColumn()] if narrow else [TimeElapsedColumn(), TimeRemainingColumn()]
    columns = (doing, BarColumn(bar_width=None if console.width < 80 else 40), TaskProgressColumn(), *times)
    return (_Cell if console.is_jupyter else _Bar)(Progress(*columns, console=console), total, description, bool(show))


class _Bar:
    """A bar in a terminal, which a thread of rich's redraws."""

    def __init__(self, progress: Progress, total: int, description: str, at_once: bool) -> None:
        self._progress, self._task = progress, progress.add_task(description, total=total)
        self._next = time.monotonic() + (0 if at_once else _PATIENCE)
        self._shown = False
        if at_once:
            self._draw()

    def update(self, *, description: str | None = None, completed: int | None = None, advance: int | None = None) -> None:
        self._progress.update(self._task, description=description, completed=completed, advance=advance)
        if time.monotonic() >= self._next:
            self._draw()

    def close(self, failed: bool) -> None:
        if self._shown:
            self._progress.live.transient = failed
            self._progress.stop()

    def _draw(self) -> None:
        self._shown, self._next = True, float("inf")
        self._progress.start()


class _Cell(_Bar):
    """A bar below a notebook's cell, as HTML: rich's own needs ipywidgets."""

    _handle: Any = None

    def close(self, failed: bool) -> None:
        from rich.text import Text

        if self._handle is not None:
            self._handle.update(Text("") if failed else self._progress)

    def _draw(self) -> None:
        from IPython.display import display

        self._next = time.monotonic() + _PAUSE
        if self._handle is None:
            self._handle = display(self._progress, display_id=True)
        else:
            self._handle.update(self._progress)

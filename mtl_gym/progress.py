"""Signs of life: bars in terminals and below a notebook's cell, lines elsewhere; on stderr, never on stdout."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

_PATIENCE = 1.0
"""Seconds after which something is shown that was not asked for, and between two lines."""
_PAUSE = 0.25
"""Seconds between two pictures in a notebook."""
_LONGEST = 44
"""Characters of a description; fewer in a terminal that is narrower than 80."""
_SHORT, _SHORTEST = 24, 12
_WIDE, _USUAL, _NARROW = 110, 80, 60


class Update(Protocol):
    """Updates a bar."""

    def __call__(self, *, description: str | None = None, completed: int | None = None, advance: int | None = None) -> None:
        """Says what is being done, sets the completed steps, or adds steps."""
        ...


@contextmanager
def progress_bar(total: int, description: str = "", *, show: bool | None = None) -> Iterator[Update]:
    """A bar with the time left; yields an :class:`Update`. After an error, nothing of it is left.

    Within another one, such as for what has to be trained before the first step, it stands below that one until it ends.

    Args:
        total: Number of steps.
        description: What is being done.
        show: ``True``: shows a bar at once, and its end even where stderr is no terminal. ``None``: once it has taken a second, a
            bar in a terminal or a notebook, elsewhere a line for each description that lasts; within another one, as that one.
            ``False``: nothing, of those within it either, unless they are asked for.
    """
    outer = _open.get()
    mine = outer is None or show is False or (show is True and type(outer) is _Nothing)
    shown = _display(show) if mine or outer is None else outer
    key, token, failed = shown.begin(total, description), _open.set(shown), True
    try:
        yield partial(shown.update, key)
        failed = False
    finally:
        _open.reset(token)
        if mine:
            shown.close(failed)
        else:
            shown.end(key)


class _Nothing:
    """Shows nothing; the others show the bars that are open, outer ones first."""

    def begin(self, total: int, description: str) -> Any:
        """Opens a bar and returns its key."""

    def update(self, key: Any, *, description: str | None = None, completed: int | None = None, advance: int | None = None) -> None:
        """As :class:`Update`, for the bar with a key."""

    def end(self, key: Any) -> None:
        """Closes an inner bar."""

    def close(self, failed: bool) -> None:
        """Closes all; after an error, nothing is left of a bar."""


_open: ContextVar[_Nothing | None] = ContextVar("open", default=None)
"""What shows the bars that are open here."""


def _display(show: bool | None) -> _Nothing:
    """A bar where it can be seen or is asked for, else lines."""
    if show is False:
        return _Nothing()
    from rich.console import Console  # here, so that `import mtl_gym` stays light

    console = Console(stderr=True)
    if console.is_jupyter:
        return _Cell(_progress(console), bool(show))
    return _Bar(_progress(console), bool(show)) if show or console.is_terminal else _Lines(console)


def _progress(console: Console) -> Progress:
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.table import Column

    narrow = console.width < _NARROW
    longest = _LONGEST if console.width >= _USUAL else _SHORTEST if narrow else _SHORT
    doing = TextColumn("{task.description}", markup=False, table_column=Column(width=longest, no_wrap=True))
    times = [TimeRemainingColumn()] if narrow else [TimeElapsedColumn(), TimeRemainingColumn()]
    bar = BarColumn(bar_width=40 if console.width >= _WIDE else None)  # None: what is left
    return Progress(doing, bar, TaskProgressColumn(), *times, console=console)


class _Lines(_Nothing):
    """A line whenever what is being done is another thing than a second ago: for logs, which short phases do not fill."""

    def __init__(self, console: Console) -> None:
        self._console, self._open, self._ended = console, dict[object, str](), threading.Event()
        self._thread = threading.Thread(target=self._tell, daemon=True)
        self._thread.start()

    def begin(self, total: int, description: str) -> Any:
        self._open[key := object()] = description
        return key

    def update(self, key: Any, *, description: str | None = None, completed: int | None = None, advance: int | None = None) -> None:
        if description is not None:
            self._open[key] = description

    def end(self, key: Any) -> None:
        del self._open[key]

    def close(self, failed: bool) -> None:
        self._ended.set()
        self._thread.join()

    def _tell(self) -> None:
        told = ""
        while not self._ended.wait(_PATIENCE):
            innermost = [*self._open.values()][-1]
            if innermost != told:
                self._console.print(innermost, soft_wrap=True, markup=False, highlight=False)
                told = innermost


class _Bar(_Nothing):
    """Bars in a terminal, which threads draw: also while nothing calls."""

    def __init__(self, progress: Progress, at_once: bool) -> None:
        self._progress, self._timer = progress, threading.Timer(0 if at_once else _PATIENCE, progress.start)
        self._timer.daemon = True
        self._timer.start()
        if at_once:
            self._timer.join()

    def begin(self, total: int, description: str) -> Any:
        return self._progress.add_task(description, total=total)

    def update(self, key: Any, *, description: str | None = None, completed: int | None = None, advance: int | None = None) -> None:
        self._progress.update(key, description=description, completed=completed, advance=advance)

    def end(self, key: Any) -> None:
        self._progress.remove_task(key)

    def close(self, failed: bool) -> None:
        self._timer.cancel()
        self._timer.join()
        if self._progress.live.is_started:
            self._progress.live.transient = failed
            self._progress.stop()


class _Cell(_Nothing):
    """Bars below a notebook's cell, as HTML: rich's own needs ipywidgets."""

    def __init__(self, progress: Progress, at_once: bool) -> None:
        self._progress, self._handle = progress, cast(Any, None)
        self._next = time.monotonic() + (0 if at_once else _PATIENCE)

    def begin(self, total: int, description: str) -> Any:
        key = self._progress.add_task(description, total=total)
        self._draw()
        return key

    def update(self, key: Any, *, description: str | None = None, completed: int | None = None, advance: int | None = None) -> None:
        self._progress.update(key, description=description, completed=completed, advance=advance)
        self._draw()

    def end(self, key: Any) -> None:
        self._progress.remove_task(key)

    def close(self, failed: bool) -> None:
        from rich.text import Text

        if self._handle is not None:
            self._handle.update(Text("") if failed else self._progress)

    def _draw(self) -> None:
        from IPython.display import display

        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _PAUSE
        if self._handle is None:
            self._handle = display(self._progress, display_id=True)
        else:
            self._handle.update(self._progress)

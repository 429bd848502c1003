"""What a problem is called if nobody names it: by the address at which it is made, and ``mine`` elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_DEFAULT: ContextVar[str] = ContextVar("default name of problems", default="mine")


def default_name() -> str:
    """The name of a problem that is made now without one."""
    return _DEFAULT.get()


@contextmanager
def calling(name: str) -> Iterator[None]:
    """Problems that are made meanwhile without a name get this one."""
    before = _DEFAULT.set(name)
    try:
        yield
    finally:
        _DEFAULT.reset(before)

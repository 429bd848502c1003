"""Checks of arguments: every error names the argument, its value and the way out."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from typing import TypeVar

Row = TypeVar("Row")


def should(name: str, condition: str, value: object, remedy: str = "") -> str:
    """The one form of error message: *`name` should <condition>. Received name=<value>.* plus the remedy."""
    return f"`{name}` should {condition}. Received {name}={value!r}.{' ' + remedy if remedy else ''}"


def unknown(name: str, value: object, known: Iterable[str]) -> str:
    """The message for a name that no table holds: the known names and the nearest one."""
    known = list(known)
    nearest = difflib.get_close_matches(str(value), known, n=1, cutoff=0.5)
    remedy = f"Did you mean {nearest[0]!r}?" if nearest else ""
    return should(name, f"be one of {', '.join(known)}", value, remedy)


def choose(name: str, value: object, table: Mapping[str, Row]) -> Row:
    """Looks ``value`` up in a table.

    Raises:
        ValueError: If the table has no such row; the message lists the rows and the nearest.
    """
    if not isinstance(value, str) or value not in table:
        raise ValueError(unknown(name, value, table))
    return table[value]


def positive_int(name: str, value: object, *, least: int = 1) -> int:
    """Returns ``value`` if it is a whole number of at least ``least``.

    Raises:
        TypeError: If it is no whole number.
        ValueError: If it is too small.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(should(name, "be a whole number", value))
    number = int(value.__index__())
    if number < least:
        raise ValueError(should(name, f"be at least {least}", value))
    return number


def number(name: str, value: object, *, low: float = -math.inf, high: float = math.inf, ends: str = "[]") -> float:
    """Returns ``value`` as a finite float between ``low`` and ``high``; ``ends`` says, by its brackets, whether they are allowed.

    Raises:
        TypeError: If it is no number.
        ValueError: If it is not finite or outside the range.
    """
    try:
        result = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise TypeError(should(name, "be a number", value)) from None
    if isinstance(value, (bool, str)):
        raise TypeError(should(name, "be a number", value))
    above = result >= low if ends[0] == "[" else result > low
    below = result <= high if ends[1] == "]" else result < high
    if not (math.isfinite(result) and above and below):
        opening, closing = ends[0] if math.isfinite(low) else "(", ends[1] if math.isfinite(high) else ")"
        raise ValueError(should(name, f"be a finite number in {opening}{low:g}, {high:g}{closing}", value))
    return result

"""Argument checks: every error message names the argument, its value and, where possible, the remedy."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

Row = TypeVar("Row")


def should(name: str, condition: str, value: object, remedy: str = "") -> str:
    """The one form of error message: *`name` should <condition>. Received name=<value>.* plus the remedy."""
    return f"`{name}` should {condition}. Received {name}={value!r}.{' ' + remedy if remedy else ''}"


def unknown(name: str, value: object, known: Iterable[str]) -> str:
    """The message for an unknown name: lists the known ones and suggests the nearest."""
    known = list(known)
    # One wrong letter of two is a slip of the hand; longer names have to be more alike.
    nearest = difflib.get_close_matches(str(value), known, n=1, cutoff=0.5 if len(str(value)) < 4 else 0.6)
    remedy = f"Did you mean {nearest[0]!r}?" if nearest else ""
    return should(name, f"be one of {', '.join(known)}", value, remedy)


def choose(name: str, value: object, table: Mapping[str, Row]) -> Row:
    """Returns the row of ``table`` named ``value``.

    Raises:
        ValueError: If there is no such row; the message lists the rows and suggests the nearest.
    """
    if not isinstance(value, str) or value not in table:
        raise ValueError(unknown(name, value, table))
    return table[value]


def positive_int(name: str, value: object, *, least: int = 1) -> int:
    """Returns ``value`` as an int.

    Raises:
        TypeError: If it is not a whole number.
        ValueError: If it is less than ``least``.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(should(name, "be a whole number", value))
    number = int(value.__index__())
    if number < least:
        raise ValueError(should(name, f"be at least {least}", value))
    return number


def number(name: str, value: object, *, low: float = -math.inf, high: float = math.inf, ends: str = "[]") -> float:
    """Returns ``value`` as a finite float between ``low`` and ``high``; brackets in ``ends`` say whether each bound is included.

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is not finite or out of range.
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


def several(name: str, value: Any, table: Mapping[str, Any], *, noun: str) -> tuple[str, ...]:
    """Checks a list of a table's names: at least one, each once; raises ``TypeError`` or ``ValueError``."""
    chosen = sequence(name, value)
    for row in chosen:
        choose(name, row, table)
    if not chosen or len(set(chosen)) < len(chosen):
        raise ValueError(should(name, f"name at least one {noun}, each once", chosen))
    return tuple(chosen)


def sequence(name: str, value: Any) -> Sequence[Any]:
    """Returns ``value`` if it is a list or tuple; raises ``TypeError`` if not, with the list to write instead of one item."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        remedy = f"A list of one is {json.dumps([value])}." if isinstance(value, (str, int, float)) else ""
        raise TypeError(should(name, "be a list", value, remedy))
    return value

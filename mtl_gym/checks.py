"""Argument checks: every error message names the argument, its value and, where possible, the remedy."""

from __future__ import annotations

import difflib
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeVar

Row = TypeVar("Row")

LARGEST_INT = 2**63 - 1
"""The largest int64."""
SMALLEST_FLOAT, LARGEST_FLOAT = 1.1754943508222875e-38, 3.4028234663852886e38
"""The smallest and the largest positive number that float32, in which everything is trained, holds in full precision."""
LONGEST_NAME = 1000
_LONGEST_SHOWN = 1000  # characters of a value in a message


def should(name: str, condition: str, value: object, remedy: str = "") -> str:
    """The one form of error message: *`name` should <condition>. Received name=<value>.* plus the remedy."""
    return f"`{name}` should {condition}. Received {name}={shown(value)}.{' ' + remedy if remedy else ''}"


def shown(value: object) -> str:
    """A value as messages show it: its ``repr``, cut off where it is long; its type, and shape, if that takes several lines."""
    try:
        text = repr(value)
    except Exception:  # such as that of an int with more than 4,300 digits
        return f"<{type(value).__name__}>"
    if "\n" in text and not isinstance(value, str):  # an array, a tensor, a frame or a module
        shape = getattr(value, "shape", None)
        return f"<{type(value).__name__}{'' if shape is None else f' of shape {tuple(shape)}'}>"
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


def unknown(name: str, value: object, known: Iterable[str]) -> str:
    """The message for an unknown name: lists the known ones and suggests the nearest."""
    known = list(known)
    # One wrong letter of two is a slip of the hand; longer names have to be more alike.
    cutoff = 0.5 if isinstance(value, str) and len(value) < 4 else 0.6
    names = {own.lower(): own for own in known}
    nearest = difflib.get_close_matches(value[:LONGEST_NAME].lower(), names, n=1, cutoff=cutoff) if isinstance(value, str) else []
    remedy = f"Did you mean {names[nearest[0]]!r}?" if nearest else ""
    return should(name, f"be one of {', '.join(known)}", value, remedy)


def choose(name: str, value: object, table: Mapping[str, Row]) -> Row:
    """Returns the row of ``table`` named ``value``.

    Raises:
        ValueError: If there is no such row; the message lists the rows and suggests the nearest.
    """
    if not isinstance(value, str) or value not in table:
        raise ValueError(unknown(name, value, table))
    return table[value]


def positive_int(name: str, value: object, *, least: int = 1, most: int = LARGEST_INT) -> int:
    """Returns ``value`` as an int.

    Raises:
        TypeError: If it is not a whole number; arrays, tensors and bools are none.
        ValueError: If it is less than ``least`` or more than ``most``.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(should(name, "be a whole number", value))
    number = int(value)
    if number < least:
        raise ValueError(should(name, f"be at least {least}", value))
    if number > most:
        raise ValueError(should(name, f"be at most {most}", value))
    return number


def number(name: str, value: object, *, low: float = -math.inf, high: float = math.inf, ends: str = "[]") -> float:
    """Returns ``value`` as a finite float between ``low`` and ``high``; brackets in ``ends`` say whether each bound is included.

    Raises:
        TypeError: If it is not a number; arrays, tensors and bools are none.
        ValueError: If it is not finite or out of range, or so large or small that float32 makes it infinite or loses its digits.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(should(name, "be a number", value))
    try:
        result = float(value)
    except OverflowError:
        result = math.inf if value >= 0 else -math.inf  # type: ignore[operator]
    above = result >= low if ends[0] == "[" else result > low
    below = result <= high if ends[1] == "]" else result < high
    within = above and below and not math.isnan(result)
    if not within or not (result == 0 or SMALLEST_FLOAT <= abs(result) <= LARGEST_FLOAT):
        opening, closing = ends[0] if math.isfinite(low) else "(", ends[1] if math.isfinite(high) else ")"
        held = " that float32 can hold" if within and value not in (math.inf, -math.inf) else ""
        raise ValueError(should(name, f"be a finite number in {opening}{low:g}, {high:g}{closing}{held}", value))
    return result


def printable(name: str, value: object) -> str:
    """Returns a name that tables, pages and files can show.

    Raises:
        TypeError: If it is not a text.
        ValueError: If it is blank, longer than ``LONGEST_NAME`` or contains a character that cannot be printed.
    """
    if not isinstance(value, str):
        raise TypeError(should(name, "be a text", value))
    if not value.strip() or not value.isprintable() or len(value) > LONGEST_NAME:
        raise ValueError(should(name, f"be 1 to {LONGEST_NAME} printable characters", value))
    return value


def path_of(name: str, value: object) -> Path:
    """Returns the path that a text names.

    Raises:
        TypeError: If it is neither a text nor a path.
        ValueError: If it is blank, which would be the current folder, as an unset variable of a shell may be.
    """
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(should(name, "be a path", value))
    path = os.fspath(value)
    if not isinstance(path, str) or not path.strip():
        raise ValueError(should(name, "be a path", value, "The current folder is '.'."))
    return Path(path)


def several(name: str, value: Any, table: Mapping[str, Any], *, noun: str) -> tuple[str, ...]:
    """Checks a list of a table's names: at least one, each once; raises ``TypeError`` or ``ValueError``."""
    chosen = sequence(name, value)
    for row in chosen[: len(table) + 1]:  # more cannot be different
        choose(name, row, table)
    if not chosen or len(chosen) > len(table) or len(set(chosen)) < len(chosen):
        raise ValueError(should(name, f"name at least one {noun}, each once", chosen))
    return tuple(chosen)


def sequence(name: str, value: Any, *, most: int = LARGEST_INT) -> Sequence[Any]:
    """Returns ``value`` if it is a list or tuple of at most ``most`` items; raises ``TypeError`` or ``ValueError`` if not.

    The error shows the list to write instead of one item.
    """
    if isinstance(value, (str, bytes, bytearray, memoryview)) or not isinstance(value, Sequence):
        remedy = f"A list of one is {json.dumps([value])}." if isinstance(value, (str, int, float)) else ""
        raise TypeError(should(name, "be a list", value, remedy))
    try:
        count = len(value)
    except OverflowError:  # of a range
        count = LARGEST_INT + 1
    if count > most:
        raise ValueError(should(name, f"have at most {most} items", value))
    return value

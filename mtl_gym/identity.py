"""What makes a function what it is, so that its results are found again, and those of another function are not."""

from __future__ import annotations

import inspect
import json
import types
from typing import Any

import numpy as np


def function_content(thing: Any, seen: tuple[Any, ...] = ()) -> Any:
    """What makes a function what it is, JSON-plain.

    Raises:
        TypeError: If it uses something that cannot be told from another of its kind.
    """
    if thing is None or isinstance(thing, (bool, int, float, str)):
        return [type(thing).__name__, repr(thing)]
    if isinstance(thing, (list, tuple)):
        return [type(thing).__name__, [function_content(item, seen) for item in thing]]
    if isinstance(thing, (set, frozenset)):
        return ["set", sorted(json.dumps(function_content(item, seen)) for item in thing)]
    if isinstance(thing, dict):
        return ["dict", [[function_content(key, seen), function_content(value, seen)] for key, value in thing.items()]]
    if isinstance(thing, np.ndarray) and thing.dtype != object:
        return ["array", thing.dtype.str, thing.tolist()]
    if isinstance(thing, np.generic):
        return ["number", thing.dtype.str, thing.item()]
    if isinstance(thing, types.ModuleType):
        return ["module", thing.__name__]
    if isinstance(thing, types.CodeType):
        return ["code", thing.co_code.hex(), thing.co_names, [function_content(item, seen) for item in thing.co_consts]]
    if isinstance(thing, types.FunctionType):
        return _of_function(thing, seen)
    raise TypeError(f"{thing!r} cannot be identified")


def _of_function(function: types.FunctionType, seen: tuple[Any, ...]) -> Any:
    if function in seen:
        return ["function", seen.index(function)]
    used = inspect.getclosurevars(function)
    values = [function.__defaults__, function.__kwdefaults__, dict(used.nonlocals), dict(sorted(used.globals.items()))]
    return [function_content(function.__code__), [function_content(value, (*seen, function)) for value in values]]

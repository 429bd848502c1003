"""What functions keep from call to call: a checksum of the values that a callable may change."""

from __future__ import annotations

import functools
import hashlib
import inspect
import itertools
import operator
import random
import sys
import types
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mtl_gym.identity import is_installed

_PLAIN = (bool, int, float, complex, str, bytes, np.generic, type(None))
_MOST_VALUES = 10_000
"""Largest number of values that are followed."""


def memory_digest(function: Any) -> str | None:
    """A checksum of the values that a callable may change: its closure, defaults, attributes and globals, and what these contain.

    Modules, classes, and functions and objects of installed packages do not count, except random generators and iterators, whose
    state is what the next call draws. ``None`` if there are too many values, or some that have no bytes.
    """
    try:
        return _memory_digest(function)
    except Exception:  # somebody's values may raise anything, which is no reason to stop
        return None


def _memory_digest(function: Any) -> str | None:
    hashed, waiting, places = hashlib.sha256(), [*_parts(function)], dict[int, int]()
    kept = []  # so that no other value gets the id of one that is gone
    while waiting:
        value = waiting.pop()
        kept.append(value)
        if len(kept) > _MOST_VALUES:
            return None
        if isinstance(value, _PLAIN):
            hashed.update(f"{type(value).__qualname__} {value!r}".encode())
        elif id(value) in places:
            hashed.update(f"as {places[id(value)]}".encode())
        else:
            places[id(value)] = len(places)
            content, parts = _content(value)
            hashed.update(f"{type(value).__qualname__} {len(parts)}".encode() + content)
            waiting += parts
    return hashed.hexdigest()


def _content(value: Any) -> tuple[bytes, Sequence[Any]]:
    """The bytes of an array or tensor, and the values that any other one contains or refers to."""
    if (torch := sys.modules.get("torch")) and isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        return (b"", value.tolist()) if value.dtype == object else (f"{value.dtype}{value.shape}".encode() + value.tobytes(), ())
    if isinstance(value, (type, types.ModuleType)):
        return b"", ()
    if (position := _position(value)) is not None:
        return b"", (position,)
    if isinstance(value, dict):
        return b"", [*value, *value.values()]
    if isinstance(value, (list, tuple, set, frozenset, deque)):
        return b"", [*value]
    if isinstance(value, (types.MethodType, functools.partial)):
        return b"", _parts(value)
    of = value if isinstance(value, types.FunctionType) else type(value)
    return b"", () if is_installed(of.__module__) else _parts(value)


def _position(value: Any) -> Any:
    """The state of a random generator or an iterator, as far as it can be read without a draw; ``None`` of anything else."""
    if isinstance(value, random.Random):
        return value.getstate()
    if isinstance(value, np.random.RandomState):
        return value.get_state()
    if isinstance(value, (np.random.Generator, np.random.BitGenerator)):
        return value.state if isinstance(value, np.random.BitGenerator) else value.bit_generator.state
    if (torch := sys.modules.get("torch")) and isinstance(value, torch.Generator):
        return value.get_state()
    if isinstance(value, types.GeneratorType):
        return None if value.gi_frame is None else (value.gi_frame.f_lasti, value.gi_frame.f_locals)
    if isinstance(value, itertools.count):
        return repr(value)
    return operator.length_hint(value) if isinstance(value, Iterator) and is_installed(type(value).__module__) else None


def _parts(value: Any) -> Sequence[Any]:
    """What a function or another object refers to."""
    if isinstance(value, types.FunctionType):
        try:
            used = inspect.getclosurevars(value)
        except ValueError:  # a variable of its closure has no value yet
            return ()
        return value.__defaults__, value.__kwdefaults__, dict(used.nonlocals), dict(used.globals), vars(value)
    if isinstance(value, types.MethodType):
        return value.__self__, value.__func__
    if isinstance(value, functools.partial):
        return value.func, value.args, value.keywords
    call = inspect.getattr_static(type(value), "__call__", None)  # that of an object, written in Python
    return call if isinstance(call, types.FunctionType) else None, getattr(value, "__dict__", None)

"""Problems at an address: ``file.py:make`` or ``module:make``, where ``make`` is a ``Problem`` or a function that returns one."""

from __future__ import annotations

import functools
import hashlib
import importlib
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from mtl_gym.checks import should
from mtl_gym.problems.base import Problem

_FORM = "be a name, or file.py:function or module:function, where the function returns a mtl_gym.Problem"


def problem_at(text: str) -> tuple[str, Problem]:
    """The problem at an address, and the address with an absolute path, which is valid in any working directory.

    A file is run, and its problem made, once per process, and again when the file has changed.

    Raises:
        ValueError: If there is no such file, module or function, or running it fails; the message names it.
        TypeError: If it is neither a problem nor a function that returns one.
    """
    home, _, name = text.rpartition(":")
    if not home or not name:
        raise ValueError(should("problem", _FORM, text, f"For example: {text.rstrip(':') or 'mine.py'}:make."))
    if not (home.endswith(".py") or "/" in home or os.sep in home):
        return text, _in_module(home, name)
    path = Path(home).expanduser().resolve()
    if path.suffix != ".py" or not path.is_file():
        raise ValueError(should("problem", "name an existing Python file", text, f"There is no {path}."))
    return f"{path}:{name}", _in_file(path, name, hashlib.sha256(path.read_bytes()).hexdigest())


@functools.cache
def _in_file(path: Path, name: str, checksum: str) -> Problem:
    with _beside(path), _told(f"{path}:{name}", path):
        module = _run(path, checksum)
    with _beside(path):
        return _made(module, name, f"{path}:{name}", path)


@functools.cache
def _run(path: Path, checksum: str) -> ModuleType:
    """Runs a file as a module. The checksum in its name makes a changed network another one."""
    module = ModuleType(f"{path.stem}_{checksum[:16]}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # where dataclasses look for their module
    try:
        exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)  # not its bytecode, which may be a second too old
    except BaseException:
        del sys.modules[module.__name__]
        raise
    return module


@functools.cache
def _in_module(home: str, name: str) -> Problem:
    with _told(f"{home}:{name}"):
        module = importlib.import_module(home)
    return _made(module, name, f"{home}:{name}", Path(module.__file__ or home))


def _made(module: ModuleType, name: str, address: str, path: Path) -> Problem:
    if not hasattr(module, name):
        own = [key for key, value in vars(module).items() if isinstance(value, Problem) or _is_function_of(module, value)]
        raise ValueError(should("problem", f"name a function of {path}: {', '.join(own) or 'it has none'}", address))
    found = getattr(module, name)
    if isinstance(found, Problem):
        return found
    if not callable(found):
        raise TypeError(should("problem", f"name a Problem, or a function that returns one, in {path}", address))
    with _told(address, path):
        problem = found()
    if not isinstance(problem, Problem):
        raise TypeError(should("problem", "name a function that returns a mtl_gym.Problem", address, f"It returned {problem!r}."))
    return problem


def _is_function_of(module: ModuleType, value: object) -> bool:
    return callable(value) and getattr(value, "__module__", None) == module.__name__ and not isinstance(value, type)


@contextmanager
def _beside(path: Path) -> Iterator[None]:
    """While a person's file runs, it can import the modules beside it, as a script can."""
    folder = str(path.parent)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


@contextmanager
def _told(address: str, path: Path | None = None) -> Iterator[None]:
    """Names the address, and the line of the file, in whatever a person's code raises."""
    try:
        yield
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if path and frame.filename == str(path)]
        place = f" ({path}, line {lines[-1]})" if lines else ""
        remedy = f"{type(error).__name__}: {error}{place}"
        if isinstance(error, ModuleNotFoundError) and Path(f"{address.partition(':')[0]}.py").is_file():
            remedy += f". A file is given with its ending: {address.replace(':', '.py:')}"
        raise ValueError(should("problem", "name code that runs without an error", address, remedy)) from error

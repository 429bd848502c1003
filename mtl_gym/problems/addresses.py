"""Problems at an address: ``file.py:make`` or ``module:make``, where ``make`` is a ``Problem`` or a function that returns one."""

from __future__ import annotations

import functools
from pathlib import Path
from types import FunctionType
from typing import Any

from mtl_gym.addresses import Place, place_of
from mtl_gym.checks import should
from mtl_gym.problems.base import Problem
from mtl_gym.problems.naming import calling

_USUAL = "make"  # which says nothing about the problem
_FORM = "be a name, or file.py:function or module:function, where the function returns a mtl_gym.Problem"


def problem_at(text: str) -> tuple[str, Problem]:
    """The problem at an address, and the address with an absolute path, which is valid in any working directory.

    A module may be in the working folder. Code is run, and its problem made, once per process; that of a file again when it has
    changed. Without a name of its own, it gets the function's, or that of the file or module if the function is called ``make``.

    Raises:
        ValueError: If there is no such file, module or function, or running it fails; the message names it.
        TypeError: If it is neither a problem nor a function that returns one.
    """
    place = place_of("problem", text, _FORM)
    return place.address, _made(place)


@functools.cache
def _made(place: Place) -> Problem:
    found = place.load(noun="function", listed=_is_offered)
    if isinstance(found, Problem):
        return found
    if not callable(found):
        condition = f"name a Problem, or a function that returns one, in {place.file}"
        raise TypeError(should("problem", condition, place.address))
    with place.running(), calling(_name(place)):
        problem = found()
    if not isinstance(problem, Problem):
        condition, remedy = "name a function that returns a mtl_gym.Problem", f"It returned {problem!r}."
        raise TypeError(should("problem", condition, place.address, remedy))
    return problem


def _name(place: Place) -> str:
    stem = place.home.rpartition(".")[2] if place.checksum is None else Path(place.home).stem
    return stem if place.name == _USUAL else place.name


def _is_offered(value: Any) -> bool:
    return isinstance(value, (Problem, FunctionType))

"""How an environment was made: its Gymnasium specification, and its representation."""

from __future__ import annotations

import copy
from dataclasses import fields
from typing import Any

import numpy as np
from gymnasium.envs.registration import EnvSpec

from mtl_gym.checks import should
from mtl_gym.problems.base import Problem


class _OfData(EnvSpec):
    """The specification of an environment whose problem only its data identify."""

    def to_json(self) -> str:
        remedy = "Pass file.py:function or module:function as `problem`, where the function returns it."
        raise TypeError(should("problem", "be one that can be found again, to be written as JSON", self.kwargs["problem"], remedy))


def specified(spec: EnvSpec | None, problem: Problem) -> EnvSpec | None:
    """The specification with ``problem`` as the text by which it is found again, in any process and working directory, and with
    numpy's numbers as Python's, so that it can be written as JSON.
    """
    if spec is None:
        return None
    if "problem" in spec.kwargs and problem.address is None:
        return _OfData(**{own.name: getattr(spec, own.name) for own in fields(spec) if own.init})
    own = copy.copy(spec)
    own.kwargs = {name: problem.address if name == "problem" else _plain(value) for name, value in spec.kwargs.items()}
    return own


def _plain(value: Any) -> Any:
    """Numpy's numbers, also those in lists and mappings, as Python's."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return type(value)(map(_plain, value)) if type(value) in (list, tuple) else value


def represented(env: Any) -> str:
    """``Class(name=value, ...)``: an environment by the arguments that it was made with, which it keeps as ``_given``."""
    return f"{type(env).__name__}({', '.join(f'{name}={value!r}' for name, value in env._given.items())})"

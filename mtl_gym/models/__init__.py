"""The networks: N replicas trained together. ``NETWORKS`` is the table; see :mod:`mtl_gym.models.base`."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

from mtl_gym.checks import choose, should, shown
from mtl_gym.models.base import Model
from mtl_gym.models.modules import module_model
from mtl_gym.problems.base import Problem
from mtl_gym.problems.modules import ModuleFactory

NETWORKS = {
    "mlp": "mtl_gym.models.native:mlp",
    "conv": "mtl_gym.models.native:conv",
    "dense": "mtl_gym.models.native:dense",
    "point": "mtl_gym.models.native:point",
}
"""Name to ``"module:function"``; the function takes the problem and ``hidden_sizes``."""


def make_model(problem: Problem, hidden_sizes: tuple[int, ...]) -> Model:
    """Makes a problem's model: of its own modules, or the network of its function or name, which must fit ``hidden_sizes``.

    Raises:
        TypeError: If its own function has other arguments, or returns anything but a :class:`~mtl_gym.models.base.Model`.
    """
    factory = problem.network
    if isinstance(factory, ModuleFactory):
        if hidden_sizes:
            raise ValueError(should("hidden_sizes", "be empty, since the problem's model has widths of its own", hidden_sizes))
        return module_model(problem, factory)
    if not callable(factory):
        module, name = choose("network", factory, NETWORKS).split(":")
        factory = getattr(importlib.import_module(module), name)
    _check_arguments(factory, problem, hidden_sizes)
    model = factory(problem, hidden_sizes)
    if not isinstance(model, Model):
        raise TypeError(should("network", "be a function that returns a mtl_gym.Model", factory, f"It returned {shown(model)}."))
    return model


def _check_arguments(factory: Callable[..., Any], *given: object) -> None:
    try:
        inspect.signature(factory).bind(*given)
    except TypeError as error:
        raise TypeError(should("network", "take the problem and `hidden_sizes`", factory, f"({error})")) from error
    except ValueError:  # some that are written in C do not tell
        return

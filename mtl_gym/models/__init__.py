"""The networks: N replicas trained together. ``NETWORKS`` is the table; see :mod:`mtl_gym.models.base`."""

from __future__ import annotations

import importlib

from mtl_gym.checks import choose, should
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
    """Makes a problem's model: of its own modules, or the network of its function or name, which must fit ``hidden_sizes``."""
    factory = problem.network
    if isinstance(factory, ModuleFactory):
        if hidden_sizes:
            raise ValueError(should("hidden_sizes", "be empty, since the problem's model has widths of its own", hidden_sizes))
        return module_model(problem, factory)
    if not callable(factory):
        module, name = choose("network", factory, NETWORKS).split(":")
        factory = getattr(importlib.import_module(module), name)
    return factory(problem, hidden_sizes)

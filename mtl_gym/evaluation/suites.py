"""Finds suites: frozen lists of instances on which methods are compared, so that results of different people can be put together.

Importing this module loads neither torch nor data.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

from mtl_gym.checks import choose, unknown
from mtl_gym.environments import LOSS_WEIGHTING
from mtl_gym.evaluation.suite import Suite
from mtl_gym.evaluation.suite_tables import SUITES
from mtl_gym.plugins import SUITES as GROUP, entries, load_table, resolve

_HOME = "mtl_gym.evaluation.suite_tables:SUITES"


def find_suites() -> dict[tuple[str, str], str]:
    """Maps (name, environment's id) to ``"module:NAME"``: a :class:`Suite`, or a function without arguments that returns one.

    Ours, whose names are reserved, and those of packages with the entry point ``mtl_gym.suites``: a table from ``"name env-id"`` to
    ``"module:NAME"``.
    """
    others = [load_table(entry) for entry in entries(GROUP)]
    found = {_key(name): home for table in reversed(others) for name, home in table.items()}
    return dict.fromkeys(SUITES, _HOME) | {key: own for key, own in found.items() if key not in SUITES}


def _key(name: str) -> tuple[str, str]:
    """A name and an id; without an id, that of LossWeighting."""
    first, _, env = name.partition(" ")
    return first, env.strip() or LOSS_WEIGHTING


def load_suite(name: str, env: str = LOSS_WEIGHTING) -> Suite:
    """The suite of that name for an environment.

    Raises:
        ValueError: If there is none; those that there are are listed.
        ImportError: If another package's suite cannot be loaded.
    """
    known = find_suites()
    choose("env", env, {id: home for (_, id), home in known.items()})
    if not isinstance(name, str) or (name, env) not in known:
        raise ValueError(unknown("suite", name, {own: home for (own, id), home in known.items() if id == env}))
    return SUITES[name, env] if (name, env) in SUITES else _resolved(name, env, known[name, env])


@functools.cache
def _resolved(name: str, env: str, home: str) -> Suite:
    """A suite of another package."""
    found = resolve(name, home)
    found = found() if callable(found) and not isinstance(found, type) else found
    if not isinstance(found, Suite) or (found.name, found.env) != (name, env):
        raise ImportError(f"{name!r} is {home!r}, which should be a Suite of this name for {env}. It is {found!r:.200}.")
    return found


def installed(suite: Mapping[str, str]) -> Suite | None:
    """The suite of this ``name``, ``env`` and ``version``; ``None`` if there is none, or only another version of it.

    Raises:
        ImportError: If another package's suite cannot be loaded.
    """
    name, env = suite["name"], suite["env"]
    found = load_suite(name, env) if (name, env) in find_suites() else None
    return found if found and found.version == suite["version"] else None

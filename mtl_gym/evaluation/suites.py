"""Suites: frozen lists of instances on which methods are compared, so that results of different people can be put together.

Importing this module loads neither torch nor data.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mtl_gym.checks import choose, should, unknown
from mtl_gym.environments import LOSS_WEIGHTING
from mtl_gym.plugins import SUITES as GROUP, entries, load_table, resolve

HOME = "mtl_gym.evaluation.suite_tables"


@dataclass(frozen=True)
class Study:
    """Instances of one problem in one setting.

    Attributes:
        name: What it is called in the suite.
        problem: The problem's name.
        problem_version: The version of the problem that is meant; of another one, the study is another one.
        arguments: Further arguments of the environment.
        first: The first id of its instances.
        count: How many follow each other.
        data: What data it shares with other studies, which count as one where data sets are drawn.
    """

    name: str
    problem: str
    problem_version: int = 0
    arguments: Mapping[str, Any] = field(default_factory=dict)
    first: int = 0
    count: int = 12
    data: str = ""

    @property
    def ids(self) -> list[int]:
        """The ids of its instances."""
        return [*range(self.first, self.first + self.count)]


@dataclass(frozen=True)
class Suite:
    """A frozen list of studies of one environment.

    Results of the same ``version`` are comparable; whoever changes a study gives the suite another one.

    Attributes:
        name: Its name, which suites of other environments may have too.
        env: The environment's id.
        version: ``"major.minor"``.
        summary: One line for lists.
        studies: Its studies.

    Raises:
        ValueError: If there are no studies, or two have the same name.
    """

    name: str
    env: str
    version: str
    summary: str
    studies: Sequence[Study]

    def __post_init__(self) -> None:
        names = [study.name for study in self.studies]
        if not names or len({*names}) < len(names):
            raise ValueError(should("studies", "be at least one, each with a name of its own", names))

    @property
    def instances(self) -> int:
        """Instances of all studies."""
        return sum(study.count for study in self.studies)

    @property
    def title(self) -> str:
        """Name and version."""
        return f"{self.name} {self.version}"

    def origin(self, study: Study) -> dict[str, str]:
        """What is kept with results of a study, so that a file of results says of itself what it is."""
        return {"name": self.name, "version": self.version, "study": study.name, "data": study.data}


def find_suites() -> dict[tuple[str, str], str]:
    """Maps (name, environment's id) to ``"module:NAME"``: a :class:`Suite`, or a function without arguments that returns one.

    Ours, whose names are reserved, and those of packages with the entry point ``mtl_gym.suites``: a table from ``"name env-id"`` to
    ``"module:NAME"``.
    """
    from mtl_gym.evaluation.suite_tables import SUITES

    others = [load_table(entry) for entry in entries(GROUP)]
    found = {_key(name): home for table in reversed(others) for name, home in table.items()}
    return dict.fromkeys(SUITES, f"{HOME}:SUITES") | {key: own for key, own in found.items() if key not in SUITES}


def _key(name: str) -> tuple[str, str]:
    """A name and an id; without an id, that of LossWeighting."""
    first, _, env = name.partition(" ")
    return first, env.strip() or LOSS_WEIGHTING


@functools.cache
def load_suite(name: str, env: str = LOSS_WEIGHTING) -> Suite:
    """The suite of that name for an environment.

    Raises:
        ValueError: If there is none; those that there are are listed.
        ImportError: If another package's suite cannot be loaded.
    """
    from mtl_gym.evaluation.suite_tables import SUITES

    known = find_suites()
    if not isinstance(name, str) or (name, env) not in known:
        of_env = {own: home for (own, id), home in known.items() if id == env}
        choose("env", env, {id: home for (_, id), home in known.items()})
        raise ValueError(unknown("suite", name, of_env))
    if (name, env) in SUITES:
        return SUITES[name, env]
    home = known[name, env]
    found = resolve(name, home)
    found = found() if callable(found) and not isinstance(found, type) else found
    if not isinstance(found, Suite) or (found.name, found.env) != (name, env):
        raise ImportError(f"{name!r} is {home!r}, which should be a Suite of this name for {env}. It is {found!r:.200}.")
    return found

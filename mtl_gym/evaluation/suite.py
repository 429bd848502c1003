"""What a suite is: a frozen, versioned list of studies."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from mtl_gym.checks import should


def is_name(text: object) -> bool:
    """Whether a text may be the name of a suite or a study, which are names of files and folders too."""
    return isinstance(text, str) and re.fullmatch(r"\w[\w.+ -]*", text) is not None


_NAMED = "be letters, digits, '_', '.', '+', '-' and spaces, a letter or digit first: folders have this name"


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

    Raises:
        ValueError: If its name could be no folder's.
    """

    name: str
    problem: str
    problem_version: int = 0
    arguments: Mapping[str, Any] = field(default_factory=dict)
    first: int = 0
    count: int = 12
    data: str = ""

    def __post_init__(self) -> None:
        if not is_name(self.name):
            raise ValueError(should("name", _NAMED, self.name))

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
        ValueError: If there are no studies, two have the same name, or the suite's could be no folder's.
    """

    name: str
    env: str
    version: str
    summary: str
    studies: Sequence[Study]

    def __post_init__(self) -> None:
        if not is_name(self.name):
            raise ValueError(should("name", _NAMED, self.name))
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

    @property
    def checksum(self) -> str:
        """Twelve hexadecimal digits of the SHA-256 of its environment and studies."""
        rows = [[own.name, own.problem, own.problem_version, dict(own.arguments), own.ids, own.data] for own in self.studies]
        return sha256(json.dumps([self.env, rows], sort_keys=True).encode()).hexdigest()[:12]

    def origin(self, study: Study) -> dict[str, str]:
        """What is kept with results of a study, so that a file of results says of itself what it is."""
        return {"name": self.name, "version": self.version, "study": study.name, "data": study.data}


def is_origin(suite: Mapping[str, Any]) -> bool:
    """Whether these, read from a file, are texts of :meth:`Suite.origin`."""
    texts = {*suite} == {"name", "version", "study", "data"} and all(isinstance(own, str) for own in suite.values())
    return texts and is_name(suite["name"]) and is_name(suite["study"])

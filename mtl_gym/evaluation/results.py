"""Results in a database: one row for each (policy, instance), keyed by the hash of its full specification."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mtl_gym.arguments import should

_COLUMNS = "key, setting, policy, instance, delta_m, spec, result"
_RESULTS = """
CREATE TABLE IF NOT EXISTS results (
    key TEXT PRIMARY KEY, setting TEXT NOT NULL, policy TEXT NOT NULL, instance INTEGER NOT NULL, delta_m REAL,
    spec TEXT NOT NULL, result TEXT NOT NULL, written TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
)
"""
_COMPARISONS = "CREATE TABLE IF NOT EXISTS comparisons (setting TEXT NOT NULL)"


@dataclass(frozen=True)
class Result:
    """What one policy reached on one instance.

    Attributes:
        policy: Its name, with options, as on the command line.
        instance: Id of the instance.
        metrics: On the *test* split, by ``task/metric``.
        references: The same of single-task learning on this instance.
        delta_m: Mean relative gain over single-task learning in percent, higher is better; -100 if the training diverged.
        cost: ``forward`` and ``backward`` passes of a training batch; the test split's evaluation is not counted.
        diverged: Whether the training became non-finite.
        episode_return: Sum of the rewards.
        curves: Checkpoints: ``step`` (S,), ``loss`` (task to (S,), on *reward*, without the instance's loss scale), and
            ``weight`` and improvable ``gap`` (task to (S,), of the means since the checkpoint before); ``None`` where a number
            is not finite.
        planted: What the instance planted in each task: ``scale`` of its loss and ``noise`` of its labels (task to number).
        grouping: Where tasks are grouped, into what; see :func:`mtl_gym.evaluation.groupings.groupings`.
        structure: Where layers are merged, what has become of them; see :func:`mtl_gym.evaluation.structures.structures`.
    """

    policy: str
    instance: int
    metrics: dict[str, float]
    references: dict[str, float]
    delta_m: float
    cost: dict[str, float]
    diverged: bool
    episode_return: float = 0.0
    curves: dict[str, Any] = field(default_factory=dict)
    planted: dict[str, dict[str, float]] = field(default_factory=dict)
    structure: dict[str, Any] = field(default_factory=dict)
    grouping: dict[str, Any] = field(default_factory=dict)


def spec_key(spec: Mapping[str, Any]) -> str:
    """The hash of a JSON-plain specification."""
    return hashlib.sha256(json.dumps(spec, sort_keys=True, allow_nan=False).encode()).hexdigest()


class Results:
    """A results file; rows are whole and durable as soon as :meth:`write` returns.

    Args:
        path: The SQLite file, made if it is missing; several processes may share it (WAL mode).
        argument: What the path is called in an error.

    Raises:
        ValueError: If the file cannot be made or written, or is no database of results.
    """

    def __init__(self, path: Path, argument: str = "path") -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._connect()) as connection, connection:
                connection.execute(_RESULTS)
                connection.execute(f"INSERT INTO results ({_COLUMNS}) SELECT {_COLUMNS} FROM results WHERE 0")
                connection.execute(_COMPARISONS)
                connection.commit()
                connection.execute("PRAGMA journal_mode=WAL")
        except (OSError, sqlite3.DatabaseError) as error:
            condition = "be in a folder that can be written, and a database of results if it is there"
            raise ValueError(f"{should(argument, condition, str(path))} ({error})") from error

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=60)

    def read(self, keys: Iterable[str]) -> dict[str, Result]:
        """The results that are there, by their keys."""
        with closing(self._connect()) as connection:
            found = [connection.execute("SELECT key, result FROM results WHERE key = ?", (key,)).fetchone() for key in keys]
        return {row[0]: Result(**json.loads(row[1])) for row in found if row}

    def write(self, specs: Iterable[Mapping[str, Any]], results: Iterable[Result]) -> None:
        """Adds results with their specifications in one transaction; a key that is there already is kept as it is."""
        rows = [
            (
                spec_key(spec),
                json.dumps(spec.get("setting", {}), sort_keys=True),
                result.policy,
                result.instance,
                result.delta_m,
                json.dumps(spec),
                json.dumps(asdict(result)),
            )
            for spec, result in zip(specs, results, strict=True)
        ]
        with closing(self._connect()) as connection, connection:
            connection.executemany(f"INSERT OR IGNORE INTO results ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

    def begin(self, setting: Mapping[str, Any]) -> None:
        """Notes that a comparison of this setting begins; :meth:`latest` goes by it."""
        with closing(self._connect()) as connection, connection:
            connection.execute("INSERT INTO comparisons VALUES (?)", (json.dumps(setting, sort_keys=True),))

    def latest(self) -> tuple[dict[str, Any], list[Result]]:
        """The setting that was compared last, and its results: of each policy and instance the newest one.

        Raises:
            ValueError: If there are none.
        """
        with closing(self._connect()) as connection:
            begun = "SELECT setting FROM comparisons WHERE setting IN (SELECT setting FROM results) ORDER BY rowid DESC LIMIT 1"
            written = "SELECT setting FROM results ORDER BY rowid DESC LIMIT 1"
            last = connection.execute(begun).fetchone() or connection.execute(written).fetchone()
            if last is None:
                raise ValueError(should("path", "hold results", str(self.path)))
            rows = connection.execute("SELECT result FROM results WHERE setting = ? ORDER BY rowid", last).fetchall()
        results = [Result(**json.loads(row[0])) for row in rows]
        return json.loads(last[0]), list({(result.policy, result.instance): result for result in results}.values())


def plain(value: Any) -> Any:
    """JSON-plain: tuples as lists, numpy's numbers as Python's.

    Raises:
        TypeError: If a value has no plain form.
    """
    return json.loads(json.dumps(value, default=_plain))


def _plain(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    raise TypeError(should("arguments", "be numbers, texts, lists and mappings of them", value))

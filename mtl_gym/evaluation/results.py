"""Results in a database: one row for each (policy, instance), keyed by the hash of its full specification."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_gym.checks import should

Array = npt.NDArray[np.float64]
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
    """The result of one policy on one instance.

    Attributes:
        policy: Its name, with options, as on the command line.
        instance: Id of the instance.
        metrics: Metrics on the *test* split, by ``task/metric``.
        references: Those of single-task learning on this instance.
        delta_m: Mean relative gain over single-task learning in percent, higher is better; -100 if the training diverged.
        cost: ``forward`` and ``backward`` passes of a training batch, without the evaluation of the test split.
        diverged: Whether the training became non-finite.
        episode_return: Sum of the rewards.
        curves: Checkpoints: ``step`` (S,), ``loss`` (task to (S,), on *reward*, without the instance's loss scale), and ``weight``
            and improvable ``gap`` (task to (S,), of means since the previous checkpoint); ``None`` for numbers that are not finite.
        planted: Properties that the instance planted in each task: ``scale`` of its loss, ``noise`` of its labels (task to number).
        outcome: The environment's :meth:`~mtl_gym.Decision.outcome`, its ``measures``, and ``invalid_actions``, the fraction of
            decisions that were masked, where ``info`` has ``invalid_action``.
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
    outcome: dict[str, Any] = field(default_factory=dict)


def spec_key(spec: Mapping[str, Any]) -> str:
    """The hash of a JSON-plain specification."""
    return hashlib.sha256(json.dumps(spec, sort_keys=True, allow_nan=False).encode()).hexdigest()


class Results:
    """A results file; rows are durable as soon as :meth:`write` returns, which writes them atomically.

    Args:
        path: The SQLite file, created if it is missing; several processes may share it (WAL mode).
        argument: Name of the path in errors.

    Raises:
        ValueError: If the file cannot be created or written, or is not a database of results.
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
                with suppress(sqlite3.OperationalError):  # locked: another process has just opened the file, and does this itself
                    connection.execute("PRAGMA journal_mode=WAL")
        except (OSError, sqlite3.DatabaseError) as error:
            condition = "be in a writable folder, and a database of results if it exists"
            raise ValueError(f"{should(argument, condition, str(path))} ({error})") from error

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=60)

    def read(self, keys: Iterable[str]) -> dict[str, Result]:
        """The stored results, by their keys."""
        with closing(self._connect()) as connection:
            found = [connection.execute("SELECT key, result FROM results WHERE key = ?", (key,)).fetchone() for key in keys]
        return {row[0]: Result(**json.loads(row[1])) for row in found if row}

    def write(self, specs: Iterable[Mapping[str, Any]], results: Iterable[Result]) -> None:
        """Adds results with their specifications in one transaction; rows of existing keys are kept."""
        rows = []
        for spec, result in zip(specs, results, strict=True):
            head = (spec_key(spec), json.dumps(spec.get("setting", {}), sort_keys=True), result.policy, result.instance)
            rows.append((*head, result.delta_m, json.dumps(spec), json.dumps(asdict(result))))
        with closing(self._connect()) as connection, connection:
            connection.executemany(f"INSERT OR IGNORE INTO results ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

    def begin(self, setting: Mapping[str, Any]) -> None:
        """Records for :meth:`latest` that a comparison with this setting begins."""
        with closing(self._connect()) as connection, connection:
            connection.execute("INSERT INTO comparisons VALUES (?)", (json.dumps(setting, sort_keys=True),))

    def latest(self) -> tuple[dict[str, Any], list[Result]]:
        """The setting of the last comparison, and its newest result for each policy and instance; raises ValueError if none."""
        with closing(self._connect()) as connection:
            begun = "SELECT setting FROM comparisons WHERE setting IN (SELECT setting FROM results) ORDER BY rowid DESC LIMIT 1"
            written = "SELECT setting FROM results ORDER BY rowid DESC LIMIT 1"
            last = connection.execute(begun).fetchone() or connection.execute(written).fetchone()
            if last is None:
                raise ValueError(should("path", "hold results", str(self.path)))
            rows = connection.execute("SELECT result FROM results WHERE setting = ? ORDER BY rowid", last).fetchall()
        results = [Result(**json.loads(row[0])) for row in rows]
        return json.loads(last[0]), list({(result.policy, result.instance): result for result in results}.values())


def outcomes(results: Iterable[Result], key: str) -> dict[str, list[dict[str, Any]]]:
    """The outcomes with ``key``, by policy, in the order of the results."""
    known: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        if key in result.outcome:
            known.setdefault(result.policy, []).append(result.outcome)
    return known


def traced_tasks(results: Iterable[Result]) -> list[str]:
    """The tasks with learning curves, in the order of the results."""
    return list(dict.fromkeys(task for result in results for task in result.curves.get("loss", ())))


def plain(value: Any) -> Any:
    """Makes a value JSON-plain: tuples as lists, numpy's numbers as Python's; raises TypeError if it has no plain form."""
    return json.loads(json.dumps(value, default=_plain))


def _plain(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    raise TypeError(should("arguments", "be numbers, texts, lists and mappings of them", value))

"""Results in a database: one row for each (policy, instance), keyed by the hash of its full specification."""

from __future__ import annotations

import hashlib
import json
import math
import sqlite3
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_gym.checks import should
from mtl_gym.evaluation.database import Database, share
from mtl_gym.evaluation.result import Result as Result
from mtl_gym.evaluation.result_checks import checked
from mtl_gym.evaluation.suite import is_origin

Array = npt.NDArray[np.float64]
Comparison = tuple[dict[str, Any], dict[str, Any], list[Result]]
"""Setting, origin and results."""
_COLUMNS = "key, setting, policy, instance, delta_m, spec, result"
_RESULTS = """
CREATE TABLE IF NOT EXISTS results (
    key TEXT PRIMARY KEY, setting TEXT NOT NULL, policy TEXT NOT NULL, instance INTEGER NOT NULL, delta_m REAL,
    spec TEXT NOT NULL, result TEXT NOT NULL, written TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
)
"""
_COMPARISONS = "CREATE TABLE IF NOT EXISTS comparisons (setting TEXT NOT NULL, origin TEXT, keys TEXT)"
_ADD = f"INSERT INTO results ({_COLUMNS})"
_REPLACE = "ON CONFLICT (key) DO UPDATE SET " + ", ".join(f"{name} = excluded.{name}" for name in _COLUMNS.split(", ")[1:])
"""Keeps the place of the row that is replaced."""

_FILE = "results.sqlite"
_SETTING = {"env": str, "problem": str, "arguments": dict, "version": str}
"""Fields that the setting of a comparison always has."""
_ORIGIN: dict[str, tuple[type, ...]] = {
    **{"seed": (object,), "command": (str, type(None)), "address": (str, type(None))},
    **{"smallest_difference": (int, float), "suite": (dict, type(None))},
}
"""Fields that its origin may have."""


def spec_key(spec: Mapping[str, Any]) -> str:
    """The hash of a JSON-plain specification."""
    return hashlib.sha256(json.dumps(spec, sort_keys=True, allow_nan=False).encode()).hexdigest()


class Results:
    """A results file; rows are durable as soon as :meth:`write` returns, which writes them atomically.

    Rows that cannot be read are skipped with a warning, and replaced when they are written again. A file that SQLite finds damaged
    is left as it is.

    Args:
        path: The SQLite file, created if it is missing; several processes may share it (WAL mode).
        argument: Name of the path in errors.

    Raises:
        ValueError: Here and in all methods, if the file cannot be opened, is no database of results or is damaged.
        OSError: Here and in all methods, if the disk is full or another process keeps the file locked for a minute.
    """

    def __init__(self, path: Path, argument: str = "path") -> None:
        self.path, self._database = path, Database(path, argument)
        with self._database.connection() as connection:
            connection.execute(_RESULTS)
            connection.execute(f"{_ADD} SELECT {_COLUMNS} FROM results WHERE 0 {_REPLACE}")  # the columns are ours, and writable
            connection.execute(_COMPARISONS)
            known = [row[1] for row in connection.execute("PRAGMA table_info(comparisons)")]
            for name in {"origin", "keys"}.difference(known):  # of an earlier version
                connection.execute(f"ALTER TABLE comparisons ADD COLUMN {name} TEXT")
            connection.execute("INSERT INTO comparisons (setting) SELECT setting FROM comparisons WHERE 0")
            share(connection)

    def read(self, keys: Iterable[str]) -> dict[str, Result]:
        """The stored results, by their keys; those that cannot be read are skipped with a warning."""
        with self._database.connection() as connection:
            found, defects = _readable(connection, keys)
        self._warn(defects, "are made again")
        return found

    def write(self, specs: Iterable[Mapping[str, Any]], results: Iterable[Result]) -> None:
        """Adds results with their specifications in one transaction; rows of existing keys are kept if they can be read."""
        rows: dict[str, tuple[Any, ...]] = {}
        for spec, result in zip(specs, results, strict=True):
            head = (spec_key(spec), json.dumps(spec.get("setting", {}), sort_keys=True), result.policy, result.instance)
            rows.setdefault(head[0], (*head, result.delta_m, json.dumps(spec), json.dumps(asdict(result))))
        with self._database.connection() as connection:
            connection.execute("BEGIN IMMEDIATE")  # what can be read does not change before the rest is written
            known, _ = _readable(connection, rows)
            missing = [row for key, row in rows.items() if key not in known]
            connection.executemany(f"{_ADD} VALUES (?, ?, ?, ?, ?, ?, ?) {_REPLACE}", missing)

    def begin(self, setting: Mapping[str, Any], origin: Mapping[str, Any], keys: Iterable[str] = ()) -> None:
        """Records for :meth:`latest` that a comparison with this setting begins, the seed and command that it comes from, and the
        keys of its results.
        """
        row = (json.dumps(setting, sort_keys=True), json.dumps(origin), json.dumps([*keys]))
        with self._database.connection() as connection:
            connection.execute("INSERT INTO comparisons (setting, origin, keys) VALUES (?, ?, ?)", row)

    def latest(self) -> Comparison:
        """The setting and origin of the last comparison, and a result of this setting for each policy and instance: the
        comparison's own if it has one, otherwise the newest.

        Raises:
            ValueError: If there are no results.
        """
        with self._database.connection() as connection:
            ours = "WHERE setting IN (SELECT setting FROM results)"
            begun = f"SELECT setting, origin, keys FROM comparisons {ours} ORDER BY rowid DESC LIMIT 1"
            written = "SELECT setting, NULL, NULL FROM results ORDER BY rowid DESC LIMIT 1"
            last = connection.execute(begun).fetchone() or connection.execute(written).fetchone() or ("{}", None, None)
        found = self._comparison(*last)
        if not found[2]:
            raise ValueError(should("path", "hold results", str(self.path)))
        return found

    def studies(self) -> list[Comparison]:
        """The comparisons that are studies of suites, the last one of each study, in the order in which these were first begun.

        They are as :meth:`latest` has them, but may have no results yet.

        Raises:
            ValueError: If a setting or an origin is not what :func:`mtl_gym.compare_suite` writes.
        """
        with self._database.connection() as connection:
            rows = connection.execute("SELECT setting, origin, keys FROM comparisons ORDER BY rowid").fetchall()
        last = {}
        for row in rows:
            if suite := self._plain(row[1], {}).get("suite"):
                last[json.dumps([suite, self._plain(row[0], {}).get("env")], sort_keys=True)] = row
        found = [self._comparison(*row) for row in last.values()]
        for setting, origin, _ in found:
            self.check(setting, origin)
        return found

    def _comparison(self, text: str, origin: str | None, keys: str | None) -> Comparison:
        """Setting, origin and results of a comparison, from a row of the table."""
        with self._database.connection() as connection:
            rows = connection.execute("SELECT key FROM results WHERE setting = ? ORDER BY rowid", (text,)).fetchall()
            found, defects = _readable(connection, [row[0] for row in rows])
        self._warn(defects, "are left out; run the comparison again to make them")
        setting, made, own = self._plain(text, {}), self._plain(origin, {}), self._plain(keys, set[str]())
        chosen = {(result.policy, result.instance): result for result in found.values()}
        chosen |= {(result.policy, result.instance): result for key, result in found.items() if key in own}
        return setting, made, [*chosen.values()]

    def _plain(self, text: str | None, empty: Any) -> Any:
        """A cell of the table, of the type of ``empty``."""
        try:
            return type(empty)(json.loads(text)) if text else empty
        except (ValueError, TypeError) as error:
            raise self._database.damaged(error) from error

    def check(self, setting: Mapping[str, Any], origin: Mapping[str, Any]) -> None:
        """Raises the error of a damaged file if a setting lacks a field of comparisons, or an origin has another one."""
        wrong = [name for name, kind in _SETTING.items() if not isinstance(setting.get(name), kind)]
        wrong += [name for name, value in origin.items() if not isinstance(value, _ORIGIN.get(name, ()))]
        if (suite := origin.get("suite")) and not ("suite" in wrong or is_origin(suite)):
            wrong.append("suite")
        if wrong:
            raise self._database.damaged(ValueError(f"wrong fields of the last comparison: {', '.join(wrong)}"))

    def _warn(self, defects: Mapping[str, str], consequence: str) -> None:
        if defects:
            reason = next(iter(defects.values()))
            text = f"{len(defects)} rows of {self.path} cannot be read ({reason}); they {consequence}."
            warnings.warn(text, RuntimeWarning, stacklevel=3)


def _readable(connection: sqlite3.Connection, keys: Iterable[str]) -> tuple[dict[str, Result], dict[str, str]]:
    """The results of keys, and what is wrong with those that cannot be read."""
    found, defects = {}, {}
    for key in keys:
        row = connection.execute("SELECT CAST(result AS BLOB) FROM results WHERE key = ?", (key,)).fetchone()
        try:
            if row:
                found[key] = checked(Result(**json.loads(row[0])))
        except Exception as error:  # damaged rows may raise anything
            defects[key] = f"{type(error).__name__}: {error}"
    return found, defects


def opened(folder: Path) -> Results:
    """The results of an output folder, created if it is missing."""
    return Results(folder / _FILE, "out")


def stored_in(path: Path, argument: str = "source") -> Results:
    """The results in a folder, or of a file; raises ValueError if there is none."""
    file = path / _FILE if path.is_dir() else path
    if not file.is_file():
        raise ValueError(should(argument, f"be a folder with {_FILE}, or such a file", str(path)))
    return Results(file, argument)


def stored(folder: Path) -> Comparison:
    """The last comparison in an output folder, see :meth:`Results.latest`.

    Raises:
        ValueError: If there is none, or its setting or origin is not what :func:`mtl_gym.compare` writes.
    """
    if not (folder / _FILE).is_file():
        raise ValueError(should("folder", f"contain {_FILE}, which compare writes", str(folder)))
    store = Results(folder / _FILE)
    setting, origin, results = store.latest()
    store.check(setting, origin)
    return setting, origin, results


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


def finite(value: Any) -> Any:
    """Replaces numbers that are not finite by ``None``, since JSON has no NaN."""
    if isinstance(value, Mapping):
        return {name: finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plain(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    raise TypeError(should("arguments", "be numbers, texts, lists and mappings of them", value))

"""A file of SQLite that several processes share, whose errors name the file and the remedy."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from mtl_gym.checks import should

PATIENCE = 60.0
"""Seconds to wait for another process's lock."""
_UNUSABLE = (ValueError, "be in a writable folder, and a database of results if it exists", "")
_DAMAGED = (
    ValueError,
    "be a database of results, undamaged",
    "It is left as it is. Move it away and run the command again, or recover what is readable with: sqlite3 FILE .recover",
)
_FULL = (OSError, "be on a disk with free space", "What was written before is kept; run the command again to resume.")
_LOCKED = (OSError, f"be free: another process has kept it locked for {PATIENCE:g} seconds", "")
_TROUBLES: dict[int, tuple[type[Exception], str, str]] = {
    **dict.fromkeys((sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_NOTADB), _UNUSABLE),
    **dict.fromkeys((sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR), _FULL),
    **dict.fromkeys((sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED), _LOCKED),
}
"""SQLite's error codes to class, condition and remedy; others mean that the file is damaged."""


class Database:
    """A file that may be missing, damaged, locked, or on a full disk.

    Args:
        path: The file; its folder is made if it is missing.
        argument: Name of the path in errors.

    Raises:
        ValueError: If the folder cannot be made, or the file is damaged.
    """

    def __init__(self, path: Path, argument: str) -> None:
        self.path, self._argument = path, argument
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(self._message(_UNUSABLE, error)) from error
        with self.connection() as connection:
            [damage] = connection.execute("PRAGMA quick_check(1)").fetchone()
            if damage != "ok":
                raise sqlite3.DatabaseError(" ".join(damage.split()))

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """A connection.

        Raises:
            ValueError: If the file cannot be opened, is no database or is damaged.
            OSError: If the disk is full, or another process keeps the file locked for ``PATIENCE``.
        """
        try:
            with closing(sqlite3.connect(self.path, timeout=PATIENCE, isolation_level=None)) as connection, connection:
                yield connection
        except (sqlite3.ProgrammingError, sqlite3.InterfaceError):
            raise  # the caller's own
        except sqlite3.Error as error:
            row = _TROUBLES.get(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF, _DAMAGED)
            raise row[0](self._message(row, error)) from error

    def damaged(self, error: Exception) -> ValueError:
        """The error of a file with rows that nobody can have written."""
        return ValueError(self._message(_DAMAGED, error))

    def _message(self, row: tuple[type[Exception], str, str], error: Exception) -> str:
        return should(self._argument, row[1], str(self.path), f"({error}) {row[2]}".strip())


def share(connection: sqlite3.Connection) -> None:
    """Switches the file to WAL mode for good: one process writes while others read.

    While another connection writes, SQLite refuses this at once, whatever the timeout: it upgrades a read lock that it already
    holds, and two that did so and waited would wait for each other. So the wait is here.
    """
    last = time.monotonic() + PATIENCE
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")  # some network file systems keep their mode, which also works
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > last:
                raise
            time.sleep(0.01)

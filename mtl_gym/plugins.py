"""Extensions from other packages, through entry points. Broken ones are skipped with a warning; our names are reserved."""

from __future__ import annotations

import functools
import pkgutil
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

OWN = "mtl-gym"
"""The distribution whose names take precedence."""
ENVIRONMENTS, POLICIES, PROBLEMS = "mtl_gym.environments", "mtl_gym.policies", "mtl_gym.problems"
POLICY_FILES, COMMANDS, SUITES = "mtl_gym.policy_files", "mtl_gym.commands", "mtl_gym.suites"
"""Entry point groups. Environments: the name is an id, the object the class of the scalar form. Policies: a table from names to
``"module:Class"``. Problems: a function that returns one, of which the name is the problem's, or a table from names to
``"module:function"``. Policy files: a function from a path to a policy. Commands: a function for Typer; its
attribute ``estimate``, if it has one, makes a line of ``mtl-gym check`` from the entry ``training`` of :func:`mtl_gym.check` and a
function that writes seconds. Suites: a table from "name env-id" to ``"module:NAME"``, see
:func:`mtl_gym.evaluation.suites.find_suites`."""


def entries(group: str) -> list[EntryPoint]:
    """The entry points of a group: ours first, then by distribution and name, so that others cannot override our names."""
    files = [file for folder in map(_absolute, sys.path) for file in _files(folder, _changed(folder))]
    return [*_entries(group, tuple(map(_absolute, sys.path)), tuple(map(_changed, files)), tuple(map(id, sys.meta_path)))]


@functools.lru_cache(maxsize=64)
def _entries(group: str, folders: tuple[Path, ...], changed: tuple[int, ...], finders: tuple[int, ...]) -> list[EntryPoint]:
    """The same, kept until packages are installed, changed or removed: it reads a file of each of them."""
    from importlib.metadata import entry_points  # late: it takes longer than all of `import mtl_gym`

    return sorted(entry_points(group=group), key=lambda entry: (_distribution(entry) != OWN, _distribution(entry), entry.name))


@functools.lru_cache(maxsize=256)
def _files(folder: Path, changed: int) -> list[Path]:
    """Where the packages in a folder have their entry points, if they have any; kept until something is added or removed there."""
    try:
        return [own / "entry_points.txt" for own in folder.iterdir() if own.suffix in (".dist-info", ".egg-info")]
    except OSError:
        return []


def _absolute(folder: str) -> Path:
    return Path(folder).absolute()


def _changed(path: Path) -> int:
    """When a file or the list of a folder's files was changed; 0 if there is none."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def load(entry: EntryPoint, check: Callable[[Any], object] | None = None) -> Any | None:
    """The object of an entry point; ``None``, with a warning that names it, if loading or the check raises anything."""
    try:
        found = entry.load()
        if check is not None:
            check(found)
        return found
    except BaseException as error:  # another package may raise anything
        if not theirs(error, entry.value):
            raise
        skip(entry, f"{type(error).__name__}: {error}")
        return None


def load_table(entry: EntryPoint) -> Mapping[str, str]:
    """The table from names to ``"module:Class"`` of an entry point; empty, with a warning, if the object is no such table."""
    table = load(entry)
    if table is None or _is_table(table):
        return table or {}
    skip(entry, "it is no table of names with values 'module:Class'")
    return {}


def _is_table(table: Any) -> bool:
    try:
        return isinstance(table, Mapping) and all(
            isinstance(name, str) and isinstance(home, str) and ":" in home for name, home in table.items()
        )
    except Exception:  # whatever another package does
        return False


def resolve(name: str, home: str) -> Any:
    """The object that ``"module:name"`` refers to.

    Raises:
        ImportError: If it cannot be loaded, for whatever reason; the message has the ``name`` under which it is known.
    """
    try:
        return pkgutil.resolve_name(home)
    except BaseException as error:  # another package may raise anything
        if not theirs(error, home):
            raise
        raise ImportError(f"{name!r} is {home!r}, which cannot be loaded: {type(error).__name__}: {error}") from error


def theirs(error: BaseException, home: str) -> bool:
    """Whether the code of ``"module:name"`` is to blame for an error of any kind. Ctrl-C is not, while ours is loaded, which takes
    seconds; in other packages it cannot be told from an interruption that they raise themselves.
    """
    return not (isinstance(error, KeyboardInterrupt) and home.startswith("mtl_gym."))


def skip(entry: EntryPoint, reason: str) -> None:
    """Warns, once per entry point, that it is ignored."""
    _warn(_distribution(entry), entry.group, entry.name, reason)


@functools.cache
def _warn(distribution: str, group: str, name: str, reason: str) -> None:
    warnings.warn(f"{name!r} of {group}, from the package {distribution!r}, is skipped: {reason}", RuntimeWarning, stacklevel=3)


def _distribution(entry: EntryPoint) -> str:
    try:
        return str(entry.dist.name) if entry.dist else ""
    except Exception:  # its metadata are damaged
        return ""

"""Files that survive crashes, full disks and other processes: the cache, atomic writes, and locks."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from mtl_gym.checks import should

Value = TypeVar("Value")


def cache_folder() -> Path:
    """This package's folder in the user's cache, or the one that the variable ``MTL_GYM_CACHE`` names."""
    if named := os.environ.get("MTL_GYM_CACHE"):
        return Path(named)
    import platformdirs  # imported here to keep the core dependencies to torch, numpy, scipy, scikit-learn and Gymnasium

    return Path(platformdirs.user_cache_dir("mtl_gym"))


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file atomically: a crash or a full disk leaves the previous version.

    Raises:
        OSError: If that fails; it names the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}")  # other threads and processes may write the same file
    try:
        with open(temporary, "xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())  # before the rename, else a crash may leave an empty file under the final name
        temporary.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):  # those of `write` and `fsync` name no file, the others the temporary one
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
        raise


def check_writable(folder: Path, files: Iterable[str] = (), folders: Iterable[str] = (), *, argument: str = "out") -> None:
    """Checks, before anything is run, that files and folders of these names can be written in an output folder; leaves nothing.

    ``argument``: the one that names the folder, for errors.

    Raises:
        ValueError: If one is a folder where a file is written, or the reverse, or the folder cannot be written.
    """
    try:
        for name in files:
            if (folder / name).is_dir():
                raise ValueError(should(argument, f"not contain a folder called {name}, where a file is written", str(folder)))
        for name in folders:
            if (folder / name).is_file():
                raise ValueError(should(argument, f"not contain a file called {name}, where a folder is written", str(folder)))
        there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        trial = there / f".trial.{os.urandom(4).hex()}"
        trial.touch()
        trial.unlink(missing_ok=True)
    except OSError as error:
        raise ValueError(should(argument, "be a folder that can be written", str(folder), str(error))) from error


@contextlib.contextmanager
def locked(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Holds a lock on an existing folder, which ends with the process, even if it is killed, and leaves no file.

    Where folders have no locks (on Windows and some network file systems), nothing is locked.

    Args:
        folder: The folder.
        wait: Whether to wait for another holder.

    Raises:
        BlockingIOError: If another process or thread holds the lock, without ``wait``.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise
        except OSError:  # this file system has no locks
            pass
        yield
    finally:
        os.close(handle)


_in_memory: dict[Path, Any] = {}
"""What could not be written to the cache."""


def read_cached(name: str, check: Callable[[Any], Value]) -> Value | None:
    """The content of a JSON file in the cache; ``None`` if it is missing or, with a warning that names it, damaged.

    Args:
        name: Its path in :func:`cache_folder`.
        check: Returns what it is given, or a part of it; raises whatever error if that is not what was written.
    """
    path = cache_folder() / name
    if path in _in_memory:
        return check(_in_memory[path])
    try:
        return check(json.loads(path.read_bytes()))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Exception as error:  # damaged files may raise anything
        reason = f"{type(error).__name__}: {error}"
        warnings.warn(f"The file {path} in the cache is damaged, and made again ({reason}).", RuntimeWarning, stacklevel=3)
        return None


def keep_cached(name: str, value: Any) -> None:
    """Writes a JSON file to the cache; if that fails, keeps its content in memory, and warns once, with the name of the folder."""
    path = cache_folder() / name
    try:
        write_whole(path, json.dumps(value, allow_nan=False))
    except OSError as error:
        _in_memory[path] = value
        _warn_of_folder(str(cache_folder()), error.strerror or str(error))


@functools.cache
def _warn_of_folder(folder: str, reason: str) -> None:
    remedy = f"({reason}) What this process computes is kept in memory, and computed again by the next one."
    text = should("MTL_GYM_CACHE", "name a writable folder, on a disk with free space", folder, remedy)
    warnings.warn(text, RuntimeWarning, stacklevel=4)

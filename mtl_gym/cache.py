"""The cache folder, and atomic writes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from mtl_gym.checks import should


def cache_folder() -> Path:
    """This package's folder in the user's cache, or the one that the variable ``MTL_GYM_CACHE`` names."""
    if named := os.environ.get("MTL_GYM_CACHE"):
        return Path(named)
    import platformdirs  # imported here to keep the core dependencies to torch, numpy, scipy, scikit-learn and Gymnasium

    return Path(platformdirs.user_cache_dir("mtl_gym"))


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file atomically: a crash or a full disk leaves the previous version."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())  # before the rename, else a crash may leave an empty file under the final name
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def check_writable(folder: Path, files: Iterable[str] = (), folders: Iterable[str] = ()) -> None:
    """Checks, before anything is run, that files and folders of these names can be written in an output folder; leaves nothing.

    Raises:
        ValueError: If one is a folder where a file is written, or the reverse, or the folder cannot be written.
    """
    for name in files:
        if (folder / name).is_dir():
            raise ValueError(should("out", f"not contain a folder called {name}, where a file is written", str(folder)))
    for name in folders:
        if (folder / name).is_file():
            raise ValueError(should("out", f"not contain a file called {name}, where a folder is written", str(folder)))
    try:
        there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        trial = there / f".trial.{os.getpid()}"
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise ValueError(should("out", "be a folder that can be written", str(folder), str(error))) from error

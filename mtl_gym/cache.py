"""Files that can be made again: where they lie, and writing that leaves whole files only."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """The user's cache folder of this package; the variable ``MTL_GYM_CACHE`` names another."""
    return Path(os.environ.get("MTL_GYM_CACHE") or platformdirs.user_cache_dir("mtl_gym"))


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file that is there whole or not at all: a kill or a full disk leaves the previous one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())  # before the name is given away: else a crash may leave an empty file under it
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise

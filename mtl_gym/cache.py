"""The cache folder, and atomic writes."""

from __future__ import annotations

import os
from pathlib import Path


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

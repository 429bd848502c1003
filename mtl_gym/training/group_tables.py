"""Group tables: what every group of an instance's tasks reaches, trained once and stored with how it was made.

A table is an ``.npz`` file without pickled objects: ``header`` (JSON), ``ids`` (I), ``outcomes`` (I, 2^K - 1, 3, M) and one array
(I, ...) for each signal. Group g of ``outcomes`` is the bit mask g + 1; the splits are *meta*, *reward* and *test*.
"""

from __future__ import annotations

import functools
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mtl_gym.arguments import should
from mtl_gym.cache import write_whole
from mtl_gym.training.groups import MEASURED

_REMEDY = "Make one with: mtl-gym groupings PROBLEM"


class GroupTable:
    """A group table.

    Args:
        path: Where it was read; for errors.
        header: ``training`` (all that the trainings depend on), ``metrics`` (M names), ``versions`` and ``command``.
        arrays: See the module.

    Attributes:
        header: As given.
        places: Place of each instance in the arrays, by its id.
    """

    def __init__(self, path: str, header: dict[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        self.header, self._path = header, path
        self._outcomes = arrays["outcomes"]
        self._signals = {name: values for name, values in arrays.items() if name not in ("ids", "outcomes")}
        self.places = {id: place for place, id in enumerate(arrays["ids"].tolist())}

    def check(self, training: Mapping[str, Any]) -> None:
        """Sees to it that the table is of these trainings.

        Raises:
            ValueError: If it is of another problem, of another version of it, or of other arguments; the message names them.
        """
        wanted, own = json.loads(json.dumps(training)), self.header["training"]
        differing = [name for name in {**wanted, **own} if wanted.get(name) != own.get(name)]
        if differing:
            others = ", ".join(f"{name}={own.get(name)!r} (here {wanted.get(name)!r})" for name in differing)
            condition = f"be a table of the same problem, version and arguments; this one has {others}"
            raise ValueError(should("group_table", condition, self._path, _REMEDY))

    def entry(self, id: int) -> tuple[dict[str, Tensor], dict[int, Tensor]]:
        """The signals by name, and the metrics (3, M) by the bit masks of groups, of an instance that the table holds."""
        place = self.places[id]
        signals = {name: torch.from_numpy(values[place].copy()) for name, values in self._signals.items()}
        return signals, dict(enumerate(torch.from_numpy(self._outcomes[place]).double(), start=1))


def read_group_table(path: str) -> GroupTable:
    """Reads a table; what has been read is kept until the file changes.

    Raises:
        ValueError: If there is no file, or it is no such table.
    """
    file = Path(path)
    if not file.is_file():
        raise ValueError(should("group_table", "be 'auto', 'train' or the path of a table that is there", path, _REMEDY))
    return _read(path, file.stat().st_mtime_ns)


@functools.lru_cache(maxsize=8)
def _read(path: str, changed: int) -> GroupTable:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            table = dict(arrays)
        header = json.loads(str(table.pop("header")))
        _check_shapes(header, table)
        return GroupTable(path, {name: header[name] for name in ("training", "metrics", "versions", "command")}, table)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{should('group_table', 'be a group table', path, _REMEDY)} ({error})") from error


def _check_shapes(header: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    count, groups = len(arrays["ids"]), 2 ** int(header["training"]["num_tasks"]) - 1
    expected = (count, groups, len(MEASURED), len(header["metrics"]))
    if arrays["outcomes"].shape != expected:
        raise ValueError(f"outcomes have the shape {arrays['outcomes'].shape} instead of {expected}")
    for name, values in arrays.items():
        if values.shape[:1] != (count,) or values.dtype.kind not in "if":
            raise ValueError(f"{name} does not have {count} rows of numbers")


def write_group_table(path: Path, header: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Writes a table, whole or not at all."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, header=np.array(json.dumps(header)), **arrays)  # type: ignore[arg-type]
    write_whole(path, buffer.getvalue())

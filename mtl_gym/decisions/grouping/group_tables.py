"""Group tables: precomputed results of all groups of an instance's tasks, with their provenance.

A table is an ``.npz`` file without pickled objects: ``header`` (JSON), ``ids`` (I), ``outcomes`` (I, 2^K - 1, 3, M) and one array
(I, ...) per signal. Group g of ``outcomes`` has the bit mask g + 1; the splits are *meta*, *reward* and *test*.
"""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mtl_gym.cache import write_whole
from mtl_gym.checks import should
from mtl_gym.decisions.grouping.data_maps import FEATURES
from mtl_gym.decisions.grouping.group_training import LAYER_CKA, MEASURED
from mtl_gym.decisions.grouping.warm_up import COSINES, LOOKAHEAD, MAP_DISTANCES, MAP_FEATURES
from mtl_gym.problems.metrics import METRICS

_REMEDY = "Make one with: mtl-gym groupings PROBLEM"


class GroupTable:
    """A group table.

    Args:
        path: Its source, for error messages.
        header: ``training`` (everything the trainings depend on), ``metrics`` (M names), ``versions`` and ``command``.
        arrays: See the module.

    Attributes:
        places: Position of each instance in the arrays, by id.
    """

    def __init__(self, path: str, header: dict[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        self.header, self._path = header, path
        self._outcomes = arrays["outcomes"]
        self._signals = {name: values for name, values in arrays.items() if name not in ("ids", "outcomes")}
        self.places = {id: place for place, id in enumerate(arrays["ids"].tolist())}

    def check(self, training: Mapping[str, Any], metrics: Sequence[str]) -> None:
        """Checks that the table contains these trainings and metrics; raises ``ValueError`` with the differences if not."""
        wanted = json.loads(json.dumps({**training, "metrics": metrics}))
        own = {**self.header["training"], "metrics": self.header["metrics"]}
        differing = [name for name in {**wanted, **own} if wanted.get(name) != own.get(name)]
        if differing:
            others = ", ".join(f"{name}={own.get(name)!r} (here {wanted.get(name)!r})" for name in differing)
            condition = f"be a table of the same problem, version and arguments; this one has {others}"
            raise ValueError(should("group_table", condition, self._path, _REMEDY))

    def entry(self, id: int) -> tuple[dict[str, Tensor], dict[int, Tensor]]:
        """The signals by name, and the metrics (3, M) by groups' bit masks, of an instance in the table."""
        place = self.places[id]
        signals = {name: torch.from_numpy(values[place].copy()) for name, values in self._signals.items()}
        return signals, dict(enumerate(torch.from_numpy(self._outcomes[place]).double(), start=1))


def read_group_table(path: str) -> GroupTable:
    """Reads a table, cached until the file changes; raises ``ValueError`` if the file is missing or no group table."""
    file = Path(path)
    if not file.is_file():
        raise ValueError(should("group_table", "be 'auto', 'train' or the path of an existing table", path, _REMEDY))
    status = file.stat()
    return _read(path, (status.st_mtime_ns, status.st_ino, status.st_size))


@functools.lru_cache(maxsize=8)
def _read(path: str, version: tuple[int, ...]) -> GroupTable:
    try:
        with np.load(io.BytesIO(Path(path).read_bytes()), allow_pickle=False) as arrays:  # NumPy leaves damaged files open
            table = dict(arrays)
        header = json.loads(str(table.pop("header")))
        _check_shapes(header, table)
        return GroupTable(path, {name: header[name] for name in ("training", "metrics", "versions", "command")}, table)
    except Exception as error:  # damaged files may raise anything
        raise ValueError(f"{should('group_table', 'be a group table', path, _REMEDY)} ({error})") from error


def _check_shapes(header: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    count, num_tasks, snapshots = len(arrays["ids"]), int(header["training"]["num_tasks"]), int(header["training"]["snapshots"])
    groups, pairs = 2**num_tasks - 1, num_tasks * (num_tasks - 1) // 2
    expected = (count, groups, len(MEASURED), len(header["metrics"]))
    if arrays["outcomes"].shape != expected:
        raise ValueError(f"outcomes have shape {arrays['outcomes'].shape} instead of {expected}")
    for name, values in arrays.items():
        if values.shape[:1] != (count,) or values.dtype.kind not in "if":
            raise ValueError(f"{name} does not have {count} rows of numbers")
    known = {MAP_FEATURES: (num_tasks, snapshots, FEATURES), MAP_DISTANCES: (pairs,), COSINES: (pairs,)}
    known |= {LOOKAHEAD: (num_tasks, num_tasks), LAYER_CKA: (pairs,)}
    for name, shape in known.items():
        if name in arrays and arrays[name].shape[1:] != shape:
            raise ValueError(f"{name} has shape {arrays[name].shape[1:]} instead of {shape} for each instance")
    for place, name in enumerate(header["metrics"]):
        values = arrays["outcomes"][..., place]
        if ((values < 0) | (values > METRICS[name.rsplit("/", 1)[1]].most)).any():  # those of a training that diverged are NaN
            raise ValueError(f"outcomes of {name} are not between 0 and {METRICS[name.rsplit('/', 1)[1]].most:g}")


def write_group_table(path: Path, header: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Writes a table atomically."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, header=np.array(json.dumps(header)), **arrays)  # type: ignore[arg-type]
    write_whole(path, buffer.getvalue())

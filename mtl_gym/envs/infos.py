"""The ``info`` of a vector environment, in Gymnasium's format: each key comes with ``_key``, the mask of rows it applies to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from mtl_gym.decisions.base import Decision
from mtl_gym.training.probes import View

Array = npt.NDArray[Any]
Infos = dict[str, Any]
UNKNOWN = -1.0
"""Value of missing numbers, which are otherwise at least 0."""


def measured(
    decision: Decision,
    view: View,
    metrics: Sequence[str],
    diverged: npt.NDArray[np.bool_],
    ended: npt.NDArray[np.bool_] | None = None,
) -> Infos:
    """Infos of all N rows, always with the same keys; *test* metrics are unknown except in ``ended`` rows (N,).

    Args:
        decision: What knows the rows' instances and passes, and has infos of its own.
        view: The current measurements.
        metrics: ``task/metric`` of all tasks.
        diverged: The rows (N,) that have diverged.
        ended: The rows whose episode has just ended; ``None``: none.
    """
    ledger, count = decision.trainings.ledger, len(diverged)
    forward, backward = as_array(ledger.passes.double()).T.copy()
    test = dict(zip(metrics, np.full((len(metrics), count), UNKNOWN), strict=True))
    if ended is not None and ended.any():
        found, own = decision.trainings.metrics("test"), [ledger.metric_names(row) for row in range(count)]
        for name, values in test.items():
            known = ended & np.array([name in of_row for of_row in own])
            values[known] = as_array(found[name])[known]
    return {
        "instance": np.array([instance.id if instance else -1 for instance in ledger.instances], dtype=np.int64),
        "forward": forward,
        "backward": backward,
        "diverged": diverged.copy(),
        **{name: _known(values) for name, values in decision.infos(view).items()},
        "test": test,
    }


def _known(values: Tensor) -> Array:
    """An info's numbers, with NaN, which is unequal to itself, replaced by ``UNKNOWN``."""
    array = as_array(values).copy()
    return np.nan_to_num(array, nan=UNKNOWN, posinf=np.inf, neginf=-np.inf) if array.dtype.kind == "f" else array


def as_array(tensor: Tensor) -> Array:
    """A tensor as a NumPy array."""
    return np.asarray(tensor.cpu().numpy())


def masked(values: Mapping[str, Any], mask: npt.NDArray[np.bool_]) -> Infos:
    """Adds ``_key``, the mask, to each key, also in nested mappings."""
    own = mask.copy()
    entries = [(name, masked(value, own) if isinstance(value, dict) else value) for name, value in values.items()]
    return {key: entry for name, value in entries for key, entry in ((name, value), (f"_{name}", own))}


def final_infos(infos: Infos, observations: dict[str, Array], ended: npt.NDArray[np.bool_]) -> Infos:
    """``final_info`` and ``final_obs``: infos and last observations of the episodes that have ended."""
    final_obs = np.full(len(ended), None, dtype=object)
    for row in np.flatnonzero(ended):
        final_obs[row] = {name: values[row].copy() for name, values in observations.items()}
    return {
        "final_obs": final_obs,
        "_final_obs": ended.copy(),
        "final_info": {name: value & ended if name.startswith("_") else value for name, value in infos.items()},
        "_final_info": ended.copy(),
    }


def row_infos(infos: Mapping[str, Any], row: int) -> Infos:
    """What a vector environment's infos say of one row; keys without a mask hold for all."""
    own: Infos = {}
    for name, values in infos.items():
        if not name.startswith("_") and (f"_{name}" not in infos or infos[f"_{name}"][row]):
            own[name] = row_infos(values, row) if isinstance(values, dict) else values[row]
    return own

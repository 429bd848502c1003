"""Gymnasium's format of a vector environment's ``info``: each key comes with ``_key``, the mask of rows it applies to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Infos = dict[str, Any]


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

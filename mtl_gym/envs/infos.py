"""Gymnasium's form of a vector environment's ``info``: each key beside ``_key``, the rows that it holds for."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Infos = dict[str, Any]


def masked(values: Infos, mask: npt.NDArray[np.bool_]) -> Infos:
    """Gymnasium's form: each key beside ``_key``, the rows that it holds for."""
    return {key: entry for name, value in values.items() for key, entry in ((name, value), (f"_{name}", mask.copy()))}


def final_infos(infos: Infos, observations: dict[str, Array], ended: npt.NDArray[np.bool_]) -> Infos:
    """Moves what belongs to ended episodes to ``final_info``, and their last observations to ``final_obs``."""
    final_obs = np.full(len(ended), None, dtype=object)
    for row in np.flatnonzero(ended):
        final_obs[row] = {name: values[row].copy() for name, values in observations.items()}
    final = {name: value & ended if name.startswith("_") else value for name, value in infos.items()}
    kept = {name: value for name, value in infos.items() if name not in ("test", "_test")}
    kept = {name: value & ~ended if name.startswith("_") else value for name, value in kept.items()}
    return kept | masked({"final_obs": final_obs, "final_info": final}, ended)


def merged(infos: Infos, others: Infos, rows: npt.NDArray[np.bool_]) -> Infos:
    """Overwrites ``rows`` of the infos by the others'."""
    result = {name: np.where(rows, value, infos[name]) if name in infos else value for name, value in others.items()}
    return infos | result

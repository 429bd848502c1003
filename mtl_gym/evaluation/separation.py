"""How far the weights of samples tell right labels from wrong ones, over a training."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_gym.envs.base import MTLVectorEnv


class Separations:
    """Means, between checkpoints, of how far weights of samples tell right labels from wrong ones; else nothing.

    Args:
        env: The environment, which says it of its last batch.
    """

    def __init__(self, env: MTLVectorEnv) -> None:
        self._env = env
        self._open: list[dict[str, Any]] = []
        self._means: list[dict[str, Any]] = []

    def add(self) -> None:
        """Takes what the environment says after a decision."""
        known = getattr(self._env, "separation", None)
        if known:
            self._open.append({name: table.double().cpu().numpy() for name, table in known.items()})

    def close(self) -> None:
        """Ends the span that led to a checkpoint."""
        if self._open:
            tables = {name: np.stack([own[name] for own in self._open]) for name in self._open[0]}  # (decisions, N, K)
            self._means.append({name: _mean(values) for name, values in tables.items()})
            self._open = []

    def tables(self) -> dict[str, npt.NDArray[np.float64]]:
        """(N, S, K) by name; nothing is known at the first checkpoint."""
        names = self._means[0] if self._means else {}
        columns = {name: [np.full_like(self._means[0][name], np.nan), *(own[name] for own in self._means)] for name in names}
        return {name: np.stack(own, axis=1) for name, own in columns.items()}


def _mean(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mean over the first axis of what is known; NaN where nothing is."""
    known = np.isfinite(values)
    counts = known.sum(0)
    return np.where(counts > 0, np.where(known, values, 0).sum(0) / counts.clip(min=1), np.nan)

"""Geometric loss strategy."""

from __future__ import annotations

import numpy as np

from mtl_gym.baselines.base import Array, Heuristic, Observation, State


class GLS(Heuristic):
    """Geometric loss strategy: the geometric mean ``(prod_k L_k)^(1/K)`` as loss: ``w_k = (prod_j L_j)^(1/K) / (K L_k)``.

    Chennupati, Sistu, Yogamani and Rawashdeh, "MultiNet++: Multi-Stream Feature Aggregation and Geometric Loss Strategy for
    Multi-Task Learning", CVPR workshops 2019. Equals ``torchjd``'s ``GeometricMean``.
    """

    def act(self, obs: Observation, state: State) -> tuple[Array, State]:
        """The derivatives of the geometric mean."""
        logs = obs["log_loss"].astype(np.float64)
        return np.exp(logs.mean(axis=1, keepdims=True) - logs) / logs.shape[1], state

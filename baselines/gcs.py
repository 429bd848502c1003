"""Gradient cosine similarity."""

from __future__ import annotations

import numpy as np

from mtl_gym.baselines.base import Array, Observation, State
from mtl_gym.baselines.sample_heuristic import SampleHeuristic, table, weighs_samples


class GCS(SampleHeuristic):
    """Gradient cosine similarity: all samples of an auxiliary task get ``max(0, cos(g_k, g_main))``, those of the main task 1.

    The gradients are those of the tasks' mean batch losses with respect to the shared parameters. Du, Czarnecki, Jayakumar,
    Farajtabar, Pascanu and Lakshminarayanan, "Adapting Auxiliary Losses Using Gradient Similarity", 2018, arXiv 1812.02224, the
    weighted version (algorithm 1). The version released with SLGrad compares a tensor with itself.
    """

    requires = weighs_samples("sample_log_loss", "cosines")

    def act(self, obs: Observation, state: State) -> tuple[Array, State]:
        """The cosines of the pairs (main, k), which come first."""
        weights = np.ones_like(table(obs, "sample_log_loss"))
        auxiliary = weights.shape[2] - 1
        weights[:, :, 1:] = obs["cosines"][:, None, :auxiliary].clip(min=0)
        return weights, state

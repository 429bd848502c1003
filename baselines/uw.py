"""Uncertainty weighting."""

from __future__ import annotations

import numpy as np

from mtl_gym.baselines.base import Array
from mtl_gym.baselines.learned_scales import LearnedScales


class UW(LearnedScales):
    """Uncertainty weighting: ``sum_k L_k / (2 e^{s_k}) + s_k / 2`` with learned log-variances s: ``w_k = e^{-s_k} / 2``.

    Kendall, Gal and Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses for Scene Geometry and Semantics", CVPR 2018.
    s starts at 0, as in ``torchjd``; at -0.5 in LibMTL.
    """

    def weights(self, scales: Array) -> Array:
        """``e^{-s} / 2``."""
        return np.exp(-scales) / 2

    def slope(self, scales: Array, current: Array) -> Array:
        """``1/2 - L e^{-s} / 2``."""
        return 0.5 - current * np.exp(-scales) / 2

"""Impartial multi-task learning, its loss-balancing half."""

from __future__ import annotations

import numpy as np

from mtl_gym.baselines.base import Array
from mtl_gym.baselines.learned_scales import LearnedScales


class IMTLL(LearnedScales):
    """Impartial multi-task learning, the loss balance (IMTL-L): ``sum_k e^{s_k} L_k - s_k`` with learned s.

    So ``w_k = e^{s_k}``; s starts at 0, and at the optimum of s all weighted losses are 1. Liu, Li, Kuang, Xue, Chen, Yang, Liao
    and Zhang, "Towards Impartial Multi-task Learning", ICLR 2021, section 3.2.
    """

    def weights(self, scales: Array) -> Array:
        """``e^s``."""
        return np.exp(scales)

    def slope(self, scales: Array, current: Array) -> Array:
        """``L e^s - 1``."""
        return current * np.exp(scales) - 1

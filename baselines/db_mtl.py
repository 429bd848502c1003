"""Dual-balancing multi-task learning."""

from __future__ import annotations

import numpy as np

from mtl_gym import number
from mtl_gym.baselines.base import Array, Observation, State, losses
from mtl_gym.baselines.gradient_heuristic import GradientHeuristic, balances_gradients, observed_norms
from mtl_gym.baselines.solvers import finite, or_equal


class DBMTL(GradientHeuristic):
    """Dual-balancing multi-task learning (DB-MTL): averaged gradients of log losses, all brought to the norm of the largest.

    With ``v_k = g_k / L_k``, where g_k is the moving average of task k's gradient, the step of the shared parameters is
    ``max_j |v_j| sum_k v_k / |v_k|``; heads have their own log loss, so their weights are ``1 / L_k``. At step t the averages keep
    ``beta / t^decay`` of their past (``gradient_ema``, ``gradient_ema_decay``).

    Lin, Jiang, Ye, Zhang, Chen, Chen, Liu and Kwok, "Dual-Balancing for Multi-Task Learning", 2023, arXiv 2308.12029, algorithm 1,
    which lets the averages keep less and less, ``beta / t^0.5``. LibMTL, the authors' code, has the same rule, but its defaults
    (DB_beta 0.9, DB_beta_sigma 0) keep 0.9 throughout: ``db-mtl:decay=0``. There the gradients of log losses are averaged; here
    those of the losses are, divided by the current losses, which is nearly the same once averages are short. Averages start at
    the first gradient, LibMTL's at 0.

    Args:
        beta: What the averages keep at the first step, in [0, 1); 0: no averages. LibMTL's 0.9; the paper searches it for each
            data set: search 0.1, 0.5 and 0.9.
        decay: Exponent of the step by which they keep less, in [0, 10]; the paper's 0.5.
    """

    requires = balances_gradients(0.9, 0.5)

    def __init__(self, beta: float = 0.9, decay: float = 0.5) -> None:
        self.beta, self.decay = number("beta", beta, low=0.0, high=1.0, ends="[)"), number("decay", decay, low=0.0, high=10.0)
        self.requires = balances_gradients(self.beta, self.decay)  # type: ignore[misc]

    def balance(self, gramian: Array, obs: Observation, state: State) -> tuple[Array, State]:
        """The largest gradient norm of a log loss over the norms; ones where the matrix is zero or not finite."""
        norms = observed_norms(obs)
        real = norms > 0
        weights = np.where(real, (norms / losses(obs)).max(axis=1, keepdims=True) / np.where(real, norms, 1), 0)
        return or_equal(weights, finite(gramian) & real.any(axis=1)), state

    def of_heads(self, shared: Array, obs: Observation) -> Array:
        """The inverse of the losses."""
        return 1 / losses(obs)

"""Dual-balancing multi-task learning."""

from __future__ import annotations

from typing import ClassVar

from mtl_gym.baselines.base import Array, Observation, State, losses
from mtl_gym.baselines.gradient_heuristic import GradientHeuristic, balances_gradients, observed_norms
from mtl_gym.baselines.solvers import finite, or_equal
from mtl_gym.policies import Requirements


class DBMTL(GradientHeuristic):
    """Dual-balancing multi-task learning (DB-MTL): averaged gradients of log losses, all brought to the norm of the largest.

    With ``v_k = g_k / L_k``, g_k the moving average of task k's gradient (``gradient_ema``), the step of the shared parameters is
    ``max_j |v_j| sum_k v_k / |v_k|``; heads have their own log loss, so ``1 / L_k`` there.

    Lin, Jiang, Ye, Zhang, Chen, Chen, Liu and Kwok, "Dual-Balancing for Multi-Task Learning", 2023, arXiv 2308.12029, algorithm 1.
    Averages keep 0.9 of their past, LibMTL's DB_beta (the paper tunes it and lets it decay with the step's root). There the
    gradients of log losses are averaged; here those of the losses are, and divided by the current ones, which only matters where
    a loss changes much in ten steps. Averages begin at the first gradient, LibMTL's at 0. Adam divides by the size
    of the averages, so its steps are larger with them: the learning rate has to be lower than that of other methods.
    """

    requires: ClassVar[Requirements] = balances_gradients(gradient_ema=0.9)

    def balance(self, gramian: Array, obs: Observation, state: State) -> tuple[Array, State]:
        """The largest norm of a log loss's gradient over the norms; ones where the matrix is not finite."""
        norms = observed_norms(obs)
        weights = (norms / losses(obs)).max(axis=1, keepdims=True) / norms
        return or_equal(weights, finite(gramian)), state

    def of_heads(self, shared: Array, obs: Observation) -> Array:
        """The inverse of the losses."""
        return 1 / losses(obs)

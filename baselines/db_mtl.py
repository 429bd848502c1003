"""Dual-balancing multi-task learning."""

from __future__ import annotations

from mtl_gym.baselines.base import Array, Observation, State, losses
from mtl_gym.baselines.gradient_heuristic import GradientHeuristic, balances_gradients, observed_norms
from mtl_gym.baselines.solvers import finite, or_equal


class DBMTL(GradientHeuristic):
    """Dual-balancing multi-task learning (DB-MTL): averaged gradients of log losses, all brought to the norm of the largest.

    With ``v_k = g_k / L_k``, where g_k is the moving average of task k's gradient (``gradient_ema``), the step of the shared
    parameters is ``max_j |v_j| sum_k v_k / |v_k|``; heads have their own log loss, so their weights are ``1 / L_k``.

    Lin, Jiang, Ye, Zhang, Chen, Chen, Liu and Kwok, "Dual-Balancing for Multi-Task Learning", 2023, arXiv 2308.12029, algorithm 1.
    Averages keep 0.9 of their past, LibMTL's DB_beta (the paper tunes it and decays it with the root of the step). There the
    gradients of log losses are averaged; here those of the losses are, divided by the current losses, which differs only where a
    loss changes much within ten steps. Averages start at the first gradient, LibMTL's at 0. Adam divides by the size of the
    averages, which makes its steps larger: use a lower learning rate than for other methods.
    """

    requires = balances_gradients(gradient_ema=0.9)

    def balance(self, gramian: Array, obs: Observation, state: State) -> tuple[Array, State]:
        """The largest gradient norm of a log loss over the norms; ones where the matrix is not finite."""
        norms = observed_norms(obs)
        weights = (norms / losses(obs)).max(axis=1, keepdims=True) / norms
        return or_equal(weights, finite(gramian)), state

    def of_heads(self, shared: Array, obs: Observation) -> Array:
        """The inverse of the losses."""
        return 1 / losses(obs)

"""Smooth Tchebycheff scalarisation."""

from __future__ import annotations

import numpy as np

from mtl_gym import number, positive_int
from mtl_gym.baselines.base import HAS_LABEL, Array, Heuristic, Integers, Observation, State, losses, observes, softmax
from mtl_gym.baselines.epochs import empty_epochs, follow_epochs


class STCH(Heuristic):
    """Smooth Tchebycheff scalarisation (STCH): the loss ``K mu log sum_k exp(y_k / mu)``, ``y_k = log(L_k / nadir_k)``.

    This is a smooth maximum of the relative log losses, so ``w_k = K softmax(y / mu)_k / L_k``. The nadir is the mean loss of epoch
    ``warmup``; until its end the loss is ``sum_k log L_k``.

    Lin, Zhang, Yang, Zhang and Li, "Smooth Tchebycheff Scalarization for Multi-Objective Optimization", ICML 2024. Logs and a nadir
    are those of the authors' code for multi-task learning and of LibMTL; the paper and ``torchjd``'s ``STCH`` have weighted losses
    instead of logs and no nadir.

    Args:
        mu: Smoothing, above 0; 1, the authors' in their code. Towards 0 only the worst task counts.
        warmup: Epoch of the nadir, from 0; ours is 1, the second, since episodes are short (4 in the authors' code).
    """

    requires = observes("epoch", HAS_LABEL)

    def __init__(self, mu: float = 1.0, warmup: int = 1) -> None:
        self.mu, self.warmup = number("mu", mu, low=0.0, ends="(]"), positive_int("warmup", warmup, least=0)

    def initial_state(self, seeds: Integers, num_tasks: int) -> State:
        """No mean losses and no nadir (N, K) yet."""
        return {**empty_epochs(len(seeds), num_tasks), "nadir": np.full((len(seeds), num_tasks), np.nan)}

    def act(self, obs: Observation, state: State) -> tuple[Array, State]:
        """The softmax of the relative log losses over the losses."""
        epochs, begins = follow_epochs(obs, state)
        nadir = np.where(np.isnan(state["nadir"]) & begins & (epochs["epoch"] > self.warmup), epochs["last"], state["nadir"])
        known, current = np.isfinite(nadir), losses(obs)
        relative = np.log(current / np.where(known, nadir, current))
        log_weights = np.where(known, current.shape[1] * softmax(relative / self.mu), 1)
        return log_weights / current, {**epochs, "nadir": nadir}

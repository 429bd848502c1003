"""Smooth Tchebycheff scalarisation."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from mtl_gym.arguments import number, positive_int
from mtl_gym.baselines.base import Array, Heuristic, Observation, State, losses, softmax
from mtl_gym.baselines.epochs import empty_epochs, follow_epochs
from mtl_gym.policies import LOSSES_TO_WEIGHTS, Requirements


class STCH(Heuristic):
    """Smooth Tchebycheff scalarisation (STCH): the loss ``K mu log sum_k exp(y_k / mu)``, ``y_k = log(L_k / nadir_k)``.

    So ``w_k = K softmax(y / mu)_k / L_k``: the smooth maximum of the relative losses' logs. The nadir is the mean loss of the epoch
    ``warmup``; through that epoch the loss is ``sum_k log L_k``.

    Lin, Zhang, Yang, Zhang and Li, "Smooth Tchebycheff Scalarization for Multi-Objective Optimization", ICML 2024. The form with
    logs and a nadir is that of the authors' code for multi-task learning and of LibMTL; the paper's (``torchjd``'s ``STCH``) has
    weighted losses instead of logs and no nadir.

    Args:
        mu: Smoothing; the code's default 1. Towards 0 only the worst task counts.
        warmup: Epoch that gives the nadir, from 0; ours is 1, the second, since episodes are short (the code's is 4).

    Raises:
        ValueError, TypeError: If mu is not positive or ``warmup`` no whole number of at least 0.
    """

    requires: ClassVar[Requirements] = replace(LOSSES_TO_WEIGHTS, observe=("log_loss", "epoch"))

    def __init__(self, mu: float = 1.0, warmup: int = 1) -> None:
        self.mu, self.warmup = number("mu", mu, low=0.0, ends="(]"), positive_int("warmup", warmup, least=0)

    def initial_state(self, seeds: npt.NDArray[np.int64], num_tasks: int) -> State:
        """No epoch's means, and no nadir (N, K)."""
        return {**empty_epochs(len(seeds), num_tasks), "nadir": np.full((len(seeds), num_tasks), np.nan)}

    def act(self, obs: Observation, state: State) -> tuple[Array, State]:
        """The softmax of the relative log losses over the losses."""
        epochs, begins = follow_epochs(obs, {name: value for name, value in state.items() if name != "nadir"})
        nadir = np.where(begins & (epochs["epoch"] == self.warmup + 1), epochs["last"], state["nadir"])
        known, current = np.isfinite(nadir), losses(obs)
        relative = np.log(current / np.where(known, nadir, current))
        shares = np.where(known, current.shape[1] * softmax(relative / self.mu), 1)
        return shares / current, {**epochs, "nadir": nadir}

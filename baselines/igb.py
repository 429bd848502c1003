"""Improvable gap balancing, the heuristic."""

from __future__ import annotations

import numpy as np

from mtl_gym.baselines.base import HAS_LABEL, Array, Heuristic, Integers, Observation, State, losses, observes, softmax
from mtl_gym.baselines.epochs import empty_epochs, follow_epochs


class IGB(Heuristic):
    """Improvable gap balancing, the heuristic IGBv1: the scale-invariant loss with weights of the gaps.

    The loss is ``sum_k v_k log L_k`` with ``v = K softmax(gap)``, so ``w_k = v_k / L_k``. The improvable gap
    ``gap_k = L_k / Lbase_k`` is the distance to a desired final loss of 0; Lbase_k is the mean batch loss of the second epoch, and
    v = 1 during the first two epochs. There is no temperature, and the gap is not differentiated.

    Dai, Fei and Lu, "Improvable Gap Balancing for Multi-Task Learning", UAI 2023, section 3.2; paper and code agree here.
    """

    requires = observes("epoch", HAS_LABEL)

    def initial_state(self, seeds: Integers, num_tasks: int) -> State:
        """No mean losses and no base (N, K) yet."""
        return {**empty_epochs(len(seeds), num_tasks), "base": np.full((len(seeds), num_tasks), np.nan)}

    def act(self, obs: Observation, state: State) -> tuple[Array, State]:
        """The softmax of the gaps over the losses."""
        epochs, begins = follow_epochs(obs, state)
        base = np.where(np.isnan(state["base"]) & begins & (epochs["epoch"] >= 2), epochs["last"], state["base"])
        known, current = np.isfinite(base), losses(obs)
        gap = current / np.where(known, base, 1)
        gap_weights = np.where(known, gap.shape[1] * softmax(np.where(known, gap, 0)), 1)
        return gap_weights / current, {**epochs, "base": base}

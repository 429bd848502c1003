"""Improvable gap balancing, the heuristic."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from mtl_gym.baselines.base import Array, Heuristic, Observation, State, losses, softmax
from mtl_gym.baselines.epochs import empty_epochs, follow_epochs
from mtl_gym.policies import LOSSES_TO_WEIGHTS, Requirements


class IGB(Heuristic):
    """Improvable gap balancing, the heuristic IGBv1: the scale-invariant loss with weights of the gaps.

    The loss is ``sum_k v_k log L_k`` with ``v = K softmax(gap)``, so ``w_k = v_k / L_k``.

    The improvable gap is ``gap_k = L_k / Lbase_k``, the distance to a desired final loss of 0, with Lbase_k the mean batch loss of
    the second epoch. v = 1 during the first two epochs. No temperature, and the gap is not differentiated.

    Dai, Fei and Lu, "Improvable Gap Balancing for Multi-Task Learning", UAI 2023, section 3.2; paper and code agree here.
    """

    requires: ClassVar[Requirements] = replace(LOSSES_TO_WEIGHTS, observe=("log_loss", "epoch"))

    def initial_state(self, seeds: npt.NDArray[np.int64], num_tasks: int) -> State:
        """No epoch's means, and no base (N, K)."""
        return {**empty_epochs(len(seeds), num_tasks), "base": np.full((len(seeds), num_tasks), np.nan)}

    def act(self, obs: Observation, state: State) -> tuple[Array, State]:
        """The softmax of the gaps over the losses."""
        epochs, begins = follow_epochs(obs, {name: value for name, value in state.items() if name != "base"})
        base = np.where(begins & (epochs["epoch"] == 2), epochs["last"], state["base"])
        known, current = np.isfinite(base), losses(obs)
        gap = current / np.where(known, base, 1)
        shares = np.where(known, gap.shape[1] * softmax(np.where(known, gap, 0)), 1)
        return shares / current, {**epochs, "base": base}

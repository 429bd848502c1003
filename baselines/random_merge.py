"""Random structures."""

from __future__ import annotations

import numpy as np

from mtl_gym import LAYER_MERGING, Requirements
from mtl_gym.baselines.base import Array, Integers, Observation, State
from mtl_gym.baselines.rlw import Seeded, normals


class RandomMerge(Seeded):
    """Takes one of the allowed actions at every decision, all with the same probability.

    The choices of a row depend only on its seed and step, not on batching or resuming.
    """

    requires = Requirements(observe=("log_loss_mean", "action_mask"), action="merge", env=LAYER_MERGING)
    of_tasks = "log_loss_mean"

    def act(self, obs: Observation, state: State) -> tuple[Array, State]:
        """The allowed action with the largest random number (N,)."""
        noise = normals(state["seed"], state["step"], obs["action_mask"].shape[1])
        chosen = np.where(obs["action_mask"] > 0, noise, -np.inf).argmax(axis=1)
        return chosen.astype(float), {"seed": state["seed"], "step": state["step"] + 1}

    def _actions(self, answer: Array) -> Integers:
        return answer.astype(np.int64)

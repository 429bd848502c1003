"""Random structures."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_gym.baselines.base import Array, Heuristic, Observation, State
from mtl_gym.baselines.rlw import normals
from mtl_gym.policies import Requirements
from mtl_gym.problems import LAYER_MERGING


class RandomMerge(Heuristic):
    """Takes one of the legal actions at every decision, all with the same probability.

    The choices of a row depend on its seed and step alone, not on batching or resuming.
    """

    requires = Requirements(observe=("log_loss_mean", "action_mask"), action="merge", env=LAYER_MERGING)
    of_tasks = "log_loss_mean"

    def initial_state(self, seeds: npt.NDArray[np.int64], num_tasks: int) -> State:
        """Seeds and counters (N,)."""
        return {"seed": np.asarray(seeds, dtype=np.int64), "step": np.zeros(len(seeds), dtype=np.int64)}

    def act(self, obs: Observation, state: State) -> tuple[Array, State]:
        """The legal action with the largest of as many random numbers (N,)."""
        noise = normals(state["seed"], state["step"], obs["action_mask"].shape[1])
        chosen = np.where(obs["action_mask"] > 0, noise, -np.inf).argmax(axis=1)
        return chosen.astype(float), {"seed": state["seed"], "step": state["step"] + 1}

    def _actions(self, answer: Array) -> npt.NDArray[Any]:
        return answer.astype(np.int64)

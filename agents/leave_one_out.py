"""A leave-one-out baseline: rewards relative to the other rollouts of the same instance."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn

from mtl_gym import positive_int, should


class LeaveOneOut(VecEnvWrapper):
    """Subtracts from each row's reward the mean reward of the other rollouts of its instance.

    Rows form families that draw the same instances in the same order: same data, initial weights and noise. The baseline of a
    reward is the mean of the family's other rewards at the same decision. It does not depend on the row's own action, so the policy
    gradient stays unbiased, but it removes the instance's contribution, most of the reward's variance (Kool et al., "Buy 4
    REINFORCE Samples, Get a Baseline for Free!", ICLR workshop 2019). A row without others at the same decision receives 0; after a
    divergence it stays an episode ahead. ``episode`` statistics keep the environment's own rewards.

    Args:
        venv: The environments; their infos name the ``instance``, and equal seeds draw equal instances.
        size: Rows per family, at least 2; divides the number of rows, else ValueError.
    """

    def __init__(self, venv: VecEnv, size: int) -> None:
        super().__init__(venv)
        if venv.num_envs % positive_int("rollouts_per_instance", size, least=2):
            raise ValueError(should("rollouts_per_instance", f"divide num_envs={venv.num_envs}", size))
        self.size = size
        self._places: list[tuple[int, int]] = []

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Gives all rows of family f the seed ``seed + f``."""
        if seed is None:
            seed = int(np.random.default_rng().integers(2**31))
        seeds = [seed + row // self.size for row in range(self.num_envs)]
        self.venv.unwrapped._seeds = list(seeds)  # SB3 has no public way to give rows equal seeds
        return seeds

    def reset(self) -> Any:
        """Starts an episode in every row."""
        observations = self.venv.reset()
        self._places = [(info["instance"], 0) for info in self.venv.reset_infos]
        return observations

    def step_wait(self) -> VecEnvStepReturn:
        """Takes one step and makes the rewards relative."""
        observations, rewards, dones, infos = self.venv.step_wait()
        relative = self._relative(np.asarray(rewards, dtype=np.float64))
        fresh = self.venv.reset_infos
        self._places = [
            (fresh[row]["instance"], 0) if dones[row] else (instance, step + 1) for row, (instance, step) in enumerate(self._places)
        ]
        return observations, relative.astype(np.float32), dones, infos

    def _relative(self, rewards: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        alike: dict[tuple[int, int, int], list[int]] = defaultdict(list)
        for row, place in enumerate(self._places):
            alike[(row // self.size, *place)].append(row)
        relative = np.zeros_like(rewards)
        for rows in alike.values():
            if len(rows) > 1:
                relative[rows] = (rewards[rows] - rewards[rows].mean()) * len(rows) / (len(rows) - 1)
        return relative

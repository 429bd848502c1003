"""A leave-one-out baseline: rewards relative to those of the other rollouts of the same instance."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn

from mtl_gym.arguments import positive_int, should


class LeaveOneOut(VecEnvWrapper):
    """Pays each row what it gains over the other rollouts of its instance: a baseline that knows the instance.

    Rows come in families that draw the same instances in the same order: same data, initial weights and noise. From each reward
    the mean of the others' rewards at the same decision is taken. It does not depend on the row's own action, so the policy's
    gradient keeps its direction; what the instance itself contributes to the reward, most of its variance, is gone. (A
    leave-one-out baseline, as in Kool et al., "Buy 4 REINFORCE Samples, Get a Baseline for Free!", ICLR workshop 2019.) A row whose
    others are elsewhere is paid nothing; after a divergence it is an episode ahead for good. ``episode`` statistics keep the
    environment's own rewards.

    Args:
        venv: The environments; their infos name the ``instance``, and equal seeds draw equal instances.
        size: Rows of a family; divides their number.

    Raises:
        ValueError: If ``size`` does not divide the number of rows, or is 1.
    """

    def __init__(self, venv: VecEnv, size: int) -> None:
        super().__init__(venv)
        if venv.num_envs % positive_int("rollouts_per_instance", size, least=2):
            raise ValueError(should("rollouts_per_instance", f"divide num_envs={venv.num_envs}", size))
        self.size = size
        self._places: list[tuple[int, int]] = []

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Seeds the rows of a family alike: the f-th with ``seed + f``."""
        if seed is None:
            seed = int(np.random.default_rng().integers(2**31))
        seeds = [seed + row // self.size for row in range(self.num_envs)]
        self.venv._seeds = list(seeds)  # SB3's form has no public way to seed rows alike
        return seeds

    def reset(self) -> Any:
        """Starts an episode in every row."""
        observations = self.venv.reset()
        self._places = [(info["instance"], 0) for info in self.venv.reset_infos]
        return observations

    def step_wait(self) -> VecEnvStepReturn:
        """Takes one step, and replaces the rewards by the relative ones."""
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

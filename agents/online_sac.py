"""The agent of one training in IGBv2: a soft actor-critic with its schedule, as :class:`mtl_gym.agents.igbv2.IGBv2` documents."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mtl_gym.agents.randomness import Stream

if TYPE_CHECKING:
    from stable_baselines3 import SAC

Array = npt.NDArray[Any]

BASE, STORE, TRAIN, ACT = 1, 2, 3, 5
"""Epochs, from 0: the one whose losses are the base; then those from which transitions are stored, SAC is trained, and SAC acts."""

EVERY, BATCH = 50, 256
"""Batches between two trainings of SAC, each of 25 to 50 updates; largest batch of an update."""

BUFFER_SIZE = 10_000
LOG_LOSS_BOUND = 30.0  # bound of the observation, which losses that are not finite reach
SMALLEST = 1e-12
LARGEST_REWARD = 1e6  # exceeded only by trainings about to diverge; its square fits a float32


class OnlineSAC:
    """The memory of one training's agent: its SAC with the buffer, the last batch, the base, and its random numbers.

    Args:
        seed: Seed of all its random numbers.
        num_tasks: K.
        reach: Largest logit of SAC.
    """

    def __init__(self, seed: int, num_tasks: int, reach: float) -> None:
        self.seed, self.num_tasks, self.reach = seed, num_tasks, reach
        self.stream = Stream(seed)  # for SAC
        self.noise = np.random.default_rng([seed, 1])  # for the random weights
        self.step, self.first_lr = 0, 0.0
        self.base_sum, self.base_count = np.zeros(num_tasks), 0
        self.last: tuple[Array, Array, float] | None = None  # losses, action and learning rate of the previous batch

    @functools.cached_property
    def sac(self) -> SAC:
        """The SAC, made when it is first needed."""
        with self.stream:
            return make_sac(self.num_tasks)

    def act(self, log_losses: Array, epoch: int, lr: float) -> npt.NDArray[np.float32]:
        """Stores the transition to this batch, learns if it is due, and acts.

        Args:
            log_losses: (K,) raw log losses of the next training batch.
            epoch: Epoch of that batch, from 0.
            lr: Learning rate of the next step.

        Returns:
            The action (K,), in [-1, 1] if SAC chose it; the weights are ``K softmax(reach a) / L_k``.
        """
        if not (np.abs(log_losses) < LOG_LOSS_BOUND).all():
            self.last = None
            return np.zeros(self.num_tasks, dtype=np.float32)
        losses = np.exp(log_losses.astype(np.float64))
        self.first_lr = self.first_lr or lr
        if epoch == BASE:
            self.base_sum, self.base_count = self.base_sum + losses, self.base_count + 1
        if epoch >= STORE and self.last and self.base_count:
            self._store(*self.last, losses)
        if epoch >= TRAIN and self.step % EVERY == 0:
            self._learn()
        action = self._choose(losses) if epoch >= ACT else self._random()
        self.last, self.step = (losses, action, lr), self.step + 1
        return action

    def _store(self, losses: Array, action: Array, lr: float, following: Array) -> None:
        base = np.maximum(self.base_sum / self.base_count, SMALLEST)
        reward = self.first_lr / max(lr, SMALLEST) * ((losses - following) / base).min()
        reward = np.clip(reward, -LARGEST_REWARD, LARGEST_REWARD)
        self.sac.replay_buffer.add(losses, following, action, reward, np.zeros(1), [{}])  # type: ignore[union-attr]

    def _learn(self) -> None:
        sac = self.sac
        if size := sac.replay_buffer.size():  # type: ignore[union-attr]
            fraction = (1 + size / BUFFER_SIZE) / 2
            with self.stream:
                sac.train(gradient_steps=int(EVERY * fraction), batch_size=int(BATCH * fraction))

    def _random(self) -> npt.NDArray[np.float32]:
        return (self.noise.standard_normal(self.num_tasks) / self.reach).astype(np.float32)

    def _choose(self, losses: Array) -> npt.NDArray[np.float32]:
        sac = self.sac
        with self.stream:
            action, _ = sac.predict(losses.astype(np.float32), deterministic=False)
        return action


def make_sac(num_tasks: int) -> SAC:
    """IGBv2's SAC over K raw losses, without an environment; draws from the global generators."""
    from gymnasium.spaces import Box
    from stable_baselines3 import SAC
    from stable_baselines3.common.logger import Logger

    options: dict[str, Any] = {"learning_rate": 3e-4, "buffer_size": BUFFER_SIZE, "gamma": 0.99, "tau": 0.005}
    options |= {"ent_coef": "auto_0.2", "target_entropy": -num_tasks, "policy_kwargs": {"net_arch": [128, 128]}, "device": "cpu"}
    # Without an environment, as in Stable-Baselines3's own `load`.
    sac = SAC("MlpPolicy", None, _init_setup_model=False, **options)  # type: ignore[arg-type]
    sac.observation_space = Box(0, np.inf, (num_tasks,), np.float32)
    sac.action_space = Box(-1, 1, (num_tasks,), np.float32)
    sac.n_envs = 1
    sac._setup_model()
    sac.set_logger(Logger(folder=None, output_formats=[]))
    return sac

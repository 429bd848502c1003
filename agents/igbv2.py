"""Improvable gap balancing with the paper's own agent, which learns during the training that it weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from mtl_gym import LOSS_WEIGHTING, Requirements, number, should, source_digest
from mtl_gym.agents.online_sac import Array, OnlineSAC

WEIGHT_RANGE = 1e6
SHARPNESS = math.log(WEIGHT_RANGE) / 2
"""The environment's c: its weights are ``K softmax(c a) / L_k``."""

_SOURCES = ("mtl_gym.agents.igbv2", "mtl_gym.agents.online_sac", "mtl_gym.agents.randomness")


class IGBv2:
    """Improvable gap balancing, the agent IGBv2: a soft actor-critic weights the log losses, and learns while the training runs.

    The loss is ``sum_k v_k log L_k``, so ``w_k = v_k / L_k``, with ``v = K softmax(reach a)``. The policy's memory holds one SAC
    for each training (row). Its state is the raw losses ``L_t`` (K) of the next training batch, its action ``a`` in [-1, 1]^K a
    Gaussian squashed by tanh, and its reward

        ``r_t = (lr_0 / lr_t) min_k (L_t,k - L_t+1,k) / Lbase_k``,

    where lr_t is the learning rate of the step that a_t weights, Lbase_k the mean batch loss of the second epoch, and L_t and
    L_t+1 come from different batches. No transition is terminal. Epochs count from 1 here (from 0 in the observation `epoch`):

    | epoch | what |
    |---|---|
    | 1 to 5 | ``v = K softmax(z)``, z standard normal |
    | from 3 | transitions are stored, starting with the one into epoch 3; the last 10^4 are kept |
    | from 4 | every 50 batches of the training, 25 to 50 updates with 128 to 256 transitions, more as the buffer fills |
    | from 6 | ``v = K softmax(reach a)``, a sampled from SAC, which keeps exploring: ``deterministic`` has no effect |

    So a training of fewer than 6 epochs has random weights throughout (RLW on log losses), and one of 300 batches trains SAC 5
    times, 125 updates in all, which hardly changes it. The agent is online: nothing carries over from one training to the next. Its
    updates cost about as much as such a training and are not counted as passes.

    Dai, Fei and Lu, "Improvable Gap Balancing for Multi-Task Learning", UAI 2023. SAC is Stable-Baselines3's (Haarnoja et al.,
    "Soft Actor-Critic Algorithms and Applications", 2018), with networks of 128-128, learning rate 3e-4, gamma .99, tau .005,
    temperature learned from .2, target entropy -K. Where paper and code disagree with each other or with this implementation:

    - The paper does not give the number, size and interval of the updates; the code does and is followed.
    - Both act by ``K softmax(u)``, u Gaussian, but the code uses the density of ``tanh(u)``, another variable. Here the action is
      ``tanh(u)`` and the environment applies the softmax, so that the density is exact.
    - The code's u is unbounded, with an initial deviation of about 1. Here logits lie within ``reach``, whose default of 1.6 gives
      ``reach tanh(u)`` the same initial deviation. With c, the environment's limit, an untrained SAC gives most steps to one task.
    - The code takes the learning rate of r_t from the later batch (a different one where an epoch begins), and on QM9 the factor is
      always 1; here it is as in the equation. Under ``lr_schedule="cosine"`` the factor grows to thousands in the last steps.
    - In the code the logarithm of a loss of 0 is -inf; here losses are at least 1e-12.
    - The code's buffer cannot be saved; here a copy or pickle of the memory resumes bit for bit.
    - Stable-Baselines3 halves the critics' loss and updates the temperature first.

    A batch whose losses are not finite (or on the observation's bound) is not stored and gets equal weights; rewards are clipped to
    1e6. A row's random numbers depend only on its seed, not on other rows.

    Args:
        reach: Largest logit of SAC, in (0, c], where c is ``ln(weight_range) / 2`` of the environment.

    Raises:
        ValueError, TypeError: If ``reach`` is outside this range or not a number.
    """

    requires: ClassVar[Requirements] = Requirements(
        env=LOSS_WEIGHTING,
        observe=("log_loss", "epoch", "lr"),
        action="residual",
        steps_per_action=1,
        env_kwargs={"rule": "si", "weight_range": WEIGHT_RANGE},
    )

    def __init__(self, reach: float = 1.6) -> None:
        self.reach = number("reach", reach, low=0.0, high=SHARPNESS, ends="(]")

    @property
    def spec(self) -> dict[str, Any]:
        """Identifies the policy by its class, its options, its source and the version of Stable-Baselines3."""
        return {
            "agent": f"{type(self).__module__}:{type(self).__qualname__}",
            "options": {"reach": self.reach},
            "source": source_digest(*_SOURCES),
            "stable_baselines3": version("stable-baselines3"),
        }

    def initial_state(self, seeds: npt.NDArray[np.int64], num_tasks: int) -> list[OnlineSAC]:
        """An untrained agent for each row."""
        return [OnlineSAC(int(seed), num_tasks, self.reach) for seed in seeds]

    def predict(
        self,
        observation: Mapping[str, Array],
        state: list[OnlineSAC] | None = None,
        episode_start: npt.ArrayLike | None = None,
        deterministic: bool = False,
    ) -> tuple[npt.NDArray[np.float32], list[OnlineSAC]]:
        """Stable-Baselines3's interface. The agents in ``state`` learn in place: copy them to keep them.

        Args:
            observation: Arrays (N, length) by name, or (length,) of one environment.
            state: The agents that the last call returned; ``None`` at first.
            episode_start: (N,) bool, the rows whose agent is reset, with its seed + N.
            deterministic: Ignored.

        Raises:
            ValueError: If the observation lacks what the policy requires.
        """
        from mtl_gym import own_mode  # here, since it loads torch

        names = self.requires.observe or ()
        missing = [name for name in names if name not in observation]
        if missing:
            raise ValueError(should("observation", f"hold {list(names)}", list(observation), "Make the environment with observe."))
        log_losses, epochs, lrs = (np.atleast_2d(observation[name]) for name in names)
        rows, num_tasks = log_losses.shape
        if state is None:
            state = self.initial_state(np.arange(rows), num_tasks)
        elif episode_start is not None and np.any(episode_start):
            fresh = self.initial_state(np.array([agent.seed + rows for agent in state]), num_tasks)
            starts = np.broadcast_to(np.asarray(episode_start, dtype=bool), rows)
            state = [new if start else old for new, old, start in zip(fresh, state, starts, strict=True)]
        columns = zip(state, log_losses, epochs[:, 0].tolist(), lrs[:, 0].tolist(), strict=True)
        with own_mode():
            actions = [agent.act(log_loss, int(epoch), lr) for agent, log_loss, epoch, lr in columns]
        logits = self.reach * np.stack(actions)
        return (logits / SHARPNESS).clip(-1, 1).reshape(observation["log_loss"].shape), state

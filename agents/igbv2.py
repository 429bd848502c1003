"""Improvable gap balancing with the paper's own agent, which learns while the training that it weights runs."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from mtl_gym.agents.online_sac import Array, OnlineSAC
from mtl_gym.arguments import number, should
from mtl_gym.policies import Requirements
from mtl_gym.problems import LOSS_WEIGHTING

WEIGHT_RANGE = 1e6
SHARPNESS = math.log(WEIGHT_RANGE) / 2
"""The environment's c: its weights are ``K softmax(c a) / L_k``."""

SOURCES = ("igbv2.py", "online_sac.py", "randomness.py")


class IGBv2:
    """Improvable gap balancing, the agent IGBv2: a soft actor-critic weights the log losses, and learns while the training runs.

    The loss is ``sum_k v_k log L_k``, so ``w_k = v_k / L_k``, with ``v = K softmax(reach a)``. The policy's memory holds, for each
    training (row), a SAC of its own, whose state is the raw losses ``L_t`` (K) of the batch about to be trained on, and whose
    action is ``a`` in [-1, 1]^K, a Gaussian squashed by tanh. Its reward is

        ``r_t = (lr_0 / lr_t) min_k (L_t,k - L_t+1,k) / Lbase_k``,

    where lr_t is the learning rate of the step that a_t weights, Lbase_k the mean batch loss of the second epoch, and L_t and
    L_t+1 come from different batches. No transition is terminal. Epochs are counted from 1 here (the observation `epoch` counts
    from 0):

    | epoch | what |
    |---|---|
    | 1 to 5 | ``v = K softmax(z)``, z standard normal |
    | from 3 | transitions are stored, first the one that leads into epoch 3; the last 10^4 are kept |
    | from 4 | at each 50th batch of the training, 25 to 50 updates with 128 to 256 transitions, more as the buffer fills |
    | from 6 | ``v = K softmax(reach a)``, a drawn from SAC, which explores on: ``deterministic`` has no effect |

    So a training of fewer than 6 epochs has random weights throughout (RLW on log losses), and one of 300 batches trains SAC 5
    times, 125 updates in all, which leaves it near to where it began. The agent is online: nothing is carried from one training to
    the next. Its updates cost about as much as such a training, and are not counted as passes.

    Dai, Fei and Lu, "Improvable Gap Balancing for Multi-Task Learning", UAI 2023. SAC is Stable-Baselines3's (Haarnoja et al.,
    "Soft Actor-Critic Algorithms and Applications", 2018), with networks of 128-128, learning rate 3e-4, gamma .99, tau .005,
    temperature learned from .2, target entropy -K. Where paper and code disagree, or both with this:

    - The paper does not say how many updates, of what size, at what interval; the code does, and is followed.
    - Both act by ``K softmax(u)``, u Gaussian, but the code's density is that of ``tanh(u)``, another variable. Here the action is
      ``tanh(u)`` and the softmax is the environment's, so that the density is exact.
    - The code's u has no bound, and at first a deviation of about 1. Here logits lie within ``reach``, whose default, 1.6, gives
      ``reach tanh(u)`` the same first deviation. With c, all that the environment's actions can say, an untrained SAC gives most
      steps to one task.
    - The learning rate of r_t is that of the later batch in the code (another one where an epoch begins), and on QM9 the factor is
      always 1; here it is as in the equation. Under ``lr_schedule="cosine"`` the factor grows to thousands in the last steps.
    - In the code the logarithm of a loss of 0 is -inf; here losses are at least 1e-12.
    - The code's buffer cannot be saved; here a copy of the memory, or a pickle, goes on bit for bit.
    - Stable-Baselines3 halves the critics' loss and updates the temperature first.

    A batch whose losses are not finite (or lie on the observation's bound) is not stored, and gets equal weights; rewards are kept
    within 1e6. A row's random numbers come from its seed alone, so the rows beside it do not matter.

    Args:
        reach: Largest logit of SAC; at most c, ``ln(weight_range) / 2`` of the environment.

    Raises:
        ValueError: If ``reach`` is not in (0, c].
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
        source = b"".join(Path(__file__).with_name(name).read_bytes() for name in SOURCES)
        return {
            "agent": f"{type(self).__module__}:{type(self).__qualname__}",
            "options": {"reach": self.reach},
            "source": hashlib.sha256(source).hexdigest(),
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
        """Stable-Baselines3's interface. The agents of ``state`` learn, so they are changed in place: copy them to keep them.

        Args:
            observation: Arrays (N, length) by name, or (length,) of one environment.
            state: What the last call returned; ``None`` at first.
            episode_start: (N,) bool, the rows whose agent begins anew, with the seed N further on.
            deterministic: Has no effect.

        Raises:
            ValueError: If the observation lacks what the policy requires.
        """
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
        actions = [agent.act(log_loss, int(epoch), lr) for agent, log_loss, epoch, lr in columns]
        logits = self.reach * np.stack(actions)
        return (logits / SHARPNESS).clip(-1, 1).reshape(observation["log_loss"].shape), state

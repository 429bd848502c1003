"""One policy after another: weights of the losses first, then of the gradients of the losses that these have scaled."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_gym.arguments import should
from mtl_gym.policies import WEIGHT_BOUND, Array, Observation, Policy, Requirements

_LEAST = np.exp(-30)


class Composition:
    """A policy that balances losses, then one that balances gradients; ``igb+cagrad`` on the command line.

    The first one's weights s are held constant for the second, which sees the losses ``s_k L_k`` and their gradients' Gram matrix;
    what it answers is multiplied by s, in the heads too. So for IGB and a method of its choice: Dai, Fei and Lu, "Improvable Gap
    Balancing for Multi-Task Learning", UAI 2023, algorithm 3.

    Args:
        first: Answers in K weights of the losses, at every step (``action="weights"``).
        second: Balances gradients.

    Raises:
        ValueError: If the first one is for other actions.
    """

    def __init__(self, first: Policy, second: Policy) -> None:
        self.first, self.second = first, second
        own, last = _requirements(first), _requirements(second)
        if own.action != "weights" or own.steps_per_action != 1 or "scope" in own.env_kwargs or own.env != last.env:
            raise ValueError(should("policies", "have one that weighs losses at every step before the plus", type(first).__name__))
        observe = dict.fromkeys((*(own.observe or ()), *(last.observe or ())))
        self.requires = replace(last, observe=tuple(observe), env_kwargs={**own.env_kwargs, **last.env_kwargs})

    @property
    def spec(self) -> dict[str, Any] | None:
        """Both policies' own; ``None`` if one of them cannot be identified."""
        both = {"first": getattr(self.first, "spec", None), "second": getattr(self.second, "spec", None)}
        return both if all(both.values()) else None

    def initial_state(self, seeds: npt.NDArray[np.int64], num_tasks: int) -> tuple[Any, Any]:
        """Both policies' memories."""
        begin = [getattr(policy, "initial_state", lambda seeds, num_tasks: None) for policy in (self.first, self.second)]
        return begin[0](seeds, num_tasks), begin[1](seeds, num_tasks)

    def predict(
        self, observation: Observation, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Array, Any]:
        """The second one's answer to the losses that the first one has scaled, times the scales."""
        memories = state or (None, None)
        scales, first = self.first.predict(observation, memories[0], episode_start, deterministic)
        answer, second = self.second.predict(scaled(observation, scales), memories[1], episode_start, deterministic)
        parts = answer.shape[-1] // scales.shape[-1]
        weights = (answer.astype(np.float64) * np.concatenate([scales] * parts, axis=-1)).clip(-WEIGHT_BOUND, WEIGHT_BOUND)
        return weights.astype(np.float32), (first, second)


def scaled(observation: Observation, scales: Array) -> dict[str, Array]:
    """What is observed of the losses ``s_k L_k``, for scales (..., K) that may be negative: a zero is shown as exp(-30)."""
    logs = np.log(np.maximum(np.abs(scales.astype(np.float64)), _LEAST))
    first, second = np.triu_indices(scales.shape[-1], 1)
    signs = np.sign(scales)[..., first] * np.sign(scales)[..., second]
    changes = {
        "log_loss": lambda values: values + logs,
        "log_loss_after": lambda values: values + logs,
        "log_norms": lambda values: values + logs,
        "cosines": lambda values: values * signs,
    }
    return {name: changes[name](values) if name in changes else values for name, values in observation.items()}


def _requirements(policy: Policy) -> Requirements:
    return getattr(policy, "requires", Requirements())

"""Chains two policies: one weights the losses, the next weights the gradients of the weighted losses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_gym import WEIGHT_BOUND, Policy, Requirements, should
from mtl_gym.baselines.base import NOT_FINITE, ZERO, Observation

Array = npt.NDArray[Any]


class Composition:
    """A loss balancer followed by a gradient balancer; ``igb+cagrad`` on the command line.

    The second policy treats the weights s of the first as constants: it sees the losses ``s_k L_k`` and their gradients' Gram
    matrix, and its weights are multiplied by s, in the heads too. Dai, Fei and Lu, "Improvable Gap Balancing for Multi-Task
    Learning", UAI 2023, algorithm 3, combine IGB with gradient balancers in this way.

    Args:
        first: Returns K weights of the losses at every step (``action="weights"``).
        second: Balances gradients.

    Raises:
        ValueError: If ``first`` takes other actions.
    """

    def __init__(self, first: Policy, second: Policy) -> None:
        self.first, self.second = first, second
        own, last = (getattr(policy, "requires", Requirements()) for policy in (first, second))
        if own.action != "weights" or own.steps_per_action != 1 or "scope" in own.env_kwargs or own.env != last.env:
            raise ValueError(should("policies", "have one that weights losses at every step before the plus", type(first).__name__))
        observe = dict.fromkeys((*(own.observe or ()), *(last.observe or ())))
        self.requires = replace(last, observe=tuple(observe), env_kwargs={**own.env_kwargs, **last.env_kwargs})

    def __repr__(self) -> str:
        return f"Composition({self.first!r}, {self.second!r})"

    @property
    def spec(self) -> dict[str, Any] | None:
        """Both policies' specs; ``None`` if one of them cannot be identified."""
        both = {"first": getattr(self.first, "spec", None), "second": getattr(self.second, "spec", None)}
        return both if all(both.values()) else None

    def initial_state(self, seeds: npt.NDArray[np.int64], num_tasks: int) -> tuple[Any, Any]:
        """Both policies' memories."""
        begin = [getattr(policy, "initial_state", lambda seeds, num_tasks: None) for policy in (self.first, self.second)]
        return begin[0](seeds, num_tasks), begin[1](seeds, num_tasks)

    def predict(
        self, observation: Observation, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Array, Any]:
        """The second policy's weights of the losses as scaled by the first, times the scales."""
        memories = state or (None, None)
        scales, first = self.first.predict(observation, memories[0], episode_start, deterministic)
        answer, second = self.second.predict(scaled(observation, scales), memories[1], episode_start, deterministic)
        parts = answer.shape[-1] // scales.shape[-1]
        weights = (answer.astype(np.float64) * np.concatenate([scales] * parts, axis=-1)).clip(-WEIGHT_BOUND, WEIGHT_BOUND)
        return weights.astype(np.float32), (first, second)


def scaled(observation: Observation, scales: Array) -> dict[str, Array]:
    """The observations of the losses ``s_k L_k``, for scales (..., K) that may be negative.

    A scale of zero is shown as exp(-30), which makes the gradient zero. Log norms on a bound, of gradients that are zero or not
    finite, stay there whatever the scale is.
    """
    logs = np.log(np.maximum(np.abs(scales.astype(np.float64)), np.exp(ZERO)))
    first, second = np.triu_indices(scales.shape[-1], 1)
    signs = np.sign(scales)[..., first] * np.sign(scales)[..., second]
    changed = {name: observation[name] + logs for name in ("log_loss", "log_loss_after") if name in observation}
    if "log_norms" in observation:
        norms = observation["log_norms"]
        moved = np.where((norms > ZERO) & (norms < NOT_FINITE), norms + logs, norms)
        changed["log_norms"] = np.where(scales == 0, np.where(norms < NOT_FINITE, ZERO, norms), moved)
    if "cosines" in observation:
        changed["cosines"] = observation["cosines"] * signs
    return {**observation, **changed}

"""Policies from plain functions that map losses to weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_gym.checks import should
from mtl_gym.identity import function_content
from mtl_gym.policies.protocol import LOSSES_TO_WEIGHTS, WEIGHT_BOUND, Array, Observation


class FunctionPolicy:
    """A policy from a plain function; see :func:`policy`."""

    requires = LOSSES_TO_WEIGHTS

    def __init__(self, function: Callable[[Array], npt.ArrayLike]) -> None:
        self.function = function

    def __repr__(self) -> str:
        return f"policy({getattr(self.function, '__qualname__', repr(self.function))})"

    def predict(
        self, observation: Observation, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Array, Any]:
        """Calls the function for each row; raises ``ValueError`` unless it returns K finite weights."""
        losses = np.exp(np.asarray(observation["log_loss"], dtype=np.float64))
        rows = [self._weights(row) for row in np.atleast_2d(losses)]
        return np.stack(rows).reshape(losses.shape), state

    def _weights(self, losses: Array) -> Array:
        answer = self.function(losses.copy())
        try:
            weights = np.asarray(answer, dtype=np.float64)
        except (TypeError, ValueError):
            raise ValueError(should("function", f"return {len(losses)} finite weights", answer)) from None
        if weights.shape != losses.shape or not np.isfinite(weights).all():
            raise ValueError(should("function", f"return {len(losses)} finite weights", weights.tolist(), f"Losses: {losses}."))
        return weights.clip(-WEIGHT_BOUND, WEIGHT_BOUND).astype(np.float32)

    @property
    def spec(self) -> dict[str, Any] | None:
        """Identifies the function by its code and the values it uses; ``None`` if that is impossible."""
        try:
            content = function_content(self.function)
        except TypeError:
            return None
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        return {"function": self.function.__qualname__, "code": digest}


def policy(function: Callable[[Array], npt.ArrayLike]) -> FunctionPolicy:
    """Makes a policy from a function that maps losses to weights: the easiest way to compare your own method.

    Args:
        function: Called at every optimiser step with the K losses of the batch about to be trained on, float64; returns K weights,
            which are applied unchanged.

    Example:
        >>> import mtl_gym
        >>> mine = mtl_gym.policy(lambda losses: 1 / losses**0.5)
        >>> mine.predict({"log_loss": np.log([[4.0, 1.0]])})[0]
        array([[0.5, 1. ]], dtype=float32)
    """
    if not callable(function):
        raise TypeError(should("function", "be callable", function))
    return FunctionPolicy(function)

"""From actions to task weights; the only place that normalises. N rows, K tasks.

``ACTIONS``, ``RULES`` and ``SCOPES`` are the tables.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gymnasium.spaces import Box, Discrete
from torch import Tensor

from mtl_gym.arguments import choose, number, should
from mtl_gym.policies import WEIGHT_BOUND
from mtl_gym.training.signals import SMALLEST_LOSS

RULES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "init": lambda losses, initial: 1 / initial.clamp(min=SMALLEST_LOSS),
    "si": lambda losses, initial: 1 / losses.clamp(min=SMALLEST_LOSS),
}
"""Weights (N, K) of the current batch's losses and of L(0): ``1 / L_k(0)``, and ``1 / L_k`` (the gradient of the sum of logs)."""


@dataclass(frozen=True)
class ActionMode:
    """One row of ``ACTIONS``: the bound of the Box, whether actions pass a softmax, and whether a rule multiplies them."""

    bound: float
    softmax: bool
    rule: bool


ACTIONS = {
    "softmax": ActionMode(bound=1.0, softmax=True, rule=False),
    "residual": ActionMode(bound=1.0, softmax=True, rule=True),
    "weights": ActionMode(bound=WEIGHT_BOUND, softmax=False, rule=False),
}
"""``softmax``: ``K softmax(c a)``. ``residual``: the same times a rule's weights. ``weights``: the action, unchanged."""

SCOPES = {"all": 1, "shared": 2}
"""Weights of a task, S: one of its loss; or one in the shared parameters and one in its head."""


class Weighting:
    """One mode of turning actions into weights.

    Args:
        action: Row of ``ACTIONS``.
        rule: Row of ``RULES``; used by ``residual`` alone.
        weight_range: Largest ratio of two softmax weights, so that ``c = ln(weight_range) / 2``.
        scope: Row of ``SCOPES``.
        num_tasks: K.

    Raises:
        ValueError: If a name is unknown or ``weight_range`` is not above 1.
    """

    def __init__(self, *, action: str, rule: str, weight_range: float, scope: str, num_tasks: int) -> None:
        self._mode = choose("action", action, ACTIONS)
        choose("rule", rule, RULES)
        self._rule = rule
        self._sharpness = math.log(number("weight_range", weight_range, low=1.0, ends="(]")) / 2
        self._scope = choose("scope", scope, SCOPES)
        self.space = Box(-self._mode.bound, self._mode.bound, (self._scope * num_tasks,), np.float32)

    def clipped(self, actions: Tensor) -> Tensor:
        """Number (N,) of each row's entries that lie on a bound."""
        return (actions.abs() >= self._mode.bound).sum(1)

    def factors(self, actions: Tensor) -> Tensor:
        """What an action says (N, S, K), before any rule."""
        said = actions.unflatten(1, (self._scope, -1))
        return said.shape[2] * torch.softmax(self._sharpness * said, dim=2) if self._mode.softmax else said

    def weights(self, factors: Tensor, losses: Tensor, initial: Tensor) -> Tensor:
        """Weights (N, S, K) of one optimiser step, from the factors, the batch's losses (N, K) and L(0)."""
        return factors * RULES[self._rule](losses, initial)[:, None] if self._mode.rule else factors


def checked_actions(actions: npt.ArrayLike, space: Box | Discrete, num_envs: int) -> npt.NDArray[Any]:
    """Returns the actions as a fresh array: float32, or int64 of a discrete space.

    Raises:
        TypeError: If they are no numbers.
        ValueError: If the shape is not (num_envs, ...), or a number is not finite or outside the space; the row is named.
    """
    try:
        values = np.array(actions, dtype=np.float64)
    except (TypeError, ValueError):
        raise TypeError(should("actions", "be an array of numbers", actions)) from None
    shape = (num_envs, *(space.shape or ()))
    if values.shape != shape:
        apart = isinstance(space, Box) and values.shape == (num_envs, 2 * space.shape[0])
        remedy = 'Weights of shared parameters and heads need scope="shared".' if apart else ""
        raise ValueError(should("actions", f"have the shape {shape}", values.shape, remedy))
    if isinstance(space, Discrete):
        inside = (values == np.round(values)) & (values >= 0) & (values < space.n)
        condition = f"be whole numbers from 0 to {space.n - 1}"
    else:
        inside = (np.isfinite(values) & (values >= space.low) & (values <= space.high)).all(axis=1)
        condition = f"be finite and within [{space.low.flat[0]:g}, {space.high.flat[0]:g}]"
    if not inside.all():
        row = int(np.argmin(inside))
        raise ValueError(should("actions", condition, values[row].tolist(), f"See row {row}."))
    return values.astype(space.dtype)

"""Maps actions to task weights; only this module normalises them. N rows, K tasks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from gymnasium.spaces import Box
from torch import Tensor

from mtl_gym.checks import choose, number
from mtl_gym.policies.protocol import WEIGHT_BOUND
from mtl_gym.training.formulas import SMALLEST_LOSS

RULES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "init": lambda losses, initial: 1 / initial.clamp(min=SMALLEST_LOSS),
    "si": lambda losses, initial: 1 / losses.clamp(min=SMALLEST_LOSS),
}
"""Weights (N, K) from the current batch's losses and L(0): ``1 / L_k(0)``, and ``1 / L_k`` (the gradient of the sum of logs)."""


@dataclass(frozen=True)
class ActionMode:
    """One row of ``ACTIONS``: the bound of the Box, and whether a softmax and a rule's weights are applied."""

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
"""Number of weights per task, S: one for its loss, or one for the shared parameters and one for its head."""


class TaskWeighing:
    """One mode of mapping actions to task weights; raises ``ValueError`` or ``TypeError`` for wrong arguments.

    Args:
        num_tasks: K.
        action: Row of ``ACTIONS``.
        rule: Row of ``RULES``, for ``residual`` only.
        weight_range: Largest ratio of two softmax weights, above 1; ``c = ln(weight_range) / 2``.
        scope: Row of ``SCOPES``.
    """

    def __init__(
        self, num_tasks: int, *, action: str = "softmax", rule: str = "init", weight_range: float = 1e6, scope: str = "all"
    ) -> None:
        self._mode = choose("action", action, ACTIONS)
        choose("rule", rule, RULES)
        self._rule = rule
        self._sharpness = math.log(number("weight_range", weight_range, low=1.0, ends="(]")) / 2
        self.scope = choose("scope", scope, SCOPES)
        self.space = Box(-self._mode.bound, self._mode.bound, (self.scope * num_tasks,), np.float32)

    def clipped(self, actions: Tensor) -> Tensor:
        """Number (N,) of action entries on a bound."""
        return (actions.abs() >= self._mode.bound).sum(1)

    def factors(self, actions: Tensor) -> Tensor:
        """Weights (N, S, K) of an action before any rule."""
        said = actions.unflatten(1, (self.scope, -1))
        return said.shape[2] * torch.softmax(self._sharpness * said, dim=2) if self._mode.softmax else said

    def weights(self, factors: Tensor, losses: Tensor, initial: Tensor) -> Tensor:
        """Weights (N, S, K) of one optimiser step from the factors, the batch's losses (N, K) and L(0)."""
        return factors * RULES[self._rule](losses, initial)[:, None] if self._mode.rule else factors

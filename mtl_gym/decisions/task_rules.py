"""Maps actions to task weights; only this module normalises them. N rows, K tasks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from gymnasium.spaces import Box
from torch import Tensor

from mtl_gym.checks import choose, number, should
from mtl_gym.decisions.task_features import FeatureRule
from mtl_gym.policies.protocol import WEIGHT_BOUND
from mtl_gym.training.formulas import SMALLEST_LOSS
from mtl_gym.training.probes import View

RULES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "init": lambda losses, initial: 1 / initial.clamp(min=SMALLEST_LOSS),
    "si": lambda losses, initial: 1 / losses.clamp(min=SMALLEST_LOSS),
}
"""Weights (N, K) from the current batch's losses and L(0): ``1 / L_k(0)``, and ``1 / L_k`` (the gradient of the sum of logs)."""


@dataclass(frozen=True)
class ActionMode:
    """One row of ``ACTIONS``: the bound of the Box, whether a softmax and a rule's weights are applied, and whether the numbers are
    coefficients of features instead of one for each task.
    """

    bound: float
    softmax: bool
    rule: bool
    features: bool = False


ACTIONS = {
    "softmax": ActionMode(bound=1.0, softmax=True, rule=False),
    "residual": ActionMode(bound=1.0, softmax=True, rule=True),
    "rule": ActionMode(bound=1.0, softmax=False, rule=False, features=True),
    "weights": ActionMode(bound=WEIGHT_BOUND, softmax=False, rule=False),
}
"""``softmax``: ``K softmax(c a)``. ``residual``: the same times a rule's weights. ``rule``: those of a
:class:`~mtl_gym.decisions.task_features.FeatureRule`. ``weights``: the action, unchanged."""

SCOPES = {"all": 1, "shared": 2}
"""Number of weights per task, S: one for its loss, or one for the shared parameters and one for its head."""


class TaskWeighing:
    """One mode of mapping actions to task weights; raises ``ValueError`` or ``TypeError`` for wrong arguments.

    What an action says is *held* (N, P, K) until the next one; each step's weights are computed from it and the batch's losses.

    Args:
        num_tasks: K.
        action: Row of ``ACTIONS``.
        rule: Row of ``RULES``, for ``residual`` only.
        weight_range: Largest ratio of two softmax weights, above 1; ``c = ln(weight_range) / 2``.
        scope: Row of ``SCOPES``; ``"all"`` with ``action="rule"``.
        features: Rows of ``TASK_FEATURES``, with ``action="rule"`` only. ``None``: those that are not paid for.
        residual_reach: The reach of residuals of each task, with ``action="rule"`` only; 0: none.

    Attributes:
        space: The actions of one row.
        scope: S.
        needs: Names of the measurements that a decision needs.
    """

    def __init__(
        self,
        num_tasks: int,
        *,
        action: str = "softmax",
        rule: str = "init",
        weight_range: float = 1e6,
        scope: str = "all",
        features: Sequence[str] | None = None,
        residual_reach: float = 0.0,
    ) -> None:
        self._mode = choose("action", action, ACTIONS)
        choose("rule", rule, RULES)
        self._rule = rule
        self._sharpness = math.log(number("weight_range", weight_range, low=1.0, ends="(]")) / 2
        self.scope = choose("scope", scope, SCOPES)
        self._num_tasks, self._features = num_tasks, _feature_rule(action, scope, features, residual_reach)
        self.needs = self._features.needs if self._features else ()
        length = self._features.num_actions(num_tasks) if self._features else self.scope * num_tasks
        self.space = Box(-self._mode.bound, self._mode.bound, (length,), np.float32)

    def clipped(self, actions: Tensor) -> Tensor:
        """Number (N,) of action entries on a bound."""
        return (actions.abs() >= self._mode.bound).sum(1)

    def start(self) -> Tensor:
        """What is held before the first action of one row (1, P, K), in its shape and type."""
        if self._features:
            return torch.zeros(1, self._features.num_held, self._num_tasks, dtype=torch.float64)
        return torch.ones(1, self.scope, self._num_tasks)

    def held(self, actions: Tensor, view: View) -> Tensor:
        """What an action holds (N, P, K): weights (N, S, K) before any rule, or what a rule of features keeps of the ``view``."""
        if self._features:
            return self._features.held(actions, view)
        said = actions.unflatten(1, (self.scope, -1))
        return said.shape[2] * torch.softmax(self._sharpness * said, dim=2) if self._mode.softmax else said

    def weights(self, held: Tensor, losses: Tensor, initial: Tensor) -> Tensor:
        """Weights (N, S, K) of one optimiser step from what is held, the batch's losses (N, K) and L(0)."""
        if self._features:
            return self._features.weights(held, losses, initial)[:, None]
        return held * RULES[self._rule](losses, initial)[:, None] if self._mode.rule else held

    def shown(self, held: Tensor, losses: Tensor, initial: Tensor) -> Tensor:
        """Weights (N, K) of the last step, of these losses, that do not reveal the scales of losses: those before any rule, or of
        a rule of features without the raw ones.
        """
        return self._features.relative_weights(held, losses, initial) if self._features else held[:, 0]


def _feature_rule(action: str, scope: str, features: Sequence[str] | None, residual_reach: float) -> FeatureRule | None:
    """The rule of features, if the action has one."""
    if not ACTIONS[action].features:
        for name, value, usual in (("features", features, None), ("residual_reach", residual_reach, 0.0)):
            if value != usual:
                raise ValueError(should(name, f"be left out with action={action!r}", value, "It belongs to action='rule'."))
        return None
    if SCOPES[scope] > 1:
        remedy = "Its weights are those of the whole losses."
        raise ValueError(should("scope", "be 'all' with action='rule'", scope, remedy))
    return FeatureRule(features, residual_reach)

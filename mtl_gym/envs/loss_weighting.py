"""``mtl_gym/LossWeighting-v0``: how much does each task's loss count?"""

from __future__ import annotations

from typing import Any

from gymnasium.vector import AutoresetMode
from torch import Tensor

from mtl_gym.arguments import positive_int
from mtl_gym.envs.arguments import check_arguments
from mtl_gym.envs.base import MTLVectorEnv, as_array
from mtl_gym.envs.infos import Infos
from mtl_gym.envs.scalar import MTLEnv
from mtl_gym.envs.weights import Weighting

ENVIRONMENT = "mtl_gym/LossWeighting-v0"


class LossWeightingVectorEnv(MTLVectorEnv):
    """N trainings whose task losses are weighted; the manual is :class:`LossWeightingEnv`'s.

    Args:
        num_envs: N.
        action: See the manual.
        rule: See the manual.
        weight_range: See the manual.
        render_mode: ``None`` or ``"rgbas_array"``.
        autoreset_mode: ``"SameStep"``, ``"NextStep"`` or ``"Disabled"``, or the enum.
        max_episode_steps: Decisions after which an episode is truncated.
        arguments: The common arguments; see the manual.
    """

    def __init__(
        self,
        num_envs: int = 1,
        *,
        action: str = "softmax",
        rule: str = "init",
        weight_range: float = 1e6,
        render_mode: str | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.SAME_STEP,
        max_episode_steps: int | None = None,
        **arguments: Any,
    ) -> None:
        checked = check_arguments(ENVIRONMENT, **arguments)
        self._weighting = Weighting(action=action, rule=rule, weight_range=weight_range, num_tasks=checked.recipe.num_tasks)
        super().__init__(
            positive_int("num_envs", num_envs),
            self._weighting.space,
            checked,
            render_mode=render_mode,
            autoreset_mode=autoreset_mode,
            max_episode_steps=max_episode_steps,
        )

    def _train(self, actions: Tensor, active: Tensor) -> Tensor:
        factors, initial = self._weighting.factors(actions), self.signals.initial
        for _ in range(self.arguments.steps_per_action):
            losses = self.learner.forward()
            self.learner.update(self._weighting.weights(factors, losses, initial), active)
        return factors

    def _action_infos(self, actions: Tensor) -> Infos:
        return {"clipped": as_array(self._weighting.clipped(actions))}


class LossWeightingEnv(MTLEnv):
    """Manual to come."""

    vector_form = LossWeightingVectorEnv

"""The same environment with three numbered actions: a third-party environment whose action space is Discrete."""

from dataclasses import replace

import learning_rate
from gymnasium.spaces import Discrete

import mtl_gym


class RateSteps(learning_rate.LearningRates):
    """0 lowers the rate, 1 keeps it, 2 raises it."""

    def __init__(self, trainer, steps):
        super().__init__(trainer, steps, 2.0)
        self.space = Discrete(3)

    def apply(self, actions, active, view):
        super().apply((actions - 1)[:, None], active, view)


def _decide(common, num_envs):
    return RateSteps(mtl_gym.Trainer(common.problem, common.recipe, num_envs), common.steps_per_action)


class RateStepsVectorEnv(mtl_gym.MTLVectorEnv):
    specification = replace(
        learning_rate.LearningRateVectorEnv.specification,
        id="acme/RateSteps-v0",
        decide=_decide,
        observe=("log_factor", "progress"),
    )


class RateStepsEnv(mtl_gym.MTLEnv):
    """Is the learning rate lowered, kept or raised?"""

    vector_form = RateStepsVectorEnv

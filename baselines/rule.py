"""A rule of features with constant coefficients."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

import mtl_gym  # features need torch, which the list of policies does without
from mtl_gym import LOSS_WEIGHTING, Requirements, number, positive_int
from mtl_gym.baselines.base import Array, Heuristic, Observation, State


class Rule(Heuristic):
    """A rule of features: ``w_k = K softmax(s)_k * level``, ``s_k`` the sum of features times constant coefficients.

    The action ``rule`` of ``mtl_gym/LossWeighting-v0``, whose manual explains the features and the level, with the same numbers at
    every decision. By default, each loss is divided by its first value, as by ``init``, with weights that average 1. With ``loss``
    1, weights have the direction of ``si``; with ``base`` 1 instead, that of
    ``stch`` from the third epoch on; with ``level`` 1 too, a level much like its own.

    Args:
        first: Coefficient of ``-log L_k(0)``, in [-2, 2]. Default: 1, ours, to be searched; 1 is that of ``init``.
        loss: That of ``-log(L_k / L_k(0))`` of each batch, in [-2, 2]. Default: 0, ours, to be searched.
        base: That of ``-log(Lbase_k / L_k(0))``, mean loss of the second epoch, in [-2, 2]. Default: 0, ours, to be searched.
        slope: That of the change of the log loss per decision. Default: 0, ours, to be searched.
        gap: That of the log of the improvable gap. Default: 0, ours, to be searched.
        overfit: That of the log held-out loss minus the log training loss. Default: 0, ours, to be searched.
        overfit_slope: That of its change per decision. Default: 0, ours, to be searched.
        norm: That of minus the log norm of the gradient; costs K backward passes per decision. Default: 0, ours, to be searched.
        cosine: That of the mean cosine with the other tasks' gradients, at this cost too. Default: 0, ours, to be searched.
        level: Exponent of one over the mean relative loss, in [-2, 2]. Default: 0, ours, to be searched; 0: weights average 1.
        decisions: About how often other features than the first two are measured in a training, 2 or more. Default: 15, ours. The
            first two are those of each batch, however long a decision is.

    Each coefficient has to lie within the reach of its feature (``mtl_gym.TASK_FEATURES``).

    Raises:
        ValueError, TypeError: If one of them is no number within its range.
    """

    requires = Requirements(
        observe=("log_loss",), action="rule", steps_per_action=1, env=LOSS_WEIGHTING, env_kwargs={"features": ["first"]}
    )

    def __init__(
        self,
        first: float = 1.0,
        loss: float = 0.0,
        base: float = 0.0,
        slope: float = 0.0,
        gap: float = 0.0,
        overfit: float = 0.0,
        overfit_slope: float = 0.0,
        norm: float = 0.0,
        cosine: float = 0.0,
        level: float = 0.0,
        decisions: int = 15,
    ) -> None:
        self.first, self.loss, self.base, self.slope, self.gap = first, loss, base, slope, gap
        self.overfit, self.overfit_slope, self.norm, self.cosine = overfit, overfit_slope, norm, cosine
        self.level, self.decisions = _within("level", level, mtl_gym.LEVEL_REACH), positive_int("decisions", decisions, least=2)
        for name, row in mtl_gym.TASK_FEATURES.items():
            setattr(self, name, _within(name, getattr(self, name), row.reach))
        used = [name for name in mtl_gym.TASK_FEATURES if getattr(self, name)] or ["first"]
        steps = 1 if all(mtl_gym.TASK_FEATURES[name].of_batch for name in used) else None
        self.requires = replace(  # type: ignore[misc]
            type(self).requires,
            steps_per_action=steps,
            decisions=self.decisions if steps is None else None,
            env_kwargs={"features": used},
        )

    def act(self, obs: Observation, state: State) -> tuple[Array, State]:
        """The coefficients over their reach (N, 1 + F)."""
        rows = {name: mtl_gym.TASK_FEATURES[name].reach for name in self.requires.env_kwargs["features"]}
        action = [self.level / mtl_gym.LEVEL_REACH, *(getattr(self, name) / reach for name, reach in rows.items())]
        return np.tile(np.array(action), (len(obs["log_loss"]), 1)), state


def _within(name: str, value: float, reach: float) -> float:
    return number(name, value, low=-reach, high=reach)

"""What the training of an agent costs: an estimate from the time of a training step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mtl_gym import LOSS_WEIGHTING
from mtl_gym.agents.defaults import defaults_of

SHOWN = 1000
"""Decisions for which the time is given."""
_SIDE_BY_SIDE = 16
"""Trainings side by side whose step :func:`mtl_gym.check` times."""


def training_seconds(found: Mapping[str, Any], *, time_steps: int, evaluations: int, instances: int) -> tuple[float, float] | None:
    """Seconds that :func:`mtl_gym.agents.train` takes with the default arguments of its environment.

    They are those of training steps alone, each training taking as long as one of 16 side by side. What decisions measure, and the
    agent itself, come on top.

    Args:
        found: The entry ``training`` of :func:`mtl_gym.check`.
        time_steps: Number of decisions.
        evaluations: Number of evaluations.
        instances: Held-out instances of each.

    Returns:
        Before the first decision, unless references are kept from an earlier one: references of the reward and of the held-out
        instances, and held-out scores of the default ``references`` and of the untrained agent; and per 1,000 decisions, with their
        part of the evaluations. ``None`` if a step takes too much memory to be timed.
    """
    together, reward = found["step_seconds"][str(_SIDE_BY_SIDE)], found["seconds"]["reward"]
    if together is None:
        return None
    defaults, step = defaults_of(LOSS_WEIGHTING), together / _SIDE_BY_SIDE
    evaluation = instances * found["train_steps"] * step
    before = reward + (found["num_tasks"] + len(defaults.references) + 1) * evaluation
    return before, SHOWN * (defaults.arguments["steps_per_action"] * step + evaluations / time_steps * evaluation)

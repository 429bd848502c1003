"""The columns that tables of comparisons have beside the scores: scores by kind of task, and those of an environment."""

from __future__ import annotations

import warnings

from mtl_gym.environments import specification
from mtl_gym.envs.spec import Column, EnvironmentSpec
from mtl_gym.problems.losses import KINDS

KIND_SCORES = tuple(Column(kind, f"delta_m of {kind}, %") for kind in dict.fromkeys(KINDS.values()))
"""delta_m of the tasks of each kind, where tasks of several kinds count."""
INVALID_ACTIONS = Column("invalid_actions", "masked actions, %", form=".0f", factor=100.0)
"""The column of all environments whose ``info`` has ``invalid_action``."""


def installed(env: str) -> EnvironmentSpec | None:
    """The specification of an environment; ``None`` and a warning if its package is missing or broken."""
    try:
        return specification(env)
    except (ValueError, ImportError, AttributeError) as error:
        warnings.warn(f"columns and figures of {env} are left out: {error}", RuntimeWarning, stacklevel=2)
        return None


def columns_of(env: str) -> tuple[Column, ...]:
    """``KIND_SCORES``, the columns of an environment, if it is installed, and ``INVALID_ACTIONS``."""
    found = installed(env)
    return (*KIND_SCORES, *(found.columns if found else ()), INVALID_ACTIONS)

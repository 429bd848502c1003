"""Learned policies: agents trained by Stable-Baselines3; training, saving and loading them.

``AGENTS`` lists the algorithms of :func:`train`, ``PRETRAINED`` the agents that a comparison can name; both hold ``"module:name"``,
so that importing this package loads neither torch nor SB3.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mtl_gym.agents.agent import Agent as Agent, load as load
    from mtl_gym.agents.learning import train as train

AGENTS = {
    "ppo": "mtl_gym.agents.algorithms:PPO",
    "recurrent-ppo": "mtl_gym.agents.algorithms:RecurrentPPO",
    "sac": "mtl_gym.agents.algorithms:SAC",
    "td3": "mtl_gym.agents.algorithms:TD3",
    "tqc": "mtl_gym.agents.algorithms:TQC",
    "dqn": "mtl_gym.agents.algorithms:DQN",
    "maskable-ppo": "mtl_gym.agents.algorithms:MaskablePPO",
}
"""Name on the command line to ``"module:Class"``, one row per algorithm."""

PRETRAINED = {"ppo": "mtl_gym.agents.pretrained:ppo", "igbv2": "mtl_gym.agents.igbv2:IGBv2"}
"""Name in a comparison to ``"module:name"``, like ``BASELINES``: pretrained agents, and one that learns online."""

_HOMES = {"Agent": "mtl_gym.agents.agent", "load": "mtl_gym.agents.agent", "train": "mtl_gym.agents.learning"}
__all__ = ["AGENTS", "PRETRAINED", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])

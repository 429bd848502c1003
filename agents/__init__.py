"""Learned policies: agents that Stable-Baselines3 trains, and how they are trained, saved and loaded.

``AGENTS`` is what :func:`train` offers, ``PRETRAINED`` what can be named in a comparison; both hold ``"module:name"``, so that
importing this package loads neither torch nor SB3.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agents.agent import Agent as Agent
    from agents.agent import load as load
    from agents.training import train as train

AGENTS = {
    "ppo": "agents.algorithms:PPO",
    "recurrent-ppo": "agents.algorithms:RecurrentPPO",
    "sac": "agents.algorithms:SAC",
    "td3": "agents.algorithms:TD3",
    "tqc": "agents.algorithms:TQC",
    "dqn": "agents.algorithms:DQN",
    "maskable-ppo": "agents.algorithms:MaskablePPO",
}
"""Name on the command line to ``"module:Class"``; a row is an algorithm that can be trained."""

PRETRAINED = {"ppo": "agents.pretrained:ppo", "igbv2": "agents.igbv2:IGBv2"}
"""Name in a comparison to ``"module:name"``, like ``baselines.BASELINES``: agents that come trained, and one that learns online."""

_HOMES = {"Agent": "agents.agent", "load": "agents.agent", "train": "agents.training"}
__all__ = ["AGENTS", "PRETRAINED", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'agents' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])

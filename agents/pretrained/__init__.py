"""Pretrained agents. A card next to each file describes its training, its results and its limitations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mtl_gym import LOSS_WEIGHTING, agents, choose
from mtl_gym.agents.defaults import DEFAULTS

if TYPE_CHECKING:
    from mtl_gym.agents.agent import Agent

FOLDER = Path(__file__).parent


def ppo(env: str = LOSS_WEIGHTING, action: str | None = None) -> Agent:
    """Pretrained agent: PPO, trained on digits, the best one of each environment.

    ``benchmarks/pretrain.py`` trains them; their cards are next to the files in ``agents/pretrained``.

    Args:
        env: Id of the environment; a comparison passes its own.
        action: The environment's argument, if it has agents for several actions; by default that of the best agent.

    Raises:
        ValueError: If there is no such agent.
    """
    files = choose("env", env, {id: row.pretrained for id, row in DEFAULTS.items() if row.pretrained})
    name = next(iter(files.values())) if action is None else choose("action", action, files)
    return agents.load(FOLDER / f"{name}.safetensors")

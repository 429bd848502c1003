"""Agents that come trained. Each has a card beside it: what it was trained on, for how long, what it reaches, where it fails."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mtl_gym.arguments import choose
from mtl_gym.problems import LAYER_MERGING, LOSS_WEIGHTING, SAMPLE_WEIGHTING, TASK_GROUPING

if TYPE_CHECKING:
    from mtl_gym.agents.agent import Agent

FOLDER = Path(__file__).parent

FILES = {
    LOSS_WEIGHTING: {"residual": "ppo"},
    SAMPLE_WEIGHTING: {"rule": "ppo_samples"},
    LAYER_MERGING: {"merge": "ppo_merging", "threshold": "ppo_threshold"},
    TASK_GROUPING: {"place": "ppo_groups"},
}
"""The agents of each environment, by the action that they take and the name of their file and card; the best one first."""


def ppo(env: str = LOSS_WEIGHTING, action: str | None = None) -> Agent:
    """Pretrained agent: PPO, trained on digits, the best one of each environment.

    ``benchmarks/pretrain.py`` trains them; the cards are beside the files in ``agents/pretrained``.

    Args:
        env: Id of the environment that it is for; a comparison gives its own.
        action: The environment's argument, where there are agents for several; the best one without it.

    Raises:
        ValueError: If there is none for it.
    """
    from mtl_gym.agents.agent import load  # here, so that listing the agents stays light

    files = choose("env", env, FILES)
    name = next(iter(files.values())) if action is None else choose("action", action, files)
    return load(FOLDER / f"{name}.safetensors")

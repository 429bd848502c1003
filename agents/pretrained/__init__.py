"""Agents that come trained. Each has a card beside it: what it was trained on, for how long, what it reaches, where it fails."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mtl_gym.arguments import choose
from mtl_gym.problems import LAYER_MERGING, LOSS_WEIGHTING, SAMPLE_WEIGHTING, TASK_GROUPING

if TYPE_CHECKING:
    from agents.agent import Agent

FOLDER = Path(__file__).parent


FILES = {
    LOSS_WEIGHTING: "ppo",
    SAMPLE_WEIGHTING: "ppo_samples",
    LAYER_MERGING: "ppo_merging",
    TASK_GROUPING: "ppo_groups",
}
"""The best agent of each environment, by the name of its file and card."""


def ppo(env: str = LOSS_WEIGHTING) -> Agent:
    """Pretrained agent: PPO, trained on digits, the best one of each environment.

    ``benchmarks/pretrain.py`` trains them; the cards are beside the files in ``agents/pretrained``.

    Args:
        env: Id of the environment that it is for; a comparison gives its own.

    Raises:
        ValueError: If there is none for it.
    """
    from agents.agent import load  # here, so that listing the agents stays light

    return load(FOLDER / f"{choose('env', env, FILES)}.safetensors")

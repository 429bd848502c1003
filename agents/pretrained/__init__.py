"""Agents that come trained. Each has a card beside it: what it was trained on, for how long, what it reaches, where it fails."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agents.agent import Agent

FOLDER = Path(__file__).parent


def ppo() -> Agent:
    """Pretrained agent: PPO, a residual over 1 / L(0), trained on digits.

    ``benchmarks/pretrain.py`` trains it; ``agents/pretrained/ppo.md`` is its card.
    """
    from agents.agent import load  # here, so that listing the agents stays light

    return load(FOLDER / "ppo.safetensors")

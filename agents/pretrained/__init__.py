"""Agents that come trained. Each has a card beside it: what it was trained on, for how long, what it reaches, where it fails."""

from __future__ import annotations

from pathlib import Path

from agents.agent import Agent, load

FOLDER = Path(__file__).parent


def ppo() -> Agent:
    """Pretrained agent: PPO over 1 / L(0), trained on digits.

    ``benchmarks/pretrain.py`` trains it; ``agents/pretrained/ppo.md`` is its card.
    """
    return load(FOLDER / "ppo.safetensors")

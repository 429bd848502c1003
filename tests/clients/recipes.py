"""The recipes of `docs/clients.md` and `docs/offline.md`, and a plain loop with which clients are compared."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import gymnasium
import numpy as np

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "clients.md"
ENV_ID = "mtl_gym:mtl_gym/LossWeighting-v0"


def recipe(heading, language="python", page="clients"):
    """The page's one block of code of a language under a heading."""
    sections = re.split(r"^## ", (DOCS / f"{page}.md").read_text(), flags=re.MULTILINE)
    (section,) = [text for text in sections if text.startswith(f"{heading}\n")]
    (block,) = re.findall(rf"^```{language}\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)
    return block


def run(heading, folder, page="clients"):
    """Runs a recipe as a script in a folder; returns its names."""
    script = folder / "recipe.py"
    script.write_text(recipe(heading, page=page))
    return runpy.run_path(str(script), run_name="__main__")


def replay(instance, actions, env_id=ENV_ID, **arguments):
    """Rewards (T,) and the last observation of a plain loop that takes the same actions in the same instance: a whole episode."""
    env = gymnasium.make(env_id, **arguments)
    env.reset(options={"instance": int(instance)})
    rewards, over = [], False
    for action in actions:
        assert not over, "the episode is longer than it should be"
        observation, reward, terminated, truncated, _ = env.step(np.clip(action, env.action_space.low, env.action_space.high))
        rewards.append(reward)
        over = terminated or truncated
    assert over, "the episode is shorter than it should be"
    return np.array(rewards), observation

"""Draws ``docs/coefficients.png``, what the transferring agent does on different trainings: ``python -m docs.coefficients``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from benchmarks.measuring import vector_env
from benchmarks.rules import REACH
from mtl_gym.agents.pretrained import ppo
from mtl_gym.decisions.task_features import DEFAULT_FEATURES
from mtl_gym.environments import LOSS_WEIGHTING
from mtl_gym.evaluation.styles import SETTINGS

Array = npt.NDArray[np.float64]
ROOT = Path(__file__).parents[1]
INSTANCES, COLUMNS = 32, 4
PLAIN: dict[str, tuple[float, float]] = {
    "noise": (0, 0),
    "scale": (1, 1),
    "conflict": (0.5, 0.5),
    "labels": (1, 1),
    "errors": (0.3, 0.3),
}
CHANGED: dict[str, dict[str, tuple[float, float]]] = {
    "as they are": {},
    "40 % of labels wrong": {"noise": (0.4, 0.4)},
    "scales .1 to 10": {"scale": (0.1, 10)},
    "most conflict": {"conflict": (1, 1), "relatedness": (0, 0)},
    "one in ten labels": {"labels": (0.1, 0.1)},
}
"""Kinds of teachers by name: what differs from ``PLAIN``."""


def coefficients(distribution: dict[str, tuple[float, float]]) -> Array:
    """Mean coefficients (decisions, 1 + F) of the agent on instances of a kind of teachers."""
    agent = ppo(action="rule")
    given: dict[str, Any] = {"problem": "teachers", "num_tasks": 4, "distribution": distribution}
    envs = vector_env(LOSS_WEIGHTING, INSTANCES, agent, autoreset_mode="Disabled", **given)
    observations, _ = envs.reset(options={"instance": [*range(INSTANCES)]})
    said = []
    while not envs.finished.all():
        actions, _ = agent.predict(observations, deterministic=True)
        said.append(actions.mean(0) * REACH)
        observations = envs.step(actions)[0]
    return np.array(said)


def main() -> Path:
    """Writes the picture; returns its path."""
    found = {name: coefficients({**PLAIN, **changed}) for name, changed in CHANGED.items()}
    with matplotlib.rc_context(SETTINGS | {"font.sans-serif": ["DejaVu Sans"]}):
        figure = Figure(figsize=(7.8, 4.2), layout="constrained")
        grid = figure.subplots(2, COLUMNS, sharex=True).ravel()
        for axes, name, column in zip(grid, ("level", *DEFAULT_FEATURES), range(len(REACH)), strict=False):
            for place, (kind, values) in enumerate(found.items()):
                axes.plot(np.arange(len(values)) / len(values), values[:, column], label=kind, color=f"C{place}", linewidth=1.5)
            axes.set_title(name)
        for axes in grid[len(REACH) :]:
            axes.axis("off")
        grid[-1].legend(*grid[0].get_legend_handles_labels(), loc="center", fontsize=8)
        for axes in grid[COLUMNS : len(REACH)]:
            axes.set_xlabel("progress")
        path = ROOT / "docs" / "coefficients.png"
        figure.savefig(path, dpi=160, facecolor="white", metadata={"Software": None})
    return path


if __name__ == "__main__":
    main()

"""Draws ``docs/methods.png``, the README's picture, from the results behind ``docs/methods.md``: ``python -m docs.picture``."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from mtl_gym.envs.looks import RULE, policy_looks
from mtl_gym.evaluation.styles import SETTINGS

ROOT = Path(__file__).parents[1]
PROBLEMS = ("digits", "river_flow", "tox21")
POLICIES = ("igb", "uw", "famo", "cagrad", "fairgrad", "ppo")
"""Three problems of different origin, and methods of each kind: of losses, of gradients, and the agent."""


def main() -> Path:
    """Writes the picture, 3.9 inches wide, which a phone shows in its own size; returns its path."""
    studies = json.loads((ROOT / "benchmarks" / "results" / "methods.json").read_text())
    looks = policy_looks(POLICIES, {})
    with matplotlib.rc_context(SETTINGS | {"font.sans-serif": ["DejaVu Sans"]}):
        figure = Figure(figsize=(3.9, 5.4), layout="constrained")
        for axes, problem in zip(figure.subplots(len(PROBLEMS)), PROBLEMS, strict=True):
            study = studies[problem]
            for place, name in enumerate(POLICIES):
                row, color = study["policies"][name]["over"]["ew"], looks[name]["color"]
                axes.hlines(place, row["low"], row["high"], color=color, linewidth=2.5)
                axes.plot(row["difference"], place, color=color, marker=looks[name]["marker"], markersize=6)
            axes.axvline(0, color=RULE, linewidth=1, zorder=1.9)
            axes.set_yticks(range(len(POLICIES)), POLICIES)
            axes.set_ylim(len(POLICIES) - 0.5, -0.5)
            axes.grid(visible=False, axis="y")
            axes.set_title(f"{problem}, {study['instances']} instances")
        axes.set_xlabel("delta_m minus that of equal weights, points\nright is better; bars are 95 % intervals")
        path = ROOT / "docs" / "methods.png"
        figure.savefig(path, dpi=200, facecolor="white", metadata={"Software": None})
    return path


if __name__ == "__main__":
    main()

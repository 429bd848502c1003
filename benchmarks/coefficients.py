"""Draws what an agent of rules does: its coefficients over a training, on teachers that differ in one thing at a time.

    python -m benchmarks.coefficients            the shipped agent
    python -m benchmarks.coefficients FILE       another one

Every column is a pair of settings of ``teachers`` with four tasks, at 24 evaluation instances each: wrong labels, loss scales,
conflict between tasks, few labels, learning rate, length. Lines are mean coefficients of the decisions, bands half the instances.
Writes ``docs/coefficients.svg`` and ``benchmarks/results/coefficients.json``: how far the mean coefficients of the two settings are
apart, at the first, the middle and the last decision, and the deviation between instances of one setting at the middle one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from benchmarks.measuring import ROOT, Run, command_line, rollout, vector_env
from mtl_gym.decisions.task_features import LEVEL_REACH, TASK_FEATURES
from mtl_gym.environments import LOSS_WEIGHTING
from mtl_gym.evaluation.styles import SETTINGS
from mtl_gym.policies.grammar import make_policy

Array = npt.NDArray[np.float64]
SHIPPED = "ppo:action=rule"
PICTURE = ROOT / "docs" / "coefficients.svg"
INSTANCES, STEPS = 24, 300
SHOWN = ("level", "first", "loss", "base", "gap")
COLORS = ("#0072b2", "#d55e00")
CONTRASTS: dict[str, dict[str, dict[str, Any]]] = {
    "wrong labels": {"none": {"distribution": {"noise": (0.0, 0.0)}}, "40 %": {"distribution": {"noise": (0.4, 0.4)}}},
    "loss scales": {"equal": {}, "0.1 to 10": {"distribution": {"scale": (0.1, 10.0)}}},
    "conflict": {"none": {"distribution": {"conflict": (0.0, 0.0)}}, "strongest": {"distribution": {"conflict": (1.0, 1.0)}}},
    "labels": {"all": {}, "a tenth": {"distribution": {"labels": (0.1, 0.1)}}},
    "learning rate": {"a quarter": {"distribution": {"lr": (0.25, 0.25)}}, "fourfold": {"distribution": {"lr": (4.0, 4.0)}}},
    "length": {"150 steps": {"train_steps": 150}, "1,200 steps": {"train_steps": 1200}},
}
"""What a column compares: two settings by name."""


def coefficients(agent: Any, **arguments: Any) -> dict[str, Array]:
    """By feature: the coefficients (decisions, n) of an agent's evaluation instances."""
    given = {
        "problem": "teachers",
        "num_tasks": 4,
        "reward": "none",
        "train_steps": STEPS,
        **agent.requires.arguments(),
        **arguments,
    }
    envs = vector_env(LOSS_WEIGHTING, INSTANCES, autoreset_mode="Disabled", **given)
    said = [np.clip(actions, -1, 1) for actions, _ in rollout(envs, agent, range(INSTANCES))]
    envs.close()
    reach = [LEVEL_REACH, *(TASK_FEATURES[name].reach for name in given["features"])]
    table = np.stack(said) * reach  # (decisions, n, 1 + F)
    return dict(zip(("level", *given["features"]), np.moveaxis(table, -1, 0), strict=True))


def apart(first: Mapping[str, Array], second: Mapping[str, Array]) -> dict[str, dict[str, float]]:
    """By feature: the second setting's mean coefficient minus the first's at three decisions, and the deviation within settings."""
    rows = {}
    for name, own in first.items():
        middle = len(own) // 2
        moments = {"first": (own[0], second[name][0]), "middle": (own[middle], second[name][middle])}
        moments["last"] = (own[-1], second[name][-1])
        row = {moment: float(other.mean() - one.mean()) for moment, (one, other) in moments.items()}
        row["within"] = float(np.sqrt((own[middle].var() + second[name][middle].var()) / 2))
        rows[name] = {moment: round(value, 3) for moment, value in row.items()}
    return rows


def draw(found: Mapping[str, Mapping[str, Mapping[str, Array]]], path: Path | None) -> None:
    """A row for each coefficient, a column for each contrast; lines are means, bands from the lower to the upper quartile."""
    if path is None:
        return
    with matplotlib.rc_context(SETTINGS | {"svg.fonttype": "path", "font.sans-serif": ["DejaVu Sans"]}):
        names = [name for name in SHOWN if name in next(iter(next(iter(found.values())).values()))]
        figure = Figure(figsize=(2.1 * len(found), 1.5 * len(names) + 0.8), layout="constrained")
        panels = figure.subplots(len(names), len(found), sharex=True, sharey="row", squeeze=False)
        for column, (contrast, settings) in enumerate(found.items()):
            for (setting, own), color in zip(settings.items(), COLORS, strict=True):
                for axes, name in zip(panels[:, column], names, strict=True):
                    progress = np.linspace(0, 1, len(own[name]), endpoint=False)
                    axes.plot(progress, own[name].mean(1), color=color, label=setting)
                    axes.fill_between(progress, *np.quantile(own[name], [0.25, 0.75], axis=1), color=color, alpha=0.15, linewidth=0)
            panels[0, column].set_title(contrast)
            panels[0, column].legend(frameon=False, fontsize=7.5)
            panels[-1, column].set_xlabel("progress")
        for axes, name in zip(panels[:, 0], names, strict=True):
            axes.set_ylabel(name)
        figure.savefig(path, metadata={"Date": None})


def main(words: Sequence[str] | None = None) -> None:
    """Plays all contrasts, and draws them."""
    run: Run = command_line(words)
    agent, results = make_policy(run.names[0] if run.names else SHIPPED), {}
    found: dict[str, dict[str, dict[str, Array]]] = {}
    short: dict[str, Any] = {"train_steps": 30} if run.smoke else {}
    for contrast, settings in [*CONTRASTS.items()][: 1 if run.smoke else None]:
        found[contrast] = {setting: coefficients(agent, **own, **short) for setting, own in settings.items()}
        results[contrast] = apart(*found[contrast].values())
        print(contrast, results[contrast], flush=True)
    run.write(results)
    draw(found, run.beside(PICTURE))


if __name__ == "__main__":
    main()

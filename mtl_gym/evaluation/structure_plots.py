"""Figures of layer merging: the cost of sharing, which layers are shared, and how similar they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mtl_gym.envs.panels import draw_similarity, draw_tree, label_lines
from mtl_gym.evaluation.plots import Results, Summary
from mtl_gym.evaluation.results import outcomes
from mtl_gym.evaluation.styles import shortened, style

_SCORES = {"delta_m": "delta_m on the test split, %", "corrupted": "delta_m on corrupted inputs, %"}


def front(results: Results, summary: Summary) -> Figure | None:
    """Parameters against scores, clean and corrupted; ``None`` where layers are not merged."""
    policies = {name: row for name, row in summary["policies"].items() if "parameter_fraction" in row}
    if not policies:
        return None
    figure = Figure(figsize=(9.6, 4.0), layout="constrained")
    lines: list[Line2D] = []
    for axes, (score, title) in zip(figure.subplots(1, len(_SCORES)), _SCORES.items(), strict=True):
        lines = []
        for name, row in policies.items():
            value, size, color = row[score], row["parameter_fraction"], style(summary, name)["color"]
            middle = value.get("iqm", value["mean"])
            lines += axes.plot(size["mean"], middle, "o", color=color, markersize=7)
            if value["low"] is not None:
                axes.vlines(size["mean"], value["low"], value["high"], color=color, linewidth=1.5)
                axes.hlines(middle, size["low"], size["high"], color=color, linewidth=1.5)
        axes.set(title=title, xlabel="parameters, as a fraction of separate networks'", xlim=(0, 1.05))
    label_lines(figure, lines, shortened(list(policies)), columns=5, place="outside upper left")
    return figure


def merged_layers(results: Results, summary: Summary) -> Figure | None:
    """Each policy's tree on its first instance, and how often two tasks share each stage."""
    known = outcomes(results, "assign")
    if not known:
        return None
    stages = len(next(iter(known.values()))[0]["assign"])
    figure = Figure(figsize=(3.6 + 1.7 * stages, 0.4 + 1.75 * len(known)), layout="constrained")
    panels = figure.subplots(len(known), 1 + stages, squeeze=False, width_ratios=[2.2, *[1] * stages])
    for row, (name, own) in enumerate(known.items()):
        draw_tree(panels[row, 0], np.asarray(own[0]["assign"]), own[0]["tasks"])
        panels[row, 0].set_title(shortened([name])[0])
        shared = _together(own)
        for stage in range(stages):
            draw_similarity(panels[row, 1 + stage], shared[stage], own[0]["tasks"] if _same_tasks(own) else None)
            if row == 0:
                panels[row, 1 + stage].set_title(f"share stage {stage + 1}")
    return figure


def similarities(results: Results, summary: Summary) -> Figure | None:
    """Mean CKA of the tasks' features at each stage; only where all instances have the same tasks."""
    known = {name: own for name, own in outcomes(results, "cka").items() if _same_tasks(own)}
    if not known:
        return None
    stages = len(next(iter(known.values()))[0]["cka"])
    figure = Figure(figsize=(1.6 * len(known) + 1.2, 1.7 * stages + 0.6), layout="constrained")
    panels = figure.subplots(stages, len(known), squeeze=False)
    for column, (name, own) in enumerate(known.items()):
        means = np.mean([row["cka"] for row in own], axis=0)
        for stage in range(stages):
            draw_similarity(panels[stage, column], means[stage], own[0]["tasks"] if column == 0 else None)
        panels[0, column].set_title(shortened([name])[0], fontsize=8)
    for stage in range(stages):
        panels[stage, 0].set_ylabel(f"stage {stage + 1}")
    return figure


def _same_tasks(own: Sequence[Mapping[str, Any]]) -> bool:
    return all(row["tasks"] == own[0]["tasks"] for row in own)


def _together(own: Sequence[Mapping[str, Any]]) -> npt.NDArray[np.float64]:
    """Fraction of the instances (S, K, K) in which two tasks share a stage."""
    assign = np.asarray([row["assign"] for row in own])
    return np.asarray((assign[..., :, None] == assign[..., None, :]).mean(0))

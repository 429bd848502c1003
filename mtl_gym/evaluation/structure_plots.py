"""Figures of layer merging: the cost of sharing, which layers are shared, and how similar they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mtl_gym.envs.looks import task_looks
from mtl_gym.envs.panels import draw_similarity, draw_tree
from mtl_gym.evaluation.layout import MOST_DRAWN, fitting, grid, label_columns, label_sparsely, legend, page_width, with_scale
from mtl_gym.evaluation.plots import Results, Summary
from mtl_gym.evaluation.results import outcomes
from mtl_gym.evaluation.styles import shortened, style

_SCORES = {"delta_m": "delta_m on the test split, %", "corrupted": "delta_m on corrupted inputs, %"}


def front(results: Results, summary: Summary) -> Figure | None:
    """Parameters against scores, clean and corrupted; ``None`` where layers are not merged."""
    policies = {name: row for name, row in summary["policies"].items() if "parameter_fraction" in row}
    if not policies:
        return None
    figure, panels = grid(len(_SCORES), least=3.2, height=2.8, shared="xy")
    lines: list[Line2D] = []
    for axes, (score, title) in zip(panels, _SCORES.items(), strict=True):
        lines = []
        for name, row in policies.items():
            value, size, look = row[score], row["parameter_fraction"], style(summary, name)
            middle = value["mean"]
            lines += axes.plot(size["mean"], middle, color=look["color"], marker=look["marker"], linestyle="", markersize=7)
            if value["low"] is not None:
                axes.vlines(size["mean"], value["low"], value["high"], color=look["color"], linewidth=1.5)
                axes.hlines(middle, size["low"], size["high"], color=look["color"], linewidth=1.5)
        axes.set_title(title)
    panels[0].set_xlim(0, 1.05)
    figure.supxlabel("parameters, fraction of separate networks'", fontsize=9)
    legend(figure, lines, list(policies))
    return figure


def merged_layers(results: Results, summary: Summary) -> Figure | None:
    """Each policy's tree on its first instance, and how often two tasks share each stage."""
    known = outcomes(results, "assign")
    if not known:
        return None
    stages, tasks = len(next(iter(known.values()))[0]["assign"]), len(next(iter(known.values()))[0]["tasks"])
    drawn = tasks <= MOST_DRAWN  # trees
    columns = fitting(drawn + stages, 2.3)
    lines = -(-(drawn + stages) // columns)
    height = 0.4 + max(1.6, min(0.14 * tasks, 3.0))
    size = (min(page_width(), 0.6 + 3.2 * columns), 0.6 + height * lines * len(known))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(known) * lines, columns, squeeze=False).reshape(len(known), -1)
    for row, (name, own) in zip(panels, known.items(), strict=True):
        shared, names = _together(own), own[0]["tasks"] if _same_tasks(own) else None
        if drawn:
            draw_tree(row[0], np.asarray(own[0]["assign"]), own[0]["tasks"], task_looks(own[0]["tasks"]))
            row[0].set_title(shortened([name])[0])
        for stage, axes in enumerate(row[drawn : drawn + stages]):
            first = stage == 0 or (drawn + stage) % columns == 0  # in its line
            _matrix(axes, shared[stage], names, named=first, inches=height - 0.4)
            axes.set_title(f"stage {stage + 1}" if drawn else f"{shortened([name])[0]}\nstage {stage + 1}")
        for axes in row[drawn + stages :]:
            axes.remove()
    if names is not None:
        label_columns(row[drawn : drawn + stages].tolist(), min(columns, stages), names, height - 0.4)
    return with_scale(figure, list(panels.flat), "fraction of the instances")


def similarities(results: Results, summary: Summary) -> Figure | None:
    """Mean CKA of the tasks' features at each stage; only where all instances have the same tasks."""
    known = {name: own for name, own in outcomes(results, "cka").items() if _same_tasks(own)}
    if not known:
        return None
    means = {name: np.mean([row["cka"] for row in own], axis=0) for name, own in known.items()}  # (S, K, K)
    drawn = [(name, stage, values) for name, table in means.items() for stage, values in enumerate(table)]
    height = 0.4 + max(1.5, min(0.14 * len(drawn[0][2]), 3.0))
    columns = fitting(len(drawn), 1.9)
    figure, panels = grid(len(drawn), least=1.9, height=height)
    for place, (axes, (name, stage, values)) in enumerate(zip(panels, drawn, strict=True)):
        _matrix(axes, values, known[name][0]["tasks"], named=place % columns == 0, inches=height - 0.4)
        axes.set_title(f"{shortened([name])[0]}\nstage {stage + 1}")
    if _same_tasks([own[0] for own in known.values()]):
        label_columns(panels, columns, known[name][0]["tasks"], height - 0.4)
    return with_scale(figure, panels, "CKA")


def _matrix(axes: Axes, values: npt.NDArray[np.float64], names: Sequence[str] | None, *, named: bool, inches: float) -> None:
    """Draws a matrix (K, K) of fractions, with its tasks' names to the left if it is the first in its row."""
    draw_similarity(axes, values, None)
    if names is not None and named:
        label_sparsely(axes.yaxis, names, inches)


def _same_tasks(own: Sequence[Mapping[str, Any]]) -> bool:
    return all(row["tasks"] == own[0]["tasks"] for row in own)


def _together(own: Sequence[Mapping[str, Any]]) -> npt.NDArray[np.float64]:
    """Fraction of the instances (S, K, K) in which two tasks share a stage."""
    assign = np.asarray([row["assign"] for row in own])
    return np.asarray((assign[..., :, None] == assign[..., None, :]).mean(0))

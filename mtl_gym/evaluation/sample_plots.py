"""Do the weights of samples tell right labels from wrong ones? Over the training, from what :class:`Separations` keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from mtl_gym.envs.panels import label_lines
from mtl_gym.evaluation.results import Result
from mtl_gym.evaluation.styles import shortened, style

_PANELS = (
    ("auc", "P(right label weighs more), main task", 0.5),
    ("right", "mean weight of right labels", 1.0),
    ("wrong", "mean weight of wrong labels", 1.0),
)


def separations(results: Sequence[Result], summary: Mapping[str, Any]) -> Figure | None:
    """Of the main task, medians over instances: how often a right label outweighs a wrong one, and the mean weights of both.

    Returns:
        ``None`` if no result knows of wrong labels.
    """
    main_task = summary["about"]["arguments"].get("main_task")
    known = [result for result in results if any(value is not None for value in result.curves.get("auc", {}).get(main_task, ()))]
    if not known:
        return None
    names = list(summary["policies"])
    figure = Figure(figsize=(10.5, 3.4), layout="constrained")
    panels = figure.subplots(1, len(_PANELS))
    for axes, (curve, title, neutral) in zip(panels, _PANELS, strict=True):
        axes.axhline(neutral, color="#888", linewidth=0.8, linestyle=":")
        lines = [axes.plot(*_medians(known, name, curve, main_task), **style(summary, name))[0] for name in names]
        axes.set_title(title)
    panels[0].set_ylim(min(0.4, panels[0].get_ylim()[0]), 1.02)
    label_lines(figure, lines, shortened(names), columns=6, place="outside upper left")
    figure.supxlabel("optimiser step", fontsize=9)
    return figure


def _medians(results: Sequence[Result], name: str, curve: str, task: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Steps and medians over a policy's instances, from the first checkpoint after the start; NaN where nothing is known."""
    own = [result.curves for result in results if result.policy == name]
    longest: list[int] = max((curves["step"] for curves in own), key=len, default=[0])
    columns = []
    for place in range(1, len(longest)):
        values = [curves[curve][task][place] for curves in own if len(curves["step"]) > place]
        finite = [value for value in values if value is not None]
        columns.append(float(np.median(finite)) if finite else np.nan)
    return np.asarray(longest[1:], dtype=float), np.asarray(columns)

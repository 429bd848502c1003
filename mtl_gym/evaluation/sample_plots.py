"""Whether sample weights separate correct from wrong labels over the training, from the traces of the decision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from mtl_gym.envs.panels import label_lines
from mtl_gym.evaluation.results import Result, median_curve
from mtl_gym.evaluation.styles import shortened, style

_PANELS = (
    ("auc", "P(correct label has the larger weight), main task", 0.5),
    ("right", "mean weight of correct labels", 1.0),
    ("wrong", "mean weight of wrong labels", 1.0),
)


def separations(results: Sequence[Result], summary: Mapping[str, Any]) -> Figure | None:
    """For the main task, medians over instances of how often a correct label outweighs a wrong one, and of both mean weights.

    ``None`` if no result has wrong labels.
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
        curves = {name: median_curve(known, name, main_task, curve) for name in names}
        lines = [axes.plot(x[1:], y[1:], **style(summary, name))[0] for name, (x, y) in curves.items()]  # nothing is known at 0
        axes.set_title(title)
    panels[0].set_ylim(min(0.4, panels[0].get_ylim()[0]), 1.02)
    label_lines(figure, lines, shortened(names), columns=6, place="outside upper left")
    figure.supxlabel("optimiser step", fontsize=9)
    return figure

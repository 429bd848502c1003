"""Whether sample weights separate correct from wrong labels over the training, from the traces of the decision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from mtl_gym.envs.looks import RULE
from mtl_gym.evaluation.layout import grid, legend
from mtl_gym.evaluation.medians import median_curves
from mtl_gym.evaluation.results import Result
from mtl_gym.evaluation.styles import line

_PANELS = (
    ("auc", "P(correct label has the larger weight)", 0.5),
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
    figure, panels = grid(len(_PANELS), least=3.0, height=2.4)
    for axes, (curve, title, neutral) in zip(panels, _PANELS, strict=True):
        axes.axhline(neutral, color=RULE, linewidth=0.8, linestyle=":")
        curves = {name: median_curves(known, name, [main_task], curve) for name in names}
        lines = [
            axes.plot(x[1:], y[0, 1:], **line(summary, name, 6))[0] for name, (x, y) in curves.items()
        ]  # nothing is known at 0
        axes.set_title(title)
    panels[0].set_ylim(min(0.4, panels[0].get_ylim()[0]), 1.02)
    panels[2].sharey(panels[1])  # both are weights
    panels[1].autoscale_view()
    legend(figure, lines, names)
    figure.supxlabel("optimiser step", fontsize=9)
    return figure

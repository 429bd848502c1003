"""Pictures of one training so far: its losses, weights and gaps; its structure and similarities; its data maps and groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from mtl_gym.envs.panels import (
    TASK_COLOURS,
    draw_data_map,
    draw_memberships,
    draw_similarity,
    draw_tree,
    label_lines,
    line_style,
    log_axis,
    short,
)
from mtl_gym.training.learner import Learner
from mtl_gym.training.signals import SMALLEST_LOSS, improvable_gap
from mtl_gym.training.warm_up import MAPS

if TYPE_CHECKING:
    from mtl_gym.training.branch_learner import BranchLearner
    from mtl_gym.training.group_learner import GroupLearner

_RECENT = 10  # batches that a gap is averaged over
_SIZE = (12.0, 4.0)  # inches, at 100 dots each
_COLUMNS = 7  # tasks in a row of the legend
_MOST_MAPS = 12  # data maps that are drawn
_MOST_NAMES = 30  # names in a column


def _image(figure: Figure) -> npt.NDArray[np.uint8]:
    """The picture (height, width, 3)."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def draw_training(learner: Learner, row: int) -> npt.NDArray[np.uint8]:
    """Draws one replica's batch losses relative to the first, its weights as shares, and its improvable gaps.

    Args:
        learner: The trainings.
        row: The replica to draw; it may be at its very beginning.

    Returns:
        (height, width, 3) array. Values that are not finite leave a gap in their line.
    """
    figure = Figure(figsize=_SIZE, dpi=100)
    panels = figure.subplots(1, 3)
    figure.subplots_adjust(left=0.05, right=0.985, top=0.83, bottom=0.28, wspace=0.2)
    lines = [_draw(axes, *panel, learner.recipe.train_steps) for axes, panel in zip(panels, _panels(learner, row), strict=True)]
    for axes in panels[[0, 2]]:
        _scale(axes)
    panels[1].axhline(0, color="#cccccc", linewidth=0.8, zorder=0)
    label_lines(figure, lines[0], _names(learner, row), columns=_COLUMNS, place="lower center")
    figure.suptitle(_title(learner, row), fontsize=12, parse_math=False)
    return _image(figure)


def draw_structure(learner: BranchLearner, row: int) -> npt.NDArray[np.uint8]:
    """Draws one replica's tree of shared stages, the similarities of features from the frontier on, and its batch losses.

    Args:
        learner: The trainings.
        row: The replica to draw; it may be at its very beginning.

    Returns:
        (height, width, 3) array.
    """
    figure = Figure(figsize=_SIZE, dpi=100)
    shown = min(learner.stages, 3)
    panels = figure.subplots(1, 3 + shown, width_ratios=[1.5, 0.25, *[0.75] * shown, 1.5])  # the second: names of tasks
    figure.subplots_adjust(left=0.02, right=0.985, top=0.8, bottom=0.24, wspace=0.3)
    names = _names(learner, row)
    panels[1].set_axis_off()
    draw_tree(panels[0], learner.replicas.assign[row].cpu().numpy(), names)
    nobody = torch.zeros(learner.num_replicas, dtype=torch.bool)
    similar = learner.similarities(nobody)[row].nan_to_num().cpu().numpy()
    first = min(int(learner.depths()[row].min()), learner.stages - shown)
    for place, stage in enumerate(range(first, first + shown)):
        draw_similarity(panels[2 + place], similar[stage], names if place == 0 and len(names) <= _COLUMNS else None)
        panels[2 + place].set_title(f"CKA, stage {stage + 1} of {len(similar)}", fontsize=10)
    lines = _draw(panels[-1], *_panels(learner, row)[0], learner.recipe.train_steps)
    _scale(panels[-1])
    label_lines(figure, lines, names, columns=_COLUMNS, place="lower center")
    share = float(learner.share()[row])
    figure.suptitle(f"{_title(learner, row)}: {share:.0%} of the parameters of separate networks", fontsize=12, parse_math=False)
    return _image(figure)


def draw_grouping(learner: GroupLearner, row: int) -> npt.NDArray[np.uint8]:
    """Draws the data maps of a row's tasks at the end of the warm-up, in the colours of their groups so far, and the groups.

    Args:
        learner: The trainings; it has to know ``maps``.
        row: The row to draw.

    Returns:
        (height, width, 3) array. Of more than 12 tasks the maps of the first 12 are drawn.
    """
    figure = Figure(figsize=_SIZE, dpi=100)
    names, maps = _names(learner, row), learner.known[row].signals[MAPS].numpy()[:_MOST_MAPS]
    lines = 1 if len(maps) <= _MOST_MAPS // 3 else 2
    columns = -(-len(maps) // lines)
    widths = [*[1] * columns, 0.35, 1]
    grid = figure.add_gridspec(lines, columns + 2, left=0.03, right=0.985, top=0.84, bottom=0.1, hspace=0.3, width_ratios=widths)
    memberships = learner.memberships[row].numpy()
    for task, map_ in enumerate(maps):
        axes = figure.add_subplot(grid[task // columns, task % columns])
        placed = memberships[task].any()
        colour = TASK_COLOURS[int(memberships[task].argmax()) % len(TASK_COLOURS)] if placed else "#bbbbbb"
        draw_data_map(axes, map_, colour)
        axes.set_title(names[task], fontsize=8, parse_math=False)
    draw_memberships(figure.add_subplot(grid[:, -1]), memberships, names if len(names) <= _MOST_NAMES else None)
    some = f" of {len(maps)} of the {len(names)} tasks" if len(maps) < len(names) else ""
    what = f"data maps{some} (confidence over variability) and groups"
    figure.suptitle(f"{_title(learner, row)}: {what}", fontsize=12, parse_math=False)
    return _image(figure)


def _panels(learner: Learner, row: int) -> list[tuple[str, Tensor]]:
    """Titles and values (steps, K)."""
    step = int(learner.replicas.step[row])
    losses, weights = (tensor[row, :step].double().cpu() for tensor in (learner.replicas.losses, learner.replicas.weights))
    shares = weights / weights.abs().sum(1, keepdim=True).clamp(min=SMALLEST_LOSS)
    return [
        ("batch loss / first batch loss", losses / losses[:1].clamp(min=SMALLEST_LOSS)),
        ("weight / sum of absolute weights", shares),
        ("improvable gap", _gaps(losses, int(learner.steps_per_epoch()[row]))),
    ]


def _gaps(losses: Tensor, epoch: int) -> Tensor:
    """Gaps (steps, K) of the mean of the last batches, with the base that was known at each step."""
    steps, num_tasks = losses.shape
    if steps == 0:
        return losses
    before = losses.new_full((_RECENT - 1, num_tasks), torch.nan)
    recent = torch.cat([before, losses]).unfold(0, _RECENT, 1).nanmean(2)  # (steps, K)
    known = torch.arange(1, steps + 1)[:, None] >= 2 * epoch
    return improvable_gap(recent, torch.where(known, losses[epoch : 2 * epoch].mean(0), losses[0]))


def _draw(axes: Axes, title: str, values: Tensor, train_steps: int) -> list[Line2D]:
    marker = "o" if len(values) == 1 else None  # a line through one point is invisible
    shown = torch.where(torch.isfinite(values), values, torch.nan).numpy()
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("optimiser step", fontsize=9)
    axes.set_xlim(0, train_steps)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return [
        axes.plot(column, linewidth=1.2, marker=marker, markersize=3, **line_style(TASK_COLOURS, task))[0]  # type: ignore[arg-type]
        for task, column in enumerate(shown.T)
    ]


def _scale(axes: Axes) -> None:
    """Limits that hold all positive values, and 1 in any case."""
    values = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in axes.lines])
    values = values[np.isfinite(values) & (values > 0)]
    log_axis(axes, min(0.5, values.min(initial=1) / 1.2), max(1.2, values.max(initial=1) * 1.2))


def _names(learner: Learner, row: int) -> list[str]:
    names = [learner.problem.tasks[task].name for task in learner.replicas.tasks[row].tolist()]
    return [short(name) for name in names]


def _title(learner: Learner, row: int) -> str:
    instance = learner.instances[row]
    id = "-" if instance is None else instance.id
    return f"{learner.problem.name}, instance {id}, step {int(learner.replicas.step[row])} of {learner.recipe.train_steps}"

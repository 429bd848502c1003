"""Images of one row that ``render`` returns: losses, weights and gaps; structure and similarities; groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from mtl_gym.decisions.base import TrainingDecision
from mtl_gym.decisions.grouping.decision import TaskGroups
from mtl_gym.decisions.grouping.trainings import GroupTrainings
from mtl_gym.decisions.grouping.warm_up import MAPS
from mtl_gym.decisions.merging.decision import Merging
from mtl_gym.envs.looks import FAINT, RULE, TASK_COLOURS, task_looks
from mtl_gym.envs.panels import draw_data_map, draw_memberships, draw_similarity, draw_tree, label_lines, log_axis, short
from mtl_gym.training.formulas import SMALLEST_LOSS, improvable_gap
from mtl_gym.training.ledger import Ledger
from mtl_gym.training.loss_history import second_epoch_mean
from mtl_gym.training.measurements import steps_per_epoch
from mtl_gym.training.trainer import Trainer

_RECENT = 10  # batches over which a gap is averaged
_SIZE = (12.0, 4.0)  # inches, at 100 dots each
_COLUMNS = 6  # tasks per row of the legend
_MOST_LABELLED = 24  # tasks in the legend
_MOST_MAPS = 12  # number of data maps drawn
_MOST_NAMES = 30  # names in a column


def _image(figure: Figure, title: str) -> npt.NDArray[np.uint8]:
    figure.suptitle(title, fontsize=12, parse_math=False)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def draw_training(decision: TrainingDecision, row: int) -> npt.NDArray[np.uint8]:
    """Draws a row's batch losses relative to the first, its weights over their absolute sum, and its improvable gaps.

    Returns a (height, width, 3) array, also before the first step. Non-finite values leave a gap in their line.
    """
    figure = Figure(figsize=_SIZE, dpi=100)
    panels = figure.subplots(1, 3)
    figure.subplots_adjust(left=0.05, right=0.985, top=0.83, bottom=0.28, wspace=0.2)
    trainer, looks = decision.trainer, _looks(decision.trainer.ledger, row)
    lines = [
        _draw(axes, *panel, looks, trainer.recipe.train_steps) for axes, panel in zip(panels, _panels(trainer, row), strict=True)
    ]
    for axes in panels[[0, 2]]:
        _scale(axes)
    _scale_fractions(panels[1])
    _legend(figure, lines[0], trainer.ledger, row)
    return _image(figure, _title(trainer.ledger, row))


def draw_structure(decision: Merging, row: int) -> npt.NDArray[np.uint8]:
    """Draws a row's tree of shared stages, its feature similarities from the frontier on, and its batch losses.

    Returns a (height, width, 3) array, also before the first step.
    """
    trainer, stages = decision.trainer, decision.model.num_stages
    figure = Figure(figsize=_SIZE, dpi=100)
    shown = min(stages, 3)
    panels = figure.subplots(1, 3 + shown, width_ratios=[1.5, 0.25, *[0.75] * shown, 1.5])  # the second: task names
    figure.subplots_adjust(left=0.02, right=0.985, top=0.8, bottom=0.24, wspace=0.3)
    names, looks = trainer.ledger.task_names(row), _looks(trainer.ledger, row)
    panels[1].set_axis_off()
    draw_tree(panels[0], decision.assign[row].cpu().numpy(), names, dict(zip(names, looks, strict=True)))
    similar = decision.similarities()[row].nan_to_num().cpu().numpy()
    first = min(int(decision.depths()[row].min()), stages - shown)
    for place, stage in enumerate(range(first, first + shown)):
        draw_similarity(panels[2 + place], similar[stage], names if place == 0 and len(names) <= _COLUMNS else None)
        panels[2 + place].set_title(f"CKA, stage {stage + 1} of {len(similar)}", fontsize=10)
    lines = _draw(panels[-1], *_panels(trainer, row)[0], looks, trainer.recipe.train_steps)
    _scale(panels[-1])
    _legend(figure, lines, trainer.ledger, row)
    used = f"{float(decision.used()[row]):.0%} of the parameters of separate networks"
    return _image(figure, f"{_title(trainer.ledger, row)}: {used}")


def draw_grouping(decision: TaskGroups, row: int) -> npt.NDArray[np.uint8]:
    """Draws the data maps of a row's first 12 tasks at the end of the warm-up, coloured by group, and the groups.

    Returns a (height, width, 3) array.
    """
    trainings = decision.trainings
    figure = Figure(figsize=_SIZE, dpi=100)
    names, maps = trainings.ledger.task_names(row), _maps(trainings, row)
    lines = 1 if len(maps) <= _MOST_MAPS // 3 else 2
    columns = -(-len(maps) // lines)
    widths = [*[1] * columns, 0.45, 1]
    grid = figure.add_gridspec(lines, columns + 2, left=0.055, right=0.985, top=0.84, bottom=0.15, hspace=0.3, width_ratios=widths)
    memberships = trainings.memberships[row].numpy()
    for task, map_ in enumerate(maps):
        axes = figure.add_subplot(grid[task // columns, task % columns])
        group = int(memberships[task].argmax()) if memberships[task].any() else None
        draw_data_map(axes, map_, RULE if group is None else TASK_COLOURS[group % len(TASK_COLOURS)])
        axes.set_title(short(names[task]) + ("" if group is None else f", group {group + 1}"), fontsize=8, parse_math=False)
        axes.tick_params(labelleft=task % columns == 0, labelbottom=task + columns >= len(maps))
        axes.grid(color=FAINT, linewidth=0.6)
        axes.set_axisbelow(True)
    figure.text(0.012, 0.5, "confidence", rotation=90, va="center", fontsize=9)
    figure.text(0.055, 0.03, "variability of the label's probability; dots are training samples, colours groups", fontsize=9)
    draw_memberships(figure.add_subplot(grid[:, -1]), memberships, names if len(names) <= _MOST_NAMES else None)
    some = f" of {len(maps)} of the {len(names)} tasks" if len(maps) < len(names) else ""
    return _image(figure, f"{_title(trainings.ledger, row)}: data maps{some} and groups")


def _maps(trainings: GroupTrainings, row: int) -> npt.NDArray[np.float32]:
    """Data maps (tasks, n, 2) of the first tasks. Warm-ups discard them, so the first image repeats the warm-up of all rows."""
    ids = [instance.id for instance in trainings.ledger.instances if instance]
    known = trainings.groups.known(ids, (*trainings.needs, MAPS))
    return known[row].signals[MAPS].numpy()[:_MOST_MAPS]


def _panels(trainer: Trainer, row: int) -> list[tuple[str, Tensor]]:
    """Titles and values (steps, K)."""
    step = int(trainer.ledger.step[row])
    losses, weights = (tensor[row, :step].double().cpu() for tensor in (trainer.losses.history, trainer.weights))
    fractions = weights / weights.abs().sum(1, keepdim=True).clamp(min=SMALLEST_LOSS)
    return [
        ("batch loss / first batch loss", losses / losses[:1].clamp(min=SMALLEST_LOSS)),
        ("weight / sum of absolute weights", fractions),
        ("improvable gap", _gaps(losses, steps_per_epoch(trainer)[[row]].cpu())),
    ]


def _gaps(losses: Tensor, epoch: Tensor) -> Tensor:
    """Gaps (steps, K) of the mean over recent batches, with the base known at each step."""
    steps, num_tasks = losses.shape
    if steps == 0:
        return losses
    before = losses.new_full((_RECENT - 1, num_tasks), torch.nan)
    recent = torch.cat([before, losses]).unfold(0, _RECENT, 1).nanmean(2)  # (steps, K)
    latest = second_epoch_mean(losses[:1], losses[None], torch.full_like(epoch, steps), epoch, steps)
    known = torch.arange(1, steps + 1)[:, None] >= 2 * epoch
    return improvable_gap(recent, torch.where(known, latest, losses[:1]))


def _draw(axes: Axes, title: str, values: Tensor, looks: Sequence[Mapping[str, Any]], train_steps: int) -> list[Line2D]:
    marker = "o" if len(values) == 1 else None  # a line through one point is invisible
    shown = torch.where(torch.isfinite(values), values, torch.nan).numpy()
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("optimiser step", fontsize=9)
    axes.set_xlim(0, train_steps)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return [axes.plot(column, marker=marker, markersize=3, **look)[0] for column, look in zip(shown.T, looks, strict=True)]


def _scale(axes: Axes) -> None:
    """Sets log limits that contain all positive values and 1."""
    values = _heights(axes)
    values = values[values > 0]
    log_axis(axes, min(0.5, values.min(initial=1) / 1.2), max(1.2, values.max(initial=1) * 1.2))


def _scale_fractions(axes: Axes) -> None:
    """Sets limits that contain 0 and all values: from 0 to 1 as long as there are none."""
    values = _heights(axes)
    axes.set_ylim(1.1 * min(values.min(initial=0), 0), 1.1 * values.max(initial=0) if values.any() else 1.0)
    axes.axhline(0, color=RULE, linewidth=0.8, zorder=0)


def _heights(axes: Axes) -> npt.NDArray[np.float64]:
    """The finite values of all lines."""
    values = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in axes.lines])
    return values[np.isfinite(values)]


def _looks(ledger: Ledger, row: int) -> list[dict[str, Any]]:
    """The look of each task's line (K): a task has the same one in all instances; the main task's line is thick."""
    looks = task_looks(task.name for task in ledger.problem.tasks)
    main_task = ledger.recipe.main_task
    return [looks[name] | {"linewidth": 2.4 if name == main_task else 1.2} for name in ledger.task_names(row)]


def _legend(figure: Figure, lines: list[Line2D], ledger: Ledger, row: int) -> None:
    """Names the tasks below, the main one marked; of too many, says the number."""
    names = ledger.task_names(row)
    if len(names) > _MOST_LABELLED:
        figure.text(0.5, 0.05, f"{len(names)} tasks", ha="center", fontsize=9)
        return
    labels = [short(name) + (" (main task)" if name == ledger.recipe.main_task else "") for name in names]
    label_lines(figure, lines, labels, columns=_COLUMNS, place="lower center")


def _title(ledger: Ledger, row: int) -> str:
    instance = ledger.instances[row]
    id = "-" if instance is None else instance.id
    return f"{ledger.problem.name}, instance {id}, step {int(ledger.step[row])} of {ledger.recipe.train_steps}"

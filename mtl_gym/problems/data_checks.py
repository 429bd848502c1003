"""Whether a problem's data suit its tasks; every error names the split and what is wrong there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mtl_gym.checks import should
from mtl_gym.problems.inputs import parts, shapes
from mtl_gym.problems.losses import AVERAGED, labelled
from mtl_gym.problems.metrics import METRICS, is_own
from mtl_gym.problems.pools import Pool
from mtl_gym.problems.splits import SPLITS, Split
from mtl_gym.problems.tasks import Task

_METRIC_SPLITS = ("reward", "test")
_MOST = 20  # samples or labels in an error
_OUT_OF_PROPORTION = 1e6
_LARGEST = 1e18  # of a label: the square of one that is a hundred times as large is beyond float32
_FEW = 5  # samples on which functions are tried
_LABELS = {
    "binary": "0 or 1, or NaN where missing",
    "classes": "class indices from 0 to {last}",
    "real": f"finite, or NaN where missing, and at most {_LARGEST:g} in size",
}
"""The valid labels of each kind, for errors."""


def check_tasks(tasks: Sequence[Task], splits: Mapping[str, Split]) -> None:
    """Checks that there are tasks with names of their own, and all splits."""
    if not tasks:
        raise ValueError(should("tasks", "contain at least one task", tasks))
    if len({task.name for task in tasks}) < len(tasks):
        raise ValueError(should("tasks", "have different names", [task.name for task in tasks]))
    if set(splits) != set(SPLITS):
        raise ValueError(should("splits", f"be {', '.join(SPLITS)}", list(splits)))


def check_samples(tasks: Sequence[Task], samples: Mapping[str, Split]) -> None:
    """Checks the shapes of inputs and labels, and that inputs are finite; samples are by their names in errors."""
    channels, shape = sum(task.target_channels for task in tasks), shapes(next(iter(samples.values())).inputs)
    for name, split in samples.items():
        if len(split) == 0:
            raise ValueError(should(name, "contain at least one sample", len(split)))
        if len(split.targets) != len(split) or split.targets.shape[1] != channels:
            condition = f"have a shape that begins with {(len(split), channels)}"
            remedy = "" if split.targets.shape[1] == channels else _columns(tasks, split.widths)
            raise ValueError(should(f"{name}.targets", condition, tuple(split.targets.shape), remedy))
        if shapes(split.inputs) != shape:
            raise ValueError(should(f"{name}.inputs", f"have samples of shape {shape}, as in train", _shown(split)))
        if not any(own[0].numel() for own in parts(split.inputs)):
            raise ValueError(should(f"{name}.inputs", "have at least one number for each sample", _shown(split)))
        for own in parts(split.inputs):
            wrong = ~torch.isfinite(own).reshape(len(own), -1).all(1)
            if wrong.any():
                rows = wrong.nonzero()[:, 0].tolist()
                raise ValueError(should(f"{name}.inputs", "be finite; samples that are not", rows[:_MOST]))


def check_magnitudes(name: str, splits: Mapping[str, Split]) -> None:
    """Raises ValueError if inputs of a split are out of all proportion to those of *train*, as an outlier that was not cleaned."""
    here, there = (max(float(own.double().abs().max()) for own in parts(splits[own_name].inputs)) for own_name in (name, "train"))
    if here > _OUT_OF_PROPORTION * max(there, 1.0):
        condition = f"have the size of train's, which are at most {there:.3g}: metrics are not finite"
        raise ValueError(
            should(f"splits[{name!r}].inputs", condition, here, "Remove or clip outliers, and standardise by *train*.")
        )


def _columns(tasks: Sequence[Task], widths: Sequence[int]) -> str:
    """What to do where labels have other numbers of columns than tasks, by ``widths`` if there is one for each task."""
    expected = {task.name: task.target_channels for task in tasks}
    if len(widths) != len(tasks):
        shown = ", ".join(f"{name} {count}" for name, count in [*expected.items()][:_MOST])
        given = f"There are labels of {len(widths)} tasks. " if widths else ""
        return f"{given}Columns by task, side by side: {shown}; of several columns, Task(..., outputs=C) says how many."
    wrong = [(task, count) for task, count in zip(tasks, widths, strict=True) if task.target_channels != count]
    told = ", ".join(f"{task.name!r} has {count} columns instead of {task.target_channels}" for task, count in wrong[:_MOST])
    task, count = wrong[0]
    if task.objective.labels == "classes":
        return f"{told}. Give the indices of classes, one for each sample."
    return f"{told}. Say so in the task: Task({task.name!r}, ..., outputs={count})."


def _shown(split: Split) -> object:
    return tuple(split.inputs.shape) if isinstance(split.inputs, Tensor) else shapes(split.inputs)


def check_labels(tasks: Sequence[Task], columns: Sequence[slice], samples: Mapping[str, Split]) -> None:
    """Checks that labels are of the kinds of the tasks' losses, and vary where a metric divides by their deviation."""
    scored = [f"splits[{name!r}]" for name in _METRIC_SPLITS]
    for name, split in samples.items():
        for task, own in zip(tasks, columns, strict=True):
            condition, labels = f"for the task {task.name!r}", split.targets[:, own]
            known = labels[~torch.isnan(labels)]
            wrong = known[~_valid(task, known)]
            if len(wrong):
                allowed = _LABELS[task.objective.labels].format(last=task.outputs - 1)
                raise ValueError(should(f"{name}.targets", f"be {allowed}, {condition}", sorted(set(wrong.tolist()))[:_MOST]))
            varied = [metric for metric in task.metrics if METRICS[metric].varied]
            if name in scored and varied and len(known) and _constant(labels):
                condition += f", whose metric {varied[0]!r} divides by their deviation"
                raise ValueError(should(f"{name}.targets", f"vary {condition}", f"only {known[0].item():g}"))


def check_functions(tasks: Sequence[Task], columns: Sequence[slice], train: Split) -> None:
    """Calls losses and metrics of one's own on outputs of 0 and the first labels, and checks the shapes that they return."""
    for task, own in zip(tasks, columns, strict=True):
        targets = torch.nan_to_num(train.targets[:_FEW, own])
        outputs = targets.new_zeros(len(targets), task.outputs, *targets.shape[2:])
        if not isinstance(task.loss, str):
            shape = (len(targets), 1 if task.objective.joint else task.target_channels, *targets.shape[2:])
            found = task.objective.function(outputs, targets)
            if not isinstance(found, Tensor) or tuple(found.shape) != shape:
                condition = f"return values of the shape {shape} for the task {task.name!r}"
                raise ValueError(should("loss", condition, _shape(found), AVERAGED if _shape(found) == () else ""))
        for metric in filter(is_own, task.metrics):
            values = outputs[None].movedim(1, 2).flatten(2), targets.movedim(0, 1).flatten(1)  # (1, C, M) and (T, M)
            found = METRICS[metric].function(*values)
            if not isinstance(found, Tensor) or tuple(found.shape) != (1,):
                raise ValueError(should("metrics", f"return a value for each replica, (N,), as {metric!r} should", _shape(found)))


def _shape(found: object) -> object:
    return tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__


def check_pool(pool: Pool, tasks: Sequence[Task], columns: Sequence[slice], splits: Mapping[str, Split]) -> None:
    """Checks that a pool's split is the problem's, and that it scales no labels but numbers."""
    sizes = {name: len(split) for name, split in splits.items()}
    if (found := {name: len(rows) for name, rows in pool.rows.items()}) != sizes:
        raise ValueError(should("pool.rows", f"have the sizes of the splits, {sizes}", found))
    for task, own in zip(tasks, columns, strict=True):
        scaled = [column for column in pool.scaled_targets if own.start <= column < own.stop]
        if scaled and task.objective.labels != "real":
            condition = f"not contain columns of the task {task.name!r}, whose labels are no numbers"
            raise ValueError(should("pool.scaled_targets", condition, scaled))


def lacking(split: str, tasks: Sequence[Task], columns: Sequence[slice], targets: Tensor) -> dict[str, str]:
    """The tasks of which targets (n, T, *S) of a split's samples have no label, and the words for what is missing, by name.

    A label is one with which its loss has a value; on *reward* and *test*, where metrics are measured, one of all channels, and
    different ones where a metric divides by their deviation.
    """
    missing = {}
    for task, own in zip(tasks, columns, strict=True):
        scored = split in _METRIC_SPLITS
        joint = scored or task.objective.joint
        known = labelled(targets[:, own], joint=joint)
        several = " with all of its channels" if joint and task.target_channels > 1 else ""
        if not known.any():
            missing[task.name] = f"a label of the task {task.name!r}{several}"
        elif scored and any(METRICS[metric].varied for metric in task.metrics) and _constant(targets[known][:, own]):
            missing[task.name] = f"different labels of the task {task.name!r}{several}"
    return missing


def _valid(task: Task, labels: Tensor) -> Tensor:
    """Which of these labels, without NaN, suit a task's loss."""
    kind = task.objective.labels
    if kind == "binary":
        return (labels == 0) | (labels == 1)
    if kind == "classes":
        return (labels >= 0) & (labels < task.outputs) & (labels % 1 == 0)
    return labels.abs() <= _LARGEST


def _constant(labels: Tensor) -> bool:
    """Whether each channel of labels (n, T, *S) has at most one value, NaN apart."""
    channels = (channel[~channel.isnan()] for channel in labels.unbind(1))  # usually the first one tells
    return all(len(channel) == 0 or bool(channel.min() == channel.max()) for channel in channels)

"""Encodings: how new data become the inputs that a problem's network knows, and its outputs numbers and names again.

n is the number of samples, C the number of a task's output channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mtl_gym.checks import should, unknown
from mtl_gym.problems.inputs import tensor_of
from mtl_gym.problems.pools import Moments
from mtl_gym.problems.tasks import Task

if TYPE_CHECKING:
    from mtl_gym.problems.base import Problem

Numbers = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]


class Source(Protocol):
    """What reads raw data: :class:`~mtl_gym.problems.columns.Table` or :class:`~mtl_gym.problems.arrays.Arrays`."""

    @property
    def names(self) -> tuple[str, ...]:
        """What each input is; empty where inputs have no names."""

    def read(self, data: Any, /) -> Numbers:
        """Inputs (n, *shape) as finite float64, before anything is standardised."""


@dataclass(frozen=True, eq=False)
class Scale:
    """Mean and deviation of values (n, *shape) over *train*, each (*shape)."""

    mean: Numbers
    deviation: Numbers

    @classmethod
    def over(cls, known: Numbers) -> Scale:
        """The scale of values (n, *shape), NaN apart; what is constant there is only centred."""
        low, high = np.nanmin(known, 0), np.nanmax(known, 0)
        deviation = np.nanstd(known, 0)  # not quite 0 for some constants, whose mean is rounded
        constant = (low == high) | (deviation == 0)
        return cls(np.where(constant, low, np.nanmean(known, 0)), np.where(constant, 1, deviation))

    def standardised(self, values: Numbers) -> Numbers:
        """Values less their mean, over their deviation."""
        found: Numbers = (values - self.mean) / self.deviation
        return found

    def restored(self, values: Numbers) -> Numbers:
        """Standardised values in their own units."""
        found: Numbers = values * self.deviation + self.mean
        return found


@dataclass(frozen=True, eq=False)
class Encoding:
    """What :meth:`Problem.from_arrays` or :meth:`Problem.from_frame` has learnt from *train*; it can be pickled.

    Attributes:
        tasks: The problem's tasks.
        source: Reads raw data.
        features: Indices of a sample's first axis that are standardised.
        inputs: Their scale.
        labels: The scale of each task of numbers, by its name.
        moments: By which a pool then standardises samples, as float32: those of the problem's own *train*, or of the one that an
            instance has drawn; ``None`` without a pool.
    """

    tasks: tuple[Task, ...]
    source: Source
    features: tuple[int, ...]
    inputs: Scale
    labels: Mapping[str, Scale]
    moments: Moments | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """What each input is, such as ``"age"``, ``"age missing"``, ``"town=Ulm"``; empty where inputs have no names."""
        return self.source.names

    def standardised(self, values: Numbers) -> Numbers:
        """Inputs (n, *shape) by the scale of the problem's own *train*, in float64, since float32 would lose digits of dates."""
        values, chosen = values.copy(), [*self.features]
        values[:, chosen] = self.inputs.standardised(values[:, chosen])
        return values

    def encode(self, data: Any) -> Tensor:
        """See :meth:`Problem.encode`."""
        inputs = tensor_of("inputs", self.standardised(self.source.read(data)))
        inputs = inputs if self.moments is None else self.moments.normalised_inputs(inputs)
        if wrong := (~torch.isfinite(inputs)).flatten(1).any(1).nonzero()[:, 0].tolist():
            raise ValueError(should("data", "be finite when standardised; samples that are not", wrong[:20]))
        return inputs

    def decode(self, outputs: Any) -> dict[str, npt.NDArray[Any]]:
        """See :meth:`Problem.decode`."""
        tasks = {task.name: task for task in self.tasks}
        found = _by_task(outputs, self.tasks)
        return {name: self._decoded(tasks[name], _values(tasks[name], own)) for name, own in found.items()}

    def _decoded(self, task: Task, values: Tensor) -> npt.NDArray[Any]:
        """What outputs (n, C) of a task mean."""
        if task.objective.labels == "classes":
            classes = np.array(task.classes or range(task.outputs))
            return classes[values.argmax(1).numpy()]
        if task.objective.labels == "binary":
            columns: npt.NDArray[Any] = values.sigmoid().numpy()
        else:
            columns = self._restored(task.name, values)
        return columns[:, 0] if task.outputs == 1 else columns

    def _restored(self, name: str, values: Tensor) -> Numbers:
        if self.moments is not None:
            ends = dict(zip([task.name for task in self.tasks], accumulate(own.target_channels for own in self.tasks), strict=True))
            columns = slice(ends[name] - values.shape[1], ends[name])
            values = values * self.moments.target_deviation[columns] + self.moments.target_mean[columns]
        return self.labels[name].restored(values.numpy())


def _by_task(outputs: Any, tasks: Sequence[Task]) -> Mapping[str, Any]:
    """Outputs by task name: of some tasks, if they have names; otherwise of all, in their order or side by side."""
    names = [task.name for task in tasks]
    if isinstance(outputs, Tensor):
        widths = [task.outputs for task in tasks]
        if outputs.ndim != 2 or outputs.shape[1] != sum(widths):
            condition = f"have the shape (n, {sum(widths)}), the outputs of {', '.join(names)} side by side"
            raise ValueError(should("outputs", condition, tuple(outputs.shape)))
        outputs = outputs.split(widths, dim=1)
    if isinstance(outputs, Mapping):
        for name in outputs:
            if name not in names:
                raise ValueError(unknown("outputs", name, names))
        return outputs
    if not isinstance(outputs, (list, tuple)) or len(outputs) != len(names):
        received = f"a list of {len(outputs)}" if isinstance(outputs, (list, tuple)) else type(outputs).__name__
        raise TypeError(should("outputs", f"be what the module returns: tensors of {', '.join(names)}", received))
    return dict(zip(names, outputs, strict=True))


def _values(task: Task, found: Any) -> Tensor:
    """A task's outputs (n, C) as float64 on the CPU."""
    if not isinstance(found, Tensor):
        raise TypeError(should(f"outputs[{task.name!r}]", "be a tensor", type(found).__name__))
    values = found.detach().to("cpu", torch.float64)
    values = values[:, None] if values.ndim == 1 and task.outputs == 1 else values
    if values.ndim != 2 or values.shape[1] != task.outputs:
        raise ValueError(should(f"outputs[{task.name!r}]", f"have the shape (n, {task.outputs})", tuple(found.shape)))
    return values


def encode(_problem: Problem, /, data: Any) -> Tensor:
    """Encodes new samples as the inputs of the problem's splits are: what was learnt from *train* is applied, nothing is learnt.

    A problem from a frame takes a frame: columns are found by their names, in any order, and others, such as labels, are not read.
    Where a number is missing, the median is filled in; a category that *train* did not have is ``other``, or 0 in all of its
    columns. A problem from arrays takes an array.

    It standardises by the problem's own *train*. A network whose instance drew its own split (axis ``split``) saw other means and
    deviations: :meth:`mtl_gym.Fit.predict` applies those.

    Args:
        data: A frame with at least the columns that were inputs, of the same kinds; or an array (n, *shape) of finite numbers.

    Returns:
        Inputs (n, *shape), float32 on the CPU, as the module gets them.

    Raises:
        TypeError: If it is no frame, or a column is of another kind than in *train*; the error names it.
        ValueError: If columns or rows are lacking, samples have another shape or are infinite, or the problem is neither from
            arrays nor from a frame and so does not know how its splits were made.

    Example:
        >>> import pandas as pd, mtl_gym
        >>> columns = {"size": range(200), "town": ["Bonn", "Ulm"] * 100, "rent": range(0, 600, 3)}
        >>> problem = mtl_gym.Problem.from_frame(pd.DataFrame(columns), ["rent"])
        >>> problem.encoding.names
        ('size', 'town=Bonn', 'town=Ulm')
        >>> problem.encode(pd.DataFrame({"town": ["Ulm", "Kiel"], "size": [100, None]}))[:, 1:]
        tensor([[0., 1.],
                [0., 0.]])
    """
    return _known(_problem).encode(data)


def decode(_problem: Problem, /, outputs: Any) -> dict[str, npt.NDArray[Any]]:
    """Says what a module's outputs mean, in the labels' own units and names; the inverse of what was done to labels.

    | task | by its name |
    |---|---|
    | regression | numbers in the labels' own unit, (n,), or (n, C) of several columns |
    | classes | the most probable class of each sample, (n,): its name (``Task.classes``), or its index where it has none |
    | binary | the probability of the second of ``Task.classes`` (of True, of 1), (n,), or (n, C) of several columns |

    Probabilities are those that the network was trained for, not calibrated ones; of classes, they are
    ``outputs[name].softmax(1)``.

    Args:
        outputs: What the module returns: a mapping of tensors by task (of all, or only some), a list in the order of the tasks, or
            one tensor (n, O) of all of them side by side.

    Raises:
        TypeError: If it is none of these.
        ValueError: If a task is unknown or its outputs have another shape, or the problem is neither from arrays nor from a frame.

    Example:
        >>> import numpy as np, torch, mtl_gym
        >>> x = np.random.default_rng(0).normal(size=(400, 5))
        >>> kind = np.array(["cat", "dog", "owl"])[x.argmax(1) // 2]
        >>> problem = mtl_gym.Problem.from_arrays(x, {"kind": kind, "big": x[:, 0] > 0})
        >>> problem.decode({"kind": torch.tensor([[0.1, 2.0, 0.3]]), "big": torch.zeros(1, 1)})
        {'kind': array(['dog'], dtype='<U3'), 'big': array([0.5])}
    """
    return _known(_problem).decode(outputs)


def _known(problem: Problem) -> Encoding:
    if problem.encoding is None:
        condition = "be made by Problem.from_arrays or Problem.from_frame, which learn how to encode"
        raise ValueError(should("problem", condition, problem, "Encode new data as you did those of its splits."))
    return problem.encoding

"""Problems: tasks, four disjoint splits and a network family."""

from __future__ import annotations

import functools
import hashlib
import pkgutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, TypeVar

import torch
from torch import Tensor

from mtl_gym.checks import choose, positive_int, printable, sequence, should
from mtl_gym.problems.losses import LOSSES, labelled
from mtl_gym.problems.metrics import METRICS
from mtl_gym.problems.pools import Pool as Pool
from mtl_gym.problems.rows import Defaults
from mtl_gym.problems.splits import SPLITS as SPLITS, Split as Split
from mtl_gym.problems.tables import table

Kind = TypeVar("Kind")
_METRIC_SPLITS = ("reward", "test")


@dataclass(frozen=True)
class Task:
    """One of a problem's K objectives.

    Attributes:
        name: Name in tables.
        loss: Row of ``LOSSES``.
        metrics: Rows of ``METRICS``; ``delta_m`` first averages over them.
        outputs: Output channels of its head.
    """

    name: str
    loss: str
    metrics: tuple[str, ...]
    outputs: int = 1

    def __post_init__(self) -> None:
        printable("name", self.name)
        choose("loss", self.loss, LOSSES)
        positive_int("outputs", self.outputs)
        if isinstance(self.metrics, str) or not self.metrics:
            raise ValueError(should("metrics", "be a tuple with at least one name", self.metrics))
        kind = LOSSES[self.loss].labels
        for metric in self.metrics:
            row = choose("metrics", metric, METRICS)
            if kind not in row.labels or (row.single and self.outputs > 1):
                condition = f"not include {metric!r} for {self.outputs} output{'s' * (self.outputs > 1)} with {self.loss!r}"
                raise ValueError(should("metrics", condition, self.metrics))

    @property
    def target_channels(self) -> int:
        """Number of columns of its labels."""
        return LOSSES[self.loss].target_channels(self.outputs)


class Problem:
    """Data in four splits, K tasks and a network family; immutable and shared by everything that uses it.

    Args:
        name: Its name; part of every instance's seed.
        tasks: The K tasks. Neighbouring tasks with the same loss are computed together, which is faster.
        splits: ``train``, ``meta``, ``reward`` and ``test``: disjoint samples, which is not checked.
        network: Row of ``mtl_gym.models.NETWORKS``, or a function that takes the problem and ``hidden_sizes`` and returns a
            :class:`~mtl_gym.models.base.Model`.
        defaults: An environment's defaults for this problem.
        version: To be increased whenever data, tasks or splits change.
        pool: The samples from which instances may draw their own splits; ``splits`` are then ``pool.splits(pool.rows)``.
            ``None`` if the four splits are fixed.

    Raises:
        TypeError: If an argument is of another type.
        ValueError: If there are no tasks, a split is missing or empty, inputs or labels are infinite, labels do not match the tasks
            or their metrics, the pool does not match the splits, or the network is unknown.
    """

    def __init__(
        self,
        name: str,
        tasks: Sequence[Task],
        splits: Mapping[str, Split],
        *,
        network: str | Callable[..., Any] = "mlp",
        defaults: Defaults | None = None,
        version: int = 0,
        pool: Pool | None = None,
    ) -> None:
        self.name = printable("name", name)
        self.tasks = tuple(_instance("tasks", task, Task) for task in sequence("tasks", tasks))
        if not isinstance(splits, Mapping):
            raise TypeError(should("splits", "be a mapping from names to splits", splits))
        self.splits = {name: _on_cpu(name, split) for name, split in splits.items()}
        self.network = network if callable(network) else _known_network(network)
        self.defaults = Defaults() if defaults is None else _instance("defaults", defaults, Defaults)
        self.version = positive_int("version", version, least=0)
        self.pool = None if pool is None else _instance("pool", pool, Pool)
        self.found_by: tuple[Callable[..., Problem], tuple[str, ...]] | None = None
        """A function and its arguments that load it; ``None`` if only its data identifies it."""
        self._check()
        self.output_slices = _slices([task.outputs for task in self.tasks])
        self.target_slices = _slices([task.target_channels for task in self.tasks])
        self._check_labels()
        if pool is not None:
            self._check_pool(pool)
        self.complete = not any(bool(torch.isnan(split.targets).any()) for split in self._splits_and_pool(SPLITS[:3]))
        """Whether the samples on which losses are computed, in any split that an instance may draw, have all labels."""

    def _check(self) -> None:
        if not self.tasks:
            raise ValueError(should("tasks", "contain at least one task", self.tasks))
        if len({task.name for task in self.tasks}) < len(self.tasks):
            raise ValueError(should("tasks", "have different names", [task.name for task in self.tasks]))
        if set(self.splits) != set(SPLITS):
            raise ValueError(should("splits", f"be {', '.join(SPLITS)}", list(self.splits)))
        channels = sum(task.target_channels for task in self.tasks)
        for name, split in self._all_samples().items():
            if len(split) == 0:
                raise ValueError(should(name, "contain at least one sample", len(split)))
            if len(split.targets) != len(split) or split.targets.shape[1] != channels:
                condition = f"have a shape that begins with {(len(split), channels)}"
                raise ValueError(should(f"{name}.targets", condition, tuple(split.targets.shape)))
            if split.inputs.shape[1:] != self.input_shape:
                condition = f"have samples of shape {self.input_shape}, as in train"
                raise ValueError(should(f"{name}.inputs", condition, tuple(split.inputs.shape)))
            if split.inputs[0].numel() == 0:
                raise ValueError(should(f"{name}.inputs", "have at least one number for each sample", tuple(split.inputs.shape)))
            wrong = ~torch.isfinite(split.inputs).flatten(1).all(1)
            if wrong.any():
                samples = wrong.nonzero()[:, 0].tolist()
                raise ValueError(should(f"{name}.inputs", "be finite; samples that are not", samples[:20]))

    def _check_labels(self) -> None:
        scored = [f"splits[{name!r}]" for name in _METRIC_SPLITS]
        for name, split in self._all_samples().items():
            for task, own in zip(self.tasks, self.target_slices, strict=True):
                condition, labels = f"for the task {task.name!r}", split.targets[:, own]
                known = labels[~torch.isnan(labels)]
                wrong = known[~_valid(task, known)]
                if len(wrong):
                    allowed = _LABELS[LOSSES[task.loss].labels].format(last=task.outputs - 1)
                    raise ValueError(should(f"{name}.targets", f"be {allowed}, {condition}", sorted(set(wrong.tolist()))[:20]))
                varied = [metric for metric in task.metrics if METRICS[metric].varied]
                if name in scored and varied and len(known) and _constant(labels):
                    condition += f", whose metric {varied[0]!r} divides by their deviation"
                    raise ValueError(should(f"{name}.targets", f"vary {condition}", f"only {known[0].item():g}"))

    def _check_pool(self, pool: Pool) -> None:
        sizes = {name: len(split) for name, split in self.splits.items()}
        if (found := {name: len(rows) for name, rows in pool.rows.items()}) != sizes:
            raise ValueError(should("pool.rows", f"have the sizes of the splits, {sizes}", found))
        for task, own in zip(self.tasks, self.target_slices, strict=True):
            scaled = [column for column in pool.scaled_targets if own.start <= column < own.stop]
            if scaled and LOSSES[task.loss].labels != "real":
                condition = f"not contain columns of the task {task.name!r}, whose labels are no numbers"
                raise ValueError(should("pool.scaled_targets", condition, scaled))

    def _all_samples(self) -> dict[str, Split]:
        """The splits and the pool's samples, by their names in errors."""
        pool = {} if self.pool is None else {"pool.samples": self.pool.samples}
        return {f"splits[{name!r}]": split for name, split in self.splits.items()} | pool

    def _splits_and_pool(self, names: Sequence[str]) -> list[Split]:
        return [self.splits[name] for name in names] + ([] if self.pool is None else [self.pool.samples])

    def check_labelled(self, split: str, tasks: Collection[str]) -> None:
        """Raises a ValueError if a split has no label of one of these tasks; see :meth:`lacking`."""
        for name, label in self.lacking(split, self.splits[split].targets).items():
            if name in tasks:
                raise ValueError(should(_targets(split), f"contain {label}", "NaN"))

    def lacking(self, split: str, targets: Tensor) -> dict[str, str]:
        """The tasks of which targets (n, T, *S) of a split's samples have no label, and the words for what is missing, by name.

        A label is one with which its loss has a value; on *reward* and *test*, where metrics are measured, one of all channels, and
        different ones where a metric divides by their deviation.
        """
        missing = {}
        for task, own in zip(self.tasks, self.target_slices, strict=True):
            scored = split in _METRIC_SPLITS
            joint = scored or LOSSES[task.loss].joint
            known = labelled(targets[:, own], joint=joint)
            several = " with all of its channels" if joint and task.target_channels > 1 else ""
            if not known.any():
                missing[task.name] = f"a label of the task {task.name!r}{several}"
            elif scored and any(METRICS[metric].varied for metric in task.metrics) and _constant(targets[known][:, own]):
                missing[task.name] = f"different labels of the task {task.name!r}{several}"
        return missing

    @functools.cached_property
    def identity(self) -> list[str | int]:
        """Identifies it: name and version, and for a problem that is not in the table also a hash of its data."""
        if self.address is not None and ":" not in self.address:
            return [self.name, self.version]
        digest = hashlib.sha256(repr((self.tasks, self.network_name)).encode())
        for split in self._splits_and_pool(SPLITS):
            for tensor in (split.inputs, split.targets):
                digest.update(repr((tuple(tensor.shape), tensor.dtype)).encode())
                digest.update(tensor.contiguous().numpy().tobytes())
        if self.pool is not None:
            digest.update(repr(self.pool.division).encode())
        return [self.name, self.version, digest.hexdigest()]

    @property
    def address(self) -> str | None:
        """The text by which :func:`mtl_gym.load_problem` finds it: a name or ``file.py:function``; ``None`` if it cannot."""
        return self.found_by[1][0] if self.found_by else None

    @property
    def network_name(self) -> str:
        """The row of ``NETWORKS``, or the module and name of its function."""
        factory = self.network.func if isinstance(self.network, functools.partial) else self.network
        return (
            factory
            if isinstance(factory, str)
            else f"{factory.__module__}:{getattr(factory, '__qualname__', type(factory).__name__)}"
        )

    @property
    def num_tasks(self) -> int:
        """K."""
        return len(self.tasks)

    @property
    def outputs(self) -> int:
        """Output channels of all heads together."""
        return sum(task.outputs for task in self.tasks)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return tuple(self.splits["train"].inputs.shape[1:])

    def __deepcopy__(self, memo: dict[int, Any]) -> Problem:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        make = functools.partial(Problem, network=self.network, defaults=self.defaults, version=self.version, pool=self.pool)
        return self.found_by or (make, (self.name, self.tasks, self.splits))

    def __repr__(self) -> str:
        return f"Problem({self.name!r}, tasks={[task.name for task in self.tasks]})"

    def _repr_html_(self) -> str:
        return table(self)


_LABELS = {
    "binary": "0 or 1, or NaN where missing",
    "classes": "class indices from 0 to {last}",
    "real": "finite, or NaN where missing",
}
"""The valid labels of each kind, for errors."""


def _valid(task: Task, labels: Tensor) -> Tensor:
    """Which of these labels, without NaN, suit a task's loss."""
    kind = LOSSES[task.loss].labels
    if kind == "binary":
        return (labels == 0) | (labels == 1)
    if kind == "classes":
        return (labels >= 0) & (labels < task.outputs) & (labels % 1 == 0)
    return torch.isfinite(labels)


def _known_network(name: str) -> str:
    """The name, if it is a row of ``NETWORKS``, whose package knows this one."""
    choose("network", name, pkgutil.resolve_name("mtl_gym.models:NETWORKS"))
    return name


def _on_cpu(name: str, split: Split) -> Split:
    return _instance(f"splits[{name!r}]", split, Split).to(torch.device("cpu"))


def _instance(name: str, value: Any, kind: type[Kind]) -> Kind:
    if not isinstance(value, kind):
        raise TypeError(should(name, f"be a {kind.__name__}", type(value).__name__))
    return value


def _constant(labels: Tensor) -> bool:
    """Whether each channel of labels (n, T, *S) has at most one value, NaN apart."""
    channels = (channel[~channel.isnan()] for channel in labels.unbind(1))  # usually the first one tells
    return all(len(channel) == 0 or bool(channel.min() == channel.max()) for channel in channels)


def _targets(split: str) -> str:
    return f"splits[{split!r}].targets"


def _slices(widths: Sequence[int]) -> tuple[slice, ...]:
    ends = list(accumulate(widths))
    return tuple(slice(end - width, end) for end, width in zip(ends, widths, strict=True))

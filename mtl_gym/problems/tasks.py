"""Tasks: the objectives of a problem, each with a loss and metrics, named or one's own."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor

from mtl_gym.checks import choose, positive_int, printable, should
from mtl_gym.identity import code_content
from mtl_gym.problems.losses import KINDS, LOSSES, Loss, by_samples
from mtl_gym.problems.metrics import METRICS, Metric, add_metric, is_own


@dataclass(frozen=True)
class Task:
    """One of a problem's K objectives.

    Attributes:
        name: Name in tables.
        loss: Row of ``LOSSES``; a :class:`mtl_gym.Loss`; or a function ``(outputs (R, C, *S), targets (R, C, *S))
            -> (R, *S)`` of real labels, with a value of at least 0 for each of R samples (or pixels). Values whose labels are
            missing do not count; the function sees 0 in their place.
        metrics: Rows of ``METRICS`` or :class:`mtl_gym.Metric` objects, which then can be called by their names;
            ``delta_m`` first averages over them.
        outputs: Output channels of its head, C.
        classes: What its class indices stand for, in their order, such as ``("cat", "dog")``; empty: nothing but themselves.

    Raises:
        TypeError: If ``loss`` is neither a name nor callable, or a metric is a function, which does not say what is better.
        ValueError: If a name is unknown, there are no metrics, or one does not suit the labels.
    """

    name: str
    loss: str | Loss | Callable[[Tensor, Tensor], Tensor]
    metrics: tuple[str, ...]
    outputs: int = 1
    classes: tuple[object, ...] = ()

    def __post_init__(self) -> None:
        if printable("name", self.name).startswith("_"):
            condition = "not begin with an underscore, which marks masks in infos"
            raise ValueError(should("name", condition, self.name, "Rename the task."))
        if not isinstance(self.loss, Loss) and not callable(self.loss):
            choose("loss", self.loss, LOSSES)
        positive_int("outputs", self.outputs)
        if isinstance(self.metrics, (str, Metric)) or not self.metrics:
            raise ValueError(should("metrics", "be a tuple with at least one name", self.metrics))
        object.__setattr__(self, "metrics", tuple(_named(metric) for metric in self.metrics))
        kind = self.objective.labels
        for metric in self.metrics:
            row = choose("metrics", metric, METRICS)
            if kind not in row.labels or (row.single and self.outputs > 1):
                condition = f"not include {metric!r} for {self.outputs} output{'s' * (self.outputs > 1)} with {self.loss!r}"
                raise ValueError(should("metrics", condition, self.metrics))

    def __reduce__(self) -> tuple[Any, ...]:
        metrics = tuple(METRICS[name] if is_own(name) else name for name in self.metrics)
        return Task, (self.name, self.loss, metrics, self.outputs, self.classes)

    def __repr__(self) -> str:
        shown = {own.name: getattr(self, own.name) for own in fields(self) if own.name != "classes" or self.classes}
        return f"Task({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    @property
    def loss_name(self) -> str:
        """The row of ``LOSSES``, or the name of its own function."""
        function = self.loss.function if isinstance(self.loss, Loss) else self.loss
        return function if isinstance(function, str) else getattr(function, "__name__", type(function).__name__)

    @property
    def objective(self) -> Loss:
        """Its loss with all that is known of it."""
        if isinstance(self.loss, Loss):
            return self.loss
        return LOSSES[self.loss] if isinstance(self.loss, str) else by_samples(self.loss)

    @property
    def classifies(self) -> bool:
        """Whether labels are classes or binary, so that ``exp(-loss)`` is the label's probability under a cross-entropy."""
        return KINDS[self.objective.labels] == "classification"

    @property
    def target_channels(self) -> int:
        """Number of columns of its labels."""
        return self.objective.target_channels(self.outputs)

    @property
    def identity(self) -> str:
        """All that results depend on; raises a ValueError if a function of one's own cannot be described."""
        own = [METRICS[name] for name in self.metrics if is_own(name)]
        if isinstance(self.loss, str) and not own:
            return repr(self)
        try:
            described = code_content([self.loss if isinstance(self.loss, str) else vars(self.objective), *map(vars, own)])
        except (TypeError, RecursionError) as error:
            remedy = "Let it refer to numbers, texts, arrays, functions and classes."
            raise ValueError(
                should("loss", f"and metrics be functions that can be identified: {error}", self.loss, remedy)
            ) from error
        return json.dumps([self.name, described, self.metrics, self.outputs, *map(str, self.classes)])


def _named(metric: Any) -> str:
    """The name of a metric, under which it is known from now on."""
    if isinstance(metric, Metric):
        return add_metric(metric)
    if callable(metric):
        remedy = "Wrap it: mtl_gym.Metric(function, higher_is_better=True, floor=0.1)."
        raise TypeError(should("metrics", "say whether higher is better, which a function does not", metric, remedy))
    return str(metric) if isinstance(metric, str) else metric

"""Tasks: what a problem's losses, metrics and labels are."""

from __future__ import annotations

from dataclasses import dataclass, fields

from mtl_gym.checks import choose, positive_int, printable, should
from mtl_gym.problems.losses import LOSSES
from mtl_gym.problems.metrics import METRICS


@dataclass(frozen=True)
class Task:
    """One of a problem's K objectives.

    Attributes:
        name: Name in tables.
        loss: Row of ``LOSSES``.
        metrics: Rows of ``METRICS``; ``delta_m`` first averages over them.
        outputs: Output channels of its head.
        classes: What its class indices stand for, in their order, such as ``("cat", "dog")``; empty: nothing but themselves.
    """

    name: str
    loss: str
    metrics: tuple[str, ...]
    outputs: int = 1
    classes: tuple[object, ...] = ()

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

    def __repr__(self) -> str:
        shown = {own.name: getattr(self, own.name) for own in fields(self) if own.name != "classes" or self.classes}
        return f"Task({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    @property
    def target_channels(self) -> int:
        """Number of columns of its labels."""
        return LOSSES[self.loss].target_channels(self.outputs)

"""Measurements on training runs, by name, and their cost.

A row of a table names what it needs; a :class:`Probe` measures it once per decision, and the environment charges its cost.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from mtl_gym.training.loss_history import LossHistory

UPCOMING, AFTER, META, REWARD, GRAMIAN = "upcoming", "after", "meta", "reward", "gramian"
GAINS, SCORE, LR, EPOCH, LAST_WEIGHTS = "gains", "score", "lr", "epoch", "last_weights"
INITIAL_LR, PRESENT, QUALITY = "initial_lr", "present", "quality"
"""Names available for all training runs; see :func:`mtl_gym.training.measurements.training_probes`."""
BASE = "base"
"""The mean loss of the second epoch, recorded only if it is needed."""


class Reading(NamedTuple):
    """Measured values (N, ...) by name, and their cost in passes over a training batch: numbers, or one for each row."""

    values: dict[str, Tensor]
    forward: float | Tensor = 0.0
    backward: float | Tensor = 0.0


@dataclass(frozen=True)
class Probe:
    """A way of measuring.

    Attributes:
        names: What it can measure.
        measure: Called with the requested names; returns a :class:`Reading`, and neither changes training nor charges its cost.
        periodic: Names that are measured only every ``reward_every`` steps.
        final: Whether it is measured only at the end of an episode, one number (N,) for each name, and is 0 before.
    """

    names: tuple[str, ...]
    measure: Callable[[Collection[str]], Reading]
    periodic: tuple[str, ...] = ()
    final: bool = False


@dataclass(frozen=True)
class View:
    """What is known about N rows between two decisions.

    Attributes:
        now: Measured values (N, ...) by name.
        previous: The same before the last decision.
        history: The losses so far; ``None`` if training is not observed step by step.
        progress: (N,) completed fraction of the episode.
    """

    now: dict[str, Tensor]
    previous: dict[str, Tensor]
    history: LossHistory | None
    progress: Tensor

    def __repr__(self) -> str:
        return f"View({', '.join(f'{name} {tuple(value.shape)}' for name, value in self.now.items())})"

    def __getitem__(self, name: str) -> Tensor:
        """The measured value of that name.

        Raises:
            RuntimeError: If it was not measured.
        """
        if name not in self.now:
            raise RuntimeError(f"{name!r} was not measured: the row of the table that reads it should name it in `needs`")
        return self.now[name]

    @property
    def losses(self) -> LossHistory:
        """The losses so far.

        Raises:
            RuntimeError: If training is not observed step by step.
        """
        if self.history is None:
            raise RuntimeError("training is not observed step by step, so there is no history of losses")
        return self.history

    def where(self, rows: Tensor, other: Self) -> Self:
        """Takes ``rows`` (N,) bool from this view, and the others from ``other``."""
        return pick(rows, self, other)

    def taken(self, rows: Tensor) -> Self:
        """The view whose rows are these ``rows`` (N,) of this one."""
        return taken(rows, self)


def taken(rows: Tensor, own: Any) -> Any:
    """These ``rows`` (N,) of tensors (N, ...), or of dicts or views of them."""
    if isinstance(own, dict):
        return {name: taken(rows, value) for name, value in own.items()}
    if isinstance(own, View):
        return View(**taken(rows, vars(own)))
    if isinstance(own, LossHistory):
        return LossHistory(*(taken(rows, value) for value in own))
    return own[rows] if isinstance(own, Tensor) else own


def pick(rows: Tensor, own: Any, other: Any) -> Any:
    """Takes ``rows`` (N,) bool from ``own`` and the others from ``other``: tensors (N, ...), or dicts or views of them."""
    if isinstance(own, dict):
        return {name: pick(rows, value, other[name]) for name, value in own.items()}
    if isinstance(own, View):
        return View(**pick(rows, vars(own), vars(other)))
    if isinstance(own, LossHistory):
        return LossHistory(*(pick(rows, value, known) for value, known in zip(own, other, strict=True)))
    return torch.where(rows.view(-1, *[1] * (own.ndim - 1)), own, other) if isinstance(own, Tensor) else own

"""What a training loop hands over: the losses of its tasks, checked before anything changes. K tasks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mtl_gym.checks import printable, sequence, should, unknown

Losses = Mapping[str, Tensor | float | None] | Sequence[Tensor | float | None] | Tensor
"""Losses by task, or in the order of the tasks; ``None`` or NaN where a batch has no label of a task."""
_ROUNDING = 1e-3
"""A loss of 0 may be rounded to a smaller number by less than this."""


@dataclass(frozen=True)
class Given:
    """Losses of one batch, as they were given."""

    parts: list[Tensor | None]  # (K) numbers with their graph
    together: Tensor | None  # (K,) the same, if none is missing
    values: Tensor  # (K,) float32, detached, on the losses' device; NaN where there is no label

    def known(self, tasks: Sequence[str]) -> Given:
        """The same without the losses that are NaN; raises ``ValueError`` if all are."""
        missing = self.values.isnan().tolist()
        if all(missing):
            numbers = dict(zip(tasks, self.values.tolist(), strict=True))
            raise ValueError(should("losses", "hold the loss of at least one task", numbers, "Skip a batch without labels."))
        return self.without_nan(missing)

    def without_nan(self, missing: Sequence[bool]) -> Given:
        """The same without the losses that are NaN, whose graph would make every gradient NaN."""
        if not any(missing):
            return self
        parts = [None if absent else part for absent, part in zip(missing, self.parts, strict=True)]
        return Given(parts, None, self.values)

    def with_graph(self, tasks: Sequence[str]) -> Given:
        """The same; raises ``ValueError`` if a loss has no graph."""
        for task, part in zip(tasks, self.parts, strict=True):
            if part is not None and not part.requires_grad:
                remedy = "Do not detach it, and leave torch.no_grad. For evaluation, call balancer.eval() first."
                remedy += f" If the batch has no label of {task!r}, give None." if float(part) == 0 else ""
                raise ValueError(should(f"losses[{task!r}]", "have a graph to differentiate", part, remedy))
        return self

    def weighted(self, weights: Tensor) -> Tensor:
        """The sum () of the losses that there are, with these weights (K,).

        (Not as a matrix product, which autocast would round to half precision.)
        """
        if self.together is not None:
            return (self.together.float() * weights.to(self.together.device)).sum()
        if not (known := [place for place, part in enumerate(self.parts) if part is not None]):  # in one of several processes
            return torch.zeros((), device=self.values.device)
        losses = torch.stack([part.reshape(()) for part in self.parts if part is not None]).float()
        return (losses * weights[known].to(losses.device)).sum()


def check_tasks(tasks: Sequence[str]) -> tuple[str, ...]:
    """The names of the tasks; raises ``TypeError`` or ``ValueError`` if there is none, or one stands there twice."""
    names = tuple(printable("tasks", task) for task in sequence("tasks", tasks))
    if not names or len(set(names)) < len(names):
        raise ValueError(should("tasks", "be at least one name, each once", list(names)))
    return names


def read(name: str, losses: Losses, tasks: Sequence[str]) -> Given:
    """Losses of the tasks, in their order.

    Raises:
        TypeError: If they are not numbers.
        ValueError: If there are not K, a task is unknown or missing, one is not a single number, or they are on different devices.
    """
    parts = _in_order(name, losses, tasks)
    tensors = [part for part in parts if part is not None]
    device = tensors[0].device if tensors else torch.device("cpu")
    for task, part in zip(tasks, parts, strict=True):
        if part is not None:
            _check(f"{name}[{task!r}]", part, device)
    if len(tensors) == len(parts):
        together = (
            losses if isinstance(losses, Tensor) else torch.stack([own if own.ndim == 0 else own.view(()) for own in tensors])
        )
        return Given(parts, together, together.detach().float())
    values = torch.full((len(tasks),), torch.nan, dtype=torch.float32, device=device)
    for place, part in enumerate(parts):
        if part is not None:
            values[place] = part.detach()
    return Given(parts, None, values)


def _in_order(name: str, losses: Losses, tasks: Sequence[str]) -> list[Tensor | None]:
    if isinstance(losses, Mapping):
        for task in losses:
            if task not in tasks:
                raise ValueError(unknown(name, task, tasks))
        if missing := [task for task in tasks if task not in losses]:
            raise ValueError(should(name, f"hold {', '.join(tasks)}", list(losses), f"Give None for {missing} without labels."))
        found: list[Any] = [losses[task] for task in tasks]
    elif isinstance(losses, Tensor):
        if losses.shape != (len(tasks),):
            raise ValueError(should(name, f"have one number for each of {list(tasks)}", f"a tensor {tuple(losses.shape)}"))
        found = list(losses.unbind(0))
    elif isinstance(losses, Sequence) and not isinstance(losses, (str, bytes)):
        if len(losses) != len(tasks):
            raise ValueError(should(name, f"have one number for each of {list(tasks)}", f"{len(losses)} numbers"))
        found = list(losses)
    else:
        raise TypeError(should(name, "be a mapping from tasks to losses, or a tensor (K,)", losses))
    return [_tensor(f"{name}[{task!r}]", part) for task, part in zip(tasks, found, strict=True)]


def _tensor(name: str, part: Any) -> Tensor | None:
    if part is None or isinstance(part, Tensor):
        return part
    if isinstance(part, bool) or not hasattr(part, "__float__"):
        raise TypeError(should(name, "be a loss: a tensor of one number, or None", part))
    return torch.tensor(float(part), dtype=torch.float32, device="cpu")


def _check(name: str, part: Tensor, device: torch.device) -> None:
    if part.numel() != 1:
        raise ValueError(should(name, "be a single number, such as a mean over the batch", f"a tensor {tuple(part.shape)}"))
    if not part.dtype.is_floating_point:
        raise TypeError(should(name, "be a floating-point number", part.dtype))
    if part.device != device:
        raise ValueError(should(name, f"be on the device of the other losses, {device}", part.device))


class SampleValues(NamedTuple):
    """The losses of a batch's samples."""

    values: Tensor  # (B, K) with their graph, 0 where there is no label
    labelled: Tensor  # (B, K) bool

    def means(self) -> Tensor:
        """Means (K,) over the labelled samples of each task; 0 where there is none."""
        return self.values.sum(0) / self.labelled.sum(0).clamp(min=1)


def sample_losses(name: str, losses: Any, tasks: Sequence[str], labelled: Tensor | None) -> SampleValues:
    """The losses of samples, (B, K) or (B,) by task, and where there is a label: where it is told, else where they are not NaN.

    Raises:
        TypeError, ValueError: If they are no tensors of these shapes, or one is negative or infinite.
    """
    if isinstance(losses, Mapping):
        for task in losses:
            if task not in tasks:
                raise ValueError(unknown(name, task, tasks))
        if missing := [task for task in tasks if task not in losses]:
            raise ValueError(should(name, f"hold {', '.join(tasks)}", list(losses), f"Give None for {missing} without labels."))
        columns = [losses[task] for task in tasks]
        for task, column in zip(tasks, columns, strict=True):
            if column is not None and not isinstance(column, Tensor):
                raise TypeError(should(f"{name}[{task!r}]", "be a tensor (B,), or None", column))
        known = [column for column in columns if isinstance(column, Tensor)]
        if not known or any(column.shape != known[0].shape or column.ndim != 1 for column in known):
            shapes = {task: tuple(column.shape) for task, column in zip(tasks, columns, strict=True) if isinstance(column, Tensor)}
            raise ValueError(should(name, "have the shape (B,) for every task", shapes))
        if any(column.device != known[0].device for column in known):
            raise ValueError(should(name, "be on one device", [str(column.device) for column in known]))
        nothing = torch.full_like(known[0], torch.nan, requires_grad=False)
        losses = torch.stack([column if isinstance(column, Tensor) else nothing for column in columns], dim=1)
    if not isinstance(losses, Tensor) or not losses.dtype.is_floating_point:
        raise TypeError(should(name, "be a tensor (B, K), or tensors (B,) by task", losses))
    if losses.ndim != 2 or losses.shape[1] != len(tasks) or not len(losses):
        raise ValueError(should(name, f"have the shape (B, {len(tasks)}) of {list(tasks)}", tuple(losses.shape)))
    known_labels = ~losses.detach().isnan() if labelled is None else torch.as_tensor(labelled).to(losses.device, torch.bool)
    if known_labels.shape != losses.shape:
        raise ValueError(should("labelled", f"have the shape {tuple(losses.shape)}", tuple(known_labels.shape)))
    values = losses.where(known_labels, torch.zeros((), dtype=losses.dtype, device=losses.device))
    if not (0 - _ROUNDING <= values.detach().min() and values.detach().max() < torch.inf):
        extremes = [values.detach().min().item(), values.detach().max().item()]
        raise ValueError(should(name, "be finite and at least 0 where there is a label", extremes))
    return SampleValues(values, known_labels)


class Seen(NamedTuple):
    """The losses of a batch as policies see them."""

    values: Tensor  # (K,) float32 on the CPU, NaN where there is no label
    complete: bool  # whether there is a label of every task


def check_values(name: str, values: Tensor, tasks: Sequence[str]) -> Seen:
    """Checks losses (K,); those that rounding made negative become 0.

    Raises:
        ValueError: If one is infinite or negative, or all are NaN.
    """
    values = values.cpu()
    numbers = values.tolist()
    known = [own for own in numbers if own == own]
    if not known:
        remedy = "Skip a batch without labels. If losses became NaN, lower the learning rate, or clip gradients; or look for NaN in"
        remedy += " the inputs."
        raise ValueError(should(name, "hold the loss of at least one task", dict(zip(tasks, numbers, strict=True)), remedy))
    if max(known) == math.inf:
        remedy = "The training has diverged: lower the learning rate or clip gradients."
        raise ValueError(should(f"{name}[{tasks[numbers.index(math.inf)]!r}]", "be finite", math.inf, remedy))
    if (least := min(known)) < -_ROUNDING:
        remedy = "Add a constant to it; its gradient stays the same."
        condition = "be at least 0, since policies use its logarithm"
        raise ValueError(should(f"{name}[{tasks[numbers.index(least)]!r}]", condition, least, remedy))
    return Seen(values if least >= 0 else values.clamp(min=0), len(known) == len(numbers))

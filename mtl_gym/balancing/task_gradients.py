"""The gradients of the tasks' losses in somebody's own network, and the ``.grad`` that their weighted sum leaves. K tasks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from mtl_gym.balancing import ranks
from mtl_gym.balancing.parameters import leaves, tensors
from mtl_gym.checks import should
from mtl_gym.training.formulas import averaged, inner_products


class TaskGradients:
    """The K gradients of a batch, summed over the parts of a batch that is accumulated.

    Args:
        rate, decay: How moving averages of them are kept; see :func:`mtl_gym.training.formulas.averaged`.
        group: Processes over which they are averaged.
    """

    def __init__(self, rate: float, decay: float, group: dist.ProcessGroup | None) -> None:
        self.rate, self.decay, self._group = rate, decay, group
        self.averages: Tensor | None = None  # (1, K, Q)
        self.table: Tensor | None = None  # (K, Q) of what the Gram matrix is of: shared parameters, or features
        self._heads: dict[Tensor, tuple[Tensor | None, ...]] = {}  # K gradients of each parameter of a head
        self._reached: frozenset[int] = frozenset()  # places of the points that a loss depends on

    @property
    def pending(self) -> dict[str, Any]:
        """What :meth:`add` has gathered so far; :meth:`restore` returns to it."""
        own = {name: value for name, value in vars(self).items() if name in ("averages", "table", "_reached")}
        return {**own, "_heads": dict(self._heads)}

    def restore(self, pending: Mapping[str, Any]) -> None:
        """Returns to what was pending."""
        vars(self).update(pending)

    def forget(self) -> None:
        """Forgets all gradients of the step, but not their averages."""
        self.table, self._reached = None, frozenset()
        self._heads.clear()

    def add(
        self,
        losses: Sequence[Tensor | None],
        points: Sequence[Tensor],
        heads: Sequence[Tensor],
        factor: float,
        *,
        keep: bool = False,
    ) -> None:
        """Adds the gradients of losses (K) at these points and heads, times a factor; K backward passes.

        ``keep``: whether the graph is kept for another pass.

        Raises:
            ValueError: If a loss has no graph, or no point has a gradient; nothing was added then.
        """
        found = _gradients(losses, [*points, *heads], keep=keep)
        of_points = [of_task[: len(points)] for of_task in found]
        labelled = any(loss is not None for loss in losses)  # not always, in one of several processes
        reached = _reached(of_points, points) if labelled else set()
        table = torch.empty(len(losses), sum(point.numel() for point in points), device=points[0].device)
        self._check(table)
        for row, of_task in zip(table, of_points, strict=True):
            _write(row, of_task, points)
        if factor != 1:
            table *= factor
        self.table = table if self.table is None else self.table + table
        self._reached |= reached
        for number, head in enumerate(heads, len(points)):
            before = self._heads.get(head, (None,) * len(losses))
            self._heads[head] = tuple(_sum(known, of_task[number]) for known, of_task in zip(before, found, strict=True))

    def _check(self, table: Tensor) -> None:
        """Raises ``ValueError`` if gradients are of other points than those of the batches before."""
        for name, known in {"this step": self.table, "the average": None if self.averages is None else self.averages[0]}.items():
            if known is not None and known.shape != table.shape:
                condition = f"hold the {known.shape[1]} numbers that the gradients of {name} are of"
                raise ValueError(should("shared", condition, f"{table.shape[1]} numbers", "Give the same ones at every step."))

    def checked(self, features: Tensor, accumulated: int) -> Tensor:
        """The features, if the gradients of the tasks can be taken of them; raises ``ValueError`` if not."""
        if not isinstance(features, Tensor) or not features.requires_grad:
            raise ValueError(should("features", "be the trunk's output, with its graph", features))
        kept = {"accumulate": accumulated > 1, "a policy that averages gradients": self.rate > 0}
        for reason, present in {**kept, "several processes": ranks.size(self._group) > 1}.items():
            if present:
                remedy = "They differ from batch to batch: give `shared` instead."
                raise ValueError(should("features", f"be left out with {reason}", tuple(features.shape), remedy))
        return features

    def heads(self, parts: Iterable[Tensor | None], points: Sequence[Tensor], heads: Iterable[Tensor] | None) -> list[Tensor]:
        """The parameters besides the points that get a gradient of their own: those given, or all leaves of the losses' graphs.

        Raises:
            TypeError: If they are no tensors.
            ValueError: If they are not given with several processes.
        """
        if heads is None and ranks.size(self._group) > 1:
            remedy = "A process without a label of a task does not reach its head."
            raise ValueError(should("heads", "be given with several processes", None, remedy))
        found = leaves(parts, points) if heads is None else [own for own in tensors("heads", heads) if own.requires_grad]
        known = {id(point) for point in points}
        return [own for own in found if id(own) not in known]

    @property
    def known(self) -> Tensor:
        """The summed gradients (K, Q)."""
        if self.table is None:
            raise RuntimeError("no gradients were added")
        return self.table

    def gramian(self, step: int, labelled: Tensor) -> Tensor:
        """The Gram matrix (1, K, K) of the gradients, or of their averages, which then replace them; ``labelled`` (K,) bool.

        Gradients are averaged over all processes first. A task without labels, or with a gradient that is not finite, keeps its
        moving average.
        """
        own = ranks.mean(self.known, self._group)[None]
        if self.rate:
            self.averages = torch.zeros_like(own) if self.averages is None else self.averages.to(own.device)
            norms = torch.linalg.vector_norm(own, dim=2, keepdim=True)
            counts = labelled.to(own.device)[None, :, None] & norms.isfinite()
            average = averaged(own, self.averages, torch.tensor([step], device=own.device), self.rate, self.decay)
            if bool(counts.all()):  # the usual case
                own = self.averages = average
            else:
                own = torch.where(counts, average, own)
                self.averages = torch.where(counts, own, self.averages)
            self.table = own[0]
        return inner_products(own).cpu()

    def weighted(self, points: Sequence[Tensor], weights: Tensor, factor: float) -> list[Tensor | None]:
        """The weighted sum (K weights) of the gradients at the points, times a factor, in their shapes and types.

        ``None`` at a point that no loss depends on, as ``backward`` leaves it, unless other processes may reach it.
        """
        reached = range(len(points)) if ranks.size(self._group) > 1 else self._reached
        total = (factor * weights.to(self.known.device)[None] @ self.known)[0]
        parts = total.split([own.numel() for own in points])
        found = [part.view_as(point).to(point.dtype) for part, point in zip(parts, points, strict=True)]
        return [own if place in reached else None for place, own in enumerate(found)]

    def fill_heads(self, weights: Tensor) -> None:
        """Adds the weighted gradients (K weights) to the ``.grad`` of all heads of the step, and forgets its gradients."""
        scales, several = weights.tolist(), ranks.size(self._group) > 1
        reached, totals = [], []
        for head, parts_of_tasks in self._heads.items():
            own = [scale * part for scale, part in zip(scales, parts_of_tasks, strict=True) if part is not None]
            if own or several:  # every process has to take part in the average
                reached.append(head)
                totals.append(sum(own[1:], start=own[0]) if own else torch.zeros_like(head))
        if several and totals:
            flat = ranks.mean(torch.cat([own.flatten() for own in totals]), self._group)
            parts = flat.split([own.numel() for own in totals])
            totals = [part.view_as(own) for part, own in zip(parts, totals, strict=True)]
        accumulate(reached, totals)
        self.forget()


def _gradients(losses: Sequence[Tensor | None], targets: Sequence[Tensor], *, keep: bool) -> list[Sequence[Tensor | None]]:
    """The gradients of the losses (K) at the targets; ``keep``: whether the last pass keeps the graph too."""
    present = [place for place, loss in enumerate(losses) if loss is not None]
    found: list[Sequence[Tensor | None]] = []
    for place, loss in enumerate(losses):
        if loss is None:
            found.append([None] * len(targets))
            continue
        if not loss.requires_grad:
            remedy = "Do not detach them, or use torch.no_grad."
            raise ValueError(should("losses", "have a graph to differentiate", loss, remedy))
        found.append(torch.autograd.grad(loss, targets, retain_graph=keep or place != present[-1], allow_unused=True))
    return found


def _reached(found: Sequence[Sequence[Tensor | None]], points: Sequence[Tensor]) -> set[int]:
    """The places of the points that have a gradient of some loss; raises ``ValueError`` if none has, or one is sparse."""
    reached = {place for of_task in found for place, own in enumerate(of_task) if own is not None}
    if not reached:
        shapes = [tuple(own.shape) for own in points]
        if not points[0].is_leaf:
            remedy = "Give the very tensor that the heads have read."
            raise ValueError(should("features", "be the trunk's output, on which the losses depend", shapes[0], remedy))
        remedy = "Give the parameters that all tasks share, such as trunk.parameters(), of the module that made the losses."
        raise ValueError(should("shared", "hold parameters that the losses depend on", shapes, remedy))
    if sparse := {place for of_task in found for place, own in enumerate(of_task) if own is not None and own.is_sparse}:
        remedy = "Make embeddings with sparse=False, or leave them out: they are then trained as heads."
        shapes = [tuple(points[place].shape) for place in sorted(sparse)]
        raise ValueError(should("shared", "hold parameters with dense gradients", shapes, remedy))
    return reached


def _write(row: Tensor, parts: Sequence[Tensor | None], points: Sequence[Tensor]) -> None:
    """Writes gradients one after another into a row (Q,), 0 where there is none."""
    places = row.split([point.numel() for point in points])
    for place, part in zip(places, parts, strict=True):
        if part is None:
            place.zero_()
        else:
            place.copy_(part.detach().flatten())


def _sum(known: Tensor | None, own: Tensor | None) -> Tensor | None:
    """The sum of two gradients, of which either may be missing."""
    if known is None or own is None:
        return known if own is None else own.detach()
    return known + own.detach()


def accumulate(tensors: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
    """Adds gradients to ``.grad``, as ``backward`` does; ``None`` adds nothing."""
    for tensor, gradient in zip(tensors, gradients, strict=True):
        if gradient is None:
            continue
        own = gradient.to(tensor.dtype)
        tensor.grad = own.clone() if tensor.grad is None else tensor.grad + own

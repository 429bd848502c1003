"""The losses of all tasks for each sample, from the outputs of all heads."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from mtl_gym.checks import should
from mtl_gym.problems.base import Problem, Task
from mtl_gym.problems.losses import Loss, valid_values


@dataclass(frozen=True)
class _Group:
    """Neighbouring tasks whose loss is computed in one call, with their total numbers of channels, and whether it is needed."""

    name: str
    loss: Loss
    outputs: int
    targets: int
    needed: bool


class Objectives:
    """Losses of each sample and task.

    Only the losses of ``tasks`` are needed; others are 0, unless computed together with a needed one. ``missing`` tells whether
    labels may be missing. With ``dual`` losses are also differentiated in forward mode; with ``alone`` outputs and targets contain
    only these tasks.
    """

    def __init__(
        self,
        problem: Problem,
        tasks: Collection[str],
        device: torch.device,
        *,
        missing: bool,
        dual: bool = False,
        alone: bool = False,
    ) -> None:
        self._dual = dual
        self._masked = missing
        seen = [task for task in problem.tasks if not alone or task.name in tasks]
        self._groups = _groups(seen, tasks)
        self._averages = _averages(seen).to(device)  # (V, K)
        self._one_value_each = self._averages.shape[0] == self._averages.shape[1]

    def parts(self, outputs: Tensor, targets: Tensor, sizes: Sequence[int]) -> list[Tensor]:
        """Returns the losses (N, K) of parts of a batch: means over labelled samples, 0 if there are none.

        ``outputs`` are (N, B, O, *S), ``targets`` (N, B, T, *S), NaN where a label is missing. ``sizes`` are the numbers of samples
        in the parts, B in total; ``[B]`` gives the loss of the whole batch.
        """
        values, counts = self._values(outputs, targets)
        if counts is None:  # averaging over samples first leaves one row per part for the matrix product and its gradient
            means = [values.mean(1)] if len(sizes) == 1 else [part.mean(1) for part in values.split(sizes, dim=1)]
            return means if self._one_value_each else [mean @ self._averages for mean in means]
        pairs = zip(*[table.split(sizes, dim=1) for table in self._averaged(values, counts)], strict=True)
        return [losses.sum(1) / labelled.sum(1).clamp(min=1) for losses, labelled in pairs]

    def samples(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Returns the losses (N, B, K) of samples, 0 where a task has no label; arguments as for :meth:`parts`."""
        values, counts = self._values(outputs, targets)
        if counts is None:
            return values if self._one_value_each else values @ self._averages
        return self._averaged(values, counts)[0]

    def _averaged(self, values: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Losses (N, B, K) of samples and whether they are labelled, from their values and numbers of labelled pixels."""
        shares = (counts > 0).to(values.dtype) @ self._averages
        return values @ self._averages / torch.where(shares > 0, shares, 1), shares > 0

    def _values(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor | None]:
        """The value of each sample and target channel (N, B, V), and its number of labelled pixels if labels are missing.

        Raises:
            ValueError: If the outputs' shape does not fit the labels, or that of a loss's values, which anybody may write.
        """
        channels = sum(group.outputs for group in self._groups)
        if outputs.ndim < 3 or outputs.shape[2] != channels or outputs.shape[3:] != targets.shape[3:]:
            expected = ("N", "B", channels, *targets.shape[3:])
            raise ValueError(should("network", f"have outputs of shape {expected}, as the labels", tuple(outputs.shape)))
        shape = outputs.shape[:2]
        outputs, targets = outputs.flatten(0, 1), targets.flatten(0, 1)
        # A single split has one backward node; a slice per group would fill and add as many zero tensors.
        columns = zip(
            self._groups,
            outputs.split([group.outputs for group in self._groups], dim=1),
            targets.split([group.targets for group in self._groups], dim=1),
            strict=True,
        )
        values, counts = zip(*[self._part(group, *column) for group, *column in columns], strict=True)
        together = torch.cat(values, dim=1).view(*shape, -1)
        return together, torch.cat(counts, dim=1).view(*shape, -1) if self._masked else None

    def _part(self, group: _Group, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Each value's mean over pixels (N B, V), and its number of labelled pixels."""
        loss = group.loss
        function = loss.dual if self._dual and loss.dual else loss.function
        if not group.needed:
            nothing = outputs.new_zeros(len(outputs), 1 if loss.joint else targets.shape[1])
            return nothing, nothing
        if not self._masked:
            values = _checked(group, function(outputs, targets), targets)
            return (values.flatten(2).mean(2) if values.ndim > 2 else values), values
        valid, targets = valid_values(loss, targets)
        values = _checked(group, function(outputs, targets), targets).where(valid, 0)
        if values.ndim == 2:
            return values, valid
        counts = valid.flatten(2).sum(2)
        return values.flatten(2).sum(2) / counts.clamp(min=1), counts


def _checked(group: _Group, values: Any, targets: Tensor) -> Tensor:
    """The values (R, V, *S) of a loss; raises ValueError if they have another shape."""
    expected = (len(targets), 1 if group.loss.joint else targets.shape[1], *targets.shape[2:])
    if not isinstance(values, Tensor) or values.shape != expected:
        found = tuple(values.shape) if isinstance(values, Tensor) else values
        condition = f"return a value for each sample{'' if group.loss.joint else ' and channel'}, of shape {expected}"
        raise ValueError(should(f"LOSSES[{group.name!r}]", condition, found))
    return values


def _groups(tasks: Sequence[Task], needed: Collection[str]) -> list[_Group]:
    groups = []
    for loss, run in groupby(tasks, key=lambda task: task.objective):
        members = list(run)
        for part in [[member] for member in members] if loss.joint else [members]:
            outputs, targets = sum(task.outputs for task in part), sum(task.target_channels for task in part)
            groups.append(_Group(members[0].loss_name, loss, outputs, targets, any(task.name in needed for task in part)))
    return groups


def _averages(tasks: Sequence[Task]) -> Tensor:
    """Matrix (V, K) whose column k averages the values of task k."""
    columns = [1 if task.objective.joint else task.target_channels for task in tasks]
    return torch.block_diag(*[torch.full((count, 1), 1 / count) for count in columns])

"""The decisions of a policy in one training, step by step: from the losses of a batch to the weights of its tasks. K tasks."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mtl_gym.balancing.course import Course
from mtl_gym.balancing.given import Seen
from mtl_gym.checks import positive_int, should
from mtl_gym.decisions.task_rules import TaskWeighing

_OWN = ("held", "weights", "parts")
_IN_VAIN = 10  # steps without any weight above 0 before there is a warning


def weighing_of(arguments: Mapping[str, Any], num_tasks: int) -> TaskWeighing:
    """How actions become weights, from the environment's own arguments."""
    names = ("action", "rule", "weight_range", "scope", "features", "residual_reach")
    return TaskWeighing(num_tasks, **{name: arguments[name] for name in names})


class TaskDecisions:
    """The weights of one training's tasks.

    Args:
        course: The policy and its training.
        num_tasks: K.
        accumulate: Batches in each optimiser step.

    Attributes:
        loop: What is known of the training.
        held: (1, P, K) what the last decision holds; see :class:`TaskWeighing`.
        weights: (1, S, K) of the last step; 1 before the first. S is 2 if heads have their own weights.
        parts: (2, K) sums and numbers of the losses in the batches accumulated so far.
        part: Number of those batches.
    """

    def __init__(self, course: Course, num_tasks: int, accumulate: int) -> None:
        self._course, self.loop, self.accumulate = course, course.loop, positive_int("accumulate", accumulate)
        self.weighing = weighing_of(course.decider.arguments, num_tasks)
        course.decider.check(self.weighing.space, 1)
        self.held, self.weights = self.weighing.start(), torch.ones(1, self.weighing.scope, num_tasks)
        self.parts = torch.zeros(2, num_tasks)
        self.part = 0
        self._in_vain: int | None = 0  # steps so far; None once a weight was above 0

    def decide(self, seen: Seen, gramian: Tensor | None = None) -> None:
        """Sets the weights of the step on a batch with these losses, and asks the policy first if a decision is due.

        ``gramian``: the Gram matrix (1, K, K) of the tasks' gradients, for policies that read it.
        """
        loop = self.loop
        loop.arrive(seen)
        if loop.due:
            view = loop.view(gramian, self.weighing.shown(self.held, loop.last, loop.initial))
            self.held = self.weighing.held(self._course.decider.ask(view, self.weighing.space), view)
            loop.decided(view)
        self.weights = self.weighing.weights(self.held, loop.losses, loop.initial)

    def total(self, seen: Seen) -> Seen:
        """The mean losses of the batches accumulated so far and this one; NaN where none has a label."""
        if self.accumulate == 1:
            return seen
        sums, counts = self.parts + _sums(seen)
        return Seen(sums / counts, bool((counts > 0).all()))

    def completes(self, last: bool) -> bool:
        """Whether the next batch completes a step: the last one that is accumulated, or the last that there is."""
        return last or self.part + 1 == self.accumulate

    def count(self, seen: Seen, *, complete: bool) -> bool:
        """Counts a batch with these losses, which completes a step or not; returns that."""
        self.part += 1
        if not complete:
            self.parts = self.parts + _sums(seen)
            return False
        self.loop.stepped(self.total(seen))
        self._watch()
        if self.part > 1:
            self.parts = torch.zeros_like(self.parts)
        self.part = 0
        return True

    def _watch(self) -> None:
        """Warns, once, of a policy whose weights were not above 0 in any of the first steps, as comparisons do at the end."""
        if self._in_vain is None:
            return
        self._in_vain += 1
        if bool((self.weights > 0).any()):
            self._in_vain = None
        elif self._in_vain == _IN_VAIN:
            condition = f"be above 0 for some task in the first {_IN_VAIN} steps of the policy {self._course.decider.label!r}"
            text = should("weights", condition, [float(self.weights.min()), float(self.weights.max())], "Nothing was learned.")
            warnings.warn(text, RuntimeWarning, stacklevel=2)

    def restart(self) -> None:
        """Begins the step again, without the batches accumulated so far."""
        self.part, self.parts = 0, torch.zeros_like(self.parts)

    def state(self) -> dict[str, Any]:
        """See :meth:`Course.state`."""
        return self._course.state({"part": self.part}, {name: getattr(self, name) for name in _OWN})

    def load(self, state: Mapping[str, Any]) -> None:
        """See :meth:`Course.load`."""
        plain, own = self._course.load(state, ("part",), {name: getattr(self, name) for name in _OWN})
        self.part = plain["part"]
        for name in _OWN:
            setattr(self, name, own[name])


def _sums(seen: Seen) -> Tensor:
    """Losses, and whether each has a label, (2, K)."""
    return torch.stack([seen.values.nan_to_num(nan=0.0), (~seen.values.isnan()).float()])

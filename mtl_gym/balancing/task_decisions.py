"""The decisions of a policy in one training, step by step: from the losses of a batch to the weights of its tasks. K tasks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from mtl_gym.balancing.decider import Decider
from mtl_gym.balancing.given import Seen
from mtl_gym.balancing.loop import Loop
from mtl_gym.balancing.memory import packed, unpacked
from mtl_gym.checks import number, positive_int, should
from mtl_gym.decisions.task_rules import TaskWeighing
from mtl_gym.training.probes import BASE, EPOCH, LR

_FORMAT = 1
_READS = {"progress": "train_steps", EPOCH: "steps_per_epoch", BASE: "steps_per_epoch", LR: "lr"}
"""What a policy reads, and the argument that tells it."""


class TaskDecisions:
    """The weights of one training's tasks.

    Args:
        decider: The policy.
        tasks: Names of the K tasks.
        accumulate: Batches in each optimiser step.
        lr: Learning rate, or the optimiser.
        lengths: ``train_steps`` and ``steps_per_epoch``; ``None`` where it is unknown.

    Attributes:
        loop: What is known of the training.
        factors: (1, S, K) of the last decision; S is 2 if heads have their own weights.
        weights: (1, S, K) of the last step; 1 before the first.
        part: Number of batches accumulated so far.

    Raises:
        ValueError, TypeError: If the policy reads something that no argument tells, or an argument is wrong.
    """

    def __init__(
        self, decider: Decider, tasks: Sequence[str], *, accumulate: int, lr: float | Optimizer | None, **lengths: int | None
    ) -> None:
        self._decider, self._tasks, self.accumulate = decider, list(tasks), positive_int("accumulate", accumulate)
        modes = {name: decider.arguments[name] for name in ("action", "rule", "weight_range", "scope")}
        self.weighing = TaskWeighing(len(tasks), **modes)
        decider.check(self.weighing.space, 1)
        told = {**lengths, "lr": lr}
        for name, argument in _READS.items():
            if told[argument] is None and name in {*decider.needs, *decider.observe}:
                raise ValueError(should(argument, f"be given, since the policy {decider.label!r} reads it", None))
        self._lr = lr if lr is None or isinstance(lr, Optimizer) else number("lr", lr, low=0.0)
        known = {name: positive_int(name, 1 if length is None else length) for name, length in lengths.items()}
        self.loop = Loop(len(tasks), decider.needs, steps=decider.steps, rate=self._rate, **known)
        self.factors = self.weights = torch.ones(1, self.weighing.scope, len(tasks))
        self._parts = torch.zeros(2, len(tasks))  # sums and numbers of the losses in the batches accumulated so far
        self.part = 0

    def decide(self, seen: Seen, gramian: Tensor | None = None) -> None:
        """Sets the weights of the step on a batch with these losses, and asks the policy first if a decision is due.

        ``gramian``: the Gram matrix (1, K, K) of the tasks' gradients, for policies that read it.
        """
        loop = self.loop
        loop.arrive(seen)
        if loop.due:
            view = loop.view(gramian, self.factors[:, 0])
            self.factors = self.weighing.factors(self._decider.ask(view, self.weighing.space))
        self.weights = self.weighing.weights(self.factors, loop.losses, loop.initial)

    def total(self, seen: Seen) -> Seen:
        """The mean losses of the batches accumulated so far and this one; NaN where none has a label."""
        if self.accumulate == 1:
            return seen
        sums, counts = self._parts + _sums(seen)
        return Seen(sums / counts, bool((counts > 0).all()))

    def count(self, seen: Seen) -> bool:
        """Counts a batch with these losses; whether it was the last one of a step."""
        self.part += 1
        if self.part < self.accumulate:
            self._parts = self._parts + _sums(seen)
            return False
        self.loop.stepped(self.total(seen))
        if self.part > 1:
            self._parts = torch.zeros_like(self._parts)
        self.part = 0
        return True

    def _rate(self) -> float:
        lr = self._lr
        return float(lr.param_groups[0]["lr"] if isinstance(lr, Optimizer) else lr or 0.0)

    # --- resuming ------------------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """The complete memory: ``about``, a JSON text, and ``tensors`` in tables.

        Raises:
            TypeError: If the policy's memory cannot be saved, as that of a function with values of its own.
        """
        plain, arrays = packed(self._decider.memory)
        counts, loop = self.loop.state()
        about = {"format": _FORMAT, "policy": self._decider.identity, "tasks": self._tasks, "memory": plain, "part": self.part}
        own = {"factors": self.factors, "weights": self.weights, "parts": self._parts}
        tables = {"loop": loop, "memory": arrays, "own": own}
        tensors = {name: {key: value.clone() for key, value in table.items()} for name, table in tables.items()}
        return {"about": json.dumps({**counts, **about}), "tensors": tensors}

    def load(self, state: Mapping[str, Any]) -> None:
        """Resumes from a :meth:`state`.

        Raises:
            ValueError: If it is of another policy, other tasks, or damaged; nothing changes then.
        """
        try:
            about, tensors = json.loads(state["about"]), state["tensors"]
            memory = unpacked(about["memory"], tensors["memory"])
            own = [tensors["own"][name].clone() for name in ("factors", "weights", "parts")]
            part, loop = int(about["part"]), tensors["loop"]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(should("state", "be what state_dict() returned", type(error).__name__)) from error
        for name, value in {"format": _FORMAT, "policy": self._decider.identity, "tasks": self._tasks}.items():
            if about.get(name) != value:
                raise ValueError(should(f"state[{name!r}]", f"be {value}, as of this balancer", about.get(name)))
        self.loop.load(about, loop)
        self._decider.memory, self.part = memory, part
        self.factors, self.weights, self._parts = own


def _sums(seen: Seen) -> Tensor:
    """Losses, and whether each has a label, (2, K)."""
    return torch.stack([seen.values.nan_to_num(nan=0.0), (~seen.values.isnan()).float()])

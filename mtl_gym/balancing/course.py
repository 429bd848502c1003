"""A policy and what it knows of one training in somebody's own loop, which is saved and resumed as a whole."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from mtl_gym.balancing.decider import Decider
from mtl_gym.balancing.loop import Loop
from mtl_gym.balancing.memory import check_shapes, packed, unpacked
from mtl_gym.checks import number, positive_int, should
from mtl_gym.training.probes import BASE, EPOCH, LR

_FORMAT = 2
_READS = {"progress": "train_steps", EPOCH: "steps_per_epoch", BASE: "steps_per_epoch", LR: "lr"}
"""What a policy reads, and the argument that tells it."""
_NAMES = '`requires = mtl_gym.Requirements(observe=("log_loss",))` names what it reads.'
Tables = dict[str, dict[str, Tensor]]


class Course:
    """One training of one policy.

    Args:
        decider: The policy.
        tasks: Names of the K tasks.
        lr: Learning rate, or the optimiser.
        lengths: ``train_steps`` and ``steps_per_epoch``; ``None`` where it is unknown.

    Attributes:
        loop: What is known of the training.

    Raises:
        ValueError, TypeError: If the policy reads something that no argument tells, or an argument is wrong.
    """

    def __init__(self, decider: Decider, tasks: Sequence[str], lr: float | Optimizer | None, **lengths: int | None) -> None:
        self.decider, self._tasks = decider, list(tasks)
        told = {**lengths, "lr": lr}
        for name, argument in _READS.items():
            if told[argument] is None and name in {*decider.needs, *decider.observe}:
                remedy = "" if decider.named else f"It names no observations, so it gets all that are usual: {_NAMES}"
                raise ValueError(should(argument, f"be given, since the policy {decider.label!r} reads it", None, remedy))
        if not isinstance(lr, Real | Optimizer | None):
            raise TypeError(should("lr", "be a learning rate, or the optimiser", lr))
        self._lr = lr if lr is None or isinstance(lr, Optimizer) else number("lr", lr, low=0.0)
        known = {name: positive_int(name, 1 if length is None else length) for name, length in lengths.items()}
        self.loop = Loop(len(tasks), decider.needs, steps=decider.steps, rate=self._rate, **known)

    def _rate(self) -> float:
        lr = self._lr
        return float(lr.param_groups[0]["lr"] if isinstance(lr, Optimizer) else lr or 0.0)

    def state(self, plain: Mapping[str, Any], own: Mapping[str, Tensor]) -> dict[str, Any]:
        """The complete memory: ``about``, a JSON text, and ``tensors`` in tables.

        Args:
            plain: Numbers to be kept with it, by name.
            own: Tensors to be kept with it, by name.

        Raises:
            TypeError: If the policy's memory cannot be saved, as that of a function with values of its own.
        """
        memory, arrays = packed(self.decider.memory)
        counts, loop = self.loop.state()
        about = {"format": _FORMAT, "policy": self.decider.identity, "tasks": self._tasks, "memory": memory}
        tables = {"loop": loop, "memory": arrays, "own": own}
        tensors = {name: {key: value.clone() for key, value in table.items()} for name, table in tables.items()}
        return {"about": json.dumps({**counts, **plain, **about}), "tensors": tensors}

    def load(
        self,
        state: Mapping[str, Any],
        plain: Sequence[str],
        own: Mapping[str, Tensor],
        check: Callable[[Mapping[str, Tensor]], None] = lambda own: None,
    ) -> tuple[dict[str, int], dict[str, Tensor]]:
        """Resumes from a :meth:`state`, and returns its whole numbers of these names and its own tensors.

        Args:
            state: The state, on any device.
            plain: Names of the numbers.
            own: Tensors that have to be there in these shapes, by name.
            check: Raises ``ValueError`` if other tensors are wrong.

        Raises:
            ValueError: If it is of another policy, other tasks, or damaged; nothing changes then.
        """
        try:
            about, tables = json.loads(state["about"]), state["tensors"]
            # A file may have been read with `map_location` of a GPU.
            tensors = {name: {key: value.cpu().clone() for key, value in table.items()} for name, table in tables.items()}
            memory = unpacked(about["memory"], tensors["memory"])
            loop, found = tensors["loop"], tensors["own"]
            numbers = {name: positive_int(f"state[{name!r}]", about[name], least=0) for name in ("step", *plain)}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(should("state", "be what state_dict() returned", type(error).__name__)) from error
        for name, value in {"format": _FORMAT, "policy": self.decider.identity, "tasks": self._tasks}.items():
            if about.get(name) != value:
                raise ValueError(should(f"state[{name!r}]", f"be {value}, as of this balancer", about.get(name)))
        check_shapes(found, own)
        check(found)
        self.loop.load({**about, **numbers}, loop)
        self.decider.memory = memory
        return numbers, found

"""What balancers of losses and of samples have in common: a policy, its training, and what a loop hands over besides losses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch.distributed as dist
from torch import nn
from torch.optim import Optimizer

from mtl_gym.balancing import ranks
from mtl_gym.balancing.course import Course
from mtl_gym.balancing.decider import Decider
from mtl_gym.balancing.given import Losses, check_tasks, check_values, read
from mtl_gym.context import own_mode
from mtl_gym.policies.protocol import Policy
from mtl_gym.training.probes import AFTER, META


class Balancer(nn.Module):
    """A policy of an environment, ``env``, in a loop of somebody's own; it has neither parameters nor buffers.

    The arguments are those of :class:`mtl_gym.LossBalancer`; ``lengths`` are ``train_steps`` and ``steps_per_epoch``.

    Attributes:
        tasks: Names of the K tasks.
    """

    def __init__(
        self,
        policy: str | Policy | Callable[[Any], Any],
        env: str,
        tasks: Sequence[str],
        *,
        lr: float | Optimizer | None,
        seed: int,
        group: dist.ProcessGroup | None = None,
        **lengths: int | None,
    ) -> None:
        super().__init__()
        self.tasks = check_tasks(tasks)
        self._group = ranks.checked(group)
        with own_mode():  # a model may be made under another default dtype or device
            self._decider = Decider(policy, env, len(self.tasks), seed, lengths.get("train_steps"))
            self._decider.needs |= {*self._of_actions()}
            self._course = Course(self._decider, self.tasks, lr, **lengths)

    def _of_actions(self) -> Iterable[str]:
        """Names of the measurements that the policy's actions are applied to, besides those that it reads."""
        return ()

    @property
    def step(self) -> int:
        """Optimiser steps so far."""
        return self._course.loop.step

    def extra_repr(self) -> str:
        """The policy and the tasks."""
        return f"{self._decider.label!r}, tasks={list(self.tasks)}"

    def observe_holdout(self, losses: Losses) -> None:
        """Takes the mean losses of a held-out batch at the current parameters, before each decision; others are ignored.

        Args:
            losses: By task, or (K,) in the order of the tasks; no graph is needed. ``None`` or NaN keeps a task's last one.
        """
        self._hand(META, losses)

    def observe_after(self, losses: Losses) -> None:
        """Takes the mean losses of the last batch, computed again after the optimiser's step; if batches are accumulated, of the
        first one.
        """
        self._hand(AFTER, losses)

    def _hand(self, name: str, losses: Losses) -> None:
        given = read("losses", losses, self.tasks)
        with own_mode():
            self._course.loop.hand(name, check_values("losses", ranks.mean_of_known(given.values, self._group), self.tasks))

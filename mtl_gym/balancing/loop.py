"""What is known of a training in somebody's own loop, as the views of one row that observations read. K tasks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from mtl_gym.balancing.given import Seen
from mtl_gym.balancing.memory import check_shapes
from mtl_gym.checks import should
from mtl_gym.training.loss_history import LossHistory
from mtl_gym.training.probes import AFTER, BASE, EPOCH, GRAMIAN, LAST_WEIGHTS, LR, META, PRESENT, UPCOMING, View

_GIVEN = {
    META: ("observe_holdout", "the losses of a held-out batch", "before each decision (see `decision_due`)"),
    AFTER: ("observe_after", "the losses of the last batch, computed again after the optimiser's step", "after each step"),
}
"""What a loop has to hand over besides its losses: the method, what it takes, and when."""


class Loop:
    """One training, seen through its losses.

    Args:
        num_tasks: K.
        needs: Names of the measurements that observations need.
        steps: Steps between decisions.
        train_steps: Length of the training, or 1 if it is not needed.
        steps_per_epoch: Batches per epoch, or 1 if it is not needed.
        rate: Returns the learning rate of the next step.

    Attributes:
        step: Steps taken.
        losses: (1, K) of the batch about to be trained on, with the last known loss of a task without labels; 1 before the first.
    """

    def __init__(
        self,
        num_tasks: int,
        needs: Collection[str],
        *,
        steps: int,
        train_steps: int,
        steps_per_epoch: int,
        rate: Callable[[], float],
    ) -> None:
        self.needs, self.steps, self.step = frozenset(needs), steps, 0
        self._length, self._epoch, self._rate = train_steps, steps_per_epoch, rate
        self.losses = self._last = self._present = torch.ones(1, num_tasks)
        self._history = LossHistory.begin(self.losses)
        self._window = torch.zeros(1, steps, num_tasks)  # losses since the last decision
        self._second = torch.zeros(steps_per_epoch, num_tasks) if BASE in needs else None
        self._given: dict[str, Tensor] = {}  # (1, K) the last ones that were handed over
        self._fresh: set[str] = set()  # those of them that were handed over since the last step
        self._before: dict[str, Tensor] = {}  # (1, K) those of the last decision

    @property
    def due(self) -> bool:
        """Whether the next batch brings a decision."""
        return self.step % self.steps == 0

    def check(self) -> None:
        """Raises ``RuntimeError`` if the decision that is due needs what the loop has not handed over, before anything changes."""
        for name, (method, what, when) in _GIVEN.items():
            at_first = name == AFTER and self.step == 0  # there is no batch before
            if name in self.needs and name not in self._fresh and self.due and not at_first:
                raise RuntimeError(f"The policy reads {what}. Call `balancer.{method}(losses)` {when}; this is step {self.step}.")

    def hand(self, name: str, seen: Seen) -> None:
        """Takes measured losses: those of a batch after its step, or held-out ones; one that is missing keeps its last value.

        Raises:
            ValueError: If the first held-out losses lack a task.
        """
        if name not in self.needs:
            return
        known = self._last if name == AFTER else self._given.get(name)
        if known is None and not seen.complete:
            received = seen.values.tolist()
            raise ValueError(should("losses", "hold all tasks the first time that held-out losses are observed", received))
        self._given[name] = seen.values[None] if known is None else torch.where(seen.values.isnan(), known, seen.values)
        self._fresh.add(name)

    def carried(self, seen: Seen) -> Tensor:
        """Losses (1, K) with the last known one where there is no label; 1 before the first."""
        return seen.values[None] if seen.complete else torch.where(seen.values.isnan(), self._last, seen.values)

    def arrive(self, seen: Seen) -> None:
        """Takes the losses of the batch about to be trained on."""
        self.losses = self.carried(seen)
        self._present = torch.ones_like(self.losses) if seen.complete else (~seen.values.isnan()).float()[None]
        if self.step == 0:
            self._history = LossHistory.begin(self.losses)

    @property
    def initial(self) -> Tensor:
        """Losses (1, K) of the first batch."""
        return self._history.initial

    @property
    def last(self) -> Tensor:
        """Losses (1, K) of the last step; 1 before the first."""
        return self._last

    def view(self, gramian: Tensor | None, last_weights: Tensor) -> View:
        """What is known before a decision; the Gram matrix (1, K, K) and the last weights (1, K) come from elsewhere.

        Nothing changes before :meth:`decided`, since a policy may fail.
        """
        history = self._history.extended(self._window, self._base()) if self.step else self._history
        now = {UPCOMING: self.losses, PRESENT: self._present, LAST_WEIGHTS: last_weights, **self._given}
        if AFTER in self.needs and not self.step:
            now[AFTER] = self.losses
        if LR in self.needs:
            now[LR] = torch.tensor([self._rate()])
        if EPOCH in self.needs:
            now[EPOCH] = torch.tensor([self.step // self._epoch])
        if gramian is not None:
            now[GRAMIAN] = gramian
        return View(now, {**now, **self._before}, history, torch.tensor([self.step / self._length]))

    def decided(self, view: View) -> None:
        """Counts a decision that was taken on this view."""
        if view.history is not None:
            self._history = view.history
        self._before = dict(self._given)

    def _base(self) -> Tensor | None:
        """The mean of the second epoch, if it was completed since the last decision."""
        if self._second is None or not self.step - self.steps < 2 * self._epoch <= self.step:
            return None
        return self._second.mean(0)[None]

    def stepped(self, seen: Seen) -> None:
        """Counts a step that was taken on a batch with these losses."""
        step, losses = self.step, self.carried(seen)
        if self.steps == 1:
            self._window = losses[None]
        else:
            self._window[:, step % self.steps] = losses
        if self._second is not None and self._epoch <= step < 2 * self._epoch:
            self._second[step - self._epoch] = losses[0]
        self._last, self.step = losses, step + 1
        self._fresh.clear()

    # --- resuming ------------------------------------------------------------------------------------------------------------

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What has to be kept to resume: JSON-plain, and tensors by name."""
        tensors = {"last": self._last, "window": self._window, "history": self._table()}
        tensors |= {} if self._second is None else {"second epoch": self._second}
        tensors |= {f"given {name}": own for name, own in self._given.items()}
        tensors |= {f"before {name}": own for name, own in self._before.items()}
        return {"step": self.step, "fresh": sorted(self._fresh)}, tensors

    def load(self, plain: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Resumes from a :meth:`state` of a loop with the same arguments; raises ``ValueError`` before anything changes."""
        names = ("last", "window", "history", *(["second epoch"] if self._second is not None else []))
        of_kinds = {name: self._last for name in tensors if name.startswith(("given ", "before "))}
        check_shapes(tensors, {name: own for name, own in self.state()[1].items() if name in names} | of_kinds)
        fresh = plain.get("fresh")
        if not isinstance(fresh, list) or not set(map(str, fresh)) <= _GIVEN.keys():
            raise ValueError(should("state['fresh']", f"be a list of {', '.join(_GIVEN)}", fresh))
        self.step, self._fresh = plain["step"], set(fresh)
        self._last, self._window = tensors["last"].clone(), tensors["window"].clone()
        self._second = None if self._second is None else tensors["second epoch"].clone()
        self._history = LossHistory(*tensors["history"].clone().unbind(1))
        self._given, self._before = (
            {name.partition(" ")[2]: value.clone() for name, value in tensors.items() if name.startswith(kind)}
            for kind in ("given ", "before ")
        )

    def _table(self) -> Tensor:
        return torch.stack(self._history, dim=1)

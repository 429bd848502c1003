"""The interface of decisions: actions and masks, own tensors in the state, their effect on trainings, and their outcome."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from torch import Tensor

from mtl_gym.problems.instances import TRAINING_IDS
from mtl_gym.training.ledger import Ledger
from mtl_gym.training.loss_history import LossHistory, second_epoch_mean
from mtl_gym.training.measurements import steps_per_epoch, training_probes
from mtl_gym.training.probes import LAST_WEIGHTS, Probe, Reading, View
from mtl_gym.training.trainer import Trainer

ACTION_MASK = "action_mask"
"""Name of the measurement of valid actions (N, A)."""


class Trainings(Protocol):
    """What decisions act on: N rows, each an instance of a problem."""

    @property
    def ledger(self) -> Ledger:
        """Instances, steps and passes."""

    def begin(self, rows: Sequence[int], ids: Sequence[int]) -> None:
        """Starts these instances in these rows; the others do not change at all."""

    def clone(self) -> dict[str, Any]:
        """A copy of the state of all rows."""

    def load(self, state: dict[str, Any]) -> None:
        """Restores a :meth:`clone`."""

    def copy_rows(self, source: Sequence[int], target: Sequence[int]) -> None:
        """Copies each row of ``source`` to the row of ``target`` at the same place."""

    def metrics(self, split: str) -> dict[str, Tensor]:
        """Metrics (N,) on a whole split by ``task/metric``."""

    def finite(self) -> Tensor:
        """Whether a row's trainings are still finite (N,)."""


class Decision(ABC):
    """What a policy decides, for N rows at once.

    Attributes:
        trainings: What it acts on.
        space: The actions of one row.
        needs: Names of its required measurements, independent of the observations.
        masked: Whether actions can be invalid.
        traces: Tensors (N, K) by name that figures plot over a training, from the last decision.
        estimated_bytes: Memory that its trainings take at most (:mod:`mtl_gym.training.memory`); 0 if that was not estimated.
    """

    trainings: Trainings
    space: Box | Discrete
    needs: tuple[str, ...] = ()
    masked: bool = False
    traces: Mapping[str, Tensor] = {}
    estimated_bytes: float = 0.0

    @abstractmethod
    def apply(self, actions: Tensor, active: Tensor, view: View) -> None:
        """Applies actions (N, ...) within the space to the ``active`` rows (N,) bool; ``view`` is the last one before them."""

    @property
    @abstractmethod
    def length(self) -> int:
        """The largest number of decisions in an episode."""

    def begin(self, rows: Sequence[int]) -> None:  # noqa: B027  (most have nothing to set)
        """Initialises its own tensors in rows whose training begins; the state has set them to 0."""

    def diverged(self, rows: Tensor) -> None:  # noqa: B027  (most have nothing to do)
        """Called where the trainings of the rows (N,) bool have diverged, before the infos of their last step."""

    def probes(self) -> list[Probe]:
        """The available measurements, in order."""
        return []

    def sizes(self) -> dict[str, int]:
        """Lengths of observations that depend on its options, by rows of ``SIZES``."""
        return {}

    def masks(self, view: View) -> Tensor:
        """The valid actions (N, A).

        Raises:
            RuntimeError: If it is not ``masked``, so that all actions are valid.
        """
        raise RuntimeError(f"{type(self).__name__} has no masks: all of its actions are valid")

    @abstractmethod
    def progress(self) -> Tensor:
        """Completed fraction (N,) of the episode."""

    def history(self, previous: LossHistory | None, *, base: bool) -> LossHistory | None:
        """The losses since the ``previous`` history (``None`` at the start), if trainings are observed step by step.

        ``base``: whether the mean of the second epoch is needed.
        """
        return None

    def bonus(self, view: View, previous: View) -> Tensor | None:
        """An addition to the reward (N,) of the last decision, such as a negative price."""
        return None

    def infos(self, view: View) -> dict[str, Tensor]:
        """Infos of the last decision: (N,) by name, NaN where undefined."""
        return {}

    def outcome(self, row: int) -> dict[str, Any]:
        """The result of a row's decisions, JSON-plain."""
        return {}

    def draw_id(self, stream: np.random.Generator) -> int:
        """Draws the id of a training instance."""
        return int(stream.integers(*TRAINING_IDS))


class TrainingDecision(Decision):
    """A decision during training, every ``steps`` optimiser steps.

    Attributes:
        last_weights: (N, K) the tasks' weights of the last action; ones before the first.
    """

    def __init__(self, trainer: Trainer, steps: int) -> None:
        self.trainings = self.trainer = trainer
        self.steps = steps
        self.last_weights = trainer.state.add(f"{type(self).__name__}.last_weights", (trainer.recipe.num_tasks,))

    @property
    def length(self) -> int:
        """The number of decisions in an episode."""
        return self.trainer.recipe.train_steps // self.steps

    def begin(self, rows: Sequence[int]) -> None:
        """Resets the last weights."""
        self.last_weights[list(rows)] = 1

    def diverged(self, rows: Tensor) -> None:
        """Ends these trainings with their best parameters, if ``checkpoint`` keeps them."""
        self.trainer.diverged(rows)

    def probes(self) -> list[Probe]:
        """The measurements of any training, and the last weights."""
        said = Probe((LAST_WEIGHTS,), lambda names: Reading({LAST_WEIGHTS: self.last_weights.clone()}))
        return [*training_probes(self.trainer), said]

    def progress(self) -> Tensor:
        """Completed fraction (N,) of the training steps."""
        return self.trainer.progress()

    def history(self, previous: LossHistory | None, *, base: bool) -> LossHistory:
        """The losses of the last decision's batches; see :meth:`Decision.history`."""
        trainer, step = self.trainer, self.trainer.ledger.step
        if previous is None:
            return LossHistory.begin(trainer.losses.forward())
        window = (step[:, None] - self.steps + torch.arange(self.steps, device=step.device)).clamp(min=0)  # (N, steps)
        losses = trainer.losses.history
        batches = losses[torch.arange(len(step), device=step.device)[:, None], window]  # (N, steps, K)
        length = steps_per_epoch(trainer) if base else step
        return previous.extended(batches, second_epoch_mean(previous.base, losses, step, length, self.steps) if base else None)

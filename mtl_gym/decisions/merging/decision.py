"""Which tasks share a layer: measurements of structures, effect of actions, and outcome."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mtl_gym.checks import should
from mtl_gym.decisions.base import ACTION_MASK, TrainingDecision
from mtl_gym.decisions.merging.structures import (
    BEGUN,
    CKA,
    DEPTH,
    GRADIENT,
    GROUPS,
    OPEN,
    USED,
    StructureActions,
    choices,
    valid_merges,
)
from mtl_gym.decisions.merging.transfer import Transfer
from mtl_gym.decisions.partitions import together
from mtl_gym.models import make_model
from mtl_gym.models.branched import ASSIGN, BranchedModel, Trace
from mtl_gym.problems.base import Problem
from mtl_gym.training.data import spread
from mtl_gym.training.formulas import linear_cka, pooled
from mtl_gym.training.probes import Probe, Reading, View
from mtl_gym.training.recipe import Recipe
from mtl_gym.training.trainer import Trainer

COMPARED = 128
"""Training samples on which layers are compared; MTSL uses up to 800."""
_LEAST_COMPARED = 4  # samples that the debiased estimate of CKA needs
_TRACE = "trace"  # cached for the next batch


def branched_model(problem: Problem, recipe: Recipe) -> BranchedModel:
    """The problem's model with a copy of every stage for each task."""
    return BranchedModel(make_model(problem, recipe.hidden_sizes), problem, recipe.num_tasks)


class Merging(TrainingDecision):
    """Which tasks share the next stage; all losses have weight 1.

    Args:
        trainer: The trainings, of a :func:`branched_model`.
        steps: Optimiser steps per decision.
        actions: Maps actions to structures.
        transfer: Merges the parameters.
        alignment: Factor of MTSL's alignment term, :meth:`dissimilarity`; needs batches of at least 4 samples.
        parameter_price: Reward for removing all parameters.

    Attributes:
        groups: (N, K) tasks that can still be merged with each other, each labelled by the lowest of its group.
    """

    masked = True

    def __init__(
        self,
        trainer: Trainer,
        steps: int,
        actions: StructureActions,
        transfer: Transfer,
        *,
        alignment: float = 0.0,
        parameter_price: float = 0.0,
    ) -> None:
        if alignment and trainer.recipe.batch_size < _LEAST_COMPARED:
            condition = f"be at least {_LEAST_COMPARED} with `alignment`, which compares layers on the samples of a batch"
            raise ValueError(should("batch_size", condition, trainer.recipe.batch_size))
        if alignment and (trainer.losses.by_samples or trainer.gradient_ema):
            raise ValueError(should("alignment", "be 0 for a trainer with `by_samples` or `gradient_ema`", alignment))
        super().__init__(trainer, steps)
        self.actions, self.space, self.needs = actions, actions.space, (*actions.needs, USED)
        self.alignment, self._transfer, self._price = alignment, transfer, parameter_price
        self.groups = trainer.state.add("Merging.groups", (trainer.recipe.num_tasks,), torch.int64)
        if trainer.best is not None:
            trainer.best.keep("Merging.groups", self.groups)
        self._invalid = torch.zeros(trainer.num_replicas, dtype=torch.bool)
        self._rows = torch.arange(trainer.num_replicas, device=trainer.state.device)

    @property
    def model(self) -> BranchedModel:
        """The model."""
        return self._transfer.model

    @property
    def assign(self) -> Tensor:
        """(N, S, K) which copy of each stage each task uses."""
        return self.trainer.replicas.buffers[ASSIGN]

    # --- measurements --------------------------------------------------------------------------------------------------------

    def sizes(self) -> dict[str, int]:
        """Length of the mask, which is always that of ``merge``."""
        return {"choice": choices(self.trainer.recipe.num_tasks)}

    def probes(self) -> list[Probe]:
        """The measurements of the structures, then those of any training."""
        names = (CKA, GRADIENT, USED, DEPTH, OPEN, ASSIGN, GROUPS, BEGUN)
        mask = Probe((ACTION_MASK,), lambda wanted: Reading({ACTION_MASK: valid_merges(self.observe(self.actions.needs).values)}))
        return [Probe(names, self.observe), mask, *super().probes()]

    def observe(self, names: Collection[str]) -> Reading:
        """Measurements of the structures.

        Returns:
            By name: ``cka`` and ``gradient`` (N, S, K, K), see :meth:`similarities` and :meth:`gradient_cosines`; ``used``
            (N,), see :meth:`used`; ``depth`` (N, K, K), see :meth:`depths`; ``open`` (N, K, K), whether two tasks are in one group
            and do not share all stages; ``assign`` (N, S, K); ``groups`` (N, K); ``begun`` (N,), whether a step has been taken.
        """
        computed: dict[str, Callable[[], Tensor]] = {
            CKA: self.similarities,
            GRADIENT: self.gradient_cosines,
            USED: self.used,
            DEPTH: self.depths,
            OPEN: lambda: together(self.groups) & (self.depths() < self.model.num_stages),
            ASSIGN: self.assign.clone,
            GROUPS: self.groups.clone,
            BEGUN: lambda: self.trainer.ledger.step > 0,
        }
        compared = min(COMPARED, len(self.trainer.problem.splits["train"])) / self.trainer.recipe.batch_size
        return Reading({name: computed[name]() for name in names}, compared * (CKA in names), 1.0 * (GRADIENT in names))

    def used(self) -> Tensor:
        """Parameters in use (N,), as a fraction of those of separate networks."""
        separate = torch.arange(self.trainer.recipe.num_tasks, device=self._rows.device).expand_as(self.assign)
        tasks = self.trainer.ledger.tasks
        return self.model.parameter_count(self.assign, tasks).float() / self.model.parameter_count(separate, tasks)

    def depths(self) -> Tensor:
        """Number of stages (N, K, K) that two tasks share, from the first on."""
        return together(self.assign).int().cumprod(1).sum(1)

    def similarities(self) -> Tensor:
        """Linear CKA (N, S, K, K) of the tasks' features at every stage, from a forward pass over fixed training samples."""
        samples = spread(len(self.trainer.problem.splits["train"]), COMPARED).to(self._rows.device)
        with torch.no_grad():
            features = self._trace(self.trainer.losses.data.fixed_inputs("train", samples)).features
            return torch.stack([linear_cka(pooled(own)) for own in features], dim=1)

    def gradient_cosines(self) -> Tensor:
        """Cosines (N, S, K, K) of the tasks' loss gradients with respect to their own copies, on the next batch.

        One backward pass suffices, since each task's copy is gathered separately.
        """
        losses, trace = self._traced()
        parts = torch.autograd.grad(losses.sum(), trace.copies, retain_graph=True)
        own = [functional.normalize(part.unflatten(0, (-1, self.trainer.recipe.num_tasks)), dim=2) for part in parts]
        return torch.stack([part @ part.mT for part in own], dim=1)

    def dissimilarity(self) -> Tensor:
        """One minus the mean CKA (N,) on the next batch, over the pairs in a group, at the first stage that each does not share."""
        trace = self._traced()[1]
        pairs = together(self.groups).triu(1)
        places = torch.where(pairs, self.depths(), -1)
        similar = torch.stack([linear_cka(pooled(features)) for features in trace.features], dim=1).clamp(-1, 1)  # (N, S, K, K)
        chosen = places[:, None] == torch.arange(self.model.num_stages, device=places.device)[:, None, None]
        counts = chosen.flatten(1).sum(1)
        return torch.where(counts > 0, 1 - (similar * chosen).flatten(1).sum(1) / counts.clamp(min=1), 0)

    def _trace(self, inputs: Tensor) -> Trace:
        return self.model.trace([*self.trainer.replicas.parameters.values()], inputs, self.assign)

    def _traced(self) -> tuple[Tensor, Trace]:
        """Losses (N, K) of the next batch with their graph, which the step reuses, and the trace of their forward pass."""
        losses, pending = self.trainer.losses, self.trainer.losses.pending
        if _TRACE not in pending.notes:
            batch = losses.batch()
            trace = pending.notes[_TRACE] = self._trace(batch.inputs)
            replicas = self.trainer.replicas
            outputs = self.model.heads(replicas.parameters, replicas.buffers, trace.features[-1])
            pending.losses = losses.of_outputs(outputs, batch, self.trainer.ledger.step)
        return losses.graph(), pending.notes[_TRACE]

    def begin(self, rows: Sequence[int]) -> None:
        """Resets infos."""
        super().begin(rows)
        self._invalid[list(rows)] = False

    # --- actions -------------------------------------------------------------------------------------------------------------

    def masks(self, view: View) -> Tensor:
        """The valid merges (N, A); thresholds are never masked."""
        return valid_merges(view.now)

    def apply(self, actions: Tensor, active: Tensor, view: View) -> None:
        """Merges as the actions say, and trains with weights of 1."""
        self._invalid = self.actions.invalid(actions, view.now)
        wanted = self.actions.structure(actions, view.now)
        self._transfer.merge(torch.where(active[:, None, None], wanted.assign, self.assign))
        self.groups.copy_(torch.where(active[:, None], wanted.groups, self.groups))
        ones = torch.ones_like(self.last_weights)
        for _ in range(self.steps):
            penalty = (self.dissimilarity(), self.alignment) if self.alignment else None
            self.trainer.update(ones, active, penalty=penalty)

    def bonus(self, view: View, previous: View) -> Tensor:
        """The reward for the parameters that the decision removed."""
        return self._price * (previous[USED] - view[USED]).double()

    def infos(self, view: View) -> dict[str, Tensor]:
        """Whether the action was masked, the number of parameters in use, and that of different copies of the last stage."""
        return {
            "invalid_action": self._invalid,
            "num_parameters": self.model.parameter_count(self.assign, self.trainer.ledger.tasks),
            "num_groups": self.model.copies_in_use(self.assign[:, -1:]).sum((1, 2)),
        }

    def outcome(self, row: int) -> dict[str, Any]:
        """Names of the tasks, ``assign`` (S, K), ``cka`` (S, K, K) of their features, and ``parameter_fraction``."""
        notes = self.trainer.losses.pending.notes
        if CKA not in notes:  # all rows at once, valid until something changes
            notes[CKA] = self.similarities()
        return {
            "tasks": self.trainer.ledger.task_names(row),
            "assign": self.assign[row].tolist(),
            "cka": notes[CKA][row].nan_to_num().cpu().numpy().round(3).tolist(),
            "parameter_fraction": float(self.used()[row]),
        }

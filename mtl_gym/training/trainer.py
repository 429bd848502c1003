"""The trainer: N training runs of one problem, advanced together. It only applies weights; a policy chooses them.

Replicas do not interact, so the gradient of the sum over replicas is every replica's own gradient, and plain autograd handles all
N runs at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import Any, Final, final

import torch
from torch import Tensor

from mtl_gym.checks import should
from mtl_gym.context import own_mode
from mtl_gym.models import make_model
from mtl_gym.models.base import Model
from mtl_gym.problems.base import Problem
from mtl_gym.problems.scores import split_metrics
from mtl_gym.training.batch_losses import BatchLosses
from mtl_gym.training.checkpoints import CHECKPOINTS, BestOnMeta
from mtl_gym.training.data import check_data
from mtl_gym.training.formulas import averaged
from mtl_gym.training.ledger import Ledger
from mtl_gym.training.recipe import Recipe
from mtl_gym.training.replicas import Replicas
from mtl_gym.training.state import State

CHUNK: Final = 1024
"""Samples of a split that are evaluated together."""
_CHARGED_ONCE: Final = ("gradients", "alignments", "cosines")


def own_model(problem: Problem, recipe: Recipe) -> Model:
    """The problem's model, whose trunk all tasks share."""
    return make_model(problem, recipe.hidden_sizes)


@final
class Trainer:
    """N training runs of one problem.

    Args:
        problem: The problem.
        recipe: How every replica is trained.
        num_replicas: N.
        model: Makes the model.
        gradient_ema: Decay rate of a moving average of each task's gradient of the shared parameters, which then replaces the
            gradient in every step and Gram matrix; 0 for no average.
        gradient_ema_decay: Exponent d, at least 0: at step t, from 1, averages keep ``gradient_ema / t**d`` of their past.
        by_samples: Whether losses are computed per sample, by operations with fast forward-mode rules.
        recorder: Called whenever a training pass is computed, with the samples' losses (N, B, all tasks) and labels.

    Attributes:
        state: The complete state; other parts that act on the runs register their tensors too.
        ledger: Instances, steps and passes.
        replicas: The networks and their optimisers.
        losses: Losses of the next batch, and of all previous ones (``losses.history``).
        weights: (N, H, K) of each update.
        best: The best parameters so far, if ``checkpoint`` asks for them.

    Raises:
        ValueError: If the data are insufficient (see :func:`~mtl_gym.training.data.check_data`), ``by_samples`` is combined with
            ``gradient_ema`` or ``recorder``, or ``gradient_ema_decay`` is given without ``gradient_ema``.
    """

    def __init__(
        self,
        problem: Problem,
        recipe: Recipe,
        num_replicas: int,
        *,
        model: Callable[[Problem, Recipe], Model] = own_model,
        gradient_ema: float = 0.0,
        gradient_ema_decay: float = 0.0,
        by_samples: bool = False,
        recorder: Callable[[Tensor, Tensor], None] | None = None,
    ) -> None:
        self.problem, self.recipe, self.num_replicas = problem, recipe, num_replicas
        self.gradient_ema, self._decay = gradient_ema, gradient_ema_decay
        self._make = model
        if by_samples and (gradient_ema or recorder):
            raise ValueError(should("by_samples", "be left out with `gradient_ema` and `recorder`", by_samples))
        if gradient_ema_decay and not gradient_ema:
            remedy = "Give `gradient_ema` a value above 0."
            raise ValueError(should("gradient_ema_decay", "be 0 where there is no average", gradient_ema_decay, remedy))
        check_data(problem, recipe)
        made = model(problem, recipe)
        self.state = state = State(num_replicas, recipe.device)
        self.ledger = Ledger(problem, recipe, made.identity, state)
        self.replicas = Replicas(made, recipe, state)
        self.losses = BatchLosses(problem, recipe, state, self.ledger, self.replicas, by_samples=by_samples, recorder=recorder)
        self.weights = state.add("weights", (recipe.train_steps, recipe.num_tasks))
        self.averages = state.add("averages", (recipe.num_tasks, made.num_shared)) if gradient_ema else None
        kept = (recipe, state, self.ledger, self.replicas, self.losses)
        self.best = BestOnMeta(*kept) if CHECKPOINTS[recipe.checkpoint] else None
        self._charged = {name: state.add(f"charged {name}", (), torch.int64) for name in _CHARGED_ONCE}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        # Tensors that were made in inference mode can be linked in it alone; an environment then copies all once more, without it.
        with nullcontext() if torch.is_inference_mode_enabled() else own_mode():
            self.replicas.link(self._make(self.problem, self.recipe))
            self.losses.link()

    @property
    def model(self) -> Model:
        """The model."""
        return self.replicas.model

    # --- starting, saving, restoring -----------------------------------------------------------------------------------------

    def begin(self, rows: Iterable[int], ids: Iterable[int]) -> None:
        """Starts the instances with these ids in these rows; the other rows keep their exact bits.

        Raises:
            ValueError: If a row or an id is invalid, or their numbers differ; nothing is changed then.
        """
        chosen = list(rows)
        for row, instance in zip(chosen, self.ledger.begin(chosen, ids), strict=True):
            self.replicas.begin(row, instance)
            self.losses.begin(row, instance)
        if self.best is not None:
            self.best.begin(chosen)
        self.restructured()

    def clone(self) -> dict[str, Any]:
        """A copy of the complete state, for :meth:`load`."""
        return self.state.clone()

    def load(self, state: dict[str, Any]) -> None:
        """Restores a :meth:`clone` of runs with the same arguments; they then continue bit for bit."""
        self.state.load(state)
        self.restructured()

    def copy_rows(self, source: Sequence[int], target: Sequence[int]) -> None:
        """Copies each row of ``source`` to the row of ``target`` at the same position."""
        self.state.copy_rows(source, target)
        self.restructured()

    def restructured(self) -> None:
        """To be called after the state was written: derived values are dropped."""
        self.replicas.restructured()
        self.losses.forget()

    def diverged(self, rows: Tensor) -> None:
        """Ends trainings (N,) bool that have diverged with their best parameters, if ``checkpoint`` keeps them."""
        if self.best is not None and self.best.restore(rows):
            self.restructured()

    # --- measuring -----------------------------------------------------------------------------------------------------------

    def outputs(self, split: str | Tensor) -> Tensor:
        """Outputs (N, n, O, *S) of all heads on a whole split, or on inputs (N, n, *shape); the cost is not counted."""
        chunks = self.losses.data.chunks(split, CHUNK) if isinstance(split, str) else split.split(CHUNK, dim=1)
        with torch.no_grad():
            return torch.cat([self.replicas.outputs(inputs) for inputs in chunks], dim=1)

    def metrics(self, split: str) -> dict[str, Tensor]:
        """Metrics (N,) on a whole split by ``task/metric``, for all of the problem's tasks; the cost is not counted."""
        return split_metrics(self.problem, self.outputs(split), self.losses.data.targets(split))

    def finite(self) -> Tensor:
        """Whether all parameters of each replica are finite (N,)."""
        return self.replicas.finite()

    def progress(self) -> Tensor:
        """Completed fraction (N,) of the training steps."""
        return self.ledger.step.float() / self.recipe.train_steps

    def task_gradients(self, charged: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Gradients (N, K, P) of the tasks' losses on the next batch, those of shared parameters averaged with ``gradient_ema``.

        A task without labels in the batch has a gradient of zero, and keeps its average.
        Also returns their cost (N,): K backward passes, or 0 if they were already charged for this batch; the rows ``charged`` (N,)
        bool, or all, are regarded as charged from now on.
        """
        pending = self.losses.pending
        if pending.gradients is None:
            losses, parameters = self.losses.graph(), [*self.replicas.parameters.values()]
            parts = [
                torch.autograd.grad(own.sum(), parameters, retain_graph=True, materialize_grads=True) for own in losses.unbind(1)
            ]
            found = torch.stack([torch.cat([part.flatten(1) for part in own], dim=1) for own in parts], dim=1)
            if self.averages is not None:
                own = found[:, :, : self.model.num_shared]  # (N, K, Q)
                average = averaged(own, self.averages, self.ledger.step, self.gradient_ema, self._decay)
                own.copy_(torch.where(self.losses.labelled()[:, :, None], average, own))
            pending.gradients = found
        return pending.gradients, self.recipe.num_tasks * self.once("gradients", charged)

    def once(self, name: str, rows: Tensor | None = None) -> Tensor:
        """1 for the first request on the next batch, else 0 (N,); ``rows`` (N,) bool, or all, count as charged from now on."""
        mark, step = self._charged[name], self.ledger.step
        fresh = (mark <= step).to(self.ledger.passes.dtype)
        mark.copy_(step + 1 if rows is None else torch.where(rows, step + 1, mark))
        return fresh

    # --- steps ---------------------------------------------------------------------------------------------------------------

    def update(self, weights: Tensor, active: Tensor, *, penalty: tuple[Tensor, float] | None = None) -> None:
        """Trains each active replica for one step on the weighted sum of its losses.

        Args:
            weights: (N, K), applied as they are.
            active: (N,) bool; other rows are not touched.
            penalty: A term (N,) with its graph that is added to the loss, and its factor.

        Raises:
            ValueError: If there is a penalty where steps are made of samples' losses or of averaged gradients.
        """
        if penalty is not None and (self.losses.by_samples or self.gradient_ema):
            raise ValueError(should("penalty", "be left out with `by_samples` and `gradient_ema`", penalty[1]))
        if self.losses.by_samples:
            self.update_samples(weights[:, None].expand(-1, self.recipe.batch_size, -1), active)
        elif self.gradient_ema:
            self.update_apart(weights, weights, active)
        else:
            losses, factors = self.losses.graph(), weights
            known = losses.detach()
            if penalty is not None:
                losses = torch.cat([losses, penalty[0][:, None]], dim=1)
                factors = torch.cat([weights, torch.full_like(weights[:, :1], penalty[1])], dim=1)
            self._descend(losses, factors, active)
            self._record(known, weights, active)

    def update_samples(self, weights: Tensor, active: Tensor) -> None:
        """Trains each active replica for one step on ``sum_k mean_i w_ik l_ik``; a row of zero weights only counts the step.

        Args:
            weights: (N, B, K), applied as they are; all ones is equal weighting. Means are over labelled samples.
            active: (N,) bool; other rows are not touched.
        """
        losses, known, counts = self.losses.sample_graph(), self.losses.batch().known, self.losses.label_counts()
        counting = weights if known is None else weights * known
        means = self.losses.mean(losses.detach())
        self._descend(losses, counting / counts, active & (weights != 0).flatten(1).any(1))
        self._record(means, counting.sum(1) / counts[:, 0], active)

    def update_apart(self, weights: Tensor, head_weights: Tensor, active: Tensor) -> None:
        """Trains each active replica for one step with separate weights for the shared parameters and the heads.

        The step uses the K gradients of the Gram matrix, and costs nothing beyond them.

        Args:
            weights: (N, K), applied as they are to the shared parameters.
            head_weights: (N, K), applied as they are to the heads.
            active: (N,) bool; other rows are not touched.
        """
        losses, (gradients, cost) = self.losses.forward(), self.task_gradients(active)
        shared, heads = gradients.tensor_split([self.model.num_shared], dim=2)  # (N, K, Q) and (N, K, P - Q)
        torch.cat([weights[:, None] @ shared, head_weights[:, None] @ heads], dim=2, out=self.replicas.gradient[:, None])
        if self.averages is not None:
            self.averages.copy_(torch.where(active[:, None, None] & self.losses.labelled()[:, :, None], shared, self.averages))
        self._step(active)
        self.ledger.charge(active, 0.0, cost)
        self._record(losses, weights, active, backward=0)

    def update_along(self, gradient: Tensor, active: Tensor) -> None:
        """Trains each active replica for one step along a gradient; the recorded weights are NaN.

        Args:
            gradient: (N, P), in the order of the model's parameters. Its cost in passes is charged by the caller.
            active: (N,) bool; other rows are not touched.
        """
        losses = self.losses.forward()
        self.replicas.gradient.copy_(gradient)
        self._step(active)
        self._record(losses, torch.full_like(losses, torch.nan), active, backward=0)

    def _descend(self, losses: Tensor, weights: Tensor, rows: Tensor) -> None:
        """One optimiser step of the rows (N,) bool on the weighted sum of losses with their graph; weights and losses (N, ...)."""
        parameters = [*self.replicas.parameters.values()]
        gradients = torch.autograd.grad(losses, parameters, grad_outputs=weights, materialize_grads=True)
        torch.cat([gradient.flatten(1) for gradient in gradients], dim=1, out=self.replicas.gradient)
        self._step(rows)

    def _step(self, rows: Tensor) -> None:
        """One optimiser step of the rows (N,) bool along the computed gradient."""
        buffers = self.losses.pending.buffers
        self.losses.forget()
        self.replicas.step(rows, self.replicas.rates(self.ledger.step), buffers)

    def _record(self, losses: Tensor, weights: Tensor, active: Tensor, backward: int = 1) -> None:
        """Records the losses and weights (N, K) of the step, and counts it and its passes."""
        steps = self.ledger.step.tolist()
        chosen = [row for row, plays in enumerate(active.tolist()) if plays]
        together = len(chosen) == self.num_replicas and len(set(steps)) == 1  # the usual case, which needs no index tensors
        rows = slice(None) if together else chosen
        columns = steps[0] if together else [steps[row] for row in chosen]
        self.losses.history[rows, columns] = losses[rows]
        self.weights[rows, columns] = weights[rows]
        self.ledger.step += active
        self.ledger.charge(active, 1.0, float(backward))
        if self.best is not None and self.best.look(active):
            self.restructured()

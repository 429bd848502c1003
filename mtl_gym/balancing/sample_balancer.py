"""``SampleBalancer``: a policy of SampleWeighting in anybody's own training loop. B samples of a batch, K tasks, main one first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mtl_gym.balancing.balancer import Balancer
from mtl_gym.balancing.given import check_values, sample_losses
from mtl_gym.balancing.module_alignments import SampleLosses, alignments, evaluating, shared_parameters, unit_gradient
from mtl_gym.balancing.parameters import parameters_of
from mtl_gym.balancing.sample_decisions import SampleDecisions
from mtl_gym.balancing.task_gradients import TaskGradients
from mtl_gym.checks import should
from mtl_gym.context import own_mode
from mtl_gym.decisions.sample_rules import ALIGNMENT, COSINE, LABELLED, LOSS, MEAN, RIGHT
from mtl_gym.environments import SAMPLE_WEIGHTING
from mtl_gym.policies.protocol import Policy
from mtl_gym.training.probes import AFTER, GRAMIAN, META

_READS = {ALIGNMENT: "alignment", META: "holdout", AFTER: "after", MEAN: "ids", GRAMIAN: "gradients"}
_UNKNOWN = {RIGHT: "which labels are right", COSINE: "cosines of single samples, which cost B K backward passes"}

_MOST_SAMPLES = 100_000_000


class SampleBalancer(Balancer):
    """Weights the samples of your own training with any policy of ``mtl_gym/SampleWeighting-v0``.

    Equal losses give the weights that the environment gives, bit for bit. It has no parameters and no buffers.

    Call it with the losses of single samples, where you averaged them::

        balancer = mtl_gym.SampleBalancer("small-loss", tasks=["seg", "depth"], steps_per_epoch=len(loader))
        loss = balancer({"seg": seg_losses, "depth": depth_losses})  # each (B,)
        loss.backward()

    The result is ``sum_k mean_i w_ik l_ik``, with means over the labelled samples of a task. Policies that ask how a sample's
    gradient is aligned with that of the main task on held-out data (``slgrad``) need one forward-mode pass over the module first::

        def losses(model, batch):  # of single samples, (B,) by task
            ...
        balancer.observe_alignment(model, losses, batch, holdout, shared=model.trunk.parameters())
        loss = balancer(losses(model, batch))

    * A label that is missing: NaN among the losses, or ``labelled``, a mask. Mask the *labels* before the loss, and the losses
      after it: the gradient of a loss of NaN is NaN even if its weight is 0.
    * ``state_dict`` resumes exactly, as that of :class:`~mtl_gym.LossBalancer`; it holds each sample's running mean.
    * In evaluation mode, all samples count alike.
    * Single processes only: the samples of other processes are not seen.

    Args:
        policy: Name with options, pretrained agent, agent's file, or any object with ``predict``.
        tasks: Names of the K tasks; the first is the main one.
        train_steps, steps_per_epoch, lr, seed: As for :class:`~mtl_gym.LossBalancer`.

    Attributes:
        weights: (B, K) of the last batch; ``None`` before the first.
        skipped: Whether all weights of the last batch are 0. The environment then takes no step.
        reads: What the policy reads besides losses: any of ``"alignment"``, ``"holdout"``, ``"after"``, ``"ids"``, ``"gradients"``.

    Raises:
        ValueError, TypeError: If there is no such policy, it is one for another environment, or it reads something that no argument
            tells, or that is unknown in a loop.

    Example:
        >>> import torch, mtl_gym
        >>> balancer = mtl_gym.SampleBalancer("main", tasks=["seg", "depth"])
        >>> losses = torch.tensor([[1.0, 5.0], [3.0, 5.0]], requires_grad=True)
        >>> balancer(losses).item()
        2.0
    """

    def __init__(
        self,
        policy: str | Policy | Callable[[Any], Any],
        tasks: Sequence[str],
        *,
        train_steps: int | None = None,
        steps_per_epoch: int | None = None,
        lr: float | Optimizer | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(
            policy, SAMPLE_WEIGHTING, tasks, lr=lr, seed=seed, train_steps=train_steps, steps_per_epoch=steps_per_epoch
        )
        with own_mode():
            self._decisions = SampleDecisions(self._course, len(self.tasks))
        read = self._decider.needs | self._decisions.needs
        for name, words in _UNKNOWN.items():
            if name in read:
                raise ValueError(should("policy", f"not read {words}: it is for the environment alone", self._decider.label))
        self.reads = frozenset(word for name, word in _READS.items() if name in read)
        self._aligned: Tensor | None = None  # (1, B, K) of the next batch
        self.weights: Tensor | None = None
        self.skipped = False

    @property
    def decision_due(self) -> bool:
        """Whether the policy decides on the next batch."""
        return self._decisions.loop.due

    def observe_alignment(
        self, model: nn.Module, losses: SampleLosses, batch: Any, holdout: Any, shared: Iterable[Tensor] | None = None
    ) -> None:
        """Measures the samples that the next call weights: their gradients' inner products with the main task's on held-out data.

        One backward pass on the held-out batch, in evaluation mode, and one forward-mode pass on the batch, in the module's own
        mode. Buffers such as running means, and global generators, are left as they are. Attention runs in its mathematical form.

        Args:
            model: The module.
            losses: ``losses(model, batch)`` returns the losses of single samples as :meth:`forward` takes them.
            batch: The batch about to be trained on.
            holdout: A held-out batch.
            shared: The parameters that all tasks share; ``None``: all that are trained.

        Raises:
            ValueError: If the main task has no held-out label, an operation has no forward-mode rule, or the losses are wrong.
        """
        own = shared_parameters(model, shared)

        def computed(module: nn.Module, data: Any) -> Tensor:
            return sample_losses("losses", losses(module, data), self.tasks, None).values

        with own_mode():
            with evaluating(model):
                held_out = sample_losses("losses", losses(model, holdout), self.tasks, None)
            means = held_out.means()
            if not held_out.labelled[:, 0].any():
                raise ValueError(should("holdout", f"have a label of the main task {self.tasks[0]!r}", "none"))
            direction = unit_gradient(means[0], own)
            seen = torch.where(held_out.labelled.any(0), means.detach(), torch.nan).cpu()
            aligned = alignments(model, computed, batch, direction, own)
            self._decisions.loop.hand(META, check_values("losses", seen.float(), self.tasks))
            self._aligned = aligned[None].float().cpu()

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(
        self, losses: Any, *, labelled: Tensor | None = None, ids: Tensor | None = None, shared: Iterable[Tensor] | None = None
    ) -> Tensor:
        """The weighted loss ``sum_k mean_i w_ik l_ik`` (), float32, to be differentiated.

        Args:
            losses: (B, K), or (B,) by task, with their graph; ``None`` for a task without labels in the batch.
            labelled: (B, K) bool, where there is a label; ``None``: where the loss is not NaN.
            ids: (B,) whole numbers that identify the samples, from 0, for policies that read running means.
            shared: The parameters that all tasks share, for policies that read the tasks' gradients (``ol-aux``, ``gcs``).

        Raises:
            ValueError: If losses have the wrong shape, are negative, infinite or without a graph; nothing changes then.
            RuntimeError: If the policy needs something that was not handed over.
        """
        given = sample_losses("losses", losses, self.tasks, labelled)
        if not self.training:
            return given.means().sum()
        if not given.values.requires_grad:
            raise ValueError(should("losses", "have a graph to differentiate", tuple(given.values.shape), "Do not detach them."))
        means = torch.where(given.labelled.any(0), given.means().detach(), torch.nan)
        seen = check_values("losses", means.float(), self.tasks)
        numbers = self._ids(ids, len(given.values))
        self._check(numbers, len(given.values))
        gramian = self._gramian(given.means(), shared)
        with own_mode():
            samples = {LOSS: given.values.detach().float().cpu()[None], LABELLED: given.labelled.float().cpu()[None]}
            if MEAN in self._decisions.required() and numbers is not None:
                samples[MEAN] = self._decisions.means(samples[LOSS], numbers)
            if self._aligned is not None:
                samples[ALIGNMENT] = self._aligned
            weights = self._decisions.decide(seen, samples, gramian)
            self._decisions.count(seen, weights, samples, numbers)
        self._aligned = None
        self.weights, self.skipped = weights[0], not bool(weights.any())
        factors = (weights[0] * samples[LABELLED][0] / samples[LABELLED][0].sum(0).clamp(min=1)).to(given.values.device)
        return (given.values.float() * factors).sum()

    def _check(self, ids: Tensor | None, count: int) -> None:
        """Raises ``RuntimeError`` if the next batch needs what was not handed over."""
        required = self._decisions.required()
        self._decisions.loop.check()
        if ALIGNMENT in required and self._aligned is None:
            call = "balancer.observe_alignment(model, losses, batch, holdout)"
            raise RuntimeError(f"The policy {self._decider.label!r} reads alignments. Call {call} before each batch.")
        if ALIGNMENT in required and self._aligned is not None and self._aligned.shape[1] != count:
            raise ValueError(should("losses", f"be of the {self._aligned.shape[1]} samples whose alignment was observed", count))
        if MEAN in required and ids is None:
            raise RuntimeError(f"The policy {self._decider.label!r} reads running means. Give `ids`, which identify the samples.")

    def _ids(self, ids: Tensor | None, count: int) -> Tensor | None:
        if ids is None:
            return None
        try:
            numbers = torch.as_tensor(ids).detach().cpu()
        except (TypeError, ValueError, RuntimeError):  # texts, say
            numbers = torch.empty(0)
        if numbers.shape != (count,) or numbers.is_floating_point() or numbers.dtype is torch.bool or int(numbers.min()) < 0:
            raise ValueError(should("ids", f"be {count} whole numbers from 0", ids))
        if (largest := int(numbers.max())) >= _MOST_SAMPLES:
            remedy = "Number the samples from 0, as their places in the data set."
            raise ValueError(should("ids", f"be less than {_MOST_SAMPLES:,}, as there is a sum for each", largest, remedy))
        return numbers.long()

    def _gramian(self, means: Tensor, shared: Iterable[Tensor] | None) -> Tensor | None:
        """The Gram matrix (1, K, K) of the tasks' gradients, if the policy reads it; K backward passes that keep the graph."""
        if GRAMIAN not in self._decider.needs or not self.decision_due:
            return None
        if shared is None:
            raise RuntimeError(f"The policy {self._decider.label!r} reads the tasks' gradients. Give `shared`, their parameters.")
        gradients = TaskGradients(0.0, 0.0, None)
        gradients.add([*means.unbind(0)], parameters_of(shared), [], 1.0, keep=True)
        return gradients.gramian(self.step, torch.ones(len(self.tasks), dtype=torch.bool))

    # --- resuming ------------------------------------------------------------------------------------------------------------

    def get_extra_state(self) -> dict[str, Any]:
        """The complete memory, as JSON and tensors; see :meth:`mtl_gym.LossBalancer.get_extra_state`."""
        return self._decisions.state()

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        """Resumes from :meth:`get_extra_state`; see :meth:`mtl_gym.LossBalancer.set_extra_state`."""
        self._decisions.load(state)

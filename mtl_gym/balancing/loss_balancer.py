"""``LossBalancer``: a policy of LossWeighting in anybody's own training loop. K tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from mtl_gym.balancing import ranks
from mtl_gym.balancing.balancer import Balancer
from mtl_gym.balancing.given import Given, Losses, Seen, check_values, read
from mtl_gym.balancing.log import Log
from mtl_gym.balancing.parameters import parameters_of
from mtl_gym.balancing.task_decisions import TaskDecisions, weighing_of
from mtl_gym.balancing.task_gradients import TaskGradients, accumulate
from mtl_gym.checks import should
from mtl_gym.context import own_mode
from mtl_gym.environments import LOSS_WEIGHTING
from mtl_gym.policies.protocol import Policy
from mtl_gym.training.probes import AFTER, GRAMIAN, META

_READS = {META: "holdout", AFTER: "after", GRAMIAN: "gradients"}


class LossBalancer(Balancer):
    """Weights the losses of your own training with any policy of ``mtl_gym/LossWeighting-v0``: a heuristic, an agent or a function.

    Equal losses give the weights that the environment gives, bit for bit: the same code computes what the policy observes, and maps
    its answer to weights. The balancer has no parameters and no buffers, so it may be part of any module.

    Call it where you summed the losses::

        balancer = mtl_gym.LossBalancer("igb", tasks=["seg", "depth"], steps_per_epoch=len(loader))
        for images, labels in loader:
            outputs = model(images)
            loss = balancer({"seg": seg_loss(outputs, labels), "depth": depth_loss(outputs, labels)})
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    A policy that balances gradients needs each task's gradient of the shared parameters, so it replaces ``loss.backward()``, and
    leaves ``.grad`` filled: ``balancer.backward(losses, shared=model.trunk.parameters())``. This works for all policies.

    A loss that is ``None`` or NaN means that the batch has no label of the task: it is left out of the sum, and policies see its
    last known value, as in the environments.

    * Held-out losses, for policies that read them: :meth:`observe_holdout`. Losses after the step (``famo``):
      :meth:`observe_after`.
    * ``state_dict`` holds the policy's memory as tensors and JSON; it loads with ``torch.load(weights_only=True)`` and then resumes
      exactly. It is extra state, not a buffer, which ``.half()`` would cast.
    * In evaluation mode (``eval()``), the last weights are used and nothing is counted.
    * Several processes: losses are averaged over those that have a label of a task before the policy sees them, so that all decide
      alike. Of a policy that balances gradients, :meth:`backward` averages them itself: run the forward pass under
      ``DistributedDataParallel.no_sync``. Of all others, ``DistributedDataParallel`` does, as usual.
    * Under ``torch.compile``, the balancer is excluded and the rest is compiled.

    Args:
        policy: Name with options (``"igb"``, ``"igb+cagrad:c=0.5"``), a pretrained agent (``"ppo"``), an agent's file, any object
            with ``predict``, or a function that maps K losses (float64 array) to K weights.
        tasks: Names of the K tasks.
        train_steps: Optimiser steps of the whole training, for policies that observe its progress or take so many decisions in it.
        steps_per_epoch: Optimiser steps per epoch, for policies that count epochs.
        lr: Learning rate, or the optimiser, whose first group tells it, for policies that learn at this rate (``uw``).
        seed: Seeds random policies.
        accumulate: Batches whose gradients are accumulated in each optimiser step. Losses are divided by it, also in a step of
            fewer, which has to be told (``last``). Weights of losses are decided on the first of them and kept; those of gradients
            are decided on the last one, from all of them.
        scaler: A ``GradScaler``, for :meth:`backward` only: gradients are scaled in ``.grad`` alone.
        process_group: Processes over which losses and gradients are averaged; ``None``: the default group, if there is one.

    Attributes:
        tasks: Names of the K tasks.
        reads: What the policy reads besides losses: any of ``"holdout"``, ``"after"`` and ``"gradients"``.

    Raises:
        ValueError, TypeError: If there is no such policy, it is one for another environment, or it reads something that no argument
            tells.

    Example:
        >>> import torch, mtl_gym
        >>> balancer = mtl_gym.LossBalancer("si", tasks=["seg", "depth"])
        >>> x = torch.ones(2, requires_grad=True)
        >>> loss = balancer({"seg": 4 * x[0], "depth": 0.5 * x[1]})
        >>> balancer.weights
        {'seg': 0.25, 'depth': 2.0}
        >>> loss.item()
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
        accumulate: int = 1,
        scaler: GradScaler | None = None,
        process_group: dist.ProcessGroup | None = None,
    ) -> None:
        lengths = {"train_steps": train_steps, "steps_per_epoch": steps_per_epoch}
        super().__init__(policy, LOSS_WEIGHTING, tasks, lr=lr, seed=seed, group=process_group, **lengths)
        if not isinstance(scaler, GradScaler | None):
            raise TypeError(should("scaler", "be a torch.amp.GradScaler, or None", scaler))
        with own_mode():
            self._decisions = TaskDecisions(self._course, len(self.tasks), accumulate)
        arguments = self._decider.arguments
        self._gradients = TaskGradients(arguments["gradient_ema"], arguments["gradient_ema_decay"], process_group)
        self._scaler = scaler
        self._log = Log()
        self._apart = self._decisions.weighing.scope > 1 or self._gradients.rate > 0  # each step is made of the tasks' gradients
        found = {word for name, word in _READS.items() if name in self._decider.needs}
        self.reads = frozenset(found | ({"gradients"} if self._apart else set()))

    def _of_actions(self) -> Iterable[str]:
        return weighing_of(self._decider.arguments, len(self.tasks)).needs

    # --- what a loop can ask -------------------------------------------------------------------------------------------------

    @property
    def weights(self) -> dict[str, float]:
        """The last step's weights by task, of the shared parameters if heads have their own; 1 before the first."""
        return dict(zip(self.tasks, self._decisions.weights[0, 0].tolist(), strict=True))

    @property
    def head_weights(self) -> dict[str, float]:
        """The last step's weights by task in the heads."""
        return dict(zip(self.tasks, self._decisions.weights[0, -1].tolist(), strict=True))

    @property
    def decision_due(self) -> bool:
        """Whether the policy decides on the next batch, which is when it reads held-out losses."""
        return self._decisions.loop.due and self._decisions.part == 0

    # --- what a loop hands over ----------------------------------------------------------------------------------------------

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, losses: Losses, *, last: bool = False) -> Tensor:
        """The weighted sum of the losses (), float32, to be differentiated.

        Args:
            losses: By task, or (K,) in the order of the tasks; each is one number with its graph, ``None`` or NaN without a label.
            last: Whether the optimiser steps after this batch although it is not the ``accumulate``-th one, as at the end of an
                epoch.

        Raises:
            ValueError: If there are not K losses, one is negative, infinite or has no graph, or all are NaN; nothing changes then.
            RuntimeError: If the policy needs something that was not handed over: :meth:`observe_holdout`, :meth:`observe_after`
                or gradients (:meth:`backward`).
        """
        if self.training and "gradients" in self.reads:
            remedy = "Replace loss.backward() by balancer.backward(losses, shared=trunk.parameters())."
            raise RuntimeError(f"The policy {self._decider.label!r} balances gradients. {remedy}")
        return self._weighted(losses, last)

    def _weighted(self, losses: Losses, last: bool) -> Tensor:
        if not self.training:
            return read("losses", losses, self.tasks).known(self.tasks).weighted(self._decisions.weights[0, 0])
        with own_mode():
            given, seen = self._read(losses)
            if self._decisions.part == 0:
                self._decisions.loop.check()
                self._decisions.decide(seen)
            self._count(seen, last)
            total = given.weighted(self._decisions.weights[0, 0])
        return total / self._decisions.accumulate if self._decisions.accumulate > 1 else total

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def backward(
        self,
        losses: Losses,
        shared: Iterable[Tensor] | None = None,
        *,
        heads: Iterable[Tensor] | None = None,
        features: Tensor | None = None,
        last: bool = False,
    ) -> None:
        """Adds the gradient of the weighted losses to ``.grad``, in place of ``loss.backward()``; for every policy.

        A policy that balances gradients costs K backward passes. Its weights act on the shared parameters; each head has its own,
        where the method says so (``head_weights``). One that only looks at the gradients, when it decides, costs K passes then, and
        one pass in the steps between (K with several processes, and where batches are accumulated).

        Args:
            losses: As for :meth:`forward`.
            shared: The parameters that all tasks share; not needed by a policy of losses alone.
            heads: The other parameters; ``None``: all other leaves of the losses' graphs.
            features: The trunk's output from which all losses were computed. The policy then sees the tasks' gradients of the
                features instead of the shared parameters: one pass through the trunk instead of K, but *other* weights, since the
                trunk's Jacobian is left out. It is an approximation, which no environment uses.
            last: As for :meth:`forward`.

        Raises:
            ValueError: As for :meth:`forward`; if shared parameters are missing or no loss depends on them; if ``features`` are
                given to a policy that averages gradients over steps; or if ``heads`` are missing with several processes.
        """
        # In every step, or to decide; from a part of a batch alone nothing may follow.
        looks = self._apart or self._decisions.loop.due or ranks.size(self._group) > 1 or self._decisions.accumulate > 1
        if "gradients" not in self.reads or (self.training and not looks):
            loss = self._weighted(losses, last)
            with own_mode():
                (loss if self._scaler is None else self._scaler.scale(loss)).backward()
            return
        if not self.training:
            remedy = "Call balancer.train() first; balancer(losses) is the sum with the last weights."
            raise RuntimeError(f"`backward` of a policy that balances gradients trains, so it has no evaluation mode. {remedy}")
        points = parameters_of(shared) if features is None else [self._gradients.checked(features, self._decisions.accumulate)]
        given, seen = self._read(losses)
        self._decisions.loop.check()
        others = self._gradients.heads(given.parts, points, heads)
        pending = self._gradients.pending
        try:
            with own_mode():
                self._add(given, seen, points, others, self._decisions.completes(last))
        except BaseException:  # a batch that failed leaves nothing behind
            self._gradients.restore(pending)
            raise
        self._count(seen, last)

    def _add(self, given: Given, seen: Seen, points: Sequence[Tensor], others: Sequence[Tensor], complete: bool) -> None:
        """Adds a batch's gradients, and fills ``.grad`` if the step is complete."""
        scale = 1.0 if self._scaler is None else float(self._scaler.scale(torch.ones(())))
        factor = scale / self._decisions.accumulate
        scaled = [None if part is None else part * factor for part in given.parts]
        self._gradients.add(scaled, points, others, 1 / scale)
        if complete:
            total = self._decisions.total(seen)
            self._decisions.decide(total, self._gradients.gramian(self.step, ~total.values.isnan()))
            summed = self._gradients.weighted(points, self._decisions.weights[0, 0], scale)
            if points[0].is_leaf:
                accumulate(points, summed)
            else:  # features
                points[0].backward(summed[0])
            self._gradients.fill_heads(self._decisions.weights[0, -1])

    def log_to(self, writer: Any, every: int = 1) -> None:
        """Writes weights and losses to TensorBoard after every so many steps, as ``weights/<task>`` and ``losses/<task>``.

        Args:
            writer: A ``SummaryWriter``, or anything with its ``add_scalar``; ``None`` stops it. It is not part of any copy or file.
            every: Steps between two points.

        Raises:
            TypeError: If the writer has no ``add_scalar``, such as the path of a folder.
        """
        self._log = Log(writer, every)

    # --- resuming ------------------------------------------------------------------------------------------------------------

    def get_extra_state(self) -> dict[str, Any]:
        """The complete memory, as JSON and tensors; ``state_dict`` calls it.

        Raises:
            TypeError: If the policy's memory cannot be saved, as that of a function with values of its own.
        """
        state, averages = self._decisions.state(), self._gradients.averages
        return state if averages is None else {**state, "averages": averages.clone()}

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        """Resumes from :meth:`get_extra_state`; ``load_state_dict`` calls it.

        Accumulated gradients are no part of it, as ``.grad`` is none of a network's: a policy that balances gradients begins the
        step again.

        Raises:
            ValueError: If it is of another policy, other tasks, or damaged; nothing changes then.
        """
        averages = state.get("averages") if isinstance(state, Mapping) else None
        if averages is not None and (not isinstance(averages, Tensor) or averages.shape[:-1] != (1, len(self.tasks))):
            raise ValueError(should("state['averages']", f"have a shape of (1, {len(self.tasks)}, numbers)", averages))
        self._decisions.load(state)
        self._gradients.forget()
        self._gradients.averages = None if averages is None else averages.cpu().clone()
        if "gradients" in self.reads:
            self._decisions.restart()

    # --- steps ---------------------------------------------------------------------------------------------------------------

    def _read(self, losses: Losses) -> tuple[Given, Seen]:
        """The losses with their graph, and what the policy sees of them, over all processes; nothing is changed."""
        given = read("losses", losses, self.tasks)
        seen = check_values("losses", ranks.mean_of_known(given.values, self._group), self.tasks)
        given = given.without_nan(given.values.isnan().tolist() if ranks.size(self._group) > 1 or not seen.complete else ())
        return given.with_graph(self.tasks), seen

    def _count(self, seen: Seen, last: bool) -> None:
        """Counts a batch, and logs a step after the last one of a step."""
        if self._decisions.count(seen, complete=self._decisions.completes(last)) and self._log.due(self.step):
            losses = dict(zip(self.tasks, self._decisions.loop.losses[0].tolist(), strict=True))
            self._log.write(self.step, {"weights": self.weights, "losses": losses})

"""The learner of networks whose layers are merged: N trainings, each with a structure of its own."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

from mtl_gym.arguments import choose, should
from mtl_gym.problems.base import Problem
from mtl_gym.training.branches import BranchedNetwork, Trace
from mtl_gym.training.imitation import Lesson, imitate
from mtl_gym.training.learner import Learner
from mtl_gym.training.partitions import together
from mtl_gym.training.recipe import Recipe
from mtl_gym.training.samples import spread, take
from mtl_gym.training.signals import linear_cka, pooled

COMPARED = 128
"""Training samples on which layers are compared; MTSL's are up to 800."""
_LEAST_COMPARED = 4  # of which the debiased estimate of CKA is made
CKA, GRADIENT, SHARE, DEPTH, OPEN = "cka", "gradient", "share", "depth", "open"
ASSIGN, GROUPS, BEGUN = "assign", "groups", "begun"
STRUCTURE = (ASSIGN, GROUPS, DEPTH, OPEN, BEGUN)
"""What can be known of a structure; see :meth:`BranchLearner.probe`."""
TRANSFERS = ("imitate", "average", "none")


class BranchLearner(Learner):
    """N trainings that begin with networks of their own for every task, the same ones; see :class:`Learner`.

    ``replicas.assign`` says which copy of each stage a task uses, ``replicas.groups`` which tasks may still be merged with each
    other: the environment decides both, through :meth:`merge`.

    Args:
        problem: The problem.
        recipe: How every replica is trained.
        num_replicas: N.
        alignment: Factor of MTSL's alignment term, ``1 - mean CKA`` over the pairs of a group at the first stage that they do not
            share.

    Raises:
        ValueError: As :class:`Learner` does, or if batches are too small for the term.
    """

    network: BranchedNetwork

    def __init__(self, problem: Problem, recipe: Recipe, num_replicas: int, *, alignment: float = 0.0) -> None:
        if alignment and recipe.batch_size < _LEAST_COMPARED:
            condition = f"be at least {_LEAST_COMPARED} with `alignment`, which compares layers on the samples of a batch"
            raise ValueError(should("batch_size", condition, recipe.batch_size))
        super().__init__(problem, recipe, num_replicas)
        self.alignment = alignment

    @property
    def stages(self) -> int:
        """S."""
        return self.network.num_stages

    def _network(self) -> BranchedNetwork:
        return BranchedNetwork(super()._network(), self.problem, self.recipe.num_tasks)

    @property
    def _blocks(self) -> list[int]:
        return self.network.blocks

    def _link(self) -> None:
        super()._link()
        inputs = self._samples.splits["train"].inputs
        self._compared = inputs[spread(len(inputs), COMPARED).to(inputs.device)]
        self._trace: Trace | None = None
        self._used: dict[int, list[int]] = {}

    def _places(self) -> Tensor:
        """Place (N, all tasks) of each of the problem's tasks among those that take part; 0 for the others."""
        tasks = self.replicas.tasks
        own = torch.arange(tasks.shape[1], device=tasks.device).expand_as(tasks)
        return tasks.new_zeros(len(tasks), self.problem.num_tasks).scatter(1, tasks, own)

    def _run(self, inputs: Tensor) -> Trace:
        return self.network.forward(self._parameters, inputs, self.replicas.assign)

    def _outputs(self, inputs: Tensor) -> Tensor:
        trace = self._run(inputs)
        if torch.is_grad_enabled():
            self._trace = trace
        return self.network.heads(self._parameters, trace.features[-1], self._places())

    def _traced(self) -> tuple[Tensor, Trace]:
        """Losses (N, K) of the next batch with their graph, and what their forward pass has left."""
        losses = self._graph()
        return losses, cast(Trace, self._trace)

    def _forget(self) -> None:
        super()._forget()
        self._trace = None

    def _numbers(self, row: int) -> Sequence[int]:
        if row not in self._used:
            used = [*self.network.used(self.replicas.assign[row : row + 1]).flatten().tolist(), True]
            self._used[row] = [row * len(used) + piece for piece, own in enumerate(used) if own]
        return self._used[row]

    def _descend(self, losses: Tensor, weights: Tensor, rows: Tensor) -> None:
        if self.alignment:
            apart = self.dissimilarity()
            losses = torch.cat([losses, apart[:, None]], dim=1)
            weights = torch.cat([weights, torch.full_like(weights[:, :1], self.alignment)], dim=1)
        super()._descend(losses, weights, rows)

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"alignment": self.alignment}

    def begin(self, rows: Iterable[int], ids: Iterable[int]) -> None:
        """Starts trainings; see :meth:`Learner.begin`."""
        super().begin(rows, ids)
        self._used.clear()

    def restore(self, state: dict[str, Any]) -> None:
        """Goes back to a state; see :meth:`Learner.restore`."""
        super().restore(state)
        self._used.clear()

    def fork(self, source: Sequence[int], target: Sequence[int]) -> None:
        """Copies rows; see :meth:`Learner.fork`."""
        super().fork(source, target)
        self._used.clear()

    # --- what a structure shows ---------------------------------------------------------------------------------------------

    def probe(self, needs: Collection[str], charged: Tensor) -> dict[str, Tensor]:
        """What is known of the structures.

        Args:
            needs: Names of what is wanted.
            charged: (N,) bool, the replicas for which passes are counted.

        Returns:
            By name: ``cka`` and ``gradient`` (N, S, K, K), see :meth:`similarities` and :meth:`gradient_cosines`; ``share`` (N,),
            see :meth:`share`; ``depth`` (N, K, K), see :meth:`depths`; ``open`` (N, K, K), whether two tasks are in one group and
            have stages that they do not share; ``assign`` (N, S, K) and ``groups`` (N, K), the replicas' own; ``begun`` (N,),
            whether a step has been taken: before that, all copies are the same.
        """
        computed: dict[str, Callable[[], Tensor]] = {
            CKA: lambda: self.similarities(charged),
            GRADIENT: lambda: self.gradient_cosines(charged),
            SHARE: self.share,
            DEPTH: self.depths,
            OPEN: lambda: together(self.replicas.groups) & (self.depths() < self.stages),
            ASSIGN: lambda: self.replicas.assign.clone(),
            GROUPS: lambda: self.replicas.groups.clone(),
            BEGUN: lambda: self.replicas.step > 0,
        }
        return {name: computed[name]() for name in needs}

    def share(self) -> Tensor:
        """Parameters in use (N,), as a share of those of separate networks."""
        apart = torch.arange(self.recipe.num_tasks, device=self._rows.device).expand_as(self.replicas.assign)
        count = self.network.parameter_count
        return count(self.replicas.assign, self.replicas.tasks) / count(apart, self.replicas.tasks)

    def depths(self) -> Tensor:
        """Stages (N, K, K) that two tasks share, from the first on."""
        return together(self.replicas.assign).int().cumprod(1).sum(1)

    def similarities(self, charged: Tensor) -> Tensor:
        """Linear CKA (N, S, K, K) of the tasks' features at every stage, on fixed training samples; a forward pass over them."""
        self.replicas.passes[charged, 0] += len(self._compared) / self.recipe.batch_size
        with torch.no_grad():
            trace = self._run(self._compared.expand(self.num_replicas, *self._compared.shape))
            return torch.stack([linear_cka(pooled(features)) for features in trace.features], dim=1)

    def gradient_cosines(self, charged: Tensor) -> Tensor:
        """Cosines (N, S, K, K) of the gradients of the tasks' losses with respect to the copies that they use, on the next batch.

        One backward pass gives them all, since every task's copy is gathered for itself.
        """
        self.replicas.passes[charged, 1] += 1
        losses, trace = self._traced()
        parts = torch.autograd.grad(losses.sum(), trace.copies, retain_graph=True)
        own = [functional.normalize(part.unflatten(0, (-1, self.recipe.num_tasks)), dim=2) for part in parts]
        return torch.stack([part @ part.mT for part in own], dim=1)

    def dissimilarity(self) -> Tensor:
        """One minus the mean CKA (N,) on the next batch, over the pairs of a group at the first stage that they do not share."""
        trace = self._traced()[1]
        pairs = together(self.replicas.groups).triu(1)
        places = torch.where(pairs, self.depths(), -1)
        similar = torch.stack([linear_cka(pooled(features)) for features in trace.features], dim=1).clamp(-1, 1)  # (N, S, K, K)
        chosen = places[:, None] == torch.arange(self.stages, device=places.device)[:, None, None]
        counts = chosen.flatten(1).sum(1)
        return torch.where(counts > 0, 1 - (similar * chosen).flatten(1).sum(1) / counts.clamp(min=1), 0)

    # --- merging ------------------------------------------------------------------------------------------------------------

    def merge(self, assign: Tensor, *, transfer: str, steps: int, average_moments: bool) -> None:
        """Puts a coarser structure in the place of the present one: a new copy for every group that begins to share a stage.

        Args:
            assign: (N, S, K); what is shared already stays shared.
            transfer: ``"average"``: the new copy is the mean of its tasks'; ``"imitate"``: from there on it learns to give each
                task the features that it had (:func:`~mtl_gym.training.imitation.imitate`); ``"none"``: it has the training's
                initial values.
            steps: Training batches of an imitation.
            average_moments: Whether the new copy's moments and number of updates are the means of its tasks', instead of 0.
        """
        choose("transfer", transfer, {name: name for name in TRANSFERS})
        for stage in range(self.stages):
            changed = self._changed(stage, assign)
            rows = changed.any(1).nonzero()[:, 0]
            if len(rows):
                lesson = self._lesson(stage, rows, changed, assign[:, stage], steps) if transfer == "imitate" else None
                self._replace(stage, assign[:, stage], changed, fresh=transfer == "none", average_moments=average_moments)
                if lesson:
                    own, size = self._parameters[stage].detach(), self.recipe.batch_size
                    own[rows] = imitate(lesson, own[rows], lr=self.recipe.lr, batch_size=size)
                self._forget()
        self._used.clear()

    def _changed(self, stage: int, assign: Tensor) -> Tensor:
        """The new copies (N, K) of a stage: they have tasks that did not share it before."""
        before, after = together(self.replicas.assign[:, stage]), together(assign[:, stage])
        grown = (before != after).any(2)  # tasks (N, K) with a new companion
        return torch.zeros_like(grown).scatter_reduce(1, assign[:, stage], grown, "amax", include_self=True)

    def _replace(self, stage: int, after: Tensor, changed: Tensor, *, fresh: bool, average_moments: bool) -> None:
        """Writes the new copies of a stage, and zeros in those that nobody uses any more."""
        replicas, num_tasks = self.replicas, self.recipe.num_tasks
        before = replicas.assign[:, stage].clone()
        members = (after[:, None] == torch.arange(num_tasks, device=after.device)[:, None]).float()  # (N, copies, K)
        shares = members / members.sum(2, keepdim=True).clamp(min=1)
        gone = ~members.any(2)
        start = sum(self.network.sizes[:stage]) * num_tasks
        place = slice(start, start + self.network.sizes[stage] * num_tasks)

        def renew(table: Tensor, new: Tensor | None) -> None:
            """A table (N, K, ...) of the copies."""
            shape = (-1, num_tasks, *[1] * (table.ndim - 2))
            own = table.gather(1, before.view(shape).expand_as(table)).flatten(2)
            means = (shares @ own).view_as(table) if new is None else new
            table.copy_(torch.where(changed.view(shape), means, torch.where(gone.view(shape), 0, table)))

        def view(table: Tensor) -> Tensor:
            return table[:, place].unflatten(1, (num_tasks, -1))

        renew(view(replicas.parameters), view(self._initial()) if fresh else None)
        nothing = torch.zeros_like(view(replicas.parameters))
        for moment in replicas.moments.unbind(1):
            renew(view(moment), None if average_moments else nothing)
        updates = replicas.updates[:, stage * num_tasks : (stage + 1) * num_tasks, None]
        renew(updates, None if average_moments else torch.zeros_like(updates))
        replicas.assign[:, stage] = after

    def _initial(self) -> Tensor:
        drawn = [self.network.initial(own.stream("parameters")) for own in self.instances if own]
        return torch.stack([torch.from_numpy(values) for values in drawn]).to(self.replicas.parameters)

    def _lesson(self, stage: int, rows: Tensor, changed: Tensor, after: Tensor, steps: int) -> Lesson:
        """What the new copies of a stage have to learn in some rows (R,), on their next ``steps`` training batches.

        Each batch counts as four forward passes (what the stage gave, learning, and two to compare) and a backward pass.
        """
        replicas = self.replicas
        self.replicas.passes[rows] += steps * torch.tensor([4.0, 1.0], device=rows.device)
        window = (replicas.step[rows, None] + torch.arange(steps, device=rows.device)) % replicas.order.shape[1]
        samples = replicas.order[rows[:, None], window].long().flatten(1)
        inputs = take(self._samples.splits["train"].inputs, samples)
        with torch.no_grad():
            own = [part[rows] for part in self._parameters[: stage + 1]]
            features = self.network.forward(own, inputs, replicas.assign[rows, : stage + 1]).features
        entering = inputs[:, None].expand(-1, self.recipe.num_tasks, *inputs.shape[1:]) if stage == 0 else features[stage - 1]
        users = after[rows]
        return Lesson(partial(self.network.run, stage), entering, features[stage], users, changed[rows].gather(1, users))

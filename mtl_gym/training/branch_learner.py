"""The learner of networks whose layers are merged: N trainings, each with a structure of its own."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mtl_gym.arguments import choose
from mtl_gym.training.branches import BranchedNetwork, Trace
from mtl_gym.training.learner import Learner
from mtl_gym.training.partitions import together
from mtl_gym.training.samples import spread, take
from mtl_gym.training.signals import linear_cka, pooled

COMPARED = 256
"""Training samples on which layers are compared; MTSL's are up to 800."""
CKA, GRADIENT, SHARE, DEPTH, OPEN = "cka", "gradient", "share", "depth", "open"
ASSIGN, GROUPS, BEGUN = "assign", "groups", "begun"
STRUCTURE = (ASSIGN, GROUPS, DEPTH, OPEN, BEGUN)
"""What can be known of a structure; see :meth:`BranchLearner.look`."""
TRANSFERS = ("imitate", "average", "none")


class BranchLearner(Learner):
    """N trainings that begin with networks of their own for every task, the same ones; see :class:`Learner`.

    ``replicas.assign`` says which copy of each stage a task uses, ``replicas.groups`` which tasks may still be merged with each
    other: the environment decides both, through :meth:`merge`.
    """

    network: BranchedNetwork
    alignment = 0.0
    """Factor of MTSL's alignment term, ``1 - mean CKA`` over the pairs of a group at the first stage that they do not share."""

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

    def look(self, needs: Collection[str], payers: Tensor) -> dict[str, Tensor]:
        """What is known of the structures.

        Args:
            needs: Names of what is wanted.
            payers: (N,) bool, the replicas for which passes are counted.

        Returns:
            By name: ``cka`` and ``gradient`` (N, S, K, K), see :meth:`similarities` and :meth:`gradient_cosines`; ``share`` (N,),
            see :meth:`share`; ``depth`` (N, K, K), see :meth:`depths`; ``open`` (N, K, K), whether two tasks are in one group and
            have stages that they do not share; ``assign`` (N, S, K) and ``groups`` (N, K), the replicas' own; ``begun`` (N,),
            whether a step has been taken: before that, all copies are the same.
        """
        computed: dict[str, Callable[[], Tensor]] = {
            CKA: lambda: self.similarities(payers),
            GRADIENT: self.gradient_cosines,
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

    def similarities(self, payers: Tensor) -> Tensor:
        """Linear CKA (N, S, K, K) of the tasks' features at every stage, on fixed training samples; a forward pass over them."""
        self.replicas.passes[payers, 0] += len(self._compared) / self.recipe.batch_size
        with torch.no_grad():
            trace = self._run(self._compared.expand(self.num_replicas, *self._compared.shape))
            return torch.stack([linear_cka(pooled(features)) for features in trace.features], dim=1)

    def gradient_cosines(self) -> Tensor:
        """Cosines (N, S, K, K) of the gradients of the tasks' losses with respect to the copies that they use, on the next batch.

        One backward pass gives them all, since every task's copy is gathered for itself; it is counted for nobody.
        """
        losses = self._graph()
        assert self._trace is not None
        parts = torch.autograd.grad(losses.sum(), self._trace.copies, retain_graph=True)
        own = [functional.normalize(part.unflatten(0, (-1, self.recipe.num_tasks)), dim=2) for part in parts]
        return torch.stack([part @ part.mT for part in own], dim=1)

    def dissimilarity(self) -> Tensor:
        """One minus the mean CKA (N,) on the next batch, over the pairs of a group at the first stage that they do not share."""
        self._graph()
        assert self._trace is not None
        pairs = together(self.replicas.groups).triu(1)
        places = torch.where(pairs, self.depths(), -1)
        similar = torch.stack([linear_cka(pooled(features)) for features in self._trace.features], dim=1)  # (N, S, K, K)
        chosen = places[:, None] == torch.arange(self.stages, device=places.device)[:, None, None]
        counts = chosen.flatten(1).sum(1)
        return torch.where(counts > 0, 1 - (similar * chosen).flatten(1).sum(1) / counts.clamp(min=1), 0)

    # --- merging ------------------------------------------------------------------------------------------------------------

    def merge(self, assign: Tensor, *, transfer: str, steps: int, average_moments: bool) -> None:
        """Puts a coarser structure in the place of the present one: a new copy for every group that begins to share a stage.

        Args:
            assign: (N, S, K); what is shared already stays shared.
            transfer: ``"average"``: the new copy is the mean of its tasks'; ``"imitate"``: from there on it learns to give each
                task the features that it had (:meth:`_imitate`); ``"none"``: it has the initial values of the training.
            steps: Training batches of an imitation.
            average_moments: Whether the new copy's moments and number of updates are the means of its tasks', instead of 0.
        """
        choose("transfer", transfer, {name: name for name in TRANSFERS})
        for stage in range(self.stages):
            changed = self._changed(stage, assign)
            if changed.any():
                targets = self._targets(stage, changed, steps) if transfer == "imitate" else None
                self._replace(stage, assign[:, stage], changed, fresh=transfer == "none", average_moments=average_moments)
                if targets:
                    self._imitate(stage, changed, *targets)
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

    def _targets(self, stage: int, changed: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """What enters and what leaves a stage, of every task, on the next ``steps`` training batches: each (N, K, steps B, ...)."""
        horizon = self.replicas.order.shape[1]
        window = (self.replicas.step[:, None] + torch.arange(steps, device=self._rows.device)) % horizon
        samples = self.replicas.order[self._rows[:, None], window].long().flatten(1)
        inputs = take(self._samples.splits["train"].inputs, samples)
        rows = changed.any(1)
        self.replicas.passes[rows] += 2 * steps * torch.tensor([1.0, 0.5], device=rows.device)  # one to see, one to learn
        with torch.no_grad():
            features = self._run(inputs).features
        before = inputs[:, None].expand(-1, self.recipe.num_tasks, *inputs.shape[1:]) if stage == 0 else features[stage - 1]
        return before, features[stage]

    def _imitate(self, stage: int, changed: Tensor, inputs: Tensor, targets: Tensor) -> None:
        """Trains the new copies of a stage, and adapters that are dropped, to give each task the features that it had.

        A copy is kept only if it has come closer than the mean without its adapters: of equal stages the mean is exact.
        """
        num_tasks, batch = self.recipe.num_tasks, self.recipe.batch_size
        copies = self._parameters[stage].detach().clone().requires_grad_()
        channels = targets.shape[3]
        slopes = copies.new_zeros(len(copies), num_tasks, channels, channels).requires_grad_()
        offsets = copies.new_zeros(len(copies), num_tasks, 1, channels).requires_grad_()
        places = (self._rows[:, None] * num_tasks + self.replicas.assign[:, stage]).flatten()
        learning = changed.gather(1, self.replicas.assign[:, stage]).float()  # (N, K)
        optimizer = torch.optim.Adam([copies, slopes, offsets], lr=self.recipe.lr)
        for part, wanted in zip(inputs.split(batch, dim=2), targets.split(batch, dim=2), strict=True):
            gathered = copies.flatten(0, 1).index_select(0, places)
            features = self.network.run(stage, gathered, part.flatten(0, 1)).unflatten(0, (-1, num_tasks))
            loss = (imitation_loss(wanted, features, slopes, offsets) * learning).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            own = self._parameters[stage]
            errors = [
                self._distances(stage, table.flatten(0, 1).index_select(0, places), inputs, targets) for table in (copies, own)
            ]
            closer = self._of_copies(stage, (errors[0] - errors[1]) * learning) < 0
            own.copy_(torch.where((changed & closer)[:, :, None], copies, own))

    def _distances(self, stage: int, copies: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        """Mean squared errors (N, K) of a stage with these copies (N K, size), against what each task had."""
        features = self.network.run(stage, copies, inputs.flatten(0, 1)).view_as(targets)
        return (features - targets).square().flatten(2).mean(2)

    def _of_copies(self, stage: int, values: Tensor) -> Tensor:
        """Sums (N, K) over the tasks that use each copy of a stage, from values (N, K) of tasks."""
        return torch.zeros_like(values).scatter_add(1, self.replicas.assign[:, stage], values)


def imitation_loss(targets: Tensor, features: Tensor, slopes: Tensor, offsets: Tensor) -> Tensor:
    """MTSL's transfer: mean squared errors (N, K) of a group's features, scaled channel by channel, against each task's own.

    ``MSE(F_k, c_k(pool(F_g)) * F_g)`` with the channel adapter ``c_k(p) = 1 + p A_k + b_k``, which begins as the identity.

    Args:
        targets: F_k (N, K, B, C, ...).
        features: F_g, likewise.
        slopes: A (N, K, C, C).
        offsets: b (N, K, 1, C).
    """
    scales = 1 + pooled(features) @ slopes + offsets  # (N, K, B, C)
    scaled = scales.view(*scales.shape, *[1] * (features.ndim - 4)) * features
    return functional.mse_loss(scaled, targets, reduction="none").flatten(2).mean(2)

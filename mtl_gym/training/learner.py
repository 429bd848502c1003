"""The learner: N trainings of one problem, stepped together, given weights. It never chooses weights.

Replicas do not interact, so the gradient of the sum over replicas is every replica's own gradient: plain autograd serves N
trainings at once. Parameters lie in one (N, P) buffer; what autograd sees are views of it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from mtl_gym.arguments import choose, should
from mtl_gym.problems.base import Problem, Split
from mtl_gym.problems.instances import Instance
from mtl_gym.problems.metrics import task_metrics
from mtl_gym.training.networks import NETWORKS
from mtl_gym.training.objectives import Objectives
from mtl_gym.training.optim import LR_SCHEDULES, OPTIMIZERS
from mtl_gym.training.recipe import Recipe as Recipe
from mtl_gym.training.replicas import Replicas
from mtl_gym.training.samples import Samples, check_labels, noisy_splits, take

_CHUNK = 1024  # samples of a split that are evaluated at once


class Learner:
    """N trainings of one problem.

    Args:
        problem: The problem.
        recipe: How every replica is trained.
        num_replicas: N.
        gradient_ema: Share of the past in a moving average of each task's gradient of the shared parameters, which then takes the
            gradient's place in every step and Gram matrix; 0 averages nothing.

    Raises:
        ValueError: If the smallest training set that the distribution allows is smaller than a batch.
    """

    def __init__(self, problem: Problem, recipe: Recipe, num_replicas: int, *, gradient_ema: float = 0.0) -> None:
        self.problem, self.recipe, self.num_replicas, self.gradient_ema = problem, recipe, num_replicas, gradient_ema
        smallest = round(len(problem.splits["train"]) * recipe.distribution["size"][0])
        if smallest < recipe.batch_size:
            raise ValueError(should("batch_size", f"be at most {smallest}, the smallest training set", recipe.batch_size))
        check_labels(problem, recipe)
        self.network = self._network()
        self.instances: list[Instance | None] = [None] * num_replicas
        self.replicas = Replicas.empty(
            num_replicas,
            size=self.network.size,
            buffers=OPTIMIZERS[recipe.optimizer].buffers,
            train_steps=recipe.train_steps,
            batch_size=recipe.batch_size,
            num_tasks=recipe.num_tasks,
            sources=noisy_splits(problem, recipe),
            samples=self.remembered,
            blocks=len(self._blocks),
            stages=self.stages,
            averaged=self._shared if gradient_ema else 0,
            device=torch.device(recipe.device),
        )
        self._link()

    @property
    def remembered(self) -> int:
        """Training samples whose losses are remembered, n: none, where whole tasks are weighted."""
        return 0

    @property
    def stages(self) -> int:
        """Stages of which each task has a copy, S: none, where all tasks share the trunk."""
        return 0

    def _network(self) -> Any:
        return choose("network", self.problem.network, NETWORKS)(self.problem, self.recipe.hidden_sizes)

    @property
    def _blocks(self) -> list[int]:
        """Sizes of the pieces of a row of parameters that are optimised by themselves."""
        return [self.network.size]

    def _outputs(self, inputs: Tensor) -> Tensor:
        """Outputs (N, B, O, *S) of all heads, from inputs (N, B, *shape)."""
        outputs: Tensor = self.network.forward(self._parameters, inputs)
        return outputs

    def _link(self) -> None:
        """Makes all that follows from the problem and the replicas: data on the device, and the views that autograd sees."""
        device = self.replicas.parameters.device
        self._samples = Samples(self.problem, self.recipe)
        self._objectives = Objectives(self.problem, self.recipe.tasks, device)
        self._rows = torch.arange(self.num_replicas, device=device)
        self._gradient = torch.zeros_like(self.replicas.parameters)
        self._parameters = [part.detach().requires_grad_() for part in self._views(self.replicas.parameters)]
        optimised = (self.replicas.parameters, self._gradient, *self.replicas.moments.unbind(1))
        pieces = [[piece for row in tensor.unbind(0) for piece in row.split(self._blocks)] for tensor in optimised]
        self._pieces = [*pieces, list(self.replicas.updates.flatten())]  # each piece of a row is one tensor to the optimiser
        self._forget()

    @property
    def _shared(self) -> int:
        """Number of the shared parameters of one replica, which come first."""
        return sum(math.prod(shape) for shape in self.network.shapes[: self.network.shared])

    def _forget(self) -> None:
        """Drops what has been computed of the batch that is about to be trained on."""
        self._pending: Tensor | None = None
        self._gradients: Tensor | None = None

    def _views(self, flat: Tensor) -> list[Tensor]:
        """A table (N, P) as the network's parameters, each (N, *shape)."""
        sizes = [math.prod(shape) for shape in self.network.shapes]
        return [part.unflatten(1, shape) for part, shape in zip(flat.split(sizes, dim=1), self.network.shapes, strict=True)]

    def __getstate__(self) -> dict[str, Any]:
        # The pending graph is not kept: it is computed again, bit for bit, from the same parameters.
        kept = ("problem", "recipe", "num_replicas", "gradient_ema", "instances", "replicas")
        return {name: self.__dict__[name] for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.network = self._network()
        self._link()

    def begin(self, rows: Iterable[int], ids: Iterable[int]) -> None:
        """Starts the trainings of these instances in these rows; the other rows are left as they are, bit for bit."""
        for row, id in zip(rows, ids, strict=True):
            self.instances[row] = instance = self.recipe.draw(self.problem, id)
            self.replicas.begin(row, instance, self.problem, self.network, self._samples.holdouts)
        self._forget()

    def forward(self) -> Tensor:
        """Losses (N, K) of the batch that is about to be trained on; computed once, and reused by :meth:`update`."""
        return self._graph().detach()

    def probe(self, needs: Collection[str], charged: Tensor) -> dict[str, Tensor]:
        """What else is known of the trainings, by the names that are needed: nothing, but in subclasses."""
        return {}

    def update(self, weights: Tensor, active: Tensor) -> None:
        """Trains each active replica for one step on the weighted sum of its losses.

        Args:
            weights: (N, K), applied as they are.
            active: (N,) bool; other rows are not touched.
        """
        if self.gradient_ema:
            self.update_apart(weights, weights, active)
            return
        losses = self._graph()
        self._descend(losses, weights, active)
        self._record(losses.detach(), weights, active)

    def update_apart(self, weights: Tensor, head_weights: Tensor, active: Tensor) -> None:
        """Trains each active replica for one step with one weight of a task's loss in the shared parameters and one in its head.

        The step is made of the K gradients that :meth:`gramian` is made of, and costs nothing beyond them.

        Args:
            weights: (N, K), applied in the shared parameters alone, as they are.
            head_weights: (N, K), applied in the heads alone, as they are.
            active: (N,) bool; other rows are not touched.
        """
        losses = self.forward()
        shared, heads = self._task_gradients(active).tensor_split([self._shared], dim=2)  # (N, K, Q) and (N, K, P - Q)
        torch.cat([weights[:, None] @ shared, head_weights[:, None] @ heads], dim=2, out=self._gradient[:, None])
        if self.gradient_ema:
            self.replicas.averages[active] = shared[active]
        self._step(active)
        self._record(losses, weights, active, backward=0)

    def _descend(self, losses: Tensor, weights: Tensor, rows: Tensor) -> None:
        """One optimiser step of the rows (N,) bool on the weighted sum of losses with their graph, both (N, ...)."""
        gradients = torch.autograd.grad(losses, self._parameters, grad_outputs=weights)
        torch.cat([gradient.flatten(1) for gradient in gradients], dim=1, out=self._gradient)
        self._step(rows)

    def _step(self, rows: Tensor) -> None:
        """One step of the optimiser, in the rows (N,) bool, along the gradient that has been computed."""
        self._forget()
        self._optimise([row for row, plays in enumerate(rows.tolist()) if plays])

    def _record(self, losses: Tensor, weights: Tensor, active: Tensor, backward: int = 1) -> None:
        """Keeps the tasks' losses and weights (N, K) of the step that has been taken, and counts it and its passes."""
        replicas, steps = self.replicas, self.replicas.step.tolist()
        chosen = [row for row, plays in enumerate(active.tolist()) if plays]
        together = len(chosen) == self.num_replicas and len(set(steps)) == 1  # the usual case, which needs no index tensors
        rows = slice(None) if together else chosen
        columns = steps[0] if together else [steps[row] for row in chosen]
        replicas.losses[rows, columns] = losses[rows]
        replicas.weights[rows, columns] = weights[rows]
        replicas.step += active
        replicas.passes += active[:, None] * torch.tensor([1, backward], device=active.device)

    def _optimise(self, chosen: list[int]) -> None:
        recipe, optimizer, rates = self.recipe, OPTIMIZERS[self.recipe.optimizer], self._rates()
        for lr in {rates[row] for row in chosen}:
            numbers = [number for row in chosen if rates[row] == lr for number in self._numbers(row)]
            parameters, gradients, *buffers, updates = [[pieces[number] for number in numbers] for pieces in self._pieces]
            optimizer.update(
                parameters, gradients, buffers, updates, lr=lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
            )

    def _numbers(self, row: int) -> Sequence[int]:
        """The pieces of a row that are trained."""
        return (row,)

    def _rates(self) -> list[float]:
        factor, train_steps = LR_SCHEDULES[self.recipe.lr_schedule], self.recipe.train_steps
        return [self.recipe.lr * factor(step / train_steps) for step in self.replicas.step.tolist()]

    def finite(self) -> Tensor:
        """Whether all parameters of a replica are finite (N,)."""
        return torch.isfinite(self.replicas.parameters.sum(1))

    def lr(self) -> Tensor:
        """The learning rate (N,) of the next step."""
        return torch.tensor(self._rates(), device=self._rows.device)

    def epoch(self) -> Tensor:
        """The epoch (N,) of the next step, from 0."""
        return self.replicas.step // self.steps_per_epoch()

    def steps_per_epoch(self) -> Tensor:
        """Batches (N,) of an epoch."""
        sizes = [1 if instance is None else len(instance.rows) // self.recipe.batch_size for instance in self.instances]
        return torch.tensor(sizes, device=self._rows.device)

    def last_batch(self, charged: Tensor) -> Tensor:
        """Losses (N, K), as they are now, of the batch that was trained on last: one forward pass, counted for ``charged`` (N,)."""
        self.replicas.passes[charged, 0] += 1
        with torch.no_grad():
            return self._batch_losses((self.replicas.step - 1).clamp(min=0))

    def holdout(self, splits: Sequence[str], charged: Tensor) -> dict[str, Tensor]:
        """Losses (N, K) on the fixed samples of *meta* or *reward*, by the name of the split: one forward pass for all.

        Args:
            splits: Names of the splits.
            charged: (N,) bool, the replicas for which the passes are counted.
        """
        parts = self._samples.holdout_inputs(splits)
        inputs = torch.cat(parts)
        self.replicas.passes[charged, 0] += len(inputs) / self.recipe.batch_size
        with torch.no_grad():
            outputs = self._outputs(inputs.expand(self.num_replicas, *inputs.shape))
            labels = [self._samples.holdout_labels(name, self.num_replicas, self.replicas.sources) for name in splits]
            losses = self._objectives.parts(outputs, torch.cat(labels, dim=1), [len(part) for part in parts])
        return {name: self._scaled(own) for name, own in zip(splits, losses, strict=True)}

    def sample_losses(self) -> Tensor:
        """Losses (N, B, all tasks) of each sample of the batch that is about to be trained on, without the instances' scales.

        Those of tasks that cannot take part are 0.
        """
        samples = self.replicas.order[self._rows, self.replicas.step]
        with torch.no_grad():
            outputs = self._outputs(take(self._samples.splits["train"].inputs, samples))
            return self._objectives.samples(outputs, self._samples.labels("train", samples, samples, self.replicas.sources))

    def gramian(self, charged: Tensor) -> Tensor:
        """Inner products (N, K, K) of the gradients of the tasks' losses on the batch that is about to be trained on.

        With respect to the shared parameters (zeros, if there are none); of averages under ``gradient_ema``. K backward passes,
        counted once a batch for ``charged`` (N,).
        """
        shared = self._task_gradients(charged)[:, :, : self._shared]
        return shared @ shared.transpose(1, 2)

    def _task_gradients(self, charged: Tensor) -> Tensor:
        """Gradients (N, K, P) of the tasks' losses on the pending batch, those of the shared parameters averaged."""
        if self._gradients is None:
            parts = [torch.autograd.grad(own.sum(), self._parameters, retain_graph=True) for own in self._graph().unbind(1)]
            self._gradients = torch.stack([torch.cat([part.flatten(1) for part in own], dim=1) for own in parts], dim=1)
            if self.gradient_ema:
                own, past = self._gradients[:, :, : self._shared], self.replicas.averages
                begun = (self.replicas.step > 0)[:, None, None]
                own.copy_(torch.where(begun, self.gradient_ema * past + (1 - self.gradient_ema) * own, own))
        unpaid = charged & (self.replicas.differentiated <= self.replicas.step)
        self.replicas.passes[unpaid, 1] += self.recipe.num_tasks
        self.replicas.differentiated[unpaid] = self.replicas.step[unpaid] + 1
        return self._gradients

    def metrics(self, split: str | Split) -> dict[str, Tensor]:
        """Metrics (N,) on a whole split by ``task/metric``, for all of the problem's tasks; not counted as a cost."""
        chosen = self._samples.splits[split] if isinstance(split, str) else split
        outputs, targets = self.outputs(chosen), chosen.targets.to(self._rows.device)
        return task_metrics(self.problem, outputs.movedim(1, 2).flatten(2), targets.movedim(0, 1).flatten(1))  # (N, O, M), (T, M)

    def outputs(self, split: Split) -> Tensor:
        """Outputs (N, n, O, *S) of all heads on a whole split; not counted as a cost."""
        with torch.no_grad():
            inputs = split.inputs.to(self._rows.device).split(_CHUNK)
            return torch.cat([self._outputs(part.expand(self.num_replicas, *part.shape)) for part in inputs], dim=1)

    def metric_names(self, row: int) -> list[str]:
        """Names ``task/metric`` of the metrics of the tasks that take part in a row's instance."""
        tasks = [self.problem.tasks[task] for task in self.replicas.tasks[row].tolist()]
        return [f"{task.name}/{metric}" for task in tasks for metric in task.metrics]

    def _graph(self) -> Tensor:
        """The pending losses (N, K) with their graph."""
        if self._pending is None:
            self._pending = self._batch_losses(self.replicas.step)
        return self._pending

    def _batch_losses(self, step: Tensor) -> Tensor:
        steps, order = step.tolist(), self.replicas.order
        together = len(set(steps)) == 1
        samples = order[:, steps[0]] if together else order[self._rows, step]  # (N, B)
        alike = together and len({instance and instance.id for instance in self.instances}) == 1  # read once, they are faster
        inputs = take(self._samples.splits["train"].inputs, samples[:1] if alike else samples)
        inputs = inputs.expand(self.num_replicas, *inputs.shape[1:])
        labels = self._samples.labels("train", samples, samples, self.replicas.sources)
        losses = self._scaled(self._mean_losses(self._outputs(inputs), labels))
        return losses if self.problem.complete else self._carried(losses, labels, step)

    def _mean_losses(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Losses (N, all tasks) of a batch, from its outputs and labels."""
        return self._objectives.parts(outputs, labels, [outputs.shape[1]])[0]

    def _carried(self, losses: Tensor, labels: Tensor, step: Tensor) -> Tensor:
        """Where a batch has no label of a task, the task's last known loss (its scale, before the first), without a gradient."""
        last = self.replicas.losses[self._rows, (step - 1).clamp(min=0)]
        last = torch.where(step[:, None] > 0, last, self.replicas.scales)
        return torch.where(self._samples.absent(labels).gather(1, self.replicas.tasks), last, losses)

    def _scaled(self, losses: Tensor) -> Tensor:
        """Scaled losses (N, K) of the tasks that take part, from those of all tasks."""
        in_order = self.recipe.num_tasks == self.problem.num_tasks and self.recipe.main_task is None
        return (losses if in_order else losses.gather(1, self.replicas.tasks)) * self.replicas.scales

    def state(self) -> dict[str, Any]:
        """A copy of all that the trainings are: parameters, optimiser, data order, counters and instances."""
        return {"instances": list(self.instances), **{name: tensor.clone() for name, tensor in self.replicas.tensors().items()}}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes back to a :meth:`state` of a learner with the same arguments; what follows is the same bit for bit."""
        self.replicas.load(state)
        self.instances = list(state["instances"])
        self._forget()

    def fork(self, source: Sequence[int], target: Sequence[int]) -> None:
        """Makes each row of ``target`` a copy of the row of ``source`` at the same place."""
        self.replicas.copy_rows(source, target)
        for copy, original in zip(target, [self.instances[row] for row in source], strict=True):
            self.instances[copy] = original
        self._forget()

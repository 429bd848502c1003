"""The learner whose weights are of samples: N trainings given a weight for every sample and task of a batch.

B is the batch size. Alignments come of one forward-mode pass for all samples, tasks and replicas: the inner product of a sample's
gradient with a vector v is the derivative of its loss along v (Gregoire, Chaudhary and Verboven, arXiv 2306.04519, compute it by
B K backward passes).
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional

from mtl_gym.problems.losses import times
from mtl_gym.training.learner import Learner
from mtl_gym.training.objectives import Objectives
from mtl_gym.training.samples import take

LOSS, MEAN, ALIGNMENT, COSINE, RIGHT, MAIN = "loss", "mean", "alignment", "cosine", "right", "main"
"""What can be known of the samples of a batch; see :meth:`SampleLearner.probe`."""


@functools.cache
def _load_forward_mode() -> None:
    """Lets torch load its forward-mode rules, once, without its warning that it compiles them by a deprecated function."""
    with warnings.catch_warnings(), forward_ad.dual_level():
        warnings.simplefilter("ignore", DeprecationWarning)
        forward_ad.make_dual(torch.zeros(1), torch.zeros(1))


class SampleLearner(Learner):
    """N trainings of one problem with a main task, the first of the tasks; arguments as for :class:`Learner`."""

    _probes: dict[str, Tensor]
    _sample_graph: Tensor | None
    _labels: Tensor
    _labelled: Tensor | None
    _aligned: bool

    @property
    def remembered(self) -> int:
        """Training samples whose losses are remembered, n: all."""
        return len(self.problem.splits["train"])

    def _link(self) -> None:
        super()._link()
        _load_forward_mode()
        self._objectives = Objectives(self.problem, self.recipe.tasks, self._rows.device, dual=True)
        names = [task.name for task in self.problem.tasks]
        self._main = names.index(self.recipe.main_task or names[0])
        self._of_main = Objectives(self.problem, (names[self._main],), self._rows.device, alone=True)
        self._forget()

    def _forget(self) -> None:
        super()._forget()
        self._sample_graph, self._aligned, self._probes = None, False, {}

    def probe(self, needs: Collection[str], charged: Tensor) -> dict[str, Tensor]:
        """What the batch that is about to be trained on shows; computed once, and reused by :meth:`update_samples`.

        Args:
            needs: Names of what is wanted.
            charged: (N,) bool, the replicas for which the passes beyond a training step's are counted.

        Returns:
            By name, all but the last (N, B, K) and with the instances' scales: ``loss``, of each sample; ``mean``, of each sample's
            losses in all batches so far and in this one; ``alignment``, the inner product of the sample's gradient with that of the
            main task's loss on *meta*, over the latter's norm, both with respect to the shared parameters; ``cosine``, of the two;
            ``right``, 1 where the label is the true one and 0 elsewhere; ``main`` (N,), the main task's loss on *meta*.
        """
        aligned = bool({ALIGNMENT, COSINE, MAIN} & set(needs))
        if self._sample_graph is None or (aligned and not self._aligned):
            self._pass(aligned, charged)
        computed: dict[str, Callable[[], Tensor]] = {MEAN: self._means, RIGHT: self._right, COSINE: lambda: self._cosines(charged)}
        for name, compute in computed.items():
            if name in needs and name not in self._probes:
                self._probes[name] = compute()
        return {name: self._probes[name] for name in needs}

    def update(self, weights: Tensor, active: Tensor) -> None:
        """Trains with weights (N, K) of whole tasks; see :meth:`Learner.update`."""
        self.update_samples(weights[:, None].expand(-1, self.recipe.batch_size, -1), active)

    def update_samples(self, weights: Tensor, active: Tensor) -> None:
        """Trains each active replica for one step on ``sum_k mean_i w_ik l_ik``; one whose weights are all 0 only counts the step.

        Args:
            weights: (N, B, K), applied as they are; ones are equal weighting. Means are over the samples with a label.
            active: (N,) bool; other rows are not touched.
        """
        losses = self._losses_now()
        counting = weights if self._labelled is None else weights * self._labelled
        means, counts = self._mean(losses.detach()), self._counts()
        self._remember(active)
        self._descend(losses, counting / counts, active & (weights != 0).flatten(1).any(1))
        self._record(means, counting.sum(1) / counts[:, 0], active)
        self._forget()

    def forward(self) -> Tensor:
        """Losses (N, K) of the batch that is about to be trained on: means of its samples'."""
        return self._graph().detach()

    def _graph(self) -> Tensor:
        return self._mean(self._losses_now())

    def _mean(self, losses: Tensor) -> Tensor:
        """Means (N, K) of losses (N, B, K), 0 elsewhere, over the samples with a label; the last known one where none has."""
        means = losses.sum(1) / self._counts()[:, 0]
        return means if self._labelled is None else self._carried(means, self._labels, self.replicas.step)

    def _counts(self) -> Tensor:
        """Numbers of samples with a label (N, 1, K), or (1, 1, 1) where all have one; at least 1."""
        if self._labelled is None:
            return torch.full((1, 1, 1), float(self.recipe.batch_size), device=self._rows.device)
        return self._labelled.sum(1, keepdim=True).clamp(min=1)

    def _losses_now(self) -> Tensor:
        """The pending losses (N, B, K) with their graph."""
        if self._sample_graph is None:
            self._pass(False, torch.zeros_like(self._rows, dtype=torch.bool))
        return cast(Tensor, self._sample_graph)

    def begin(self, rows: Iterable[int], ids: Iterable[int]) -> None:
        """Starts trainings; see :meth:`Learner.begin`."""
        super().begin(rows, ids)
        self._forget()

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"paid": tuple(self._probes)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({name: own for name, own in state.items() if name != "paid"})
        self._probe_again(state["paid"])

    def state(self) -> dict[str, Any]:
        """A copy of all that the trainings are; see :meth:`Learner.state`."""
        return super().state() | {"paid": tuple(self._probes)}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes back to a state; see :meth:`Learner.restore`."""
        super().restore({name: own for name, own in state.items() if name != "paid"})
        self._probe_again(state["paid"])

    def fork(self, source: Sequence[int], target: Sequence[int]) -> None:
        """Copies rows; see :meth:`Learner.fork`."""
        super().fork(source, target)
        self._probe_again(tuple(self._probes))

    def _probe_again(self, names: Collection[str]) -> None:
        """Computes once more what was known of the batch; its passes have been counted."""
        self._forget()
        if names:
            self.probe(names, torch.zeros_like(self._rows, dtype=torch.bool))

    def _batch(self) -> Tensor:
        """The samples (N, B) of the batch that is about to be trained on."""
        return self.replicas.order[self._rows, self.replicas.step].long()

    def _pass(self, aligned: bool, charged: Tensor) -> None:
        """One forward pass over the batch: its losses with their graph and, in forward mode, the alignments."""
        samples = self._batch()
        inputs = take(self._samples.splits["train"].inputs, samples)
        self._labels = self._samples.labels("train", samples, samples, self.replicas.sources)
        self._labelled = None if self.problem.complete else self._samples.known(self._labels, self.replicas.tasks)
        if not aligned:
            self._sample_graph = self._losses_of(self._parameters, inputs)
        else:
            direction, main = self._direction(charged)
            with forward_ad.dual_level():
                # Heads have tangents too, of zeros: where one factor has none, torch interprets the rule of a product in Python.
                pairs = zip(self._parameters, direction, strict=True)
                losses = self._losses_of([forward_ad.make_dual(own, along) for own, along in pairs], inputs)
                self._sample_graph, tangents = forward_ad.unpack_dual(losses)
            self._probes |= {ALIGNMENT: torch.zeros_like(losses) if tangents is None else tangents.detach(), MAIN: main}
            self.replicas.passes[charged, 0] += 1  # the tangents cost as much as the values
        self._probes[LOSS], self._aligned = self._sample_graph.detach(), aligned

    def _losses_of(self, parameters: list[Tensor], inputs: Tensor) -> Tensor:
        """Scaled losses (N, B, K) of the samples, by the tasks that take part; 0 where one has no label."""
        losses = self._objectives.samples(self.network.forward(parameters, inputs), self._labels)
        tasks = self.replicas.tasks[:, None].expand(-1, losses.shape[1], -1)
        return times(losses.gather(2, tasks), self.replicas.scales[:, None])

    def _direction(self, charged: Tensor) -> tuple[list[Tensor], Tensor]:
        """The gradient of the main task's loss on *meta*, of the shared parameters, with norm 1 (0, where it vanishes).

        By parameters; those of the heads are zeros. And that loss (N,).
        """
        inputs = self._samples.holdout_inputs(["meta"])[0]
        everywhere = inputs.expand(self.num_replicas, *inputs.shape)
        outputs = self.network.outputs(self._parameters, everywhere, self.problem.output_slices[self._main])
        labels = self._samples.holdout_labels("meta", self.num_replicas, self.replicas.sources)
        targets = labels[:, :, self.problem.target_slices[self._main]]
        main = self._of_main.parts(outputs, targets, [len(inputs)])[0][:, 0] * self.replicas.scales[:, 0]
        self.replicas.passes[charged] += len(inputs) / self.recipe.batch_size
        flat = torch.zeros_like(self.replicas.parameters)
        if self.network.shared:
            parts = torch.autograd.grad(main.sum(), self._parameters[: self.network.shared])
            joined = torch.cat([part.flatten(1) for part in parts], dim=1)
            flat[:, : joined.shape[1]] = functional.normalize(joined, dim=1, eps=1e-30)
        return self._views(flat), main.detach()

    def _cosines(self, charged: Tensor) -> Tensor:
        """Alignments over the norms of the samples' gradients: B K backward passes over one sample each."""
        losses = self._losses_now()
        if not self.network.shared:
            return torch.zeros_like(self._probes[ALIGNMENT])
        squares = torch.zeros_like(losses)
        for sample in range(losses.shape[1]):
            for task in range(losses.shape[2]):
                own = losses[:, sample, task].sum()
                parts = torch.autograd.grad(own, self._parameters[: self.network.shared], retain_graph=True)
                squares[:, sample, task] = sum(part.flatten(1).square().sum(1) for part in parts)
        self.replicas.passes[charged, 1] += losses.shape[1] * losses.shape[2]
        norms = squares.detach().sqrt()
        return torch.where(norms > 0, self._probes[ALIGNMENT] / norms.clamp(min=1e-30), 0).clamp(-1, 1)

    def _means(self) -> Tensor:
        samples, rows = self._batch(), self._rows[:, None]
        sums, visits = self.replicas.seen[rows, samples], self.replicas.visits[rows, samples]
        return (sums + self._probes[LOSS]) / (visits + 1)[:, :, None]

    def _remember(self, active: Tensor) -> None:
        """Adds the batch's losses to those of its samples, in the active rows."""
        places = (self._rows[:, None] * self.remembered + self._batch()).flatten()
        rows = active.to(self.replicas.visits.dtype)[:, None].expand(-1, self.recipe.batch_size)
        losses = torch.where(active[:, None, None], self._probes[LOSS], 0)
        self.replicas.seen.view(-1, losses.shape[2]).index_add_(0, places, losses.flatten(0, 1))
        self.replicas.visits.view(-1).index_add_(0, places, rows.flatten())

    def _right(self) -> Tensor:
        """Whether the labels that the batch bears are its own (N, B, K), as numbers."""
        own = take(self._samples.splits["train"].targets, self._batch())
        same = ((own == self._labels) | torch.isnan(own)).flatten(3).all(3) if own.ndim > 3 else (own == self._labels) | own.isnan()
        return self._samples.by_task(same, self.replicas.tasks).to(self._probes[LOSS].dtype)

"""The decisions of a policy over samples in one training: from the losses of a batch's samples to their weights.

B samples of a batch, K tasks, the main one first.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mtl_gym.balancing.course import Course
from mtl_gym.balancing.given import Seen
from mtl_gym.balancing.memory import check_shapes
from mtl_gym.decisions.sample_rules import ALIGNMENT, LABELLED, LOSS, MEAN, RIGHT, SampleWeighing, mean
from mtl_gym.training.probes import View

_OWN = ("last", "total", "sums", "visits")


class SampleDecisions:
    """The weights of one training's samples.

    Args:
        course: The policy and its training.
        num_tasks: K.

    Attributes:
        loop: What is known of the training.
        needs: Measurements that every step needs; a decision may need more.
        actions: (1, A) of the last decision; ``None`` before the first.
        sums, visits: (n, K) and (n,) by sample id: sums of its losses in the batches so far, and numbers of those batches.
    """

    def __init__(self, course: Course, num_tasks: int) -> None:
        self._course, self.loop, self._num_tasks = course, course.loop, num_tasks
        self.needs = frozenset(self.weighing(1).needs)
        self.actions: Tensor | None = None
        self.last, self.total = torch.ones(1, num_tasks), torch.zeros(1, num_tasks)  # mean weights of a decision
        self.sums, self.visits = torch.zeros(0, num_tasks), torch.zeros(0)

    @functools.lru_cache(maxsize=8)  # noqa: B019  (a balancer lives as long as its training)
    def weighing(self, batch_size: int) -> SampleWeighing:
        """How actions become weights of batches of this size."""
        return SampleWeighing(**self._course.decider.arguments, batch_size=batch_size, num_tasks=self._num_tasks)

    def required(self) -> frozenset[str]:
        """Measurements of the samples that the next batch needs."""
        of_samples = {LOSS, MEAN, ALIGNMENT, RIGHT, LABELLED}
        return self.needs | (self._course.decider.needs & of_samples if self.loop.due else set())

    def means(self, losses: Tensor, ids: Tensor) -> Tensor:
        """Means (1, B, K) of the losses of the samples with these ids (B,) in all of their batches up to this one."""
        self._grow(int(ids.max()) + 1)
        return (self.sums[ids] + losses[0])[None] / (self.visits[ids] + 1)[None, :, None]

    def _grow(self, count: int) -> None:
        if (missing := count - len(self.visits)) > 0:
            self.sums = torch.cat([self.sums, self.sums.new_zeros(missing, self._num_tasks)])
            self.visits = torch.cat([self.visits, self.visits.new_zeros(missing)])

    def decide(self, seen: Seen, samples: Mapping[str, Tensor], gramian: Tensor | None) -> Tensor:
        """Weights (1, B, K) of a batch with these losses (K,), given the measurements (1, B, K) of its samples."""
        loop, weighing = self.loop, self.weighing(samples[LOSS].shape[1])
        loop.arrive(seen)
        if loop.due or self.actions is None:
            view = loop.view(gramian, self.last)
            known = View({**view.now, **samples}, view.previous, view.history, view.progress)
            self.actions = self._course.decider.ask(known, weighing.space)
            loop.decided(view)
            self.total = torch.zeros_like(self.total)
        return weighing.weights(self.actions, samples)

    def count(self, seen: Seen, weights: Tensor, samples: Mapping[str, Tensor], ids: Tensor | None) -> None:
        """Counts a step on a batch with these losses and weights."""
        self.total = self.total + mean(weights, samples[LABELLED], (1,))
        if ids is not None:
            self._grow(int(ids.max()) + 1)
            self.sums.index_add_(0, ids, samples[LOSS][0])
            self.visits.index_add_(0, ids, torch.ones(len(ids)))
        self.loop.stepped(seen)
        if self.loop.due:
            self.last = self.total / self.loop.steps

    def _check_sums(self, own: Mapping[str, Tensor]) -> None:
        """Raises ``ValueError`` if sums are of another number of samples than visits, of which there may be any."""
        visits = own.get("visits")
        check_shapes(own, {"visits": self.visits if visits is None else visits.flatten()})
        check_shapes(own, {"sums": self.sums.new_empty(len(own["visits"]), self._num_tasks)})

    def state(self) -> dict[str, Any]:
        """See :meth:`Course.state`."""
        actions = {} if self.actions is None else {"actions": self.actions}
        return self._course.state({}, {name: getattr(self, name) for name in _OWN} | actions)

    def load(self, state: Mapping[str, Any]) -> None:
        """See :meth:`Course.load`."""
        own = self._course.load(state, (), {"last": self.last, "total": self.total}, check=self._check_sums)[1]
        for name in _OWN:
            setattr(self, name, own[name])
        self.actions = own.get("actions")

"""Maps actions to sample weights; only this module normalises them. N rows, B samples per batch, K tasks, the main one first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from gymnasium.spaces import Box
from torch import Tensor
from torch.nn import functional

from mtl_gym.checks import choose, number, positive_int, several, should
from mtl_gym.policies.protocol import WEIGHT_BOUND

LOSS, MEAN, ALIGNMENT, COSINE, RIGHT, MAIN = "loss", "mean", "alignment", "cosine", "right", "main"
LABELLED = "labelled"
"""Measurements of a batch's samples; see :meth:`mtl_gym.decisions.sample_weights.SampleWeights.observe`."""

Samples = Mapping[str, Tensor]
"""These by name, (N, B, K)."""


@dataclass(frozen=True)
class Feature:
    """One row of ``FEATURES``.

    Attributes:
        function: Maps measurements of a batch's samples to values (N, B, K) in [-1, 1].
        needs: Names of the measurements.
        meaning: One line for the manual.
    """

    function: Callable[[Samples], Tensor]
    needs: tuple[str, ...]
    meaning: str


def mean(values: Tensor, labelled: Tensor, dims: tuple[int, ...], *, keepdim: bool = False) -> Tensor:
    """Mean of values (N, B, K) over labelled samples, 0 where there is none; the bits of ``values.mean`` if all have labels."""
    fraction = labelled.mean(dims, keepdim=keepdim)
    return (values * labelled).mean(dims, keepdim=keepdim) / torch.where(fraction > 0, fraction, 1)


def places(values: Tensor, labelled: Tensor) -> Tensor:
    """Positions (N, B, K) among the labelled samples of a batch, per task, 0 for the smallest value; unlabelled ones come last."""
    return torch.where(labelled > 0, values, torch.inf).argsort(dim=1, stable=True).argsort(dim=1)


def ranks(values: Tensor, labelled: Tensor) -> Tensor:
    """Ranks (N, B, K) among the labelled samples of a batch, per task, from -1 (smallest) to 1; 0 for unlabelled ones."""
    most = (labelled.sum(1, keepdim=True) - 1).clamp(min=1).to(values.dtype)
    return torch.where(labelled > 0, 2 * places(values, labelled).to(values.dtype) / most - 1, 0)


def _aligned(samples: Samples) -> Tensor:
    values = samples[ALIGNMENT]
    return torch.tanh(values / mean(values.square(), samples[LABELLED], (1, 2), keepdim=True).sqrt().clamp(min=1e-30))


def _is_main(samples: Samples) -> Tensor:
    shares = -torch.ones_like(samples[LOSS])
    shares[:, :, 0] = 1
    return shares


FEATURES = {
    "rank": Feature(
        lambda s: ranks(s[LOSS], s[LABELLED]),
        (LOSS, LABELLED),
        "rank of the loss within the batch and task, from -1 (smallest) to 1",
    ),
    "mean": Feature(lambda s: ranks(s[MEAN], s[LABELLED]), (MEAN, LABELLED), "rank of the sample's mean loss so far, likewise"),
    "alignment": Feature(_aligned, (ALIGNMENT, LABELLED), "tanh of `alignment` over its root mean square in the batch"),
    "main": Feature(_is_main, (LOSS,), "1 for the main task, -1 for the others"),
}
"""Features that a rule weights samples by."""

MOST_SHARP = 1e6
"""Largest logit of an action of 1: float32 holds sums of some of them."""
SAMPLE_ACTIONS = ("rule", "quantiles", "weights")


class SampleWeighing:
    """One mode of mapping actions to sample weights; raises ``ValueError`` or ``TypeError`` for wrong arguments.

    Args:
        action: One of ``SAMPLE_ACTIONS``.
        features: Rows of ``FEATURES``, for ``rule`` only. ``None``: all.
        sharpness: The logit of an action of 1.
        num_quantiles: Q, for ``quantiles`` only.
        batch_size: B.
        num_tasks: K.
    """

    def __init__(
        self, *, action: str, features: Sequence[str] | None, sharpness: float, num_quantiles: int, batch_size: int, num_tasks: int
    ) -> None:
        choose("action", action, {name: name for name in SAMPLE_ACTIONS})
        self._action = action
        self._features = tuple(FEATURES) if features is None else several("features", features, FEATURES, noun="feature")
        self._sharpness = number("sharpness", sharpness, low=0.0, high=MOST_SHARP, ends="(]")
        self._quantiles = positive_int("num_quantiles", num_quantiles)
        if action == "quantiles" and self._quantiles > batch_size:
            raise ValueError(should("num_quantiles", f"be at most {batch_size}, the batch size", num_quantiles))
        self._shape = (batch_size, num_tasks)
        length = {"rule": 1 + len(self._features), "quantiles": num_tasks * self._quantiles, "weights": batch_size * num_tasks}
        low, high = (0.0, WEIGHT_BOUND) if action == "weights" else (-1.0, 1.0)
        self.space = Box(low, high, (length[action],), np.float32)

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the required measurements of a batch's samples."""
        of_features = tuple(need for name in self._features for need in FEATURES[name].needs)
        return {"rule": (*of_features, LABELLED), "quantiles": (LOSS, LABELLED), "weights": (LABELLED,)}[self._action]

    def clipped(self, actions: Tensor) -> Tensor:
        """Number (N,) of action entries on a bound; for weights, 0 does not count as one."""
        high = float(self.space.high.flat[0])
        return ((actions >= high) | ((actions <= -high) & (high == 1))).sum(1)

    def weights(self, actions: Tensor, samples: Samples) -> Tensor:
        """Weights (N, B, K) of one optimiser step, 0 where a label is missing.

        Those of ``rule`` and ``quantiles`` average 1 over the labelled samples of all tasks.
        """
        labelled = samples[LABELLED]
        if self._action == "weights":
            return actions.unflatten(1, self._shape) * labelled
        logits = self._rule(actions, samples) if self._action == "rule" else self._of_quantiles(actions, samples)
        counts = labelled.flatten(1).sum(1, keepdim=True)
        chances = torch.softmax(logits.masked_fill(labelled == 0, -torch.inf).flatten(1), dim=1)
        return torch.where(counts > 0, chances * counts, 0).view_as(logits)

    def _rule(self, actions: Tensor, samples: Samples) -> Tensor:
        """Logarithms of ``sigmoid(sharpness (a_0 + sum_f a_f phi_f))``."""
        threshold, *coefficients = (self._sharpness * actions).T[:, :, None, None]
        pairs = zip(coefficients, self._features, strict=True)
        return functional.logsigmoid(threshold + sum(own * FEATURES[name].function(samples) for own, name in pairs))

    def _of_quantiles(self, actions: Tensor, samples: Samples) -> Tensor:
        labelled = samples[LABELLED]
        counts = labelled.sum(1, keepdim=True).long().clamp(min=1)
        quantiles = places(samples[LOSS], labelled) * self._quantiles // counts  # (N, B, K), integer: equal counts
        quantiles = quantiles.clamp(max=self._quantiles - 1)  # unlabelled samples, which weigh nothing
        table = self._sharpness * actions.unflatten(1, (-1, self._quantiles))  # (N, K, Q)
        return table.gather(2, quantiles.transpose(1, 2)).transpose(1, 2)


def separation(weights: Tensor, right: Tensor, labelled: Tensor) -> dict[str, Tensor]:
    """How well weights (N, B, K) separate correct labels from wrong ones; ``right`` and ``labelled`` (N, B, K) are 1 or 0.

    Returns:
        Tensors (N, K): ``right`` and ``wrong``, the mean weight of each kind over the mean weight of all labelled samples of all
        tasks; ``auc``, the probability that a correct label outweighs a wrong one, ties counting half. All NaN if a kind is
        missing.
    """
    wrong = labelled - right
    numbers = torch.stack([right.sum(1), wrong.sum(1)])  # (2, N, K)
    scaled = weights / mean(weights, labelled, (1, 2), keepdim=True).clamp(min=1e-30)
    means = torch.stack([(scaled * right).sum(1), (scaled * wrong).sum(1)]) / numbers
    means = torch.where((numbers > 0).all(0), means, torch.nan)
    order = weights.sort(dim=1)
    kinds = right.gather(1, order.indices)
    below = wrong.gather(1, order.indices).cumsum(1)  # wrong ones up to each position
    rising = order.values.mT.contiguous()
    first = torch.searchsorted(rising, rising).mT  # ties: first and last position
    last = torch.searchsorted(rising, rising, right=True).mT
    counts = functional.pad(below, (0, 0, 1, 0))  # wrong ones before each position
    wins = (counts.gather(1, first) + counts.gather(1, last)) / 2
    return {"right": means[0], "wrong": means[1], "auc": (wins * kinds).sum(1) / numbers.prod(0)}

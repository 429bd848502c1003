"""Data maps: how confident a network is of the true labels during training, per sample and task.

N trainings, n samples, K tasks. The probability that a network assigns to a sample's true label is recorded once per epoch, from
the losses of the training batches; its running mean is the sample's *confidence*, its running standard deviation the *variability*
(Swayamdipta et al., "Dataset Cartography", EMNLP 2020; for tasks: Sherif, Abid, Elattar and ElHelw, "STG-MTL", 2023).
"""

from __future__ import annotations

import torch
from torch import Tensor

FEATURES = 7
"""Length of a task's :func:`summaries`."""
AMBIGUOUS, EASY = 0.2, 0.5
"""A sample is ambiguous if its variability exceeds the first; of the others, those with at least the second confidence are easy."""


class DataMaps:
    """Running means and deviations (Welford) of the true labels' probabilities of R trainings, epoch by epoch.

    Each sample's position and weight in every epoch are computed once, beforehand. With missing labels, a sample may be visited
    several times in an epoch, for want of others with a label; its last visit counts.

    Args:
        order: (R, S, B) the samples of each step's batch.
        length: Steps per epoch, L; the last epoch may be shorter.
        samples, num_tasks: n and K.
        labelled: (R, n, K) bool, which samples have a label of which task; ``None``: all.

    Attributes:
        confidence: (R, n, K) mean probability of the true label; 0 for samples that were not recorded or have no label.
    """

    def __init__(self, order: Tensor, length: int, samples: int, num_tasks: int, labelled: Tensor | None = None) -> None:
        def count(size: int) -> Tensor:  # half the memory of int64, which dominates the time here
            return torch.arange(size, dtype=torch.int32, device=order.device)

        rows, steps, batch = order.shape
        row, step = count(rows)[:, None], count(steps)
        cells = ((step // length * rows + row)[:, :, None] * samples + order).flatten().long()  # (R * S * B) in the table (E, R, n)
        places = ((step % length * rows + row)[:, :, None] * batch + count(batch)).flatten()  # in the epoch's probabilities
        sources = (row * batch).repeat(-(-steps // length), 1, samples)  # unrecorded samples: any place of the same training
        # The largest of several places is that of the last visit, in whatever order they are written.
        self._sources = sources.view(-1).scatter_reduce_(0, cells, places, "amax").view(len(sources), -1)
        self._seen = torch.zeros(sources.shape, device=order.device)
        ones = torch.ones(cells.shape, device=order.device)  # scattering a number would take six times as long
        self._seen.view(-1).scatter_(0, cells, ones)
        self._rates = self._seen / self._seen.cumsum(0).clamp_(min=1)
        self._epochs, self._labelled = 0, labelled
        self.confidence = torch.zeros(rows, samples, num_tasks, device=order.device)
        self._squares = torch.zeros_like(self.confidence)

    def add(self, probabilities: Tensor) -> None:
        """Records the next epoch from the true labels' probabilities (L, R, B, K) in its steps' batches."""
        sources, seen, rates = (table[self._epochs] for table in (self._sources, self._seen, self._rates))
        change = probabilities.flatten(0, 2).index_select(0, sources).view_as(self.confidence).sub_(self.confidence)
        if self._labelled is not None:
            change.masked_fill_(~self._labelled, 0)
        self.confidence.addcmul_(change, rates[:, :, None])
        self._squares.addcmul_(change.square_(), (seen - rates)[:, :, None])
        self._epochs += 1

    @property
    def visits(self) -> Tensor:
        """How often each sample was recorded (R, n)."""
        return self._seen[: self._epochs].sum(0)

    @property
    def counting(self) -> Tensor:
        """Which samples count for which task (R, n, K), or (R, n, 1) if all have all labels: those recorded with a label."""
        recorded = (self.visits > 0)[:, :, None]
        return recorded if self._labelled is None else recorded & self._labelled

    def variability(self) -> Tensor:
        """Standard deviations (R, n, K) of the probabilities, with n - 1; 0 before a sample's second visit."""
        return (self._squares / (self.visits - 1).clamp(min=1)[:, :, None]).sqrt_()


def summaries(confidence: Tensor, variability: Tensor, counting: Tensor) -> Tensor:
    """Statistics (R, K, 7) of the tasks' data maps, in [0, 1]: mean confidence, mean variability, the deviations of both over the
    samples (with n), and the fractions of easy, ambiguous and hard samples (``AMBIGUOUS``, ``EASY``).

    Confidence and variability are (R, n, K), 0 for samples that do not count; ``counting`` (R, n, K or 1) bool are those that do.
    """
    counts, scratch = counting.sum(1).clamp(min=1), torch.empty_like(confidence)

    def deviation(values: Tensor, mean: Tensor) -> Tensor:
        return (torch.square(values, out=scratch).sum(1) / counts - mean.square()).clamp(min=0).sqrt()

    means = confidence.sum(1) / counts, variability.sum(1) / counts
    deviations = deviation(confidence, means[0]), deviation(variability, means[1])
    ambiguous = scratch.copy_(variability).gt_(AMBIGUOUS).sum(1) / counts  # in place: floats sum faster than bools
    easy = scratch.neg_().add_(1).mul_(confidence).ge_(EASY).sum(1) / counts
    return torch.stack([*means, *deviations, easy, ambiguous, 1 - easy - ambiguous], dim=2)


def squared_distances(confidence: Tensor, variability: Tensor, labelled: Tensor | None = None) -> Tensor:
    """Squared Euclidean distances (R, K, K) between the tasks' flattened maps (n, 2), from (R, n, K).

    If not all samples are ``labelled`` (R, n, K), each pair of tasks is compared on the samples that have labels of both, where the
    maps of the others are 0.
    """
    rows, samples, num_tasks = confidence.shape
    maps = confidence.new_empty(rows, num_tasks, 2, samples, dtype=torch.float64)
    maps[:, :, 0], maps[:, :, 1] = confidence.mT, variability.mT
    products = maps.flatten(2) @ maps.flatten(2).mT  # contiguous: twice as fast
    if labelled is None:
        norms = products.diagonal(dim1=1, dim2=2)[:, :, None]
    else:
        norms = maps.square().sum(2) @ labelled.to(maps.dtype)  # (R, K, K) of task i over the samples of task j
    return (norms + norms.mT - 2 * products).clamp(min=0)

"""Data maps: how sure a training is of the true labels, sample by sample and task by task.

N trainings, n samples, K tasks. The probability that a network gives to a sample's true label is recorded once an epoch, from the
losses of the training batches; its running mean is the sample's *confidence* and its running deviation its *variability*
(Swayamdipta et al., "Dataset Cartography", EMNLP 2020; for tasks: Sherif, Abid, Elattar and ElHelw, "STG-MTL", 2023).
"""

from __future__ import annotations

import torch
from torch import Tensor

FEATURES = 7
"""Length of a task's :func:`summaries`."""
AMBIGUOUS, EASY = 0.2, 0.5
"""A sample is ambiguous with a variability above the one; of the others, those with at least the other's confidence are easy."""


class DataMaps:
    """Running means and deviations of the true labels' probabilities (Welford), of N trainings.

    Args:
        num_replicas: N.
        samples: n.
        num_tasks: K.
        device: Of the tensors.

    Attributes:
        visits: (N, n) how often each sample was recorded.
        confidence: (N, n, K) mean probability of the true label; 0 of samples that were not recorded.
    """

    def __init__(self, num_replicas: int, samples: int, num_tasks: int, device: torch.device) -> None:
        self.visits = torch.zeros(num_replicas, samples, device=device)
        self.confidence = torch.zeros(num_replicas, samples, num_tasks, device=device)
        self._squares = torch.zeros_like(self.confidence)

    def add(self, rows: Tensor, samples: Tensor, probabilities: Tensor) -> None:
        """Records probabilities of the true labels.

        Args:
            rows: (R,) the trainings.
            samples: (R, M) their samples, each at most once a training.
            probabilities: (R, M, K), in [0, 1].
        """
        places = (rows[:, None] * self.visits.shape[1] + samples).flatten()
        values = probabilities.flatten(0, 1)
        visits = self.visits.view(-1).index_select(0, places) + 1
        means = self.confidence.view(-1, values.shape[1])
        before = means.index_select(0, places)
        change = values - before
        after = torch.addcdiv(before, change, visits[:, None])
        self.visits.view(-1).index_copy_(0, places, visits)
        means.index_copy_(0, places, after)
        self._squares.view_as(means).index_add_(0, places, change.mul_(values - after))

    def variability(self) -> Tensor:
        """Deviations (N, n, K) of the probabilities, with n - 1 in the denominator; 0 before a sample's second visit."""
        return (self._squares / (self.visits - 1).clamp(min=1)[:, :, None]).sqrt()


def summaries(confidence: Tensor, variability: Tensor, visited: Tensor) -> Tensor:
    """What a task's data map looks like, as numbers (R, K, 7) in [0, 1].

    Mean confidence, mean variability, the deviations of both over the samples (with n), and the shares of the samples that are
    easy, ambiguous and hard (``AMBIGUOUS``, ``EASY``).

    Args:
        confidence: (R, n, K).
        variability: (R, n, K).
        visited: (R, n) bool, the samples that count.
    """
    counts, weights = visited.sum(1).clamp(min=1)[:, None], visited[:, :, None].to(confidence.dtype)

    def mean(values: Tensor) -> Tensor:
        return (values * weights).sum(1) / counts

    def deviation(values: Tensor) -> Tensor:
        return mean((values - mean(values)[:, None]).square()).sqrt()

    ambiguous = variability > AMBIGUOUS
    easy = ~ambiguous & (confidence >= EASY)
    regions = [mean(region.to(confidence.dtype)) for region in (easy, ambiguous, ~(ambiguous | easy))]
    means = [mean(confidence), mean(variability), deviation(confidence), deviation(variability)]
    return torch.stack([*means, *regions], dim=2)


def squared_distances(confidence: Tensor, variability: Tensor) -> Tensor:
    """Squared Euclidean distances (R, K, K) between the tasks' maps, each (n, 2) flattened, from (R, n, K)."""
    maps = torch.cat([confidence, variability], dim=1).double()  # (R, 2 n, K)
    products = maps.mT @ maps
    norms = products.diagonal(dim1=1, dim2=2)
    return (norms[:, :, None] + norms[:, None] - 2 * products).clamp(min=0)

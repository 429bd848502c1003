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
        self._scratch = torch.empty(2, *self.confidence.shape, device=device)

    def add(self, rows: Tensor | slice, samples: Tensor, probabilities: Tensor) -> None:
        """Records probabilities of the true labels: one scatter, and sums over all samples.

        Args:
            rows: (R,) the trainings; or a slice of them, which is faster.
            samples: (R, M) their samples, each at most once a training.
            probabilities: (R, M, K), in [0, 1].
        """
        visits, means, squares = self.visits[rows], self.confidence[rows], self._squares[rows]
        count, size = visits.shape
        places = (torch.arange(count, device=samples.device)[:, None] * size + samples).flatten()
        values, change = self._scratch[:, :count]  # fresh memory would cost more than the sums
        values.copy_(means)  # samples that are not recorded now are as their means, which changes nothing
        values.view(count * size, -1).index_copy_(0, places, probabilities.flatten(0, 1))
        visits.view(-1).index_add_(0, places, torch.ones_like(places, dtype=visits.dtype))
        torch.sub(values, means, out=change)
        means.addcdiv_(change, visits.clamp(min=1)[:, :, None])
        squares.addcmul_(change, values.sub_(means))
        if not isinstance(rows, slice):
            self.visits[rows], self.confidence[rows], self._squares[rows] = visits, means, squares

    def variability(self) -> Tensor:
        """Deviations (N, n, K) of the probabilities, with n - 1 in the denominator; 0 before a sample's second visit."""
        return (self._squares / (self.visits - 1).clamp(min=1)[:, :, None]).sqrt_()


def summaries(confidence: Tensor, variability: Tensor, visited: Tensor) -> Tensor:
    """What a task's data map looks like, as numbers (R, K, 7) in [0, 1].

    Mean confidence, mean variability, the deviations of both over the samples (with n), and the shares of the samples that are
    easy, ambiguous and hard (``AMBIGUOUS``, ``EASY``).

    Args:
        confidence: (R, n, K); 0 of samples that do not count.
        variability: (R, n, K), likewise.
        visited: (R, n) bool, the samples that count.
    """
    counts = visited.sum(1).clamp(min=1)[:, None]

    def deviation(values: Tensor, mean: Tensor) -> Tensor:
        return (values.square().sum(1) / counts - mean.square()).clamp(min=0).sqrt()

    means = confidence.sum(1) / counts, variability.sum(1) / counts
    deviations = deviation(confidence, means[0]), deviation(variability, means[1])
    sure = confidence.clone().ge_(EASY)  # in place it stays a number, which sums faster than a truth value
    ambiguous = variability.clone().gt_(AMBIGUOUS)
    shares = sure.addcmul(sure, ambiguous, value=-1).sum(1) / counts, ambiguous.sum(1) / counts
    return torch.stack([*means, *deviations, *shares, 1 - shares[0] - shares[1]], dim=2)


def squared_distances(confidence: Tensor, variability: Tensor) -> Tensor:
    """Squared Euclidean distances (R, K, K) between the tasks' maps, each (n, 2) flattened, from (R, n, K)."""
    maps = torch.cat([confidence, variability], dim=1).double()  # (R, 2 n, K)
    products = maps.mT @ maps
    norms = products.diagonal(dim1=1, dim2=2)
    return (norms[:, :, None] + norms[:, None] - 2 * products).clamp(min=0)

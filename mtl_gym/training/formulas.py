"""Signals: observations of a training run as pure functions of losses and gradients, for N replicas and K tasks."""

from __future__ import annotations

import torch
from torch import Tensor

SMALLEST_LOSS = 1e-12
"""Losses are clamped to at least this before a logarithm or a division."""


def log_loss(losses: Tensor) -> Tensor:
    """Natural logarithm of losses, guarded against zero."""
    return losses.clamp(min=SMALLEST_LOSS).log()


def relative(losses: Tensor, reference: Tensor) -> Tensor:
    """Log of losses over reference losses."""
    return log_loss(losses) - log_loss(reference)


def noise_of(batches: Tensor) -> Tensor:
    """How noisy losses (N, steps, K) of consecutive batches are: their standard deviation (N, K) around their linear trend.

    It is relative to their mean, the root of an unbiased variance, and 0 for fewer than three batches, which have no deviation from
    a line.
    """
    steps = batches.shape[1]
    if steps < 3:
        return torch.zeros_like(batches[:, 0])
    scaled = batches / batches.mean(1, keepdim=True).clamp(min=SMALLEST_LOSS)
    time = torch.linspace(-1, 1, steps, device=batches.device)[:, None]  # (steps, 1), of mean 0
    slope = (time * scaled).sum(1, keepdim=True) / time.square().sum()
    rest = scaled - scaled.mean(1, keepdim=True) - slope * time
    return (rest.square().sum(1) / (steps - 2)).sqrt()


def improvable_gap(losses: Tensor, base: Tensor) -> Tensor:
    """IGBv1's gap to a desired final loss of 0, ``L_k / Lbase_k``; ``base`` (N, K) are the mean batch losses of the second epoch.

    Dai, Fei and Lu, "Improvable Gap Balancing for Multi-Task Learning", UAI 2023, section 3.2.
    """
    return losses / base.clamp(min=SMALLEST_LOSS)


def averaged(gradients: Tensor, averages: Tensor, step: Tensor, rate: float, decay: float) -> Tensor:
    """Moving averages (N, K, Q) of the tasks' gradients after ``step`` (N,) earlier ones; the first gradients at step 0.

    At step t, from 1, they keep ``rate / t**decay`` of their past, ``averages`` (N, K, Q).
    """
    step = step[:, None, None]
    kept = rate / (step + 1).double() ** decay
    average = kept.to(gradients.dtype) * averages + (1 - kept).to(gradients.dtype) * gradients
    return average if bool((step > 0).all()) else torch.where(step > 0, average, gradients)


def inner_products(gradients: Tensor) -> Tensor:
    """The Gram matrices (N, K, K) of the tasks' gradients (N, K, Q)."""
    return gradients @ gradients.transpose(1, 2)


def cosines(gramian: Tensor) -> Tensor:
    """Cosines (N, K (K - 1) / 2) between task gradients, the upper triangle of ``G`` (N, K, K) by rows; 0 for a zero gradient."""
    first, second = torch.triu_indices(gramian.shape[1], gramian.shape[1], offset=1)
    return _cosine_table(gramian)[:, first, second]


def mean_cosines(gramian: Tensor) -> Tensor:
    """The mean cosine (N, K) of each task's gradient with those of the others, from ``G`` (N, K, K); 0 for a single task."""
    count = gramian.shape[1]
    others = 1 - torch.eye(count, dtype=gramian.dtype, device=gramian.device)
    return (_cosine_table(gramian) * others).sum(2) / max(count - 1, 1)


def _cosine_table(gramian: Tensor) -> Tensor:
    norms = gramian.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt()  # (N, K)
    products = norms[:, :, None] * norms[:, None, :]
    return torch.where(products > 0, gramian / products.clamp(min=1e-30), 0).clamp(-1, 1)


def log_norms(gramian: Tensor) -> Tensor:
    """Natural logarithms (N, K) of the norms of the task gradients, from ``G`` (N, K, K)."""
    return gramian.diagonal(dim1=1, dim2=2).clamp(min=1e-30).log() / 2


def pooled(features: Tensor) -> Tensor:
    """Features (N, K, B, C) of samples, averaged over pixels if there are any."""
    return features.flatten(4).mean(4) if features.ndim > 4 else features


def linear_cka(features: Tensor) -> Tensor:
    """Debiased linear CKA (N, K, K) between the tasks' features (N, K, B, C) of the same samples; 0 where one is constant.

    Kornblith, Norouzi, Lee and Hinton, "Similarity of Neural Network Representations Revisited", ICML 2019, with the unbiased
    estimator of HSIC of Song et al., "Feature Selection via Dependence Maximization", JMLR 2012, equation 4. Centring the features
    does not change it, and makes each row of a Gram matrix without its diagonal sum to minus that diagonal; so the products of the
    Gram matrices and the norms of samples suffice. Time and memory are linear in K.
    """
    count = features.shape[2]
    centred = features - features.mean(2, keepdim=True)
    centred = centred / centred.detach().abs().amax((2, 3), keepdim=True).clamp(min=1e-30)  # prevents overflow
    gramians = centred @ centred.mT  # (N, K, B, B)
    norms = gramians.diagonal(dim1=2, dim2=3)  # (N, K, B)
    totals = norms.sum(2)
    flat = gramians.flatten(2)
    hsic = flat @ flat.mT - count / (count - 2) * norms @ norms.mT
    hsic = hsic + totals[:, :, None] * totals[:, None, :] / ((count - 1) * (count - 2))
    own = hsic.diagonal(dim1=1, dim2=2)
    alive = own > 1e-6 * totals.square() / count  # smaller values are rounding errors, and the root of 0 has no gradient
    roots = torch.where(alive, own, 1).sqrt()
    return torch.where(alive[:, :, None] & alive[:, None], hsic / (roots[:, :, None] * roots[:, None]), 0)

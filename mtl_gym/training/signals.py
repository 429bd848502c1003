"""Signals: what a training shows of itself, as pure functions of losses and gradients. N replicas, K tasks."""

from __future__ import annotations

import torch
from torch import Tensor

SMALLEST_LOSS = 1e-12
"""Losses are raised to this before a logarithm or a division: a loss of zero has no logarithm."""


def log_loss(losses: Tensor) -> Tensor:
    """Natural logarithm of losses, guarded against zero."""
    return losses.clamp(min=SMALLEST_LOSS).log()


def improvable_gap(losses: Tensor, base: Tensor) -> Tensor:
    """IGBv1's gap to the desired final loss, which is taken as 0: ``L_k / Lbase_k``.

    Dai, Fei and Lu, "Improvable Gap Balancing for Multi-Task Learning", UAI 2023, section 3.2.

    Args:
        losses: (N, K) current losses.
        base: (N, K) mean batch losses of the second epoch.
    """
    return losses / base.clamp(min=SMALLEST_LOSS)


def cosines(gramian: Tensor) -> Tensor:
    """Cosines (N, K (K - 1) / 2) between task gradients: the upper triangle of ``G`` (N, K, K) by rows; 0 for a zero gradient."""
    norms = gramian.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt()  # (N, K)
    products = norms[:, :, None] * norms[:, None, :]
    first, second = torch.triu_indices(gramian.shape[1], gramian.shape[1], offset=1)
    return torch.where(products > 0, gramian / products.clamp(min=1e-30), 0).clamp(-1, 1)[:, first, second]


def log_norms(gramian: Tensor) -> Tensor:
    """Natural logarithms (N, K) of the norms of the task gradients, from ``G`` (N, K, K)."""
    return gramian.diagonal(dim1=1, dim2=2).clamp(min=1e-30).log() / 2

"""Gradients that the tests share, and what a policy sees of them."""

import numpy as np


def jacobians(rows, tasks, size, *, seed=0, spread=0.0, common=0.0):
    """Gradients (N, K, P) with norms over ``spread`` orders of magnitude to both sides, and a part in common."""
    rng = np.random.default_rng(seed)
    gradients = rng.normal(size=(rows, tasks, size)) + common * rng.normal(size=(rows, 1, size))
    return gradients * 10 ** rng.uniform(-spread, spread, (rows, tasks, 1))


def products(gradients):
    """The Gram matrices (N, K, K)."""
    return gradients @ gradients.swapaxes(1, 2)


def gram_observations(gradients, dtype=np.float64):
    """``cosines`` and ``log_norms`` of gradients (N, K, P)."""
    norms = np.linalg.norm(gradients, axis=2)
    cosines = products(gradients / np.where(norms > 0, norms, 1)[:, :, None])
    first, second = np.triu_indices(gradients.shape[1], 1)
    logs = np.log(np.maximum(norms, 1e-15)).clip(-30, 30)
    return {"cosines": cosines[:, first, second].astype(dtype), "log_norms": logs.astype(dtype)}

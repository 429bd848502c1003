"""Weights from Gram matrices in float64: N problems with K tasks each, solved together without a loop over them.

The Gram matrix is ``G = D C D``, with D the norms of the task gradients and C their cosines. Most problems are solved in the
coefficients ``beta = D alpha`` of the *unit* gradients, so that norms may differ by orders of magnitude. A gradient of zero has no
direction, and a task without labels in a batch has one: its weight is 0, and the other tasks' problem is solved without it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_gym import should
from mtl_gym.baselines.base import Array, Integers
from mtl_gym.baselines.quadratic_programs import diagonal, nonnegative, supported, times, totals

RANK = 1e-6
"""Eigenvalues of C below this count as 0, since those of dependent float32 gradients are not exactly 0."""
_ASYMMETRY, _NEGATIVE = 1e-4, 1e-3
_LEAST_NORM, _LEAST_EIGENVALUE = 1e-12, 1e-10  # lower bounds of the norms, relative to the largest, and of C's eigenvalues
_BRACKET, _NEWTON = 40, 100


def solve(solver: Callable[..., Array], gramian: npt.ArrayLike, *, means: bool = False, **options: Any) -> Array:
    """Weights (N, K) of a solver, ``(norms (M, k), cosines (M, k, k), **options) -> (M, k)``, for any Gram matrices (N, K, K).

    The solver is called for the rows with k nonzero gradients together, and receives only these; the largest norm is 1. Weights are
    ones in the rows where the matrix is zero or not finite, or the solver finds no finite weights.

    Args:
        solver: The solver.
        gramian: (N, K, K).
        means: Whether the solver takes a mean over tasks: then it is one over all K, to which a gradient of zero belongs.
        options: Passed to the solver.

    Raises:
        ValueError: If a finite matrix is not symmetric or not positive semi-definite; the row is named.
    """
    norms, cosines, good = factors(gramian)
    counts, weights = (norms > 0).sum(axis=1), np.zeros_like(norms)
    with np.errstate(all="ignore"):
        for count in np.unique(counts):
            rows = np.nonzero(counts == count)[0][:, None]
            tasks = np.nonzero(norms[rows[:, 0]])[1].reshape(-1, count)
            found = solver(norms[rows, tasks], cosines[rows[:, :, None], tasks[:, :, None], tasks[:, None]], **options)
            weights[rows, tasks] = found * (count / norms.shape[1] if means else 1)
    return or_equal(weights, good)


def or_equal(weights: Array, good: npt.NDArray[np.bool_]) -> Array:
    """The weights (N, K), and ones in the rows that are not good (N,) or have weights that are not finite."""
    return np.where((good & np.isfinite(weights).all(axis=1))[:, None], weights, 1.0)


def finite(gramian: Array) -> npt.NDArray[np.bool_]:
    """The rows (N,) whose Gram matrices (N, K, K) are finite."""
    return np.asarray(np.isfinite(gramian).all(axis=(1, 2)))


def factors(gramian: npt.ArrayLike) -> tuple[Array, Array, npt.NDArray[np.bool_]]:
    """Norms (N, K), over the largest one, and positive definite cosines (N, K, K) of Gram matrices (N, K, K).

    The norm of a gradient is 0 if and only if its square in the matrix is 0; its cosines are 0. Also returns the rows (N,) with a
    finite nonzero matrix; the others are replaced by the identity. Raises as :func:`solve` does.
    """
    matrix = np.asarray(gramian, dtype=np.float64)
    if matrix.ndim != 3 or matrix.shape[1] != matrix.shape[2]:
        raise ValueError(should("gramian.shape", "be (N, K, K)", matrix.shape))
    count = matrix.shape[1]
    largest = np.abs(matrix).max(axis=(1, 2))  # NaN, if there is one
    good = np.isfinite(largest) & (largest > 0)
    if not good.all():
        matrix, largest = np.where(good[:, None, None], matrix, np.eye(count)), np.where(good, largest, 1)
    matrix = matrix / largest[:, None, None]
    squares = np.diagonal(matrix, axis1=1, axis2=2)
    norms = np.sqrt(squares.clip(min=_LEAST_NORM**2))
    cosines = matrix / (norms[:, :, None] * norms[:, None])
    _require(np.abs(matrix - matrix.swapaxes(1, 2)).max(axis=(1, 2)) <= _ASYMMETRY, "be symmetric", matrix)
    cosines = (cosines + cosines.swapaxes(1, 2)) / 2
    cosines[:, range(count), range(count)] = np.where(squares < 0, -1, 1)
    values, vectors = np.linalg.eigh(cosines)
    _require(values[:, 0] >= -_NEGATIVE, "be positive semi-definite", matrix)
    positive = (vectors * values.clip(min=_LEAST_EIGENVALUE)[:, None]) @ vectors.swapaxes(1, 2)
    return np.where(squares == 0, 0, norms), positive, good


def _require(holds: npt.NDArray[np.bool_], condition: str, matrix: Array) -> None:
    if not holds.all():
        row = int(np.argmin(holds))
        raise ValueError(should(f"gramian[{row}]", condition, matrix[row].tolist(), "It is shown over its largest entry."))


def min_norm(norms: Array, cosines: Array) -> Array:
    """The point of least norm in the convex hull: ``min alpha G alpha``, alpha >= 0, sum 1.

    ``beta = D alpha`` is proportional to the solution of ``min beta C beta / 2 - q beta``, beta >= 0, with ``q = 1 / D``.
    """
    inverse = norms.min(axis=1, keepdims=True) / norms
    weights = nonnegative(cosines, inverse[:, None])[:, 0] * inverse
    return weights / totals(weights)


def dual_cone(norms: Array, cosines: Array) -> Array:
    """The mean of the gradients' projections onto their dual cone, the vectors that conflict with no gradient.

    The projection of unit gradient i has the coefficients ``e_i + z``, where z minimises ``z C z / 2 + C_i z``, z >= 0.
    """
    count = norms.shape[1]
    projections = nonnegative(cosines, -cosines) + np.eye(count)  # (N, i, K)
    return (projections * norms[:, :, None]).mean(axis=1) / norms


def conflict_averse(norms: Array, cosines: Array, *, radius: float) -> Array:
    """Weights of the d that maximises ``min_k g_k d`` within ``radius |g_0|`` of the mean gradient g_0.

    For a given minimum t, d is the point nearest to g_0 with ``g_k d >= t``. Its squared distance from g_0 grows with t and is
    quadratic on one set of active constraints; so t moves to the root on the active set, or its bracket is halved.
    """
    count = norms.shape[1]
    mean, inverse = norms / count, 1 / norms
    onto_mean = times(cosines, mean)
    square = totals(mean * onto_mean)  # |g_0|^2
    low, high = (norms * onto_mean).min(axis=1, keepdims=True), (1 + radius) * square
    least, close, added, active = high, 1e-12 * square, np.zeros_like(norms), high * inverse > onto_mean
    for _ in range(_BRACKET):
        added = nonnegative(cosines, (least * inverse - onto_mean)[:, None], active[:, None])[:, 0]
        active = added > 0
        far = totals(added * times(cosines, added)) > radius**2 * square
        low, high = np.where(far, low, least), np.where(far, least, high)
        right = np.stack([inverse, onto_mean], axis=2) * active[:, :, None]
        along, back = np.moveaxis(supported(cosines, np.arange(len(norms)), active, right), 2, 0)
        a, b, c = totals(along * inverse), totals(along * onto_mean), totals(back * onto_mean) - radius**2 * square
        root = (b + np.sqrt((b**2 - a * c).clip(min=0))) / np.where(a > 0, a, np.nan)
        root = np.where((low - close <= root) & (root <= high + close), root, (low + high) / 2)
        if (np.abs(root - least) <= close).all():
            break
        least = root
    return 1 / count + added / norms


def surgery(gramian: Array, *, orders: Integers, targets: Array, rate: float) -> tuple[Array, Array]:
    """Turns every gradient, one after the other, towards the others whose cosine with it is below a target.

    Gradients of zero are skipped, as in :func:`solve`; weights are ones, and targets stay, in the rows where it would return ones.

    Args:
        gramian: (N, K, K).
        orders: (N, K, K), for each gradient the order of the others (and itself, which is skipped).
        targets: (N, K, K) cosines; zeros for PCGrad's projections.
        rate: Weight of each cosine met in the next target.

    Returns:
        Weights (N, K) of the sum of the turned gradients, and the next targets.
    """
    norms, cosines, good = factors(gramian)
    count, real = norms.shape[1], norms > 0
    rows, tasks, turned = np.arange(len(norms))[:, None], np.arange(count), targets.copy()
    parts, products = np.tile(np.eye(count), (len(norms), 1, 1)), cosines.copy()  # of each turned unit gradient
    square = np.ones_like(norms)
    for other in np.moveaxis(orders, 2, 0):  # (N, K)
        met = (other != tasks) & real & real[rows, other]
        product, target = products[rows, tasks, other], turned[rows, tasks, other]
        cosine = (product / np.sqrt(square.clip(min=_LEAST_EIGENVALUE))).clip(-1, 1)
        tangent = target / np.sqrt((1 - target**2).clip(min=_LEAST_EIGENVALUE))
        move = np.sqrt(square) * (tangent * np.sqrt(1 - cosine**2) - cosine)
        move = np.where((cosine < target) & met, move, 0)
        parts[rows, tasks, other] += move
        products += move[:, :, None] * cosines[rows, other]
        square = (square + 2 * move * product + move**2).clip(min=0)
        turned[rows, tasks, other] = np.where(met, (1 - rate) * target + rate * cosine, target)
    weights = np.where(real, (parts * norms[:, :, None]).sum(axis=1) / np.where(real, norms, 1), 0)
    return or_equal(weights, good), np.where(good[:, None, None], turned, targets)


def impartial(norms: Array, cosines: Array) -> Array:
    """Weights that sum to 1 and whose gradient projects equally on every unit gradient."""
    weights = _equal_projections(cosines) / norms
    return weights / totals(weights)


def conflict_free(norms: Array, cosines: Array) -> Array:
    """Weights of the same direction, with the length of the sum of the gradients' projections onto it."""
    units = _equal_projections(cosines)
    projections = times(cosines, units)  # of the unit gradients onto it, times its norm
    length = totals(norms * projections) / totals(units * projections)
    return length * units / norms


def _equal_projections(cosines: Array) -> Array:
    """Coefficients (N, K) ``C^+ 1`` of unit gradients."""
    values, vectors = np.linalg.eigh(cosines)
    inverse = np.where(values > RANK, 1 / values.clip(min=RANK), 0)
    return times(vectors, inverse * vectors.sum(axis=1))


def aligned(norms: Array, cosines: Array) -> Array:
    """Means of the rows of ``sqrt(lambda_min) G^(-1/2)`` on the range of G, with lambda_min its smallest eigenvalue there."""
    values, vectors = np.linalg.eigh(cosines)
    kept = values > RANK
    root = np.sqrt(np.where(kept, values, 0))[:, :, None] * vectors.swapaxes(1, 2) * norms[:, None]  # G = root' root
    _, singular, right = np.linalg.svd(root)
    inside = np.arange(norms.shape[1]) < kept.sum(axis=1, keepdims=True)
    least = np.where(inside, singular, np.inf).min(axis=1, keepdims=True)
    inverse = np.where(inside, least / np.where(inside, singular, 1), 0)
    return (right.swapaxes(1, 2) @ (inverse * right.mean(axis=2))[:, :, None])[:, :, 0]


def balanced_gains(norms: Array, cosines: Array, *, power: float = 1.0) -> Array:
    """Positive weights with ``G alpha = alpha^(-power)``, the minimum of ``beta C beta / 2 - sum_k q_k phi(beta_k)``.

    Here ``phi' = beta^(-power)`` and ``q = D^(power - 1)``. Newton's method with backtracking, from the solution for ``C = I``.
    """
    scale = norms ** (power - 1)
    point = scale ** (1 / (1 + power))
    for _ in range(_NEWTON):
        slope = times(cosines, point) - scale * point**-power
        curvature = cosines + diagonal(power * scale * point ** (-power - 1))
        move = -np.linalg.solve(curvature, slope[:, :, None])[:, :, 0]
        decrement = -totals(move * slope)
        reach = (-point / np.where(move < 0, move, -np.inf)).clip(min=0)
        step = np.minimum(1.0, 0.95 * np.where(move < 0, reach, np.inf).min(axis=1, keepdims=True))
        for _ in range(20):  # until the slope along the move shows that the step is not far too long
            ahead = point + step * move
            rising = totals(move * (times(cosines, ahead) - scale * ahead**-power)) > 0.9 * decrement
            if not rising.any():
                break
            step = np.where(rising, step / 2, step)
        point = point + step * move
        if (np.abs(move) <= 1e-5 * point).all():
            break  # the remaining error is about the square of this
    return point / norms

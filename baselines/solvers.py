"""Weights from Gram matrices, in float64: N problems with K tasks each at once, without a loop over them.

The Gram matrix is ``G = D C D``, with D the norms of the task gradients and C their cosines. Most problems are solved in the
coefficients ``beta = D alpha`` of the *unit* gradients, where norms that differ by orders of magnitude do no harm.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

RANK = 1e-6
"""Eigenvalues of C below this are 0: those of float32 gradients that depend on each other are not exactly so."""
_ASYMMETRY, _NEGATIVE = 1e-4, 1e-3
_LEAST_NORM, _LEAST_EIGENVALUE = 1e-12, 1e-10  # of the largest norm, and of C: what is smaller is raised to it
_FEW = 16  # tasks, up to which pivots alone settle a problem
_PIVOTS, _CHANCES = 300, 3
_BRACKET, _NEWTON = 40, 100


def solve(solver: Callable[..., Array], gramian: npt.ArrayLike, **options: Any) -> Array:
    """Weights (N, K) of a solver for Gram matrices as they come.

    Args:
        solver: ``(norms (N, K), cosines (N, K, K), **options) -> (N, K)``; it sees norms of which the largest is 1.
        gramian: (N, K, K).
        options: The solver's own.

    Returns:
        The weights; equal ones (1) in the rows where the matrix is zero or not finite, or the solver finds no finite weights.

    Raises:
        ValueError: If a finite matrix is not symmetric or not positive semi-definite; the row is named.
    """
    norms, cosines, good = factors(gramian)
    with np.errstate(all="ignore"):
        return or_equal(solver(norms, cosines, **options), good)


def or_equal(weights: Array, good: npt.NDArray[np.bool_]) -> Array:
    """The weights (N, K), and ones in the rows that are not good (N,) or have weights that are not finite."""
    return np.where((good & np.isfinite(weights).all(axis=1))[:, None], weights, 1.0)


def finite(gramian: Array) -> npt.NDArray[np.bool_]:
    """The rows (N,) of Gram matrices (N, K, K) all of whose entries are numbers."""
    return np.asarray(np.isfinite(gramian).all(axis=(1, 2)))


def factors(gramian: npt.ArrayLike) -> tuple[Array, Array, npt.NDArray[np.bool_]]:
    """Norms (N, K), over the largest one, and positive definite cosines (N, K, K) of Gram matrices (N, K, K).

    Also returns the rows (N,) that hold a finite matrix that is not zero; the others are replaced by the identity. Raises as
    :func:`solve` does.
    """
    matrix = np.asarray(gramian, dtype=np.float64)
    if matrix.ndim != 3 or matrix.shape[1] != matrix.shape[2]:
        raise ValueError(f"`gramian` should have the shape (N, K, K). Received gramian.shape={matrix.shape!r}.")
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
    return norms, (vectors * values.clip(min=_LEAST_EIGENVALUE)[:, None]) @ vectors.swapaxes(1, 2), good


def _require(holds: npt.NDArray[np.bool_], condition: str, matrix: Array) -> None:
    if not holds.all():
        row = int(np.argmin(holds))
        raise ValueError(f"`gramian` should {condition}. Received gramian[{row}] proportional to {matrix[row].tolist()!r}.")


# --- the methods' problems ------------------------------------------------------------------------------------------------


def min_norm(norms: Array, cosines: Array) -> Array:
    """The point of least norm in the convex hull: ``min alpha G alpha``, alpha >= 0, sum 1.

    ``beta = D alpha`` is proportional to the solution of ``min beta C beta / 2 - q beta``, beta >= 0, with ``q = 1 / D``.
    """
    inverse = norms.min(axis=1, keepdims=True) / norms
    weights = nonnegative(cosines, inverse[:, None])[:, 0] * inverse
    return weights / _sum(weights)


def dual_cone(norms: Array, cosines: Array) -> Array:
    """The mean of the gradients' projections onto their dual cone: of vectors that conflict with no gradient.

    The projection of unit gradient i has the coefficients ``e_i + z``, with ``min z C z / 2 + C_i z``, z >= 0.
    """
    count = norms.shape[1]
    projections = nonnegative(cosines, -cosines) + np.eye(count)  # (N, i, K)
    return (projections * norms[:, :, None]).mean(axis=1) / norms


def conflict_averse(norms: Array, cosines: Array, *, radius: float) -> Array:
    """Weights of the d that maximises ``min_k g_k d`` within ``radius |g_0|`` of the mean gradient g_0.

    For a given minimum t, d is the point nearest to g_0 with ``g_k d >= t``. Its distance from g_0 grows with t, and on one set of
    active constraints its square is quadratic; so t goes to the root on the active set, or halves its bracket.
    """
    count = norms.shape[1]
    mean, inverse = norms / count, 1 / norms
    onto_mean = _times(cosines, mean)
    square = _sum(mean * onto_mean)  # |g_0|^2
    low, high = (norms * onto_mean).min(axis=1, keepdims=True), (1 + radius) * square
    least, close, added, active = high, 1e-12 * square, np.zeros_like(norms), high * inverse > onto_mean
    for _ in range(_BRACKET):
        added = nonnegative(cosines, (least * inverse - onto_mean)[:, None], active[:, None])[:, 0]
        active = added > 0
        far = _sum(added * _times(cosines, added)) > radius**2 * square
        low, high = np.where(far, low, least), np.where(far, least, high)
        right = np.stack([inverse, onto_mean], axis=2) * active[:, :, None]
        along, back = np.moveaxis(_supported(cosines, np.arange(len(norms)), active, right), 2, 0)
        a, b, c = _sum(along * inverse), _sum(along * onto_mean), _sum(back * onto_mean) - radius**2 * square
        root = (b + np.sqrt((b**2 - a * c).clip(min=0))) / np.where(a > 0, a, np.nan)
        root = np.where((low - close <= root) & (root <= high + close), root, (low + high) / 2)
        if (np.abs(root - least) <= close).all():
            break
        least = root
    return 1 / count + added / norms


def surgery(norms: Array, cosines: Array, *, orders: npt.NDArray[np.int64], targets: Array, rate: float) -> tuple[Array, Array]:
    """Turns every gradient towards the others that its cosine with is below a target, one after the other.

    Args:
        norms: (N, K).
        cosines: (N, K, K).
        orders: (N, K, K), for each gradient the order of the others (and itself, which is passed over).
        targets: (N, K, K) cosines; zeros, for PCGrad's projections.
        rate: Share that each cosine met has in the next target.

    Returns:
        Weights (N, K) of the sum of what the gradients have become, and the next targets.
    """
    count = norms.shape[1]
    rows, tasks, targets = np.arange(len(norms))[:, None], np.arange(count), targets.copy()
    parts, products = np.tile(np.eye(count), (len(norms), 1, 1)), cosines.copy()  # of what each unit gradient has become
    square = np.ones_like(norms)
    for other in np.moveaxis(orders, 2, 0):  # (N, K)
        product, target = products[rows, tasks, other], targets[rows, tasks, other]
        cosine = (product / np.sqrt(square.clip(min=_LEAST_EIGENVALUE))).clip(-1, 1)
        tangent = target / np.sqrt((1 - target**2).clip(min=_LEAST_EIGENVALUE))
        move = np.sqrt(square) * (tangent * np.sqrt(1 - cosine**2) - cosine)
        move = np.where((cosine < target) & (other != tasks), move, 0)
        parts[rows, tasks, other] += move
        products += move[:, :, None] * cosines[rows, other]
        square = (square + 2 * move * product + move**2).clip(min=0)
        targets[rows, tasks, other] = np.where(other != tasks, (1 - rate) * target + rate * cosine, target)
    return (parts * norms[:, :, None]).sum(axis=1) / norms, targets


def impartial(norms: Array, cosines: Array) -> Array:
    """Weights with a sum of 1 whose gradient has the same projection on every unit gradient."""
    weights = _equal_projections(cosines) / norms
    return weights / _sum(weights)


def conflict_free(norms: Array, cosines: Array) -> Array:
    """Weights of the same direction, with the length of the sum of the gradients' projections onto it."""
    units = _equal_projections(cosines)
    projections = _times(cosines, units)  # of the unit gradients onto it, times its norm
    length = _sum(norms * projections) / _sum(units * projections)
    return length * units / norms


def _equal_projections(cosines: Array) -> Array:
    """Coefficients (N, K) ``C^+ 1`` of unit gradients."""
    values, vectors = np.linalg.eigh(cosines)
    inverse = np.where(values > RANK, 1 / values.clip(min=RANK), 0)
    return _times(vectors, inverse * vectors.sum(axis=1))


def aligned(norms: Array, cosines: Array) -> Array:
    """Means of the rows of ``sqrt(lambda_min) G^(-1/2)``, on the range of G, whose least eigenvalue lambda_min is."""
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

    There ``phi' = beta^(-power)`` and ``q = D^(power - 1)``. Newton's method with backtracking; from the solution for ``C = I``.
    """
    scale = norms ** (power - 1)
    point = scale ** (1 / (1 + power))
    for _ in range(_NEWTON):
        slope = _times(cosines, point) - scale * point**-power
        curvature = cosines + _diagonal(power * scale * point ** (-power - 1))
        move = -np.linalg.solve(curvature, slope[:, :, None])[:, :, 0]
        decrement = -_sum(move * slope)
        reach = (-point / np.where(move < 0, move, -np.inf)).clip(min=0)
        step = np.minimum(1.0, 0.95 * np.where(move < 0, reach, np.inf).min(axis=1, keepdims=True))
        for _ in range(20):  # until the slope along the move is no longer that of a step far too long
            ahead = point + step * move
            rising = _sum(move * (_times(cosines, ahead) - scale * ahead**-power)) > 0.9 * decrement
            if not rising.any():
                break
            step = np.where(rising, step / 2, step)
        point = point + step * move
        if (np.abs(move) <= 1e-5 * point).all():
            break  # what is left is about the square of it
    return point / norms


# --- what they are solved by ----------------------------------------------------------------------------------------------


def nonnegative(matrix: Array, linear: Array, guess: npt.NDArray[np.bool_] | None = None) -> Array:
    """Minima x (N, R, K) of ``x M x / 2 - q x``, x >= 0, for matrices (N, K, K) and R vectors q (N, R, K) for each.

    Block principal pivoting (Portugal, Judice and Vicente, "A Comparison of Block Pivoting and Interior-Point Algorithms for Linear
    Least Squares Problems with Nonnegative Variables", Mathematics of Computation 1994): all entries with a wrong sign change
    sides together, and only the last of them where that has not helped for a while, which ends after finitely many steps.
    With many tasks that may be too many: pivots then begin where splitting has come, which is kept where they do not help.

    Args:
        matrix: Positive definite, with ones on the diagonal.
        linear: The q.
        guess: (N, R, K), which entries may be above 0; heeded with few tasks.
    """
    count = matrix.shape[1]
    many = count > _FEW
    start = _split(matrix, linear) if many else linear
    free, solution = start > 0 if guess is None or many else guess.copy(), np.zeros_like(linear)
    given = 1 if many else _CHANCES
    fewest, chances = np.full(linear.shape[:2], count + 1), np.full(linear.shape[:2], given)
    size = np.abs(linear).max(axis=2, keepdims=True)
    open_ = np.ones(linear.shape[:2], dtype=bool)
    for _ in range(_PIVOTS):
        solution[open_] = _supported(matrix, np.nonzero(open_)[0], free[open_], linear[open_][:, :, None])[:, :, 0]
        slack = solution @ matrix - linear
        reach = np.abs(solution).max(axis=2, keepdims=True)
        wrong = np.where(free, solution < -1e-12 * reach, slack < -1e-11 * size - 1e-15 * count * reach)
        number = wrong.sum(axis=2)
        chances = np.where(number < fewest, given, chances - 1)
        fewest = np.minimum(fewest, number)
        open_ &= (number > 0) & ((chances > 0) | (not many))
        if not open_.any():
            break
        last = np.arange(count) == (count - 1 - wrong[:, :, ::-1].argmax(axis=2))[:, :, None]
        free ^= wrong & open_[:, :, None] & (last | (chances > 0)[:, :, None])
    if many:
        solution[number > 0] = start[number > 0]
    return solution.clip(min=0)


def _split(matrix: Array, linear: Array, *, penalty: float = 0.3, steps: int = 60) -> Array:
    """The minima of :func:`nonnegative`, about, by the alternating direction method of multipliers (over-relaxed by 1.7).

    Boyd, Parikh, Chu, Peleato and Eckstein, "Distributed Optimization and Statistical Learning via the Alternating Direction Method
    of Multipliers", Foundations and Trends in Machine Learning 2011. One product with a matrix (N, K, K) a step, for all R.
    """
    inverse = np.linalg.inv(matrix + penalty * np.eye(matrix.shape[1]))
    positive, dual = np.zeros_like(linear), np.zeros_like(linear)
    for _ in range(steps):
        free = 1.7 * ((linear + penalty * (positive - dual)) @ inverse) - 0.7 * positive + dual
        positive = free.clip(min=0)
        dual = free - positive
    return positive


def _supported(matrix: Array, owners: npt.NDArray[np.int64], free: npt.NDArray[np.bool_], right: Array) -> Array:
    """Solutions (M, K, R) of systems with the free (M, K) rows and columns of the owners' (M,) matrices; 0 elsewhere."""
    size = int(free.sum(axis=1).max())
    places = np.argsort(~free, axis=1, kind="stable")[:, :size]  # the free ones first
    inside = np.take_along_axis(free, places, axis=1)
    systems = matrix[owners[:, None, None], places[:, :, None], places[:, None]]
    problem, place = np.nonzero(~inside)  # the others solve x = 0
    systems[problem, place] = 0
    systems[problem, place, place] = 1
    values = np.where(inside[:, :, None], np.take_along_axis(right, places[:, :, None], axis=1), 0)
    result = np.zeros_like(right)
    np.put_along_axis(result, places[:, :, None], np.linalg.solve(systems, values), axis=1)
    return result


def simplex(points: Array) -> Array:
    """The nearest points (N, K) with entries of at least 0 that sum to 1.

    Duchi, Shalev-Shwartz, Singer and Chandra, "Efficient Projections onto the l1-Ball for Learning in High Dimensions", ICML 2008.
    """
    descending = -np.sort(-points, axis=1)
    shifts = (descending.cumsum(axis=1) - 1) / np.arange(1, points.shape[1] + 1)
    last = (descending > shifts).sum(axis=1, keepdims=True) - 1
    return (points - np.take_along_axis(shifts, last, axis=1)).clip(min=0)


def _times(matrix: Array, vectors: Array) -> Array:
    return (matrix @ vectors[:, :, None])[:, :, 0]


def _sum(values: Array) -> Array:
    """Sums (N, 1) over the tasks."""
    return values.sum(axis=1, keepdims=True)


def _diagonal(entries: Array) -> Array:
    return entries[:, :, None] * np.eye(entries.shape[1])

"""Non-negative quadratic programs in float64: N problems with K unknowns each, solved together without a loop over them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mtl_gym.baselines.base import Array, Integers

_FEW = 16  # tasks, up to which pivoting alone solves a problem
_PIVOTS, _CHANCES = 300, 3


def nonnegative(matrix: Array, linear: Array, guess: npt.NDArray[np.bool_] | None = None) -> Array:
    """Minima x (N, R, K) of ``x M x / 2 - q x``, x >= 0, for matrices (N, K, K) and R vectors q (N, R, K) for each.

    Block principal pivoting (Portugal, Judice and Vicente, "A Comparison of Block Pivoting and Interior-Point Algorithms for Linear
    Least Squares Problems with Nonnegative Variables", Mathematics of Computation 1994): all entries with a wrong sign switch
    sides together, or only the last of them where that has not helped for a while, which terminates. With many tasks this may take
    too many steps: pivoting then starts at the solution of an operator splitting, which is kept where pivoting does not help.
    Matrices are positive definite with ones on the diagonal; ``guess`` (N, R, K), used only with few tasks, are the entries that
    may be above 0.
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
        solution[open_] = supported(matrix, np.nonzero(open_)[0], free[open_], linear[open_][:, :, None])[:, :, 0]
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
    """Approximate minima of :func:`nonnegative`, by the alternating direction method of multipliers (over-relaxed by 1.7).

    Boyd, Parikh, Chu, Peleato and Eckstein, "Distributed Optimization and Statistical Learning via the Alternating Direction Method
    of Multipliers", Foundations and Trends in Machine Learning 2011.
    """
    inverse = np.linalg.inv(matrix + penalty * np.eye(matrix.shape[1]))
    positive, dual = np.zeros_like(linear), np.zeros_like(linear)
    for _ in range(steps):
        free = 1.7 * ((linear + penalty * (positive - dual)) @ inverse) - 0.7 * positive + dual
        positive = free.clip(min=0)
        dual = free - positive
    return positive


def supported(matrix: Array, owners: Integers, free: npt.NDArray[np.bool_], right: Array) -> Array:
    """Solutions (M, K, R) of systems with the free (M, K) rows and columns of the matrices ``owners`` (M,); 0 elsewhere."""
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
    points = points - points.max(axis=1, keepdims=True)  # the same projection; of the largest, 0, rounding loses nothing
    descending = -np.sort(-points, axis=1)
    shifts = (descending.cumsum(axis=1) - 1) / np.arange(1, points.shape[1] + 1)
    last = (descending > shifts).sum(axis=1, keepdims=True) - 1
    return (points - np.take_along_axis(shifts, last, axis=1)).clip(min=0)


def times(matrix: Array, vectors: Array) -> Array:
    """Products (N, K) of matrices (N, K, K) and vectors (N, K)."""
    return (matrix @ vectors[:, :, None])[:, :, 0]


def totals(values: Array) -> Array:
    """Sums (N, 1) over the tasks."""
    return values.sum(axis=1, keepdims=True)


def diagonal(entries: Array) -> Array:
    """Diagonal matrices (N, K, K) of entries (N, K)."""
    return entries[:, :, None] * np.eye(entries.shape[1])

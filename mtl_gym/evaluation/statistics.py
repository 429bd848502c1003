"""Statistics over instances: means with intervals, paired differences with their tests, Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import scipy.stats

LEVEL = 0.95
POWER = 0.8
RESAMPLES = 5_000
NO_GAIN = 0.05
"""Largest absolute delta_m in percent, on every instance, of a policy that repeats single-task learning, up to rounding."""
FEWEST = 5
"""Fewest shared instances for a verdict; of fewer, only differences and intervals are shown."""
_ROUNDING = 1e-9
"""What is rounding: the relative distance of a mean from a quartile, and of degrees of freedom from a whole number."""

Array = npt.NDArray[np.float64]


def bootstrap_interval(values: Array, statistic: Callable[..., Array]) -> tuple[float | None, float | None]:
    """95 % percentile bootstrap interval; ``None`` with fewer than two values. Every call uses the same resamples."""
    if len(values) < 2:
        return None, None
    result = scipy.stats.bootstrap(
        (values,), statistic, confidence_level=LEVEL, n_resamples=RESAMPLES, method="percentile", rng=np.random.default_rng(0)
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def student_interval(values: Array, comparisons: int = 1) -> tuple[float | None, float | None]:
    """Student's 95 % interval of a mean; ``None`` with fewer than two values.

    Of several ``comparisons``, all intervals together hold with 95 % (Bonferroni).
    """
    if len(values) < 2:
        return None, None
    mean, reach = float(values.mean()), _quantile(len(values), comparisons) * standard_error(values)
    return mean - reach, mean + reach


def standard_error(values: Array) -> float:
    """The standard error of the mean of at least two values; exactly 0 if all are equal."""
    return 0.0 if (values == values[0]).all() else float(values.std(ddof=1)) / math.sqrt(len(values))


def few_carry(values: Array) -> bool:
    """Whether few instances carry the mean: it lies outside the middle half of the instances by more than the width of that half.

    The middle half is between the quartiles. One training that diverged (-100 among scores of about 2) is enough. Of normal samples
    1.3 % do so by chance with 5 instances, less than 1 in 1,000 with 10 (tests/test_statistics.py).
    """
    if len(values) == 0:
        return False
    mean, (low, high) = float(values.mean()), np.quantile(values, [0.25, 0.75]).tolist()
    distance = high - low + _ROUNDING * float(np.abs(values).max())
    return bool(mean < low - distance or mean > high + distance)


def paired_difference(own: Array, other: Array, smallest: float = 0.0) -> dict[str, float | None]:
    """Mean difference on the same instances, with its 95 % interval and paired t-tests.

    Args:
        own: Scores of a policy (I,).
        other: Scores of another one on the same instances (I,).
        smallest: The smallest difference that matters, in the scores' unit.

    Returns:
        ``difference`` and ``median`` of the I differences, ``few_carry`` (see :func:`few_carry`) and ``instances``, I. And,
        ``None`` with fewer than two of them: Student's 95 % interval ``low`` to ``high``; the standard ``error``; ``p`` of the
        two-sided paired t-test of a difference; ``p_equal`` of a difference of at most ``smallest``: twice the larger p of two
        one-sided t-tests (Schuirmann, "A comparison of the two one-sided tests procedure and the power approach", J.
        Pharmacokinet. Biopharm. 1987), so that it is below 5 % if and only if the 95 % interval lies within ``smallest`` on both
        sides of 0; and ``detectable``, see :func:`detectable_difference`.
    """
    differences, count = own - other, len(own)
    mean = float(differences.mean())
    known = {"difference": mean, "median": float(np.median(differences)), "few_carry": few_carry(differences), "instances": count}
    low, high = student_interval(differences)
    if low is None:
        return {**known, **dict.fromkeys(("low", "high", "error", "p", "p_equal", "detectable"))}
    error = standard_error(differences)
    return {
        **known,
        "low": low,
        "high": high,
        "error": error,
        "p": _two_sided(abs(mean), error, count),
        "p_equal": float(abs(mean) > smallest) if error == 0 else _two_sided(smallest - abs(mean), error, count),
        "detectable": detectable_difference(error, count),
    }


def stratified_difference(studies: Sequence[Array], smallest: float = 0.0) -> dict[str, float]:
    """Mean over given studies of the mean (paired) difference within each, whose instances are drawn, with a t-test.

    The standard error is that of independent means, and the degrees of freedom are those of Welch and Satterthwaite.

    Args:
        studies: Of each study, the differences (n,) of at least two instances.
        smallest: As in :func:`paired_difference`.

    Returns:
        ``difference``, the 95 % interval ``low`` to ``high``, ``error``, ``p`` and ``p_equal`` as in :func:`paired_difference`, and
        ``instances``, that of a single study with the same degrees of freedom.
    """
    mean = float(np.mean([own.mean() for own in studies]))
    parts = np.array([standard_error(own) ** 2 for own in studies]) / len(studies) ** 2
    error = float(parts.sum() ** 0.5)
    freedom = error**4 / float((parts**2 / [len(own) - 1 for own in studies]).sum()) if error else len(studies[0]) - 1
    count = math.floor(freedom + _ROUNDING) + 1
    reach = _quantile(count, 1) * error
    return {
        **{"difference": mean, "low": mean - reach, "high": mean + reach, "error": error, "instances": count},
        "p": _two_sided(abs(mean), error, count),
        "p_equal": float(abs(mean) > smallest) if error == 0 else _two_sided(smallest - abs(mean), error, count),
    }


def detectable_difference(error: float, count: int, comparisons: int = 1) -> float:
    """Minimum detectable difference of a two-sided paired t-test at 5 % with a power of 80 %, given its standard error.

    Of several ``comparisons``, that of the first step of Holm's correction, which is the strictest.
    """
    return (_quantile(count, comparisons) + float(scipy.stats.t.ppf(POWER, count - 1))) * error


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values (Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 1979).

    Those below 5 % are significant, and with 95 % none of them is so by chance, however the tests depend on each other.
    """
    values, count = np.asarray(p_values, dtype=np.float64), len(p_values)
    order = np.argsort(values, kind="stable")
    adjusted = np.empty(count)
    adjusted[order] = np.maximum.accumulate((count - np.arange(count)) * values[order]).clip(max=1.0)
    return [float(value) for value in adjusted]


def probability_of_improvement(own: Array, other: Array) -> float:
    """Fraction of the instances on which the first is better than the second; ties count half."""
    return float((own > other).mean() + (own == other).mean() / 2)


def _quantile(count: int, comparisons: int) -> float:
    """Student's quantile of a two-sided interval over ``count`` values, with Bonferroni's correction."""
    return float(scipy.stats.t.ppf(1 - (1 - LEVEL) / (2 * comparisons), count - 1))


def _two_sided(distance: float, error: float, count: int) -> float:
    """The p-value, at most 1, of a mean at this distance from what is tested."""
    if error == 0:
        return float(distance <= 0)
    return min(1.0, 2 * float(scipy.stats.t.sf(distance / error, count - 1)))

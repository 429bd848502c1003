"""What it costs to choose a policy before the problem is seen: regrets over many problems, and paired differences over them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from mtl_gym.checks import should
from mtl_gym.evaluation.resampling import shares
from mtl_gym.evaluation.statistics import LEVEL, RESAMPLES

Array = npt.NDArray[np.float64]


def cross_fitted_regrets(scores: Mapping[str, Sequence[float] | Array]) -> dict[str, float]:
    """How much worse each policy is on a problem than the best one, without the optimism of choosing and measuring on the same.

    The best policy is chosen on every other instance and measured on the rest, in both ways. So a regret may be negative: a policy
    that does no better than chance would have it has 0 regret in the mean if all policies are alike.

    Args:
        scores: Scores of each policy on the same n instances, higher being better.

    Returns:
        By policy: the mean over both halves of the chosen policy's mean score minus its own, in the scores' unit.

    Raises:
        ValueError: If there is no policy, instances differ in number, or there are fewer than two.
    """
    table = np.array([np.asarray(own, np.float64) for own in scores.values()]) if _alike(scores) else np.empty((0, 0))
    if table.ndim != 2 or table.shape[1] < 2:
        counts = {name: len(own) for name, own in scores.items()}
        raise ValueError(should("scores", "hold at least one policy, all with the same two or more instances", counts))
    regrets = np.zeros(len(table))
    for measured in (np.arange(table.shape[1]) % 2 == 0, np.arange(table.shape[1]) % 2 == 1):
        best = int(table[:, ~measured].mean(1).argmax())
        means = table[:, measured].mean(1)
        regrets += (means[best] - means) / 2
    return dict(zip(scores, regrets.tolist(), strict=True))


def _alike(scores: Mapping[str, Sequence[float] | Array]) -> bool:
    return len({len(own) for own in scores.values()}) == 1


def difference_over_problems(
    own: Sequence[Array], other: Sequence[Array], groups: Sequence[Hashable] | None = None, resamples: int = RESAMPLES
) -> dict[str, float]:
    """Mean difference of two policies over problems that count alike, with its 95 % percentile bootstrap interval.

    Groups of problems that share data are drawn as one, then instances within problems; training seeds are crossed with both: a
    draw of seeds holds for all problems. Of few groups, the interval is too short, as all bootstrap intervals are.

    Args:
        own: Of each problem, scores (S, n) of a policy that was trained with S seeds, or (n,) of one that was not trained.
        other: Of each problem, scores of another policy on the same instances, (T, n) or (n,).
        groups: What each problem shares its data with; ``None``: each is drawn for itself.
        resamples: Number of draws.

    Returns:
        ``difference``, ``low`` and ``high``.

    Raises:
        ValueError: If there is no problem, or their numbers of instances or groups differ.
    """
    pairs = [(np.atleast_2d(first), np.atleast_2d(second)) for first, second in zip(own, other, strict=False)]
    named = list(range(len(own))) if groups is None else list(groups)
    if not pairs or len({len(own), len(other), len(named)}) > 1 or any(one.shape[1] != two.shape[1] for one, two in pairs):
        shapes = ([np.shape(one) for one in own], [np.shape(one) for one in other], named)
        raise ValueError(should("own", "and other hold scores of the same instances of at least one problem", shapes))
    rng, kinds = np.random.default_rng(0), list(dict.fromkeys(named))
    seeds = [shares(rng, resamples, len(table)) for table in pairs[0]]  # (R, S), (R, T)
    drawn = shares(rng, resamples, len(kinds))
    totals, weight = np.zeros(resamples), np.zeros(resamples)
    for (first, second), group in zip(pairs, named, strict=True):
        differences = seeds[0] @ first - seeds[1] @ second  # (R, n)
        times = drawn[:, kinds.index(group)]
        totals += times * (differences * shares(rng, resamples, differences.shape[1])).sum(1)
        weight += times
    low, high = np.quantile(totals / weight, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    mean = float(np.mean([first.mean() - second.mean() for first, second in pairs]))
    return {"difference": mean, "low": float(low), "high": float(high)}

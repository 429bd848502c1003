"""Stratified bootstrap over the instances of studies: intervals of means, performance profiles, probability of improvement."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mtl_gym.evaluation.statistics import LEVEL, RESAMPLES

Array = npt.NDArray[np.float64]


class Estimate(NamedTuple):
    """A mean with the ends of its 95 % interval, of the same shape."""

    mean: Array
    low: Array
    high: Array


def shares(rng: np.random.Generator, resamples: int, count: int) -> Array:
    """How often each of ``count`` things is in a bootstrap sample of them, over ``count``: (R, count)."""
    return rng.multinomial(count, np.full(count, 1 / count), size=resamples) / count


def stratified_mean(studies: Sequence[Array]) -> Estimate:
    """Mean over studies, which count alike, of means over their instances, with a stratified bootstrap interval.

    Instances are redrawn within each study (percentiles, 95 %, pointwise). Every call with as many instances uses the same
    resamples. Where all instances of a study have the same value, so does every resample: the interval then has no width, though
    further instances may differ.

    Args:
        studies: Of each study, the values (n, ...) of its instances.

    Returns:
        Mean and ends, each of shape (...).

    Raises:
        ValueError: If there is no study, or one without instances.
    """
    draws = _draws(tuple(len(own) for own in studies))
    drawn = np.mean([draw @ own for draw, own in zip(draws, studies, strict=True)], axis=0)  # (R, ...)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return Estimate(np.mean([own.mean(0) for own in studies], axis=0), low, high)


@functools.lru_cache(maxsize=4)
def _draws(counts: tuple[int, ...]) -> tuple[Array, ...]:
    """Of each study, how often each instance is in each resample, over their number: (R, n)."""
    rng = np.random.default_rng(0)
    return tuple(shares(rng, RESAMPLES, count) for count in counts)


def profile(studies: Sequence[Array], levels: Array) -> Estimate:
    """The performance profile of a policy: on which fraction of the instances its score is at least each level.

    This is the score distribution of Agarwal et al. ("Deep Reinforcement Learning at the Edge of the Statistical Precipice",
    NeurIPS 2021), with its pointwise stratified bootstrap band, and not the profile of ratios to the best solver (Dolan and Moré,
    "Benchmarking optimization software with performance profiles", Math. Program. 2002): ``delta_m`` is already relative to a
    reference on the same instance; it may be negative, so there are no ratios; and a policy's profile does not change with the
    policies beside it, the best of which on a single instance would be best by luck.

    Args:
        studies: Of each study, the scores (n,) of its instances, or paired differences.
        levels: Levels (T,), in the unit of the scores.

    Returns:
        Fractions (T,), studies alike, with their bands.
    """
    return stratified_mean([(own[:, None] >= levels).astype(np.float64) for own in studies])


def improvement(differences: Sequence[Array]) -> Estimate:
    """Probability that a policy is better than another one on the same instance of a study that is drawn at random.

    Agarwal et al. compare all runs of one with all runs of the other, since theirs are independent; here instances are shared.

    Args:
        differences: Of each study, the paired differences (n,) of scores; ties count half.

    Returns:
        The probability (), studies alike, with its stratified bootstrap interval.
    """
    return stratified_mean([(own > 0) + (own == 0) / 2 for own in differences])

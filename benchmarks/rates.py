"""Searches for a learning rate: factors of the problem's rate that are tried until the best one lies between others."""

from __future__ import annotations

from collections.abc import Callable, Collection

FACTORS = (0.5, 1.0, 2.0)
"""Learning rates that are always tried, over the problem's."""
LIMITS = (0.125, 8.0)
"""The least and largest factor that is tried where the best one lies at an end."""


def beyond(tried: Collection[float], best: float) -> float | None:
    """The next factor, where the best one lies at an end of those tried; ``None`` where it lies inside or at a limit."""
    further = {min(tried): best / 2, max(tried): best * 2}.get(best)
    return further if further is not None and LIMITS[0] <= further <= LIMITS[1] else None


def climbed(score: Callable[[float], float]) -> dict[float, float]:
    """Scores by factor: of ``FACTORS``, and of further ones while the best lies at an end."""
    tried = {factor: score(factor) for factor in FACTORS}
    while (further := beyond(tried, max(tried, key=lambda own: tried[own]))) is not None:
        tried[further] = score(further)
    return tried

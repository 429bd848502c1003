"""Times of several kinds of work, measured in interleaved rounds, so that other load on the machine affects all of them alike.

Needs numpy alone, so that a process with another version of this package can run the file by its path.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

SECONDS = 35.0
"""How long ``mtl-gym bench`` measures."""
Work = Callable[[], int | None]
"""Does some work and returns its number of steps; ``None``: one."""
Times = npt.NDArray[np.float64]
"""Seconds of a step, (rounds,)."""


def piece(work: Work, seconds: float, wait: Callable[[], object] = lambda: None) -> float:
    """Seconds per step, with work repeated for at least that many seconds, and at least once.

    ``wait`` returns when all work that was started is done: a GPU still works after the call returns.
    """
    wait()
    steps, start = 0, time.perf_counter()
    while True:
        done = work()
        steps += 1 if done is None else done
        wait()
        passed = time.perf_counter() - start
        if passed >= seconds:
            return passed / steps


def interleaved(
    pieces: Mapping[str, Callable[[], float]], rounds: int, seconds: float = float("inf"), *, warm_up: int = 1
) -> dict[str, Times]:
    """What each piece returns in every round. Every other round runs in reverse order.

    Args:
        pieces: By name.
        rounds: Rounds that count.
        seconds: After so many, no other round begins; the first that counts always does.
        warm_up: Rounds before them.
    """
    found: dict[str, list[float]] = {name: [] for name in pieces}
    start = time.perf_counter()
    for turn in range(warm_up + rounds):
        if turn > warm_up and time.perf_counter() - start > seconds:
            break
        names = list(pieces)[:: -1 if turn % 2 else 1]
        for name in names:
            value = pieces[name]()
            if turn >= warm_up:
                found[name].append(value)
    return {name: np.array(own) for name, own in found.items()}


def quartiles(values: Times) -> tuple[float, float, float]:
    """The lower quartile, the median and the upper quartile."""
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return float(low), float(middle), float(high)

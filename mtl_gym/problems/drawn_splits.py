"""Splits that are drawn from a problem's pool: those that have labels of every task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from mtl_gym.checks import should
from mtl_gym.problems.base import Pool, Problem

Indices = npt.NDArray[np.int64]

_MOST_DRAWN = 10_000
"""Attempts to draw a split with labels of every task."""
_TRIED, _ENOUGH = 100, 5
"""Splits that are drawn to see whether labels suffice, and how many of them have labels of every task if they do. Where fewer than
one in 200 had, which is when attempts would not suffice, five are found with a probability below 2e-4."""


def check_drawable(problem: Problem) -> None:
    """Checks that splits can be drawn from the problem's pool that have labels of every task.

    Raises a ValueError if there is no pool, or fewer than 5 of 100 splits have them; the message names what is missing most often.
    """
    rng, found, missing = np.random.default_rng(0), 0, Counter[str]()
    for _ in range(0 if problem.complete and problem.pool else _TRIED):
        lacking = _lacking(problem, _pool(problem).drawn(rng))
        missing.update(lacking)
        found += not lacking
        if found == _ENOUGH:
            return
    if missing:
        condition = f"be (0, 0): of {_TRIED} splits drawn from the pool, {found} had labels of every task"
        (what, times), *_ = missing.most_common(1)
        remedy = f"Make the splits larger, or the problem without the tasks that have few labels: {times} lacked {what}."
        raise ValueError(should("distribution['split']", condition, problem.name, remedy))


def draw_split(problem: Problem, rng: np.random.Generator) -> Mapping[str, Indices]:
    """Samples (n,) in the problem's pool of each split, drawn until every split has labels of every task.

    Raises a ValueError if there is no pool, or none of 10,000 attempts has them; see :func:`check_drawable`.
    """
    pool = _pool(problem)
    for _ in range(_MOST_DRAWN):
        drawn = pool.drawn(rng)
        if not _lacking(problem, drawn):
            return drawn
    raise ValueError(should("distribution['split']", f"be (0, 0): {_MOST_DRAWN} splits lacked labels of a task", problem.name))


def _pool(problem: Problem) -> Pool:
    if problem.pool is None:
        raise ValueError(should("distribution['split']", "be (0, 0) for a problem without a pool", problem.name))
    return problem.pool


def _lacking(problem: Problem, drawn: Mapping[str, Indices]) -> list[str]:
    """The labels that splits drawn from the problem's pool lack, in words."""
    targets = _pool(problem).samples.targets
    return [f"{label} in {name}" for name, own in drawn.items() for label in problem.lacking(name, targets[own]).values()]

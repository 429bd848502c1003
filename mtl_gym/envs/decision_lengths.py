"""How many steps a decision takes, from about how many decisions there should be in a training."""

from __future__ import annotations

from mtl_gym.checks import positive_int, should

MOST_DECISIONS = 10**6
"""Largest number of decisions that can be asked for."""
_FARTHEST = 2


def check_decisions(decisions: object) -> int:
    """A valid number of decisions; raises ``ValueError`` or ``TypeError``."""
    return positive_int("decisions", decisions, least=2, most=MOST_DECISIONS)


def steps_of(decisions: int, train_steps: int) -> int | None:
    """The divisor of ``train_steps`` that is nearest, in the ratio, to ``train_steps / decisions``; of two the smaller one.

    ``None`` if none is within a factor of 2, or so that there are at least two decisions.
    """
    near = range(max(2, -(-decisions // _FARTHEST)), _FARTHEST * decisions + 1)
    numbers = [number for number in near if train_steps % number == 0]
    nearest = min(numbers, key=lambda number: (max(number / decisions, decisions / number), -number), default=None)
    return None if nearest is None else train_steps // nearest


def exact_steps_of(decisions: int, train_steps: int) -> int:
    """The same; raises ``ValueError``, which names a length near by that has one."""
    steps = steps_of(decisions, train_steps)
    if steps is None:
        condition = f"have a divisor within a factor of {_FARTHEST} of train_steps / decisions, with decisions={decisions}"
        nearest = max(1, round(train_steps / decisions)) * decisions
        raise ValueError(should("train_steps", condition, train_steps, f"{nearest}, for example, has one."))
    return steps

"""Adam for the few numbers that a method learns alongside the network."""

from __future__ import annotations

import numpy as np

from mtl_gym.baselines.base import Array, State

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8
MOST_LR = 10.0
"""Largest learning rate of what a method learns: logarithms move by about that much at a step."""


def empty_moments(rows: int, num_tasks: int) -> State:
    """Adam's moments (N, K), and the number of updates (N, 1)."""
    zeros = np.zeros((rows, num_tasks))
    return {"first": zeros, "second": zeros, "updates": np.zeros((rows, 1))}


def adam(state: State, slope: Array, lr: Array | float) -> tuple[Array, State]:
    """Adam's update (0.9, 0.999) of numbers (N, K) with this gradient (N, K), and its next moments.

    Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015.
    """
    updates = state["updates"] + 1
    first = _BETA1 * state["first"] + (1 - _BETA1) * slope
    second = _BETA2 * state["second"] + (1 - _BETA2) * slope**2
    move = first / (1 - _BETA1**updates) / (np.sqrt(second / (1 - _BETA2**updates)) + _EPSILON)
    return -lr * move, {"first": first, "second": second, "updates": updates}

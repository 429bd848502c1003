"""Soft optimal uncertainty weighting."""

from __future__ import annotations

from mtl_gym import number
from mtl_gym.baselines.base import Array, Heuristic, Observation, State, losses, softmax


class UWSO(Heuristic):
    """Soft optimal uncertainty weighting (UW-SO): ``w = K softmax((1 / L) / T)``.

    With the optimal uncertainties for the current losses, uncertainty weighting gives ``1 / L``; the softmax tempers this.

    Kirchdorfer, Elich, Kutsche, Stuckenschmidt, Schott and Koehler, "Analytical Uncertainty-Based Loss Weighting in Multi-Task
    Learning", GCPR 2024, arXiv 2408.07985. Weights sum to 1 in the paper, here to K, so that the learning rate means the same as
    for equal weights. They depend on the losses' scales: a loss far below 1 / T takes all the weight. Not in LibMTL or ``torchjd``.

    Args:
        temperature: T, above 0. The paper searches it for each data set, and so should you: 1, 10 and 100, where losses are about
            0.01 to 1. Ours, 100, is a safe start, not a searched value: weights differ by at most a factor of e while no loss is
            below 0.01. At 1, a task that is nearly solved takes all the weight.
    """

    def __init__(self, temperature: float = 100.0) -> None:
        self.temperature = number("temperature", temperature, low=0.0, ends="(]")

    def act(self, obs: Observation, state: State) -> tuple[Array, State]:
        """The softmax of the inverse losses."""
        current = losses(obs)
        return current.shape[1] * softmax(1 / (current * self.temperature)), state

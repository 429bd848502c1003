"""Soft optimal uncertainty weighting."""

from __future__ import annotations

from mtl_gym import number
from mtl_gym.baselines.base import Array, Heuristic, Observation, State, losses, softmax


class UWSO(Heuristic):
    """Soft optimal uncertainty weighting (UW-SO): ``w = K softmax((1 / L) / T)``.

    With the optimal uncertainties for the current losses, uncertainty weighting gives ``1 / L``; the softmax tempers this.

    Kirchdorfer, Elich, Kutsche, Stuckenschmidt, Schott and Koehler, "Analytical Uncertainty-Based Loss Weighting in Multi-Task
    Learning", GCPR 2024, arXiv 2408.07985. Weights sum to 1 in the paper, here to K, so that the learning rate means the same as
    for equal weights. They depend on the losses' scales: a loss far below T takes all the weight. Not in LibMTL or ``torchjd``.

    Args:
        temperature: T, above 0; the paper tunes it for each data set, 1 is our choice.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        self.temperature = number("temperature", temperature, low=0.0, ends="(]")

    def act(self, obs: Observation, state: State) -> tuple[Array, State]:
        """The softmax of the inverse losses."""
        current = losses(obs)
        return current.shape[1] * softmax(1 / (current * self.temperature)), state

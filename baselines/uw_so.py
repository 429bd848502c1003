"""Soft optimal uncertainty weighting."""

from __future__ import annotations

from mtl_gym.arguments import number
from mtl_gym.baselines.base import Array, Heuristic, Observation, State, losses, softmax


class UWSO(Heuristic):
    """Soft optimal uncertainty weighting (UW-SO): ``w = K softmax((1 / L) / T)``.

    Uncertainty weighting with the uncertainties that are best for the current losses weighs by ``1 / L``; the softmax tempers it.

    Kirchdorfer, Elich, Kutsche, Stuckenschmidt, Schott and Koehler, "Analytical Uncertainty-Based Loss Weighting in Multi-Task
    Learning", GCPR 2024, arXiv 2408.07985. The paper's weights sum to 1; here to K, so that the learning rate means the same as for
    equal weights. It depends on the losses' scales: where one loss is far below T, it takes all. Not in LibMTL or ``torchjd``.

    Args:
        temperature: T, which the paper searches for each data set; 1 is ours.

    Raises:
        ValueError, TypeError: If it is not positive or no number.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        self.temperature = number("temperature", temperature, low=0.0, ends="(]")

    def act(self, obs: Observation, state: State) -> tuple[Array, State]:
        """The softmax of the inverse losses."""
        current = losses(obs)
        return current.shape[1] * softmax(1 / (current * self.temperature)), state

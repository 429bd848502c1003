"""The mask of correct labels, as an upper reference."""

from __future__ import annotations

from mtl_gym.baselines.base import Array, Observation, State
from mtl_gym.baselines.sample_heuristic import LABELLED, SampleHeuristic, averaging_one, table, weighs_samples


class Oracle(SampleHeuristic):
    """The true mask, an upper reference: samples with correct labels have equal weights, others 0. Unavailable in practice.

    Weights average 1 over the labelled samples of all tasks. A label is correct if it is the sample's own: that of another sample,
    where the own one is missing, is not.
    """

    requires = weighs_samples("label_right", LABELLED)

    def act(self, obs: Observation, state: State) -> tuple[Array, State]:
        """The mask."""
        return averaging_one(table(obs, "label_right"), table(obs, LABELLED)), state

"""Merging by similarity: MTSL's rule over layers, and the same rule over gradients."""

from __future__ import annotations

import numpy as np

from mtl_gym.arguments import number
from mtl_gym.baselines.base import Array, Observation, State
from mtl_gym.baselines.thresholds import ThresholdHeuristic, merges


class MTSL(ThresholdHeuristic):
    """Multi-task structural learning: at every decision, tasks whose layers are similar enough share the next stage.

    In each group the partition with the fewest blocks whose mean affinity reaches the threshold; affinity is a task's mean linear
    CKA with its block, 0 alone. During task learning the layers of a group are drawn together by the alignment term
    ``alignment (1 - mean CKA)``. A new stage begins as the mean of those that it replaces, and imitates them.

    Gurulingan, Zonooz and Arani, ICML 2023, arXiv 2305.00441; defaults are the paper's. Not followed: its schedule (structural
    phases after epochs 3, 5, 7, 9, 13, ... of 80; here every decision is one), and new stages that begin with new weights.

    Args:
        threshold: In [0, 1].
        alignment: Factor of the alignment term.

    Raises:
        ValueError, TypeError: If one of them is out of range.
    """

    requires = merges(similarity="cka", alignment=0.2)

    def __init__(self, threshold: float = 0.8, alignment: float = 0.2) -> None:
        self.threshold = number("threshold", threshold, low=0.0, high=1.0)
        self.alignment = number("alignment", alignment, low=0.0)
        self.requires = merges(similarity="cka", alignment=self.alignment)  # type: ignore[misc]

    def act(self, obs: Observation, state: State) -> tuple[Array, State]:
        """The threshold."""
        return np.full(len(obs[self.of_tasks]), self.threshold), state


class Conflict(ThresholdHeuristic):
    """Merges tasks whose gradients do not conflict, and so splits those that do.

    MTSL's rule with ``(1 + cosine) / 2`` of the gradients of two tasks' losses, each with respect to its own copy of the frontier,
    in the place of CKA. After Shi, Li, Zhang, Pan and Wu, "Recon: Reducing Conflicting Gradients from the Root for Multi-Task
    Learning", ICLR 2023, which finds the layers where cosines are negative and gives each task its own: here nothing is parted
    again, so tasks begin apart and are merged where they do not conflict. The gradients are those of one batch.

    Args:
        threshold: In [0, 1]; 0.5 is a mean cosine of 0.

    Raises:
        ValueError, TypeError: If it is out of range.
    """

    requires = merges(similarity="gradient")

    def __init__(self, threshold: float = 0.5) -> None:
        self.threshold = number("threshold", threshold, low=0.0, high=1.0)

    def act(self, obs: Observation, state: State) -> tuple[Array, State]:
        """The threshold."""
        return np.full(len(obs[self.of_tasks]), self.threshold), state

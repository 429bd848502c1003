"""Merging by similarity: MTSL's rule over layers, and the same rule over gradients."""

from __future__ import annotations

from mtl_gym import number
from mtl_gym.baselines.thresholds import ThresholdHeuristic, merges


class MTSL(ThresholdHeuristic):
    """Multi-task structural learning: at every decision, tasks whose layers are similar enough share the next stage.

    In each group it takes the partition with the fewest blocks whose mean affinity reaches the threshold; a task's affinity is its
    mean linear CKA with its block, 0 alone. During training, the alignment term ``alignment (1 - mean CKA)`` draws the layers of a
    group together. A new stage starts as the mean of those that it replaces and imitates them.

    Gurulingan, Zonooz and Arani, ICML 2023, arXiv 2305.00441, with the paper's defaults. Not followed: its schedule (structural
    phases after epochs 3, 5, 7, 9, 13, ... of 80; here every decision is one), and new stages with new weights.

    Args:
        threshold: In [0, 1].
        alignment: Factor of the alignment term, in [0, 1e6].
    """

    requires = merges(similarity="cka", alignment=0.2)

    def __init__(self, threshold: float = 0.8, alignment: float = 0.2) -> None:
        self.threshold = number("threshold", threshold, low=0.0, high=1.0)
        self.alignment = number("alignment", alignment, low=0.0, high=1e6)
        self.requires = merges(similarity="cka", alignment=self.alignment)  # type: ignore[misc]


class Conflict(ThresholdHeuristic):
    """Merges tasks whose gradients do not conflict, and so splits those that do.

    MTSL's rule with ``(1 + cosine) / 2`` instead of CKA, where the cosine is that of two tasks' gradients on one batch, each with
    respect to its own copy of the frontier. After Shi, Li, Zhang, Pan and Wu, "Recon: Reducing Conflicting Gradients from the Root
    for Multi-Task Learning", ICLR 2023, which splits the layers with negative cosines: here merges are irreversible, so tasks start
    apart and are merged where they do not conflict.

    Args:
        threshold: In [0, 1]; 0.5 is a mean cosine of 0.
    """

    requires = merges(similarity="gradient")

    def __init__(self, threshold: float = 0.5) -> None:
        self.threshold = number("threshold", threshold, low=0.0, high=1.0)

"""Merging by similarity: MTSL's rule over layers, and the same rule over gradients."""

from __future__ import annotations

from mtl_gym import Requirements, choose, number
from mtl_gym.baselines.thresholds import ThresholdHeuristic, merges


def _required(alignment: float, rule: str, adapters: str) -> Requirements:
    return merges(similarity="cka", alignment=alignment, rule=rule, adapters=adapters)


class MTSL(ThresholdHeuristic):
    """Multi-task structural learning: at every decision, tasks whose layers are similar enough share the next stage.

    A task's affinity is its mean linear CKA with its block, 0 alone. In each group, the rule of the paper takes the partition with
    the fewest blocks whose mean affinity reaches the threshold, and merges all its blocks. That of the released code merges only
    the blocks whose own mean affinity exceeds the threshold, and where no partition reaches it, those of the best one with fewer
    blocks than tasks. During training, the alignment term ``alignment (1 - mean CKA)`` draws the layers of a group together. A new
    stage starts as the mean of those that it replaces and imitates them, with a channel adapter for each.

    Gurulingan, Zonooz and Arani, ICML 2023, arXiv 2305.00441, and the authors' code (github.com/NeurAI-Lab/MTSL). Not followed: its
    schedule (structural phases after epochs 3, 5, 7, 9, 13, ... of 80; here every decision is one), and new stages with new
    weights, which imitate for 1 to 8 epochs.

    Args:
        threshold: In [0, 1]; 0.8, the authors' in paper and code.
        alignment: Factor of the alignment term, in [0, 1e6]; 0.2, the authors' in paper and code.
        rule: ``"code"``, that of the authors' code, with which the published networks were found, or ``"paper"``.
        adapters: ``"affine"``, ours, or ``"gate"``: Linear, ReLU, Linear, Sigmoid, as in the authors' code. These scale features
            down and are dropped afterwards, and returns on *reward* were lower with them.
    """

    requires = _required(0.2, "code", "affine")

    def __init__(self, threshold: float = 0.8, alignment: float = 0.2, rule: str = "code", adapters: str = "affine") -> None:
        self.threshold = number("threshold", threshold, low=0.0, high=1.0)
        self.alignment = number("alignment", alignment, low=0.0, high=1e6)
        self.rule = choose("rule", rule, {name: name for name in ("code", "paper")})
        self.adapters = choose("adapters", adapters, {name: name for name in ("affine", "gate")})
        self.requires = _required(self.alignment, self.rule, self.adapters)  # type: ignore[misc]


class Conflict(ThresholdHeuristic):
    """Merges tasks whose gradients do not conflict, and so splits those that do.

    The rule of MTSL's code with ``(1 + cosine) / 2`` instead of CKA, where the cosine is that of two tasks' gradients on one batch,
    each with respect to its own copy of the frontier: at the default threshold, a block is merged if the mean cosine of its pairs
    is positive, whatever other tasks do. (By the rule of the paper, two agreeing tasks would stay apart beside a third that
    conflicts with both.) After Shi, Li, Zhang, Pan and Wu, "Recon: Reducing Conflicting Gradients from the Root for Multi-Task
    Learning", ICLR 2023, which splits the layers with negative cosines: here merges are irreversible, so tasks start apart and are
    merged where they do not conflict.

    Args:
        threshold: In [0, 1]; 0.5, a mean cosine of 0, is ours.
    """

    requires = merges(similarity="gradient", rule="code")

    def __init__(self, threshold: float = 0.5) -> None:
        self.threshold = number("threshold", threshold, low=0.0, high=1.0)

"""Weights of samples from their alignment with the main task's held-out gradient: SLGrad, and L2RW, which SLGrad extends."""

from __future__ import annotations

import numpy as np

from mtl_gym import choose
from mtl_gym.baselines.base import Array, Observation, State
from mtl_gym.baselines.sample_heuristic import LABELLED, SampleHeuristic, averaging_one, table, weighs_samples


class SLGrad(SampleHeuristic):
    """Sample-level weighting by gradients: ``w_ik`` proportional to ``max(0, <grad l_ik, v>)``.

    v is the gradient of the main task's mean loss on held-out data (*meta*) with respect to the shared parameters, l_ik the loss of
    task k on sample i. Where no sample is aligned, all weights are 0 and the batch is skipped.

    Grégoire, Chaudhary and Verboven, "Sample-Level Weighting for Multi-Task Learning with Auxiliary Tasks", 2023, arXiv 2306.04519.
    Paper and code use the raw inner product. Not followed: the code's look-ahead step, which is never undone, so that it trains on
    each batch twice, and its random held-out batches; ours is always the same.

    Args:
        norm: ``"mean"``, ours: weights average 1 over the labelled samples of all tasks. ``"sum"``: they sum to 1, as in the
            authors' code; since the batch loss is a mean too, SGD's steps are up to B K times smaller (Adam hardly notices).
    """

    requires = weighs_samples("alignment", LABELLED)

    def __init__(self, norm: str = "mean") -> None:
        self.norm = choose("norm", norm, {"mean": "mean", "sum": "sum"})

    def act(self, obs: Observation, state: State) -> tuple[Array, State]:
        """The positive parts of the alignments."""
        labelled = table(obs, LABELLED)
        weights = averaging_one(table(obs, "alignment").clip(min=0), labelled)
        counts = labelled.sum((1, 2), keepdims=True).clip(min=1)
        return (weights if self.norm == "mean" else weights / counts), state


class L2RW(SampleHeuristic):
    """Learning to reweight: ``w_i`` proportional to ``max(0, <grad l_i, v>)`` for the samples of the main task alone.

    The derivative of the held-out loss after one step of SGD with respect to a sample's weight is minus the learning rate times the
    inner product of its gradient with the held-out one. L2RW is a method for one task: auxiliary tasks have weight 0, so it is
    SLGrad without them. Weights average 1 over the main task's labelled samples.

    Ren, Zeng, Yang and Urtasun, "Learning to Reweight Examples for Robust Deep Learning", ICML 2018, algorithm 1. Not followed: the
    paper's inner product covers all parameters, ours the shared ones, without the head's.
    """

    requires = weighs_samples("alignment", LABELLED)

    def act(self, obs: Observation, state: State) -> tuple[Array, State]:
        """The positive parts of the main task's alignments."""
        weights = np.zeros_like(table(obs, "alignment"))
        weights[:, :, :1] = averaging_one(table(obs, "alignment").clip(min=0)[:, :, :1], table(obs, LABELLED)[:, :, :1])
        return weights, state

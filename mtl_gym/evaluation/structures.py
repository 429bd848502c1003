"""What has become of networks whose layers were merged: who shares what, how similar, how many parameters, how robust."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from mtl_gym.problems.base import Problem, Split
from mtl_gym.problems.corruptions import SEVERITIES, corrupted, kinds
from mtl_gym.problems.metrics import WORST_DELTA_M, delta_m
from mtl_gym.training.branch_learner import BranchLearner
from mtl_gym.training.learner import Learner
from mtl_gym.training.samples import spread

_SAMPLES = 256


def structures(learner: Learner, references: Sequence[Mapping[str, float]]) -> list[dict[str, Any]]:
    """What each training has come to; nothing, where layers are not merged.

    Args:
        learner: The trainings.
        references: Single-task test metrics of each row, by ``task/metric``.

    Returns:
        For each row ``tasks`` (K names), ``assign`` (S, K: the least task that shares a task's copy of the stage), ``cka``
        (S, K, K), ``parameter_fraction``, and ``corrupted``: delta_m on 256 samples of *test* with corrupted inputs, mean over all
        kinds and severities, over single-task learning on clean inputs; -100 where a training has diverged.
    """
    if not isinstance(learner, BranchLearner):
        return [{} for _ in references]
    nobody = torch.zeros(learner.num_replicas, dtype=torch.bool)
    similar = learner.similarities(nobody).nan_to_num().cpu().numpy().round(3)
    shares, assign = learner.share().tolist(), learner.replicas.assign.tolist()
    scores = _corrupted_scores(learner, references)
    return [
        {
            "tasks": [learner.problem.tasks[task].name for task in learner.replicas.tasks[row].tolist()],
            "assign": assign[row],
            "cka": similar[row].tolist(),
            "parameter_fraction": shares[row],
            "corrupted": scores[row],
        }
        for row in range(learner.num_replicas)
    ]


def _corrupted_scores(learner: Learner, references: Sequence[Mapping[str, float]]) -> list[float]:
    totals, samples = np.zeros(len(references)), _corrupted_samples(learner.problem)
    for split in samples:
        metrics = learner.metrics(split)
        rows = [{name: float(metrics[name][row]) for name in own} for row, own in enumerate(references)]
        finite = [all(np.isfinite(value) for value in own.values()) for own in rows]
        totals += [delta_m(own, known) if ok else WORST_DELTA_M for own, known, ok in zip(rows, references, finite, strict=True)]
    return (totals / len(samples)).round(4).tolist()


@functools.lru_cache(maxsize=1)
def _corrupted_samples(problem: Problem) -> list[Split]:
    """256 samples of *test* with each kind and severity of corruption."""
    chosen = spread(len(problem.splits["test"]), _SAMPLES)
    wholes = [corrupted(problem, "test", kind, severity) for kind in kinds(problem) for severity in SEVERITIES]
    return [Split(whole.inputs[chosen], whole.targets[chosen]) for whole in wholes]

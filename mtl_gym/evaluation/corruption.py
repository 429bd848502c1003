"""Robustness of trained networks: scores on corrupted inputs."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import numpy as np

from mtl_gym.decisions.base import TrainingDecision
from mtl_gym.problems.base import Problem, Split
from mtl_gym.problems.corruptions import SEVERITIES, corrupted as corrupted_split, kinds
from mtl_gym.problems.scores import WORST_DELTA_M, delta_m
from mtl_gym.training.data import spread

_SAMPLES = 256


def corrupted(decision: TrainingDecision, references: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """For each row ``corrupted``: delta_m on 256 samples of *test* with corrupted inputs, -100 where a training has diverged.

    It is relative to single-task learning on clean inputs (``references`` of each row, by ``task/metric``), and a mean over all
    kinds and severities. The decision's trainings have ended.
    """
    trainer = decision.trainer
    totals, samples = np.zeros(len(references)), _corrupted_samples(trainer.problem)
    for split in samples:
        metrics = trainer.metrics(split)
        rows = [{name: float(metrics[name][row]) for name in own} for row, own in enumerate(references)]
        finite = [all(np.isfinite(value) for value in own.values()) for own in rows]
        totals += [delta_m(own, known) if ok else WORST_DELTA_M for own, known, ok in zip(rows, references, finite, strict=True)]
    return [{"corrupted": score} for score in (totals / len(samples)).round(4).tolist()]


@functools.lru_cache(maxsize=1)
def _corrupted_samples(problem: Problem) -> list[Split]:
    """256 samples of *test* with each kind and severity of corruption."""
    chosen = spread(len(problem.splits["test"]), _SAMPLES)
    wholes = [corrupted_split(problem, "test", kind, severity) for kind in kinds(problem) for severity in SEVERITIES]
    return [Split(whole.inputs[chosen], whole.targets[chosen]) for whole in wholes]

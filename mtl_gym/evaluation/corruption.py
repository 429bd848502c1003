"""Robustness of trained networks: scores on corrupted inputs."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from mtl_gym.decisions.base import TrainingDecision
from mtl_gym.problems.base import Problem, Split
from mtl_gym.problems.corruptions import SEVERITIES, corrupted as corrupted_split, kinds
from mtl_gym.problems.scores import WORST_DELTA_M, delta_m, split_metrics
from mtl_gym.training.data import spread
from mtl_gym.training.trainer import Trainer

_SAMPLES = 256


def corrupted(decision: TrainingDecision, references: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """For each row ``corrupted``: delta_m on 256 samples of *test* with corrupted inputs, -100 where a training has diverged.

    It is relative to single-task learning on clean inputs (``references`` of each row, by ``task/metric``), and a mean over all
    kinds and severities. The decision's trainings have ended.
    """
    trainer = decision.trainer
    totals, samples = np.zeros(len(references)), _samples_of_rows(trainer)
    shared = samples[0].inputs.ndim == 1 + len(trainer.problem.input_shape)
    for split in samples:
        inputs, targets = split.inputs.to(trainer.state.device), split.targets.to(trainer.state.device)
        everywhere = inputs.expand(len(references), *inputs.shape) if shared else inputs
        metrics = split_metrics(trainer.problem, trainer.outputs(everywhere), targets)
        rows = [{name: float(metrics[name][row]) for name in own} for row, own in enumerate(references)]
        finite = [all(np.isfinite(value) for value in own.values()) for own in rows]
        totals += [delta_m(own, known) if ok else WORST_DELTA_M for own, known, ok in zip(rows, references, finite, strict=True)]
    return [{"corrupted": score} for score in (totals / len(samples)).round(4).tolist()]


def _samples_of_rows(trainer: Trainer) -> list[Split]:
    """Corrupted samples (n, ...) of *test*, or (N, n, ...) where rows have splits of their own, with each kind and severity."""
    problem, instances = trainer.problem, trainer.ledger.instances
    if problem.family is None and any(own is None or own.members is None for own in instances):
        return list(_corrupted_samples(problem))
    rows = [_of_split(problem, own.split(problem, "test"), own.split(problem, "train")) for own in instances if own is not None]
    several = [[own[place] for own in rows] for place in range(len(rows[0]))]
    return [Split(torch.stack([one.inputs for one in own]), torch.stack([one.targets for one in own])) for own in several]


@functools.lru_cache(maxsize=1)
def _corrupted_samples(problem: Problem) -> list[Split]:
    """256 samples of the problem's own *test* with each kind and severity of corruption."""
    return _of_split(problem, problem.splits["test"], problem.splits["train"])


def _of_split(problem: Problem, test: Split, train: Split) -> list[Split]:
    chosen = spread(len(test), _SAMPLES)
    wholes = [corrupted_split(problem, test, kind, severity, train) for kind in kinds(problem) for severity in SEVERITIES]
    return [Split(whole.inputs[chosen], whole.targets[chosen]) for whole in wholes]

"""The result of one policy on one instance."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Result:
    """The result of one policy on one instance.

    Attributes:
        policy: Its name, with options, as on the command line.
        instance: Id of the instance.
        metrics: Metrics on the *test* split, by ``task/metric``.
        references: Those of single-task learning on this instance.
        delta_m: Mean relative gain over single-task learning in percent, higher is better; -100 if the training diverged.
        cost: ``forward`` and ``backward`` passes of a training batch, without the evaluation of the test split.
        diverged: Whether the training became non-finite.
        episode_return: Sum of the rewards.
        curves: Checkpoints: ``step`` (S,), ``loss`` (task to (S,), on *reward*, without the instance's loss scale), and ``weight``
            and improvable ``gap`` (task to (S,), of means since the previous checkpoint); ``None`` for numbers that are not finite.
        planted: Properties that the instance planted in each task: ``scale`` of its loss, ``noise`` of its labels (task to number).
        outcome: The environment's :meth:`~mtl_gym.Decision.outcome`, its ``measures``, and ``invalid_actions``, the fraction of
            decisions that were masked, where ``info`` has ``invalid_action``.
        kernels: With which it was computed, see :func:`~mtl_gym.evaluation.kernels.running_kernels`; empty in files of earlier
            versions.
        batch: Ids of the instances that were trained side by side, whose number may change the last bits; empty in files of earlier
            versions.
    """

    policy: str
    instance: int
    metrics: dict[str, float]
    references: dict[str, float]
    delta_m: float
    cost: dict[str, float]
    diverged: bool
    episode_return: float = 0.0
    curves: dict[str, Any] = field(default_factory=dict)
    planted: dict[str, dict[str, float]] = field(default_factory=dict)
    outcome: dict[str, Any] = field(default_factory=dict)
    kernels: dict[str, Any] = field(default_factory=dict)
    batch: list[int] = field(default_factory=list)

"""What a policy is paid: ``REWARDS`` maps a name to a function of the signals. A row is one line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mtl_gym.envs.signals import AFTER, BASE, GAINS, REWARD, SCORE, UPCOMING, Signals, measured
from mtl_gym.problems import SAMPLE_WEIGHTING, TASK_GROUPING
from mtl_gym.problems.metrics import WORST_DELTA_M
from mtl_gym.training.group_learner import GAINS as GROUP_GAINS
from mtl_gym.training.signals import SMALLEST_LOSS, log_loss


@dataclass(frozen=True)
class Reward:
    """One row of ``REWARDS``.

    Attributes:
        function: Signals to the reward (N,) of the last decision.
        meaning: Formula, unit, and what a return of 0 and of 1 mean.
        needs: What has to be measured for it.
        penalty: The reward of a decision in which the training diverges.
        of_main: Whether it can be of the main task alone, where there is one.
        probes: What the learner has to probe for it.
        only: Id of the environment that alone pays it.
    """

    function: Callable[[Signals], Tensor]
    meaning: str
    needs: tuple[str, ...] = ()
    penalty: float = -10.0
    of_main: bool = False
    probes: tuple[str, ...] = ()
    only: str | None = None


def _decline(before: Tensor, after: Tensor) -> Tensor:
    return log_loss(before) - log_loss(after)


def _igb(s: Signals) -> Tensor:
    gains = (s.first - measured(s.upcoming)) / s.base.clamp(min=SMALLEST_LOSS)
    return s.initial_lr / s.previous_lr * gains.amin(1)


def _distance(gains: Tensor | None) -> Tensor:
    """Mean over tasks of the log of the relative distance, ``1 - gain``, to twice what single-task learning reaches."""
    return (1 - measured(gains) / 100).clamp(min=0.05).log().mean(1)


def _mean_gain(gains: Tensor | None) -> Tensor:
    return measured(gains).clamp(min=WORST_DELTA_M).mean(1)


REWARDS = {
    "val_mean": Reward(
        lambda s: _decline(s.previous_holdout[REWARD], s.holdout[REWARD]).mean(1),
        "mean over tasks of the decline of the log loss on the *reward* split; "
        "a return of 0: no better than the initial weights, of 1: losses fell by a factor of e in the geometric mean",
        (REWARD,),
        of_main=True,
    ),
    "val_min": Reward(
        lambda s: _decline(s.previous_holdout[REWARD], s.holdout[REWARD]).amin(1),
        "the least decline of a task's log loss on the *reward* split; "
        "a return of 1: at every decision the worst task's decline summed to a factor of e",
        (REWARD,),
    ),
    "same_batch": Reward(
        lambda s: _decline(s.last, measured(s.after)).mean(1),
        "mean over tasks of the decline of the log loss of the decision's last *training* batch by its own step; "
        "0: no step lowered its own batch's losses, 1: the steps together by a factor of e",
        (AFTER,),
    ),
    "igb": Reward(
        _igb,
        "IGBv2's: (lr_0 / lr_t) min_k (L_k(t) - L_k(t + 1)) / Lbase_k, losses of the first *training* batches of this decision and "
        "of the next; 1: the least improved task fell by the second epoch's mean loss",
        (UPCOMING, BASE),
    ),
    "terminal_delta_m": Reward(
        lambda s: measured(s.score),
        "at the end: delta_m on the *reward* split in percent, against single-task training averaged over 32 instances; "
        "0: as good as single-task training, 1: better by one percent, at least -100",
        (SCORE,),
        penalty=-100.0,
        of_main=True,
    ),
    "gain": Reward(
        lambda s: _distance(s.previous_gains) - _distance(s.gains),
        "decline of the mean over tasks of log(1 - gain_k), gain_k the relative gain on the *reward* split that delta_m averages "
        "(references as for `terminal_delta_m`), at every decision; for errors 1 - gain_k is the ratio to single-task training's; "
        "it counts as 0.05 at least. "
        "A return of 0: as the initial weights, of 1: ratios fell by a factor of e in the geometric mean",
        (GAINS,),
        of_main=True,
    ),
    "gain_change": Reward(
        lambda s: (_mean_gain(s.gains) - _mean_gain(s.previous_gains)) / 100,
        "change of the mean relative gain over single-task learning on the *reward* split, as a share (references as for "
        "`terminal_delta_m`; gains count as -100 % at least), at every decision. "
        "A return of 0: as the initial weights, of 1: 100 percentage points above them",
        (GAINS,),
        penalty=-2.0,
        of_main=True,
    ),
    "gain_over_joint": Reward(
        lambda s: s.probes[GROUP_GAINS].clamp(min=-1).mean(1),
        "at the end: mean over tasks of the relative gain on the *reward* split over training all tasks together, as a share "
        "(gains count as -100 % at least). A return of 0: as good as all together, of 1: 100 % better",
        penalty=-2.0,
        probes=(GROUP_GAINS,),
        only=TASK_GROUPING,
    ),
    "none": Reward(lambda s: torch.zeros_like(s.progress), "always 0, and nothing is measured", penalty=0.0, of_main=True),
}


def rewards_of(environment: str) -> dict[str, Reward]:
    """The rows that an environment can pay: those of the main task alone, where there is one; nothing is what all can pay."""
    if environment == TASK_GROUPING:
        return {name: row for name, row in REWARDS.items() if row.only == environment or name == "none"}
    common = {name: row for name, row in REWARDS.items() if row.only is None}
    return {name: row for name, row in common.items() if row.of_main or environment != SAMPLE_WEIGHTING}

"""What a policy receives: ``REWARDS`` maps a name to a function of a view."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mtl_gym.problems.scores import WORST_DELTA_M
from mtl_gym.training.formulas import SMALLEST_LOSS, log_loss
from mtl_gym.training.probes import AFTER, BASE, GAINS, INITIAL_LR, LR, QUALITY, REWARD, SCORE, UPCOMING, View


@dataclass(frozen=True)
class Reward:
    """One row of ``REWARDS``.

    Attributes:
        function: Maps a view to the reward (N,) of the last decision.
        meaning: Formula, unit, and the meaning of a return of 0 and of 1.
        needs: Names of the measurements that it uses.
        penalty: The reward of a decision in which the training diverges.
        of_main: Whether environments with a main task offer it, for that task alone.
        priced: Whether a decision's prices are subtracted.
    """

    function: Callable[[View], Tensor]
    meaning: str
    needs: tuple[str, ...] = ()
    penalty: float = -10.0
    of_main: bool = False
    priced: bool = True


def _decline(before: Tensor, after: Tensor) -> Tensor:
    return log_loss(before) - log_loss(after)


def _igb(v: View) -> Tensor:
    improvements = (v.losses.first - v[UPCOMING]) / v.losses.base.clamp(min=SMALLEST_LOSS)
    return v[INITIAL_LR] / v.previous[LR] * improvements.amin(1)


def _distance(gains: Tensor) -> Tensor:
    """Mean over tasks of the log relative distance, ``1 - gain``, to twice the single-task result."""
    return (1 - gains / 100).clamp(min=0.05).log().mean(1)


def _mean_gain(gains: Tensor) -> Tensor:
    return gains.clamp(min=WORST_DELTA_M).mean(1)


REWARDS = {
    "val_mean": Reward(
        lambda v: _decline(v.previous[REWARD], v[REWARD]).mean(1),
        "mean over tasks of the decrease of the log loss on the *reward* split; "
        "a return of 0: no better than the initial weights, of 1: losses fell by a factor of e in the geometric mean",
        (REWARD,),
        of_main=True,
    ),
    "val_min": Reward(
        lambda v: _decline(v.previous[REWARD], v[REWARD]).amin(1),
        "the smallest decrease of any task's log loss on the *reward* split; "
        "a return of 1: over all decisions, the worst task's decreases add up to a factor of e",
        (REWARD,),
    ),
    "same_batch": Reward(
        lambda v: _decline(v.losses.last, v[AFTER]).mean(1),
        "mean over tasks of the decrease of the log loss of the decision's last *training* batch by its own step; "
        "0: no step lowered its own batch's losses, 1: the steps together lowered them by a factor of e",
        (AFTER,),
    ),
    "igb": Reward(
        _igb,
        "IGBv2's: (lr_0 / lr_t) min_k (L_k(t) - L_k(t + 1)) / Lbase_k, with the losses of the first *training* batches of this and "
        "the next decision; 1: the least improved task's loss fell by its second-epoch mean. Under the cosine schedule the factor "
        "grows to about (2 H / (pi s))^2 in the last decision of s of H steps",
        (UPCOMING, BASE, LR, INITIAL_LR),
    ),
    "terminal_delta_m": Reward(
        lambda v: v[SCORE],
        "at the end: delta_m on the *reward* split, in percent (at least -100), over single-task training averaged over 32 "
        "instances; 0: as good as single-task training, 1: one percent better",
        (SCORE,),
        penalty=-100.0,
        of_main=True,
    ),
    "gain": Reward(
        lambda v: _distance(v.previous[GAINS]) - _distance(v[GAINS]),
        "decrease per decision of the task mean of log(1 - gain_k), gain_k being the relative gain on the *reward* split that "
        "delta_m averages (references as for `terminal_delta_m`); for errors, 1 - gain_k is the ratio to single-task "
        "training, at least 0.05. A return of 0: as the initial weights, of 1: ratios fell by a factor of e in the geometric mean",
        (GAINS,),
        of_main=True,
    ),
    "gain_change": Reward(
        lambda v: (_mean_gain(v[GAINS]) - _mean_gain(v.previous[GAINS])) / 100,
        "change per decision of the mean relative gain over single-task learning on the *reward* split, as a fraction (references "
        "as for `terminal_delta_m`; each gain at least -100 %). A return of 0: as the initial weights, of 1: 100 points above",
        (GAINS,),
        penalty=-2.0,
        of_main=True,
    ),
    "quality": Reward(
        lambda v: (v[QUALITY] - v.previous[QUALITY]).mean(1),
        "mean over tasks of the change of the log of their metrics on the *reward* split (minus it where lower is better); "
        "without references; no task's is lower than that of outputs of 0, less 3. A return of 0: as the initial weights, of 1: "
        "metrics improved by a factor of e in the geometric mean",
        (QUALITY,),
        of_main=True,
    ),
    "none": Reward(
        lambda v: torch.zeros_like(v.progress), "always 0; nothing is measured", penalty=0.0, of_main=True, priced=False
    ),
}

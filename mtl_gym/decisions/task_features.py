"""The action ``rule``: weights from features of the tasks, ``TASK_FEATURES``, and their coefficients. N rows, K tasks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mtl_gym.checks import number, several
from mtl_gym.policies.protocol import WEIGHT_BOUND
from mtl_gym.training.formulas import improvable_gap, log_loss, log_norms, mean_cosines, relative
from mtl_gym.training.probes import BASE, GRAMIAN, META, View

LEVEL_REACH = 2.0
"""The largest coefficient of the level: from a mean weight of 1 (0) past one over the mean relative loss (1) to its square."""
RISE = 10.0
"""A loss over its first value counts as no more than this in the level: a first loss may be missing, or 0."""
MOST_RESIDUAL = 10.0
"""The largest reach of a residual: e^10 is a ratio of 22,000."""
_LARGEST = 100.0
"""Features beyond are cut off: logarithms of float32 losses over each other, clamped to 1e-12, lie within 117."""


@dataclass(frozen=True)
class TaskFeature:
    """One row of ``TASK_FEATURES``.

    Attributes:
        function: Maps a view to values (N, K), once a decision; or, if ``of_batch``, the losses (N, K) of the batch about to be
            trained on and L(0) (N, K), for each batch anew.
        reach: The largest absolute value of its coefficient, which belongs to an action of 1.
        meaning: One line for the manual.
        needs: Names of the measurements.
        of_batch: See ``function``.
        raw: Whether it reveals the scale of a loss.
    """

    function: Callable[..., Tensor]
    reach: float
    meaning: str
    needs: tuple[str, ...] = ()
    of_batch: bool = False
    raw: bool = False

    @property
    def paid(self) -> bool:
        """Whether it costs more than losses and held-out losses."""
        return GRAMIAN in self.needs


def log_gap(view: View) -> Tensor:
    """Logarithm (N, K) of the improvable gap."""
    return log_loss(improvable_gap(view.losses.mean, view.losses.base))


def overfit(view: View) -> Tensor:
    """Log *meta* loss minus log mean batch loss of the last decision (N, K), both relative to L(0), which cancels."""
    return relative(view[META], view.losses.mean)


def overfit_slope(view: View) -> Tensor:
    """Change (N, K) of :func:`overfit` in the last decision."""
    return relative(view[META], view.previous[META]) - relative(view.losses.mean, view.losses.previous_mean)


TASK_FEATURES = {
    "first": TaskFeature(
        lambda losses, initial: -log_loss(initial), 2.0, "`-log L_k(0)`: a coefficient of 1 is `init`", of_batch=True, raw=True
    ),
    "loss": TaskFeature(
        lambda losses, initial: -relative(losses, initial),
        2.0,
        "`-log(L_k / L_k(0))` of each batch: 1 and 1 are `si`",
        of_batch=True,
    ),
    "base": TaskFeature(
        lambda v: -relative(v.losses.base, v.losses.initial),
        2.0,
        "`-log(Lbase_k / L_k(0))`, mean batch loss of the second epoch; 0 until it is known",
        (BASE,),
    ),
    "slope": TaskFeature(
        lambda v: relative(v.losses.mean, v.losses.previous_mean), 16.0, "change of the log mean batch loss in the last decision"
    ),
    "gap": TaskFeature(log_gap, 4.0, "log of the improvable gap: mean batch loss over that of the second epoch", (BASE,)),
    "overfit": TaskFeature(overfit, 2.0, "log *meta* loss minus log mean batch loss", (META,)),
    "overfit_slope": TaskFeature(overfit_slope, 16.0, "change of `overfit` in the last decision", (META,)),
    "norm": TaskFeature(
        lambda v: -log_norms(v[GRAMIAN]), 2.0, "minus the log norm of the gradient of the shared parameters", (GRAMIAN,), raw=True
    ),
    "cosine": TaskFeature(
        lambda v: mean_cosines(v[GRAMIAN]), 32.0, "mean cosine of that gradient with those of the other tasks", (GRAMIAN,)
    ),
}
"""Features of tasks. One and one on the first two have the direction of SI.

Each reach is the power of two that is nearest to 2 times the usual spread of ``loss`` over that of the feature: their standard
deviations over the tasks of a training, in the median over all decisions on five problems, are .55 and .06 (``slope``), .29
(``gap``), .40 (``overfit``), .06 (``overfit_slope``) and .04 (``cosine``); ``norm`` (1.31) has that of ``first`` (1.29), and
``base`` (.14) that of ``loss``, since both divide by a loss. ``python -m benchmarks.feature_spreads`` prints them.

``loss`` plus ``gap`` less ``base`` is the log of the mean loss of the last decision over that of the batch: to give all three the
same additional coefficient, negative for ``base``, adds noise alone.
"""

DEFAULT_FEATURES = tuple(name for name, row in TASK_FEATURES.items() if not row.paid)
"""Those that cost no more than losses and held-out losses."""


class FeatureRule:
    r"""Weights ``w_k = K softmax(s)_k * level`` with ``s_k = sum_f c_f phi_fk``, from coefficients c that are held for a decision.

    ``level = (mean_k min(L_k / L_k(0), RISE))^-l``, of the losses of each batch: weights average 1 at l = 0 and grow at l > 0 as
    losses fall. With ``first``, ``base`` and l of 1, weights have the direction of STCH's with a smoothing of 1, once the second
    epoch is known. Their level is another one: STCH's is one over the mean of losses over those of the second epoch, times a
    constant, and before that its weights are ``1 / L_k``. The level is computed from logarithms, and is at most ``WEIGHT_BOUND``; a
    feature that is not a number counts as 0.

    What is held for a decision, (N, P, K), P = 3 + the number of features of the batch, are by rows: l, the sum of the features of
    the decision times their coefficients, without those that reveal a scale and of these alone, and the coefficients of the
    features of the batch. A *residual* of each task, a number of its own that the action holds, is added to its ``s_k``.

    Args:
        features: Rows of ``TASK_FEATURES``. ``None``: ``DEFAULT_FEATURES``.
        residual_reach: The residual that belongs to an action of 1, at least 0; 0: actions have no residuals.

    Attributes:
        features: Their names.
        needs: Names of the required measurements.

    Raises:
        ValueError, TypeError: If the features are no list of different names, or the reach is out of range.
    """

    def __init__(self, features: Sequence[str] | None, residual_reach: float = 0.0) -> None:
        self.residual_reach = number("residual_reach", residual_reach, low=0.0, high=MOST_RESIDUAL)
        self.features = DEFAULT_FEATURES if features is None else several("features", features, TASK_FEATURES, noun="feature")
        self.needs = tuple(dict.fromkeys(need for row in self._rows.values() for need in row.needs))

    @property
    def _rows(self) -> dict[str, TaskFeature]:  # no attribute: functions cannot be pickled
        return {name: TASK_FEATURES[name] for name in self.features}

    @property
    def num_held(self) -> int:
        """P."""
        return 3 + sum(row.of_batch for row in self._rows.values())

    def num_actions(self, num_tasks: int) -> int:
        """The numbers of an action: of the level, of the features, and of K tasks if they have residuals."""
        return 1 + len(self.features) + (num_tasks if self.residual_reach else 0)

    def held(self, actions: Tensor, view: View) -> Tensor:
        """What is held for a decision (N, P, K), float64, from actions (N, 1 + F), or (N, 1 + F + K) with residuals, in [-1, 1].

        Features are those of what is known before the decision.
        """
        reach = [LEVEL_REACH, *(row.reach for row in self._rows.values())]
        coefficients = actions[:, : len(reach)].double() * actions.new_tensor(reach, dtype=torch.float64)
        own = dict(zip(self.features, coefficients[:, 1:, None].unbind(1), strict=True))  # (N, 1) each
        sums = {raw: torch.zeros_like(view.losses.initial, dtype=torch.float64) for raw in (False, True)}
        if self.residual_reach:
            sums[False] = self.residual_reach * actions[:, len(reach) :].double()
        for name, row in self._rows.items():
            if not row.of_batch:
                sums[row.raw] = sums[row.raw] + own[name] * _finite(row.function(view))
        of_batch = [own[name] for name, row in self._rows.items() if row.of_batch]
        columns = [coefficients[:, :1], *sums.values(), *of_batch]
        return torch.stack([column.expand_as(sums[False]) for column in columns], dim=1)

    def weights(self, held: Tensor, losses: Tensor, initial: Tensor) -> Tensor:
        """The weights (N, K) of a step on a batch with these losses (N, K), from what is held and L(0) (N, K)."""
        now = held[:, 1] + held[:, 2] + self._of_losses(held, losses, initial)
        fallen, bound = _finite(relative(losses.double(), initial.double())).clamp(max=math.log(RISE)), math.log(WEIGHT_BOUND)
        level = (-held[:, 0] * _log_mean_exp(fallen)).clamp(-bound, bound)
        return (now - _log_mean_exp(now) + level).exp().to(losses.dtype)

    def relative_weights(self, held: Tensor, losses: Tensor, initial: Tensor) -> Tensor:
        """The weights (N, K) that the features without the raw ones would give, with a mean of 1: they reveal no loss's scale."""
        now = held[:, 1] + self._of_losses(held, losses, initial, raw=False)
        return (now - _log_mean_exp(now)).exp().to(losses.dtype)

    def _of_losses(self, held: Tensor, losses: Tensor, initial: Tensor, *, raw: bool = True) -> Tensor:
        """The sum (N, K) of the batch's features times their coefficients, with or without raw ones."""
        exact = (losses.double(), initial.double())
        total = torch.zeros_like(exact[0])
        of_batch = [row for row in self._rows.values() if row.of_batch]
        for row, coefficient in zip(of_batch, held[:, 3:].unbind(1), strict=True):
            if raw or not row.raw:
                total = total + coefficient * _finite(row.function(*exact))
        return total


def _finite(values: Tensor) -> Tensor:
    return values.double().nan_to_num(nan=0.0).clamp(-_LARGEST, _LARGEST)


def _log_mean_exp(values: Tensor) -> Tensor:
    """``log mean_k exp(v_k)`` (N, 1), which is exactly v if all are v."""
    most = values.amax(1, keepdim=True)
    return most + (values - most).exp().mean(1, keepdim=True).log()

"""``mtl_gym/LossWeighting-v0``: how much does each task's loss count?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium.spaces import Box

from mtl_gym.checks import number, should
from mtl_gym.decisions.task_features import TASK_FEATURES, FeatureRule
from mtl_gym.decisions.task_rules import TaskWeighing
from mtl_gym.decisions.task_weights import TaskWeights
from mtl_gym.environments import LOSS_WEIGHTING
from mtl_gym.envs.arguments import Arguments
from mtl_gym.envs.observations import observes_gradients
from mtl_gym.envs.scalar import MTLEnv
from mtl_gym.envs.spec import EnvironmentSpec, ScheduleSearch
from mtl_gym.envs.vector import MTLVectorEnv
from mtl_gym.training.memory import check_memory
from mtl_gym.training.probes import GRAMIAN
from mtl_gym.training.trainer import Trainer

_MOST_DECAY = 10.0
"""Largest exponent of the step; from the second step on, averages then keep a thousandth of their past at most."""


def _decide(
    common: Arguments,
    num_envs: int,
    *,
    action: str = "softmax",
    rule: str = "init",
    weight_range: float = 1e6,
    scope: str = "all",
    gradient_ema: float = 0.0,
    gradient_ema_decay: float = 0.0,
    features: Sequence[str] | None = None,
    residual_reach: float = 0.0,
) -> TaskWeights:
    of_rule: dict[str, Any] = {"features": features, "residual_reach": residual_reach}
    weighing = TaskWeighing(common.recipe.num_tasks, action=action, rule=rule, weight_range=weight_range, scope=scope, **of_rule)
    average = number("gradient_ema", gradient_ema, low=0.0, high=1.0, ends="[)")
    decay = number("gradient_ema_decay", gradient_ema_decay, low=0.0, high=_MOST_DECAY)
    apart = scope != "all" or average > 0 or GRAMIAN in weighing.needs or observes_gradients(common.observe)
    needed = check_memory(common.problem, common.recipe, num_envs, task_gradients=apart)
    trainer = Trainer(common.problem, common.recipe, num_envs, gradient_ema=average, gradient_ema_decay=decay)
    decision = TaskWeights(trainer, common.steps_per_action, weighing)
    decision.estimated_bytes = needed
    return decision


def _actions(arguments: Mapping[str, Any], num_tasks: int, choices: int | None) -> Box:
    if arguments.get("scope", "all") != "all":
        raise ValueError(should("scope", "be 'all' for agents, which weight the whole losses", arguments["scope"]))
    if arguments.get("action") != "rule":
        return Box(-1, 1, (num_tasks,), np.float32)
    rule = FeatureRule(arguments.get("features"), arguments.get("residual_reach", 0.0))
    return Box(-1, 1, (rule.num_actions(num_tasks),), np.float32)


def _table() -> str:
    rows = [
        f"| `{name}` | {row.meaning} | {row.reach:g} | {'each batch' if row.of_batch else 'each decision'}"
        f"{', paid for' if row.paid else ''} |"
        for name, row in TASK_FEATURES.items()
    ]
    return "\n".join(["| feature | what | reach | measured |", "|---|---|---|---|", *rows])


_SEARCH = ScheduleSearch(
    {"action": "rule", "features": ["first", "loss", "base", "gap"], "decisions": 16},
    ((0, 0, 0, 0, 0), (0, 0.5, 0, 0, 0), (0, 0.5, 0.5, 0, 0), (0.5, 0.5, 0, 0.5, 0)),
)
"""The anchors are equal weights, `init`, `si` with a mean of 1, and nearly `stch`."""


class LossWeightingVectorEnv(MTLVectorEnv):
    """N trainings whose task losses are weighted; the manual is :class:`LossWeightingEnv`'s."""

    specification = EnvironmentSpec(
        LOSS_WEIGHTING,
        _decide,
        actions=_actions,
        sections={"features": _table()},
        search=_SEARCH,
        by_hand="mtl_gym.evaluation.handwritten:Shared",
    )


class LossWeightingEnv(MTLEnv):
    r"""How much does each task's loss count?

    ## Description
    A network with a shared trunk and a head for each of K tasks is trained on real data for ``train_steps`` optimiser steps. At
    every decision, the agent observes the training and sets the weights ``w`` of the task losses for the next ``steps_per_action``
    steps, each of which descends ``sum_k w_k L_k``. An episode is one training. Observations, rewards and baselines follow Dai, Fei
    and Lu, "Improvable Gap Balancing for Multi-Task Learning", UAI 2023, but the default reward is measured on held-out data: the
    paper's, which compares consecutive training batches, hardly depends on the action.

    ## Action Space
    ``action="softmax"`` (default) and ``"residual"``: ``Box(-1, 1, (K,), float32)``. ``action="rule"``:
    ``Box(-1, 1, (1 + F,), float32)``, F the number of ``features``. ``action="weights"``: ``Box(-1e6, 1e6, (K,), float32)``.

    | action | weights of each optimiser step | for |
    |---|---|---|
    | `softmax` | `K softmax(c a)`, `c = ln(weight_range) / 2`: equal actions give equal weights | agents |
    | `residual` | the same times the weights of `rule`: `"init"`: `1 / L_k(0)`; `"si"`: `1 / L_k` of the batch | agents |
    | `rule` | `K softmax(s) level`, `s_k = sum_f c_f phi_fk`; coefficients c = reach times action, phi the features | agents |
    | `weights` | `a` itself, signed and not normalised | heuristics |

    ``rule`` takes 1 + F numbers whatever K is: first the coefficient l of the level, with a reach of 2, then one for each of
    ``features``. Its weights average ``level = (mean_k L_k / L_k(0))^-l``, of the losses of the batch, which acts like a learning
    rate that grows (l > 0) as losses fall, and is at most 1e6; a loss above ten times its first value counts as ten. So an action
    of 0 is equal weights; with coefficients (first, loss, base) of (1, 0, 0) they are ``1 / L_k(0)`` over their mean; with (1, 1,
    0), ``1 / L_k`` of the batch over their mean; with (1, 0, 1), one over the mean loss of the second epoch, over their mean, which
    is the direction of `stch`.

    {features}

    With a ``residual_reach`` r above 0, K more numbers follow, one for each task: r times its number is added to ``s_k``, for what
    its features do not tell.

    By default, ``features`` are those that need only losses and held-out losses. The two others cost K backward passes per
    decision: at most 1.1 times the cost of equal weights where a decision has at least max(20, 10 K) steps. Features of a batch are
    computed for each batch, where a task without a label has its last known loss; the others are held for the decision.

    ``scope="shared"`` takes 2 K numbers: first K for the shared parameters alone (as in gradient balancing), then K for the heads
    (ones leave each head its own loss). A step then costs K backward passes, which also give the Gram matrix if it is observed.
    `last_weights` shows the first K.

    Actions outside the space, or not finite, raise ``ValueError`` before anything changes.

    ## Observation Space
    {observations}

    {logarithms} The default is {default}.

    ## Rewards
    {rewards}

    ## Starting State
    {starting_state}

    ## Episode End
    {episode_end}

    ## Information
    | key | what |
    |---|---|
    {common_information}
    | `clipped` | number of action entries on a bound |

    {information_note}

    ## Arguments
    | argument | default | what |
    |---|---|---|
    | `action` | `"softmax"` | how actions become weights |
    | `rule` | `"init"` | the rule that `"residual"` multiplies |
    | `weight_range` | `1e6` | largest ratio of two softmax weights |
    | `scope` | `"all"` | `"all"`: weights act on the whole losses; `"shared"`: separate weights for shared parameters and heads |
    | `gradient_ema` | `0.0` | decay of the moving averages that replace the tasks' gradients of the shared parameters; 0: none |
    | `gradient_ema_decay` | `0.0` | exponent d: at step t, from 1, averages keep `gradient_ema / t**d` of their past; 0: constant |
    | `features` | not paid for | features of `"rule"`, in the order of its numbers |
    | `residual_reach` | `0.0` | with `"rule"`: largest residual of a task, which is added to its log weight; 0: no residuals |
    {common_arguments}

    {vector_form}

    ## Example
    >>> import gymnasium, mtl_gym
    >>> env = gymnasium.make("mtl_gym/LossWeighting-v0", problem="quadratic", train_steps=20)
    >>> observation, info = env.reset(seed=0)
    >>> observation, reward, terminated, truncated, info = env.step([0.5, 0.0, -0.5])
    >>> sorted(observation)
    ['gap', 'last_weights', 'log_loss_mean', 'meta_log_loss', 'meta_slope', 'progress', 'slope']

    ## References
    Dai, Fei, Lu: Improvable Gap Balancing for Multi-Task Learning. UAI 2023. arXiv 2307.15429.

    ## Version History
    * v0: first version
    """

    vector_form = LossWeightingVectorEnv

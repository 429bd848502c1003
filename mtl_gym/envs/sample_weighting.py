"""``mtl_gym/SampleWeighting-v0``: which samples help the main task?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium.spaces import Box
from torch import Tensor

from mtl_gym.checks import should
from mtl_gym.decisions.sample_rules import ALIGNMENT, COSINE, FEATURES, LABELLED, LOSS, MEAN, RIGHT, Feature, SampleWeighing
from mtl_gym.decisions.sample_weights import SampleWeights
from mtl_gym.environments import SAMPLE_WEIGHTING
from mtl_gym.envs.arguments import Arguments
from mtl_gym.envs.observations import OBSERVATIONS, Observation, measured, observes_gradients
from mtl_gym.envs.rewards import REWARDS
from mtl_gym.envs.scalar import MTLEnv
from mtl_gym.envs.spec import EnvironmentSpec, PageFigure
from mtl_gym.envs.vector import MTLVectorEnv
from mtl_gym.training.formulas import log_loss, relative
from mtl_gym.training.memory import check_memory
from mtl_gym.training.probes import META, View
from mtl_gym.training.trainer import Trainer


def _decide(
    common: Arguments,
    num_envs: int,
    *,
    action: str = "rule",
    features: Sequence[str] | None = None,
    sharpness: float = 10.0,
    num_quantiles: int = 4,
) -> SampleWeights:
    if action == "weights" and common.steps_per_action != 1:
        remedy = "Weights of samples apply to one batch."
        raise ValueError(should("steps_per_action", 'be 1 with action="weights"', common.steps_per_action, remedy))
    weighing = SampleWeighing(
        action=action,
        features=features,
        sharpness=sharpness,
        num_quantiles=num_quantiles,
        batch_size=common.recipe.batch_size,
        num_tasks=common.recipe.num_tasks,
    )
    apart = observes_gradients(common.observe)
    needed = check_memory(common.problem, common.recipe, num_envs, by_samples=True, task_gradients=apart)
    trainer = Trainer(common.problem, common.recipe, num_envs, by_samples=True)
    decision = SampleWeights(trainer, common.steps_per_action, weighing)
    decision.estimated_bytes = needed
    return decision


def _actions(arguments: Mapping[str, Any], num_tasks: int, choices: int | None) -> Box:
    if arguments.get("action", "rule") != "rule":
        remedy = "Other actions weight single samples or quantiles, whose number depends on the batch size and tasks."
        raise ValueError(should("action", "be 'rule' for agents", arguments["action"], remedy))
    count = len(FEATURES if arguments.get("features") is None else arguments["features"])
    return Box(-1, 1, (1 + count,), np.float32)


def _ratio(view: View, name: str) -> Tensor:
    return relative(view[name], view.losses.initial[:, None])


def _of_feature(feature: Feature) -> Observation:
    meaning = f"feature of rules: {feature.meaning}"
    return Observation("sample", -1, 1, lambda v: feature.function(v.now), meaning, feature.needs)


_OBSERVATIONS = {
    "sample_log_loss": Observation(
        "sample", -30, 30, lambda v: log_loss(v[LOSS]), "log loss of each sample and task, raw", (LOSS,)
    ),
    "sample_loss": Observation("sample", -20, 20, lambda v: _ratio(v, LOSS), "log loss of each sample and task, relative", (LOSS,)),
    "sample_mean": Observation(
        "sample",
        -20,
        20,
        lambda v: _ratio(v, MEAN),
        "log of the sample's mean loss over all its batches to date, relative",
        (MEAN,),
    ),
    "alignment": measured(
        "sample", -1e6, 1e6, ALIGNMENT, "dot product of the sample's gradient with the unit gradient of the main *meta* loss, raw"
    ),
    "alignment_cosine": measured("sample", -1, 1, COSINE, "cosine of these two gradients; costs B K more backward passes"),
    **{f"{name}_feature": _of_feature(row) for name, row in FEATURES.items()},
    "sample_labelled": measured("sample", 0, 1, LABELLED, "1 if the sample has a label of the task, else 0"),
    "label_right": measured(
        "sample", 0, 1, RIGHT, "1 if the label is correct, else 0, also without a label: only for the policy `oracle`"
    ),
    "main_meta_log_loss": Observation(
        "one", -20, 20, lambda v: relative(v[META], v.losses.initial)[:, 0], "`meta_log_loss` of the main task", (META,)
    ),
}

_FEATURES = "\n".join(["| feature | what |", "|---|---|", *(f"| `{name}` | {row.meaning} |" for name, row in FEATURES.items())])
_OF_TASKS = ("log_loss_mean", "slope", "gap", "meta_log_loss", "meta_slope", "last_weights", "progress")


class SampleWeightingVectorEnv(MTLVectorEnv):
    """N trainings whose samples are weighted; the manual is :class:`SampleWeightingEnv`'s."""

    specification = EnvironmentSpec(
        SAMPLE_WEIGHTING,
        _decide,
        observations=OBSERVATIONS | _OBSERVATIONS,
        observe=("sample_loss", "sample_mean", *(f"{name}_feature" for name in FEATURES), *_OF_TASKS),
        rewards={name: row for name, row in REWARDS.items() if row.of_main},
        excluded=(),
        actions=_actions,
        free=("num_quantiles",),
        sections={"features": _FEATURES},
        by_hand="mtl_gym.evaluation.handwritten:Shared",
        figures=(
            PageFigure(
                "mtl_gym.evaluation.sample_plots:separations",
                "Right and wrong labels",
                "Weights of the main task's samples, median over instances: how often a correct label outweighs a wrong one (0.5 "
                "is chance), and the mean weight of each kind, over the mean weight of all samples of all tasks (1 is neutral).",
            ),
        ),
    )


class SampleWeightingEnv(MTLEnv):
    r"""Which samples help the main task?

    ## Description
    A network with a shared trunk and a head for each of K tasks is trained on real data for ``train_steps`` optimiser steps; one
    task is the *main* one, the others are auxiliary. No task is good or bad as a whole: some of its samples help the main task,
    while others, such as those with wrong labels, harm it. At every decision, the agent observes the samples of the next batch and
    weights each: a step descends ``sum_k mean_i w_ik l_ik``, with l_ik the loss of task k on sample i. An episode is one training.
    Based on Grégoire, Chaudhary and Verboven, "Sample-Level Weighting for Multi-Task Learning with Auxiliary Tasks" (SLGrad), whose
    signal is the *alignment*: the dot product of a sample's gradient with that of the main task's held-out (*meta*) loss, both with
    respect to the shared parameters. One forward-mode pass computes all alignments of a batch.

    ## Action Space
    ``action="rule"`` (default): ``Box(-1, 1, (1 + F,), float32)``, F the number of ``features``. ``"quantiles"``:
    ``Box(-1, 1, (K Q,), float32)``. ``"weights"``: ``Box(0, 1e6, (B K,), float32)``, with ``steps_per_action=1``.

    | action | weights of each optimiser step | for |
    |---|---|---|
    | `rule` | `sigmoid(c (a_0 + sum_f a_f phi_f))` over their mean; c = `sharpness`, phi_f the sample's features | agents |
    | `quantiles` | `exp(c a_kq)` over their mean, for samples in the q-th quantile of task k's losses (least first) | agents |
    | `weights` | `a` itself, (B, K) by rows, not normalised | heuristics |

    The weights of the first two average 1 over the labelled samples of all tasks; an action of 0 weights all equally. A sample
    without a label of a task has no weight there, whatever the action, and counts neither in ranks nor in quantiles. If all weights
    of a step are 0, the parameters stay unchanged, but the step counts. Negative weights, and actions outside the space or not
    finite, raise ``ValueError`` before anything changes. Features:

    {features}

    ## Observation Space
    {observations}

    Sample observations are (B, K) by rows, for the next training batch; the main task comes first. A missing label has loss
    0, a log loss of log(1e-12), and `sample_labelled` 0. {logarithms} The default is {default}.

    ## Rewards
    {rewards}

    Rewards are of the main task alone. With ``reward_every``, decisions in between receive 0 and the last one the whole change.

    ## Starting State
    {starting_state}

    ``distribution="noisy"`` plants wrong labels (``noise``: another sample's label, or uniform flips; ``constant_label``) and
    harmful auxiliary tasks (``unrelated``: every label is another sample's; ``nearest_flip``: that of the most similar sample with
    a different label), in *train* only. Which ones are wrong is never observed, except by the policy ``oracle``.

    ## Episode End
    {episode_end}

    ## Information
    | key | what |
    |---|---|
    {common_information}
    | `clipped` | number of action entries on a bound |
    | `skipped` | number of the decision's steps with all weights 0 |
    | `right_weight`, `wrong_weight` | main task's mean weight of correct and wrong labels in the last batch, over that of all |
    | `auc` | probability that a correct label outweighs a wrong one; these three are -1 unless the batch has both |

    In ``forward`` and ``backward``, *meta* counts by its samples, and forward mode as one more forward pass. {information_note}

    ## Arguments
    | argument | default | what |
    |---|---|---|
    | `action` | `"rule"` | how actions become weights |
    | `features` | all | features of `"rule"`; without `"alignment"`, it needs no gradient of held-out data |
    | `sharpness` | `10.0` | c, the logit of an action of 1 |
    | `num_quantiles` | `4` | Q of `"quantiles"` |
    {common_arguments}

    {vector_form}

    ## Example
    >>> import gymnasium, mtl_gym
    >>> noise = {"noise": [0.6, 0.6]}
    >>> env = gymnasium.make("mtl_gym/SampleWeighting-v0", tasks=["digit", "parity"], distribution=noise, train_steps=20)
    >>> observation, info = env.reset(seed=0)
    >>> observation["sample_loss"].shape
    (128,)
    >>> observation, reward, terminated, truncated, info = env.step([0.0, 0.0, -0.5, 0.5, 0.0])  # early, trust small losses
    >>> info["right_weight"] > info["wrong_weight"]
    True

    ## References
    Grégoire, Chaudhary, Verboven: Sample-Level Weighting for Multi-Task Learning with Auxiliary Tasks. Applied Intelligence 2024.
    arXiv 2306.04519.

    ## Version History
    * v0: first version
    """

    vector_form = SampleWeightingVectorEnv

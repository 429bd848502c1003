"""``mtl_gym/LayerMerging-v0``: which tasks share a layer?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gymnasium.spaces import Box, Discrete
from torch import Tensor

from mtl_gym.checks import choose, number, positive_int, should
from mtl_gym.decisions.base import ACTION_MASK
from mtl_gym.decisions.merging.adapters import ADAPTERS
from mtl_gym.decisions.merging.decision import Merging, branched_model
from mtl_gym.decisions.merging.memory import merging_memory
from mtl_gym.decisions.merging.structures import CKA, DEPTH, GRADIENT, OPEN, STRUCTURE, USED, StructureActions, choices, frontier
from mtl_gym.decisions.merging.transfer import ADAPTER, TRANSFERS, Transfer
from mtl_gym.environments import LAYER_MERGING
from mtl_gym.envs.arguments import Arguments
from mtl_gym.envs.observations import OBSERVATIONS, Observation, measured, observes_gradients, upper_triangle
from mtl_gym.envs.scalar import MTLEnv
from mtl_gym.envs.spec import Column, EnvironmentSpec, PageFigure, ScheduleSearch
from mtl_gym.envs.vector import MTLVectorEnv
from mtl_gym.models import make_model
from mtl_gym.models.branched import is_chain
from mtl_gym.problems.base import Problem
from mtl_gym.training.memory import check_memory
from mtl_gym.training.probes import View
from mtl_gym.training.trainer import Trainer


def _decide(
    common: Arguments,
    num_envs: int,
    *,
    action: str = "merge",
    similarity: str = "cka",
    rule: str = "code",
    transfer: str = "imitate",
    transfer_steps: int = 20,
    adapters: str = ADAPTER,
    average_moments: bool = False,
    alignment: float = 0.0,
    parameter_price: float = 0.1,
) -> Merging:
    num_tasks = common.recipe.num_tasks
    if num_tasks < 2:
        raise ValueError(should("num_tasks", "be at least 2: one task has nothing to merge", num_tasks))
    if not isinstance(average_moments, bool):
        raise TypeError(should("average_moments", "be True or False", average_moments))
    actions = StructureActions(action=action, similarity=similarity, num_tasks=num_tasks, rule=rule)
    steps, price = positive_int("transfer_steps", transfer_steps), number("parameter_price", parameter_price, low=0.0, high=1e6)
    factor = number("alignment", alignment, low=0.0, high=1e6)
    choose("transfer", transfer, {name: name for name in TRANSFERS})
    choose("adapters", adapters, ADAPTERS)
    needed = check_memory(
        common.problem,
        common.recipe,
        num_envs,
        model=branched_model,
        task_gradients=observes_gradients(common.observe),
        further=merging_memory(common.problem, common.recipe, transfer=transfer, steps=steps, alignment=factor),
    )
    trainer = Trainer(common.problem, common.recipe, num_envs, model=branched_model)
    moved = Transfer(trainer, kind=transfer, steps=steps, average_moments=average_moments, adapters=adapters)
    decision = Merging(trainer, common.steps_per_action, actions, moved, alignment=factor, parameter_price=price)
    decision.estimated_bytes = needed
    return decision


def _actions(arguments: Mapping[str, Any], num_tasks: int, choices: int | None) -> Box | Discrete:
    return StructureActions(action=arguments.get("action", "merge"), similarity="cka", num_tasks=num_tasks).space


def _supports(problem: Problem) -> str | None:
    model = make_model(problem, problem.defaults.hidden_sizes)
    return None if is_chain(model) else f"its network {model.identity} is no chain of layers that could be merged one by one"


def _pairs(values: Callable[[View], Tensor], low: float, high: float, meaning: str, *needs: str) -> Observation:
    return Observation("pair", low, high, lambda v: upper_triangle(values(v)), meaning, needs)


_CKA = "debiased linear CKA of two tasks' features at the first stage that they do not share (the last if all are shared)"
_COSINE = "cosine of two tasks' loss gradients, each for its own copy of that stage, on the next batch"
_OBSERVATIONS = {
    "frontier_cka": _pairs(lambda v: frontier(v[CKA], v[DEPTH]), -1, 1, _CKA, CKA, DEPTH),
    "last_cka": _pairs(lambda v: v[CKA][:, -1], -1, 1, "the same at the last stage", CKA),
    "frontier_cosine": _pairs(lambda v: frontier(v[GRADIENT], v[DEPTH]), -1, 1, _COSINE, GRADIENT, DEPTH),
    "shared_stages": _pairs(lambda v: v[DEPTH], 0, 1e3, "number of stages that two tasks share", DEPTH),
    "open": _pairs(lambda v: v[OPEN], 0, 1, "1 where two tasks can still be merged at a stage, else 0", OPEN),
    "action_mask": measured(
        "choice", 0, 1, ACTION_MASK, "1 for valid actions, else 0; under `threshold` those of `merge`", extra=STRUCTURE
    ),
    "parameter_fraction": measured("one", 0, 1, USED, "parameters in use, as a fraction of those of separate networks"),
}


class LayerMergingVectorEnv(MTLVectorEnv):
    """N trainings whose layers are merged; the manual is :class:`LayerMergingEnv`'s."""

    specification = EnvironmentSpec(
        LAYER_MERGING,
        _decide,
        observations=OBSERVATIONS | _OBSERVATIONS,
        observe=(
            *("frontier_cka", "last_cka", "shared_stages", "open", "action_mask", "parameter_fraction"),
            *("log_loss_mean", "slope", "gap", "meta_log_loss", "meta_slope", "progress"),
        ),
        reward="gain_change",
        steps_per_action=20,
        search=ScheduleSearch({"action": "threshold"}),
        supports=_supports,
        actions=_actions,
        lengths=lambda arguments, num_tasks: {"choice": choices(num_tasks)},
        free=("parameter_price",),
        draws="mtl_gym.envs.rendering:draw_structure",
        columns=(Column("parameter_fraction", "parameters"), Column("corrupted", "corrupted inputs, %", form=".1f")),
        figures=(
            PageFigure(
                "mtl_gym.evaluation.structure_plots:front",
                "What sharing costs",
                "Final parameters in use, as a fraction of those of separate networks, against the gain over single-task learning "
                "on clean and on corrupted test inputs (8 kinds at 5 severities, 11 for images; references on clean inputs). "
                "Means over instances with 95 % intervals; up and to the left is better.",
            ),
            PageFigure(
                "mtl_gym.evaluation.structure_plots:merged_layers",
                "What was merged",
                "Final networks of the first instance: layers from left to right, ending in the tasks' heads; larger dots are "
                "shared by more tasks. Next to them: how often two tasks share each stage, over all instances.",
            ),
            PageFigure(
                "mtl_gym.evaluation.structure_plots:similarities",
                "How similar the layers are",
                "Final debiased linear CKA of the tasks' features, mean over instances; 1 where a stage and all before are shared.",
            ),
        ),
        without=("weights", "rules"),  # all weights are 1
        measures=("mtl_gym.evaluation.corruption:corrupted",),
        by_hand="mtl_gym.evaluation.handwritten:Separate",
    )


class LayerMergingEnv(MTLEnv):
    r"""Which tasks share a layer?

    ## Description
    Each of K tasks starts with its own network of S stages (a layer and what follows it before the next) and a head, all with the
    same initial weights. They are trained on real data, on the sum of the tasks' losses, for ``train_steps`` optimiser steps. At
    every decision, the agent observes how similar the tasks' layers have become and decides which tasks share the next stage; one
    copy then replaces theirs. Merging is irreversible, so the networks become a tree from the inputs to the heads. An episode is
    one training. Based on Gurulingan, Zonooz and Arani, "Multi-Task Structural Learning using Local Task Similarity induced Neuron
    Creation and Removal" (MTSL), ICML 2023.

    Tasks that can still be merged form a *group*; its *frontier* is the first stage that its tasks do not share. Sharing saves
    parameters, not time: the forward pass gathers every task's copy, so that trainings with different structures run as one
    computation. Unused parameters are set to zero, not counted and not trained.

    ## Action Space
    ``action="merge"`` (default): ``Discrete(A)``, with ``action_masks()``. For K up to 6, the actions are all partitions of the
    tasks (`mtl_gym.partitions`: 2, 5, 15, 52, 203 for K = 2 to 6), those with the most blocks first. In every group, the tasks of a
    block start to share the group's frontier and form a group from then on; a task alone in its block while others merge stays
    separate for good. A group whose tasks are all in separate blocks waits. A partition is valid if it refines the current groups
    and leaves fully shared ones unchanged. For more tasks, action 0 waits, and the others are the pairs of tasks, by rows of the
    upper triangle: their blocks are joined at the first stage that they do not share; each block is named by its lowest task.
    Before the first step all networks are equal, so the first decision can only wait. A masked action is replaced by the first
    valid one, which merges nothing; ``info["invalid_action"]`` reports it.

    ``action="threshold"``: ``Box(-1, 1, (1,), float32)``. In every group, MTSL's ``rule`` merges at the frontier, with the
    threshold (1 + a) / 2. A task's affinity is its mean ``similarity`` with its block, 0 if alone. ``rule="paper"``: of the
    partitions whose mean affinity reaches the threshold, it takes the one with the fewest blocks; tasks that are alone in it are
    separate for good. ``rule="code"``, that of the released code: of this partition, or of the best one with fewer than K blocks if
    none reaches the threshold, it takes the blocks whose own mean affinity exceeds it; the other tasks can still be merged with
    each other later. -1 merges all, 1 nothing. Beyond 8 tasks, only the partitions of average linkage are searched. Thresholds are
    never masked; the first one merges nothing.

    A new copy of a stage (MTSL's neuron creation and knowledge transfer) starts as the mean of its tasks' copies, so that merging
    equal ones changes nothing. It is then trained on ``transfer_steps`` training batches to reproduce each task's previous
    features, ``sum_k MSE(F_k, c_k(pool(F_g)) * F_g)``, with channel adapters c_k that are dropped afterwards (the paper starts from
    new weights). ``adapters="affine"`` are ``1 + p A + b``, from the identity, and a copy that comes no closer to the features
    keeps the mean; ``"gate"`` are Linear, ReLU, Linear, Sigmoid, as in MTSL's code, and every copy is kept. ``transfer="average"``
    keeps the mean, ``"none"`` the training's initial weights. Actions outside the space raise ``ValueError`` before anything
    changes.

    ## Observation Space
    {observations}

    Pairs of tasks are the upper triangle by rows. Similarities are measured on 128 training samples, always the same ones.
    {logarithms} The default is {default}.

    ## Rewards
    {rewards}

    Each reward but ``none`` is reduced by ``parameter_price`` times the increase of the fraction of parameters in use: removing all
    but a third of the parameters earns ``2/3 parameter_price``.

    ## Starting State
    {starting_state}

    ## Episode End
    {episode_end}

    ## Information
    | key | what |
    |---|---|
    {common_information}
    | `invalid_action` | whether the action was masked |
    | `num_parameters` | parameters in use |
    | `num_groups` | number of different copies of the last stage in use |

    In ``forward`` and ``backward``, comparisons count by samples, and a step of imitation as 4 and 1. {information_note}

    ## Arguments
    | argument | default | what |
    |---|---|---|
    | `action` | `"merge"` | how actions become structures |
    | `similarity` | `"cka"` | for `action="threshold"` only: `"cka"`, or `"gradient"`, (1 + cosine of gradients) / 2 |
    | `rule` | `"code"` | for `action="threshold"` only: `"code"` or `"paper"` |
    | `transfer` | `"imitate"` | `"imitate"`, `"average"` or `"none"` |
    | `transfer_steps` | `20` | training batches of an imitation; unused by other transfers |
    | `adapters` | `"affine"` | channel adapters of an imitation, `"affine"` or `"gate"` |
    | `average_moments` | `False` | whether a new copy starts from its tasks' mean optimiser moments and step counts, or from none |
    | `alignment` | `0.0` | factor of MTSL's alignment term in the loss, 1 - mean CKA at a group's frontier (MTSL: 0.2) |
    | `parameter_price` | `0.1` | reward for removing all parameters |
    {common_arguments}

    {vector_form}

    {policies_of_your_own}

    ## Example
    >>> import gymnasium, mtl_gym
    >>> env = gymnasium.make("mtl_gym/LayerMerging-v0", tasks=["digit", "parity", "angle"], train_steps=60)
    >>> observation, info = env.reset(seed=0)
    >>> env.unwrapped.action_masks().tolist()
    [True, False, False, False, False]
    >>> observation, reward, terminated, truncated, info = env.step(0)
    >>> observation, reward, terminated, truncated, info = env.step(4)  # all share the first layer
    >>> info["num_groups"], info["invalid_action"]
    (3, False)

    ## References
    Gurulingan, Zonooz, Arani: Multi-Task Structural Learning using Local Task Similarity induced Neuron Creation and Removal.
    ICML 2023. arXiv 2305.00441.

    ## Version History
    * v0: first version
    """

    vector_form = LayerMergingVectorEnv

"""``mtl_gym/TaskGrouping-v0``: which tasks should be trained together?"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from importlib import resources
from typing import Any

from gymnasium.spaces import Discrete

from mtl_gym.checks import choose, number, positive_int, should
from mtl_gym.decisions.grouping.decision import TaskGroups, group_sizes
from mtl_gym.decisions.grouping.group_tables import read_group_table
from mtl_gym.decisions.grouping.known_groups import MOST_TASKS, OUTCOMES, KnownGroups
from mtl_gym.decisions.grouping.memory import check_grouping_memory
from mtl_gym.decisions.grouping.modes import GROUPINGS
from mtl_gym.decisions.grouping.trainings import GroupTrainings
from mtl_gym.decisions.grouping.warm_up import MAP_DISTANCES, MAP_FEATURES, Watching
from mtl_gym.environments import TASK_GROUPING
from mtl_gym.envs.arguments import Arguments
from mtl_gym.envs.grouping_tables import GROUPING_OBSERVATIONS, GROUPING_REWARDS
from mtl_gym.envs.scalar import MTLEnv
from mtl_gym.envs.spec import Column, EnvironmentSpec, PageFigure, ScheduleSearch
from mtl_gym.envs.vector import MTLVectorEnv
from mtl_gym.problems.base import Problem

_CLASSES = "loss bce, cross_entropy or a Loss whose labels are binary or classes"
MOST_SNAPSHOTS = 1000
"""Largest number of snapshots; more than epochs repeat each other."""


def _decide(
    common: Arguments,
    num_envs: int,
    *,
    action: str = "place",
    max_groups: int | None = None,
    sharpness: float = 10.0,
    group_price: float = 0.01,
    snapshots: int = 4,
    affinity_every: int = 10,
    group_table: str = "auto",
) -> TaskGroups:
    mode, num_tasks = choose("action", action, GROUPINGS), common.recipe.num_tasks
    _check(common)
    groups = num_tasks if max_groups is None else positive_int("max_groups", max_groups)
    if groups > num_tasks:
        raise ValueError(should("max_groups", f"be at most {num_tasks}, the number of tasks", groups))
    grouping = mode(num_tasks, groups, number("sharpness", sharpness, low=0.0, high=1e6, ends="(]"))
    price = number("group_price", group_price, low=0.0, high=1e6)
    shown = positive_int("snapshots", snapshots, most=MOST_SNAPSHOTS)
    watching = Watching(shown, positive_int("affinity_every", affinity_every))
    seen = {need for name in common.observe for need in GROUPING_OBSERVATIONS[name].needs}
    needed = check_grouping_memory(common.problem, common.recipe, num_envs, needs=seen, columns=grouping.columns, snapshots=shown)
    trainings = GroupTrainings(
        common.problem,
        common.recipe,
        num_envs,
        watching=watching,
        start=grouping.start(),
        needs=seen | ({MAP_FEATURES} if MAP_DISTANCES in seen else set()),
        group_table=_table(group_table, common, watching),
    )
    decision = TaskGroups(trainings, grouping, price)
    decision.estimated_bytes = needed
    return decision


def _check(common: Arguments) -> None:
    """Checks that the common arguments suit task grouping."""
    num_tasks, names = common.recipe.num_tasks, common.recipe.tasks
    others = [task.name for task in common.problem.tasks if task.name in names and not task.classifies]
    if others:
        suited = [name for name in names if name not in others]
        left = f"Leave out {', '.join(others)}: tasks={json.dumps(suited)}."
        remedy = left if len(suited) > 1 else "Fewer than two of the tasks are."
        raise ValueError(should("problem", f"have only classification tasks ({_CLASSES})", common.problem.name, remedy))
    if num_tasks < 2:
        raise ValueError(should("num_tasks", "be at least 2: one task has nothing to be grouped with", num_tasks))
    if OUTCOMES in common.observe and num_tasks > MOST_TASKS:
        raise ValueError(should("num_tasks", f"be at most {MOST_TASKS} for 'outcomes', which needs all 2^K - 1 groups", num_tasks))


def _table(group_table: str, common: Arguments, watching: Watching) -> str | None:
    """The path of the table to look up, if any."""
    if not isinstance(group_table, str):
        raise TypeError(should("group_table", "be 'auto', 'train' or the path of a table", group_table))
    if group_table != "auto":
        return None if group_table == "train" else group_table
    shipped = resources.files("mtl_gym").joinpath("data", "grouping", f"{common.problem.name}.npz")
    if not shipped.is_file():
        return None
    try:
        read_group_table(str(shipped))
    except ValueError as error:
        warnings.warn(f"Groups are trained: {error}", RuntimeWarning, stacklevel=2)
        return None
    try:
        KnownGroups(common.problem, common.recipe, watching, str(shipped))
    except ValueError:
        return None  # made with other arguments
    return str(shipped)


def _actions(arguments: Mapping[str, Any], num_tasks: int, choices: int | None) -> Discrete:
    if arguments.get("action", "place") != "place":
        remedy = "The number of memberships and merges depends on the number of tasks."
        raise ValueError(should("action", "be 'place' for agents", arguments["action"], remedy))
    return Discrete(choices or num_tasks)


def _lengths(arguments: Mapping[str, Any], num_tasks: int) -> dict[str, int]:
    grouping = choose("action", arguments.get("action", "place"), GROUPINGS)(num_tasks, num_tasks, 1.0)
    return group_sizes(grouping, num_tasks, arguments.get("snapshots", 4))


def _supports(problem: Problem) -> str | None:
    classes = [task.name for task in problem.tasks if task.classifies]
    return None if len(classes) >= 2 else f"it has fewer than two classification tasks ({_CLASSES})"


def _unsuited(own: Mapping[str, Any]) -> tuple[str, ...]:
    mode = GROUPINGS.get(own["action"]) if isinstance(own["action"], str) else None
    return mode.unsuited if mode else ()


class TaskGroupingVectorEnv(MTLVectorEnv):
    """N groupings of tasks; the manual is :class:`TaskGroupingEnv`'s."""

    specification = EnvironmentSpec(
        TASK_GROUPING,
        _decide,
        observations=GROUPING_OBSERVATIONS,
        observe=("map_features", "map_distances", "gradient_cosines", "groups", "next_task", "action_mask", "progress"),
        rewards=GROUPING_REWARDS,
        reward="gain_over_joint",
        problem="digit_tasks",
        search=ScheduleSearch(forks=()),
        excluded=("main_task", "steps_per_action", "decisions", "reward_every", "holdout_size"),
        supports=_supports,
        unsuited=_unsuited,
        actions=_actions,
        lengths=_lengths,
        free=("max_groups", "group_price", "group_table"),
        draws="mtl_gym.envs.rendering:draw_grouping",
        columns=(Column("num_groups", "groups", form=".1f"), Column("regret", "regret, %", factor=100.0)),
        figures=(
            PageFigure(
                "mtl_gym.evaluation.grouping_plots:regret",
                "Regret",
                "How far the return of each policy's grouping falls short of the best one, on the reward split, for at most 6 "
                "tasks, of which all groups are trained: means with 95 % bootstrap intervals; small dots are single instances.",
            ),
            PageFigure(
                "mtl_gym.evaluation.grouping_plots:groups",
                "Co-grouping frequency",
                "Fraction of the instances with both tasks in which they are trained together (grey: no such instance); of soft "
                "memberships the largest counts. Columns are the tasks in the order of the rows.",
            ),
            PageFigure(
                "mtl_gym.evaluation.grouping_plots:memberships",
                "Groups of the first instance",
                "Membership of each task (rows) in each group (columns): blue is 1, blank 0.",
            ),
            PageFigure(
                "mtl_gym.evaluation.grouping_plots:data_maps",
                "Data maps",
                "How confident the network becomes of the labels when all tasks are trained together: each task's confidence and "
                "variability, means over training samples, from the first snapshot to the last (dot). Top left is easy, right "
                "ambiguous, bottom hard.",
            ),
        ),
        without=("curves", "weights", "rules"),  # groups are trained at once
        by_hand="mtl_gym.evaluation.handwritten:Shared",
    )


class TaskGroupingEnv(MTLEnv):
    r"""Which tasks should be trained together?

    ## Description
    K classification tasks are divided into groups, and each group gets its own network. First, all tasks are trained together for
    all of ``train_steps``: the *warm-up*. It shows how confident the network becomes of every label (data maps) and how the tasks'
    gradients agree; from this the agent divides the tasks into groups. Then a new network is trained for every group, from the same
    initial weights and in the same data order, and its group's network predicts each task. The reward is the gain over training all
    together, minus a price for every group beyond the first. Based on Sherif, Abid, Elattar and ElHelw, "STG-MTL: Scalable Task
    Grouping for Multi-Task Learning Using Data Maps", MLST 2024.

    The warm-up doubles as the training of all tasks in one group, so that one group has a reward of exactly 0 at no further cost.
    The groups of all rows are trained as one batch. Trained groups are cached in the process: other policies on the same instance
    do not wait, but are charged (``forward``, ``backward``) as if nothing were cached.

    ## Action Space
    ``action="place"`` (default): ``Discrete(G)``, with ``action_masks()``, K decisions: task t = 0, ..., K - 1 joins an existing
    group or the next new one. Groups are numbered by first use, so the first decision is always 0. G is ``max_groups``.

    ``action="merge"``: ``Discrete(1 + K (K - 1) / 2)``, with ``action_masks()``, up to K - 1 decisions, starting with every task
    alone. The pairs of tasks, by rows of the upper triangle, merge their two groups; each group is named by its first task. Action
    0 ends the episode; it is valid once there are at most G groups.

    ``action="memberships"``: ``Box(-1, 1, (K G,), float32)``, one decision: the memberships u of task t in the groups are
    ``softmax(sharpness * a_t)``; those below 0.001 become 0. A group with members is trained on ``sum_t u_tc L_t``, and a task's
    prediction is ``z_t = sum_c u_tc z_t^(c)``, on the logits (STG-MTL's weighted ensemble).

    A masked action is replaced by the first valid one; ``info["invalid_action"]`` reports it. Actions outside the space raise
    ``ValueError`` before anything changes.

    ## Observation Space
    {observations}

    Pairs of tasks are the upper triangle by rows. C is G, or K under ``"merge"``; E is ``snapshots``; n the number of training
    samples.

    A *data map* gives, for every training sample, the mean (*confidence*) and standard deviation (with n - 1; *variability*) over
    the epochs so far of the probability that the network assigned to the sample's label when training on it. A sample is
    *ambiguous* if its variability exceeds 0.2; of the others, those with a confidence of at least 0.5 are *easy*, the rest *hard*.
    Maps are taken at E times, evenly spread over the epochs from the second on. A sample without a label of a task is not in its
    map: features are those of the labelled samples, and distances and affinities those of the samples, or batches, with labels of
    both tasks (without any such sample: the distance of the maps' means).

    ``"merge"`` has no `next_task`; ``"memberships"`` has no `next_task`, `groups` or `action_mask`. Some cost passes beyond the
    warm-up: `gradient_cosines` and `lookahead` K backward passes every ``affinity_every`` steps (`lookahead` K forward passes too),
    `layer_cka` K trainings, `pair_gains` K (K + 1) / 2, `outcomes` 2^K - 2.

    The default is {default}.

    ## Rewards
    {rewards}

    From each reward but ``none``, ``group_price`` times the number of groups beyond the first is subtracted at the end.

    ## Starting State
    {starting_state}

    The instance's warm-up is over. If a group table with training instances is used, ids are drawn from it.

    ## Episode End
    1. Terminated: all tasks are in their groups, and these have been trained (`progress` is observed).
    2. Terminated: the warm-up or a group's training diverged: an output is not finite. Only this row's episode ends.
    3. Truncated: ``max_episode_steps`` decisions have been taken, if ``make_vec`` received it; `test` then describes the warm-up.
       (``make`` uses a ``TimeLimit`` wrapper that the environment cannot see.)

    ## Information
    | key | what |
    |---|---|
    {common_information}
    | `invalid_action` | whether the action was masked |
    | `num_groups` | groups with a member so far |

    ``forward`` and ``backward`` count the warm-up, the observations, and the groups' trainings. {information_note}

    ## Arguments
    | argument | default | what |
    |---|---|---|
    | `action` | `"place"` | how actions become groups |
    | `max_groups` | `num_tasks` | largest final number of groups, G |
    | `sharpness` | `10.0` | factor of the logits of `"memberships"` |
    | `group_price` | `0.01` | price of every group beyond the first |
    | `snapshots` | `4` | number of times that data maps are taken, E |
    | `affinity_every` | `10` | optimiser steps between measurements of `gradient_cosines` and `lookahead` |
    | `group_table` | `"auto"` | `"auto"`, `"train"` or the path of a group table; see below |
    {common_arguments}

    Comparisons with at most 6 tasks also report the *regret*: the return of the best of all groupings minus that of the policy's.
    For this, all groups of an instance (63 for 6 tasks) are trained once, without being charged.

    A group table (made by `mtl-gym groupings`) contains the results of every group of its instances' tasks, so that an episode is a
    look-up; other instances are trained. ``group_table="auto"`` uses the problem's precomputed table if its version and arguments
    match; a path to a table that does not match raises an error. Soft memberships are always trained.

    {vector_form}

    {policies_of_your_own}

    ## Example
    >>> import gymnasium, mtl_gym
    >>> env = gymnasium.make("mtl_gym/TaskGrouping-v0", problem="census", train_steps=30)
    >>> observation, info = env.reset(seed=0)
    >>> env.unwrapped.action_masks().tolist()  # the first task is in the first group
    [True, False, False]
    >>> for group in (0, 1, 0):
    ...     observation, reward, terminated, truncated, info = env.step(group)
    >>> terminated, info["num_groups"]
    (True, 2)

    ## References
    Sherif, Abid, Elattar, ElHelw: STG-MTL: Scalable Task Grouping for Multi-Task Learning Using Data Maps. MLST 2024.
    arXiv 2307.03374.
    Swayamdipta et al.: Dataset Cartography: Mapping and Diagnosing Datasets with Training Dynamics. EMNLP 2020.
    Fifty et al.: Efficiently Identifying Task Groupings for Multi-Task Learning. NeurIPS 2021.

    ## Version History
    * v0: first version
    """

    vector_form = TaskGroupingVectorEnv

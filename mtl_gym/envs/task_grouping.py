"""``mtl_gym/TaskGrouping-v0``: which tasks should be trained together?"""

from __future__ import annotations

from collections.abc import Collection
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from mtl_gym.arguments import choose, number, positive_int, should
from mtl_gym.envs.arguments import Arguments, check_arguments
from mtl_gym.envs.base import MTLVectorEnv, as_array
from mtl_gym.envs.grouping import GROUPINGS, Grouping
from mtl_gym.envs.grouping_meter import GroupingMeter
from mtl_gym.envs.infos import Array, Infos
from mtl_gym.envs.manual import manual
from mtl_gym.envs.meter import Measures
from mtl_gym.envs.observations import ACTION_MASK, DEFAULTS, OBSERVATIONS
from mtl_gym.envs.scalar import MTLEnv
from mtl_gym.problems import TASK_GROUPING
from mtl_gym.problems.instances import TRAINING_IDS
from mtl_gym.training.data_maps import FEATURES
from mtl_gym.training.group_learner import GroupLearner
from mtl_gym.training.groupings import MOST_TASKS, OUTCOMES, Groupings
from mtl_gym.training.warm_up import MAP_DISTANCES, MAP_FEATURES, MAPS, Watching


class TaskGroupingVectorEnv(MTLVectorEnv):
    """N groupings of tasks; the manual is :class:`TaskGroupingEnv`'s.

    Args:
        num_envs: N.
        action: See the manual.
        max_groups: See the manual.
        sharpness: See the manual.
        group_price: See the manual.
        snapshots: See the manual.
        affinity_every: See the manual.
        group_table: See the manual.
        render_mode: ``None`` or ``"rgb_array"``.
        autoreset_mode: ``"SameStep"``, ``"NextStep"`` or ``"Disabled"``, or the enum.
        max_episode_steps: Decisions after which an episode is truncated.
        arguments: The common arguments; see the manual.
    """

    learner: GroupLearner

    def __init__(
        self,
        num_envs: int = 1,
        *,
        action: str = "place",
        max_groups: int | None = None,
        sharpness: float = 10.0,
        group_price: float = 0.01,
        snapshots: int = 4,
        affinity_every: int = 10,
        group_table: str = "auto",
        render_mode: str | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.SAME_STEP,
        max_episode_steps: int | None = None,
        **arguments: Any,
    ) -> None:
        made = choose("action", action, GROUPINGS)
        if arguments.get("observe") is None:
            arguments["observe"] = [name for name in DEFAULTS[TASK_GROUPING] if name not in made.unsuited]
        checked = check_arguments(TASK_GROUPING, **arguments)
        num_tasks = checked.recipe.num_tasks
        _check(checked, action, made)
        groups = num_tasks if max_groups is None else positive_int("max_groups", max_groups)
        if groups > num_tasks:
            raise ValueError(should("max_groups", f"be at most {num_tasks}, the number of tasks", groups))
        self._grouping = made(num_tasks, groups, number("sharpness", sharpness, low=0.0, ends="(]"))
        self._price = number("group_price", group_price, low=0.0)
        watching = Watching(positive_int("snapshots", snapshots), positive_int("affinity_every", affinity_every))
        self._snapshots = watching.snapshots
        count = positive_int("num_envs", num_envs)
        probes = {probe for name in checked.observe if name != ACTION_MASK for probe in OBSERVATIONS[name].probes}
        super().__init__(
            count,
            self._grouping.space,
            checked,
            GroupLearner(
                checked.problem,
                checked.recipe,
                count,
                watching=watching,
                start=self._grouping.start(),
                needs={*probes} | ({MAPS} if render_mode else set()) | ({MAP_FEATURES} if MAP_DISTANCES in probes else set()),
                group_table=_group_table(group_table, checked, watching),
            ),
            render_mode=render_mode,
            autoreset_mode=autoreset_mode,
            max_episode_steps=max_episode_steps,
        )
        self._invalid = torch.zeros(count, dtype=torch.bool)

    @property
    def group_price(self) -> float:
        """What a group more costs."""
        return self._price

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """The actions that are allowed now (N, A); none is masked of memberships, of which A is the number of entries.

        Raises:
            gymnasium.error.ResetNeeded: Before the first reset.
        """
        return as_array(self.signals.probes[ACTION_MASK])

    def draw_id(self, stream: np.random.Generator) -> int:
        """Draws the id of a training instance; of those in the group table, if it holds any."""
        group_table = self.learner.groupings.group_table
        stored = [] if group_table is None else [id for id in group_table.places if id >= TRAINING_IDS[0]]
        return stored[stream.integers(len(stored))] if stored else super().draw_id(stream)

    def _sizes(self) -> dict[str, int]:
        num_tasks, grouping = self.arguments.recipe.num_tasks, self._grouping
        sizes = {"map": num_tasks * self._snapshots * FEATURES, "member": num_tasks * grouping.columns}
        return sizes | {"choice": grouping.choices}

    def _make_meter(self, probes: Collection[str]) -> Measures:
        return GroupingMeter(self.arguments, self.learner, self._grouping)

    def _train(self, actions: Tensor, active: Tensor) -> Tensor:
        learner, plays = self.learner, active.cpu()
        taken, masked = self._grouping.allowed(actions.cpu(), learner.memberships)
        self._invalid = masked
        after, progress = self._grouping.act(taken, learner.memberships)
        learner.memberships.copy_(torch.where(plays[:, None, None], after, learner.memberships))
        learner.decide(plays & (progress >= 1) & learner.finite().cpu())
        return progress

    def _rewards(self, playing: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        rewards, diverged = super()._rewards(playing)
        if self.arguments.reward == "none":
            return rewards, diverged
        decided = playing & ~diverged & as_array(self.signals.progress >= 1)
        more = as_array(self.learner.num_groups() - 1).astype(np.float64)
        return rewards - np.where(decided, self._price * more, 0), diverged

    def _action_infos(self, actions: Tensor) -> Infos:
        return {"invalid_action": as_array(self._invalid), "num_groups": as_array(self.learner.num_groups())}

    def _draw(self, row: int) -> Array:
        from mtl_gym.envs.rendering import draw_grouping

        return draw_grouping(self.learner, row)


def _check(checked: Arguments, action: str, made: type[Grouping]) -> None:
    """Checks what the common arguments have to be for groups to be chosen."""
    num_tasks = checked.recipe.num_tasks
    if num_tasks < 2:
        raise ValueError(should("num_tasks", "be at least 2: one task has nothing to be grouped with", num_tasks))
    unsuited = [name for name in checked.observe if name in made.unsuited]
    if unsuited:
        raise ValueError(
            should("observe", f"not hold what action={action!r} has nothing of: {', '.join(unsuited)}", checked.observe)
        )
    if OUTCOMES in checked.observe and num_tasks > MOST_TASKS:
        raise ValueError(should("num_tasks", f"be at most {MOST_TASKS} for 'outcomes', which are of all 2^K - 1 groups", num_tasks))


def _group_table(group_table: str, checked: Arguments, watching: Watching) -> str | None:
    """The path of the table to look up, if there is one."""
    if not isinstance(group_table, str):
        raise TypeError(should("group_table", "be 'auto', 'train' or the path of a table", group_table))
    if group_table != "auto":
        return None if group_table == "train" else group_table
    shipped = resources.files("mtl_gym").joinpath("data", "grouping", f"{checked.problem.name}.npz")
    if not shipped.is_file():
        return None
    try:
        Groupings(checked.problem, checked.recipe, watching, str(shipped))
    except ValueError:
        return None  # of other arguments
    return str(shipped)


class TaskGroupingEnv(MTLEnv):
    r"""Which tasks should be trained together?

    ## Description
    K tasks with classes, and a network for each group of them. At first all tasks are trained together for all of ``train_steps``:
    the *warm-up*. It shows how sure the network becomes of every label (data maps) and how the tasks' gradients agree; from that
    the agent divides the tasks into groups. Then a network is trained anew for every group, from the same initial weights and in
    the same data order, and each task is predicted by that of its group. The reward is what is gained over training all together,
    minus a price for every group more than one. After Sherif, Abid, Elattar and ElHelw, "STG-MTL: Scalable Task Grouping for
    Multi-Task Learning Using Data Maps", MLST 2024.

    The warm-up is the training of all tasks in one group, so that one group has a reward of exactly 0, and costs nothing more. The
    groups of all rows are trained as one batch. What has been trained of an instance is remembered in the process: other policies
    that meet it again do not wait, but pay (``forward``, ``backward``) as if nothing had been known.

    ## Action Space
    ``action="place"`` (default): ``Discrete(G)``, with ``action_masks()``, K decisions: task t = 0, ..., K - 1 goes to a group in
    use, or to the next new one. Groups are numbered by first use, so that the first decision is always 0. G is ``max_groups``.

    ``action="merge"``: ``Discrete(1 + K (K - 1) / 2)``, with ``action_masks()``, up to K - 1 decisions. At first all tasks are
    apart. The pairs of tasks, by rows of the upper triangle, join the groups of the two; each group is named by its first task.
    Action 0 ends it; it is allowed once there are at most G groups.

    ``action="memberships"``: ``Box(-1, 1, (K G,), float32)``, one decision: the memberships u of task t in the groups are
    ``softmax(sharpness * a_t)``; those below 0.001 are 0. A group with members is trained on ``sum_t u_tc L_t``, and a task's
    prediction is ``z_t = sum_c u_tc z_t^(c)``, on the logits (STG-MTL's weighted ensemble).

    In the place of an action that is masked stands the first that is not; ``info["invalid_action"]`` says so. Actions outside the
    space raise ``ValueError`` before anything changes.

    ## Observation Space
    A flat ``Dict`` of float32 ``Box``es of one dimension; ``observe`` names its keys. Pairs of tasks are the upper triangle by
    rows. C is G, and K under ``"merge"``; E is ``snapshots``; n are the training samples. Values are clipped to the bounds.

    A *data map* holds, for every training sample, the mean and the deviation (with n - 1) over the epochs so far of the
    probability that the network gave to the sample's label when it trained on it: *confidence* and *variability*. A sample is
    *ambiguous* with a variability above 0.2; of the others those with a confidence of at least 0.5 are *easy*, and the rest are
    *hard*. A sample without a label of a task has 0 in both. Maps are taken at E times, evenly spread over the epochs from the
    second on.

    {observations}

    ``"merge"`` has no `next_task`, ``"memberships"`` neither `next_task` nor `groups` nor `action_mask`. What is more than a
    warm-up costs passes: `gradient_cosines` and `lookahead` K backward passes every ``affinity_every`` steps (`lookahead` K forward
    passes too), `layer_cka` K trainings, `pair_gains` K (K + 1) / 2, `outcomes` 2^K - 2.

    The default is {default}.

    ## Rewards
    ``reward`` names one of the following; from each (but ``none``) ``group_price`` times the number of groups beyond the first is
    subtracted at the end. An episode in which a training diverges is paid the penalty instead.

    {rewards}

    ## Starting State
    An *instance* of the problem: initial weights, data order, and what else ``distribution`` lets vary; its warm-up is over.
    ``reset()`` draws ids of training instances, in [2^31, 2^62), from the seeded stream (of a group table with training
    instances: of those); ``reset(options={"instance": id})`` asks for one; ids in [0, 2^31) are for evaluation.

    ## Episode End
    1. Terminated: all tasks are in their groups, and these have been trained (`progress` is observed).
    2. Terminated: the warm-up or a group's training diverged: an output is not finite. Only this row's episode ends.
    3. Truncated: ``max_episode_steps`` decisions have been taken, if that is given to ``make_vec``; `test` is then of all together.
       (``make`` wraps the environment in a ``TimeLimit``, of which it does not know.)

    ## Information
    | key | what |
    |---|---|
    | `instance` | id of the instance |
    | `forward`, `backward` | passes so far, in training batches: of the warm-up, of what is observed, of the groups' trainings |
    | `diverged` | whether a training has become non-finite |
    | `invalid_action` | whether the action was masked |
    | `num_groups` | groups with a member so far |
    | `test` | in the last step only: each task's metrics on the *test* split, by `task/metric` |

    The vector form adds Gymnasium's masks (``_key``) and, under ``SameStep``, ``final_obs`` and ``final_info``. ``info``
    never holds times.

    ## Arguments
    | argument | default | what |
    |---|---|---|
    | `problem` | `"digit_tasks"` | a name (`mtl-gym list problems`) or a `mtl_gym.Problem`, with tasks with classes |
    | `distribution` | `"clean"` | `"clean"`, `"varied"`, `"noisy"`, or ranges of the axes, e.g. `{"noise": [0.0, 0.2]}` |
    | `num_tasks` | all of `tasks` | size of the task subset that each instance draws, at least 2 |
    | `tasks` | all of the problem's | names of the tasks that the subset is drawn from, in any order |
    | `observe` | see above | names of observations |
    | `reward` | `"gain_over_joint"` | name of a reward |
    | `action` | `"place"` | how actions become groups |
    | `max_groups` | `num_tasks` | groups that there may be in the end, G |
    | `sharpness` | `10.0` | factor of the logits of `"memberships"` |
    | `group_price` | `0.01` | price of every group beyond the first |
    | `snapshots` | `4` | times at which data maps are taken |
    | `affinity_every` | `10` | optimiser steps between measurements of `gradient_cosines` and `lookahead` |
    | `group_table` | `"auto"` | `"auto"`, `"train"` or the path of a group table; see below |
    | `train_steps` | the problem's | optimiser steps of every training |
    | `optimizer` | `"adam"` | `"adam"`, `"adamw"` or `"sgd"` |
    | `lr` | the problem's | initial learning rate |
    | `lr_schedule` | `"constant"` | `"constant"`, `"step"` (a tenth at 1/2 and at 3/4) or `"cosine"` |
    | `momentum` | `0.9` | of SGD; first decay rate of Adam |
    | `weight_decay` | `0.0` | L2 penalty (decoupled for `"adamw"`) |
    | `batch_size` | the problem's | samples of a training step |
    | `hidden_sizes` | the problem's | widths of the trunk |
    | `device` | `"cpu"` | of the tensors |
    | `render_mode` | `None` | `"rgb_array"` draws the tasks' data maps and the groups |

    A group table (`mtl-gym groupings` makes one) holds what every group of its instances' tasks reaches, so that an episode is
    a look-up; instances that it does not hold are trained. ``group_table="auto"`` takes the shipped table of the problem, if it is
    of the same version and arguments; a path to a table that is not is an error. Soft memberships are always trained.

    The vector form also takes ``num_envs``, ``autoreset_mode`` (``"SameStep"``, ``"NextStep"``, ``"Disabled"``, or the enum) and
    ``max_episode_steps``.

    A policy of one's own for ``mtl_gym.compare`` is a class with ``predict``, as Stable-Baselines3's, and ``requires``:
    ``help(mtl_gym.Policy)`` shows one for ``mtl_gym/LayerMerging-v0``. The options of those that come along are in the manual of
    their classes in ``mtl_gym.baselines``; an unknown option is answered with the known ones.

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
    vector: TaskGroupingVectorEnv

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """The actions that are allowed now (A,); see :meth:`TaskGroupingVectorEnv.action_masks`."""
        return self.vector.action_masks()[0]


TaskGroupingEnv.__doc__ = manual(TaskGroupingEnv.__doc__ or "", TASK_GROUPING)

"""``mtl_gym/LayerMerging-v0``: which tasks share a layer?"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from mtl_gym.arguments import choose, number, positive_int, should
from mtl_gym.envs.arguments import check_arguments
from mtl_gym.envs.base import MTLVectorEnv, as_array
from mtl_gym.envs.infos import Array, Infos
from mtl_gym.envs.manual import manual
from mtl_gym.envs.merging import Merging, legal
from mtl_gym.envs.scalar import MTLEnv
from mtl_gym.problems import LAYER_MERGING
from mtl_gym.training.branch_learner import SHARE, TRANSFERS, BranchLearner


class LayerMergingVectorEnv(MTLVectorEnv):
    """N trainings whose layers are merged; the manual is :class:`LayerMergingEnv`'s.

    Args:
        num_envs: N.
        action: See the manual.
        similarity: See the manual.
        transfer: See the manual.
        transfer_steps: See the manual.
        average_moments: See the manual.
        alignment: See the manual.
        parameter_price: See the manual.
        render_mode: ``None`` or ``"rgb_array"``.
        autoreset_mode: ``"SameStep"``, ``"NextStep"`` or ``"Disabled"``, or the enum.
        max_episode_steps: Decisions after which an episode is truncated.
        arguments: The common arguments; see the manual.
    """

    learner: BranchLearner

    def __init__(
        self,
        num_envs: int = 1,
        *,
        action: str = "merge",
        similarity: str = "cka",
        transfer: str = "imitate",
        transfer_steps: int = 20,
        average_moments: bool = False,
        alignment: float = 0.0,
        parameter_price: float = 0.1,
        render_mode: str | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.SAME_STEP,
        max_episode_steps: int | None = None,
        **arguments: Any,
    ) -> None:
        checked = check_arguments(LAYER_MERGING, **arguments)
        if checked.recipe.num_tasks < 2:
            raise ValueError(should("num_tasks", "be at least 2: one task has nothing to merge", checked.recipe.num_tasks))
        if not isinstance(average_moments, bool):
            raise TypeError(should("average_moments", "be True or False", average_moments))
        self._merging = Merging(action=action, similarity=similarity, num_tasks=checked.recipe.num_tasks)
        self._transfer = choose("transfer", transfer, {name: name for name in TRANSFERS})
        self._transfer_steps = positive_int("transfer_steps", transfer_steps)
        self._average_moments = average_moments
        self._price = number("parameter_price", parameter_price, low=0.0)
        count = positive_int("num_envs", num_envs)
        super().__init__(
            count,
            self._merging.space,
            checked,
            BranchLearner(checked.problem, checked.recipe, count, alignment=number("alignment", alignment, low=0.0)),
            probes=(*self._merging.probes, SHARE),
            render_mode=render_mode,
            autoreset_mode=autoreset_mode,
            max_episode_steps=max_episode_steps,
        )
        self._invalid = torch.zeros(num_envs, dtype=torch.bool)
        self._last_share = torch.ones(num_envs)

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """The actions that are allowed now (N, A); none is masked of thresholds.

        Raises:
            gymnasium.error.ResetNeeded: Before the first reset.
        """
        return as_array(legal(self.signals.probes))

    def _train(self, actions: Tensor, active: Tensor) -> Tensor:
        known = self.signals.probes
        self._last_share = known[SHARE]
        self._invalid = self._merging.invalid(actions, known)
        wanted = self._merging.structure(actions, known)
        replicas = self.learner.replicas
        assign = torch.where(active[:, None, None], wanted.assign, replicas.assign)
        self.learner.merge(assign, transfer=self._transfer, steps=self._transfer_steps, average_moments=self._average_moments)
        replicas.groups.copy_(torch.where(active[:, None], wanted.groups, replicas.groups))
        ones = torch.ones_like(self.signals.initial)
        for _ in range(self.arguments.steps_per_action):
            self.learner.update(ones, active)
        return ones

    def _rewards(self, playing: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        rewards, diverged = super()._rewards(playing)
        if self.arguments.reward == "none":
            return rewards, diverged
        saved = as_array(self._last_share - self.signals.probes[SHARE]).astype(np.float64)
        return rewards + np.where(playing & ~diverged, self._price * saved, 0), diverged

    def _action_infos(self, actions: Tensor) -> Infos:
        return {
            "invalid_action": as_array(self._invalid),
            "parameter_fraction": as_array(self.signals.probes[SHARE]).astype(float),
            "num_groups": as_array(self.learner.network.used(self.learner.replicas.assign[:, -1:]).sum((1, 2))),
        }

    def _draw(self, row: int) -> Array:
        from mtl_gym.envs.rendering import draw_structure

        return draw_structure(self.learner, row)


class LayerMergingEnv(MTLEnv):
    r"""Which tasks share a layer?

    ## Description
    Every one of K tasks begins with a network of its own, of S stages (layers, with what follows them before the next) and a head;
    all have the same initial weights. They are trained on real data, on the sum of the tasks' losses, for ``train_steps`` optimiser
    steps. At every decision, the agent sees how similar the tasks' layers have become and says which tasks shall share the next
    stage; the copies that the tasks had are replaced by one. What has been merged is never parted again, so that the networks
    become a tree from the inputs to the heads. An episode is one training. After Gurulingan, Zonooz and Arani, "Multi-Task
    Structural Learning using Local Task Similarity induced Neuron Creation and Removal" (MTSL), ICML 2023.

    Tasks that may still be merged are a *group*; its *frontier* is the first stage that its tasks do not share. Sharing saves
    parameters, not time: every task's copy is gathered in the forward pass, so that trainings of different structures are one
    computation. Parameters that nobody uses any more are zero, are not counted and not trained.

    ## Action Space
    ``action="merge"`` (default): ``Discrete(A)``, with ``action_masks()``. For K up to 6 the actions are all partitions of the
    tasks (`mtl_gym.training.partitions.partitions`: 2, 5, 15, 52, 203 of them for K = 2 to 6), those with the most blocks first. In
    every group, the tasks of a block begin to share the group's frontier, and are a group from now on; a task that is alone in its
    block beside others that are not stays alone for good. A group that is all apart waits. Legal is what refines the groups and
    leaves those that share all stages as they are. For more tasks, action 0 waits, and the others are the pairs of tasks, by rows
    of the upper triangle: their blocks are joined at the first stage that they do not share; each block is named by its least task.
    Before the first step all networks are the same, so the first decision can only wait. In the place of an action that is masked
    stands the first that is not, which merges nothing; ``info["invalid_action"]`` says so.

    ``action="threshold"``: ``Box(-1, 1, (1,), float32)``. In every group, MTSL's rule merges at the frontier: of all partitions the
    one with the fewest blocks whose mean affinity reaches (1 + a) / 2, a task's affinity being its mean ``similarity`` with its
    block, and 0 alone. -1 merges all, 1 nothing. Beyond 8 tasks only the partitions of average linkage are searched. No threshold
    is masked; the first one merges nothing.

    A new copy of a stage (MTSL's neuron creation and knowledge transfer) begins as the mean of its tasks' copies, so that merging
    equal ones changes nothing, and learns by ``transfer_steps`` training batches to give each task the features that it had,
    ``sum_k MSE(F_k, c_k(pool(F_g)) * F_g)`` with channel adapters c_k that are dropped afterwards (the paper begins with new
    weights). ``transfer="average"`` leaves it at the mean, ``"none"`` at the training's initial weights. Actions outside the space
    raise ``ValueError`` before anything changes.

    ## Observation Space
    A flat ``Dict`` of float32 ``Box``es of one dimension; ``observe`` names its keys. Pairs of tasks are the upper triangle by
    rows. Logarithms are natural; *relative* ones are relative to L_k(0), the loss of the first training batch. Values are clipped
    to the bounds. Similarities are measured on 128 training samples, the same ones throughout.

    {observations}

    The default is {default}.

    ## Rewards
    ``reward`` names one of the following; from each (but ``none``) ``parameter_price`` times the change of the share of parameters
    in use is subtracted: parting with all but a third of the parameters is worth ``2/3 parameter_price``. A decision in which the
    training diverges is paid the penalty instead.

    {rewards}

    ## Starting State
    An *instance* of the problem: initial weights, data order, and what else ``distribution`` lets vary. ``reset()`` draws ids of
    training instances, in [2^31, 2^62), from the seeded stream; ``reset(options={"instance": id})`` asks for one; ids in [0, 2^31)
    are for evaluation.

    ## Episode End
    1. Terminated: ``train_steps`` optimiser steps have been taken (`progress` is observed).
    2. Terminated: the training diverged: a loss or a parameter is not finite. Only this row's episode ends.
    3. Truncated: ``max_episode_steps`` decisions have been taken, if that is given to ``make_vec``. (``make`` wraps the environment
       in a ``TimeLimit``, of which it does not know: then there is no `test`, and no `terminal_delta_m` before the end.)

    ## Information
    | key | what |
    |---|---|
    | `instance` | id of the instance |
    | `forward`, `backward` | passes so far, in training batches; comparisons by samples, a step of imitation as 4 and 1 |
    | `diverged` | whether the training has become non-finite |
    | `invalid_action` | whether the action was masked |
    | `parameter_fraction` | parameters in use, as a share of those of separate networks |
    | `num_groups` | different copies of the last stage in use |
    | `test` | in the last step only: each task's metrics on the *test* split, by `task/metric` |

    The vector form adds Gymnasium's masks (``_key``) and, under ``SameStep``, ``final_obs`` and ``final_info``. ``info``
    never holds times.

    ## Arguments
    | argument | default | what |
    |---|---|---|
    | `problem` | `"digits"` | a name (`mtl-gym list problems`) or a `mtl_gym.Problem`, with a network that is a chain of layers |
    | `distribution` | `"clean"` | `"clean"`, `"varied"`, `"noisy"`, or ranges of the axes, e.g. `{"noise": [0.0, 0.2]}` |
    | `num_tasks` | all of `tasks` | size of the task subset that each instance draws, at least 2 |
    | `tasks` | all of the problem's | names of the tasks that the subset is drawn from, in any order |
    | `observe` | see above | names of observations |
    | `reward` | `"gain_change"` | name of a reward |
    | `reward_every` | `steps_per_action` | optimiser steps between measurements of the reward |
    | `action` | `"merge"` | how actions become structures |
    | `similarity` | `"cka"` | what `action="threshold"` alone goes by: `"cka"`, or `"gradient"`, (1 + cosine of gradients) / 2 |
    | `transfer` | `"imitate"` | `"imitate"`, `"average"` or `"none"` |
    | `transfer_steps` | `20` | training batches of an imitation; not used by other transfers |
    | `average_moments` | `False` | whether a new copy takes its tasks' mean optimiser moments and step counts, instead of none |
    | `alignment` | `0.0` | factor of MTSL's alignment term in the loss, 1 - mean CKA of a group's frontier (MTSL: 0.2) |
    | `parameter_price` | `0.1` | reward for parting with all parameters |
    | `steps_per_action` | `20` | optimiser steps of a decision |
    | `train_steps` | the problem's | optimiser steps of an episode; a multiple of `steps_per_action` |
    | `optimizer` | `"adam"` | `"adam"`, `"adamw"` or `"sgd"` |
    | `lr` | the problem's | initial learning rate; that of imitations too |
    | `lr_schedule` | `"constant"` | `"constant"`, `"step"` (a tenth at 1/2 and at 3/4) or `"cosine"` |
    | `momentum` | `0.9` | of SGD; first decay rate of Adam |
    | `weight_decay` | `0.0` | L2 penalty (decoupled for `"adamw"`) |
    | `batch_size` | the problem's | samples of a training step |
    | `hidden_sizes` | the problem's | widths of the stages |
    | `holdout_size` | `128` | fixed samples of *meta* and of *reward*, or all |
    | `device` | `"cpu"` | of the tensors |
    | `render_mode` | `None` | `"rgb_array"` draws the structure and the similarities |

    The vector form also takes ``num_envs``, ``autoreset_mode`` (``"SameStep"``, ``"NextStep"``, ``"Disabled"``, or the enum) and
    ``max_episode_steps``.

    A policy of one's own for ``mtl_gym.compare`` is a class with ``predict``, as Stable-Baselines3's, and ``requires``:
    ``help(mtl_gym.Policy)`` shows one for ``mtl_gym/LayerMerging-v0``. The options of those that come along are in the manual of
    their classes in ``mtl_gym.baselines``; an unknown option is answered with the known ones.

    ## Example
    >>> import gymnasium, mtl_gym
    >>> env = gymnasium.make("mtl_gym/LayerMerging-v0", tasks=["digit", "parity", "ink"], train_steps=60)
    >>> observation, info = env.reset(seed=0)
    >>> env.unwrapped.action_masks().tolist()
    [True, False, False, False, False]
    >>> observation, reward, terminated, truncated, info = env.step(0)
    >>> observation, reward, terminated, truncated, info = env.step(4)  # all share the first layer
    >>> info["parameter_fraction"] < 1
    True

    ## References
    Gurulingan, Zonooz, Arani: Multi-Task Structural Learning using Local Task Similarity induced Neuron Creation and Removal.
    ICML 2023. arXiv 2305.00441.

    ## Version History
    * v0: first version
    """

    vector_form = LayerMergingVectorEnv
    vector: LayerMergingVectorEnv

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """The actions that are allowed now (A,); see :meth:`LayerMergingVectorEnv.action_masks`."""
        return self.vector.action_masks()[0]


LayerMergingEnv.__doc__ = manual(LayerMergingEnv.__doc__ or "", LAYER_MERGING)

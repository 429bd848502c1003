"""``mtl_gym/LossWeighting-v0``: how much does each task's loss count?"""

from __future__ import annotations

from typing import Any

from gymnasium.vector import AutoresetMode
from torch import Tensor

from mtl_gym.arguments import number, positive_int
from mtl_gym.envs.arguments import check_arguments
from mtl_gym.envs.base import MTLVectorEnv, as_array
from mtl_gym.envs.infos import Infos
from mtl_gym.envs.manual import manual
from mtl_gym.envs.scalar import MTLEnv
from mtl_gym.envs.weights import Weighting
from mtl_gym.problems import LOSS_WEIGHTING
from mtl_gym.training.learner import Learner


class LossWeightingVectorEnv(MTLVectorEnv):
    """N trainings whose task losses are weighted; the manual is :class:`LossWeightingEnv`'s.

    Args:
        num_envs: N.
        action: See the manual.
        rule: See the manual.
        weight_range: See the manual.
        scope: See the manual.
        gradient_ema: See the manual.
        render_mode: ``None`` or ``"rgb_array"``.
        autoreset_mode: ``"SameStep"``, ``"NextStep"`` or ``"Disabled"``, or the enum.
        max_episode_steps: Decisions after which an episode is truncated.
        arguments: The common arguments; see the manual.
    """

    def __init__(
        self,
        num_envs: int = 1,
        *,
        action: str = "softmax",
        rule: str = "init",
        weight_range: float = 1e6,
        scope: str = "all",
        gradient_ema: float = 0.0,
        render_mode: str | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.SAME_STEP,
        max_episode_steps: int | None = None,
        **arguments: Any,
    ) -> None:
        checked = check_arguments(LOSS_WEIGHTING, **arguments)
        tasks, count = checked.recipe.num_tasks, positive_int("num_envs", num_envs)
        self._weighting = Weighting(action=action, rule=rule, weight_range=weight_range, scope=scope, num_tasks=tasks)
        average = number("gradient_ema", gradient_ema, low=0.0, high=1.0, ends="[)")
        super().__init__(
            count,
            self._weighting.space,
            checked,
            Learner(checked.problem, checked.recipe, count, gradient_ema=average),
            render_mode=render_mode,
            autoreset_mode=autoreset_mode,
            max_episode_steps=max_episode_steps,
        )

    def _train(self, actions: Tensor, active: Tensor) -> Tensor:
        factors, initial = self._weighting.factors(actions), self.signals.initial
        for _ in range(self.arguments.steps_per_action):
            weights = self._weighting.weights(factors, self.learner.forward(), initial)  # (N, S, K)
            if weights.shape[1] == 1:
                self.learner.update(weights[:, 0], active)
            else:
                self.learner.update_apart(weights[:, 0], weights[:, 1], active)
        return factors[:, 0]

    def _action_infos(self, actions: Tensor) -> Infos:
        return {"clipped": as_array(self._weighting.clipped(actions))}


class LossWeightingEnv(MTLEnv):
    r"""How much does each task's loss count?

    ## Description
    A network with a shared trunk and a head for each of K tasks is trained on real data, for ``train_steps`` optimiser steps. At
    every decision, the agent sees how the training goes and sets the weights ``w`` of the task losses for the next
    ``steps_per_action`` steps, each of which descends ``sum_k w_k L_k``. An episode is one training. Observations, rewards and
    baselines follow Dai, Fei and Lu, "Improvable Gap Balancing for Multi-Task Learning", UAI 2023; the default reward is measured
    on held-out data, since the paper's, which compares consecutive training batches, hardly depends on the action.

    ## Action Space
    ``action="softmax"`` (default) and ``"residual"``: ``Box(-1, 1, (K,), float32)``. ``action="weights"``:
    ``Box(-1e6, 1e6, (K,), float32)``.

    | action | weights of each optimiser step | for |
    |---|---|---|
    | `softmax` | `K softmax(c a)`, `c = ln(weight_range) / 2`: equal weights for equal actions | agents |
    | `residual` | the same, times the weights of `rule`: `"init"`: `1 / L_k(0)`; `"si"`: `1 / L_k` of the batch | agents |
    | `weights` | `a` itself, unchanged, not normalised; signed | heuristics |

    ``scope="shared"`` takes 2 K numbers: K as above for weights that act on the shared parameters alone (the convention of gradient
    balancing), then K for weights that act in the heads (ones leave each head its own loss). A step then costs K backward passes,
    which are those of the Gram matrix if that is observed. `last_weights` shows the first K.

    Actions outside the space, or not finite, raise ``ValueError`` before anything changes.

    ## Observation Space
    A flat ``Dict`` of float32 ``Box``es of one dimension; ``observe`` names its keys. Logarithms are natural; *relative* ones
    are relative to L_k(0), the loss of the first training batch, and reveal no loss scale. Values are clipped to the bounds.

    {observations}

    The default is {default}.

    ## Rewards
    ``reward`` names one of the following; a decision in which the training diverges is paid the penalty instead.

    {rewards}

    ## Starting State
    An *instance* of the problem: initial weights, data order, and what else ``distribution`` lets vary. ``reset()`` draws ids of
    training instances, in [2^31, 2^62), from the seeded stream; ``reset(options={"instance": id})`` asks for one; ids in [0, 2^31)
    are for evaluation. An instance is a pure function of the problem, distribution, ``num_tasks``, ``tasks``, network and id.
    ``tasks`` is only what the subset of ``num_tasks`` is drawn from: whatever it is, an id has the same initial weights and data
    order, and the same subset if that is allowed. So an agent can be trained on subsets that lack a task and tested with it.

    ## Episode End
    1. Terminated: ``train_steps`` optimiser steps have been taken (`progress` is observed).
    2. Terminated: the training diverged: a loss or a parameter is not finite. Only this row's episode ends.
    3. Truncated: ``max_episode_steps`` decisions have been taken, if that is given to ``make_vec``. (``make`` wraps the environment
       in a ``TimeLimit``, of which it does not know: then there is no `test`, and no `terminal_delta_m` before the end.)

    ## Information
    | key | what |
    |---|---|
    | `instance` | id of the instance |
    | `forward`, `backward` | passes so far, in training batches; held-out losses count by their samples |
    | `diverged` | whether the training has become non-finite |
    | `clipped` | entries of the action that lie on a bound |
    | `test` | in the last step only: each task's metrics on the *test* split, by `task/metric` |

    The vector form adds Gymnasium's masks (``_key``) and, under ``SameStep``, ``final_obs`` and ``final_info``. ``info``
    never holds times.

    ## Arguments
    | argument | default | what |
    |---|---|---|
    | `problem` | `"digits"` | a name (`mtl-gym list problems`) or a `mtl_gym.Problem` |
    | `distribution` | `"clean"` | `"clean"`, `"varied"`, `"noisy"`, or ranges of axes: `{"noise": [0, 0.4], "scale": [0.1, 10]}` |
    | `num_tasks` | all of `tasks` | size of the task subset that each instance draws |
    | `tasks` | all of the problem's | names of the tasks that the subset is drawn from, in any order |
    | `observe` | see above | names of observations |
    | `reward` | `"val_mean"` | name of a reward |
    | `reward_every` | `steps_per_action` | optimiser steps between measurements of the reward; decisions in between are paid 0 |
    | `action` | `"softmax"` | how actions become weights |
    | `rule` | `"init"` | the rule that `"residual"` multiplies |
    | `weight_range` | `1e6` | largest ratio of two softmax weights |
    | `scope` | `"all"` | where weights act: `"all"`: on the whole losses; `"shared"`: apart on shared parameters and on heads |
    | `gradient_ema` | `0.0` | share of the past in the moving averages that replace the tasks' gradients of the shared parameters |
    | `steps_per_action` | `10` | optimiser steps of a decision |
    | `train_steps` | the problem's | optimiser steps of an episode; a multiple of `steps_per_action` |
    | `optimizer` | `"adam"` | `"adam"`, `"adamw"` or `"sgd"` |
    | `lr` | the problem's | initial learning rate |
    | `lr_schedule` | `"constant"` | `"constant"`, `"step"` (a tenth at 1/2 and at 3/4) or `"cosine"` |
    | `momentum` | `0.9` | of SGD; first decay rate of Adam |
    | `weight_decay` | `0.0` | L2 penalty (decoupled for `"adamw"`) |
    | `batch_size` | the problem's | samples of a training step |
    | `hidden_sizes` | the problem's | widths of the trunk |
    | `holdout_size` | `128` | fixed samples of *meta* and of *reward* that losses are measured on, or all |
    | `device` | `"cpu"` | of the tensors |
    | `render_mode` | `None` | `"rgb_array"` draws losses, weights and gaps so far |

    The vector form also takes ``num_envs``, ``autoreset_mode`` (``"SameStep"``, ``"NextStep"``, ``"Disabled"``, or the enum) and
    ``max_episode_steps``.

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


LossWeightingEnv.__doc__ = manual(LossWeightingEnv.__doc__ or "", LOSS_WEIGHTING)

"""``mtl_gym/SampleWeighting-v0``: which samples help the main task?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from mtl_gym.arguments import positive_int, should
from mtl_gym.envs.arguments import check_arguments
from mtl_gym.envs.base import MTLVectorEnv, as_array
from mtl_gym.envs.infos import Infos
from mtl_gym.envs.manual import manual
from mtl_gym.envs.sample_weights import SampleWeighing, separation
from mtl_gym.envs.scalar import MTLEnv
from mtl_gym.problems import SAMPLE_WEIGHTING
from mtl_gym.training.sample_learner import RIGHT, SampleLearner


class SampleWeightingVectorEnv(MTLVectorEnv):
    """N trainings whose samples are weighted; the manual is :class:`SampleWeightingEnv`'s.

    Args:
        num_envs: N.
        action: See the manual.
        features: See the manual.
        sharpness: See the manual.
        num_quantiles: See the manual.
        render_mode: ``None`` or ``"rgb_array"``.
        autoreset_mode: ``"SameStep"``, ``"NextStep"`` or ``"Disabled"``, or the enum.
        max_episode_steps: Decisions after which an episode is truncated.
        arguments: The common arguments; see the manual.
    """

    learner: SampleLearner

    def __init__(
        self,
        num_envs: int = 1,
        *,
        action: str = "rule",
        features: Sequence[str] | None = None,
        sharpness: float = 10.0,
        num_quantiles: int = 4,
        render_mode: str | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.SAME_STEP,
        max_episode_steps: int | None = None,
        **arguments: Any,
    ) -> None:
        checked = check_arguments(SAMPLE_WEIGHTING, **arguments)
        if action == "weights" and checked.steps_per_action != 1:
            remedy = "Weights of samples hold for one batch."
            raise ValueError(should("steps_per_action", 'be 1 with action="weights"', checked.steps_per_action, remedy))
        self._weighing = SampleWeighing(
            action=action,
            features=features,
            sharpness=sharpness,
            num_quantiles=num_quantiles,
            batch_size=checked.recipe.batch_size,
            num_tasks=checked.recipe.num_tasks,
        )
        count = positive_int("num_envs", num_envs)
        super().__init__(
            count,
            self._weighing.space,
            checked,
            SampleLearner(checked.problem, checked.recipe, count),
            probes=self._weighing.needs,
            render_mode=render_mode,
            autoreset_mode=autoreset_mode,
            max_episode_steps=max_episode_steps,
        )
        self._skipped = torch.zeros(num_envs)
        self.separation: dict[str, Tensor] = {}
        """How far the weights of the last batch tell right labels from wrong ones: tables (N, K)."""

    def _train(self, actions: Tensor, active: Tensor) -> Tensor:
        steps, total = self.arguments.steps_per_action, torch.zeros_like(self.signals.initial)
        self._skipped = torch.zeros_like(total[:, 0])
        for step in range(steps):
            last = step == steps - 1
            seen = self.learner.probe({*self._weighing.needs, *((RIGHT,) if last else ())}, active)
            weights = self._weighing.weights(actions, seen)
            if last:
                self.separation = separation(weights, seen[RIGHT])
            self.learner.update_samples(weights, active)
            self._skipped += (weights == 0).flatten(1).all(1)
            total += weights.mean(1)
        return total / steps

    def _action_infos(self, actions: Tensor) -> Infos:
        main = {name: as_array(table[:, 0]).astype(float) for name, table in self.separation.items()}
        return {
            "clipped": as_array(self._weighing.clipped(actions)),
            "skipped": as_array(self._skipped).astype(int),
            "right_weight": main["right"],
            "wrong_weight": main["wrong"],
            "auc": main["auc"],
        }


class SampleWeightingEnv(MTLEnv):
    r"""Which samples help the main task?

    ## Description
    A network with a shared trunk and a head for each of K tasks is trained on real data, for ``train_steps`` optimiser steps; one
    task is the *main* one, the others are auxiliary. A task is not good or bad as a whole: some of its samples help the main task,
    and others, such as those with wrong labels, harm it. At every decision, the agent sees the samples of the batch about to be
    trained on and says how much each counts: a step descends ``sum_k mean_i w_ik l_ik``, with l_ik the loss of task k on sample i.
    An episode is one training. After Grégoire, Chaudhary and Verboven, "Sample-Level Weighting for Multi-Task Learning with
    Auxiliary Tasks" (SLGrad), whose signal is the *alignment*: the inner product of a sample's gradient with that of the main
    task's loss on held-out data (*meta*), of the shared parameters. All alignments of a batch come of one forward-mode pass.

    ## Action Space
    ``action="rule"`` (default): ``Box(-1, 1, (1 + F,), float32)``, F the number of ``features``. ``"quantiles"``:
    ``Box(-1, 1, (K Q,), float32)``. ``"weights"``: ``Box(0, 1e6, (B K,), float32)``, with ``steps_per_action=1``.

    | action | weights of each optimiser step | for |
    |---|---|---|
    | `rule` | `sigmoid(c (a_0 + sum_f a_f phi_f))`, c = `sharpness`, phi_f the sample's features, over their mean | agents |
    | `quantiles` | `exp(c a_kq)` for samples in the q-th quantile of task k's losses (least first), over their mean | agents |
    | `weights` | `a` itself, (B, K) by rows, unchanged, not normalised | heuristics |

    Weights of the first two average 1 over samples and tasks; 0 is equal weighting. Where all weights of a step are 0, no parameter
    is moved, and the step counts. Negative weights, actions outside the space or not finite raise ``ValueError`` before anything
    changes. Features:

    {features}

    ## Observation Space
    A flat ``Dict`` of float32 ``Box``es of one dimension; ``observe`` names its keys. Those of samples are (B, K) by rows, of the
    batch about to be trained on; the main task comes first. Logarithms are natural; *relative* ones are relative to L_k(0), the
    loss of the first training batch. Values are clipped to the bounds. A label that is missing has the loss 0.

    {observations}

    The default is {default}.

    ## Rewards
    ``reward`` names one of the following, of the main task alone; a decision in which the training diverges is paid the penalty
    instead. With ``reward_every`` the decisions in between are paid 0, and what is measured is paid at its end.

    {rewards}

    ## Starting State
    An *instance* of the problem: initial weights, data order, and what else ``distribution`` lets vary. ``reset()`` draws ids of
    training instances, in [2^31, 2^62), from the seeded stream; ``reset(options={"instance": id})`` asks for one; ids in [0, 2^31)
    are for evaluation. ``distribution="noisy"`` plants wrong labels (``noise``: another sample's, uniform flips;
    ``constant_label``) and harmful auxiliary tasks (``unrelated``: all labels are other samples'; ``nearest_flip``: those of the
    most similar sample with another label). They are wrong in *train* only. Which ones are wrong is never observed, but by the
    policy ``oracle``.

    ## Episode End
    1. Terminated: ``train_steps`` optimiser steps have been taken (`progress` is observed).
    2. Terminated: the training diverged: a loss or a parameter is not finite. Only this row's episode ends.
    3. Truncated: ``max_episode_steps`` decisions have been taken, if that is given to ``make_vec``. (``make`` wraps the environment
       in a ``TimeLimit``, of which it does not know: then there is no `test`, and no `terminal_delta_m` before the end.)

    ## Information
    | key | what |
    |---|---|
    | `instance` | id of the instance |
    | `forward`, `backward` | passes so far, in training batches; *meta* counts by its samples, forward mode as one more |
    | `diverged` | whether the training has become non-finite |
    | `clipped` | entries of the action that lie on a bound |
    | `skipped` | steps of the decision whose weights were all 0 |
    | `right_weight`, `wrong_weight` | the main task's mean weight of right and wrong labels in the last batch, over that of all |
    | `auc` | probability that one of the former is larger than one of the latter; these three only where there are both |
    | `test` | in the last step only: each task's metrics on the *test* split, by `task/metric` |

    The vector form adds Gymnasium's masks (``_key``) and, under ``SameStep``, ``final_obs`` and ``final_info``. ``info``
    never holds times.

    ## Arguments
    | argument | default | what |
    |---|---|---|
    | `problem` | `"digits"` | a name (`mtl-gym list problems`) or a `mtl_gym.Problem` |
    | `distribution` | `"clean"` | `"clean"`, `"varied"`, `"noisy"`, or ranges of the axes, e.g. `{"noise": [0.6, 0.6]}` |
    | `main_task` | the first of `tasks` | name of the main task, which always takes part |
    | `num_tasks` | all of `tasks` | size of the task subset that each instance draws, the main one included |
    | `tasks` | all of the problem's | names of the tasks that the subset is drawn from, in any order |
    | `observe` | see above | names of observations |
    | `reward` | `"val_mean"` | name of a reward |
    | `reward_every` | `steps_per_action` | optimiser steps between measurements of the reward |
    | `action` | `"rule"` | how actions become weights |
    | `features` | all | features of `"rule"`; without `"alignment"` it needs no gradient of held-out data |
    | `sharpness` | `10.0` | the logit c of an action of 1 |
    | `num_quantiles` | `4` | Q of `"quantiles"` |
    | `steps_per_action` | `10` | optimiser steps of a decision |
    | `train_steps` | the problem's | optimiser steps of an episode; a multiple of `steps_per_action` |
    | `optimizer` | `"adam"` | `"adam"`, `"adamw"` or `"sgd"` |
    | `lr` | the problem's | initial learning rate |
    | `lr_schedule` | `"constant"` | `"constant"`, `"step"` (a tenth at 1/2 and at 3/4) or `"cosine"` |
    | `momentum` | `0.9` | of SGD; first decay rate of Adam |
    | `weight_decay` | `0.0` | L2 penalty (decoupled for `"adamw"`) |
    | `batch_size` | the problem's | samples of a training step |
    | `hidden_sizes` | the problem's | widths of the trunk |
    | `holdout_size` | `128` | fixed samples of *meta* and of *reward*, or all; alignments are with the former |
    | `device` | `"cpu"` | of the tensors |
    | `render_mode` | `None` | `"rgb_array"` draws losses, mean weights and gaps so far |

    The vector form also takes ``num_envs``, ``autoreset_mode`` (``"SameStep"``, ``"NextStep"``, ``"Disabled"``, or the enum) and
    ``max_episode_steps``.

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


SampleWeightingEnv.__doc__ = manual(SampleWeightingEnv.__doc__ or "", SAMPLE_WEIGHTING)

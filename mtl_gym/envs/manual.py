"""The environments' manual pages: sections they share, and tables generated from the code."""

from __future__ import annotations

from mtl_gym.envs.observations import SIZES
from mtl_gym.envs.spec import EnvironmentSpec

_ARGUMENTS = {
    "problem": ('`"{spec.problem}"`', "a name (`mtl-gym list problems`) or a `mtl_gym.Problem`"),
    "distribution": ('`"clean"`', '`"clean"`, `"varied"`, `"noisy"` or ranges: `{{"noise": [0, 0.4], "scale:digit": [2, 2]}}`'),
    "num_tasks": ("all of `tasks`", "number of tasks that each instance draws"),
    "tasks": ("all of the problem's", "names of the tasks to draw from, in any order"),
    "main_task": ("the first of `tasks`", "name of the main task, which every instance includes and lists first"),
    "observe": ("see above", "names of observations"),
    "reward": ('`"{spec.reward}"`', "name of a reward"),
    "steps_per_action": ("`{spec.steps_per_action}`", "optimiser steps per decision"),
    "decisions": (
        "`None`",
        "about how many decisions an episode has, in place of `steps_per_action`, which then is the divisor of `train_steps` "
        "nearest to `train_steps / decisions`, if one is within a factor of 2",
    ),
    "reward_every": ("`steps_per_action`", "optimiser steps between reward measurements; decisions in between receive 0"),
    "train_steps": ("the problem's", "optimiser steps per training; a multiple of `steps_per_action`"),
    "optimizer": ('`"adam"`', '`"adam"`, `"adamw"` or `"sgd"`'),
    "lr": ("the problem's", "initial learning rate"),
    "lr_schedule": ('`"cosine"`', '`"constant"`, `"step"` (divides by 10 at 1/2 and 3/4 of the training), `"cosine"` (falls to 0)'),
    "checkpoint": (
        '`"last"`',
        '`"last"`: a training ends with its last parameters; `"best_meta"`: with those, and the structure, that had the least mean '
        "log loss on *meta* among those after every tenth of the steps (these measurements are counted in `forward`). So does one "
        "that diverges, which still counts as diverged; one that is truncated keeps its last parameters, since it is not over",
    ),
    "momentum": ("`0.9`", "momentum of SGD; first decay rate of Adam"),
    "weight_decay": ("`0.0`", 'L2 penalty (decoupled for `"adamw"`)'),
    "batch_size": ("the problem's", "samples per training step"),
    "hidden_sizes": ("the problem's", "widths of the trunk's layers"),
    "holdout_size": ("`128`", "number of fixed *meta* and *reward* samples used to measure losses; at most the whole split"),
    "device": ('`"cpu"`', "torch device"),
    "render_mode": ("`None`", '`"rgb_array"` draws the episode so far'),
}
"""Default and meaning of each common argument."""

_SECTIONS = {
    "logarithms": """Logarithms are natural; *relative* losses are relative to L_k(0), the loss of the first training batch, and do
not reveal the loss scale.""",
    "starting_state": """An *instance* of the problem: initial weights, data order, and whatever else ``distribution`` varies.
``reset()`` draws ids of training instances, in [2^31, 2^62), from the seeded generator; ``reset(options={"instance": id})``
requests a specific one; ids in [0, 2^31) are reserved for evaluation. An instance is a pure function of the problem, distribution,
``num_tasks``, ``tasks``, network and id. ``tasks`` only restricts which subsets of ``num_tasks`` can be drawn: an id keeps its
initial weights and data order, and its subset if that is still possible. So an agent can be trained on subsets that leave out a
task and tested with it. Where labels are missing, the data order also depends on the subset and its labels: a batch without a label
of a task has one of its samples replaced by a sample with such a label, if there is room.""",
    "episode_end": """1. Terminated: ``train_steps`` optimiser steps have been taken (`progress` is observed).
2. Terminated: the training diverged: a loss or a parameter is not finite. Only this row's episode ends.
3. Truncated: ``max_episode_steps`` decisions have been taken, if ``make_vec`` received it. (``make`` uses a ``TimeLimit`` wrapper
   that the environment cannot see: then there is no `test`, and no `terminal_delta_m`, before the end.)""",
    "common_information": """| `instance` | id of the instance |
| `forward`, `backward` | passes so far, in training batches; held-out losses count by their number of samples |
| `diverged` | whether the training has become non-finite |
| `test` | metrics on the *test* split, by `task/metric`; -1 before the last step and for tasks that do not take part |""",
    "information_note": """The keys stay the same throughout an episode, and none is also an observation. The vector form adds
Gymnasium's masks (``_key``) and, under ``SameStep``, ``final_obs`` and ``final_info``. ``info`` never contains times.""",
    "vector_form": """The vector form also takes ``num_envs``, ``autoreset_mode`` (``"SameStep"``, ``"NextStep"``,
``"Disabled"``, or the enum) and ``max_episode_steps``.""",
    "policies_of_your_own": """To compare your own policy with ``mtl_gym.compare``, write a class with Stable-Baselines3's
``predict`` and ``requires``: ``help(mtl_gym.Policy)`` shows one for ``mtl_gym/LayerMerging-v0``. The classes in
``mtl_gym.baselines`` document the heuristics' options.""",
}
_SPACE = """A flat ``Dict`` of one-dimensional float32 ``Box``es; ``observe`` selects its keys. Values are clipped to the bounds.

| key | length | bounds | what |
|---|---|---|---|
"""
_CHOICE = """``reward`` selects one of the following; a decision in which the training diverges receives the penalty instead.

| reward | what | penalty |
|---|---|---|
"""


def manual(text: str, spec: EnvironmentSpec) -> str:
    """Replaces the names in braces in an environment's docstring by the shared sections and the tables."""
    observations = [
        f"| `{name}` | {SIZES[row.size][0]} | [{row.low:g}, {row.high:g}] | {row.meaning} |"
        for name, row in spec.observations.items()
    ]
    rewards = [f"| `{name}` | {row.meaning} | {row.penalty:g} |" for name, row in spec.rewards.items()]
    arguments = [
        f"| `{name}` | {default.format(spec=spec)} | {meaning.format(spec=spec)} |"
        for name, (default, meaning) in _ARGUMENTS.items()
        if name not in spec.excluded
    ]
    tables = {
        "observations": _SPACE + "\n".join(observations),
        "rewards": _CHOICE + "\n".join(rewards),
        "default": ", ".join(f"`{name}`" for name in spec.observe),
        "common_arguments": "\n".join(arguments),
    }
    for name, section in (tables | _SECTIONS | dict(spec.sections)).items():
        text = text.replace(f"{{{name}}}", section.replace("\n", "\n    "))
    return text

"""The arguments that all environments share: their defaults, and the checks of their values."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode

from mtl_gym.arguments import choose, number, positive_int, should, unknown
from mtl_gym.envs import observations
from mtl_gym.envs.rewards import rewards_of
from mtl_gym.problems import (
    LAYER_MERGING,
    LOSS_WEIGHTING,
    PROBLEMS,
    SAMPLE_WEIGHTING,
    TASK_GROUPING,
    default_problem,
    load_problem,
)
from mtl_gym.problems.base import Problem
from mtl_gym.problems.instances import TRAINING_IDS, Distribution, resolve
from mtl_gym.training.learner import Recipe
from mtl_gym.training.optim import LR_SCHEDULES, OPTIMIZERS

OWN_ARGUMENTS = {
    LOSS_WEIGHTING: ("action", "rule", "weight_range", "scope", "gradient_ema"),
    SAMPLE_WEIGHTING: ("action", "features", "sharpness", "num_quantiles"),
    LAYER_MERGING: ("action", "similarity", "transfer", "transfer_steps", "average_moments", "alignment", "parameter_price"),
    TASK_GROUPING: ("action", "max_groups", "sharpness", "group_price", "snapshots", "affinity_every", "group_table"),
}
"""Arguments of one environment alone."""
LEFT_OUT = {TASK_GROUPING: ("steps_per_action", "reward_every", "holdout_size")}
"""Common arguments that one environment does not have: its trainings are not interrupted, and are measured on whole splits."""
DEFAULT_REWARD = {
    LOSS_WEIGHTING: "val_mean",
    SAMPLE_WEIGHTING: "val_mean",
    LAYER_MERGING: "gain_change",
    TASK_GROUPING: "gain_over_joint",
}
STEPS_PER_ACTION = {LOSS_WEIGHTING: 10, SAMPLE_WEIGHTING: 10, LAYER_MERGING: 20}
HOLDOUT_SIZE, LEAST_META = 128, 10
RESET_OPTIONS = {"instance": "an id, or one for each row", "reset_mask": "(N,) bool, the rows to reset"}


@dataclass(frozen=True)
class Arguments:
    """Checked arguments.

    Attributes:
        problem: The problem.
        recipe: How every replica is trained.
        observe: Rows of ``OBSERVATIONS``.
        reward: Row of ``REWARDS``.
        steps_per_action: Optimiser steps of one decision.
        reward_every: Optimiser steps between measurements of the reward.
    """

    problem: Problem
    recipe: Recipe
    observe: tuple[str, ...]
    reward: str
    steps_per_action: int
    reward_every: int


def check_arguments(
    environment: str,
    *,
    problem: str | Problem | None = None,
    distribution: str | Distribution = "clean",
    num_tasks: int | None = None,
    tasks: Sequence[str] | None = None,
    main_task: str | None = None,
    observe: Sequence[str] | None = None,
    reward: str | None = None,
    steps_per_action: int | None = None,
    reward_every: int | None = None,
    train_steps: int | None = None,
    optimizer: str = "adam",
    lr: float | None = None,
    lr_schedule: str = "constant",
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    batch_size: int | None = None,
    hidden_sizes: Sequence[int] | None = None,
    holdout_size: int | None = None,
    device: str = "cpu",
    **others: object,
) -> Arguments:
    """Checks the common arguments of the environment with that id, and fills in the problem's defaults.

    Raises:
        ValueError, TypeError: If one of them is wrong; the message names it, its value and the way out.
    """
    for name in others:
        raise TypeError(unknown("argument", name, _names(environment)))
    _refuse_left_out(environment, steps_per_action=steps_per_action, reward_every=reward_every, holdout_size=holdout_size)
    loaded = _problem(problem, environment)
    defaults = loaded.defaults
    length = positive_int("train_steps", defaults.train_steps if train_steps is None else train_steps)
    steps = _steps(steps_per_action, length, environment)
    choose("optimizer", optimizer, OPTIMIZERS)
    choose("lr_schedule", lr_schedule, LR_SCHEDULES)
    allowed = _tasks(tasks, loaded)
    first = _main_task(main_task, allowed, environment)
    paid = DEFAULT_REWARD[environment] if reward is None else reward
    choose("reward", paid, rewards_of(environment))
    if environment == TASK_GROUPING:
        _check_classes(loaded, allowed)
    recipe = Recipe(
        distribution=resolve(distribution),
        num_tasks=_num_tasks(num_tasks, allowed),
        tasks=allowed,
        hidden_sizes=tuple(
            positive_int("hidden_sizes", width)
            for width in _sequence("hidden_sizes", defaults.hidden_sizes if hidden_sizes is None else hidden_sizes)
        ),
        train_steps=length,
        batch_size=positive_int("batch_size", defaults.batch_size if batch_size is None else batch_size),
        optimizer=optimizer,
        lr=number("lr", defaults.lr if lr is None else lr, low=0.0, ends="(]"),
        lr_schedule=lr_schedule,
        momentum=number("momentum", momentum, low=0.0, high=1.0, ends="[)"),
        weight_decay=number("weight_decay", weight_decay, low=0.0),
        holdout_size=HOLDOUT_SIZE if holdout_size is None else positive_int("holdout_size", holdout_size),
        device=_device(device),
        main_task=first,
    )
    if first is not None:
        _check_meta(len(loaded.splits["meta"]), holdout_size)
    return Arguments(loaded, recipe, _observe(observe, environment), paid, steps, _reward_every(reward_every, steps, length))


def _refuse_left_out(environment: str, **given: int | None) -> None:
    for name, value in given.items():
        if value is not None and name in LEFT_OUT.get(environment, ()):
            raise ValueError(should(name, f"be left out: {environment} has no such argument", value))


def _problem(problem: str | Problem | None, environment: str) -> Problem:
    problem = default_problem(environment) if problem is None else problem
    if isinstance(problem, str) and problem in PROBLEMS and environment not in PROBLEMS[problem].environments:
        supported = [name for name, row in PROBLEMS.items() if environment in row.environments]
        raise ValueError(should("problem", f"be one that {environment} supports: {', '.join(supported)}", problem))
    return load_problem(problem)


def _steps(steps_per_action: int | None, train_steps: int, environment: str) -> int:
    by_default = STEPS_PER_ACTION.get(environment, train_steps)
    steps = positive_int("steps_per_action", by_default if steps_per_action is None else steps_per_action)
    if environment not in LEFT_OUT and (train_steps % steps or train_steps < 2 * steps):
        raise ValueError(should("train_steps", f"be a multiple of steps_per_action={steps}, and at least twice it", train_steps))
    return steps


def _names(environment: str) -> list[str]:
    own = inspect.signature(check_arguments).parameters.values()
    common = [parameter.name for parameter in own if parameter.kind is parameter.KEYWORD_ONLY]
    return [*OWN_ARGUMENTS[environment], *(name for name in common if name not in LEFT_OUT.get(environment, ()))]


def _tasks(names: Sequence[str] | None, problem: Problem) -> tuple[str, ...]:
    """The tasks that may take part, in the problem's order: two orders of the same names are the same argument."""
    known = {task.name: task for task in problem.tasks}
    chosen = tuple(known) if names is None else _several("tasks", names, known, noun="task")
    return tuple(name for name in known if name in chosen)


def _num_tasks(num_tasks: int | None, tasks: Sequence[str]) -> int:
    count = len(tasks) if num_tasks is None else positive_int("num_tasks", num_tasks)
    if count > len(tasks):
        raise ValueError(should("num_tasks", f"be at most {len(tasks)}, the tasks that may take part: {', '.join(tasks)}", count))
    return count


def _main_task(name: str | None, tasks: Sequence[str], environment: str) -> str | None:
    """The main task, by default the first that may take part; there is none where whole tasks are weighted."""
    if environment == SAMPLE_WEIGHTING:
        return tasks[0] if name is None else choose("main_task", name, {task: task for task in tasks})
    if name is not None:
        raise ValueError(should("main_task", f"be left out: {environment} has no main task", name))
    return None


def _check_classes(problem: Problem, tasks: Sequence[str]) -> None:
    """Data maps are of the probabilities of labels, so that labels have to be classes."""
    others = [task.name for task in problem.tasks if task.name in tasks and task.loss not in ("bce", "cross_entropy")]
    if others:
        remedy = f"Not so are: {', '.join(others)}; name the others in `tasks`."
        raise ValueError(should("problem", "have tasks with classes (loss bce or cross_entropy)", problem.name, remedy))


def _check_meta(count: int, holdout_size: int | None) -> None:
    """The gradient that samples are aligned with should be of at least a few held-out samples, and of as many as were asked for."""
    if holdout_size is not None and holdout_size > count:
        raise ValueError(should("holdout_size", f"be at most {count}, the samples of the *meta* split", holdout_size))
    if count < LEAST_META:
        raise ValueError(
            should("problem", f"have at least {LEAST_META} samples in *meta*, which alignments are measured on", count)
        )


def _reward_every(every: int | None, steps: int, train_steps: int) -> int:
    chosen = steps if every is None else positive_int("reward_every", every)
    if chosen % steps or train_steps % chosen:
        raise ValueError(
            should("reward_every", f"be a multiple of steps_per_action={steps} that divides train_steps={train_steps}", chosen)
        )
    return chosen


def _observe(names: Sequence[str] | None, environment: str) -> tuple[str, ...]:
    known = observations.of_environment(environment)
    return observations.DEFAULTS[environment] if names is None else _several("observe", names, known, noun="observation")


def _several(name: str, value: Any, table: Mapping[str, Any], *, noun: str) -> tuple[str, ...]:
    """Rows of a table: at least one, and each once."""
    chosen = _sequence(name, value, f"A list of one is {json.dumps([value])}." if isinstance(value, str) else "")
    for row in chosen:
        choose(name, row, table)
    if not chosen or len(set(chosen)) < len(chosen):
        raise ValueError(should(name, f"name at least one {noun}, each once", chosen))
    return tuple(chosen)


def _sequence(name: str, value: Any, remedy: str = "") -> Sequence[Any]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError(should(name, "be a list", value, remedy))
    return value


def _device(device: str) -> str:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ValueError(should("device", "be one that torch can use here", device)) from error
    return str(device)


def check_autoreset_mode(mode: str | AutoresetMode) -> AutoresetMode:
    """Returns the mode of that value (``"SameStep"``, ``"NextStep"`` or ``"Disabled"``), or of that enum."""
    if isinstance(mode, AutoresetMode):
        return mode
    return choose("autoreset_mode", mode, {member.value: member for member in AutoresetMode})


def check_reset_options(options: dict[str, Any], num_envs: int) -> tuple[npt.NDArray[np.bool_], list[int] | None]:
    """Returns the rows to reset (N,) and the ids (N) asked for, if any.

    Raises:
        TypeError, ValueError: If one of them is wrong.
    """
    for name in options:
        choose("options", name, RESET_OPTIONS)
    mask = options.get("reset_mask", np.ones(num_envs, dtype=bool))
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.shape != (num_envs,) or not mask.any():
        raise ValueError(should("options['reset_mask']", f"be a bool array of shape ({num_envs},) with a True", mask))
    if "instance" not in options:
        return mask.copy(), None
    try:
        ids = np.atleast_1d(np.asarray(options["instance"]))
    except ValueError:
        ids = np.empty(0)
    if not np.issubdtype(ids.dtype, np.integer):
        raise TypeError(should("options['instance']", "be a whole number, or one for each row", options["instance"]))
    if ids.shape not in ((1,), (num_envs,)) or (ids < 0).any() or (ids >= TRAINING_IDS[1]).any():
        raise ValueError(should("options['instance']", f"be an id in [0, 2^62), or {num_envs} of them", options["instance"]))
    return mask.copy(), np.broadcast_to(ids, num_envs).tolist()


def check_seeds(seed: int | Sequence[int | None] | None, num_envs: int) -> list[np.random.Generator | None]:
    """Returns the stream of instance ids that each row's seed begins: ``seed + row`` for one number; ``None`` keeps a row's stream.

    Raises:
        ValueError, gymnasium.error.Error: If the number of seeds is wrong or one is negative.
    """
    if isinstance(seed, (int, np.integer)):
        seed = [int(seed) + row for row in range(num_envs)]
    seeds = [None] * num_envs if seed is None else list(seed)
    if len(seeds) != num_envs:
        raise ValueError(should("seed", f"be one number, or {num_envs}", seed))
    return [None if own is None else seeding.np_random(own)[0] for own in seeds]

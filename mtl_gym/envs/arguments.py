"""Checks and defaults of the arguments that all environments share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mtl_gym.checks import choose, number, positive_int, sequence, several, should, unknown
from mtl_gym.envs.decision_lengths import check_decisions, exact_steps_of
from mtl_gym.envs.spec import EnvironmentSpec
from mtl_gym.problems import PROBLEMS, find_problems, load_problem
from mtl_gym.problems.axes import Distribution, resolve
from mtl_gym.problems.base import Problem
from mtl_gym.training.checkpoints import CHECKPOINTS
from mtl_gym.training.optim import LR_SCHEDULES, OPTIMIZERS
from mtl_gym.training.recipe import Recipe

HOLDOUT_SIZE, LEAST_META, MOST_LAYERS = 128, 10, 100


@dataclass(frozen=True)
class Arguments:
    """Checked arguments.

    Attributes:
        recipe: How every replica is trained.
        observe, reward: Names of observations and of the reward.
        steps_per_action: Optimiser steps per decision.
        reward_every: Optimiser steps between measurements of the reward.
        decisions: About how many decisions an episode should have, if that was said in place of steps_per_action.
    """

    problem: Problem
    recipe: Recipe
    observe: tuple[str, ...]
    reward: str
    steps_per_action: int
    reward_every: int
    decisions: int | None = None


def check_arguments(
    spec: EnvironmentSpec,
    *,
    problem: str | Problem | None = None,
    distribution: str | Distribution = "clean",
    num_tasks: int | None = None,
    tasks: Sequence[str] | None = None,
    main_task: str | None = None,
    observe: Sequence[str] | None = None,
    reward: str | None = None,
    steps_per_action: int | None = None,
    decisions: int | None = None,
    reward_every: int | None = None,
    train_steps: int | None = None,
    optimizer: str = "adam",
    lr: float | None = None,
    lr_schedule: str = "cosine",
    checkpoint: str = "last",
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    batch_size: int | None = None,
    hidden_sizes: Sequence[int] | None = None,
    holdout_size: int | None = None,
    device: str = "cpu",
    **own: Any,
) -> Arguments:
    """Checks an environment's common arguments, which its manual explains, and fills in the problem's defaults.

    Of the environment's own arguments, ``own``, only the names are checked.

    Raises:
        ValueError, TypeError: If one of them is wrong; the message names it, its value and the remedy.
    """
    check_argument_names(spec, own)
    lengths = {"steps_per_action": steps_per_action, "decisions": decisions, "reward_every": reward_every}
    _refuse_excluded(spec, main_task=main_task, **lengths, holdout_size=holdout_size)
    loaded = _problem(problem, spec)
    defaults = loaded.defaults
    length = positive_int("train_steps", defaults.train_steps if train_steps is None else train_steps)
    steps = _steps(steps_per_action, decisions, length, spec)
    choose("optimizer", optimizer, OPTIMIZERS)
    choose("lr_schedule", lr_schedule, LR_SCHEDULES)
    choose("checkpoint", checkpoint, CHECKPOINTS)
    allowed = _tasks(tasks, loaded)
    first = _main_task(main_task, allowed, spec)
    rewarded = spec.reward if reward is None else reward
    choose("reward", rewarded, spec.rewards)
    widths = sequence("hidden_sizes", defaults.hidden_sizes if hidden_sizes is None else hidden_sizes, most=MOST_LAYERS)
    recipe = Recipe(
        distribution=resolve(distribution, loaded),
        num_tasks=_num_tasks(num_tasks, allowed),
        tasks=allowed,
        hidden_sizes=tuple(positive_int("hidden_sizes", width) for width in widths),
        train_steps=length,
        batch_size=positive_int("batch_size", defaults.batch_size if batch_size is None else batch_size),
        optimizer=optimizer,
        lr=number("lr", defaults.lr if lr is None else lr, low=0.0, ends="(]"),
        lr_schedule=lr_schedule,
        momentum=number("momentum", momentum, low=0.0, high=1.0, ends="[)"),
        weight_decay=number("weight_decay", weight_decay, low=0.0),
        holdout_size=HOLDOUT_SIZE if holdout_size is None else positive_int("holdout_size", holdout_size),
        device=_device(device),
        checkpoint=checkpoint,
        main_task=first,
    )
    if first is not None:
        _check_meta(len(loaded.splits["meta"]), holdout_size)
    seen = _observe(observe, spec, {**spec.own_arguments, **own})
    return Arguments(loaded, recipe, seen, rewarded, steps, _reward_every(reward_every, steps, length), decisions)


def argument_names(spec: EnvironmentSpec) -> list[str]:
    """Names of all arguments that an environment accepts: first its own, then the common ones."""
    return [*spec.own_arguments, *(name for name in keywords(check_arguments) if name not in spec.excluded)]


def keywords(function: Callable[..., Any]) -> list[str]:
    """Names of the keyword-only arguments of a function."""
    parameters = inspect.signature(function).parameters.values()
    return [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]


def check_argument_names(spec: EnvironmentSpec, names: Iterable[str], *, own: Iterable[str] = ()) -> None:
    """Raises TypeError if an environment has no such argument; the message lists those that it has.

    ``own``: the arguments of the function that passes them on, which it takes itself.
    """
    known = [*own, *argument_names(spec)]
    for name in names:
        if name not in known and name not in spec.excluded:  # for which there is another message
            # Clients such as TorchRL try arguments and look for Python's own message.
            message = unknown("argument", name, known)
            raise TypeError(f"{message} ({spec.id} got an unexpected keyword argument {name!r})")


def _refuse_excluded(spec: EnvironmentSpec, **given: Any) -> None:
    for name, value in given.items():
        if value is not None and name in spec.excluded:
            reason = "no main task" if name == "main_task" else "no such argument"
            raise ValueError(should(name, f"be left out: {spec.id} has {reason}", value))


def _problem(problem: str | Problem | None, spec: EnvironmentSpec) -> Problem:
    loaded = load_problem(spec.problem if problem is None else problem)
    reason = spec.supports(loaded)
    if reason is not None:
        raise ValueError(should("problem", f"be one that {spec.id} supports: {reason}", loaded.name))
    return loaded


def supported_problems(spec: EnvironmentSpec) -> list[str]:
    """Names of the listed problems that an environment supports, if they can be loaded."""
    found = []
    for name in find_problems():
        try:
            found += [name] if spec.supports(load_problem(name)) is None else []
        except ModuleNotFoundError:
            continue
        except (ValueError, TypeError):
            if name in PROBLEMS:
                raise
    return found


def _steps(steps_per_action: int | None, decisions: int | None, train_steps: int, spec: EnvironmentSpec) -> int:
    if "steps_per_action" in spec.excluded:
        if decisions is not None:
            raise ValueError(should("decisions", f"be left out: {spec.id} has no such argument", decisions))
        return train_steps
    if decisions is not None:
        wanted = check_decisions(decisions)
        if steps_per_action is not None:
            remedy = "Leave one of them out: both say how long a decision is."
            raise ValueError(should("steps_per_action", f"be left out with decisions={decisions!r}", steps_per_action, remedy))
        return exact_steps_of(wanted, train_steps)
    steps = positive_int("steps_per_action", spec.steps_per_action if steps_per_action is None else steps_per_action)
    if train_steps % steps or train_steps < 2 * steps:
        raise ValueError(should("train_steps", f"be a multiple of steps_per_action={steps}, and at least twice it", train_steps))
    return steps


def _tasks(names: Sequence[str] | None, problem: Problem) -> tuple[str, ...]:
    """The tasks to draw from, in the problem's order, so that the order of names does not matter."""
    known = {task.name: task for task in problem.tasks}
    chosen = tuple(known) if names is None else several("tasks", names, known, noun="task")
    return tuple(name for name in known if name in chosen)


def _num_tasks(num_tasks: int | None, tasks: Sequence[str]) -> int:
    count = len(tasks) if num_tasks is None else positive_int("num_tasks", num_tasks)
    if count > len(tasks):
        raise ValueError(should("num_tasks", f"be at most {len(tasks)}, the number of available tasks: {', '.join(tasks)}", count))
    return count


def _main_task(name: str | None, tasks: Sequence[str], spec: EnvironmentSpec) -> str | None:
    """The main task, by default the first one; ``None`` if the environment has none."""
    if "main_task" in spec.excluded:
        return None
    return tasks[0] if name is None else choose("main_task", name, {task: task for task in tasks})


def _check_meta(count: int, holdout_size: int | None) -> None:
    """Checks that there are enough held-out samples for the gradient with which training samples are aligned."""
    if holdout_size is not None and holdout_size > count:
        raise ValueError(should("holdout_size", f"be at most {count}, the number of samples in the *meta* split", holdout_size))
    if count < LEAST_META:
        raise ValueError(should("problem", f"have at least {LEAST_META} samples in *meta*, to measure alignments", count))


def _reward_every(every: int | None, steps: int, train_steps: int) -> int:
    chosen = steps if every is None else positive_int("reward_every", every)
    if chosen % steps or train_steps % chosen:
        condition = f"be a multiple of steps_per_action={steps} that divides train_steps={train_steps}"
        raise ValueError(should("reward_every", condition, chosen))
    return chosen


def _observe(names: Sequence[str] | None, spec: EnvironmentSpec, own: Mapping[str, Any]) -> tuple[str, ...]:
    unsuited = spec.unsuited(own)
    if names is None:
        return tuple(name for name in spec.observe if name not in unsuited)
    chosen = several("observe", names, spec.observations, noun="observation")
    if wrong := [name for name in chosen if name in unsuited]:
        raise ValueError(should("observe", f"not contain {', '.join(wrong)} with action={own.get('action')!r}", chosen))
    return chosen


def _device(device: str) -> str:
    if not isinstance(device, str):
        raise TypeError(should("device", "be the name of one that torch can use here, such as 'cpu' or 'cuda'", device))
    try:
        usable = torch.ones(2, dtype=torch.float64, device=device).sum().item() == 2  # "meta" computes nothing, others no float64
        usable &= (
            not device.startswith("cpu:") or torch.device(device).index == 0
        )  # torch takes any number for the one that there is
    except Exception:  # torch raises many kinds
        usable = False
    if not usable:
        raise ValueError(should("device", "be one that torch can use here, such as 'cpu' or 'cuda'", device))
    return device

"""One training with a policy, and the trained network in your hands."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from gymnasium.vector import VectorEnv
from safetensors import safe_open
from safetensors.torch import save
from torch import nn

from mtl_gym.cache import write_whole
from mtl_gym.checks import choose, positive_int, should
from mtl_gym.context import own_mode
from mtl_gym.decisions.grouping.group_training import masks_of, members, train_groups
from mtl_gym.decisions.grouping.trainings import GroupTrainings
from mtl_gym.environments import LAYER_MERGING, LOSS_WEIGHTING, TASK_GROUPING
from mtl_gym.envs.infos import row_infos
from mtl_gym.envs.vector import MTLVectorEnv
from mtl_gym.evaluation.player import Player
from mtl_gym.evaluation.results import plain, stored
from mtl_gym.evaluation.rollout import make_env
from mtl_gym.models import make_model
from mtl_gym.models.plain import Branches, joined, key
from mtl_gym.policies.grammar import names_and_policies
from mtl_gym.policies.protocol import Policy
from mtl_gym.problems import load_problem
from mtl_gym.problems.base import Problem
from mtl_gym.progress import progress_bar
from mtl_gym.training.trainer import Trainer

SUFFIX = ".safetensors"
_ABOUT = "mtl_gym"
"""Key of the description in a file's metadata."""


@dataclass(frozen=True)
class Fit:
    """A finished training.

    Attributes:
        module: The trained network as a plain module on the CPU, in evaluation mode: inputs (B, *shape) to outputs (B, O, *S) by
            task; a module of your own is what it is. Inputs are those of the problem's splits, standardised as they are.
        history: A row for each step and task: ``step``, ``task``, ``loss`` of the batch before the step, and ``weight`` (of the
            shared parameters; of samples, the mean). Empty for groups of tasks, which are trained apart.
        metrics: Metrics on *test* by ``task/metric``.
        outcome: What was decided, such as ``groups``; JSON-plain.
        about: How it was made: problem, environment, policy, instance, arguments and the passes it cost; JSON-plain.
    """

    module: nn.Module
    history: pd.DataFrame
    metrics: dict[str, float]
    outcome: dict[str, Any]
    about: dict[str, Any]

    def __repr__(self) -> str:
        scores = ", ".join(f"{name} {value:.3g}" for name, value in self.metrics.items())
        return f"<Fit of {self.about['problem']} with {self.about['policy']}: {scores}>"

    def save(self, path: str | Path) -> Path:
        """Writes the module's ``state_dict`` and :attr:`about` to a safetensors file, atomically; returns its path."""
        file = Path(path)
        file = file if file.suffix == SUFFIX else file.with_name(file.name + SUFFIX)
        paths = {"paths": self.module.paths} if isinstance(self.module, Branches) else {}
        about = {**self.about, "metrics": self.metrics, "outcome": self.outcome, **paths}
        state = {name: tensor.contiguous() for name, tensor in self.module.state_dict().items()}
        write_whole(file, save(state, metadata={_ABOUT: json.dumps(about)}))
        return file


@own_mode()
def fit(
    problem: str | Problem,
    policy: str | Policy = "ew",
    env: str = LOSS_WEIGHTING,
    *,
    seed: int = 0,
    progress: bool | None = None,
    **arguments: Any,
) -> Fit:
    """Trains once with a policy, as one row of :func:`mtl_gym.compare` does, and returns the trained network.

    Args:
        problem: A name, ``file.py:function`` or a :class:`~mtl_gym.Problem`.
        policy: A name with options, or a policy.
        env: The environment's id: what the policy decides.
        seed: The instance, as the numbers in a comparison's column ``instance``.
        progress: Whether a bar is shown, as by :func:`mtl_gym.compare`.
        arguments: The environment's other arguments (``distribution``, ``train_steps``, ``lr`` ...).

    Raises:
        ValueError, TypeError: As :func:`mtl_gym.compare`; or if a grouping has soft memberships, which have no single network.

    Example:
        >>> import mtl_gym
        >>> done = mtl_gym.fit("quadratic", "si", seed=3, train_steps=40)
        >>> len(done.history)  # 40 steps of three tasks
        120
        >>> list(done.module.state_dict())
        ['point']
    """
    label, made = next(iter(names_and_policies([policy] if isinstance(policy, str) else {_label(policy): policy}, env).items()))
    instance = positive_int("seed", seed, least=0)
    envs = make_env(made, env, 1, {"problem": problem, **arguments}, label)
    base: MTLVectorEnv = envs.unwrapped  # type: ignore[assignment]
    with progress_bar(base.decision.length, f"{label} on {base.arguments.problem.name}", show=progress) as update:
        last = _played(Player(label, made, envs), envs, instance, partial(update, advance=1))
        module = _module(base)
    outcome = plain(base.decision.outcome(0))
    own = base.arguments.problem
    given = {name: plain(value) for name, value in arguments.items()}
    about = {
        "problem": own.address or own.name,
        "env": env,
        "policy": label,
        "instance": instance,
        "arguments": given,
        "tasks": base.decision.trainings.ledger.task_names(0),
        "hidden_sizes": list(base.arguments.recipe.hidden_sizes),
        "forward": float(last["forward"]),
        "backward": float(last["backward"]),
        "diverged": bool(last["diverged"]),
    }
    metrics = {name: float(last["test"][name]) for name in base.decision.trainings.ledger.metric_names(0)}
    return Fit(module, _history(base), metrics, outcome, about)


def _played(player: Player, envs: VectorEnv[Any, Any, Any], instance: int, after_step: Callable[[], object]) -> dict[str, Any]:
    """Runs an episode of an instance; returns its last info."""
    base: MTLVectorEnv = envs.unwrapped  # type: ignore[assignment]
    observations, infos = envs.reset(options={"instance": instance})
    player.begin([instance])
    while not base.finished.all():
        observations, _, _, _, infos = envs.step(player.act(observations))
        after_step()
    player.end()
    return row_infos(infos, 0)


def _label(policy: Policy) -> str:
    return str(getattr(getattr(policy, "function", None), "__name__", type(policy).__name__))


def _module(base: MTLVectorEnv) -> nn.Module:
    """The trained network of row 0."""
    trainings = base.decision.trainings
    if isinstance(trainings, Trainer):
        return module_of(trainings, 0)
    if not isinstance(trainings, GroupTrainings):
        raise ValueError(should("env", "train a network that can be handed out", base.specification.id))
    shares = trainings.memberships[0]
    if not ((shares == 0) | (shares == 1)).all():
        raise ValueError(should("policy", "put each task in one group: soft memberships mix several networks", shares.tolist()))
    masks = masks_of(trainings.labels(0))
    instance = trainings.ledger.instances[0]
    ids = [instance.id] * len(masks) if instance else []
    parts: list[nn.Module] = []
    for trainer in train_groups(trainings.problem, trainings.recipe, ids, members(masks, trainings.recipe.num_tasks)):
        parts += [module_of(trainer, row, masks[len(parts) + row]) for row in range(trainer.num_replicas)]
    if len(parts) == 1:
        return parts[0]
    if all(isinstance(part, Branches) for part in parts):
        return joined([part for part in parts if isinstance(part, Branches)])
    return Together(parts)


class Together(nn.Module):
    """Networks of different tasks that are no chains of stages."""

    def __init__(self, parts: list[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, inputs: Any) -> dict[str, torch.Tensor]:
        """The outputs of all networks by task."""
        return {task: own for part in self.parts for task, own in part(inputs).items()}


def module_of(trainer: Trainer, row: int, mask: int = -1) -> nn.Module:
    """The network of a row as a plain module on the CPU, in evaluation mode, with the heads of the participating tasks.

    ``mask``: the tasks of a group, a bit for each participating task; all of them by default.
    """
    problem, replicas = trainer.problem, trainer.replicas
    chosen = [task for place, task in enumerate(trainer.ledger.tasks[row].tolist()) if mask >> place & 1]
    heads = {problem.tasks[task].name: problem.output_slices[task] for task in sorted(chosen)}
    parameters = {name: own[row].detach().cpu() for name, own in replicas.parameters.items()}
    buffers = {name: own[row].cpu() for name, own in replicas.buffers.items()}
    return trainer.model.plain(parameters, buffers, heads).eval()


def _history(base: MTLVectorEnv) -> pd.DataFrame:
    trainer = base.decision.trainings
    if not isinstance(trainer, Trainer):
        return pd.DataFrame({"step": [], "task": [], "loss": [], "weight": []})
    steps, tasks = int(trainer.ledger.step[0]), trainer.ledger.task_names(0)
    losses, weights = (table[0, :steps].cpu().numpy() for table in (trainer.losses.history, trainer.weights))
    return pd.DataFrame(
        {
            "step": np.repeat(np.arange(steps), len(tasks)),
            "task": tasks * steps,
            "loss": losses.flatten(),
            "weight": weights.flatten(),
        }
    )


def suggest_groups(problem: str | Problem, policy: str | Policy, *, seed: int = 0, **arguments: Any) -> list[list[str]]:
    """The groups of tasks that a policy would train together: names by group. See :func:`fit` with ``mtl_gym/TaskGrouping-v0``."""
    outcome = fit(problem, policy, TASK_GROUPING, seed=seed, **arguments).outcome
    return _members(outcome["tasks"], outcome["groups"])


def suggest_sharing(problem: str | Problem, policy: str | Policy, *, seed: int = 0, **arguments: Any) -> list[list[list[str]]]:
    """Which tasks share each stage in a policy's structure: names by group by stage. See ``mtl_gym/LayerMerging-v0``."""
    outcome = fit(problem, policy, LAYER_MERGING, seed=seed, **arguments).outcome
    return [_members(outcome["tasks"], copies) for copies in outcome["assign"]]


def _members(tasks: Sequence[str], labels: Sequence[int]) -> list[list[str]]:
    """The tasks by label, in the order of their first ones."""
    return [[task for task, own in zip(tasks, labels, strict=True) if own == label] for label in dict.fromkeys(labels)]


def refit(folder: str | Path, policy: str, instance: int, progress: bool | None = None) -> tuple[Fit, dict[str, float]]:
    """Trains once more what a row of a comparison was; also returns the row's metrics.

    Other kernels, and another number of parallel trainings, change the last bits of a training, which some methods amplify.

    Args:
        folder: The comparison's output folder.
        policy: The row's policy, as the comparison calls it.
        instance: Its instance.
        progress: Whether a bar is shown.

    Raises:
        ValueError: If there is no such row, or its problem cannot be found.
    """
    setting, origin, results = stored(Path(folder))
    rows = {(own.policy, own.instance): own for own in results}
    if (policy, instance) not in rows:
        choose("policy", policy, {own: own for own, _ in rows})
        raise ValueError(should("instance", f"be one of {sorted(own for name, own in rows if name == policy)}", instance))
    problem = origin.get("address") or setting["problem"]
    done = fit(problem, policy, setting["env"], seed=instance, progress=progress, **setting["arguments"])
    return done, dict(rows[policy, instance].metrics)


def load_module(path: str | Path, problem: str | Problem | None = None) -> nn.Module:
    """Rebuilds the module in a file of :meth:`Fit.save`, in evaluation mode; no code in the file is run.

    Args:
        path: The file.
        problem: The problem whose network it is; ``None``: the one that the file names, which a problem made in Python has no
            name for.

    Raises:
        ValueError: If the file is missing, damaged or of something else, its problem cannot be found, or the module is one that
            only :func:`fit` makes: groups of networks that are no chains of stages.
    """
    state, about = _read(path)
    problem = load_problem(about["problem"] if problem is None else problem)
    if missing := set(about["tasks"]) - {task.name for task in problem.tasks}:
        raise ValueError(should("problem", f"have the tasks of the file's network, also {sorted(missing)}", problem))
    model, names = make_model(problem, tuple(about["hidden_sizes"])), about["tasks"]
    heads = {task.name: own for task, own in zip(problem.tasks, problem.output_slices, strict=True) if task.name in names}
    parameters = {name: torch.zeros(shape) for name, shape in model.shapes.items()}
    buffers = {name: torch.zeros(shape, dtype=dtype) for name, (shape, dtype) in model.buffers.items()}
    module = model.plain(parameters, buffers, heads)
    if isinstance(module, Branches):
        paths = {task: tuple(path) for task, path in about.get("paths", {}).items()}
        depths = {stage: depth for path in paths.values() for depth, stage in enumerate(path)}
        stages = [copy.deepcopy(module.stages[depths[stage]]) for stage in sorted(depths)]
        module = Branches(stages, paths, {task: module.heads[key(task)] for task in paths})
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(should("path", "hold a module that its problem's network makes", str(path), str(error))) from error
    return module.eval()


def _read(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    try:
        with safe_open(str(path), framework="pt") as file:
            about = dict(json.loads(file.metadata()[_ABOUT]))
            return {name: file.get_tensor(name) for name in file.keys()}, about
    except Exception as error:  # a damaged or hostile file may raise anything
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(should("path", "be a file that Fit.save has written", str(path), reason)) from error

"""One training with a policy, and the trained network in your hands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from gymnasium.vector import VectorEnv
from torch import nn

from mtl_gym.checks import choose, positive_int, should
from mtl_gym.context import own_mode
from mtl_gym.environments import LAYER_MERGING, LOSS_WEIGHTING, TASK_GROUPING, specification
from mtl_gym.envs.arguments import check_argument_names, keywords
from mtl_gym.envs.infos import row_infos
from mtl_gym.envs.vector import MTLVectorEnv
from mtl_gym.evaluation.module_files import address_of, file_of, write
from mtl_gym.evaluation.plans import arguments_of
from mtl_gym.evaluation.player import Player
from mtl_gym.evaluation.results import plain, stored
from mtl_gym.evaluation.rollout import make_env
from mtl_gym.evaluation.trained_modules import trained_module
from mtl_gym.models.plain import Branches
from mtl_gym.policies.grammar import names_and_policies
from mtl_gym.policies.protocol import Policy
from mtl_gym.problems import load_problem
from mtl_gym.problems.base import Problem
from mtl_gym.problems.encodings import Encoding
from mtl_gym.problems.instances import Instance
from mtl_gym.progress import progress_bar
from mtl_gym.training.trainer import Trainer


@dataclass(frozen=True)
class Fit:
    """A finished training.

    Attributes:
        module: The trained network as a plain module on the CPU, in evaluation mode: inputs (B, *shape) to outputs (B, O, *S) by
            task; a module of your own is what it is. Inputs are those of the problem's splits, standardised as they are; if the
            instance drew its own split, they are standardised by its own *train*.
        history: A row for each step and task: ``step``, ``task``, ``loss`` of the batch before the step, and ``weight`` (of the
            shared parameters; of samples, the mean). Empty for groups of tasks, which are trained apart.
        metrics: Metrics on *test* by ``task/metric``.
        outcome: What was decided, such as ``groups``; JSON-plain.
        about: How it was made: problem, environment, policy, instance, arguments and the passes it cost; JSON-plain.
        encoding: How new data become inputs of this module, and its outputs numbers and names, by the *train* that it was trained
            on; it can be pickled. ``None`` if the problem is neither from arrays nor from a frame.
    """

    module: nn.Module
    history: pd.DataFrame
    metrics: dict[str, float]
    outcome: dict[str, Any]
    about: dict[str, Any]
    encoding: Encoding | None = None

    def predict(self, data: Any) -> dict[str, np.ndarray[Any, Any]]:
        """Predicts the labels of new samples in their own units and names: the module between ``encode`` and ``decode``.

        Args:
            data: A frame with the columns of the problem's inputs, or an array (n, *shape); see :meth:`Problem.encode`.

        Returns:
            By task: numbers (n,) or (n, C), classes (n,), or probabilities of the second class; see :meth:`Problem.decode`.

        Raises:
            ValueError, TypeError: As :meth:`Problem.encode`.
        """
        if self.encoding is None:
            remedy = "Call `module` on inputs as they are in its splits."
            raise ValueError(should("problem", "come from Problem.from_arrays or from_frame", self.about["problem"], remedy))
        with torch.no_grad():
            return self.encoding.decode(self.module(self.encoding.encode(data)))

    def __repr__(self) -> str:
        scores = ", ".join(f"{name} {value:.3g}" for name, value in self.metrics.items())
        return f"<Fit of {self.about['problem']} with {self.about['policy']}: {scores}>"

    def save(self, path: str | Path) -> Path:
        """Writes the module's ``state_dict`` and :attr:`about` to a safetensors file, atomically; returns its path.

        Raises:
            ValueError: If the path cannot be written, or the ``state_dict`` holds something else than tensors.
        """
        file = file_of("path", path)
        paths = {"paths": self.module.paths} if isinstance(self.module, Branches) else {}
        about = {**self.about, "metrics": self.metrics, "outcome": self.outcome, **paths}
        write(file, self.module.state_dict(), about)
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
    check_argument_names(specification(env), arguments, own=keywords(fit))
    label, made = next(iter(names_and_policies([policy] if isinstance(policy, str) else {_label(policy): policy}, env).items()))
    instance = positive_int("seed", seed, least=0)
    envs = make_env(made, env, 1, {"problem": problem, **arguments}, label)
    base: MTLVectorEnv = envs.unwrapped  # type: ignore[assignment]
    with progress_bar(base.decision.length, f"{label} on {base.arguments.problem.name}", show=progress) as update:
        last = _played(Player(label, made, envs), envs, instance, partial(update, advance=1))
        module = trained_module(base.decision)
    own, decision = base.arguments.problem, base.decision
    ledger = decision.trainings.ledger
    about = {
        "problem": own.name,
        "address": own.address,
        "env": env,
        "policy": label,
        "instance": instance,
        "arguments": {name: plain(value) for name, value in arguments.items()},
        "tasks": ledger.task_names(0),
        "hidden_sizes": list(base.arguments.recipe.hidden_sizes),
        **{name: float(last[name]) for name in ("forward", "backward")},
        "diverged": bool(last["diverged"]),
    }
    metrics = {name: float(last["test"][name]) for name in ledger.metric_names(0)}
    encoding = _encoding(own, ledger.instances[0])
    return Fit(module, _history(base), metrics, plain(decision.outcome(0)), about, encoding)


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


def _encoding(problem: Problem, instance: Instance | None) -> Encoding | None:
    """The problem's encoding, by the *train* of a split that the instance has drawn, if it has."""
    if problem.encoding is None or problem.pool is None or instance is None or instance.members is None:
        return problem.encoding
    return replace(problem.encoding, moments=problem.pool.moments(instance.members["train"]))


def _label(policy: Policy) -> str:
    return str(getattr(getattr(policy, "function", None), "__name__", type(policy).__name__))


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
    """The groups of tasks that a policy would train together: names by group. See :func:`fit` with ``mtl_gym/TaskGrouping-v0``.

    Only classification tasks (loss ``bce`` or ``cross_entropy``), at least two, can be grouped. If the problem has others, name
    those that take part: ``tasks=["digit", "even"]``. The network may be your own.

    Raises:
        ValueError, TypeError: As :func:`fit`; or if a participating task is no classification.
    """
    outcome = fit(problem, policy, TASK_GROUPING, seed=seed, **arguments).outcome
    return _members(outcome["tasks"], outcome["groups"])


def suggest_sharing(problem: str | Problem, policy: str | Policy, *, seed: int = 0, **arguments: Any) -> list[list[list[str]]]:
    """Which tasks share each stage in a policy's structure: names by group by stage. See ``mtl_gym/LayerMerging-v0``.

    Tasks may be of any kind. The network has to be a chain of layers of this package (``mlp`` or ``conv``): a ``model`` of
    your own does not say which of its layers form one.

    Raises:
        ValueError, TypeError: As :func:`fit`; or if the network is no chain.
    """
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
        ValueError: If there is no such row, its problem cannot be found, or its network has changed since.
    """
    setting, origin, results = stored(Path(folder))
    if (policy, instance) not in (rows := {(own.policy, own.instance): own for own in results}):
        choose("policy", policy, {own: own for own, _ in rows})
        raise ValueError(should("instance", f"be one of {sorted(own for name, own in rows if name == policy)}", instance))
    problem = load_problem(address_of(origin.get("address"), "folder", setting["problem"]))
    if problem.identity != setting.get("identity"):
        remedy = "Compare again, or restore its code and data."
        raise ValueError(should("folder", f"be of {problem.name!r} as it is now", str(folder), remedy))
    done = fit(problem, policy, setting["env"], seed=instance, progress=progress, **arguments_of(setting))
    return done, dict(rows[policy, instance].metrics)

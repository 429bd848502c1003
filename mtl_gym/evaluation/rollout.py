"""One policy on many instances."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from gymnasium.spaces import Box
from gymnasium.vector import VectorEnv

from mtl_gym.arguments import should
from mtl_gym.envs.base import MTLVectorEnv
from mtl_gym.evaluation.groupings import groupings
from mtl_gym.evaluation.results import Result, plain
from mtl_gym.evaluation.separation import Separations
from mtl_gym.evaluation.structures import structures
from mtl_gym.policies import Policy, Requirements
from mtl_gym.problems.metrics import WORST_DELTA_M, delta_m
from mtl_gym.training.group_learner import GroupLearner
from mtl_gym.training.learner import Learner
from mtl_gym.training.signals import improvable_gap

CHECKPOINTS = 30
"""Points of a learning curve."""

Advance = Callable[[int], None]


def make_env(policy: Policy, env: str, num_envs: int, arguments: Mapping[str, Any]) -> VectorEnv[Any, Any, Any]:
    """Makes the vector environment that a policy requires; problem, instances and training steps are the arguments'.

    Raises:
        ValueError: If the policy is for another environment, or the arguments contradict what it requires.
    """
    requirements = getattr(policy, "requires", Requirements())
    if requirements.env not in (None, env):
        own = "One's own for another: a class with `predict` and `requires`, see `mtl_gym.Policy`."
        raise ValueError(should("env", f"be {requirements.env!r}, which {type(policy).__name__} is for", env, own))
    required = requirements.arguments()
    for name, value in required.items():
        if name in arguments and plain(arguments[name]) != plain(value):
            raise ValueError(
                f"`{name}` should be {value!r}, which {type(policy).__name__} requires. Received {name}={arguments[name]!r}. "
                f"Leave it out, or give the policy an option that agrees, if it has one."
            )
    given = {"reward": "none", **arguments, **required}
    try:
        return gymnasium.make_vec(
            env, num_envs=num_envs, vectorization_mode="vector_entry_point", autoreset_mode="Disabled", **given
        )
    except ValueError as error:
        steps = required.get("steps_per_action")
        if steps is None or f"steps_per_action={steps}" not in str(error):
            raise
        raise ValueError(f"{str(error).removesuffix('.')}. {type(policy).__name__} requires steps_per_action={steps}.") from None


def rollout(
    label: str,
    policy: Policy,
    env: str,
    ids: Sequence[int],
    *,
    arguments: Mapping[str, Any],
    references: Mapping[int, Mapping[str, float]],
    advance: Advance | None = None,
) -> list[Result]:
    """Plays one episode of each instance, side by side.

    Args:
        label: The policy's name in the results.
        policy: The policy.
        env: The environment's id.
        ids: The instances.
        arguments: The environment's arguments.
        references: Single-task test metrics by instance and ``task/metric``.
        advance: Is told the number of decisions taken, as a share of an episode times the number of instances.
    """
    envs = make_env(policy, env, len(ids), arguments)
    base: MTLVectorEnv = envs.unwrapped  # type: ignore[assignment]
    learner, length = base.learner, base.arguments.steps_per_action
    observations, _ = envs.reset(options={"instance": np.asarray(ids)})
    memory = initial_memory(policy, ids, learner.recipe.num_tasks)
    start = np.full(len(ids), memory is None)  # a memory that was given is not begun anew
    returns = np.zeros(len(ids))
    last: list[dict[str, Any]] = [{} for _ in ids]
    curves = None if isinstance(learner, GroupLearner) else Curves(base)
    masked, invalid_actions, taken = _takes_masks(policy, base), np.zeros(len(ids)), np.zeros(len(ids))
    step, done, whole = 0, 0, learner.recipe.train_steps * len(ids)
    while not base.finished.all():
        step += length
        masks = {"action_masks": base.action_masks()} if masked else {}  # type: ignore[attr-defined]
        actions, memory = policy.predict(observations, state=memory, episode_start=start, deterministic=True, **masks)
        start = np.zeros(len(ids), dtype=bool)
        if isinstance(base.action_space, Box):
            actions = np.clip(actions, base.action_space.low, base.action_space.high)
        playing = ~base.finished
        observations, rewards, _, _, infos = envs.step(actions)
        returns += rewards
        invalid_actions, taken = invalid_actions + playing * infos.get("invalid_action", 0), taken + playing
        for row in np.flatnonzero(playing & base.finished).tolist():
            last[row] = row_infos(infos, row)
        if curves:
            curves.add(step)
        if advance:
            before, done = (
                done,
                whole if base.finished.all() else round(float(base.signals.progress.sum()) * learner.recipe.train_steps),
            )
            advance(done - before)
    known = [references[id] for id in ids]
    traces = curves.traces() if curves else [{} for _ in ids]
    planted = [_planted(learner, row) for row in range(len(ids))]
    shares = (invalid_actions / taken).tolist()  # of the decisions that were masked
    merged = [own and {**own, "invalid_actions": share} for own, share in zip(structures(learner, known), shares, strict=True)]
    grouped = [own and {**own, "invalid_actions": share} for own, share in zip(groupings(base), shares, strict=True)]
    envs.close()
    rows = zip(ids, last, returns, traces, planted, merged, grouped, strict=True)
    main_task = learner.recipe.main_task
    return [_result(label, id, info, references[id], main_task, float(total), *own) for id, info, total, *own in rows]


def _takes_masks(policy: Policy, base: MTLVectorEnv) -> bool:
    """Whether the actions that are allowed are to be handed over, as sb3_contrib's MaskablePPO expects."""
    has_masks = hasattr(base, "action_masks") and not isinstance(base.action_space, Box)
    return has_masks and "action_masks" in inspect.signature(policy.predict).parameters


def evaluate(
    policy: str | Policy,
    env: str = "mtl_gym/LossWeighting-v0",
    *,
    instances: int | Sequence[int] = 20,
    seed: int = 0,
    num_envs: int = 16,
    **arguments: Any,
) -> pd.DataFrame:
    """Evaluates one policy; :func:`mtl_gym.compare` with one policy.

    Args:
        policy: A policy, or its name and options as on the command line.
        env: The environment's id.
        instances: Their number, or their ids.
        seed: With a number n: ids ``seed * 10^4`` to ``seed * 10^4 + n - 1``.
        num_envs: Trainings that run side by side.
        arguments: The environment's arguments.

    Returns:
        The tidy frame that :func:`mtl_gym.compare` describes.
    """
    from mtl_gym.evaluation.comparison import compare

    return compare([policy], env, instances=instances, seed=seed, num_envs=num_envs, **arguments)


def row_infos(infos: Mapping[str, Any], row: int) -> dict[str, Any]:
    """What a vector environment's infos say of one row."""
    own: dict[str, Any] = {}
    for name, values in infos.items():
        if not name.startswith("_") and infos[f"_{name}"][row]:
            own[name] = row_infos(values, row) if isinstance(values, Mapping) else values[row]
    return own


def initial_memory(policy: Policy, ids: Sequence[int], num_tasks: int) -> Any:
    """The memory that a policy begins with on these instances; ``None`` if it does not say."""
    begin = getattr(policy, "initial_state", None)
    return begin(np.asarray(ids), num_tasks) if begin else None


class Curves:
    """What is noted of trainings at checkpoints.

    Args:
        base: The environment, at its first observation.
    """

    def __init__(self, base: MTLVectorEnv) -> None:
        self._learner = base.learner
        self._steps = _checkpoints(base.learner.recipe.train_steps, base.arguments.steps_per_action)
        self._losses, self._told = [_holdout_losses(base.learner)], Separations(base)

    def add(self, step: int) -> None:
        """Takes a decision in that has come to this step."""
        self._told.add()
        if step in self._steps:
            self._losses.append(_holdout_losses(self._learner))
            self._told.close()

    def traces(self) -> list[dict[str, Any]]:
        """The curves of each replica."""
        steps = self._steps[: len(self._losses)]
        return _traces(self._learner, steps, np.stack(self._losses, axis=1), self._told.tables())


def _checkpoints(train_steps: int, length: int) -> list[int]:
    """Steps, among the ends of decisions, at which curves are taken; 0 is the first."""
    return sorted({round(share * train_steps / length) * length for share in np.linspace(0, 1, CHECKPOINTS + 1)})


def _holdout_losses(learner: Learner) -> npt.NDArray[np.float64]:
    """Losses (N, K) on *reward*, without the instances' scales; not a cost of the policy's."""
    nobody = torch.zeros(learner.num_replicas, dtype=torch.bool, device=learner.replicas.step.device)
    losses = learner.holdout(["reward"], nobody)["reward"] / learner.replicas.scales
    return losses.double().cpu().numpy()


def _traces(
    learner: Learner, steps: Sequence[int], losses: npt.NDArray[np.float64], others: Mapping[str, npt.NDArray[np.float64]]
) -> list[dict[str, Any]]:
    """The curves of each replica: losses (N, S, K) at the checkpoints, mean weights and gaps since the one before, and others."""
    spans = [slice(steps[max(index - 1, 0)], max(step, 1)) for index, step in enumerate(steps)]
    weights = learner.replicas.weights.double().cpu().numpy()
    tables = {
        "loss": losses,
        "weight": np.stack([weights[:, span].mean(1) for span in spans], axis=1),  # (N, S, K)
        "gap": _gaps(learner, steps, spans),
        **others,
    }
    return [
        {"step": list(steps), **{kind: _columns(_task_names(learner, row), table[row]) for kind, table in tables.items()}}
        for row in range(learner.num_replicas)
    ]


def _gaps(learner: Learner, steps: Sequence[int], spans: Sequence[slice]) -> npt.NDArray[np.float64]:
    """The observation ``gap`` (N, S, K) of decisions that end at the checkpoints; NaN where a training has ended before."""
    replicas, epochs = learner.replicas, learner.steps_per_epoch()
    taken = torch.arange(learner.recipe.train_steps, device=epochs.device) < replicas.step[:, None]  # (N, H)
    losses = replicas.losses.double().masked_fill(~taken[:, :, None], torch.nan)
    means = torch.stack([losses[:, span].mean(1) for span in spans], dim=1)  # (N, S, K)
    second = torch.stack([own[epoch : 2 * epoch].mean(0) for own, epoch in zip(losses, epochs.tolist(), strict=True)])
    known = torch.tensor(steps, device=epochs.device) >= 2 * epochs[:, None]  # (N, S)
    base = torch.where(known[:, :, None], second[:, None], losses[:, :1])
    return improvable_gap(means, base).cpu().numpy()


def _task_names(learner: Learner, row: int) -> list[str]:
    return [learner.problem.tasks[task].name for task in learner.replicas.tasks[row].tolist()]


def _planted(learner: Learner, row: int) -> dict[str, dict[str, float]]:
    """What the row's instance planted in each task: the ``scale`` of its loss and the ``noise`` of its labels."""
    instance = learner.instances[row]
    if instance is None:
        return {}
    wrong = {"constant_label": instance.constant_label, "nearest_flip": instance.nearest_flip.astype(float)}
    planted = {"scale": instance.scales.tolist(), "noise": instance.noise.tolist()}
    planted |= {axis: values.tolist() for axis, values in wrong.items() if values.any()}
    return {axis: dict(zip(_task_names(learner, row), values, strict=True)) for axis, values in planted.items()}


def _columns(names: Sequence[str], table: npt.NDArray[np.float64]) -> dict[str, list[float | None]]:
    """Columns of a table by name, to six digits; ``None`` where a number is not finite."""
    return {
        name: [float(f"{value:.6g}") if np.isfinite(value) else None for value in column]
        for name, column in zip(names, table.T, strict=True)
    }


def _result(
    label: str,
    id: int,
    info: Mapping[str, Any],
    references: Mapping[str, float],
    main_task: str | None,
    total: float,
    curves: dict[str, Any],
    planted: dict[str, dict[str, float]],
    structure: dict[str, Any],
    grouping: dict[str, Any],
) -> Result:
    metrics = {name: float(value) for name, value in info["test"].items()}
    diverged = bool(info["diverged"])
    counting = {name: value for name, value in metrics.items() if main_task in (None, name.rsplit("/", 1)[0])}
    gain = WORST_DELTA_M if diverged else delta_m(counting, references)
    cost = {"forward": float(info["forward"]), "backward": float(info["backward"])}
    return Result(label, int(id), metrics, dict(references), gain, cost, diverged, total, curves, planted, structure, grouping)

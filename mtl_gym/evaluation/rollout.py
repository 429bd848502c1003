"""Runs one policy on many instances."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.vector import VectorEnv

from mtl_gym.checks import should
from mtl_gym.envs.infos import row_infos
from mtl_gym.envs.vector import MTLVectorEnv
from mtl_gym.evaluation.curves import Curves
from mtl_gym.evaluation.kernels import running_kernels
from mtl_gym.evaluation.player import Player, trainer_of
from mtl_gym.evaluation.results import Result, plain
from mtl_gym.policies.protocol import Policy, Requirements
from mtl_gym.problems.scores import WORST_DELTA_M, delta_m
from mtl_gym.training.ledger import Ledger

Advance = Callable[[int], None]
_LENGTHS = {"steps_per_action": "decisions", "decisions": "steps_per_action"}
"""The arguments that say how long a decision is, and the other one that does."""


def env_arguments(policy: Policy, env: str, arguments: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The environment's arguments for a policy: those that it requires, and the others as given; errors call it by its ``name``.

    Raises:
        ValueError: If the policy is for another environment, or an argument contradicts its requirements.
    """
    requirements = getattr(policy, "requires", Requirements())
    if requirements.env not in (None, env):
        own = "To write a policy for another, give it `predict` and `requires`, see `mtl_gym.Policy`."
        raise ValueError(should("env", f"be {requirements.env!r}, which {name} is for", env, own))
    required = requirements.arguments()
    for key, value in required.items():
        other = _LENGTHS.get(key, key)
        given_as = other if arguments.get(other) is not None else key
        if given_as != key or (key in arguments and plain(arguments[key]) != plain(value)):
            raise ValueError(
                f"`{key}` should be {value!r}, which {name} requires. Received {given_as}={arguments[given_as]!r}. "
                f"Leave it out, or set the policy's option accordingly, if it has one."
            )
    return {**arguments, **required}


def make_env(
    policy: Policy, env: str, num_envs: int, arguments: Mapping[str, Any], name: str | None = None
) -> VectorEnv[Any, Any, Any]:
    """Makes the vector environment that a policy requires, by default without a reward; raises as :func:`env_arguments`."""
    own_name = name or type(policy).__name__
    given = {"reward": "none", **env_arguments(policy, env, arguments, own_name)}
    try:
        return gymnasium.make_vec(
            env, num_envs=num_envs, vectorization_mode="vector_entry_point", autoreset_mode="Disabled", **given
        )
    except ValueError as error:
        required = getattr(policy, "requires", Requirements()).arguments()
        lengths = [f"{key}={required[key]}" for key in _LENGTHS if key in required]
        if not lengths or lengths[0] not in str(error):
            raise
        raise ValueError(f"{str(error).removesuffix('.')}. {own_name} requires {lengths[0]}.") from None


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
    """Runs one episode of each instance ``ids``, in parallel; ``label`` is the policy's name in the results.

    ``references`` are single-task test metrics by instance and ``task/metric``. ``advance`` is called with the number of training
    steps just done, over all instances.
    """
    envs = make_env(policy, env, len(ids), arguments, label)
    base: MTLVectorEnv = envs.unwrapped  # type: ignore[assignment]
    player = Player(label, policy, envs)
    observations, _ = envs.reset(options={"instance": np.asarray(ids)})
    record = _Record(base)
    player.begin(ids)
    while not base.finished.all():
        actions, playing = player.act(observations), ~base.finished
        observations, rewards, _, _, infos = envs.step(actions)
        steps = record.add(playing, rewards, infos)
        if advance:
            advance(steps)
    player.end()
    results = record.results(label, ids, references)
    envs.close()
    return results


class _Record:
    """Records N episodes of an environment, from its first observation."""

    def __init__(self, base: MTLVectorEnv) -> None:
        self._base, self._decision = base, base.decision
        trainer = trainer_of(base)
        self._curves = trainer and Curves(base.decision, trainer, base.arguments.steps_per_action)
        self._returns, self._decisions = np.zeros((2, base.num_envs))
        self._invalid: npt.NDArray[np.float64] | None = None
        self._last: list[dict[str, Any]] = [{} for _ in range(base.num_envs)]
        self._reached = 0

    def add(self, playing: npt.NDArray[np.bool_], rewards: npt.NDArray[Any], infos: Mapping[str, Any]) -> int:
        """Records a decision of the rows (N,) still playing; returns the training steps that it took, over all rows."""
        base, recipe = self._base, self._base.arguments.recipe
        self._returns += rewards
        self._decisions += playing
        if "invalid_action" in infos:
            self._invalid = (0 if self._invalid is None else self._invalid) + playing * infos["invalid_action"]
        for row in np.flatnonzero(playing & base.finished).tolist():
            self._last[row] = row_infos(infos, row)
        if self._curves:
            self._curves.add()
        before, progress = self._reached, base.num_envs if base.finished.all() else float(base.view.progress.sum())
        self._reached = round(progress * recipe.train_steps)
        return self._reached - before

    def results(self, label: str, ids: Sequence[int], references: Mapping[int, Mapping[str, float]]) -> list[Result]:
        """The results, once all episodes have ended."""
        curves = self._curves.rows() if self._curves else [{} for _ in ids]
        outcomes = self._outcomes([references[id] for id in ids])
        recipe, ledger = self._base.arguments.recipe, self._decision.trainings.ledger
        main_task, kernels = recipe.main_task, running_kernels(recipe.device)
        results = []
        for row, (id, info) in enumerate(zip(ids, self._last, strict=True)):
            metrics = {name: float(info["test"][name]) for name in ledger.metric_names(row)}
            counting = {name: value for name, value in metrics.items() if main_task in (None, name.rsplit("/", 1)[0])}
            diverged = bool(info["diverged"])
            result = Result(
                policy=label,
                instance=int(id),
                metrics=metrics,
                references=dict(references[id]),
                delta_m=WORST_DELTA_M if diverged else delta_m(counting, references[id]),
                cost={name: float(info[name]) for name in ("forward", "backward")},
                diverged=diverged,
                episode_return=float(self._returns[row]),
                curves=curves[row],
                planted=_planted(ledger, row),
                outcome=outcomes[row],
                kernels=kernels,
                batch=[int(own) for own in ids],
            )
            results.append(result)
        return results

    def _outcomes(self, references: Sequence[Mapping[str, float]]) -> list[dict[str, Any]]:
        """The outcome of the decisions in each row, and the environment's measures of it."""
        rows = [self._decision.outcome(row) for row in range(len(references))]
        for home in self._base.specification.measures:
            measured = pkgutil.resolve_name(home)(self._decision, references)
            rows = [{**own, **more} for own, more in zip(rows, measured, strict=True)]
        if self._invalid is not None:
            rows = [{**own, "invalid_actions": part} for own, part in zip(rows, self._invalid / self._decisions, strict=True)]
        return [plain(own) for own in rows]


def _planted(ledger: Ledger, row: int) -> dict[str, dict[str, float]]:
    """The ``scale`` of the loss and the ``noise`` of the labels that the row's instance planted in each task."""
    instance = ledger.instances[row]
    if instance is None:
        return {}
    wrong = {"constant_label": instance.constant_label, "nearest_flip": instance.nearest_flip.astype(float)}
    planted = {"scale": instance.scales.tolist(), "noise": instance.noise.tolist()}
    planted |= {axis: values.tolist() for axis, values in wrong.items() if values.any()}
    return {axis: dict(zip(ledger.task_names(row), values, strict=True)) for axis, values in planted.items()}

"""What a recording will play: policies, instances and the one environment, checked before anything is run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
from gymnasium.spaces import Box

from mtl_gym.checks import number, positive_int, should
from mtl_gym.context import own_mode
from mtl_gym.environments import specification
from mtl_gym.envs.arguments import Arguments, check_argument_names, check_arguments
from mtl_gym.envs.vector import MTLVectorEnv
from mtl_gym.evaluation.kernels import running_kernels
from mtl_gym.evaluation.plans import instance_ids, setting_of
from mtl_gym.evaluation.player import Player, initial_memory, warn_of_raw_observations
from mtl_gym.evaluation.rehearsal import rehearse
from mtl_gym.evaluation.results import plain
from mtl_gym.evaluation.rollout import env_arguments
from mtl_gym.policies.grammar import names_and_policies
from mtl_gym.policies.protocol import Policy
from mtl_gym.problems.instances import TRAINING_IDS

_LENGTHS = ("steps_per_action", "decisions")


@dataclass(frozen=True)
class Recording:
    """A valid recording: policies by label, what each observes, the environment's id, ids of instances, the seed of which they are,
    the number of parallel trainings, the noise, and the arguments of the one environment, as given and ``checked``.
    """

    policies: dict[str, Policy]
    observed: dict[str, tuple[str, ...]]
    env: str
    ids: list[int]
    seed: int
    num_envs: int
    noise: float
    arguments: dict[str, Any]
    checked: Arguments

    @property
    def steps(self) -> int:
        """Training steps of all episodes."""
        return len(self.policies) * len(self.ids) * self.checked.recipe.train_steps

    def make(self) -> gymnasium.Env[Any, Any]:
        """The environment, in its scalar form."""
        return gymnasium.make(self.env, **self.arguments)

    def vector(self, num_envs: int) -> MTLVectorEnv:
        """As many of them side by side, which do not restart."""
        made = gymnasium.make_vec(
            self.env, num_envs=num_envs, vectorization_mode="vector_entry_point", autoreset_mode="Disabled", **self.arguments
        )
        return made.unwrapped  # type: ignore[return-value]

    @property
    def description(self) -> str:
        """What is recorded, in a sentence."""
        problem, (low, high) = self.checked.problem.name, (min(self.ids), max(self.ids))
        ids = f"{len(self.ids)} instances of {problem}, with ids from {low} to {high}"
        return f"Episodes of {', '.join(self.policies)} in {self.env}: {ids}."

    @property
    def about(self) -> dict[str, Any]:
        """How the episodes are made, JSON-plain. ``requires`` are the arguments of the environment that a policy trained on them
        requires too.
        """
        spec, arguments = specification(self.env), {"observe": self.checked.observe, **self.arguments}
        kept = ("observe", *_LENGTHS, *(name for name in spec.own_arguments if name not in spec.free))
        told: dict[str, Any] = plain(
            {
                **setting_of(self.env, self.checked, self.arguments),
                "requires": {name: arguments[name] for name in kept if arguments.get(name) is not None},
                "policies": {label: getattr(policy, "spec", None) for label, policy in self.policies.items()},
                "noise": self.noise,
                "seed": self.seed,
                "num_envs": self.num_envs,
                "kernels": running_kernels(self.checked.recipe.device),
            }
        )
        return told


@own_mode()
def plan_recording(
    policies: str | Sequence[str | Policy] | Mapping[str, str | Policy],
    env: str,
    *,
    instances: int | Sequence[int],
    seed: int,
    num_envs: int,
    noise: float,
    **arguments: Any,
) -> Recording:
    """Checks the arguments of :func:`record` that say what is run, before anything is run; raises its errors."""
    check_argument_names(specification(env), arguments)
    chosen = names_and_policies(policies, env)
    ids = training_ids(instances, seed)
    given = {name: value if name == "problem" else plain(value) for name, value in arguments.items()}
    shared, observed = _one_environment(chosen, env, given)
    checked = check_arguments(specification(env), **shared)
    first = positive_int("seed", seed, least=0)
    count = positive_int("num_envs", num_envs)
    recording = Recording(chosen, observed, env, ids, first, count, number("noise", noise, low=0), shared, checked)
    scalar = recording.make()
    if scalar.spec is not None:
        scalar.spec.to_json()  # raises TypeError if the problem cannot be found again
    if noise > 1 and not isinstance(scalar.action_space, Box):
        raise ValueError(should("noise", "be at most 1, a probability, where actions are discrete", noise))
    envs = recording.vector(min(count, len(ids)))  # as large as it will run, which checks its memory
    for label, policy in chosen.items():
        player = Player(label, policy, envs, observed[label])
        rehearse(label, policy, player.observation_space, specification(env).observations)
        warn_of_raw_observations(label, policy)
        initial_memory(policy, ids[:1], checked.recipe.num_tasks)
    return recording


def training_ids(instances: int | Sequence[int], seed: int) -> list[int]:
    """The ids of n instances of a seed, ``2^31 + seed * 10^4 + i``, which no comparison uses; or the given ids."""
    ids = instance_ids(instances, seed)
    return ids if isinstance(instances, Sequence) else [TRAINING_IDS[0] + id for id in ids]


def _one_environment(
    policies: Mapping[str, Policy], env: str, given: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, tuple[str, ...]]]:
    """The arguments of the environment that all policies share, with the observations of all of them, and what each observes.

    Raises:
        ValueError: If a policy is for another environment, or two require different arguments.
    """
    spec, (wanted, rest) = specification(env), ({}, dict(given))
    if "observe" in rest:
        wanted = {"observe": rest.pop("observe")}
    needed = {label: env_arguments(policy, env, rest, label) for label, policy in policies.items()}
    (first, shared), *others = needed.items()
    defaults = spec.own_arguments
    for label, own in others:
        for name in sorted({*shared, *own} - {"observe"}):
            here, there = (arguments.get(name, defaults.get(name)) for arguments in (shared, own))
            if plain(here) != plain(there):
                condition = (
                    f"share one environment, which a data set has: {first!r} needs {name}={here!r}, {label!r} {name}={there!r}"
                )
                raise ValueError(should("policies", condition, list(policies), "Record each into a data set of its own."))
    seen = {label: check_arguments(spec, **{**wanted, **own}).observe for label, own in needed.items()}
    extra = check_arguments(spec, **{**shared, **wanted}).observe if wanted else ()
    every = dict.fromkeys([*extra, *(name for names in seen.values() for name in names)])
    return {**shared, "observe": [*every]}, seen

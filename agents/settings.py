"""The settings of an agent's training, and their checks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import gymnasium
from gymnasium.spaces import Discrete

from mtl_gym import EVALUATION_IDS, PROBLEMS, load_problem, names_and_policies, number, positive_int, should, specification
from mtl_gym.agents.algorithm import algorithm
from mtl_gym.agents.defaults import required_of, score_of

ROLLOUTS_PER_INSTANCE = 8
_HELD_OUT = 10_000  # instances
HELD_OUT = EVALUATION_IDS[1] - _HELD_OUT
"""First id of the instances that evaluate agents during training, the last ones for evaluation, far from those of comparisons."""


@dataclass(frozen=True)
class Settings:
    """Everything that a training depends on: the arguments of :func:`mtl_gym.agents.train`, with defaults filled in.

    ``arguments`` are those of the environment, with its ``problem`` as a text by which it is found, or as a ``Problem``;
    ``others`` those of the further sources of a mixture; ``references`` names of policies or paths of agents.
    """

    env: str
    arguments: dict[str, Any]
    algorithm: str
    options: dict[str, Any]
    time_steps: int
    seed: int
    num_envs: int
    rollouts_per_instance: int
    evaluations: int
    instances: int
    references: list[str]
    reward_floor: float | None = None
    others: list[dict[str, Any]] = field(default_factory=list)

    @property
    def sources(self) -> dict[str, dict[str, Any]]:
        """The arguments of each source, by a name that tells them apart."""
        named, counts = {}, Counter[str]()
        for own in (self.arguments, *self.others):
            name = load_problem(own["problem"]).name
            counts[name] += 1
            named[name if counts[name] == 1 else f"{name} {counts[name]}"] = own
        return named

    @property
    def common(self) -> dict[str, Any]:
        """The arguments that all sources have, and their problems, joined."""
        first, *others = self.sources.values()
        alike = {name: value for name, value in first.items() if all(own.get(name, ...) == value for own in others)}
        problems = [load_problem(own["problem"]) for own in self.sources.values()]
        return {**alike, "problem": ",".join(dict.fromkeys(own.address or own.name for own in problems))}

    def plain(self) -> dict[str, Any]:
        """The settings, JSON-plain. A problem that is not in the table is its identity, of which its data are a part."""
        return {**asdict(self), "arguments": _identified(self.arguments), "others": [_identified(own) for own in self.others]}


def _identified(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments with the identity of a problem that is not in the table."""
    problem = arguments["problem"]
    return {**arguments, "problem": problem if problem in PROBLEMS else load_problem(problem).identity}


def default_algorithm(env: str, arguments: Mapping[str, Any]) -> str:
    """The default row of ``AGENTS``: ``maskable-ppo`` where actions are masked, else ``ppo``.

    Raises:
        ValueError, TypeError: If the environment rejects the arguments.
    """
    envs = gymnasium.make_vec(env, num_envs=1, vectorization_mode="vector_entry_point", **arguments)
    own: Any = envs.unwrapped
    envs.close()
    return "maskable-ppo" if own.decision.masked and isinstance(own.single_action_space, Discrete) else "ppo"


def rollouts_of(name: str, num_envs: int, sources: int = 1) -> int:
    """The default rollouts per instance of a row of ``AGENTS``: 8, or the largest divisor of it and of a source's rows; else 1."""
    rows = positive_int("num_envs", num_envs)
    if rows % sources:
        raise ValueError(
            should(
                "num_envs",
                f"be a multiple of {sources}, the number of problems",
                rows,
                f"Take {rows // sources * sources + sources}.",
            )
        )
    return math.gcd(ROLLOUTS_PER_INSTANCE, rows // sources) if algorithm(name).rollouts else 1


def check_settings(settings: Settings) -> Settings:
    """Returns the settings if they are valid; else raises ValueError or TypeError."""
    specification(settings.env)
    for name in ("time_steps", "num_envs", "rollouts_per_instance", "evaluations"):
        positive_int(name, getattr(settings, name))
    positive_int("instances", settings.instances, most=_HELD_OUT)
    positive_int("seed", settings.seed, least=0)
    sources = len(settings.sources)
    if settings.num_envs % (sources * settings.rollouts_per_instance):
        whole = f"divide num_envs={settings.num_envs}" + (f" over {sources} sources" if sources > 1 else "")
        raise ValueError(should("rollouts_per_instance", whole, settings.rollouts_per_instance))
    if settings.reward_floor is not None:
        number("reward_floor", settings.reward_floor, low=0.0, ends="(]")
        if settings.rollouts_per_instance < 2:
            condition = "be left out without rollouts of the same instance, whose deviation it bounds"
            raise ValueError(should("reward_floor", condition, settings.reward_floor))
    for name in settings.references:
        if not isinstance(name, str):
            raise TypeError(should("references", "be names of policies, or paths of agents", name))
    if settings.references:
        names_and_policies(settings.references, settings.env)
    algorithm(settings.algorithm).check_options(settings.options)
    defaults = specification(settings.env).own_arguments
    for name in required_of(settings.env):
        found = [own.get(name, defaults.get(name)) for own in settings.sources.values()]
        if any(value != found[0] for value in found):
            raise ValueError(should(name, "be the same for all problems, since the agent requires it", found))
    scores = {name: score_of(settings.env, own) for name, own in settings.sources.items()}
    if len({*scores.values()}) > 1:
        raise ValueError(
            should("reward", "be `quality` for all problems or for none, since the best agent is chosen by it", scores)
        )
    for own in settings.sources.values():
        if "autoreset_mode" in own:
            raise ValueError(should("autoreset_mode", "be left to the training", own["autoreset_mode"]))
    return settings

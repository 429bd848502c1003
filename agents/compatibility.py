"""Whether what has been trained fits what is installed here; every refusal names the difference."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

import mtl_gym
from mtl_gym.agents.algorithm import algorithm
from mtl_gym.arguments import choose, should
from mtl_gym.envs.merging import Merging
from mtl_gym.envs.observations import OBSERVATIONS, SIZES
from mtl_gym.envs.sample_weights import FEATURES
from mtl_gym.problems import LAYER_MERGING, SAMPLE_WEIGHTING, TASK_GROUPING
from mtl_gym.training.data_maps import FEATURES as MAP_FEATURES

ACTION_MASK = "action_mask"
"""The observation that masks the actions of those that take masks."""
FORMAT = 1
"""Of the files of agents; raised when what they hold, or what a feature means, changes."""


def check(about: Mapping[str, Any]) -> None:
    """Refuses what does not fit this installation.

    Raises:
        ValueError: With the difference: the file's format, the library's version, the environment or an observation.
    """
    if about["format"] != FORMAT:
        raise ValueError(should("format", f"be {FORMAT}, which this version reads", about["format"]))
    check_version(about["versions"])
    id = about["environment"]["id"]
    choose("environment", id, {known: known for known in gymnasium.registry if known.startswith("mtl_gym/")})
    for name, row in about["observations"].items():
        choose("observations", name, OBSERVATIONS)
        if row != observation_row(name):
            raise ValueError(should("observations", f"have {name!r} as {observation_row(name)}, as it is here", row))
    seen = about["environment"]["arguments"]["observe"]
    if not seen or sorted(seen) != sorted(about["observations"]):
        raise ValueError(should("observations", f"be those of the environment's arguments, {seen}", list(about["observations"])))
    check_observations(about["observations"], about["algorithm"])
    algorithm(about["algorithm"]).check_policy_options(about["policy"])


def check_observations(names: Iterable[str], agent: str) -> None:
    """Refuses observations that an agent cannot do with.

    One has to be of each task, or the networks would not know how many tasks there are; an algorithm with masks needs the mask.

    Args:
        names: The observations.
        agent: Row of ``AGENTS``.

    Raises:
        ValueError: With the names.
    """
    if algorithm(agent).masked and ACTION_MASK not in names:
        raise ValueError(should("observe", f"hold {ACTION_MASK!r}, the mask of actions, for {agent!r}", list(names)))
    if not any(OBSERVATIONS[name].size == "task" for name in names):
        raise ValueError(should("observe", "hold at least one observation of each task", list(names)))


def lengths(environment: Mapping[str, Any], num_tasks: int) -> dict[str, int]:
    """The lengths of observations, by the rows of ``SIZES``, of so many tasks, as many samples, and as many groups."""
    known = {size: length(num_tasks, num_tasks) for size, length in SIZES.items()}
    if environment["id"] == TASK_GROUPING:
        of_map = environment["arguments"].get("snapshots", 4) * MAP_FEATURES
        known |= {"map": num_tasks * of_map, "member": num_tasks**2, "choice": num_tasks}
    return known


def action_space(environment: Mapping[str, Any], num_tasks: int, num_groups: int | None = None) -> spaces.Space[Any]:
    """The actions of agents in an environment (its ``id`` and ``arguments``): of tasks, rules, thresholds, structures, or groups.

    Args:
        environment: ``id`` and ``arguments``.
        num_tasks: K.
        num_groups: Groups that there may be, where tasks are placed in them; by default K.

    Raises:
        ValueError: If the actions are others, which agents do not take.
    """
    arguments = environment["arguments"]
    if environment["id"] == LAYER_MERGING:
        return Merging(action=arguments.get("action", "merge"), similarity="cka", num_tasks=num_tasks).space
    if environment["id"] == TASK_GROUPING:
        if arguments.get("action", "place") != "place":
            remedy = "Memberships and merges have other numbers of actions with every number of tasks."
            raise ValueError(should("action", "be 'place' for agents", arguments["action"], remedy))
        return spaces.Discrete(num_groups or num_tasks)
    if environment["id"] != SAMPLE_WEIGHTING:
        if arguments.get("scope", "all") != "all":
            raise ValueError(should("scope", "be 'all' for agents, whose actions are one for each task", arguments["scope"]))
        return spaces.Box(-1, 1, (num_tasks,), np.float32)
    if arguments.get("action", "rule") != "rule":
        remedy = "Other actions weigh single samples or quantiles, of which there are other numbers with every batch size."
        raise ValueError(should("action", "be 'rule' for agents", arguments["action"], remedy))
    count = len(FEATURES if arguments.get("features") is None else arguments["features"])
    return spaces.Box(-1, 1, (1 + count,), np.float32)


def check_version(trained: Mapping[str, str]) -> None:
    """Refuses what another series (major and minor version) of this library has written.

    Raises:
        ValueError: With both versions.
    """
    own = mtl_gym.__version__
    if _series(trained["mtl-gym"]) != _series(own):
        remedy = f"Install mtl-gym {trained['mtl-gym']}, or train again."
        raise ValueError(should("version", f"be that of the installed mtl-gym, {own}", trained["mtl-gym"], remedy))


def observation_row(name: str) -> dict[str, Any]:
    """What an agent relies on of an observation."""
    row = OBSERVATIONS[name]
    return {"size": row.size, "low": row.low, "high": row.high}


def versions() -> dict[str, str]:
    """The versions of all that an agent's training depends on."""
    packages = ("torch", "numpy", "gymnasium", "stable-baselines3", "sb3-contrib")
    return {"mtl-gym": mtl_gym.__version__, **{name: version(name) for name in packages}}


def _series(text: str) -> list[str]:
    return str(text).split(".")[:2]

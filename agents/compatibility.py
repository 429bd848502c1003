"""Checks that a trained agent fits this installation; every error names the difference."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np
from gymnasium import spaces

import mtl_gym
from mtl_gym import SIZES, Observation, choose, should, specification
from mtl_gym.agents.algorithm import algorithm

ACTION_MASK = "action_mask"
"""The observation that holds the action mask, for algorithms with masks."""
FORMAT = 1
"""Format of agent files; incremented when their content, or the meaning of a feature, changes."""


def check(about: Mapping[str, Any]) -> None:
    """Raises ValueError if the format, the library's version, the environment or an observation differs from this installation."""
    if about["format"] != FORMAT:
        raise ValueError(should("format", f"be {FORMAT}, which this version reads", about["format"]))
    check_version(about["versions"])
    environment = about["environment"]
    known = specification(environment["id"]).observations
    for name, row in about["observations"].items():
        here = observation_row(choose("observations", name, known))
        if row != here:
            raise ValueError(should("observations", f"have {name!r} as {here}, as in this installation", row))
    seen = environment["arguments"]["observe"]
    if not seen or sorted(seen) != sorted(about["observations"]):
        raise ValueError(should("observations", f"be those of the environment's arguments, {seen}", list(about["observations"])))
    check_observations(kinds_of(about["observations"]), about["algorithm"])
    algorithm(about["algorithm"]).check_policy_options(about["policy"])


def check_observations(kinds: Mapping[str, str], agent: str) -> None:
    """Raises ValueError if the algorithm of that name has masks, and no observation of these holds them."""
    if algorithm(agent).masked and ACTION_MASK not in kinds:
        raise ValueError(should("observe", f"hold {ACTION_MASK!r}, the mask of actions, for {agent!r}", list(kinds)))


def kinds_of(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The rows of ``SIZES`` of an agent's observations, by name."""
    return {name: row["size"] for name, row in rows.items()}


def lengths(environment: Mapping[str, Any], num_tasks: int) -> dict[str, int]:
    """The lengths of observations, by the rows of ``SIZES``, with K tasks, K samples and K groups."""
    known = {size: length(num_tasks, num_tasks) for size, (_, length) in SIZES.items()}
    return known | dict(specification(environment["id"]).lengths(environment["arguments"], num_tasks))


def check_lengths(known: Mapping[str, int], about: Mapping[str, Any], size: int) -> None:
    """Raises ValueError, before anything is built, if ``size`` parameters are too few for observations of 2 tasks, or actions."""
    if any(not 0 <= length <= 2 * size for length in known.values()):
        raise ValueError(should("lengths", f"be from 0 to {2 * size}, twice the number of parameters", dict(known)))
    environment = about["environment"]
    numbers = [environment.get("space", {}).get("n", 1), len(environment["arguments"].get("features") or ())]
    if any(not 0 <= own <= size for own in numbers):
        raise ValueError(should("space", f"have at most {size} actions, the number of parameters", max(numbers)))


def action_space(environment: Mapping[str, Any], num_tasks: int, choices: int | None = None) -> spaces.Space[Any]:
    """The action space of an agent in an environment.

    Args:
        environment: ``id``, ``arguments`` and, where the environment does not declare the actions of agents, their ``space``.
        num_tasks: K.
        choices: The number of discrete actions, if it is known.

    Raises:
        ValueError: If agents do not support the actions that follow from the arguments.
    """
    actions = specification(environment["id"]).actions
    return space_of(environment["space"]) if actions is None else actions(environment["arguments"], num_tasks, choices)


def acts_per_task(env: str, arguments: Mapping[str, Any]) -> bool:
    """Whether an action ends with one number for each task, however many there are."""
    actions = specification(env).actions
    if actions is None:
        return False
    two, three = (actions(arguments, count, None).shape or () for count in (2, 3))
    return len(two) == len(three) == 1 and three[0] == two[0] + 1


def plain_space(space: spaces.Space[Any]) -> dict[str, Any]:
    """An action space, JSON-plain; raises ValueError if it is neither Discrete (from 0) nor a bounded vector."""
    if isinstance(space, spaces.Discrete) and space.start == 0:
        return {"n": int(space.n)}
    if isinstance(space, spaces.Box) and len(space.shape) == 1 and space.is_bounded():
        return {"low": space.low.tolist(), "high": space.high.tolist()}
    raise ValueError(should("env", "have numbered actions, or vectors of numbers within finite bounds, for agents", space))


def space_of(plain: Mapping[str, Any]) -> spaces.Space[Any]:
    """The space that :func:`plain_space` wrote."""
    if "n" in plain:
        return spaces.Discrete(plain["n"])
    return spaces.Box(np.array(plain["low"], np.float32), np.array(plain["high"], np.float32), dtype=np.float32)


def check_version(trained: Mapping[str, str]) -> None:
    """Raises ValueError if another major or minor version of this library has written the file."""
    own = mtl_gym.__version__
    if str(trained["mtl-gym"]).split(".")[:2] != own.split(".")[:2]:
        remedy = f"Install mtl-gym {trained['mtl-gym']}, or train again."
        raise ValueError(should("version", f"be that of the installed mtl-gym, {own}", trained["mtl-gym"], remedy))


def observation_row(row: Observation) -> dict[str, Any]:
    """The properties of an observation that an agent relies on."""
    return {"size": row.size, "low": row.low, "high": row.high}


def versions() -> dict[str, str]:
    """The versions of the packages that an agent's training depends on."""
    packages = ("torch", "numpy", "gymnasium", "stable-baselines3", "sb3-contrib")
    return {"mtl-gym": mtl_gym.__version__, **{name: version(name) for name in packages}}

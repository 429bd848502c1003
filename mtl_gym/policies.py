"""What a policy is, how one is made of a function, and how those of installed packages are found by name."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from mtl_gym.arguments import choose, should
from mtl_gym.identity import function_content
from mtl_gym.problems import LOSS_WEIGHTING

GROUP = "mtl_gym.policies"
"""Entry-point group; each entry is a table of names to ``"module:Class"``."""
LOADERS = "mtl_gym.policy_files"
"""Entry-point group; each entry is a function from the path of a file or folder to a policy."""

WEIGHT_BOUND = 1e6
"""Largest absolute weight of ``action="weights"``."""

Array = npt.NDArray[Any]
Observation = Mapping[str, Array]


@dataclass(frozen=True)
class Requirements:
    """What a policy needs of its environment; ``None`` leaves the environment's own value.

    Attributes:
        observe: Observations that it reads.
        action: Action mode that it answers in.
        steps_per_action: Optimiser steps between its decisions.
        env: Id of the environment that it is for.
        env_kwargs: Other arguments of the environment, such as ``rule`` and ``weight_range``.
    """

    observe: tuple[str, ...] | None = None
    action: str | None = None
    steps_per_action: int | None = None
    env: str | None = None
    env_kwargs: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def arguments(self) -> dict[str, Any]:
        """The environment's arguments that follow."""
        given = {"observe": self.observe and list(self.observe), "action": self.action, "steps_per_action": self.steps_per_action}
        return {**self.env_kwargs, **{name: value for name, value in given.items() if value is not None}}


LOSSES_TO_WEIGHTS = Requirements(observe=("log_loss",), action="weights", steps_per_action=1, env=LOSS_WEIGHTING)
"""Of policies that turn the losses of the batch about to be trained on into its weights, at every step."""


@runtime_checkable
class Policy(Protocol):
    """Anything with Stable-Baselines3's ``predict``. ``requires`` (:class:`Requirements`) is optional: without it, the policy
    takes the environment's default observations and actions. So are ``initial_state(seeds, num_tasks)``, the memory that it begins
    with, and ``spec``, what identifies it (JSON-plain): without it, its results are not found again. One whose ``predict`` takes
    ``action_masks``, as sb3_contrib's do, is handed the actions that are allowed, (N, A) bool, where there are masks.

    Example:
        >>> import numpy as np, mtl_gym
        >>> class MergeAll:
        ...     "Merges as much as is allowed: of the actions of ``mtl_gym/LayerMerging-v0`` the last that is legal."
        ...     requires = mtl_gym.Requirements(env="mtl_gym/LayerMerging-v0", observe=("action_mask",))
        ...     def predict(self, observation, state=None, episode_start=None, deterministic=False):
        ...         action_mask = observation["action_mask"]
        ...         return action_mask.shape[1] - 1 - action_mask[:, ::-1].argmax(1), state
        >>> frame = mtl_gym.compare({"mine": MergeAll(), "shared": "shared"}, "mtl_gym/LayerMerging-v0", instances=2,
        ...                         num_tasks=3, train_steps=60)
        >>> frame.groupby("policy")["parameter_fraction"].mean().diff().iloc[1] == 0
        np.True_
    """

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Array, Any]:
        """Returns actions and the policy's memory.

        Args:
            observation: Arrays (N, length) by name, or of one environment without N.
            state: What the last call returned; ``None`` at first.
            episode_start: (N,) bool, the rows whose memory begins anew.
            deterministic: Whether to act without exploration noise.
        """
        ...


class FunctionPolicy:
    """A policy of a plain function; see :func:`policy`."""

    requires = LOSSES_TO_WEIGHTS

    def __init__(self, function: Callable[[Array], npt.ArrayLike]) -> None:
        self.function = function

    def predict(
        self, observation: Observation, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Array, Any]:
        """Calls the function for each row.

        Raises:
            ValueError: If the function does not return K finite weights.
        """
        losses = np.exp(np.asarray(observation["log_loss"], dtype=np.float64))
        rows = [self._weights(row) for row in np.atleast_2d(losses)]
        return np.stack(rows).reshape(losses.shape), state

    def _weights(self, losses: Array) -> Array:
        answer = self.function(losses.copy())
        try:
            weights = np.asarray(answer, dtype=np.float64)
        except (TypeError, ValueError):
            raise ValueError(should("function", f"return {len(losses)} finite weights", answer)) from None
        if weights.shape != losses.shape or not np.isfinite(weights).all():
            raise ValueError(should("function", f"return {len(losses)} finite weights", weights.tolist(), f"Losses: {losses}."))
        return weights.clip(-WEIGHT_BOUND, WEIGHT_BOUND).astype(np.float32)

    @property
    def spec(self) -> dict[str, Any] | None:
        """Identifies the function by its code and by the values that it uses; ``None`` if that cannot be done."""
        try:
            content = function_content(self.function)
        except TypeError:
            return None
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        return {"function": self.function.__qualname__, "code": digest}


def policy(function: Callable[[Array], npt.ArrayLike]) -> FunctionPolicy:
    """Makes a policy of a function from losses to weights: the shortest way to enter one's own method in a comparison.

    Args:
        function: Takes the K losses of the batch about to be trained on, float64, and returns their K weights. It is called at
            every optimiser step; its weights are applied as they are.

    Example:
        >>> import mtl_gym
        >>> mine = mtl_gym.policy(lambda losses: 1 / losses**0.5)
        >>> mine.predict({"log_loss": np.log([[4.0, 1.0]])})[0]
        array([[0.5, 1. ]], dtype=float32)
    """
    if not callable(function):
        raise TypeError(should("function", "be callable", function))
    return FunctionPolicy(function)


def find_policies() -> dict[str, str]:
    """Names to ``"module:Class"``, of all installed packages with the entry point; an earlier package's name wins."""
    tables = [
        entry.load() for entry in sorted(entry_points(group=GROUP), key=lambda entry: (entry.name != "baselines", entry.name))
    ]
    return {name: home for table in reversed(tables) for name, home in table.items()}


def policy_class(name: str) -> Any:
    """The class (or factory) of a policy.

    Raises:
        ValueError: If no installed package has the name; the known ones are listed.
    """
    module, attribute = choose("policies", name, find_policies()).split(":")
    return getattr(importlib.import_module(module), attribute)


def environment_of(name: str) -> str | None:
    """Id of the environment that a policy is for; ``None``: it is told which one, or plays all.

    Raises:
        ValueError: If no installed package has the name.
    """
    requires = getattr(policy_class(name), "requires", None)
    return requires.env if isinstance(requires, Requirements) else None


def make_policy(text: str, env: str | None = None) -> Policy:
    """Makes a policy of its name and options, as on the command line: ``name:option=value:option=value``; or of its file.

    A plus puts one that balances losses before one that balances their gradients (which has a method ``after``):
    ``igb+cagrad:c=0.5``. Values are JSON where they can be, and numbers with commas between them are lists: ``constant:w=1,2,3``.
    What is no name, and has a slash or is there as a file or folder, is a path: of an agent, for example.

    Args:
        text: Name and options, or path.
        env: Id of the environment that it is to play, for those that have an option ``env``: one name, a policy for each.

    Raises:
        ValueError: If the name is unknown, an option has no value, the policy does not take it, the file holds no policy, or one
            policy cannot come before another.
    """
    if text.strip() and text.partition(":")[0] not in find_policies() and ("/" in text or Path(text).exists()):
        return _from_file(text)
    *before, last = _PLUS.split(text)
    if before:
        return _after(make_policy("+".join(before), env), make_policy(last, env))
    name, *pairs = text.strip().split(":")
    options = {}
    for pair in pairs:
        option, equals, value = pair.partition("=")
        if not equals or not option:
            raise ValueError(should("policies", "be of the form name:option=value", text))
        options[option.strip().replace("-", "_")] = option_value(value)
    made = policy_class(name)
    if env is not None and "env" in inspect.signature(made).parameters:
        options = {"env": env, **options}
    try:
        inspect.signature(made).bind(**options)
    except TypeError as error:
        known = ", ".join(inspect.signature(made).parameters) or "none"
        raise ValueError(should("policies", f"use the options of {name!r} ({known}); {error}", text)) from None
    result: Policy = made(**options)
    return result


_PLUS = re.compile(r"\+(?=\s*[a-z])")
"""A plus between two names; that of a number, such as 1e+3, has a digit after it."""


def _after(first: Policy, second: Policy) -> Policy:
    if not hasattr(second, "after"):
        raise ValueError(should("policies", "go on after a plus with one that balances gradients", type(second).__name__))
    composed: Policy = second.after(first)
    return composed


def _from_file(path: str) -> Policy:
    loaders = entry_points(group=LOADERS)
    if not Path(path).exists() or not loaders:
        known = ", ".join(find_policies())
        raise ValueError(should("policies", "be known names or paths of agents that are there", path, f"Known: {known}."))
    reasons = []
    for entry in loaders:
        try:
            found: Policy = entry.load()(path)
        except ValueError as error:
            reasons.append(error)
        else:
            return found
    raise reasons[0]


_COMMA = re.compile(r",(?!\s*[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?\s*(?:[],:]|$))", re.IGNORECASE)
"""A comma that no whole number follows: one divides policies, the other the numbers of an option."""


def split_policies(text: str) -> list[str]:
    """Splits a list of policies at its commas; a comma before a number continues the value."""
    return [part.strip() for part in _COMMA.split(text) if part.strip()]


def option_value(text: str) -> Any:
    """The value of an option: JSON where it can be; a list where commas divide it; or the text itself."""
    for candidate in (text, f"[{text}]"):
        try:
            return json.loads(candidate)
        except json.JSONDecodeError:
            continue
    parts = text.split(",")
    try:
        numbers = [float(part) for part in parts]  # such as .5 and +1, which are not JSON
    except ValueError:
        return [part.strip() for part in parts] if len(parts) > 1 else text
    return numbers if len(parts) > 1 else numbers[0]


def names_and_policies(
    policies: str | Sequence[str | Policy] | Mapping[str, str | Policy], env: str | None = None
) -> dict[str, Policy]:
    """Policies by their labels, from a command-line text, a list or a mapping; names are for that environment.

    Raises:
        TypeError: If one of them is neither a name nor has ``predict``.
        ValueError: If there is none, a name is unknown or a label stands twice.
    """
    if isinstance(policies, str):
        policies = split_policies(policies)
    if not isinstance(policies, (Mapping, Sequence)):
        raise TypeError(should("policies", "be a text, a list or a mapping of labels to policies", policies))
    if not isinstance(policies, Mapping):
        labels = [item if isinstance(item, str) else _label(item) for item in policies]
        if len(set(labels)) < len(labels):
            raise ValueError(should("policies", "each have a label of their own; pass a mapping of labels to policies", labels))
        policies = dict(zip(labels, policies, strict=True))
    if not policies:
        raise ValueError(should("policies", "name at least one policy", policies, f"Known: {', '.join(find_policies())}."))
    made = {label: make_policy(item, env) if isinstance(item, str) else item for label, item in policies.items()}
    for label, item in made.items():
        if isinstance(item, type) or not isinstance(item, Policy):
            raise TypeError(should("policies", "be names or have a method `predict`", {label: item}))
    return made


def _label(item: Policy) -> str:
    function = getattr(item, "function", None)
    name = getattr(function, "__name__", type(item).__name__)
    return "function" if name == "<lambda>" else str(name)

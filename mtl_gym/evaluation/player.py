"""Plays a policy: shows it the environment's observations in the form that it was trained on, and checks its answers."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box, Dict, Space
from gymnasium.vector import VectorEnv

from mtl_gym.checks import should
from mtl_gym.envs.inputs import check_actions
from mtl_gym.envs.vector import MTLVectorEnv
from mtl_gym.policies.answers import array_of
from mtl_gym.policies.protocol import Policy
from mtl_gym.training.trainer import Trainer

Array = npt.NDArray[Any]
_BEYOND = 1e-6
"""Relative distance from a bound within which an action counts as rounded, not as clipped."""


class Player:
    """A policy in a vector environment.

    A Stable-Baselines3 model that was trained under ``VecNormalize`` sees observations normalised with its statistics.

    Args:
        label: The policy's name in messages.
        policy: The policy.
        envs: The environment.
        observe: Names of the observations that the policy sees; ``None``: all.

    Raises:
        ValueError: If the policy has an ``observation_space`` or ``action_space`` that is not the environment's.
    """

    def __init__(self, label: str, policy: Policy, envs: VectorEnv[Any, Any, Any], observe: Sequence[str] | None = None) -> None:
        self.label, self.policy = label, policy
        self._envs: MTLVectorEnv = envs.unwrapped  # type: ignore[assignment]
        self._observe = tuple(self._envs.arguments.observe if observe is None else observe)
        check_spaces(label, policy, self.observation_space, self._envs.single_action_space)
        self._normalized = normalization(policy)
        self._masked = _takes_masks(policy, self._envs)
        self._memory: Any = None
        self._start = np.ones(self._envs.num_envs, dtype=bool)
        self._clipped = False

    @property
    def observation_space(self) -> Dict:
        """The space of what the policy sees of one environment."""
        spaces: Any = self._envs.single_observation_space  # a Dict
        return Dict({name: spaces[name] for name in self._observe})

    def begin(self, ids: Sequence[int]) -> None:
        """Begins an episode of each of these instances, with the policy's initial memory."""
        self._memory = initial_memory(self.policy, ids, self._envs.arguments.recipe.num_tasks)
        self._start = np.full(self._envs.num_envs, self._memory is None)  # a given memory is not reset

    def act(self, observations: Mapping[str, Array]) -> Array:
        """The policy's actions, clipped to the space.

        Raises:
            TypeError: If ``predict`` returns anything but an array of numbers and a memory.
            ValueError: If the array has another shape, or actions of an unfinished row are not finite or, if discrete, not valid.
        """
        masks = {"action_masks": self._envs.action_masks()} if self._masked else {}
        seen = {name: observations[name] for name in self._observe}
        answer = self.policy.predict(
            self._normalized(seen), state=self._memory, episode_start=self._start, deterministic=True, **masks
        )
        if not isinstance(answer, tuple) or len(answer) != 2:
            remedy = "A policy without a memory returns `actions, state`, with the state that it was given."
            raise TypeError(
                should("predict", f"return two values, actions and a memory, in the policy {self.label!r}", answer, remedy)
            )
        self._start = np.zeros(self._envs.num_envs, dtype=bool)
        actions, self._memory = answer
        try:
            return self._checked(array_of(actions))
        except (TypeError, ValueError) as error:
            raise type(error)(f"{error} They are those of the policy {self.label!r}.") from None

    def end(self) -> None:
        """Ends the episodes; warns if the policy's weights cannot have trained all tasks, see :func:`untrained`."""
        trainer = trainer_of(self._envs)
        found = (untrained(trainer, row) for row in range(self._envs.num_envs)) if trainer else ()
        if problem := next((own for own in found if own), None):
            condition, extremes, reason = problem
            condition = f"{condition} in at least one step of the policy {self.label!r}"
            warnings.warn(should("weights", condition, extremes, reason), RuntimeWarning, stacklevel=2)

    def _checked(self, actions: Array) -> Array:
        """Actions of unfinished rows, clipped if finite; the other rows, whose actions are ignored, are set to 0."""
        envs, space = self._envs, self._envs.action_space
        if actions.shape == space.shape and envs.finished.any():
            rows = envs.finished.reshape(-1, *[1] * (actions.ndim - 1))
            actions = np.where(rows, np.zeros((), dtype=actions.dtype), actions)
        if actions.shape == space.shape and isinstance(space, Box):
            clipped = np.clip(actions, space.low, space.high)
            if np.array_equal(clipped, actions):  # the usual case; NaN is unequal to itself
                return actions
            if np.isfinite(actions).all():
                self._warn_of_clipping(actions, clipped, space)
                return clipped
        return check_actions(actions, envs.single_action_space, envs.num_envs)

    def _warn_of_clipping(self, values: Array, clipped: Array, space: Box) -> None:
        if not self._clipped and (np.abs(clipped - values) > _BEYOND * np.maximum(np.abs(clipped), 1)).any():
            self._clipped = True
            low, high, least, most = (float(own) for own in (space.low.min(), space.high.max(), values.min(), values.max()))
            condition = f"be within [{low:g}, {high:g}]; those of the policy {self.label!r} are clipped"
            warnings.warn(should("actions", condition, [least, most]), RuntimeWarning, stacklevel=2)


def trainer_of(envs: MTLVectorEnv) -> Trainer | None:
    """The trainings of an environment; ``None`` if its decisions are not made during step-by-step trainings."""
    return None if "curves" in envs.specification.without else getattr(envs.decision, "trainer", None)


def untrained(trainer: Trainer, row: int) -> tuple[str, list[float], str] | None:
    """What is wrong if a row's weights were never above 0, of all tasks or of one whose loss rose: a condition that they should
    meet, the least and the largest of them, and the consequence.
    """
    steps = int(trainer.ledger.step[row])
    weights, losses = trainer.weights[row, :steps], trainer.losses.history[row, :steps]  # (steps, K)
    never = ~(weights > 0).any(0) & ~weights.isnan().any(0)  # NaN: a step without weights
    if steps and never.all():
        return "be above 0 for some task", [float(weights.min()), float(weights.max())], "Nothing was learned."
    for task, name in enumerate(trainer.ledger.task_names(row)):
        own = weights[:, task]
        if steps and never[task] and (own < 0).any() and losses[-1, task] > losses[0, task]:
            return f"be above 0 for the task {name!r}", [float(own.min()), float(own.max())], "Negative ones raised its loss."
    return None


def check_spaces(label: str, policy: Policy, observations: Dict, actions: Space[Any]) -> None:
    """Raises ValueError if a policy declares an ``observation_space`` or ``action_space`` other than these of one environment."""
    own, theirs = getattr(policy, "observation_space", None), observations
    remedy = "Compare it with the arguments that it was trained with, such as `problem`, `num_tasks`, `observe` and `action`."
    if isinstance(own, Dict) and set(own.spaces) != set(theirs.spaces):
        raise ValueError(
            should("observe", f"be {sorted(own.spaces)}, on which {label!r} was trained", sorted(theirs.spaces), remedy)
        )
    if isinstance(own, Dict):
        for name, space in theirs.spaces.items():
            if own[name] != space:
                condition = f"have {name!r} as {own[name]}, as in the training of {label!r}"
                raise ValueError(should("observations", condition, space, remedy))
    elif isinstance(own, Space):
        remedy = "If a wrapper changed them, give `compare` an object whose `predict` does the same."
        condition = f"be a {type(own).__name__} of shape {own.shape}, as in the training of {label!r}"
        raise ValueError(should("observations", condition, theirs, remedy))
    own = getattr(policy, "action_space", None)
    if isinstance(own, Space) and own != actions:
        raise ValueError(should("actions", f"be {own}, as in the training of {label!r}", actions, remedy))


def normalization(policy: Policy) -> Callable[[Any], Any]:
    """What maps observations to those that a policy was trained on: its model's ``VecNormalize``; else nothing is changed."""
    find = getattr(policy, "get_vec_normalize_env", None)
    statistics = find() if callable(find) else None
    return _unchanged if statistics is None else statistics.normalize_obs


def _unchanged(observations: Any) -> Any:
    return observations


def warn_of_raw_observations(label: str, policy: Policy) -> None:
    """Warns if a Stable-Baselines3 model was trained under ``VecNormalize``, whose statistics its file does not hold, but has none.

    It is one if the last observations of its training, which it keeps, lie outside of the space of those that they were made from.
    """
    space, seen = getattr(policy, "observation_space", None), getattr(policy, "_last_obs", None)
    if normalization(policy) is not _unchanged or not isinstance(space, Dict) or not isinstance(seen, Mapping):
        return
    boxes = {name: box for name, box in space.spaces.items() if isinstance(box, Box) and name in seen}
    if getattr(policy, "_last_original_obs", None) is not None and any(
        (np.asarray(seen[name]) < box.low).any() or (np.asarray(seen[name]) > box.high).any() for name, box in boxes.items()
    ):
        condition = f"have the statistics of its VecNormalize: the policy {label!r} was trained on normalised observations"
        remedy = "Here they are as they come. Load the model with env=VecNormalize.load(statistics, venv)."
        warnings.warn(should("policies", condition, type(policy).__name__, remedy), RuntimeWarning, stacklevel=2)


def initial_memory(policy: Policy, ids: Sequence[int], num_tasks: int) -> Any:
    """The policy's initial memory on these instances; ``None`` if it does not define one."""
    begin = getattr(policy, "initial_state", None)
    return begin(np.asarray(ids), num_tasks) if begin else None


def _takes_masks(policy: Policy, envs: MTLVectorEnv) -> bool:
    """Whether ``predict`` takes action masks, as sb3_contrib's MaskablePPO does."""
    choices = envs.decision.masked and not isinstance(envs.action_space, Box)
    return choices and "action_masks" in inspect.signature(policy.predict).parameters

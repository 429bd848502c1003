"""The base class of heuristics: a pure function from observations and memory to weights, batched over rows."""

from __future__ import annotations

import inspect
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from mtl_gym import LOSSES_TO_WEIGHTS, WEIGHT_BOUND, Requirements, should, source_digest

Array = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Observation = Mapping[str, npt.NDArray[Any]]
State = dict[str, npt.NDArray[Any]]
"""A policy's memory: arrays with a leading row axis; no array is changed in place."""
HAS_LABEL = "labelled"
"""The observation (N, K) that is 1 if the batch about to be trained on has a label of the task; else its loss is the last known."""
ZERO, NOT_FINITE = -30.0, 30.0
"""Bounds of the observed log norms: on the lower one the gradient is zero, on the upper one it is not finite."""


class Heuristic(ABC):
    """A policy that is not learned: subclasses write ``act``, and ``initial_state`` if they have a memory.

    N is the number of rows (environments) and K the number of tasks. ``log_loss`` (N, K) holds the log losses of the next training
    batch; an action is its weights (N, K), which the trainer applies unchanged. Options outside the range in their description
    raise ValueError, those of another type TypeError.
    """

    requires: ClassVar[Requirements] = LOSSES_TO_WEIGHTS
    of_tasks: ClassVar[str] = "log_loss"
    """The observation (N, K) that determines N and K."""

    def __repr__(self) -> str:
        own = {name: vars(self)[name] for name in inspect.signature(type(self)).parameters if name in vars(self)}
        plain = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in own.items()}
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in plain.items())})"

    @property
    def spec(self) -> dict[str, Any]:
        """Identifies the heuristic by its class, options and source, so that results of other code are not reused."""
        own = {name: value for name, value in vars(self).items() if name != "requires"}
        options = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in own.items()}
        name = f"{type(self).__module__}:{type(self).__qualname__}"
        return {"heuristic": name, "options": options, "source": source_digest(*_modules(type(self)))}

    def initial_state(self, seeds: Integers, num_tasks: int) -> State:
        """The memory (N, ...) at the start of an episode; ``seeds`` (N,) seed a random policy's rows."""
        return {}

    @abstractmethod
    def act(self, obs: Observation, state: State) -> tuple[Array, State]:
        """Returns weights (N, K) and the next memory."""

    def predict(
        self,
        observation: Observation,
        state: State | None = None,
        episode_start: npt.ArrayLike | None = None,
        deterministic: bool = False,
    ) -> tuple[npt.NDArray[Any], State]:
        """Actions and the next memory; see :meth:`mtl_gym.Policy.predict`. A random heuristic is so even if ``deterministic``.

        Raises:
            ValueError: If the observation lacks what the heuristic requires.
        """
        observation = self.completed(observation)
        missing = [name for name in self.requires.observe or () if name not in observation]
        if missing:
            needed = ", ".join(f"{name}={value!r}" for name, value in self.requires.arguments().items())
            condition, remedy = f"hold {missing} for {type(self).__name__}", f"Make the environment with {needed}."
            raise ValueError(should("observation", condition, sorted(observation), remedy))
        batch = {name: np.atleast_2d(values) for name, values in observation.items()}
        rows, num_tasks = self._size(batch)
        if state is None:
            state = self.initial_state(np.arange(rows), num_tasks)
        elif episode_start is not None and np.any(episode_start):
            state = self._restarted(state, np.atleast_1d(np.asarray(episode_start, dtype=bool)), num_tasks)
        answer, state = self.act(batch, state)
        actions = self._actions(answer)
        return (actions if observation[self.of_tasks].ndim > 1 else actions[0]), state

    def completed(self, observation: Observation) -> Observation:
        """The observation, with what can be inferred if it lacks something that is required: that batches have all labels."""
        if HAS_LABEL not in (self.requires.observe or ()) or HAS_LABEL in observation or "log_loss" not in observation:
            return observation
        return {**observation, HAS_LABEL: np.ones_like(observation["log_loss"])}

    def _size(self, batch: Observation) -> tuple[int, int]:
        rows, num_tasks = batch[self.of_tasks].shape
        return rows, num_tasks

    def _actions(self, answer: Array) -> npt.NDArray[Any]:
        """Actions (N, ...) from the weights (N, ...) that ``act`` returns: flattened and clipped to the bounds."""
        return answer.clip(-WEIGHT_BOUND, WEIGHT_BOUND).astype(np.float32).reshape(len(answer), -1)

    def _restarted(self, state: State, start: npt.NDArray[np.bool_], num_tasks: int) -> State:
        # A random policy's next episode uses the seed + N, so that its noise is new.
        fresh = self.initial_state(state.get("seed", np.arange(len(start))) + len(start), num_tasks)
        return {name: np.where(start.reshape(-1, *[1] * (old.ndim - 1)), fresh[name], old) for name, old in state.items()}


def _modules(heuristic: type[Heuristic]) -> list[str]:
    """The modules of a class and its bases, and all modules of the same package that these import from, recursively."""
    package, found = _package(heuristic.__module__), set[str]()
    new = {base.__module__ for base in heuristic.__mro__ if base is not object}
    while new:
        found |= new
        taken = {str(getattr(value, "__module__", "")) for name in new for value in vars(sys.modules[name]).values()}
        new = {name for name in taken if _package(name) == package} - found
    return sorted(found)


def _package(module: str) -> str:
    """The unit that is installed together: a module's top-level package, or its part of this library."""
    first, *rest = module.split(".")
    return ".".join([first, *rest[:1]]) if first == "mtl_gym" else first


def observes(*names: str) -> Requirements:
    """Requirements of a heuristic that reads these observations besides ``log_loss``, and weights losses at every step."""
    return replace(LOSSES_TO_WEIGHTS, observe=("log_loss", *names))


def losses(obs: Observation) -> Array:
    """The losses (N, K) of the next training batch."""
    return np.exp(obs["log_loss"].astype(np.float64))


def softmax(values: Array) -> Array:
    """Softmax over the tasks (the last axis)."""
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))

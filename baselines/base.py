"""What a heuristic is: a pure function from observations and memory to weights, batched over rows."""

from __future__ import annotations

import functools
import hashlib
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from mtl_gym.policies import LOSSES_TO_WEIGHTS, WEIGHT_BOUND, Requirements

Array = npt.NDArray[np.float64]
Observation = Mapping[str, npt.NDArray[Any]]
State = dict[str, npt.NDArray[Any]]
"""A policy's memory: arrays with a leading row axis; no array is changed in place."""


class Heuristic(ABC):
    """A policy that is not learned: subclasses write ``act``, and ``initial_state`` if they have a memory.

    N is the number of rows (environments) and K that of tasks. ``log_loss`` (N, K) holds the log losses of the batch that is about
    to be trained on; an action is its weights (N, K), which the learner applies as they are.
    """

    requires: ClassVar[Requirements] = LOSSES_TO_WEIGHTS
    of_tasks: ClassVar[str] = "log_loss"
    """The observation of each task that tells N and K."""

    @property
    def spec(self) -> dict[str, Any]:
        """Identifies the heuristic by its class, its options and its source, so that results of an older source are not reused."""
        options = {
            name: value.tolist() if isinstance(value, np.ndarray) else value
            for name, value in vars(self).items()
            if name != "requires"
        }
        name = f"{type(self).__module__}:{type(self).__qualname__}"
        return {"heuristic": name, "options": options, "source": _source_digest(*_modules(type(self)))}

    def initial_state(self, seeds: npt.NDArray[np.int64], num_tasks: int) -> State:
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
        """Stable-Baselines3's interface over :meth:`act`.

        Args:
            observation: Arrays (N, length) by name, or (length,) of one environment.
            state: What the last call returned; ``None`` at first.
            episode_start: (N,) bool, the rows whose memory begins anew.
            deterministic: Has no effect: a random heuristic is random.

        Raises:
            ValueError: If the observation lacks what the heuristic requires.
        """
        missing = [name for name in self.requires.observe or () if name not in observation]
        if missing:
            needed = ", ".join(f"{name}={value!r}" for name, value in self.requires.arguments().items())
            raise ValueError(f"{type(self).__name__} needs the observations {missing}: make the environment with {needed}.")
        batch = {name: np.atleast_2d(values) for name, values in observation.items()}
        rows, num_tasks = self._size(batch)
        if state is None:
            state = self.initial_state(np.arange(rows), num_tasks)
        elif episode_start is not None and np.any(episode_start):
            state = self._restarted(state, np.atleast_1d(np.asarray(episode_start, dtype=bool)), num_tasks)
        answer, state = self.act(batch, state)
        actions = self._actions(answer)
        return (actions if observation[self.of_tasks].ndim > 1 else actions[0]), state

    def _size(self, batch: Observation) -> tuple[int, int]:
        """N and K."""
        rows, num_tasks = batch[self.of_tasks].shape
        return rows, num_tasks

    def _actions(self, answer: Array) -> npt.NDArray[Any]:
        """Actions (N, ...) from what ``act`` returns: weights (N, ...), flat and within the bounds."""
        return answer.clip(-WEIGHT_BOUND, WEIGHT_BOUND).astype(np.float32).reshape(len(answer), -1)

    def _restarted(self, state: State, start: npt.NDArray[np.bool_], num_tasks: int) -> State:
        # A random policy's next episode takes the seed N further on, so that its noise is new.
        fresh = self.initial_state(state.get("seed", np.arange(len(start))) + len(start), num_tasks)
        return {name: np.where(start.reshape(-1, *[1] * (old.ndim - 1)), fresh[name], old) for name, old in state.items()}


def _modules(heuristic: type[Heuristic]) -> list[str]:
    """The modules of a class and its bases, and those of the same package that they take names from."""
    own = {base.__module__ for base in heuristic.__mro__ if base is not object}
    package = _package(heuristic.__module__)
    taken = {str(getattr(value, "__module__", "")) for name in own for value in vars(sys.modules[name]).values()}
    return sorted(own | {name for name in taken if _package(name) == package})


def _package(module: str) -> str:
    """What is installed together: the top-level package of a module, or its part of this library."""
    first, *rest = module.split(".")
    return ".".join([first, *rest[:1]]) if first == "mtl_gym" else first


@functools.cache
def _source_digest(*modules: str) -> str:
    files = [Path(str(getattr(sys.modules.get(name), "__file__", ""))) for name in modules]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files if file.is_file())).hexdigest()


def losses(obs: Observation) -> Array:
    """The losses (N, K) of the batch that is about to be trained on."""
    return np.exp(obs["log_loss"].astype(np.float64))


def softmax(values: Array) -> Array:
    """Softmax over the tasks (the last axis)."""
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))

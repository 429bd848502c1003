"""Policies from plain functions that map losses to weights."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_gym.checks import should
from mtl_gym.function_memory import memory_digest
from mtl_gym.identity import function_content
from mtl_gym.policies.answers import array_of
from mtl_gym.policies.protocol import LOSSES_TO_WEIGHTS, WEIGHT_BOUND, Array, Observation

Function = Callable[[Array], npt.ArrayLike]


class FunctionPolicy:
    """A policy from a plain function that is called for all trainings; see :func:`policy`."""

    requires = LOSSES_TO_WEIGHTS

    def __init__(self, function: Function) -> None:
        self.function = function
        self._memory = _Memory(function)

    def __repr__(self) -> str:
        return f"policy({getattr(self.function, '__qualname__', repr(self.function))})"

    def predict(
        self, observation: Observation, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Array, Any]:
        """Calls the function for each row.

        Raises:
            ValueError: Unless it returns K finite weights.
        """
        losses = _losses(observation)
        with_others = losses.ndim > 1 and (len(losses) > 1 or episode_start is not None)
        if with_others:
            self._memory.before(bool(np.any(episode_start)))
        rows = [_weights(self.function, row) for row in np.atleast_2d(losses)]
        if with_others:
            self._memory.after()
        return np.stack(rows).reshape(losses.shape), state

    @property
    def spec(self) -> dict[str, Any] | None:
        """Identifies the function by its code and the values it uses; ``None`` if that is impossible."""
        return _spec("function", self.function)


class FunctionPerTraining:
    """A policy from a factory of functions, one for each training; see :func:`policy`. Its memory is the list of functions."""

    requires = LOSSES_TO_WEIGHTS

    def __init__(self, make: Callable[[], Function]) -> None:
        self.function = make
        self._sharing = _Sharing()

    def initial_state(self, seeds: npt.NDArray[np.int64], num_tasks: int) -> list[Function]:
        """A new function for each row; raises ``TypeError`` if the factory makes anything that cannot be called."""
        return [self._made() for _ in seeds]

    def predict(
        self, observation: Observation, state: list[Function] | None = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Array, list[Function]]:
        """Calls each row's function, a new one where an episode starts.

        Raises:
            ValueError: Unless it returns K finite weights.
        """
        losses = _losses(observation)
        batch = np.atleast_2d(losses)
        begins = state is None or bool(np.any(episode_start))
        if state is None:
            state = [self._made() for _ in batch]
        elif episode_start is not None:
            starts = np.broadcast_to(np.asarray(episode_start, dtype=bool), len(batch))
            state = [self._made() if starts[row] else own for row, own in enumerate(state)]
        first = self._sharing.call(state, batch[0], begins=begins)
        rows = [first, *(_weights(function, row) for function, row in zip(state[1:], batch[1:], strict=True))]
        return np.stack(rows).reshape(losses.shape), state

    @property
    def spec(self) -> dict[str, Any] | None:
        """Identifies the factory by its code and the values it uses; ``None`` if that is impossible."""
        return _spec("per_training", self.function)

    def _made(self) -> Function:
        made = self.function()
        if not callable(made):
            raise TypeError(should("function", "return a function with per_training=True", made))
        return made


class _Sharing:
    """Notices that a call of one training's function changes values of another's, and warns once.

    It compares checksums as :class:`_Memory` does, of the second training's function, or of one of an earlier training.
    """

    def __init__(self) -> None:
        self._warned, self._calls = False, 0
        self._earlier: Function | None = None

    def call(self, functions: list[Function], losses: Array, *, begins: bool) -> Array:
        """The first function's weights for its losses; ``begins``: whether an episode begins."""
        first, *others = functions
        other = others[0] if others else self._earlier
        self._calls, self._earlier = 1 if begins else self._calls + 1, first
        if self._warned or other is None or other is first or self._calls & (self._calls - 1):
            return _weights(first, losses)
        before = memory_digest(other)
        weights = _weights(first, losses)
        if before is not None and memory_digest(other) != before:
            self._warned = True
            condition = "make functions that share no values that they change: each training's is of its own"
            remedy = "Make these values inside of it."
            warnings.warn(should("function", condition, first, remedy), RuntimeWarning, stacklevel=3)
        return weights


class _Memory:
    """Notices that a function changes values of its own from call to call, and warns once.

    A checksum of them is computed at the beginning of an episode, and after the 1st, 2nd, 4th, 8th ... call, which costs next to
    nothing.
    """

    def __init__(self, function: Function) -> None:
        self._function, self._warned = function, False
        self._digest: str | None = None
        self._calls = 0

    def before(self, begins: bool) -> None:
        """To be called before the function; ``begins``: whether an episode begins."""
        if not self._warned and (begins or not self._calls):
            self._digest, self._calls = memory_digest(self._function), 0

    def after(self) -> None:
        """Called after the function."""
        self._calls += 1
        if self._warned or self._calls & (self._calls - 1) or self._digest is None:
            return
        if memory_digest(self._function) != self._digest:
            self._warned = True
            remedy = "To make a function for each training, pass a function that makes it: mtl_gym.policy(make, per_training=True)."
            condition = "keep no values from call to call, since it is called for all trainings in turn"
            name = getattr(self._function, "__qualname__", type(self._function).__name__)  # each batch has a copy of its own
            warnings.warn(should("function", condition, name, remedy), RuntimeWarning, stacklevel=3)


def _losses(observation: Observation) -> Array:
    return np.exp(np.asarray(observation["log_loss"], dtype=np.float64))


def _weights(function: Function, losses: Array) -> Array:
    """The function's weights (K,); raises ``ValueError`` if they are not K finite numbers."""
    answer = function(losses.copy())
    condition = f"return {len(losses)} finite weights"
    try:
        weights = array_of(answer).astype(np.float64)
    except TypeError:
        raise ValueError(should("function", condition, answer)) from None
    if weights.shape != losses.shape or not np.isfinite(weights).all():
        raise ValueError(should("function", condition, weights.tolist(), f"Losses: {losses}."))
    return weights.clip(-WEIGHT_BOUND, WEIGHT_BOUND).astype(np.float32)


def _spec(kind: str, function: Callable[..., Any]) -> dict[str, Any] | None:
    try:
        content = function_content(function)
    except (TypeError, ValueError, RecursionError):
        return None
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return {kind: function.__qualname__, "code": digest}


def policy(function: Callable[..., Any], *, per_training: bool = False) -> FunctionPolicy | FunctionPerTraining:
    """Makes a policy from a function that maps losses to weights: the easiest way to compare your own method.

    Args:
        function: Called at every optimiser step with the K losses of the batch about to be trained on, float64; returns K weights,
            which are applied unchanged. Many trainings run at once, and it is called for all of them: if it keeps values from call
            to call, such as a moving average or a random generator, use ``per_training``, or the trainings mix (with a warning).
        per_training: Whether ``function`` has no arguments and makes such a function, called once for each training. What these
            functions keep has to be made in it as well, or the trainings mix (with a warning).

    Example:
        >>> import mtl_gym
        >>> mine = mtl_gym.policy(lambda losses: 1 / losses**0.5)
        >>> mine.predict({"log_loss": np.log([[4.0, 1.0]])})[0]
        array([[0.5, 1. ]], dtype=float32)
        >>> def make():
        ...     mean = 1.0
        ...     def weights(losses):
        ...         nonlocal mean
        ...         mean = 0.9 * mean + 0.1 * losses
        ...         return 1 / mean
        ...     return weights
        >>> smooth = mtl_gym.policy(make, per_training=True)
        >>> smooth.predict({"log_loss": np.log([[11.0, 1.0]])})[0]
        array([[0.5, 1. ]], dtype=float32)
    """
    if not callable(function):
        raise TypeError(should("function", "be callable", function))
    return FunctionPerTraining(function) if per_training else FunctionPolicy(function)

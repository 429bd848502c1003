"""Rows of a training in workers: each steps a part of them, all at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import VectorEnv
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

from mtl_gym import Held, Holder
from mtl_gym.agents.mixture import Mixture
from mtl_gym.agents.vec_env import VectorEnvAdapter

Array = npt.NDArray[Any]


def shares(source: int, sources: int, families: int, workers: int) -> dict[int, int]:
    """How many families of rows of a source each worker holds, for those that hold some.

    All families in their order, those of the first source first, are cut into as many pieces as there are workers, which differ by
    one family at most.

    Args:
        source: Number of the source, from 0.
        sources: Number of sources.
        families: Number of families of each source.
        workers: Number of workers, at most ``sources * families``.
    """
    every = sources * families
    return dict(Counter(family * workers // every for family in range(source * families, (source + 1) * families)))


def remote_rows(
    name: str, spec: EnvSpec, arguments: Mapping[str, Any], like: VectorEnv[Any, Any, Any], rows: Sequence[tuple[Holder, int]]
) -> VecEnv:
    """The rows of a source in workers.

    Args:
        name: The name of the source.
        spec: Of the environment.
        arguments: Of the environment.
        like: An environment made of them, whose spaces the rows have.
        rows: The workers, and the number of rows that each of them holds.

    Raises:
        TypeError: If the arguments cannot be copied into other processes.
    """
    ends = np.cumsum([count for _, count in rows]).tolist()
    labels = [f"the rows {end - count} to {end - 1} of {name}" for end, (_, count) in zip(ends, rows, strict=True)]
    # All begin to make theirs before the first one is waited for.
    held = [Held(own, name, label, Part, spec, count, dict(arguments)) for label, (own, count) in zip(labels, rows, strict=True)]
    spaces = like.single_observation_space, like.single_action_space
    parts: list[VecEnv] = [RemoteRows(own, count, *spaces) for own, (_, count) in zip(held, rows, strict=True)]
    return parts[0] if len(parts) == 1 else Mixture(dict(zip(labels, parts, strict=True)))


class RemoteRows(VecEnv):
    """A :class:`Part` in a worker, as Stable-Baselines3 expects it: ``step_async`` sends, and ``step_wait`` receives."""

    def __init__(self, part: Held, num_envs: int, observations: gymnasium.Space[Any], actions: gymnasium.Space[Any]) -> None:
        self._part = part
        part.receive()  # it is made
        super().__init__(num_envs, observations, actions)

    def reset(self) -> Any:
        """Starts an episode in every row, with the seeds and options set since the last reset."""
        observations, self.reset_infos = self._asked("reset", self._seeds, self._options)
        self._reset_seeds()
        self._reset_options()
        return observations

    def step_async(self, actions: Array) -> None:
        """Sends the actions."""
        self._part.send("step", actions)

    def step_wait(self) -> VecEnvStepReturn:
        """Waits until the worker has taken the step."""
        observations, rewards, dones, infos, self.reset_infos = self._part.receive()
        return observations, rewards, dones, infos

    def close(self) -> None:
        """Nothing: the worker forgets the rows when it makes others, or ends."""

    def get_images(self) -> Sequence[Array | None]:
        """The rendered frame of each row."""
        return self._call("get_images")

    def has_attr(self, attr_name: str) -> bool:
        """Whether the vector environment has the attribute."""
        return bool(self._call("has_attr", attr_name))

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """A copy of the vector environment's attribute, once per requested row."""
        return self._call("get_attr", attr_name, indices)

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Sets the vector environment's attribute for all rows; raises ValueError if only some are requested."""
        self._call("set_attr", attr_name, value, indices)

    def env_method(self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any) -> list[Any]:
        """Calls the vector environment's method once; a result (N, ...) is split by row."""
        return self._call("env_method", method_name, *method_args, indices=indices, **method_kwargs)

    def env_is_wrapped(self, wrapper_class: type[Any], indices: VecEnvIndices = None) -> list[bool]:
        """False: wrappers of single environments do not apply to a vector environment."""
        return [False for _ in self._get_indices(indices)]

    def _call(self, method: str, *given: Any, **named: Any) -> Any:
        return self._asked("call", method, given, named)

    def _asked(self, method: str, *given: Any) -> Any:
        self._part.send(method, *given)
        return self._part.receive()


class Part:
    """In a worker: some rows of a source."""

    def __init__(self, spec: EnvSpec, rows: int, arguments: Mapping[str, Any]) -> None:
        made = gymnasium.make_vec(spec, num_envs=rows, vectorization_mode="vector_entry_point", **arguments)
        self.envs = VectorEnvAdapter(made)

    def reset(self, seeds: list[int | None], options: list[dict[str, Any]]) -> tuple[Any, list[dict[str, Any]]]:
        """Observations, and the infos of the reset."""
        rows = self.envs.unwrapped
        rows._seeds, rows._options = seeds, options
        return self.envs.reset(), self.envs.reset_infos

    def step(self, actions: Array) -> tuple[Any, ...]:
        """What a step returns, and the infos of each row's last reset."""
        return *self.envs.step(actions), self.envs.reset_infos

    def call(self, method: str, given: Sequence[Any], named: Mapping[str, Any]) -> Any:
        """Calls another method of the rows."""
        return getattr(self.envs, method)(*given, **named)

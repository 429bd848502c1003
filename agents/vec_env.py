"""Gymnasium's ``VectorEnv`` as Stable-Baselines3's ``VecEnv``: one process trains on all rows at once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode, VectorEnv
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

from mtl_gym.arguments import should

Array = npt.NDArray[Any]


class VectorEnvAdapter(VecEnv):
    """A vector environment as Stable-Baselines3 expects it.

    ``reset`` returns observations, and ``step`` observations, rewards (N,) float32, dones (N,) bool and a list of N infos. At the
    end of an episode its info has ``terminal_observation``, ``TimeLimit.truncated`` (truncated and not terminated) and ``episode``
    (return ``r``, length ``l`` and seconds ``t`` since the adapter was made, as SB3's ``Monitor`` has them); all other entries are
    the vector environment's, row by row. ``seed(s)`` makes the next reset seed row i with s + i. ``action_masks`` of the vector
    environment, (N, actions), is found by ``env_method`` and ``has_attr``, as sb3-contrib's ``MaskablePPO`` looks for it.

    Args:
        envs: A vector environment that resets finished rows within the same step.

    Raises:
        TypeError: If ``envs`` is no ``VectorEnv``.
        ValueError: If its autoreset mode is another one: with the others, SB3 would learn from steps that are none.
    """

    def __init__(self, envs: VectorEnv[Any, Any, Any]) -> None:
        if not isinstance(envs, VectorEnv):
            raise TypeError(should("envs", "be a gymnasium.vector.VectorEnv", envs, "Make it with gymnasium.make_vec."))
        mode = envs.metadata.get("autoreset_mode")
        if mode is not AutoresetMode.SAME_STEP:
            raise ValueError(should("envs", "have the autoreset mode SAME_STEP", mode, "Make it with that `autoreset_mode`."))
        self.envs = envs
        self._begun = time.perf_counter()
        self._returns = np.zeros(envs.num_envs)
        self._lengths = np.zeros(envs.num_envs, dtype=np.int64)
        self._actions: Array | None = None
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)

    def reset(self) -> Any:
        """Starts an episode in every row, with the seeds and options that were set since the last reset."""
        seeds: Any = list(self._seeds) if any(seed is not None for seed in self._seeds) else None
        options = next((own for own in self._options if own), None)
        observations, infos = self.envs.reset(seed=seeds, options=options)
        self.reset_infos = rows_of_infos(infos, self.num_envs)
        self._returns[:] = 0
        self._lengths[:] = 0
        self._reset_seeds()
        self._reset_options()
        return observations

    def step_async(self, actions: Array) -> None:
        """Keeps the actions for :meth:`step_wait`."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Takes one step in every row; finished rows begin anew within it."""
        observations, rewards, terminated, truncated, infos = self.envs.step(self._actions)
        rewards = np.asarray(rewards, dtype=np.float64)
        self._returns += rewards
        self._lengths += 1
        dones = np.logical_or(terminated, truncated)
        ended = np.flatnonzero(dones).tolist()
        rows = rows_of_infos({name: value for name, value in infos.items() if name.lstrip("_") not in _FINAL}, self.num_envs)
        for row in range(self.num_envs):
            rows[row]["TimeLimit.truncated"] = bool(truncated[row] and not terminated[row])
        for row in ended:
            self.reset_infos[row] = dict(rows[row])
            rows[row] |= row_of_infos(infos["final_info"], row) if "final_info" in infos else {}
            rows[row]["terminal_observation"] = infos["final_obs"][row]
            rows[row]["episode"] = self._statistics(row)
        self._returns[ended] = 0
        self._lengths[ended] = 0
        return observations, rewards.astype(np.float32), dones, rows

    def _statistics(self, row: int) -> dict[str, float]:
        elapsed = round(time.perf_counter() - self._begun, 6)
        return {"r": float(self._returns[row]), "l": int(self._lengths[row]), "t": elapsed}

    def close(self) -> None:
        """Closes the vector environment."""
        self.envs.close()

    def set_options(self, options: list[dict[str, Any]] | dict[str, Any] | None = None) -> None:
        """Sets the options of the next reset: one mapping, which the vector environment takes as it is."""
        if isinstance(options, list):
            raise TypeError(should("options", "be one mapping for all rows", options))
        super().set_options(options)

    def get_images(self) -> Sequence[Array | None]:
        """A picture of each row."""
        frames: Any = self.envs.render()
        return [None] * self.num_envs if frames is None else list(frames)

    def has_attr(self, attr_name: str) -> bool:
        """Whether the vector environment has that attribute."""
        return hasattr(self.envs.unwrapped, attr_name)

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The vector environment's attribute, for each row asked for."""
        value = self.envs.render_mode if attr_name == "render_mode" else getattr(self.envs.unwrapped, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Sets the vector environment's attribute, of all rows together.

        Raises:
            ValueError: If only some rows are asked for.
        """
        self._all_rows(indices)
        setattr(self.envs.unwrapped, attr_name, value)

    def env_method(self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any) -> list[Any]:
        """Calls the vector environment's method once; what it returns for each row, (N, ...), is handed out row by row."""
        answer = getattr(self.envs.unwrapped, method_name)(*method_args, **method_kwargs)
        by_row = isinstance(answer, (np.ndarray, list, tuple)) and len(answer) == self.num_envs
        return [answer[row] if by_row else answer for row in self._get_indices(indices)]

    def env_is_wrapped(
        self, wrapper_class: type[gymnasium.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """Whether the rows are wrapped: never, but that the adapter does what SB3's ``Monitor`` does."""
        from stable_baselines3.common.monitor import Monitor

        return [wrapper_class is Monitor for _ in self._get_indices(indices)]

    def _all_rows(self, indices: VecEnvIndices) -> None:
        if len(set(self._get_indices(indices))) < self.num_envs:
            raise ValueError(should("indices", "be None: a vector environment's attributes are of all rows together", indices))


_FINAL = ("final_obs", "final_info")


def rows_of_infos(infos: dict[str, Any], num_envs: int) -> list[dict[str, Any]]:
    """A vector environment's infos as a list of one dict for each row."""
    rows: list[dict[str, Any]] = [{} for _ in range(num_envs)]
    for name, values in infos.items():
        if name.startswith("_"):
            continue
        held = np.flatnonzero(infos.get(f"_{name}", np.ones(num_envs, dtype=bool))).tolist()
        parts = rows_of_infos(values, num_envs) if isinstance(values, dict) else values
        for row in held:
            rows[row][name] = parts[row]
    return rows


def row_of_infos(infos: dict[str, Any], row: int) -> dict[str, Any]:
    """What a vector environment's infos say of one row."""
    own: dict[str, Any] = {}
    for name, values in infos.items():
        if not name.startswith("_") and infos.get(f"_{name}", (True,) * (row + 1))[row]:
            own[name] = row_of_infos(values, row) if isinstance(values, dict) else values[row]
    return own

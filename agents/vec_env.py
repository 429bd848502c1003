"""Adapts Gymnasium's ``VectorEnv`` to Stable-Baselines3's ``VecEnv``; all rows run in one process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode, VectorEnv
from stable_baselines3.common.vec_env import VecEnv, VecMonitor
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

from mtl_gym import row_infos, should

Array = npt.NDArray[Any]
_FINAL = ("final_obs", "final_info")


class VectorEnvAdapter(VecMonitor):
    """A vector environment as Stable-Baselines3 expects it, with the episodes' statistics of SB3's ``VecMonitor``.

    ``reset`` returns observations, and ``step`` observations, rewards (N,) float32, dones (N,) bool and a list of N infos. At the
    end of an episode its info has ``terminal_observation``, ``TimeLimit.truncated`` (truncated and not terminated) and ``episode``
    (return ``r``, length ``l`` and seconds ``t`` since the adapter was made); all other entries are the vector environment's, row
    by row. After ``seed(s)``, the next reset seeds row i with s + i. sb3-contrib's ``MaskablePPO`` finds the vector environment's
    ``action_masks``, (N, actions), by ``env_method`` and ``has_attr``.

    Args:
        envs: A vector environment that resets finished rows within the same step.

    Raises:
        TypeError: If ``envs`` is not a ``VectorEnv``.
        ValueError: If it has another autoreset mode, with which SB3 would learn from reset steps.
    """

    def __init__(self, envs: VectorEnv[Any, Any, Any]) -> None:
        if not isinstance(envs, VectorEnv):
            raise TypeError(should("envs", "be a gymnasium.vector.VectorEnv", envs, "Make it with gymnasium.make_vec."))
        mode = envs.metadata.get("autoreset_mode")
        if mode is not AutoresetMode.SAME_STEP:
            raise ValueError(should("envs", "have the autoreset mode SAME_STEP", mode, "Make it with that `autoreset_mode`."))
        super().__init__(_Rows(envs))

    @property
    def reset_infos(self) -> list[dict[str, Any]]:
        """Infos of each row's last reset; SB3's wrappers do not pass them on."""
        return self.venv.reset_infos

    @reset_infos.setter
    def reset_infos(self, infos: list[dict[str, Any]]) -> None:
        """SB3's wrappers set theirs, which are empty."""
        self.venv.reset_infos = infos


class _Rows(VecEnv):
    """The rows of a vector environment, without statistics."""

    def __init__(self, envs: VectorEnv[Any, Any, Any]) -> None:
        self.envs = envs
        self._actions: Array | None = None
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)

    def reset(self) -> Any:
        """Starts an episode in every row, with the seeds and options set since the last reset."""
        seeds: Any = list(self._seeds) if any(seed is not None for seed in self._seeds) else None
        options = next((own for own in self._options if own), None)
        observations, infos = self.envs.reset(seed=seeds, options=options)
        self.reset_infos = self._rows_of(infos)
        self._reset_seeds()
        self._reset_options()
        return observations

    def step_async(self, actions: Array) -> None:
        """Stores the actions for :meth:`step_wait`."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Takes one step in every row; finished rows are reset within it."""
        observations, rewards, terminated, truncated, infos = self.envs.step(self._actions)
        dones = np.logical_or(terminated, truncated)
        ended = np.flatnonzero(dones).tolist()
        rows = self._rows_of({name: value for name, value in infos.items() if name.lstrip("_") not in _FINAL})
        for row in range(self.num_envs):
            rows[row]["TimeLimit.truncated"] = bool(truncated[row] and not terminated[row])
        for row in ended:
            self.reset_infos[row] = dict(rows[row])
            rows[row] |= row_infos(infos["final_info"], row) if "final_info" in infos else {}
            rows[row]["terminal_observation"] = infos["final_obs"][row]
        return observations, np.asarray(rewards, dtype=np.float32), dones, rows

    def close(self) -> None:
        """Closes the vector environment."""
        self.envs.close()

    def set_options(self, options: list[dict[str, Any]] | dict[str, Any] | None = None) -> None:
        """Sets the options of the next reset: one mapping, passed to the vector environment; raises TypeError for a list."""
        if isinstance(options, list):
            raise TypeError(should("options", "be one mapping for all rows", options))
        super().set_options(options)

    def get_images(self) -> Sequence[Array | None]:
        """The rendered frame of each row."""
        frames: Any = self.envs.render()
        return [None] * self.num_envs if frames is None else list(frames)

    def has_attr(self, attr_name: str) -> bool:
        """Whether the vector environment has the attribute."""
        return hasattr(self.envs.unwrapped, attr_name)

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The vector environment's attribute, once per requested row."""
        value = self.envs.render_mode if attr_name == "render_mode" else getattr(self.envs.unwrapped, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Sets the vector environment's attribute for all rows; raises ValueError if only some are requested."""
        if len(set(self._get_indices(indices))) < self.num_envs:
            raise ValueError(should("indices", "be None: a vector environment's attributes apply to all rows", indices))
        setattr(self.envs.unwrapped, attr_name, value)

    def env_method(self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any) -> list[Any]:
        """Calls the vector environment's method once; a result (N, ...) is split by row."""
        answer = getattr(self.envs.unwrapped, method_name)(*method_args, **method_kwargs)
        by_row = isinstance(answer, (np.ndarray, list, tuple)) and len(answer) == self.num_envs
        return [answer[row] if by_row else answer for row in self._get_indices(indices)]

    def env_is_wrapped(
        self, wrapper_class: type[gymnasium.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """False: wrappers of single environments do not apply to a vector environment."""
        return [False for _ in self._get_indices(indices)]

    def _rows_of(self, infos: dict[str, Any]) -> list[dict[str, Any]]:
        return [row_infos(infos, row) for row in range(self.num_envs)]

"""Trainings of different problems side by side: one ``VecEnv`` of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

from mtl_gym import number, should

Array = npt.NDArray[Any]


class Mixture(VecEnv):
    """The rows of several environments, those of the first source first.

    Policies must not see from which source a row is but by what it observes, so observations and actions have the same spaces in
    all sources.

    Args:
        sources: The environments by the name of their source.

    Raises:
        ValueError: If the observations or the actions of two sources have different spaces; the message names one that differs.
    """

    def __init__(self, sources: Mapping[str, VecEnv]) -> None:
        self.sources = dict(sources)
        first, *others = self.sources
        for other in others:
            _check_alike(first, self.sources[first], other, self.sources[other])
        self._ends = np.cumsum([own.num_envs for own in self.sources.values()])
        shared = self.sources[first]
        super().__init__(int(self._ends[-1]), shared.observation_space, shared.action_space)

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Gives each source seeds of its own: ``seed`` plus the number of rows before it, and so on within it."""
        if seed is None:
            seed = int(np.random.default_rng().integers(2**31))
        first = [0, *self._ends[:-1].tolist()]
        return [one for own, before in zip(self.sources.values(), first, strict=True) for one in own.seed(seed + before)]

    @property
    def _seeds(self) -> list[int | None]:
        """SB3's seeds of the next reset, which wrappers may set row by row."""
        return [seed for own in self.sources.values() for seed in own.unwrapped._seeds]

    @_seeds.setter
    def _seeds(self, seeds: list[int | None]) -> None:
        for own, end in zip(self.sources.values(), self._ends.tolist(), strict=True):
            own.unwrapped._seeds = seeds[end - own.num_envs : end]

    def reset(self) -> Any:
        """Starts an episode in every row."""
        return _joined([own.reset() for own in self.sources.values()])

    @property
    def reset_infos(self) -> list[dict[str, Any]]:
        """Infos of each row's last reset."""
        return [info for own in self.sources.values() for info in own.unwrapped.reset_infos]

    @reset_infos.setter
    def reset_infos(self, infos: list[dict[str, Any]]) -> None:
        """SB3's base class sets empty ones; those of the sources stay."""

    def step_async(self, actions: Array) -> None:
        """Hands each source its rows of the actions."""
        for own, part in zip(self.sources.values(), np.split(actions, self._ends[:-1]), strict=True):
            own.step_async(part)

    def step_wait(self) -> VecEnvStepReturn:
        """Takes one step in every row, source by source."""
        observations, rewards, dones, infos = zip(*(own.step_wait() for own in self.sources.values()), strict=True)
        return _joined(observations), np.concatenate(rewards), np.concatenate(dones), [one for own in infos for one in own]

    def close(self) -> None:
        """Closes all sources."""
        for own in self.sources.values():
            own.close()

    def get_images(self) -> Sequence[Array | None]:
        """The rendered frame of each row."""
        return [image for own in self.sources.values() for image in own.get_images()]

    def has_attr(self, attr_name: str) -> bool:
        """Whether all sources have the attribute."""
        return all(own.has_attr(attr_name) for own in self.sources.values())

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The attribute of each requested row's source."""
        rows = self._rows(indices)
        answers = {source: self.sources[source].get_attr(attr_name) for source in {source for source, _ in rows}}
        return [answers[source][row] for source, row in rows]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Sets the attribute in all sources; raises ValueError if only some rows are requested."""
        if len(set(self._get_indices(indices))) < self.num_envs:
            raise ValueError(should("indices", "be None: a vector environment's attributes apply to all rows", indices))
        for own in self.sources.values():
            own.set_attr(attr_name, value)

    def env_method(self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any) -> list[Any]:
        """Calls the method once in each source; the answers of the requested rows."""
        answers = [
            one for own in self.sources.values() for one in own.env_method(method_name, *method_args, indices=None, **method_kwargs)
        ]
        return [answers[row] for row in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type[Any], indices: VecEnvIndices = None) -> list[bool]:
        """False: wrappers of single environments do not apply to vector environments."""
        return [False for _ in self._get_indices(indices)]

    def _rows(self, indices: VecEnvIndices) -> list[tuple[str, int]]:
        """The name of each requested row's source, and the row within it."""
        every = [(name, row) for name, own in self.sources.items() for row in range(own.num_envs)]
        return [every[row] for row in self._get_indices(indices)]


class Standardised(VecEnvWrapper):
    """Divides rewards by their root mean square over the rows of the step, which is at least ``floor``.

    After :class:`~mtl_gym.agents.leave_one_out.LeaveOneOut` that is the deviation between rollouts of the same instance, so that
    sources whose rewards have other units, or where actions do more, count alike. Where actions do nothing the deviation is that of
    noise, which the floor keeps small. Use it with a reward that comes once, at the end of an episode, when all rows receive it in
    the same step: dense rewards would be weighted step by step.
    """

    def __init__(self, venv: VecEnv, floor: float) -> None:
        super().__init__(venv)
        self.floor = number("reward_floor", floor, low=0.0, ends="(]")

    def reset(self) -> Any:
        """Starts an episode in every row."""
        return self.venv.reset()

    def step_wait(self) -> VecEnvStepReturn:
        """Takes one step and divides the rewards."""
        observations, rewards, dones, infos = self.venv.step_wait()
        deviation = float(np.sqrt(np.mean(np.square(rewards, dtype=np.float64))))
        return observations, (rewards / max(deviation, self.floor)).astype(np.float32), dones, infos


def _joined(parts: Sequence[Any]) -> Any:
    """The observations of all sources, one after the other."""
    if isinstance(parts[0], dict):
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return np.concatenate(parts)


def _check_alike(first: str, own: VecEnv, other: str, another: VecEnv) -> None:
    if own.action_space != another.action_space:
        condition = f"have the same actions everywhere; {first!r} has {own.action_space}, and {other!r} {another.action_space}"
        raise ValueError(should("problem", condition, [first, other], 'action="rule" has the same for any number of tasks.'))
    seen, known = dict(own.observation_space.items()), dict(another.observation_space.items())  # type: ignore[attr-defined]
    if differing := [name for name in seen if seen[name] != known.get(name)]:
        name = differing[0]
        condition = (
            f"have the same observations everywhere; {name!r} is {seen[name]} in {first!r}, and {known.get(name)} in {other!r}"
        )
        raise ValueError(should("problem", condition, [first, other], "Observe what does not depend on the number of tasks."))

"""Episodes of a policy as arrays, played side by side."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box

from mtl_gym.context import own_mode
from mtl_gym.envs.vector import MTLVectorEnv
from mtl_gym.evaluation.player import Player

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Episode:
    """One episode of T decisions, as a plain loop would see it.

    Attributes:
        policy: Label of the policy.
        instance: Id of the instance.
        observations: (T + 1, length) float32 by name.
        actions: (T, ...), as the environment took them.
        rewards: (T,) float64.
        terminations, truncations: (T,) bool.
        infos: (T + 1,) arrays by name, in the structure of ``info``; the first are those of ``reset``.
    """

    policy: str
    instance: int
    observations: dict[str, Array]
    actions: Array
    rewards: Array
    terminations: Array
    truncations: Array
    infos: dict[str, Any]

    def __len__(self) -> int:
        return len(self.rewards)


@own_mode()
def played(player: Player, envs: MTLVectorEnv, ids: Sequence[int], noise: float, advance: Callable[[int], None]) -> list[Episode]:
    """One episode of each instance, side by side, by the player's policy.

    Args:
        player: The policy in this environment.
        envs: A row for each instance; ``autoreset_mode="Disabled"``.
        ids: The instances.
        noise: Exploration, as in :func:`mtl_gym.record`.
        advance: Called with the number of training steps just done, over all rows.
    """
    explore, lengths, reached = _Noise(noise, envs, player.label, ids), np.zeros(len(ids), dtype=np.int64), 0
    observations, infos = envs.reset(options={"instance": np.asarray(ids)})
    seen, taken = [copy.deepcopy((observations, infos))], []
    player.begin(ids)
    while not envs.finished.all():
        lengths += ~envs.finished
        actions = explore(player.act(observations))
        observations, rewards, terminated, truncated, infos = envs.step(actions)
        seen.append(copy.deepcopy((observations, infos)))
        taken.append((actions, rewards.copy(), terminated.copy(), truncated.copy()))
        before, whole = reached, envs.arguments.recipe.train_steps
        reached = round((len(ids) if envs.finished.all() else float(envs.view.progress.sum())) * whole)
        advance(reached - before)
    player.end()
    states, told = (_stacked(own) for own in zip(*seen, strict=True))
    actions, rewards, terminated, truncated = (np.stack(own) for own in zip(*taken, strict=True))
    found = []
    for row, (id, length) in enumerate(zip(ids, lengths.tolist(), strict=True)):
        state, info = (_of_row(values, row, length + 1) for values in (states, told))
        own = [values[:length, row].copy() for values in (actions, rewards, terminated, truncated)]
        found.append(Episode(player.label, int(id), state, own[0], own[1], own[2], own[3], info))
    return found


def _stacked(items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Arrays (T, N, ...) of arrays (N, ...) by name, also in nested mappings; without the masks of infos."""
    names = [name for name in items[0] if not name.startswith("_")]
    columns = {name: [item[name] for item in items] for name in names}
    return {name: _stacked(own) if isinstance(own[0], Mapping) else np.stack(own) for name, own in columns.items()}


def _of_row(values: Mapping[str, Any], row: int, length: int) -> dict[str, Any]:
    """The first ``length`` entries of a row."""
    return {
        name: _of_row(own, row, length) if isinstance(own, Mapping) else own[:length, row].copy() for name, own in values.items()
    }


class _Noise:
    """Explores around a policy's actions; every episode has a generator of its own, seeded by its instance and its policy."""

    def __init__(self, scale: float, envs: MTLVectorEnv, label: str, ids: Sequence[int]) -> None:
        self._scale, self._envs = scale, envs
        self._streams = [np.random.default_rng([id, zlib.crc32(label.encode())]) for id in ids]

    def __call__(self, actions: Array) -> Array:
        """The actions (N, ...) that are taken, in the dtype of the action space."""
        space = self._envs.single_action_space
        taken = actions.astype(space.dtype)
        if not self._scale:
            return taken
        rows = np.flatnonzero(~self._envs.finished).tolist()
        if isinstance(space, Box):
            for row in rows:
                taken[row] = np.clip(taken[row] + self._scale * self._streams[row].normal(size=space.shape), space.low, space.high)
            return taken
        choices = int(space.n)
        masks = self._envs.action_masks() if self._envs.decision.masked else np.ones((self._envs.num_envs, choices), dtype=bool)
        for row in rows:
            if self._streams[row].random() < self._scale:
                taken[row] = self._streams[row].choice(np.flatnonzero(masks[row]))
        return taken

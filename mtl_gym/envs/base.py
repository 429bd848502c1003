"""All dynamics of the environments, once: N trainings as a Gymnasium ``VectorEnv``. The scalar form is row 0 of N = 1."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
import torch
from gymnasium.spaces import Box, Discrete
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Tensor

from mtl_gym.arguments import positive_int, should
from mtl_gym.envs.arguments import Arguments, check_autoreset_mode, check_reset_options, check_seeds
from mtl_gym.envs.infos import Array, Infos, final_infos, masked, merged
from mtl_gym.envs.meter import Measures, Meter
from mtl_gym.envs.observations import observe, space
from mtl_gym.envs.rewards import REWARDS
from mtl_gym.envs.signals import Signals
from mtl_gym.envs.weights import checked_actions
from mtl_gym.problems.instances import TRAINING_IDS
from mtl_gym.training.learner import Learner

_RESET_FIRST = "Call reset before step or render."


class MTLVectorEnv(VectorEnv[dict[str, Array], Array, Array]):
    """N trainings of multi-task networks that are stepped together; what an action does is the subclass's.

    Args:
        num_envs: N.
        render_mode: ``None`` or ``"rgb_array"``.
        autoreset_mode: ``"SameStep"``, ``"NextStep"`` or ``"Disabled"`` (or the enum). Under ``"Disabled"`` a finished row ignores
            actions, with reward 0, until it is reset.
        max_episode_steps: Decisions after which an episode is truncated.
        probes: What actions need the learner to probe.
        arguments: The common arguments; see the environment's manual.
        learner: The trainings.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 4, "autoreset_mode": AutoresetMode.SAME_STEP}
    single_action_space: Box | Discrete

    def __init__(
        self,
        num_envs: int,
        action_space: Box | Discrete,
        arguments: Arguments,
        learner: Learner,
        *,
        probes: Collection[str] = (),
        render_mode: str | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.SAME_STEP,
        max_episode_steps: int | None = None,
    ) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(should("render_mode", "be None or 'rgb_array'", render_mode))
        self.metadata = {**self.metadata, "autoreset_mode": check_autoreset_mode(autoreset_mode)}
        self.num_envs, self.render_mode, self.arguments = num_envs, render_mode, arguments
        self.max_episode_steps = None if max_episode_steps is None else positive_int("max_episode_steps", max_episode_steps)
        self.single_observation_space = space(arguments.observe, arguments.recipe, self._sizes())
        self.single_action_space = action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(action_space, num_envs)
        self.learner = learner
        self._meter = self._make_meter(probes)
        self._streams: list[np.random.Generator | None] = [None] * num_envs
        self.finished = np.ones(num_envs, dtype=bool)
        self._decisions = np.zeros(num_envs, dtype=np.int64)
        self._signals: Signals | None = None

    @property
    def signals(self) -> Signals:
        """What is known of the trainings now.

        Raises:
            gymnasium.error.ResetNeeded: Before the first reset.
        """
        if self._signals is None:
            raise gymnasium.error.ResetNeeded(_RESET_FIRST)
        return self._signals

    @abstractmethod
    def _train(self, actions: Tensor, active: Tensor) -> Tensor:
        """Takes the decision's optimiser steps in the active rows; returns what the actions said (N, K)."""

    @abstractmethod
    def _action_infos(self, actions: Tensor) -> Infos:
        """What ``info`` says of the actions: arrays (N,), NaN where there is nothing to say."""

    def _sizes(self) -> dict[str, int]:
        """Lengths of observations that follow from the environment's own arguments."""
        return {}

    def _make_meter(self, probes: Collection[str]) -> Measures:
        """What measures the trainings; ``probes`` are what actions need."""
        return Meter(self.arguments, self.learner, probes)

    # --- reset ------------------------------------------------------------------------------------------------------------

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Array], Infos]:
        """Starts episodes.

        Args:
            seed: s seeds row i's stream of instance ids with s + i; or one seed for each row.
            options: ``"instance"``: an id, or one for each row, instead of drawn ones. ``"reset_mask"``: (N,) bool array, the rows
                to reset; the others are left bit for bit.

        Returns:
            Observations of all rows, and infos of the rows that were reset.

        Raises:
            TypeError, ValueError: If an option or the number of seeds is wrong; nothing is changed then.
        """
        mask, ids = check_reset_options(options or {}, self.num_envs)
        if self._signals is None and not mask.all():
            raise gymnasium.error.ResetNeeded("Reset all rows once before a partial reset.")
        streams = check_seeds(seed, self.num_envs)
        for row in np.flatnonzero(mask).tolist():
            self._streams[row] = streams[row] or self._streams[row]
        self._begin(mask, ids)
        return observe(self.arguments.observe, self.signals), self._instance_infos(mask)

    def _begin(self, mask: npt.NDArray[np.bool_], ids: Sequence[int] | None = None) -> None:
        rows = np.flatnonzero(mask).tolist()
        self.learner.begin(rows, [ids[row] if ids is not None else self._draw_id(row) for row in rows])
        self.finished[mask] = False
        self._decisions[mask] = 0
        chosen = self._tensor(mask)
        fresh = self._meter.first(chosen)
        self._signals = fresh if self._signals is None else fresh.where(chosen, self._signals)

    def _draw_id(self, row: int) -> int:
        stream = self._streams[row]
        if stream is None:
            stream = self._streams[row] = seeding.np_random()[0]
        return self.draw_id(stream)

    def draw_id(self, stream: np.random.Generator) -> int:
        """Draws the id of a training instance."""
        return int(stream.integers(*TRAINING_IDS))

    # --- step -------------------------------------------------------------------------------------------------------------

    def step(self, actions: npt.ArrayLike) -> tuple[dict[str, Array], Array, Array, Array, Infos]:
        """Takes one decision in every row that plays.

        Args:
            actions: (N, ...) within the space.

        Returns:
            Observations, rewards (N,) float64, terminated and truncated (N,) bool, and infos.

        Raises:
            ValueError: If the actions have another shape, or are not finite or outside the space; nothing is changed then.
            gymnasium.error.ResetNeeded: Before the first reset.
        """
        previous, mode = self.signals, self.metadata["autoreset_mode"]
        checked = self._tensor(checked_actions(actions, self.single_action_space, self.num_envs))
        playing = ~self.finished
        active = self._tensor(playing)
        factors = self._train(checked, active)
        self._decisions[playing] += 1
        signals = self._meter.next(previous, factors, active)
        over = as_array(signals.progress >= 1) | (self._decisions >= (self.max_episode_steps or np.inf))
        self._signals = self._meter.scored(signals, self._tensor(playing & over))
        rewards, diverged = self._rewards(playing)
        terminated = playing & (diverged | as_array(signals.progress >= 1))
        truncated = playing & over & ~terminated
        ended = terminated | truncated
        infos = self._step_infos(playing, diverged, ended, self._action_infos(checked))
        observations = observe(self.arguments.observe, self.signals)
        restarting = ended if mode is AutoresetMode.SAME_STEP else self.finished & (mode is AutoresetMode.NEXT_STEP)
        self.finished = self.finished | ended
        if restarting.any():
            if mode is AutoresetMode.SAME_STEP:
                infos = final_infos(infos, observations, ended)
            self._begin(restarting)
            observations = observe(self.arguments.observe, self.signals)
            infos = merged(infos, self._instance_infos(restarting), restarting)
        return observations, rewards, terminated, truncated, infos

    def _rewards(self, playing: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """Rewards (N,), and the rows (N,) whose training has become non-finite, which are paid the penalty."""
        row = REWARDS[self.arguments.reward]
        rewards = as_array(row.function(self.signals).double())
        diverged = playing & ~(as_array(self._meter.is_finite(self.signals)) & np.isfinite(rewards))
        return np.where(playing, np.where(diverged, row.penalty, rewards), 0.0), diverged

    def _tensor(self, array: Array) -> Tensor:
        return torch.from_numpy(array).to(self.arguments.recipe.device)

    # --- infos ------------------------------------------------------------------------------------------------------------

    def _instance_infos(self, mask: npt.NDArray[np.bool_]) -> Infos:
        ids = np.array([instance.id if instance else -1 for instance in self.learner.instances], dtype=np.int64)
        return masked({"instance": ids}, mask)

    def _step_infos(
        self, playing: npt.NDArray[np.bool_], diverged: npt.NDArray[np.bool_], ended: npt.NDArray[np.bool_], of_actions: Infos
    ) -> Infos:
        forward, backward = as_array(self.learner.replicas.passes.double()).T.copy()
        infos = masked({"forward": forward, "backward": backward, "diverged": diverged}, playing)
        for name, values in of_actions.items():
            infos |= masked({name: np.nan_to_num(values)}, playing & ~np.isnan(values))
        infos |= self._instance_infos(playing)
        if ended.any():
            values = {name: as_array(value) for name, value in self.learner.metrics("test").items()}
            names = [self.learner.metric_names(row) for row in range(self.num_envs)]
            test: Infos = {}
            for name, value in values.items():
                test |= masked({name: value}, ended & np.array([name in own for own in names]))
            infos |= masked({"test": test}, ended)
        return infos

    # --- keeping and drawing ----------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """A copy of all that the environment is, for :meth:`restore`; a policy's memory is not part of it."""
        names = ("_streams", "finished", "_decisions", "_signals")
        return copy.deepcopy({name: getattr(self, name) for name in names}) | {"learner": self.learner.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes back to a :meth:`state`; what follows is the same, bit for bit (with convolutions: within tolerance)."""
        self.learner.restore(state["learner"])
        for name, value in copy.deepcopy({name: value for name, value in state.items() if name != "learner"}).items():
            setattr(self, name, value)

    def render(self) -> tuple[Array, ...] | None:
        """Draws each row's losses, weights and gaps so far: (height, width, 3) uint8; ``None`` without a render mode."""
        if self.render_mode is None:
            return None
        if self._signals is None:
            raise gymnasium.error.ResetNeeded(_RESET_FIRST)
        return tuple(self._draw(row) for row in range(self.num_envs))

    def _draw(self, row: int) -> Array:
        from mtl_gym.envs.rendering import draw_training

        return draw_training(self.learner, row)


def as_array(tensor: Tensor) -> Array:
    """The numbers of a tensor."""
    return tensor.cpu().numpy()

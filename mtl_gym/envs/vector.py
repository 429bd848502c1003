"""The dynamics of all environments: N trainings as a Gymnasium ``VectorEnv``. The scalar form is row 0 of N = 1."""

from __future__ import annotations

import copy
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import gymnasium
import numpy as np
import numpy.typing as npt
import torch
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces import Box, Discrete
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Tensor

from mtl_gym.checks import positive_int, should
from mtl_gym.context import own_mode
from mtl_gym.envs.arguments import check_arguments
from mtl_gym.envs.infos import Array, Infos, as_array, final_infos, masked, measured
from mtl_gym.envs.inputs import check_actions, check_autoreset_mode, check_reset_options, check_seeds
from mtl_gym.envs.made import represented, specified
from mtl_gym.envs.meter import Meter
from mtl_gym.envs.observations import observe, space
from mtl_gym.envs.spec import EnvironmentSpec
from mtl_gym.training.memory import check_memory
from mtl_gym.training.probes import GAINS, SCORE, View
from mtl_gym.training.references import reference_rows

_RESET_FIRST = "Call reset before step or render."


class MTLVectorEnv(VectorEnv[dict[str, Array], Array, Array]):
    """N trainings of multi-task networks, stepped together. The decision implements the actions; ``specification`` contains all
    differences between environments.

    Args:
        num_envs: N.
        render_mode: ``None`` or ``"rgb_array"``.
        autoreset_mode: ``"SameStep"``, ``"NextStep"`` or ``"Disabled"`` (or the enum). Under ``"Disabled"``, a finished row ignores
            actions and receives 0 until it is reset.
        max_episode_steps: Decisions after which an episode is truncated.
        arguments: The environment's own; see the manual of its scalar form.

    Attributes:
        decision: The decision, with the trainings it acts on.
        arguments: The checked common arguments.
        estimated_bytes: Memory that an episode takes at most (:mod:`mtl_gym.training.memory`); 0 if that was not estimated.
        finished: (N,) bool, the rows whose episode has ended or not begun.
    """

    specification: ClassVar[EnvironmentSpec]
    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 4, "autoreset_mode": AutoresetMode.SAME_STEP}

    @own_mode()
    def __init__(
        self,
        num_envs: int = 1,
        *,
        render_mode: str | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.SAME_STEP,
        max_episode_steps: int | None = None,
        **arguments: Any,
    ) -> None:
        if render_mode is not None and not (isinstance(render_mode, str) and render_mode in self.metadata["render_modes"]):
            raise ValueError(should("render_mode", "be None or 'rgb_array'", render_mode))
        spec, self.render_mode, self.num_envs = self.specification, render_mode, positive_int("num_envs", num_envs)
        self.autoreset_mode = check_autoreset_mode(autoreset_mode)
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}
        self.max_episode_steps = None if max_episode_steps is None else positive_int("max_episode_steps", max_episode_steps)
        self.arguments = common = check_arguments(spec, **arguments)
        self._given = {"num_envs": self.num_envs, **arguments}
        self.own_arguments = {name: arguments.get(name, default) for name, default in spec.own_arguments.items()}
        rows = {name: spec.observations[name] for name in common.observe}
        needs = [*(need for row in rows.values() for need in row.needs), *spec.rewards[common.reward].needs]
        self.decision = spec.decide(common, self.num_envs, **self.own_arguments)
        self.estimated_bytes = self.decision.estimated_bytes
        if not {GAINS, SCORE}.isdisjoint(needs):  # the first measurement trains references, if they are not known
            self.estimated_bytes += check_memory(common.problem, common.recipe, reference_rows(common.recipe), argument=None)
        self._meter = Meter(self.decision, needs, reward_every=common.reward_every)
        tasks, batch_size = common.recipe.num_tasks, common.recipe.batch_size
        self.single_observation_space = space(rows, tasks, batch_size, self.decision.sizes())
        self.single_action_space: Box | Discrete = self.decision.space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.finished = np.ones(self.num_envs, dtype=bool)
        self._metrics = [f"{task.name}/{metric}" for task in common.problem.tasks for metric in task.metrics]
        self._streams: list[np.random.Generator | None] = [None] * self.num_envs
        self._decisions = np.zeros(self.num_envs, dtype=np.int64)
        self._diverged = np.zeros(self.num_envs, dtype=bool)
        self._view: View | None = None

    __repr__ = represented

    @property
    def spec(self) -> EnvSpec | None:
        """Gymnasium's specification of how it was made, JSON-plain if its problem can be found again."""
        return vars(self).get("_spec")

    @spec.setter
    def spec(self, spec: EnvSpec | None) -> None:
        """Keeps it, with the problem as the text by which it is found."""
        self._spec = specified(spec, self.arguments.problem)

    @property
    def view(self) -> View:
        """The current measurements; raises ``gymnasium.error.ResetNeeded`` before the first reset."""
        if self._view is None:
            raise gymnasium.error.ResetNeeded(_RESET_FIRST)
        return self._view

    @property
    def action_masks(self) -> Callable[[], npt.NDArray[np.bool_]]:
        """Returns the currently valid actions (N, A).

        Raises:
            AttributeError: If no action is ever masked: clients test for the attribute.
        """
        if not self.decision.masked:
            raise AttributeError(f"{self.specification.id} has no masks: all of its actions are valid.")
        return self._masks

    @own_mode()
    def _masks(self) -> npt.NDArray[np.bool_]:
        return as_array(self.decision.masks(self.view))

    # --- reset ---------------------------------------------------------------------------------------------------------------

    @own_mode()
    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Array], Infos]:
        """Starts episodes.

        Args:
            seed: s seeds the generator of row i's instance ids with s + i; or one seed per row.
            options: ``"instance"``: an id, or one per row, instead of drawn ones. ``"reset_mask"``: (N,) bool array, the rows to
                reset; the others do not change at all.

        Returns:
            Observations of all rows, and infos of the rows that were reset.

        Raises:
            TypeError, ValueError: If an option or the number of seeds is wrong, before anything changes.
        """
        mask, ids = check_reset_options(options or {}, self.num_envs)
        if self._view is None and not mask.all():
            raise gymnasium.error.ResetNeeded("Reset all rows once before a partial reset.")
        streams = check_seeds(seed, self.num_envs)
        for row in np.flatnonzero(mask).tolist():
            self._streams[row] = streams[row] or self._streams[row]
        self._begin(mask, ids)
        return self._observations(), masked(self._infos(), mask)

    def _begin(self, mask: npt.NDArray[np.bool_], ids: Sequence[int] | None = None) -> None:
        rows = np.flatnonzero(mask).tolist()
        self.decision.trainings.begin(rows, [ids[row] if ids is not None else self._draw_id(row) for row in rows])
        self.decision.begin(rows)
        self.finished[mask] = self._diverged[mask] = False
        self._decisions[mask] = 0
        chosen = self._tensor(mask)
        fresh = self._meter.first(chosen)
        self._view = fresh if self._view is None else fresh.where(chosen, self._view)

    def _draw_id(self, row: int) -> int:
        stream = self._streams[row]
        if stream is None:
            stream = self._streams[row] = seeding.np_random()[0]
        return self.decision.draw_id(stream)

    # --- step ----------------------------------------------------------------------------------------------------------------

    @own_mode()
    def step(self, actions: npt.ArrayLike) -> tuple[dict[str, Array], Array, Array, Array, Infos]:
        """Takes one decision in every unfinished row.

        Args:
            actions: (N, ...) within the space.

        Returns:
            Observations, rewards (N,) float64, terminated and truncated (N,) bool, and infos.

        Raises:
            ValueError: If actions have the wrong shape, are not finite or outside the space, before anything changes.
            gymnasium.error.ResetNeeded: Before the first reset.
        """
        previous, mode = self.view, self.autoreset_mode
        checked = self._tensor(check_actions(actions, self.single_action_space, self.num_envs))
        playing = ~self.finished
        rewards, done, truncated = self._decide(checked, playing, previous)
        ended, infos = done | truncated, masked(self._infos(done | truncated), playing)
        observations = self._observations()
        restarting = ended if mode is AutoresetMode.SAME_STEP else self.finished & (mode is AutoresetMode.NEXT_STEP)
        self.finished = self.finished | ended
        if restarting.any():
            final = final_infos(infos, observations, ended) if mode is AutoresetMode.SAME_STEP else {}
            self._begin(restarting)
            observations, infos = self._observations(), masked(self._infos(), playing | restarting) | final
        return observations, rewards, done, truncated, infos

    def _decide(
        self, actions: Tensor, playing: npt.NDArray[np.bool_], previous: View
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Applies the actions in the ``playing`` rows (N,); returns rewards, terminated and truncated."""
        active = self._tensor(playing)
        self.decision.apply(actions, active, previous)
        self._decisions[playing] += 1
        view = self._meter.next(previous, active)
        whole = as_array(view.progress >= 1)
        over = whole | (self._decisions >= (self.max_episode_steps or np.inf))
        self._view = self._meter.ended(view, self._tensor(playing & over))
        rewards, self._diverged = self._rewards(playing, previous)
        if self._diverged.any():
            self.decision.diverged(self._tensor(self._diverged))
        terminated = playing & (self._diverged | whole)
        return rewards, terminated, playing & over & ~terminated

    def _rewards(self, playing: npt.NDArray[np.bool_], previous: View) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """Rewards (N,), and the rows (N,) that diverged and receive the penalty."""
        row = self.specification.rewards[self.arguments.reward]
        rewards = as_array(row.function(self.view).double())
        diverged = playing & ~(as_array(self._meter.finite(self.view)) & np.isfinite(rewards))
        rewards = np.where(playing, np.where(diverged, row.penalty, rewards), 0.0)
        bonus = self.decision.bonus(self.view, previous) if row.priced else None
        return (rewards if bonus is None else rewards + np.where(playing & ~diverged, as_array(bonus), 0)), diverged

    def _tensor(self, array: Array) -> Tensor:
        return torch.from_numpy(array).to(self.decision.trainings.ledger.step.device)

    def _observations(self) -> dict[str, Array]:
        rows = self.specification.observations
        return observe(((name, rows[name]) for name in self.arguments.observe), self.view)

    def _infos(self, ended: npt.NDArray[np.bool_] | None = None) -> Infos:
        return measured(self.decision, self.view, self._metrics, self._diverged, ended)

    # --- keeping and drawing -------------------------------------------------------------------------------------------------

    def __setstate__(self, state: dict[str, Any]) -> None:
        if torch.is_inference_mode_enabled():  # in which a copy's tensors were made: they could never be trained
            with own_mode():
                state = copy.deepcopy(state)
        self.__dict__.update(state)

    @own_mode()
    def state(self) -> dict[str, Any]:
        """A copy of the environment's state for :meth:`restore`, without any policy's memory."""
        names = ("_streams", "finished", "_decisions", "_diverged", "_view")
        return copy.deepcopy({name: getattr(self, name) for name in names}) | {"trainings": self.decision.trainings.clone()}

    @own_mode()
    def restore(self, state: Mapping[str, Any]) -> None:
        """Restores a :meth:`state`; the continuation is bit-identical (with convolutions: within tolerance)."""
        self.decision.trainings.load(state["trainings"])
        for name, value in copy.deepcopy({name: value for name, value in state.items() if name != "trainings"}).items():
            setattr(self, name, value)

    @own_mode()
    def fork(self, source: Sequence[int], target: Sequence[int]) -> None:
        """Continues each row of ``target`` from where the row of ``source`` at the same place is, with its instance and training.

        With the same actions both then give the same results, which is what a search over schedules needs. A row keeps its own
        generator, which draws its next instance. The memory of a policy is not copied.

        Args:
            source: Rows, which may repeat.
            target: As many rows, each once.

        Raises:
            ValueError: If a row does not exist, a target repeats, or their numbers differ, before anything changes.
            gymnasium.error.ResetNeeded: Before the first reset.
        """
        view = self.view
        self.decision.trainings.copy_rows(source, target)
        rows = np.arange(self.num_envs)
        rows[list(target)] = list(source)
        self._view = view.taken(torch.from_numpy(rows).to(self.decision.trainings.ledger.step.device))
        self.finished, self._decisions, self._diverged = (own[rows] for own in (self.finished, self._decisions, self._diverged))

    @own_mode()  # groups may have to be trained
    def render(self) -> tuple[Array, ...] | None:
        """Draws each row so far: (height, width, 3) uint8; ``None`` without a render mode."""
        if self.render_mode is None:
            return None
        if self._view is None:
            raise gymnasium.error.ResetNeeded(_RESET_FIRST)
        draw = pkgutil.resolve_name(self.specification.draws)
        return tuple(draw(self.decision, row) for row in range(self.num_envs))

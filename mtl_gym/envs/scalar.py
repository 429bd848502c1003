"""The scalar form of every environment: row 0 of its vector form with N = 1."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.envs.registration import EnvSpec

from mtl_gym.checks import should
from mtl_gym.environments import SCRIPTED
from mtl_gym.envs.infos import Array, Infos, row_infos
from mtl_gym.envs.inputs import check_reset_options, check_seed
from mtl_gym.envs.made import represented, specified
from mtl_gym.envs.manual import manual
from mtl_gym.envs.spec import EnvironmentSpec
from mtl_gym.envs.vector import MTLVectorEnv
from mtl_gym.policies.answers import array_of


class MTLEnv(gymnasium.Env[dict[str, Array], Any]):
    """One training as a Gymnasium ``Env``. A subclass names its ``vector_form``; its docstring is the environment's manual, which
    explains the ``arguments``. ``render_mode`` is ``None`` or ``"rgb_array"``.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 4}
    vector_form: ClassVar[type[MTLVectorEnv]]
    specification: ClassVar[EnvironmentSpec]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.specification = cls.vector_form.specification
        cls.__doc__ = manual(cls.__doc__ or "", cls.specification)
        if cls.specification.id not in gymnasium.registry:  # of another package: ours are registered by their names
            scalar, vector = (f"{form.__module__}:{form.__qualname__}" for form in (cls, cls.vector_form))
            gymnasium.register(cls.specification.id, entry_point=scalar, vector_entry_point=vector)
            SCRIPTED[cls.specification.id] = scalar

    def __init__(self, *, render_mode: str | None = None, **arguments: Any) -> None:
        for name in ("num_envs", "autoreset_mode", "max_episode_steps"):
            if name in arguments:
                raise TypeError(should(name, "be given to gymnasium.make_vec (max_episode_steps: also to make)", arguments[name]))
        self.vector: MTLVectorEnv = self.vector_form(num_envs=1, render_mode=render_mode, autoreset_mode="Disabled", **arguments)
        self.observation_space = self.vector.single_observation_space
        self.action_space = self.vector.single_action_space
        self.render_mode = render_mode
        self._given = arguments

    @property
    def spec(self) -> EnvSpec | None:
        """Gymnasium's specification of how it was made, JSON-plain if its problem can be found again."""
        return vars(self).get("_spec")

    @spec.setter
    def spec(self, spec: EnvSpec | None) -> None:
        """Keeps it, with the problem as the text by which it is found."""
        self._spec = specified(spec, self.vector.arguments.problem)

    __repr__ = represented

    @property
    def action_masks(self) -> Callable[[], npt.NDArray[np.bool_]]:
        """Returns the currently valid actions (A,); see :attr:`MTLVectorEnv.action_masks`."""
        masks = self.vector.action_masks
        return lambda: masks()[0]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[str, Array], Infos]:
        """Starts an episode.

        Args:
            seed: Seeds the generator of instance ids, like row 0 of the vector form.
            options: ``{"instance": id}`` requests an instance instead of drawing one.

        Raises:
            TypeError, ValueError: If an option or the seed is wrong, before anything changes.
        """
        chosen = dict(options or {})
        check_reset_options(chosen, 1)
        super().reset(seed=check_seed(seed))
        if "instance" not in chosen:
            chosen["instance"] = self.vector.decision.draw_id(self.np_random)
        observations, infos = self.vector.reset(options=chosen)
        return _first(observations), _plain(row_infos(infos, 0))

    def step(self, action: npt.ArrayLike) -> tuple[dict[str, Array], float, bool, bool, Infos]:
        """Takes one decision.

        Raises:
            ValueError: If the action has the wrong shape, is not finite or outside the space, before anything changes.
            gymnasium.error.ResetNeeded: Before the first reset and after the end of an episode.
        """
        if self.vector.finished.all():
            raise gymnasium.error.ResetNeeded("The episode has not begun, or it has ended: call reset.")
        observations, rewards, terminated, truncated, infos = self.vector.step(array_of(action)[None])
        return _first(observations), float(rewards[0]), bool(terminated[0]), bool(truncated[0]), _plain(row_infos(infos, 0))

    def state(self) -> dict[str, Any]:
        """A copy of the environment's state; see :meth:`MTLVectorEnv.state`."""
        return {"vector": self.vector.state(), "stream": self.np_random.bit_generator.state}

    def restore(self, state: dict[str, Any]) -> None:
        """Restores a :meth:`state`."""
        self.vector.restore(state["vector"])
        self.np_random.bit_generator.state = state["stream"]

    def render(self) -> Array | None:
        """Draws the episode so far: (height, width, 3) uint8; ``None`` without a render mode."""
        frames = self.vector.render()
        return None if frames is None else frames[0]


def _first(observations: dict[str, Array]) -> dict[str, Array]:
    return {name: values[0].copy() for name, values in observations.items()}


def _plain(infos: Infos) -> Infos:
    """Infos as Python numbers."""
    return {name: _plain(value) if isinstance(value, dict) else value.item() for name, value in infos.items()}

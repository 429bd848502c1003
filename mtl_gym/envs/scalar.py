"""The scalar form of every environment: row 0 of its vector form with N = 1."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np
import numpy.typing as npt

from mtl_gym.arguments import should
from mtl_gym.envs.arguments import check_reset_options
from mtl_gym.envs.base import MTLVectorEnv
from mtl_gym.envs.infos import Array, Infos


class MTLEnv(gymnasium.Env[dict[str, Array], Any]):
    """One training as a Gymnasium ``Env``.

    Args:
        render_mode: ``None`` or ``"rgb_array"``.
        arguments: Those of the vector form.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 4}
    vector_form: ClassVar[type[MTLVectorEnv]]

    def __init__(self, *, render_mode: str | None = None, **arguments: Any) -> None:
        for name in ("num_envs", "autoreset_mode", "max_episode_steps"):
            if name in arguments:
                raise TypeError(should(name, "be given to gymnasium.make_vec (max_episode_steps: also to make)", arguments[name]))
        self.vector: MTLVectorEnv = self.vector_form(num_envs=1, render_mode=render_mode, autoreset_mode="Disabled", **arguments)
        self.observation_space = self.vector.single_observation_space
        self.action_space = self.vector.single_action_space
        self.render_mode = render_mode

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[str, Array], Infos]:
        """Starts an episode.

        Args:
            seed: Seeds the stream of instance ids; the same as row 0 of the vector form.
            options: ``{"instance": id}`` asks for an instance instead of drawing one.

        Raises:
            TypeError, ValueError: If an option is wrong; nothing is changed then.
        """
        chosen = dict(options or {})
        check_reset_options(chosen, 1)
        super().reset(seed=seed)
        if "instance" not in chosen:
            chosen["instance"] = self.vector.draw_id(self.np_random)
        observations, infos = self.vector.reset(options=chosen)
        return _first(observations), _first_infos(infos)

    def step(self, action: npt.ArrayLike) -> tuple[dict[str, Array], float, bool, bool, Infos]:
        """Takes one decision.

        Raises:
            ValueError: If the action has another shape, or is not finite or outside the space; nothing is changed then.
            gymnasium.error.ResetNeeded: Before the first reset, and after the end of an episode.
        """
        if self.vector.finished.all():
            raise gymnasium.error.ResetNeeded("The episode has not begun, or it has ended: call reset.")
        try:
            actions = np.asarray(action, dtype=np.float64)[None]
        except (TypeError, ValueError):
            raise TypeError(should("action", "be an array of numbers", action)) from None
        observations, rewards, terminated, truncated, infos = self.vector.step(actions)
        return _first(observations), float(rewards[0]), bool(terminated[0]), bool(truncated[0]), _first_infos(infos)

    def state(self) -> dict[str, Any]:
        """A copy of all that the environment is; see :meth:`MTLVectorEnv.state`."""
        return {"vector": self.vector.state(), "stream": self.np_random.bit_generator.state}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes back to a :meth:`state`."""
        self.vector.restore(state["vector"])
        self.np_random.bit_generator.state = state["stream"]

    def render(self) -> Array | None:
        """Draws losses, weights and gaps so far: (height, width, 3) uint8; ``None`` without a render mode."""
        frames = self.vector.render()
        return None if frames is None else frames[0]


def _first(observations: dict[str, Array]) -> dict[str, Array]:
    return {name: values[0].copy() for name, values in observations.items()}


def _first_infos(infos: Infos) -> Infos:
    """Row 0 of the infos that hold for it, as Python numbers."""
    first: Infos = {}
    for name, values in infos.items():
        if not name.startswith("_") and infos[f"_{name}"][0]:
            first[name] = _first_infos(values) if isinstance(values, dict) else values[0].item()
    return first

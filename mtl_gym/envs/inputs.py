"""Checks the inputs of ``reset`` and ``step`` before anything changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box, Discrete
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode

from mtl_gym.checks import choose, positive_int, should
from mtl_gym.policies.answers import array_of
from mtl_gym.problems.instances import TRAINING_IDS

RESET_OPTIONS = {"instance": "an id, or one per row", "reset_mask": "(N,) bool, the rows to reset"}


def check_autoreset_mode(mode: str | AutoresetMode) -> AutoresetMode:
    """Returns the enum of a mode (``"SameStep"``, ``"NextStep"`` or ``"Disabled"``)."""
    if isinstance(mode, AutoresetMode):
        return mode
    return choose("autoreset_mode", mode, {member.value: member for member in AutoresetMode})


def check_reset_options(options: dict[str, Any], num_envs: int) -> tuple[npt.NDArray[np.bool_], list[int] | None]:
    """Returns the rows to reset (N,) and the requested ids (N), if any; raises ``TypeError`` or ``ValueError`` if one is wrong."""
    for name in options:
        choose("options", name, RESET_OPTIONS)
    mask = options.get("reset_mask", np.ones(num_envs, dtype=bool))
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.shape != (num_envs,) or not mask.any():
        raise ValueError(should("options['reset_mask']", f"be a bool array of shape ({num_envs},) with a True", mask))
    if "instance" not in options:
        return mask.copy(), None
    try:
        ids = np.atleast_1d(np.asarray(options["instance"]))
    except ValueError:
        ids = np.empty(0)
    if not np.issubdtype(ids.dtype, np.integer):
        raise TypeError(should("options['instance']", "be a whole number, or one per row", options["instance"]))
    if ids.shape not in ((1,), (num_envs,)) or (ids < 0).any() or (ids >= TRAINING_IDS[1]).any():
        raise ValueError(should("options['instance']", f"be an id in [0, 2^62), or {num_envs} of them", options["instance"]))
    return mask.copy(), np.broadcast_to(ids, num_envs).tolist()


def check_seed(seed: object) -> int | None:
    """Returns a seed as Python's own int, which Gymnasium asks for, or ``None``.

    Raises:
        TypeError: If it is not a whole number.
        ValueError: If it is negative.
    """
    return None if seed is None else positive_int("seed", seed, least=0)


def check_seeds(seed: int | Sequence[int | None] | None, num_envs: int) -> list[np.random.Generator | None]:
    """Returns each row's generator of instance ids, seeded with ``seed + row`` for one number; ``None`` keeps a row's generator.

    Raises:
        TypeError: If a seed is not a whole number.
        ValueError: If the number of seeds is wrong or one is negative.
    """
    given = seed.tolist() if isinstance(seed, np.ndarray) else seed
    if isinstance(given, Sequence):
        seeds = [check_seed(own) for own in given]
    else:
        first = check_seed(given)
        seeds = [None if first is None else first + row for row in range(num_envs)]
    if len(seeds) != num_envs:
        raise ValueError(should("seed", f"be one number, or {num_envs}", seed))
    return [None if own is None else seeding.np_random(own)[0] for own in seeds]


def check_actions(actions: npt.ArrayLike, space: Box | Discrete, num_envs: int) -> npt.NDArray[Any]:
    """Returns the actions as a new array: float32, or int64 for a discrete space.

    Raises:
        TypeError: If they are not numbers.
        ValueError: If the shape is not (num_envs, ...), or a number is not finite or outside the space; the row is named.
    """
    values = array_of(actions).astype(np.float64)
    shape = (num_envs, *(space.shape or ()))
    if values.shape != shape:
        apart = isinstance(space, Box) and values.shape == (num_envs, 2 * space.shape[0])
        remedy = 'Separate weights for shared parameters and heads need scope="shared".' if apart else ""
        raise ValueError(should("actions", f"have the shape {shape}", values.shape, remedy))
    if isinstance(space, Discrete):
        inside = (values == np.round(values)) & (values >= 0) & (values < space.n)
        condition = f"be whole numbers from 0 to {space.n - 1}"
    else:
        inside = (np.isfinite(values) & (values >= space.low) & (values <= space.high)).all(axis=1)
        condition = f"be finite and within [{space.low.flat[0]:g}, {space.high.flat[0]:g}]"
    if not inside.all():
        row = int(np.argmin(inside))
        raise ValueError(should("actions", condition, values[row].tolist(), f"See row {row}."))
    return values.astype(space.dtype)

"""How far actions matter in an environment on a problem: the share of what differs in returns that they explain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box

from mtl_gym.checks import positive_int, should
from mtl_gym.envs.vector import MTLVectorEnv
from mtl_gym.evaluation.best_known import drawn, trainings
from mtl_gym.problems.scores import log_qualities

Array = npt.NDArray[np.float64]
CHANGE = 0.01
"""What is added to the actions of copies, in ranges of the action space: enough for other roundings, too little to matter."""
DIVERGED = 20.0
"""How far a training that diverged is behind the worst one, in points."""


def action_sensitivity(
    env: str, ids: Sequence[int], *, rows: int = 12, seed: int = 0, split: str = "reward", **arguments: Any
) -> dict[str, float]:
    """What returns consist of, when rows of the same instance, so of the same seed, take other actions.

    Of each instance, ``rows`` trainings begin alike and follow random actions of their own to the end. Where actions are numbers,
    each has a copy whose actions differ by a hundredth of the space's range: what differs between the two is chance. A return is
    the final ``quality``: the log of metrics in percent, whose small differences are those of ``delta_m``, but without its ends. A
    training that diverged is 20 points below the worst of its instance.

    Args:
        env: The environment's id.
        ids: Instances, at least two.
        rows: Trainings of an instance, at least two, and as many copies.
        seed: Of the actions.
        split: Where returns are measured.
        arguments: The environment's further arguments.

    Returns:
        ``within``: the mean variance of returns within instances, where actions alone differ, over that of all, at most 1; the
        rest is what instances differ in. ``deviation``: the deviation of returns within an instance, in points. ``actions``, where
        these are numbers: the share of the variance within instances that is not chance (1 less the mean square of the
        differences of copies over twice that variance). All are 0 if returns do not differ.

    Raises:
        ValueError: If there are too few rows or instances.
    """
    if positive_int("rows", rows) < 2 or len(ids) < 2:
        few = ("rows", rows) if rows < 2 else ("ids", [*ids])
        raise ValueError(should(few[0], "be at least two: a single one has no variance", few[1]))
    envs = trainings(env, 2 * rows, arguments)
    rng = np.random.default_rng(seed)
    returns = np.array([_returns(envs, id, rng, split) for id in ids])  # (n, 2, rows)
    numbers = isinstance(envs.single_action_space, Box)
    envs.close()
    first, second = returns[:, 0], returns[:, 1]
    within, total = float(first.var(axis=1, ddof=1).mean()), float(first.var(ddof=1))
    found = {"within": min(within / total, 1.0) if total > 0 else 0.0, "deviation": within**0.5}
    if numbers:
        noise = float(np.square(first - second).mean()) / 2
        found["actions"] = max(1 - noise / within, 0.0) if within > 0 else 0.0
    return found


def _returns(envs: MTLVectorEnv, id: int, rng: np.random.Generator, split: str) -> Array:
    """Returns (2, rows) of an instance's trainings, and of their copies; choices have copies with the same ones."""
    rows = envs.num_envs // 2
    envs.reset(options={"instance": np.full(2 * rows, id)})
    space = envs.single_action_space
    held = _held(space, rows, rng) if isinstance(space, Box) else None
    while not envs.finished.all():
        envs.step(np.tile(drawn(envs, rng)[:rows], 2) if held is None else held)
    return _qualities(envs, split).reshape(2, rows)


def _qualities(envs: MTLVectorEnv, split: str) -> Array:
    """The final quality (N,) of each row, in points: that of the main task, or the mean over tasks."""
    runs, problem, main_task = envs.decision.trainings, envs.arguments.problem, envs.arguments.recipe.main_task
    known = 100 * log_qualities(problem, runs.metrics(split)).cpu()
    main = [task.name for task in problem.tasks].index(main_task) if main_task else None
    own = (known.gather(1, runs.ledger.tasks.cpu()).mean(1) if main is None else known[:, main]).numpy()
    lost = ~(runs.finite().cpu().numpy() & np.isfinite(own))
    worst = own[~lost].min() if not lost.all() else 0.0
    return np.asarray(np.where(lost, worst - DIVERGED, own))


def _held(space: Box, rows: int, rng: np.random.Generator) -> npt.NDArray[Any]:
    """Actions (2 rows, ...) that are held: random ones, then those of the copies."""
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    own = rng.uniform(low, high, (rows, *space.shape))
    copies = own + CHANGE * (high - low) * rng.choice([-1, 1], own.shape)
    return np.concatenate([own, copies]).clip(low, high).astype(space.dtype)

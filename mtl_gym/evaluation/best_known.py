"""What is known to be possible on an instance: a schedule of actions, found by searching over trainings that fork.

All rows are trainings of one instance. Each holds an action of its own; at some decisions the better ones, by their scores on
*reward*, go on as they are, and the others continue from where these stand, with actions near theirs. So a search costs as many
trainings as it has rows. *test* plays no part, so what was chosen on *reward* may lose there: the result is the best schedule that
is known, never an optimum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box
from scipy.stats import qmc

from mtl_gym.environments import specification
from mtl_gym.envs.spec import Search
from mtl_gym.envs.vector import MTLVectorEnv
from mtl_gym.evaluation.single_task import reference_metrics
from mtl_gym.problems.scores import WORST_DELTA_M, delta_m

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Found:
    """The best known schedule of an instance.

    Attributes:
        instance: Its id.
        delta_m: On *test*, in percent.
        chosen_by: The same on *reward*, by which it was chosen.
        schedule: Actions (D, ...), those of a training that diverged or ended up to its end.
        trainings: How many trainings were searched.
        first: ``delta_m`` on *test* of the row that held the first action: an anchor, if there are any.
    """

    instance: int
    delta_m: float
    chosen_by: float
    schedule: list[Any] = field(repr=False)
    trainings: int
    first: float


def best_known(env: str, instance: int, *, rows: int = 64, seed: int = 0, **arguments: Any) -> Found:
    """Searches the best schedule of an instance.

    Args:
        env: The environment's id, with actions in a box or with masks.
        instance: Id of the instance.
        rows: Trainings, at least one more than anchors.
        seed: Of the drawn actions.
        arguments: The environment's further arguments.
    """
    search, rng = specification(env).search, np.random.default_rng([seed, instance])
    envs = trainings(env, rows, arguments)
    envs.reset(options={"instance": np.full(rows, instance)})
    references = reference_metrics(envs.arguments, [instance])
    chosen, forks = candidates(envs, rows, seed), [*search.forks]
    schedule: list[Array] = []
    while not envs.finished.all():
        if forks and float(envs.view.progress.max()) >= forks[0]:
            forks.pop(0)
            source, chosen = _forked(scores(envs, "reward", references), chosen, search, rng)
            moved = np.flatnonzero(source != np.arange(rows))
            envs.fork(source[moved].tolist(), moved.tolist())
            schedule = [own[source] for own in schedule]
        if not isinstance(envs.single_action_space, Box):
            chosen = drawn(envs, rng)
        schedule.append(chosen)
        envs.step(chosen)
    rewarded, tested = scores(envs, "reward", references), scores(envs, "test", references)
    best = int(rewarded.argmax())
    envs.close()
    return Found(
        instance=instance,
        delta_m=float(tested[best]),
        chosen_by=float(rewarded[best]),
        schedule=np.stack(schedule)[:, best].tolist(),
        trainings=rows,
        first=float(tested[0]),
    )


def constants(env: str, ids: Sequence[int], *, rows: int = 64, seed: int = 0, **arguments: Any) -> dict[str, Array]:
    """What actions that are held throughout are worth: ``actions`` (A, ...), and ``delta_m`` (A, n) on ``reward`` and ``test``.

    Args:
        env: The environment's id, one with actions in a box.
        ids: Instances.
        rows: Number of actions, those with which :func:`best_known` begins.
        seed: Of the drawn actions.
        arguments: The environment's further arguments.
    """
    envs = trainings(env, rows, arguments)
    actions, found = candidates(envs, rows, seed), {"reward": np.zeros((rows, len(ids))), "test": np.zeros((rows, len(ids)))}
    references = reference_metrics(envs.arguments, ids)
    for place, id in enumerate(ids):
        envs.reset(options={"instance": np.full(rows, id)})
        while not envs.finished.all():
            envs.step(actions)
        for split, own in found.items():
            own[:, place] = scores(envs, split, references)
    envs.close()
    return {"actions": actions, **found}


def held(env: str, ids: Sequence[int], action: Array, **arguments: Any) -> Array:
    """``delta_m`` (n,) on *test* of instances with an action that is held throughout."""
    envs = trainings(env, len(ids), arguments)
    envs.reset(options={"instance": np.asarray(ids)})
    while not envs.finished.all():
        envs.step(np.repeat(action[None], len(ids), axis=0))
    found = scores(envs, "test", reference_metrics(envs.arguments, ids))
    envs.close()
    return found


def trainings(env: str, rows: int, arguments: Mapping[str, Any]) -> MTLVectorEnv:
    """The vector environment of a search, whose rows do not restart."""
    spec = specification(env)
    given = {"observe": ["progress"] if "progress" in spec.observations else None, "reward": "none"}
    made = gymnasium.make_vec(
        env,
        num_envs=rows,
        vectorization_mode="vector_entry_point",
        autoreset_mode="Disabled",
        **{**given, **spec.search.arguments, **arguments},
    )
    return made.unwrapped  # type: ignore[return-value]


def candidates(envs: MTLVectorEnv, rows: int, seed: int) -> Array:
    """The first action of each row: the anchors, then points that fill the space evenly (Sobol)."""
    space = envs.single_action_space
    if not isinstance(space, Box):
        return np.zeros(rows, dtype=np.int64)
    anchors = np.asarray(envs.specification.search.anchors, dtype=np.float32).reshape(-1, *space.shape)[:rows]
    count = rows - len(anchors)
    size = int(np.prod(space.shape))
    points = qmc.Sobol(size, seed=seed).random(1 << max(count - 1, 0).bit_length())[:count]
    own = space.low + (space.high - space.low) * points.reshape(count, *space.shape)
    return np.concatenate([anchors, own]).astype(np.float32)


def drawn(envs: MTLVectorEnv, rng: np.random.Generator) -> Array:
    """A valid action of each row, drawn evenly."""
    masks = np.asarray(envs.action_masks(), dtype=np.float64)
    return np.array([rng.choice(len(own), p=own / own.sum()) if own.any() else 0 for own in masks], dtype=np.int64)


def scores(envs: MTLVectorEnv, split: str, references: Mapping[int, Mapping[str, float]]) -> Array:
    """``delta_m`` (N,) on a split over the references of *test*, in percent; that of a diverged training is -100."""
    runs, main_task = envs.decision.trainings, envs.arguments.recipe.main_task
    metrics, finite = runs.metrics(split), runs.finite()
    found = np.full(envs.num_envs, WORST_DELTA_M)
    for row in np.flatnonzero(finite.cpu().numpy()).tolist():
        names = [name for name in runs.ledger.metric_names(row) if main_task in (None, name.rsplit("/", 1)[0])]
        instance = runs.ledger.instances[row]
        value = delta_m({name: float(metrics[name][row]) for name in names}, references[instance.id if instance else -1])
        found[row] = value if np.isfinite(value) else WORST_DELTA_M
    return found


def _forked(known: Array, actions: Array, search: Search, rng: np.random.Generator) -> tuple[Array, Array]:
    """From which row each one goes on, and with which action."""
    rows, fixed = len(known), len(search.anchors)
    order = np.argsort(-known, kind="stable")
    best = order[: max(round(search.kept * rows), 1)]
    others = np.array([row for row in order[len(best) :] if row >= fixed], dtype=np.int64)
    parents = best[np.arange(len(others)) % len(best)]
    source, after = np.arange(rows), actions.copy()
    source[others] = parents
    deviation = search.spread * actions[best].std(0).clip(0.05)
    near = actions[parents] + deviation * rng.standard_normal((len(others), *actions.shape[1:]))
    after[others] = near.clip(-1, 1).astype(actions.dtype)
    return source, after

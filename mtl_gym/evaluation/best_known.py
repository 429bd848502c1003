"""What is known to be possible on instances: the best action that is held, and a schedule that a search over forks found.

Every candidate trains each instance once, all side by side. At some decisions the candidates with the better mean scores on
*reward* keep their training and action, and the others continue from where these are, with actions near theirs. So a search costs
as many trainings of an instance as it has candidates. The candidate with the best mean on *reward* is read on *test*, which plays
no other part: it may lose there, and it is the best that is known, never an optimum.
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

from mtl_gym.checks import positive_int, should
from mtl_gym.environments import specification
from mtl_gym.envs.spec import ScheduleSearch
from mtl_gym.envs.vector import MTLVectorEnv
from mtl_gym.evaluation.results import plain
from mtl_gym.evaluation.single_task import reference_metrics
from mtl_gym.problems.scores import WORST_DELTA_M, delta_m

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Found:
    """What was found on n instances.

    Attributes:
        schedule: Actions (D, ...), the same for all instances.
        reward: ``delta_m`` (n,) on *reward*, by whose mean it was chosen.
        test: The same on *test*, in percent.
        trainings: How many trainings of each instance were searched.
    """

    schedule: Array = field(repr=False)
    reward: Array
    test: Array
    trainings: int


def best_known(
    env: str, ids: Sequence[int], *, candidates: int = 64, held: Array | None = None, seed: int = 0, **arguments: Any
) -> Found:
    """Searches the best schedule of some instances of a study; of a single one, chance on *reward* plays a larger part.

    Args:
        env: The environment's id, with actions in a box or with masks.
        ids: The instances.
        candidates: Trainings of each instance.
        held: An action that is one more anchor, such as the best constant one.
        seed: Of the drawn actions.
        arguments: The environment's further arguments. Under other actions than the search's own, there are no anchors.

    Raises:
        ValueError: If there are no instances, or no more candidates than anchors.
    """
    search, rng = specification(env).search, np.random.default_rng([seed, *ids])
    anchors = [*anchors_of(search, arguments), *([] if held is None else [held])]
    positive_int("candidates", candidates, least=len(anchors) + 1)
    runs = Candidates(env, ids, candidates, arguments)
    chosen, forks = first_actions(runs.envs, candidates, anchors, seed), [*search.forks]
    fixed, schedule = len(anchors), list[Array]()
    while not runs.finished:
        if forks and runs.progress >= forks[0]:
            forks.pop(0)
            source, near = _forked(runs.scores("reward").mean(1), chosen, fixed, search, rng)
            space = runs.envs.single_action_space
            chosen = near.clip(space.low, space.high) if isinstance(space, Box) else near
            runs.fork(source)
            schedule = [own[source] for own in schedule]
        if not isinstance(runs.envs.single_action_space, Box):
            chosen = runs.drawn(rng)
        schedule.append(chosen)
        runs.step(chosen)
    return runs.best(schedule)


def best_constant(env: str, ids: Sequence[int], *, candidates: int = 64, seed: int = 0, **arguments: Any) -> Found:
    """The best action of those with which :func:`best_known` begins, held throughout; same arguments, actions in a box."""
    runs, anchors = Candidates(env, ids, candidates, arguments), anchors_of(specification(env).search, arguments)
    chosen, decisions = first_actions(runs.envs, candidates, anchors, seed), 0
    while not runs.finished:
        runs.step(chosen)
        decisions += 1
    return runs.best([chosen] * decisions)


class Candidates:
    """C candidates, each of which trains n instances; rows of the environment are those of the first candidate, then of the next.

    Attributes:
        envs: The vector environment of all C n trainings.
    """

    def __init__(self, env: str, ids: Sequence[int], count: int, arguments: Mapping[str, Any]) -> None:
        if not len(ids):
            raise ValueError(should("ids", "have at least one instance", [*ids]))
        self.count, self.ids = positive_int("candidates", count), [*ids]
        self.envs = trainings(env, count * len(self.ids), arguments)
        self._references = reference_metrics(self.envs.arguments, self.ids)
        self.envs.reset(options={"instance": np.tile(self.ids, count)})

    @property
    def finished(self) -> bool:
        """Whether all trainings have ended."""
        return bool(self.envs.finished.all())

    @property
    def progress(self) -> float:
        """The completed fraction of those that have come furthest."""
        return float(self.envs.view.progress.max())

    def step(self, actions: Array) -> None:
        """Takes a decision: actions (C, ...) of candidates, or (C n, ...) of all trainings."""
        self.envs.step(actions if len(actions) == self.envs.num_envs else np.repeat(actions, len(self.ids), axis=0))

    def drawn(self, rng: np.random.Generator) -> Array:
        """A valid action (C,) of each candidate of one instance, drawn evenly."""
        return drawn(self.envs, rng)

    def fork(self, source: Array) -> None:
        """Continues each candidate from where the one of ``source`` (C,) is, on all instances."""
        moved, places = np.flatnonzero(source != np.arange(self.count)), np.arange(len(self.ids))
        rows = [(of[:, None] * len(self.ids) + places).ravel().tolist() for of in (source[moved], moved)]
        self.envs.fork(*rows)

    def scores(self, split: str) -> Array:
        """``delta_m`` (C, n) on a split."""
        return scores(self.envs, split, self._references).reshape(self.count, len(self.ids))

    def best(self, schedule: Sequence[Array]) -> Found:
        """The candidate that is best on *reward*, of schedules [(C, ...)] of D decisions; closes the environment."""
        reward, test = self.scores("reward"), self.scores("test")
        self.envs.close()
        own = int(reward.mean(1).argmax())
        return Found(np.stack(schedule)[:, own], reward[own], test[own], self.count)


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


def anchors_of(search: ScheduleSearch, arguments: Mapping[str, Any]) -> Sequence[Any]:
    """The anchors of a search, none where its actions are others: their numbers would mean other things."""
    same = all(plain(arguments[name]) == plain(own) for name, own in search.arguments.items() if name in arguments)
    return search.anchors if same else ()


def first_actions(envs: MTLVectorEnv, rows: int, given: Sequence[Any], seed: int) -> Array:
    """The first action of each candidate: the given ones, then points that fill the space evenly (Sobol)."""
    space = envs.single_action_space
    if not isinstance(space, Box):
        return np.zeros(rows, dtype=np.int64)
    anchors = np.asarray([*given], dtype=np.float32).reshape(-1, *space.shape)[:rows]
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


def _forked(known: Array, actions: Array, fixed: int, search: ScheduleSearch, rng: np.random.Generator) -> tuple[Array, Array]:
    """From which candidate each one goes on, and with which action; the first ``fixed`` keep theirs."""
    rows = len(known)
    order = np.argsort(-known, kind="stable")
    best = order[: max(round(search.kept * rows), 1)]
    others = np.array([row for row in order[len(best) :] if row >= fixed], dtype=np.int64)
    parents = best[np.arange(len(others)) % len(best)]
    source, after = np.arange(rows), actions.copy()
    source[others] = parents
    deviation = search.spread * actions[best].std(0).clip(0.05)
    near = actions[parents] + deviation * rng.standard_normal((len(others), *actions.shape[1:]))
    after[others] = near.astype(actions.dtype)
    return source, after

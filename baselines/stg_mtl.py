"""STG-MTL: clusters of the tasks' data maps."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_gym import TASK_GROUPING, Requirements, number, should
from mtl_gym.baselines.base import Array, Observation, State, softmax
from mtl_gym.baselines.group_heuristic import GroupHeuristic, number_of_groups, places
from mtl_gym.baselines.partition_search import clusters_found, different, points_of, square_of

_SHARPNESS = 10.0


class STGMTL(GroupHeuristic):
    """STG-MTL, k-means centroids of the tasks' data maps, and fuzzy memberships of the tasks by their distances to them.

    ``u_tc = d_tc^(-2 / (m - 1)) / sum_c' d_tc'^(-2 / (m - 1))``; each task joins the group of its largest membership. If ``soft``,
    the memberships themselves weight the losses and the ensemble of logits. Sherif, Abid, Elattar and ElHelw, "STG-MTL: Scalable
    Task Grouping for Multi-Task Learning Using Data Maps", MLST 2024, arXiv 2307.03374. The points are recovered from
    their distances (classical scaling), which determine the result; with missing labels, where each distance is over other samples,
    approximately.

    Args:
        groups: Number of clusters, at most K; by default the number from 2 to 10 with the largest silhouette, which is ours: the
            paper sets the number by hand.
        m: Fuzzifier, above 1; 1.07, the default of the authors' code.
        soft: Whether to return the memberships, as the paper does. The default is ours: hard groups, as other heuristics make.
    """

    requires = places("map_distances")

    def __init__(self, groups: int | None = None, m: float = 1.07, soft: bool = False) -> None:
        if not isinstance(soft, bool):
            raise TypeError(should("soft", "be True or False", soft))
        self.groups = number_of_groups(groups)
        self.m = number("m", m, low=1.0, ends="(]")
        self.soft = soft
        if soft:
            soften: dict[str, Any] = {"action": "memberships", "env_kwargs": {"max_groups": self.groups, "sharpness": _SHARPNESS}}
            self.requires = Requirements(observe=("map_distances",), env=TASK_GROUPING, **soften)  # type: ignore[misc]
            self.of_tasks = "map_distances"  # type: ignore[misc]

    def act(self, obs: Observation, state: State) -> tuple[Array, State]:
        """The group (N,) of the next task; if soft, actions (N, K G) whose softmax gives the memberships."""
        if not self.soft:
            return super().act(obs, state)
        num_tasks = state["labels"].shape[1]
        columns = self.groups or num_tasks
        actions = -np.ones((len(state["seed"]), num_tasks, columns))
        for row, seed in enumerate(state["seed"].tolist()):
            memberships = self.memberships(obs["map_distances"][row].astype(np.float64), num_tasks, columns, seed)
            logits = np.log(memberships.clip(min=1e-300)) / _SHARPNESS + 1
            actions[row, :, : memberships.shape[1]] = logits.clip(-1, 1)
        return actions.reshape(len(actions), -1), state

    def partition(self, seen: Observation, num_tasks: int, most: int, seed: int) -> npt.ArrayLike:
        """The largest memberships."""
        return self.memberships(seen["map_distances"], num_tasks, most, seed).argmax(1)

    def memberships(self, pairs: Array, num_tasks: int, most: int, seed: int) -> Array:
        """Fuzzy memberships (K, clusters) in at most ``most`` clusters, whose rows sum to 1.

        ``pairs`` are the distances of the K data maps, the upper triangle by rows; ``seed`` seeds k-means.
        """
        from sklearn.cluster import KMeans  # here, so that listing the policies stays light

        distances = square_of(pairs, num_tasks, 0.0)
        points = points_of(distances)

        def cluster(count: int) -> KMeans:
            return KMeans(count, n_init=10, random_state=seed % 2**32).fit(points)

        wanted = self.groups or clusters_found(lambda count: cluster(count).labels_, distances, most)
        centres = cluster(min(wanted, most, different(distances))).cluster_centers_
        apart = np.linalg.norm(points[:, None] - centres, axis=2)
        return softmax(-2 / (self.m - 1) * np.log(apart.clip(min=1e-9)))

    def _size(self, batch: Observation) -> tuple[int, int]:
        if not self.soft:
            return super()._size(batch)
        rows, pairs = batch["map_distances"].shape
        return rows, round((1 + (1 + 8 * pairs) ** 0.5) / 2)

    def _actions(self, answer: Array) -> npt.NDArray[Any]:
        return answer.astype(np.float32) if self.soft else super()._actions(answer)

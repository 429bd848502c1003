"""Clusters of the tasks' gradients."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from mtl_gym.baselines.base import Integers, Observation
from mtl_gym.baselines.group_heuristic import GroupHeuristic, number_of_groups, places
from mtl_gym.baselines.partition_search import clusters_found, square_of


class CosineGroups(GroupHeuristic):
    """Clusters tasks whose gradients agree: average linkage of ``1 - cosine`` of their gradients over the warm-up.

    Gradient cosines reveal shared structure even where tasks are equally difficult: Du, Czarnecki, Jayakumar, Farajtabar, Pascanu
    and Lakshminarayanan, "Adapting Auxiliary Losses Using Gradient Similarity", 2018; clustering them is our own addition.

    Args:
        groups: Number of clusters, at most K; by default the number from 2 to 10 with the largest silhouette (ours).
    """

    requires = places("gradient_cosines")

    def __init__(self, groups: int | None = None) -> None:
        self.groups = number_of_groups(groups)

    def partition(self, seen: Observation, num_tasks: int, most: int, seed: int) -> npt.ArrayLike:
        """The average-linkage tree, cut."""
        distances = 1 - square_of(seen["gradient_cosines"], num_tasks, 1.0)
        tree = linkage(squareform(distances, checks=False), "average")

        def cluster(count: int) -> Integers:
            return np.asarray(fcluster(tree, count, criterion="maxclust"))

        return cluster(min(self.groups or clusters_found(cluster, distances, most), most))

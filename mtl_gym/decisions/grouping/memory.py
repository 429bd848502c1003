"""What task grouping takes of the memory beyond the trainings of a batch; see :mod:`mtl_gym.training.memory`."""

from __future__ import annotations

from mtl_gym.decisions.grouping.data_maps import FEATURES
from mtl_gym.decisions.grouping.group_training import AT_ONCE
from mtl_gym.decisions.grouping.warm_up import COSINES, LOOKAHEAD, MAP_DISTANCES, MAP_FEATURES, MAPS
from mtl_gym.problems.base import Problem
from mtl_gym.training.memory import Further, check_memory
from mtl_gym.training.recipe import Recipe

_MAP = 48  # bytes of a sample and task: two running tables, and what is computed from them at a snapshot
_ROW = 4096  # bytes of a row itself
_VISIT = 24  # bytes of a sample in an epoch: its place, and how often it was seen
_ENTRY = 96  # of an observation: measurements, arrays, and the bounds of two spaces


def check_grouping_memory(
    problem: Problem, recipe: Recipe, num_envs: int, *, needs: set[str], columns: int, snapshots: int
) -> float:
    """The bytes that groupings take at most; refuses more than a quarter of the free memory, as
    :func:`mtl_gym.training.memory.check_memory` does.

    Args:
        problem: The problem.
        recipe: How every group is trained.
        num_envs: N.
        needs: The needed signals.
        columns: C, the largest number of groups.
        snapshots: E.
    """
    samples, num_tasks = len(problem.splits["train"]), recipe.num_tasks

    def mapped(recipe: Recipe, rows: int) -> float:
        least = max(round(samples * recipe.distribution["size"][0]) // recipe.batch_size, 1)  # steps of an epoch
        epochs = -(-recipe.train_steps // least)
        tables = _VISIT * (epochs * samples + (recipe.train_steps + 1) * recipe.batch_size)
        return rows * (tables + _MAP * samples * num_tasks + 12 * samples * problem.num_tasks)

    def shown(recipe: Recipe, rows: int) -> float:
        return snapshots * num_tasks * (rows * (8 * FEATURES + 16 * num_tasks) + _ENTRY * num_envs * FEATURES)

    def decided(recipe: Recipe, rows: int) -> float:
        largest = max(len(split) for name, split in problem.splits.items() if name != "train")
        return num_envs * (_ROW + _ENTRY * num_tasks * (columns + num_tasks) + 12 * largest * problem.outputs)

    further: Further = {"num_envs": (num_envs, decided)}
    if needs & {MAP_FEATURES, MAP_DISTANCES, MAPS}:
        further = {**further, "train_steps": (recipe.train_steps, mapped), "snapshots": (snapshots, shown)}
    apart = bool(needs & {COSINES, LOOKAHEAD})
    return check_memory(problem, recipe, AT_ONCE, task_gradients=apart, further=further, argument=None)

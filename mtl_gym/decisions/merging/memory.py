"""What merging takes of the memory beyond its trainings; see :mod:`mtl_gym.training.memory`."""

from __future__ import annotations

from math import prod

from mtl_gym.decisions.merging.decision import COMPARED, branched_model
from mtl_gym.problems.base import Problem
from mtl_gym.training.memory import Further, pass_bytes
from mtl_gym.training.recipe import Recipe

_TABLES = 4  # of a product of features: the table, its centred form and what is computed from it


def merging_memory(problem: Problem, recipe: Recipe, *, transfer: str, steps: int, alignment: float) -> Further:
    """What measuring similarities takes, and imitations of ``steps`` batches and the alignment term, if there are any."""

    def compared(recipe: Recipe, rows: int) -> float:
        copies = 16 * branched_model(problem, recipe).size  # gathered for the tasks, and their gradients
        return rows * (copies + _similarity(recipe, min(COMPARED, len(problem.splits["train"]))))

    def aligned(recipe: Recipe, rows: int) -> float:
        return rows * 2 * _similarity(recipe, recipe.batch_size)  # and their gradients

    def imitated(recipe: Recipe, rows: int) -> float:
        model, inputs = branched_model(problem, recipe), 4 * prod(problem.input_shape)
        samples = steps * recipe.batch_size * (2 * pass_bytes(model, problem)[1] + (recipe.num_tasks + 2) * inputs)
        adapters = 40 * recipe.num_tasks * max(recipe.hidden_sizes) ** 2  # two matrices, with gradients and moments
        return rows * (samples + adapters + 20 * model.size)

    always: Further = {"num_tasks": (recipe.num_tasks, compared)}
    of_alignment: Further = {"alignment": (alignment, aligned)} if alignment else {}
    of_imitation: Further = {"transfer_steps": (steps, imitated)} if transfer == "imitate" else {}
    return {**always, **of_alignment, **of_imitation}


def _similarity(recipe: Recipe, samples: int) -> int:
    """Bytes of the products of a stage's features on some samples, for all tasks and stages."""
    return 4 * _TABLES * recipe.num_tasks * len(recipe.hidden_sizes) * samples**2

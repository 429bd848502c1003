"""The ledger of N runs: their instances, progress and cost."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from mtl_gym.checks import should
from mtl_gym.problems.base import Problem
from mtl_gym.problems.instances import Instance
from mtl_gym.training.recipe import Recipe
from mtl_gym.training.state import State


class Ledger:
    """Instances, steps and passes of N runs, whichever decisions are made in them."""

    def __init__(self, problem: Problem, recipe: Recipe, network: str, state: State) -> None:
        self.problem, self.recipe, self.network, self._state = problem, recipe, network, state
        self.instances: list[Instance | None] = state.add_objects("instances")  # ``None`` before the first of a row
        self.tasks = state.add("tasks", (recipe.num_tasks,), torch.int64)  # (N, K) indices of the problem's tasks that take part
        self.scales = state.add("scales", (recipe.num_tasks,))  # (N, K) factor of each loss
        self.step = state.add("step", (), torch.int64)  # (N,) training steps taken
        self.passes = state.add("passes", (2,))  # (N, 2) forward and backward passes so far, in training batches

    def begin(self, rows: Iterable[int], ids: Iterable[int]) -> list[Instance]:
        """Draws the instances with these ids into these rows, whose state is reset, and returns them; see :meth:`Trainer.begin`."""
        chosen = self._state.check_rows("rows", rows)
        drawn = [self.recipe.draw(self.problem, self.network, id) for id in ids]
        if len(drawn) != len(chosen):
            raise ValueError(should("ids", f"be as many as the {len(chosen)} rows", [instance.id for instance in drawn]))
        self._state.reset(chosen)
        for row, instance in zip(chosen, drawn, strict=True):
            self.instances[row] = instance
            self.tasks[row] = torch.from_numpy(instance.tasks)
            self.scales[row] = torch.from_numpy(instance.scales)
        return drawn

    def charge(self, rows: Tensor, forward: float | Tensor, backward: float | Tensor) -> None:
        """Adds passes, numbers or (N,), to the rows (N,) bool."""
        if not isinstance(forward, Tensor) and not isinstance(backward, Tensor):
            if forward or backward:
                self.passes += rows[:, None] * self.passes.new_tensor([forward, backward])
            return
        for column, passes in zip(self.passes.unbind(1), (forward, backward), strict=True):
            column += rows.to(column.dtype) * passes

    def task_names(self, row: int) -> list[str]:
        """Names (K) of the participating tasks of a row."""
        return [self.problem.tasks[task].name for task in self.tasks[row].tolist()]

    def metric_names(self, row: int) -> list[str]:
        """Names ``task/metric`` of the metrics of those tasks."""
        tasks = [self.problem.tasks[task] for task in self.tasks[row].tolist()]
        return [f"{task.name}/{metric}" for task in tasks for metric in task.metrics]

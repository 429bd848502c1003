"""What people's modules return: outputs by task, as a dict, a list or one tensor, put side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mtl_gym.checks import should
from mtl_gym.problems.base import Problem


class TaskOutputs:
    """Joins the outputs of a problem's tasks; B samples, O channels of all tasks, S the shape of dense labels."""

    def __init__(self, problem: Problem) -> None:
        self._widths = {task.name: task.outputs for task in problem.tasks}
        self._space = tuple(problem.splits["train"].targets.shape[2:])

    @property
    def num_tasks(self) -> int:
        """Number of the problem's tasks."""
        return len(self._widths)

    def joined(self, found: Any) -> Tensor:
        """Outputs (B, O, *S) from those by task name, in the order of the tasks, or of all tasks side by side.

        Raises:
            TypeError: If they are none of these.
            ValueError: If a task's are missing or have another shape; the error names the task.
        """
        if isinstance(found, Tensor):
            return self._checked("", found, sum(self._widths.values()))
        if isinstance(found, Mapping):
            if set(found) != set(self._widths):
                raise ValueError(should("model", f"return outputs of the tasks {', '.join(self._widths)}", list(found)))
            found = [found[name] for name in self._widths]
        if not isinstance(found, (list, tuple)):
            raise TypeError(
                should("model", "return a dict by task, a list in the order of the tasks, or a tensor", type(found).__name__)
            )
        if len(found) != len(self._widths):
            condition = f"return outputs of {len(self._widths)} tasks, {', '.join(self._widths)}"
            raise ValueError(should("model", condition, f"a list of {len(found)}"))
        pairs = zip(self._widths.items(), found, strict=True)
        return torch.cat([self._checked(f" for the task {name!r}", own, width) for (name, width), own in pairs], dim=1)

    def _checked(self, task: str, found: Any, width: int) -> Tensor:
        """Outputs (B, width, *S), from (B, *S) too if the width is 1."""
        if not isinstance(found, Tensor) or not found.is_floating_point():
            received = found.dtype if isinstance(found, Tensor) else type(found).__name__
            raise TypeError(should("model", f"return tensors of real numbers{task}", received))
        shape = tuple(found.shape)
        if width == 1 and shape[1:] == self._space:
            found = found.unsqueeze(1)
        elif shape[1:] != (width, *self._space):
            raise ValueError(
                should("model", f"return a shape of (samples, {', '.join(map(str, (width, *self._space)))}){task}", shape)
            )
        return found.to(torch.float32)


class OfGroup(nn.Module):
    """A module of all tasks, of which a group was trained.

    Args:
        module: Somebody's module.
        outputs: Joins its outputs.
        heads: The output channels of the group's tasks, by name.
    """

    def __init__(self, module: nn.Module, outputs: TaskOutputs, heads: Mapping[str, slice]) -> None:
        super().__init__()
        self.module, self._outputs, self._heads = module, outputs, dict(heads)

    def forward(self, inputs: Any) -> dict[str, Tensor]:
        """Outputs (B, O, *S) of the group's tasks, by name."""
        joined = self._outputs.joined(self.module(inputs))
        return {task: joined[:, own] for task, own in self._heads.items()}

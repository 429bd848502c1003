"""Problems as notebooks show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from mtl_gym.problems.inputs import shapes

if TYPE_CHECKING:
    from mtl_gym.problems.base import Problem

_MOST_ROWS = 24


def table(problem: Problem) -> str:
    """A problem as an HTML table, with a row for each task; of more than 24, the first ones and how many there are."""
    sizes = ", ".join(f"{len(split):,} {name}" for name, split in problem.splits.items())
    head = f"{problem.name}: {sizes}; inputs {_shape(shapes(problem.splits['train'].inputs))}, network {problem.network_name}"
    rows = [
        {"task": task.name, "loss": task.loss_name, "metrics": ", ".join(task.metrics), "outputs": str(task.outputs)}
        for task in problem.tasks[:_MOST_ROWS]
    ]
    left = problem.num_tasks - len(rows)
    rows += [{"task": f"{left} more tasks", "loss": "", "metrics": "", "outputs": ""}] if left else []
    return f"<table><caption>{escape(head)}</caption>{_row('th', [*rows[0]])}{''.join(map(_cells, rows))}</table>"


def _cells(row: Mapping[str, str]) -> str:
    return _row("td", [*row.values()])


def _row(tag: str, texts: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(text)}</{tag}>' for text in texts)}</tr>"


def _shape(shape: Sequence[int] | Mapping[str, Sequence[int]]) -> str:
    if isinstance(shape, Mapping):
        return ", ".join(f"{name} {_shape(own)}" for name, own in shape.items())
    return " x ".join(map(str, shape))

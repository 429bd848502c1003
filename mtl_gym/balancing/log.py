"""Scalars of a training for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Log:
    """Where steps are logged; a copy or a pickle of it logs nothing.

    Args:
        writer: A ``SummaryWriter``, or anything with its ``add_scalar``; ``None`` if nothing is logged.
        every: Steps between two points.
    """

    def __init__(self, writer: Any = None, every: int = 1) -> None:
        self.writer, self.every = writer, every

    def due(self, step: int) -> bool:
        """Whether this step is logged."""
        return self.writer is not None and step % self.every == 0

    def write(self, step: int, tables: Mapping[str, Mapping[str, float]]) -> None:
        """Writes numbers by task, as ``table/task``."""
        for table, values in tables.items():
            for task, value in values.items():
                self.writer.add_scalar(f"{table}/{task}", value, step)

    def __reduce__(self) -> tuple[type[Log], tuple[()]]:
        return Log, ()

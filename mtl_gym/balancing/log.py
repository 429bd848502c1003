"""Scalars of a training for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mtl_gym.checks import positive_int, should


class Log:
    """Where steps are logged; a copy or a pickle of it logs nothing.

    Args:
        writer: A ``SummaryWriter``, or anything with its ``add_scalar``; ``None`` if nothing is logged.
        every: Steps between two points.

    Raises:
        TypeError: If the writer has no ``add_scalar``.
    """

    def __init__(self, writer: Any = None, every: int = 1) -> None:
        if writer is not None and not callable(getattr(writer, "add_scalar", None)):
            raise TypeError(should("writer", "be a SummaryWriter, such as SummaryWriter(folder)", writer))
        self.writer, self.every = writer, positive_int("every", every)

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

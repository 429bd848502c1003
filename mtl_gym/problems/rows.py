"""Rows of the table of problems, without their data."""

from __future__ import annotations

from dataclasses import dataclass

from mtl_gym.checks import number, positive_int, sequence


@dataclass(frozen=True)
class Defaults:
    """How a problem is trained unless an environment, :func:`mtl_gym.compare` or :func:`mtl_gym.fit` is told otherwise.

    The default values are for Adam and tables of about a thousand rows; the problems of this package train for at least 6 epochs.

    Attributes:
        lr: Initial learning rate, above 0.
        batch_size: Samples of a training step, at least 1 and at most those of *train*.
        train_steps: Optimiser steps of a training (an episode), at least 1.
        hidden_sizes: Widths of the trunk's layers, each at least 1, or channels of its convolutions; without effect on, and not to
            be given for, a ``model`` of your own.

    Raises:
        TypeError: If a value is no number, or ``hidden_sizes`` no list.
        ValueError: If one is out of range; the message names it.

    Example:
        >>> import mtl_gym
        >>> mtl_gym.Defaults(lr=1e-3, train_steps=600)
        Defaults(lr=0.001, batch_size=64, train_steps=600, hidden_sizes=(64, 64))
    """

    lr: float = 2e-3
    batch_size: int = 64
    train_steps: int = 300
    hidden_sizes: tuple[int, ...] = (64, 64)

    def __post_init__(self) -> None:
        number("defaults.lr", self.lr, low=0.0, ends="(]")
        positive_int("defaults.batch_size", self.batch_size)
        positive_int("defaults.train_steps", self.train_steps)
        sizes = sequence("defaults.hidden_sizes", self.hidden_sizes)
        object.__setattr__(self, "hidden_sizes", tuple(positive_int("defaults.hidden_sizes", width) for width in sizes))


@dataclass(frozen=True)
class ProblemRow:
    """One row of ``PROBLEMS``."""

    load: str  # ``"module:function"`` that returns the tasks, the splits and, unless these are fixed, the pool or the family
    summary: str  # one line for tables
    network: str = "mlp"  # row of ``mtl_gym.models.NETWORKS``
    defaults: Defaults = Defaults()
    package: str | None = None  # optional package that provides the data (extra ``data``)
    version: int = 0  # increased whenever data, tasks or splits change; part of every instance's seed

"""Rows of the table of problems, without their data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Defaults:
    """An environment's default arguments for a problem: episodes are at least 6 epochs long."""

    lr: float = 2e-3  # initial learning rate (for Adam)
    batch_size: int = 64  # samples per training step
    train_steps: int = 300  # optimiser steps per episode
    hidden_sizes: tuple[int, ...] = (64, 64)  # widths of the trunk's layers (channels of convolutions)


@dataclass(frozen=True)
class ProblemRow:
    """One row of ``PROBLEMS``."""

    load: str  # ``"module:function"`` that returns the tasks, the splits and, unless these are fixed, the pool
    summary: str  # one line for tables
    network: str = "mlp"  # row of ``mtl_gym.models.NETWORKS``
    defaults: Defaults = Defaults()
    package: str | None = None  # optional package that provides the data (extra ``data``)
    version: int = 0  # increased whenever data, tasks or splits change; part of every instance's seed

"""The command ``mtl-gym fit``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mtl_gym.cli.messages import console, reported
from mtl_gym.cli.options import Quiet

_CLOSE = 1e-3
"""Relative difference of a metric from which it is said."""


def fit(
    folder: Annotated[Path, typer.Argument(help="The --out of an earlier comparison.")],
    policy: Annotated[str, typer.Option(help="The policy of the row, as the comparison calls it.")],
    instance: Annotated[int, typer.Option(help="The instance of the row.")],
    to: Annotated[Path, typer.Option(help="The file to write: the network as safetensors, with how it was made.")],
    quiet: Quiet = False,
) -> None:
    """Train one row of a comparison again, and write the trained network."""
    with reported():
        from mtl_gym.evaluation.fitting import refit
        from mtl_gym.evaluation.module_files import file_of

        file_of("--to", to)  # before anything is trained
        done, known = refit(folder, policy, instance, False if quiet else None)
        written = done.save(to)
    if quiet:
        return
    for name, value in done.metrics.items():
        far = abs(value - known[name]) > _CLOSE * max(abs(known[name]), 1e-9)
        note = f"  ({known[name]:.4f} in the comparison: other kernels, or another number of parallel trainings)" if far else ""
        console.print(f"{name:28} {value:.4f}{note}", soft_wrap=True, markup=False, highlight=False)
    console.print(f"{'network:':28} {written}", soft_wrap=True, markup=False, highlight=False)

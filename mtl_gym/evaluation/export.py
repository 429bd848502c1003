"""Exports results: files, a page and TensorBoard curves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mtl_gym.cache import check_writable, write_whole
from mtl_gym.checks import path_of, should
from mtl_gym.evaluation.frames import Source, results_of, to_frame
from mtl_gym.evaluation.kernels import described
from mtl_gym.evaluation.report import write_report
from mtl_gym.evaluation.results import Result, finite
from mtl_gym.evaluation.summary import summarize
from mtl_gym.evaluation.tensorboard import write_events

_FILES = ("results.sqlite", "results.csv", "summary.json", "report.html")


def report(source: Source, out: str | Path | None = None) -> Path:
    """Writes the table, the page and the curves of a comparison, as ``mtl-gym report`` does.

    Args:
        source: The frame of :func:`mtl_gym.compare`, or a part of its rows; or the output folder of a comparison.
        out: Folder to write to; by default the comparison's own.

    Returns:
        The path of the page.

    Raises:
        ValueError: If the source has no results, or ``out`` is missing or cannot be written.
    """
    results, about = results_of(source)
    if out is None and isinstance(source, pd.DataFrame):
        raise ValueError(should("out", "be a folder to write to, for a frame", out))
    folder = path_of("out", source if out is None else out)
    check_outputs(folder)
    export(results, about, folder)
    return folder / "report.html"


def check_outputs(folder: Path) -> None:
    """Raises ValueError if a comparison cannot be written to a folder, before anything is run."""
    check_writable(folder, _FILES, ["tensorboard"])


def export(results: Sequence[Result], about: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Writes ``results.csv`` (the frame, and the ``kernels`` of each row), ``summary.json``, ``report.html`` and the folder
    ``tensorboard``; returns the summary.
    """
    frame = to_frame(results, about)
    summary: dict[str, Any] = finite(summarize(frame))
    kernels = {(result.policy, result.instance): described(result.kernels) for result in results}
    table = frame.assign(kernels=[kernels[key] for key in zip(frame["policy"], frame["instance"], strict=True)])
    write_whole(folder / "results.csv", table.map(_cell).to_csv(index=False))
    write_whole(folder / "summary.json", json.dumps(summary, indent=2, allow_nan=False) + "\n")
    write_report(results, summary, folder)
    write_events(results, summary, folder / "tensorboard")
    return summary


def _cell(value: Any) -> Any:
    """A cell; texts that a spreadsheet would take for a formula begin with an apostrophe."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value

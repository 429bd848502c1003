"""Exports results: a table, files, a page and TensorBoard curves."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.cells import cell_len
from rich.markup import escape
from rich.table import Table

from mtl_gym.cache import check_writable, write_whole
from mtl_gym.checks import should
from mtl_gym.evaluation.frames import Source, results_of, to_frame
from mtl_gym.evaluation.report import write_report
from mtl_gym.evaluation.results import Result, finite
from mtl_gym.evaluation.statistics import summarize
from mtl_gym.evaluation.styles import interval, text
from mtl_gym.evaluation.tensorboard import write_events

_FILES = ("results.sqlite", "results.csv", "summary.json", "report.html")
_LONGEST_HEAD = 10
_NARROW = 12
"""Characters that the names of policies keep, in lines below each other, before a column is left out."""


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
    folder = Path(source if out is None else out)  # type: ignore[arg-type]
    check_outputs(folder)
    export(results, about, folder)
    return folder / "report.html"


def check_outputs(folder: Path) -> None:
    """Raises ValueError if a comparison cannot be written to a folder, before anything is run."""
    check_writable(folder, _FILES, ["tensorboard"])


def export(results: Sequence[Result], about: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Writes ``results.csv``, ``summary.json``, ``report.html`` and the folder ``tensorboard``; returns the summary."""
    frame = to_frame(results, about)
    summary: dict[str, Any] = finite(summarize(frame))
    write_whole(folder / "results.csv", frame.map(_cell).to_csv(index=False))
    write_whole(folder / "summary.json", json.dumps(summary, indent=2, allow_nan=False) + "\n")
    write_report(results, summary, folder)
    write_events(results, summary, folder / "tensorboard")
    return summary


def _cell(value: Any) -> Any:
    """A cell; texts that a spreadsheet would take for a formula begin with an apostrophe."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value


def table(summary: Mapping[str, Any], width: int) -> Table:
    """The table for a terminal of this width: best first, with intervals, and each policy's paired difference from the first one.

    Columns for which a narrow terminal has no room are left out, the last ones first.
    """
    policies = summary["policies"]
    first = next(iter(policies))
    columns = _columns(policies, first)
    names, *rest = [max(map(cell_len, (head, *cells))) for head, cells in columns.items()]
    places = [min(names, _NARROW) + sum(2 + own for own in rest[: count + 1]) for count in range(len(rest))]
    shown = max(1, sum(place <= width for place in places))  # besides the names
    result = Table(box=None, pad_edge=False, header_style="bold", title_justify="left", title_style="bold")
    result.title = (
        f"{summary['about']['problem']}: gain over single-task learning, {policies[first]['instances']} instances, 95 % intervals"
    )
    heads = [*columns][: shown + 1]
    result.add_column("policy", overflow="fold", min_width=min(names, _NARROW))
    for head in heads[1:]:
        result.add_column(escape(head), justify="right", no_wrap=True)
    for row in zip(*(columns[head] for head in heads), strict=True):
        result.add_row(*map(escape, row))
    result.caption_justify = "left"
    result.caption = (
        f"Further columns in a terminal of {places[-1]} characters."
        if shown < len(rest)
        else "P(> x): fraction of the instances on which a policy beats x. F + B: forward and backward passes."
    )
    return result


def _columns(policies: Mapping[str, Any], first: str) -> dict[str, list[str]]:
    """Heads and cells of the terminal's table."""
    short = first if len(first) <= _LONGEST_HEAD else f"{first[: _LONGEST_HEAD - 1]}…"
    ordered = sorted(policies.items(), key=lambda item: -_number(item[1]["delta_m"]["iqm"]))
    pairs = [row["paired"].get(first, {}) for _, row in ordered]
    chances = [row["probability_of_improvement"].get(first) for _, row in ordered]
    own = [name == first for name, _ in ordered]
    return {
        "policy": [name for name, _ in ordered],
        "delta_m %": [f"{text(row['delta_m']['iqm'], 'z.1f')} {interval(row['delta_m'], 'z.1f')}" for _, row in ordered],
        f"over {short}": [
            "" if same else f"{text(pair.get('difference'), '+z.1f')} {interval(pair, 'z.1f')}"
            for same, pair in zip(own, pairs, strict=True)
        ],
        f"P(> {short})": ["" if same else text(chance) for same, chance in zip(own, chances, strict=True)],
        "F + B": [f"{row['cost']['forward']:.0f} + {row['cost']['backward']:.0f}" for _, row in ordered],
    }


def _number(value: float | None) -> float:
    return -math.inf if value is None else value

"""Exports results: a table, files, a page and TensorBoard curves."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from mtl_gym.cache import write_whole
from mtl_gym.evaluation.comparison import to_frame
from mtl_gym.evaluation.report import write_report
from mtl_gym.evaluation.results import Result
from mtl_gym.evaluation.statistics import summarize
from mtl_gym.evaluation.styles import interval, text
from mtl_gym.evaluation.tensorboard import write_events

_LONGEST_HEAD = 10


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


def finite(value: Any) -> Any:
    """Replaces numbers that are not finite by ``None``, since JSON has no NaN."""
    if isinstance(value, Mapping):
        return {name: finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def table(summary: Mapping[str, Any]) -> Table:
    """The table for the terminal: best first, with intervals, and each policy's paired difference from the first one given."""
    policies = summary["policies"]
    first = next(iter(policies))
    result = Table(box=None, pad_edge=False, header_style="bold", title_justify="left", title_style="bold")
    result.title = (
        f"{summary['about']['problem']}: gain over single-task learning, {policies[first]['instances']} instances, 95 % intervals"
    )
    result.add_column("policy", overflow="fold")
    short = first if len(first) <= _LONGEST_HEAD else f"{first[: _LONGEST_HEAD - 1]}…"
    for column in ("delta_m %", f"over {short}", f"P(> {short})", "F + B"):
        result.add_column(escape(column), justify="right", no_wrap=True)
    for name, row in sorted(policies.items(), key=lambda item: -_number(item[1]["delta_m"]["iqm"])):
        pair, cost = row["paired"].get(first, {}), row["cost"]
        result.add_row(
            escape(name),
            escape(f"{text(row['delta_m']['iqm'], '.1f')} {interval(row['delta_m'], '.1f')}"),
            "" if name == first else escape(f"{text(pair.get('difference'), '+.1f')} {interval(pair, '.1f')}"),
            "" if name == first else text(row["probability_of_improvement"].get(first)),
            f"{cost['forward']:.0f} + {cost['backward']:.0f}",
        )
    return result


def _number(value: float | None) -> float:
    return -math.inf if value is None else value

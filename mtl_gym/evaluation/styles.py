"""The look of comparisons: policies keep their color and line style throughout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mtl_gym.envs.panels import line_style

POLICY_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
"""Okabe and Ito's color-blind safe palette."""

SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mtl-gym",
    "font.family": "sans-serif",
    "font.sans-serif": ["system-ui", "DejaVu Sans"],
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.0,
    "axes.titlelocation": "left",
    "axes.edgecolor": "#888",
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "text.parse_math": False,
    "lines.linewidth": 1.4,
}
"""Settings of matplotlib."""

_LONGEST_NAME = 28


def style(summary: Mapping[str, Any], name: str) -> dict[str, object]:
    """Colour and line style of a policy, by its position in the comparison."""
    return line_style(POLICY_COLOURS, list(summary["policies"]).index(name))


def ranked(summary: Mapping[str, Any]) -> list[str]:
    """The policies, best first."""
    return sorted(summary["policies"], key=lambda name: -summary["policies"][name]["delta_m"]["iqm"])


def shortened(names: Sequence[str]) -> list[str]:
    """Names truncated for figures; the table has them in full."""
    return [name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…" for name in names]


def text(value: float | None, form: str = ".2f") -> str:
    """A number; a dash if there is none."""
    return "-" if value is None else format(value, form)


def interval(row: Mapping[str, Any], form: str = ".2f") -> str:
    """The interval from ``low`` to ``high``; a dash if there is none."""
    low, high = row.get("low"), row.get("high")
    return "-" if low is None or high is None else f"[{low:{form}}, {high:{form}}]"

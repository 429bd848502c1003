"""How figures of a comparison look: policies keep their colour and line style throughout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mtl_gym.envs.panels import line_style

POLICY_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
"""Okabe and Ito's scheme, which colour-blind readers can tell apart."""

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
"""What matplotlib is told."""

_LONGEST_NAME = 28


def style(summary: Mapping[str, Any], name: str) -> dict[str, object]:
    """Colour and line style of a policy, by its place in the comparison."""
    return line_style(POLICY_COLOURS, list(summary["policies"]).index(name))


def shortened(names: Sequence[str]) -> list[str]:
    """Names as figures have room for them; the table has them whole."""
    return [name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…" for name in names]

"""The look of comparisons: a policy has the same colour, marker and dashes on every page."""

from __future__ import annotations

import functools
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mtl_gym.envs.looks import FAINT, INK, RULE, policy_looks
from mtl_gym.plugins import OWN, POLICIES, entries, load_table

SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mtl-gym",
    "font.family": "sans-serif",
    "font.sans-serif": ["system-ui", "DejaVu Sans"],
    "font.size": 9.0,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.labelsize": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.edgecolor": RULE,
    "axes.grid": True,
    "xtick.color": RULE,
    "xtick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.color": RULE,
    "ytick.labelcolor": INK,
    "ytick.labelsize": 8.5,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "text.parse_math": False,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.0,
}
"""Settings of matplotlib."""

_LONGEST_NAME = 28


@functools.lru_cache(maxsize=256)
def _looks(names: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    return policy_looks(names, _built_in())


@functools.cache
def _built_in() -> dict[str, int]:
    """The places of this package's own policies, which no other policy of a comparison and no other package can change."""
    own = [entry for entry in entries(POLICIES) if entry.dist and entry.dist.name == OWN]
    names = dict.fromkeys(name for entry in own for name in load_table(entry))
    return {name: place for place, name in enumerate(names)}


def styles(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Colour, marker and line style of each policy; they follow from its name, unless another of these has the same ones."""
    return {name: dict(look) for name, look in _looks(tuple(names)).items()}


def style(summary: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Colour, marker and line style of a policy of a comparison; see :func:`styles`."""
    return dict(_looks(tuple(summary["policies"]))[name])


def line(summary: Mapping[str, Any], name: str, points: int = 1) -> dict[str, Any]:
    """The same for a line through many points, about every ``points``-th of which has a marker."""
    look = style(summary, name)
    shift = list(summary["policies"]).index(name) % max(points, 1)  # so that lines on top of each other show all their markers
    return look | {"markevery": (shift, points), "markersize": 3.5}


def ranked(summary: Mapping[str, Any]) -> list[str]:
    """The policies, best first."""
    return sorted(summary["policies"], key=lambda name: -summary["policies"][name]["delta_m"]["mean"])


def shortened(names: Sequence[str]) -> list[str]:
    """Names for figures; the middle of long ones is left out. The table has them in full."""
    half = (_LONGEST_NAME - 1) // 2
    return [name if len(name) <= _LONGEST_NAME else f"{name[: half + 1]}…{name[-half:]}" for name in names]


def wrapped(names: Sequence[str], length: int) -> list[str]:
    """Shortened names, in lines of at most ``length`` characters."""
    return [folded(name, length) for name in shortened(names)]


def folded(name: str, length: int) -> str:
    """A policy's name in lines of at most ``length`` characters, which end where its parts do, see :func:`parts`, if they can."""
    lines = [""]
    for part in parts(name):
        whole = lines[-1] + part
        lines[-1:] = [whole] if len(whole) <= length else [*filter(None, lines[-1:]), *textwrap.wrap(part, length)]
    return "\n".join(lines)


def parts(name: str) -> list[str]:
    """The parts of a policy's name, in order: each ends after a colon, comma, plus, slash or space."""
    return re.split(r"(?<=[:,+/ ])(?=\S)", name)


def text(value: float | None, form: str = "z.2f") -> str:
    """A number; a dash if there is none."""
    return "-" if value is None else format(value, form)


def interval(row: Mapping[str, Any], form: str = "z.2f") -> str:
    """The interval from ``low`` to ``high``; a dash if there is none."""
    low, high = row.get("low"), row.get("high")
    return "-" if low is None or high is None else f"[{low:{form}}, {high:{form}}]"


def adjusted(p: float) -> str:
    """A p-value, as an equation for HTML."""
    return "p &lt; 0.001" if p < 0.001 else f"p = {p:.3f}"

"""The table of a comparison for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.cells import cell_len
from rich.markup import escape
from rich.table import Table

from mtl_gym.evaluation.notes import notes
from mtl_gym.evaluation.styles import folded, interval, ranked, text
from mtl_gym.evaluation.verdicts import Verdict, verdicts_with

_LONGEST_HEAD = 10
_LONGEST = 40
"""Characters that the names of policies keep in one line as long as columns can be left out instead."""
_NARROW = 12
"""Characters that they keep, in lines below each other, beside the score."""


def table(summary: Mapping[str, Any], width: int) -> Table:
    """The table for a terminal of this width: best first, with intervals, and each policy's paired difference from the first one.

    Columns for which a narrow terminal has no room are left out, the last ones first; then names are broken, where their parts end.
    """
    policies = summary["policies"]
    first = next(iter(policies))
    verdicts = verdicts_with(policies, first)
    columns = _columns(summary, first, verdicts)
    names, *rest = [max(map(cell_len, (head, *cells))) for head, cells in columns.items()]
    places = [min(names, _LONGEST) + sum(2 + own for own in rest[: count + 1]) for count in range(len(rest))]
    shown = max(1, sum(place <= width for place in places))  # besides the names
    room = max(_NARROW, width - sum(2 + own for own in rest[:shown]))
    columns["policy"] = [folded(name, room) for name in columns["policy"]]
    result = Table(box=None, pad_edge=False, header_style="bold", title_justify="left", title_style="bold")
    count = policies[first]["instances"]
    result.title = f"{summary['about']['problem']}: mean gain over single-task learning, {count} instances, 95 % intervals"
    heads = [*columns][: shown + 1]
    result.add_column("policy", overflow="fold", min_width=min(names, room))
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


def below(summary: Mapping[str, Any]) -> list[str]:
    """The lines below the table: the smallest differences that the comparison could have detected, and the notes on its scores."""
    known = sorted(own.detectable for own in verdicts_with(summary["policies"], next(iter(summary["policies"]))).values())
    lines = notes(summary)
    if known:
        ends = f"{known[0]:.2f}" if len(known) == 1 else f"{known[0]:.2f} to {known[-1]:.2f}"
        lines.insert(0, f"Minimum detectable difference (80 % power, after correction): {ends} points.")
    return lines


def _columns(summary: Mapping[str, Any], first: str, verdicts: Mapping[str, Verdict]) -> dict[str, list[str]]:
    """Heads and cells of the table."""
    short = first if len(first) <= _LONGEST_HEAD else f"{first[: _LONGEST_HEAD - 1]}…"
    ordered = {name: summary["policies"][name] for name in ranked(summary)}
    pairs = [row["paired"].get(first, {}) for row in ordered.values()]
    chances = [row["probability_of_improvement"].get(first) for row in ordered.values()]
    own = [name == first for name in ordered]
    return {
        "policy": [*ordered],
        "delta_m %": [f"{text(row['delta_m']['mean'], 'z.1f')} {interval(row['delta_m'], 'z.1f')}" for row in ordered.values()],
        f"over {short}": [
            "" if same else f"{text(pair.get('difference'), '+z.1f')} {interval(pair, 'z.1f')}"
            for same, pair in zip(own, pairs, strict=True)
        ],
        "verdict": [verdicts[name].verdict if name in verdicts else "" for name in ordered],
        "F + B": [f"{row['cost']['forward']:.0f} + {row['cost']['backward']:.0f}" for row in ordered.values()],
        f"P(> {short})": ["" if same else text(chance) for same, chance in zip(own, chances, strict=True)],
    }

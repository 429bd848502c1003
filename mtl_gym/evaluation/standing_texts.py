"""A leaderboard of a suite as texts, for a terminal, a page or a paper."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from mtl_gym.evaluation.kernels import listed
from mtl_gym.evaluation.notes import ONE_SPLIT


def rows_of(table: pd.DataFrame) -> list[dict[str, str]]:
    """The cells of a leaderboard as texts, for a terminal, a page or a paper."""
    first = table.attrs["baseline"]
    rows = [
        {
            "policy": str(name),
            "delta_m %": f"{row['delta_m']:z.2f} [{row['low']:z.2f}, {row['high']:z.2f}]",
            f"over {first}": _ends(row, "difference", "+z.2f"),
            "verdict": row["verdict"],
            "score": _ends(row, "score", "z.2f"),
            "regret": f"{row['regret']:z.2f}",
            "largest": f"{row['largest_regret']:z.1f} ({row['worst_study']})",
            "wins": f"{row['wins']:.0f}",
            "passes": f"{row['passes']:.2f}",
            f"P(> {first})": _ends(row, "probability", ".2f"),
            "data sets redrawn": _bracketed(row, "data", "z.2f"),
        }
        for name, row in table.iterrows()
    ]
    return [{name: cell for name, cell in row.items() if any(own[name] for own in rows)} for row in rows]


def _ends(row: Any, name: str, form: str) -> str:
    """A number with its interval; nothing if there is none."""
    return "" if math.isnan(row[name]) else f"{row[name]:{form}} {_bracketed(row, name, form.removeprefix('+'))}"


def _bracketed(row: Any, name: str, form: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return "" if math.isnan(low) else f"[{low:{form}}, {high:{form}}]"


def notes_of(table: pd.DataFrame) -> list[str]:
    """Sentences below a leaderboard."""
    found = []
    if table["detectable"].notna().any():
        ends = f"{table['detectable'].min():.2f} to {table['detectable'].max():.2f}"
        found.append(f"Minimum detectable difference (80 % power, after correction): {ends} points.")
    if told := table.attrs["references"]:
        found.append(told)
    found += split_notes(table.attrs["draws"])
    if diverged := int(table["diverged"].sum()):
        found.append(f"{diverged} trainings diverged; each counts as -100 %.")
    if missing := table.attrs["missing"]:
        found.append(f"Not the whole suite: there are no results of {', '.join(missing)}.")
    if left_out := table.attrs["left_out"]:
        found.append(f"Left out, since they lack results: {', '.join(left_out)}.")
    if missing or left_out:
        policies = [*(table.index if missing else []), *left_out]
        found.append(f"This makes what is missing: {_command(table.attrs['suite'], policies)}")
    if len(table.attrs["kernels"]) > 1:
        found.append(f"Results of several kernels are mixed ({listed(table.attrs['kernels'])}), between which scores may differ.")
    return found


def _command(suite: Mapping[str, Any], policies: Sequence[str]) -> str:
    """Runs policies on a suite, of which finished rows are kept."""
    names = shlex.quote(",".join(map(str, policies)))
    return f"mtl-gym compare --suite {suite['name']} --env {suite['env']} --policies {names} --out FOLDER"


def split_notes(draws: Mapping[str, str]) -> list[str]:
    """Of which studies the intervals do not redraw splits."""
    fixed = [name for name, own in draws.items() if own == ONE_SPLIT]
    if not fixed:
        return ["Every instance draws its own split or its own data, so intervals redraw splits too."]
    others = " In the other studies, every instance draws its own split or its own data." if len(fixed) < len(draws) else ""
    return [f"Intervals are conditional on one split in {', '.join(fixed)}.{others}"]


def described(suite: Mapping[str, Any], table: pd.DataFrame) -> str:
    """The title of a leaderboard."""
    studies, missing = table.attrs["studies"], table.attrs["missing"]
    count = f"{len(studies)} of {len(studies) + len(missing)}" if missing else len(studies)
    noun = "study" if count == 1 else "studies"
    return f"{suite['name']} {suite['version']} of {suite['env']}: {count} {noun}, {sum(studies.values())} instances"

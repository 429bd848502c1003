"""Writes the leaderboard of a suite: as CSV with all digits, and as Markdown, LaTeX and HTML as people show it."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from pathlib import Path

import pandas as pd

from mtl_gym.cache import check_writable, write_whole
from mtl_gym.evaluation.standings import described, notes_of, rows_of
from mtl_gym.evaluation.templates import filled


def _csv(table: pd.DataFrame) -> str:
    return table.to_csv()


def _markdown(table: pd.DataFrame) -> str:
    rows = rows_of(table)
    lines = [[*rows[0]], ["---"] * len(rows[0]), *([*row.values()] for row in rows)]
    body = "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
    return "\n\n".join([f"**{described(table.attrs['suite'], table)}**", body, *notes_of(table)]) + "\n"


def _latex(table: pd.DataFrame) -> str:
    rows = pd.DataFrame(rows_of(table)).set_index("policy")
    return rows.to_latex(escape=True, caption=described(table.attrs["suite"], table).replace("_", chr(92) + "_"))


def _html(table: pd.DataFrame) -> str:
    rows = rows_of(table)
    return filled(
        "leaderboard.html",
        title=escape(described(table.attrs["suite"], table)),
        baseline=escape(table.attrs["baseline"]),
        head="".join(f"<th>{escape(name)}</th>" for name in rows[0]),
        rows="\n".join(f"<tr>{''.join(_cell(place, *pair) for place, pair in enumerate(row.items()))}</tr>" for row in rows),
        notes="\n".join(f"<p>{escape(line)}</p>" for line in notes_of(table)),
    )


def _cell(place: int, head: str, text: str) -> str:
    return f'<td data-head="{escape(head)}">{escape(text)}</td>' if place else f"<th>{escape(text)}</th>"


_KINDS: dict[str, Callable[[pd.DataFrame], str]] = {"csv": _csv, "md": _markdown, "tex": _latex, "html": _html}


def check_standings(folder: Path) -> None:
    """Raises ValueError if a leaderboard cannot be written to a folder."""
    check_writable(folder, [f"leaderboard.{kind}" for kind in _KINDS], [])


def write_standings(table: pd.DataFrame, folder: Path) -> list[Path]:
    """Writes ``leaderboard.csv``, ``.md``, ``.tex`` and ``.html``; returns their paths."""
    files = []
    for kind, write in _KINDS.items():
        files.append(folder / f"leaderboard.{kind}")
        write_whole(files[-1], write(table))
    return files

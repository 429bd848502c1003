"""Writes the leaderboard of a suite: as CSV with all digits, and as Markdown, LaTeX and HTML as people show it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from mtl_gym.cache import check_writable, write_whole
from mtl_gym.evaluation.standing_texts import described, notes_of, rows_of
from mtl_gym.evaluation.standings import Ranking
from mtl_gym.evaluation.suite_page import suite_page


def _csv(table: pd.DataFrame) -> str:
    return table.to_csv()


def _markdown(table: pd.DataFrame) -> str:
    rows = rows_of(table)
    lines = [[*rows[0]], ["---"] * len(rows[0]), *([*row.values()] for row in rows)]
    body = "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
    return "\n\n".join([f"**{described(table.attrs['suite'], table)}**", body, *notes_of(table)]) + "\n"


def _latex(table: pd.DataFrame) -> str:
    rows = pd.DataFrame(rows_of(table)).set_index("policy")
    caption = re.sub(r"([&%$#_{}])", r"\\\1", described(table.attrs["suite"], table))
    return "% needs \\usepackage{booktabs}\n" + rows.to_latex(escape=True, caption=caption).replace(">", "$>$")


_KINDS: dict[str, Callable[[pd.DataFrame], str]] = {"csv": _csv, "md": _markdown, "tex": _latex}
_FILES = [*(f"leaderboard.{kind}" for kind in _KINDS), "leaderboard.html"]


def check_standings(folder: Path) -> None:
    """Raises ValueError if a leaderboard cannot be written to a folder."""
    check_writable(folder, _FILES, [])


def write_standings(ranking: Ranking, folder: Path) -> list[Path]:
    """Writes ``leaderboard.csv``, ``.md``, ``.tex`` and the page ``.html``; returns their paths."""
    texts = [*(write(ranking.table) for write in _KINDS.values()), suite_page(ranking, folder)]
    files = [folder / name for name in _FILES]
    for file, text in zip(files, texts, strict=True):
        write_whole(file, text)
    return files

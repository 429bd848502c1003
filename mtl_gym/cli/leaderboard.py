"""The command ``mtl-gym leaderboard``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mtl_gym.cli.messages import console, print_json, reported
from mtl_gym.cli.options import Json, given_path
from mtl_gym.cli.rows import print_rows

_SOURCE = typer.Argument(help="The --out of a comparison of a suite, or a file of its results.", parser=given_path, metavar="PATH")
_OUT = typer.Option(help="A folder for leaderboard.csv, .md, .tex and .html; by default none are written.", parser=given_path)
_BASELINE = typer.Option(help="The policy from which differences are; by default the first one.")


def leaderboard(
    source: Annotated[Path, _SOURCE],
    out: Annotated[Path | None, _OUT] = None,
    baseline: Annotated[str | None, _BASELINE] = None,
    as_json: Json = False,
) -> None:
    """Rank the policies of a suite from the rows of their results: with intervals, verdicts and regrets."""
    with reported():
        show_standings(source, baseline, out, as_json)


def show_standings(source: Path, baseline: str | None, out: Path | None, as_json: bool) -> None:
    """Prints the leaderboard of a suite, and writes it to a folder."""
    from mtl_gym.evaluation.results import finite
    from mtl_gym.evaluation.standing_files import check_standings, write_standings
    from mtl_gym.evaluation.standing_texts import described, notes_of, rows_of
    from mtl_gym.evaluation.standings import ranking

    if out is not None:
        check_standings(out)
    found = ranking(source, baseline)
    table, files = found.table, write_standings(found, out) if out is not None else []
    if as_json:
        print_json({**finite(table.attrs), "policies": finite(table.to_dict("index"))})
        return
    print_rows(described(table.attrs["suite"], table), rows_of(table))
    for line in notes_of(table):
        console.print(line, markup=False, highlight=False)
    for file in files:
        console.print(f"{file}", soft_wrap=True, markup=False, highlight=False)

"""The command ``mtl-gym report``, and what is printed of a comparison."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from mtl_gym.cli.messages import console, print_json, reported
from mtl_gym.cli.options import Json, given_path
from mtl_gym.cli.rows import print_rows

_FOLDER = typer.Argument(help="The --out of an earlier comparison, also of a suite.", parser=given_path, metavar="FOLDER")
_OTHER = typer.Argument(help="Another one, in the same setting: what changed from the first?", parser=given_path, metavar="[OTHER]")
_OUT = typer.Option(
    help="Where to write; by default FOLDER, and of two folders nothing is written.", parser=given_path, metavar="PATH"
)


def report(
    folder: Annotated[Path, _FOLDER],
    other: Annotated[Path | None, _OTHER] = None,
    out: Annotated[Path | None, _OUT] = None,
    as_json: Json = False,
) -> None:
    """Rewrite table, page and curves from FOLDER's database, for all policies in the setting of the last comparison; or show two
    folders side by side.
    """
    with reported():
        from mtl_gym.evaluation.suite_frames import is_suite

        if other is not None:
            _show_sides(folder, other, out, as_json)
        elif is_suite(folder):
            _rewrite_suite(folder, out or folder, as_json)
        else:
            _rewrite(folder, out or folder, as_json)


def _rewrite(folder: Path, out: Path, as_json: bool) -> None:
    from mtl_gym.evaluation.export import check_outputs, export
    from mtl_gym.evaluation.frames import results_of

    results, about = results_of(folder)
    check_outputs(out)
    show(export(results, about, out), out, as_json)


def _rewrite_suite(folder: Path, out: Path, as_json: bool) -> None:
    """Writes the pages of a suite's studies and its leaderboard."""
    from mtl_gym.cli.leaderboard import show_standings
    from mtl_gym.evaluation.export import check_outputs, export
    from mtl_gym.evaluation.standing_files import check_standings
    from mtl_gym.evaluation.suite_frames import results_by_study, suite_frame

    studies = results_by_study(suite_frame(folder))
    check_standings(out)
    for name in studies:
        check_outputs(out / name)
    for name, (results, about) in studies.items():
        export(results, about, out / name)
    show_standings(folder, None, out, as_json)


def _show_sides(first: Path, second: Path, out: Path | None, as_json: bool) -> None:
    """Prints two runs side by side, and writes the page to a folder."""
    from mtl_gym.evaluation.results import finite
    from mtl_gym.evaluation.side_by_side import side_by_side
    from mtl_gym.evaluation.side_page import check_sides, side_headline, side_rows, write_sides

    if out is not None:
        check_sides(out)
    table = side_by_side(first, second)
    files = write_sides(table, out) if out is not None else []
    if as_json:
        print_json({**finite(table.attrs), "policies": finite(table.to_dict("index"))})
        return
    print_rows(table.attrs["title"], side_rows(table))
    for line in [side_headline(table), *table.attrs["notes"], *map(str, files)]:
        console.print(line, soft_wrap=True, markup=False, highlight=False)


def show(summary: Mapping[str, Any], folder: Path, as_json: bool) -> None:
    """Prints a comparison: its summary as JSON, or a table and where the page is."""
    from mtl_gym.evaluation.terminal import below, table

    if as_json:
        print_json(summary)
        return
    console.print(table(summary, console.width))
    for line in below(summary):
        console.print(line, markup=False, highlight=False)
    for name, text in {
        "page": str(folder / "report.html"),
        "curves": f"tensorboard --logdir {shlex.quote(str(folder / 'tensorboard'))}",
    }.items():
        console.print(f"{name + ':':12} {text}", soft_wrap=True, markup=False, highlight=False)

"""The command ``mtl-gym report``, and what is printed of a comparison."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from mtl_gym.cli.messages import console, print_json, reported
from mtl_gym.cli.options import Json, given_path

_FOLDER = typer.Argument(help="The --out of an earlier comparison.", parser=given_path, metavar="FOLDER")


def report(folder: Annotated[Path, _FOLDER], as_json: Json = False) -> None:
    """Rewrite table, page and curves from FOLDER's database, for all policies in the setting of the last comparison."""
    with reported():
        from mtl_gym.evaluation.export import check_outputs, export
        from mtl_gym.evaluation.frames import results_of

        results, about = results_of(folder)
        check_outputs(folder)
        show(export(results, about, folder), folder, as_json)


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

"""The command line as a whole: a table of commands, and those of other packages."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Annotated, Any

import typer

import mtl_gym
from mtl_gym.cli.bench import bench
from mtl_gym.cli.check import check
from mtl_gym.cli.compare import compare
from mtl_gym.cli.fit import fit
from mtl_gym.cli.groupings import groupings
from mtl_gym.cli.leaderboard import leaderboard
from mtl_gym.cli.listing import list_names
from mtl_gym.cli.messages import console
from mtl_gym.cli.record import record
from mtl_gym.cli.replays import reproduce, verify
from mtl_gym.cli.report import report
from mtl_gym.plugins import COMMANDS as GROUP, entries, load

COMMANDS: dict[str, Callable[..., None]] = {
    "list": list_names,
    "check": check,
    "compare": compare,
    "report": report,
    "leaderboard": leaderboard,
    "verify": verify,
    "reproduce": reproduce,
    "fit": fit,
    "record": record,
    "groupings": groupings,
    "bench": bench,
}
"""Our commands by name, apart from those of ``agents``, which come by an entry point."""


def _print_version(asked: bool) -> None:
    if asked:
        console.print(mtl_gym.__version__, highlight=False)
        raise typer.Exit


def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)] = False,
) -> None:
    """The training of multi-task networks as Gymnasium environments."""


app = typer.Typer(
    name="mtl-gym",
    help="Multi-task training decisions as Gymnasium environments: compare policies on real data.",
    callback=root,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for _name, _command in COMMANDS.items():
    app.command(_name)(_command)


def main() -> None:
    """Runs the command line."""
    full_app()(prog_name="mtl-gym")  # also for `python -m mtl_gym`


def full_app() -> typer.Typer:
    """The command line with the commands of other packages; broken ones are skipped with a warning, ours cannot be replaced."""
    whole = copy.copy(app)
    whole.registered_commands = [*app.registered_commands]
    known = {command.name for command in app.registered_commands}
    for entry in entries(GROUP):
        command = None if entry.name in known else load(entry, _check_command)
        if command is not None:
            whole.command(entry.name)(command)
            known.add(entry.name)
    return whole


def _check_command(function: Any) -> None:
    """Lets Typer parse one function's options, which it otherwise does for all commands at once."""
    alone = typer.Typer()
    alone.command()(function)
    typer.main.get_command(alone)

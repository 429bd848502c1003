"""Options that several commands have, and the arguments of environments among them."""

from __future__ import annotations

import difflib
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from mtl_gym.checks import path_of, should, unknown
from mtl_gym.environments import find_environments, specification
from mtl_gym.policies.grammar import option_value
from mtl_gym.problems import find_problems


def complete_problem() -> list[str]:
    """The names of problems, for shells."""
    return [*find_problems()]


def complete_env() -> list[str]:
    """The ids of environments, for shells."""
    return [*find_environments()]


_PROBLEM = "A name (mtl-gym list problems), or file.py:function for one of your own; by default the environment's."

_WORKERS = "Batches trained at once, with one thread each; 1: in this process, with its threads."

EnvironmentSettings = Annotated[
    list[str] | None, typer.Option("--set", help="Argument of the environment, key=value; can be repeated.", metavar="KEY=VALUE")
]
ProblemName = Annotated[str | None, typer.Option(help=_PROBLEM, autocompletion=complete_problem)]
EnvironmentId = Annotated[str, typer.Option(help="Id of the environment.", autocompletion=complete_env)]
Workers = Annotated[int | None, typer.Option(help=_WORKERS, show_default="one for each core")]
ExecutorName = Annotated[str, typer.Option(help="local, or ray for a cluster.")]
Address = Annotated[str | None, typer.Option(help="Address of the Ray cluster, such as auto or ray://host:10001.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, and nothing else.")]


def given_path(text: str) -> Path:
    """Parses the path of an option (``typer.Option(parser=given_path)``); an empty one is refused: it is not the current folder."""
    try:
        return path_of("path", text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def command_line() -> str:
    """The command that is running, to be recorded with its results."""
    return shlex.join(["mtl-gym", *sys.argv[1:]])


def environment_arguments(pairs: Sequence[str], options: Sequence[str], env: str) -> dict[str, Any]:
    """The environment's arguments from pairs of ``--set key=value``.

    Args:
        pairs: As given.
        options: Names of the command's own options, which are not set like this.
        env: The environment's id.

    Raises:
        ValueError: If a pair is not of that form or repeats a key, or its key is an option of the command, or no argument of the
            environment.
    """
    from mtl_gym.envs.arguments import argument_names  # with torch

    arguments, spec = assignments("--set", pairs), specification(env)
    known = argument_names(spec)
    for name, value in arguments.items():
        nearest = difflib.get_close_matches(name, options, n=1, cutoff=1.0 if name in known else 0.8)
        if nearest:
            condition = f"be an argument of the environment; use the option --{nearest[0].replace('_', '-')}"
            raise ValueError(should("--set", condition, f"{name}={value}"))
        if name not in known and name not in spec.excluded:  # for which the environment has another message
            raise ValueError(unknown("--set", name, known))
    return arguments


def assignments(option: str, pairs: Sequence[str]) -> dict[str, Any]:
    """The names and values of ``key=value`` pairs; raises ValueError for any other form, and if a key is repeated."""
    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        name = key.strip().replace("-", "_")
        if not equals or not name:
            raise ValueError(should(option, "be of the form key=value", pair))
        if name in values:
            raise ValueError(should(option, f"set {name} once", pair, f"It was already {name}={values[name]!r}."))
        values[name] = option_value(value)
    return values

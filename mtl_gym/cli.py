"""The command line ``mtl-gym``."""

from __future__ import annotations

import copy
import functools
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import gymnasium
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import mtl_gym
from mtl_gym.checks import should
from mtl_gym.environments import LOSS_WEIGHTING, environment_class, find_environments
from mtl_gym.plugins import COMMANDS, entries, load
from mtl_gym.policies.finding import environment_of, find_policies, policy_class
from mtl_gym.policies.grammar import option_value, split_policies
from mtl_gym.problems import PROBLEMS

__all__ = [
    *("EnvironmentSettings", "app", "assignments", "console", "environment_arguments", "first_sentence", "full_app", "main"),
    *("progress", "reported", "tables"),
]

EnvironmentSettings = Annotated[
    list[str] | None, typer.Option("--set", help="Argument of the environment, key=value; can be repeated.", metavar="KEY=VALUE")
]

app = typer.Typer(
    name="mtl-gym",
    help="Multi-task training decisions as Gymnasium environments: compare policies on real data.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console()
errors = Console(stderr=True)

INTERRUPTED = 130
WRONG = 2


def _print_version(asked: bool) -> None:
    if asked:
        console.print(mtl_gym.__version__)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)] = False,
) -> None:
    """The training of multi-task networks as Gymnasium environments."""


@app.command("list")
def list_names(
    what: Annotated[Literal["all", "environments", "problems", "policies"], typer.Argument(help="What to list.")] = "all",
) -> None:
    """List the available environments, problems and policies."""
    for name, find in _TABLES.items():
        if what in ("all", name):
            rows = find()
            result = Table(title=name, title_justify="left", title_style="bold", box=None, pad_edge=False)
            for column in rows[0]:
                result.add_column(column, overflow="fold")
            for row in rows:
                result.add_row(*map(escape, row.values()))
            console.print(result)
            console.print()


def tables() -> dict[str, list[dict[str, str]]]:
    """The rows of ``environments``, ``problems`` and ``policies`` that ``mtl-gym list`` and the README show."""
    return {name: find() for name, find in _TABLES.items()}


def _environments() -> list[dict[str, str]]:
    return [{"id": id, "what": _said(lambda env: first_sentence(environment_class(env)), id)} for id in find_environments()]


def _problems() -> list[dict[str, str]]:
    return [
        {"name": name, "what": row.summary, "network": row.network, "needs": 'extra "data"' if row.package else ""}
        for name, row in PROBLEMS.items()
    ]


def _policies() -> list[dict[str, str]]:
    return [
        {
            "name": name,
            "what": _said(lambda name: first_sentence(policy_class(name)), name),
            "for": _said(lambda name: (environment_of(name) or "each its own").removeprefix("mtl_gym/"), name),
            "home": home,
        }
        for name, home in find_policies().items()
    ]


def _said(describe: Callable[[str], str], name: str) -> str:
    """The description of a name, or the reason why it cannot be loaded."""
    try:
        return describe(name)
    except Exception as error:  # another package may raise anything
        return f"cannot be loaded: {type(error).__name__}: {error}"


_TABLES = {"environments": _environments, "problems": _problems, "policies": _policies}


def first_sentence(thing: Any) -> str:
    """The beginning of a docstring, up to its first colon, semicolon, period or question mark."""
    text = " ".join((thing.__doc__ or "").split())
    ends = [position + (mark == "? ") for mark in (": ", "; ", ". ", "? ") if (position := text.find(mark)) > 0]
    return text[: min(ends)] if ends else text.rstrip(".")


@app.command("compare")
def compare(
    policies: Annotated[str, typer.Option(help="Names with options or paths of agents, e.g. ew,si,constant:w=1,2,3,runs/mine.")],
    out: Annotated[Path, typer.Option(help="Output folder; finished results are reused.")],
    problem: Annotated[str | None, typer.Option(help="See: mtl-gym list problems. [default: the environment's]")] = None,
    env: Annotated[str, typer.Option(help="Id of the environment.")] = LOSS_WEIGHTING,
    instances: Annotated[int, typer.Option(help="Number of instances.")] = 20,
    seed: Annotated[int, typer.Option(help="Instances seed * 10^4, seed * 10^4 + 1, ...")] = 0,
    num_envs: Annotated[int, typer.Option(help="Number of parallel trainings.")] = 16,
    settings: EnvironmentSettings = None,
) -> None:
    """Run every policy on the same instances; write a table, a page, a database and TensorBoard curves.

    Rerun the command to resume after an interruption.
    """
    with reported(out):
        from mtl_gym.evaluation.comparison import about, plan, run, setting

        arguments = {"problem": problem, **environment_arguments(settings or [], _OPTIONS)}
        checked = plan(split_policies(policies), env, instances=instances, seed=seed, num_envs=num_envs, **arguments)
        with progress(checked.steps) as update:
            results = run(checked, out=out, on_progress=lambda label, done: update(description=label[:24], advance=done))
        command = shlex.join(["mtl-gym", *sys.argv[1:]])
        _export(results, about(setting(checked), results, seed=seed, command=command), out)


@app.command("groupings")
def groupings(
    problem: Annotated[str, typer.Argument(help="See: mtl-gym list problems.")],
    out: Annotated[Path, typer.Option(help="The table's file; instances in it are kept.")],
    instances: Annotated[int, typer.Option(help="Number of instances for evaluation: ids 0, 1, ...")] = 20,
    training: Annotated[int, typer.Option(help="Number of instances for training: ids 2^31, 2^31 + 1, ...", min=0)] = 0,
    settings: EnvironmentSettings = None,
) -> None:
    """Train all groups of up to 6 tasks on many instances of mtl_gym/TaskGrouping-v0, and write a group table.

    Rerun the command to resume after an interruption.
    """
    with reported(out):
        from mtl_gym.evaluation.comparison import instance_ids
        from mtl_gym.evaluation.group_table_maker import make_table
        from mtl_gym.problems.instances import TRAINING_IDS

        ids = [*instance_ids(instances, 0), *range(TRAINING_IDS[0], TRAINING_IDS[0] + training)]
        arguments = {"problem": problem, **environment_arguments(settings or [], ("problem", "out", "instances", "training"))}
        command = shlex.join(["mtl-gym", *sys.argv[1:]])
        with progress(len(ids), "instances") as update:
            make_table(out, ids, command=command, advance=lambda count: update(advance=count), **arguments)
        console.print(f"table:       {out}", soft_wrap=True, markup=False)


@app.command("report")
def report(folder: Annotated[Path, typer.Argument(help="The --out of an earlier comparison.")]) -> None:
    """Rewrite table, page and curves from FOLDER's database, for all policies in the setting of the last comparison."""
    with reported(folder):
        from mtl_gym.evaluation.comparison import about
        from mtl_gym.evaluation.results import Results

        path = folder / "results.sqlite"
        if not path.is_file():
            raise ValueError(should("folder", "contain results.sqlite, which mtl-gym compare writes", str(folder)))
        shared, results = Results(path).latest()
        _export(results, about(shared, results), folder)


def _export(results: Any, about: Mapping[str, Any], folder: Path) -> None:
    from mtl_gym.evaluation.export import export, table

    summary = export(results, about, folder)
    console.print(table(summary))
    console.print(f"page:        {folder / 'report.html'}", soft_wrap=True, markup=False)
    console.print(f"curves:      tensorboard --logdir {shlex.quote(str(folder / 'tensorboard'))}", soft_wrap=True, markup=False)


_OPTIONS = ("problem", "env", "policies", "instances", "seed", "num_envs", "out")


def environment_arguments(pairs: list[str], options: Sequence[str]) -> dict[str, Any]:
    """The environment's arguments from pairs of ``--set key=value``.

    Raises:
        ValueError: If a pair is not of that form, or its key is in ``options``, the command's own.
    """
    arguments = assignments("--set", pairs)
    for name, value in arguments.items():
        if name in options:
            condition = f"be an argument of the environment; use the option --{name.replace('_', '-')}"
            raise ValueError(should("--set", condition, f"{name}={value}"))
    return arguments


def assignments(option: str, pairs: list[str]) -> dict[str, Any]:
    """The names and values of ``key=value`` pairs; raises ValueError for any other form."""
    values = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise ValueError(should(option, "be of the form key=value", pair))
        values[key.strip().replace("-", "_")] = option_value(value)
    return values


@contextmanager
def progress(steps: int, description: str = "") -> Iterator[Callable[..., None]]:
    """A live bar with the time left; yields a function that updates its ``description`` and ``completed`` steps."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    doing = TextColumn("{task.description:24}", markup=False)
    columns = (doing, BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        yield functools.partial(progress.update, progress.add_task(description, total=steps))


@contextmanager
def reported(folder: Path) -> Iterator[None]:
    """Turns expected errors and interruptions into a message and an exit status."""
    try:
        yield
    except (ValueError, TypeError, OSError, FloatingPointError, ImportError, gymnasium.error.Error) as error:
        errors.print(f"[bold red]Error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(WRONG) from error
    except KeyboardInterrupt:
        text = f"Interrupted. Finished results are kept in {folder}; rerun the command to resume."
        errors.print(text, soft_wrap=True, markup=False)
        raise typer.Exit(INTERRUPTED) from None


def main() -> None:
    """Runs the command line."""
    full_app()()


def full_app() -> typer.Typer:
    """The command line with the commands of other packages; broken ones are skipped with a warning, ours cannot be replaced."""
    whole = copy.copy(app)
    whole.registered_commands = [*app.registered_commands]
    known = {command.name for command in app.registered_commands}
    for entry in entries(COMMANDS):
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

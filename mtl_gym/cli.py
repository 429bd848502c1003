"""The command line ``mtl-gym``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, Literal

import gymnasium
import typer
from rich.console import Console
from rich.table import Table

import mtl_gym
from mtl_gym.arguments import should
from mtl_gym.policies import environment_of, find_policies, option_value, policy_class, split_policies
from mtl_gym.problems import LOSS_WEIGHTING, PROBLEMS, default_problem

app = typer.Typer(
    name="mtl-gym",
    help="The training of multi-task networks as Gymnasium environments: compare ways of deciding, on real data.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console()
errors = Console(stderr=True)

COMMANDS = "mtl_gym.commands"
"""Entry-point group; each entry is a function that becomes a command of its name."""
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
    """List the environments, problems and policies that can be named."""
    for name, rows in tables().items():
        if what in ("all", name):
            result = Table(title=name, title_justify="left", title_style="bold", box=None, pad_edge=False)
            for column in rows[0]:
                result.add_column(column, overflow="fold")
            for row in rows:
                result.add_row(*row.values())
            console.print(result)
            console.print()


def tables() -> dict[str, list[dict[str, str]]]:
    """The rows of what can be named: ``environments``, ``problems`` and ``policies``; the README shows the same."""
    environments = [id for id in gymnasium.registry if id.startswith("mtl_gym/")]
    problems = {id: [name for name, row in PROBLEMS.items() if id in row.environments] for id in environments}
    return {
        "environments": [{"id": id, "problems": ", ".join(problems[id])} for id in environments],
        "problems": [
            {"name": name, "what": row.summary, "network": row.network, "needs": 'extra "data"' if row.package else ""}
            for name, row in PROBLEMS.items()
        ],
        "policies": [
            {"name": name, "what": first_sentence(policy_class(name)), "for": _environment(name), "home": home}
            for name, home in find_policies().items()
        ],
    }


def _environment(name: str) -> str:
    """What a policy is for, shortly."""
    env = environment_of(name)
    return env.removeprefix("mtl_gym/") if env else "each its own"


def first_sentence(thing: Any) -> str:
    """The beginning of a docstring, up to its first colon, semicolon or period."""
    text = " ".join((thing.__doc__ or "").split())
    ends = [position for mark in (": ", "; ", ". ") if (position := text.find(mark)) > 0]
    return text[: min(ends)] if ends else text.rstrip(".")


@app.command()
def compare(
    policies: Annotated[str, typer.Option(help="Names with options or paths of agents, e.g. ew,si,constant:w=1,2,3,runs/mine.")],
    out: Annotated[Path, typer.Option(help="Folder of the results; finished ones are found again.")],
    problem: Annotated[
        str | None, typer.Option(help="See: mtl-gym list problems. [default: digits; of TaskGrouping digit_tasks]")
    ] = None,
    env: Annotated[str, typer.Option(help="Id of the environment.")] = LOSS_WEIGHTING,
    instances: Annotated[int, typer.Option(help="Number of instances.")] = 20,
    seed: Annotated[int, typer.Option(help="Instances seed * 10^4, seed * 10^4 + 1, ...")] = 0,
    num_envs: Annotated[int, typer.Option(help="Trainings that run side by side.")] = 16,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Argument of the environment, key=value; can be repeated.", metavar="KEY=VALUE"),
    ] = None,
) -> None:
    """Play every policy on the same instances; write a table, a page, a database and TensorBoard curves.

    An interrupted run leaves what was finished in OUT, and the same command goes on from there.
    """
    with reported(out):
        from mtl_gym.evaluation.comparison import about, plan, run, setting

        arguments = {"problem": problem or default_problem(env), **environment_arguments(settings or [], _OPTIONS)}
        checked = plan(split_policies(policies), env, instances=instances, seed=seed, num_envs=num_envs, **arguments)
        with progress(checked.steps) as on_progress:
            results = run(checked, out=out, on_progress=on_progress)
        command = shlex.join(["mtl-gym", *sys.argv[1:]])
        _export(results, about(setting(checked), results, seed=seed, command=command), out)


@app.command()
def groupings(
    problem: Annotated[str, typer.Argument(help="See: mtl-gym list problems.")],
    out: Annotated[Path, typer.Option(help="The table's file; instances that it holds already are kept.")],
    instances: Annotated[int, typer.Option(help="Number of instances for evaluation: ids 0, 1, ...")] = 20,
    training: Annotated[int, typer.Option(help="Number of instances for training: ids 2^31, 2^31 + 1, ...", min=0)] = 0,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Argument of mtl_gym/TaskGrouping-v0, key=value; can be repeated.", metavar="KEY=VALUE"),
    ] = None,
) -> None:
    """Train all groups of up to 6 tasks, of many instances, and write a group table.

    An interrupted run leaves what was finished in OUT, and the same command goes on from there.
    """
    with reported(out):
        from mtl_gym.evaluation.comparison import instance_ids
        from mtl_gym.evaluation.groupings import make_table
        from mtl_gym.problems.instances import TRAINING_IDS

        ids = [*instance_ids(instances, 0), *range(TRAINING_IDS[0], TRAINING_IDS[0] + training)]
        arguments = {"problem": problem, **environment_arguments(settings or [], ("problem", "out", "instances", "training"))}
        command = shlex.join(["mtl-gym", *sys.argv[1:]])
        with progress(len(ids)) as on_progress:
            make_table(out, ids, command=command, advance=lambda count: on_progress("instances", count), **arguments)
        console.print(f"table:       {out}", soft_wrap=True, markup=False)


@app.command()
def report(folder: Annotated[Path, typer.Argument(help="The --out of an earlier comparison.")]) -> None:
    """Write table, page and curves anew from FOLDER's database: all policies of the setting that was compared last."""
    with reported(folder):
        from mtl_gym.evaluation.comparison import about
        from mtl_gym.evaluation.results import Results

        path = folder / "results.sqlite"
        if not path.is_file():
            raise ValueError(should("folder", "hold results.sqlite, which mtl-gym compare writes", str(folder)))
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
    """The arguments of the environment that ``--set key=value`` gives.

    Args:
        pairs: The values of ``--set``.
        options: Names that the command has options for.

    Raises:
        ValueError: If a pair is not of that form, or the command has an option for it.
    """
    arguments = assignments("--set", pairs)
    for name, value in arguments.items():
        if name in options:
            option = f"--{name.replace('_', '-')}"
            raise ValueError(should("--set", f"be an argument of the environment; there is an option {option}", f"{name}={value}"))
    return arguments


def assignments(option: str, pairs: list[str]) -> dict[str, Any]:
    """The names and values of ``key=value`` pairs.

    Raises:
        ValueError: If a pair is not of that form.
    """
    values = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise ValueError(should(option, "be of the form key=value", pair))
        values[key.strip().replace("-", "_")] = option_value(value)
    return values


@contextmanager
def progress(steps: int) -> Iterator[Callable[[str, int], None]]:
    """A live bar with the time left, in training steps."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:24}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=steps)
        yield lambda label, done: progress.update(task, description=label[:24], advance=done)


@contextmanager
def reported(folder: Path) -> Iterator[None]:
    """Turns errors of arguments into a message and an exit status, and says what an interruption leaves."""
    try:
        yield
    except (ValueError, TypeError, OSError, FloatingPointError, ModuleNotFoundError, gymnasium.error.Error) as error:
        errors.print(f"[bold red]Error:[/] {_escaped(error)}", highlight=False, soft_wrap=True)
        raise typer.Exit(WRONG) from error
    except KeyboardInterrupt:
        errors.print(
            f"Interrupted. What was finished is kept in {folder}; the same command goes on from there.",
            soft_wrap=True,
            markup=False,
        )
        raise typer.Exit(INTERRUPTED) from None


def _escaped(error: BaseException) -> str:
    from rich.markup import escape

    return escape(str(error))


def main() -> None:
    """Runs the command line."""
    full_app()()


def full_app() -> typer.Typer:
    """The command line with the commands of all installed packages; each entry point is a function that Typer can call."""
    known = {command.name for command in app.registered_commands}
    for entry in entry_points(group=COMMANDS):
        if entry.name not in known:
            app.command(entry.name)(entry.load())
    return app

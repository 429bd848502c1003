"""The command ``mtl-gym compare``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from mtl_gym.checks import should
from mtl_gym.cli.leaderboard import show_standings
from mtl_gym.cli.messages import reported
from mtl_gym.cli.options import (
    Address,
    EnvironmentId,
    EnvironmentSettings,
    ExecutorName,
    Json,
    ProblemName,
    Quiet,
    Workers,
    command_line,
    environment_arguments,
    given_path,
)
from mtl_gym.cli.report import show
from mtl_gym.environments import LOSS_WEIGHTING
from mtl_gym.policies.grammar import split_policies

_OPTIONS = (
    "problem",
    "env",
    "policies",
    "instances",
    "seed",
    "num_envs",
    "smallest_difference",
    "out",
    "suite",
    "workers",
    "executor",
    "address",
)

_POLICIES = "Names with options, paths of agents, or file.py:MyPolicy for one of your own, e.g. ew,constant:w=1,2,3,runs/mine."
_SUITE = "A frozen suite (mtl-gym list suites), which says the problems, instances and settings."
_SMALLEST = "In points of delta_m; policies that differ significantly less are called equal. At 0, only those with the same scores."


def compare(
    policies: Annotated[str, typer.Option(help=_POLICIES)],
    out: Annotated[Path, typer.Option(help="Output folder; finished results are reused.", parser=given_path, metavar="PATH")],
    problem: ProblemName = None,
    suite: Annotated[str | None, typer.Option(help=_SUITE)] = None,
    env: EnvironmentId = LOSS_WEIGHTING,
    instances: Annotated[int, typer.Option(help="Number of instances.")] = 20,
    seed: Annotated[int, typer.Option(help="Instances seed * 10^4, seed * 10^4 + 1, ...")] = 0,
    num_envs: Annotated[int, typer.Option(help="Number of parallel trainings.")] = 16,
    smallest_difference: Annotated[float, typer.Option(help=_SMALLEST)] = 0.0,
    settings: EnvironmentSettings = None,
    workers: Workers = None,
    executor: ExecutorName = "local",
    address: Address = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Run every policy on the same instances; write a table, a page, a database and TensorBoard curves.

    Rerun the command to resume after an interruption.
    """
    if suite is not None:
        with reported(out):
            _check_alone({"--problem": problem, "--set": settings, "--instances": instances != 20, "--seed": seed})
            options = {"num_envs": num_envs, "smallest_difference": smallest_difference}
            hands = {"workers": workers, "executor": executor, "address": address}
            _compare_suite(suite, policies, out, env, options, hands, quiet, as_json)
        return
    with reported(out):
        from mtl_gym.evaluation.comparison import perform
        from mtl_gym.evaluation.executors import make_executor
        from mtl_gym.evaluation.export import check_outputs, export
        from mtl_gym.evaluation.plans import plan

        arguments = {"problem": problem, **environment_arguments(settings or [], _OPTIONS, env)}
        trainers = make_executor(executor, workers, address)
        checked = plan(
            split_policies(policies),
            env,
            instances=instances,
            seed=seed,
            num_envs=num_envs,
            smallest_difference=smallest_difference,
            **arguments,
        )
        check_outputs(out)
        results, about = perform(checked, out=out, command=command_line(), progress=False if quiet else None, executor=trainers)
        show(export(results, about, out), out, as_json)


def _compare_suite(
    name: str, policies: str, out: Path, env: str, options: Mapping[str, Any], hands: Mapping[str, Any], quiet: bool, as_json: bool
) -> None:
    """Runs every policy on a suite."""
    from mtl_gym.evaluation.executors import make_executor
    from mtl_gym.evaluation.standing_files import check_standings
    from mtl_gym.evaluation.suite_runs import performed, plans_of
    from mtl_gym.evaluation.suites import load_suite

    suite, made = load_suite(name, env), make_executor(**hands)
    plans = plans_of(suite, split_policies(policies), **options)
    check_standings(out)
    performed(plans, out, command=command_line(), progress=False if quiet else None, executor=made)
    show_standings(out, None, out, as_json)


def _check_alone(given: Mapping[str, object]) -> None:
    """Raises ValueError if an option is given that a suite says itself."""
    if wrong := [option for option, value in given.items() if value]:
        raise ValueError(should("--suite", f"be given without {', '.join(wrong)}: a suite is frozen", wrong[0]))

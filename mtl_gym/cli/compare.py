"""The command ``mtl-gym compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mtl_gym.cli.messages import reported
from mtl_gym.cli.options import (
    EnvironmentId,
    EnvironmentSettings,
    Json,
    ProblemName,
    Quiet,
    command_line,
    environment_arguments,
    given_path,
)
from mtl_gym.cli.report import show
from mtl_gym.environments import LOSS_WEIGHTING
from mtl_gym.policies.grammar import split_policies

_OPTIONS = ("problem", "env", "policies", "instances", "seed", "num_envs", "smallest_difference", "out")

_POLICIES = "Names with options, paths of agents, or file.py:MyPolicy for one of your own, e.g. ew,constant:w=1,2,3,runs/mine."
_SMALLEST = "In points of delta_m; policies that differ significantly less are called equal. At 0, only those with the same scores."


def compare(
    policies: Annotated[str, typer.Option(help=_POLICIES)],
    out: Annotated[Path, typer.Option(help="Output folder; finished results are reused.", parser=given_path, metavar="PATH")],
    problem: ProblemName = None,
    env: EnvironmentId = LOSS_WEIGHTING,
    instances: Annotated[int, typer.Option(help="Number of instances.")] = 20,
    seed: Annotated[int, typer.Option(help="Instances seed * 10^4, seed * 10^4 + 1, ...")] = 0,
    num_envs: Annotated[int, typer.Option(help="Number of parallel trainings.")] = 16,
    smallest_difference: Annotated[float, typer.Option(help=_SMALLEST)] = 0.0,
    settings: EnvironmentSettings = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Run every policy on the same instances; write a table, a page, a database and TensorBoard curves.

    Rerun the command to resume after an interruption.
    """
    with reported(out):
        from mtl_gym.evaluation.comparison import perform
        from mtl_gym.evaluation.export import check_outputs, export
        from mtl_gym.evaluation.plans import plan

        arguments = {"problem": problem, **environment_arguments(settings or [], _OPTIONS, env)}
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
        results, about = perform(checked, out=out, command=command_line(), progress=False if quiet else None)
        show(export(results, about, out), out, as_json)

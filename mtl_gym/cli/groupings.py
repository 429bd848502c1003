"""The command ``mtl-gym groupings``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mtl_gym.cli.messages import console, print_json, reported
from mtl_gym.cli.options import EnvironmentSettings, Json, Quiet, command_line, environment_arguments, given_path
from mtl_gym.environments import TASK_GROUPING
from mtl_gym.progress import progress_bar

_MOST = 10**6  # instances for training: all their ids are listed
_OPTIONS = ("problem", "out", "instances", "training")


def groupings(
    problem: Annotated[str, typer.Argument(help="A name (mtl-gym list problems), or file.py:function.")],
    out: Annotated[Path, typer.Option(help="The table's file; instances in it are kept.", parser=given_path, metavar="PATH")],
    instances: Annotated[int, typer.Option(help="Number of instances for evaluation: ids 0, 1, ...")] = 20,
    training: Annotated[int, typer.Option(help="Number of instances for training: ids 2^31, 2^31 + 1, ...", min=0, max=_MOST)] = 0,
    settings: EnvironmentSettings = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Train all groups of up to 6 tasks on many instances of mtl_gym/TaskGrouping-v0, and write a group table.

    Rerun the command to resume after an interruption.
    """
    with reported(out):
        from mtl_gym.evaluation.group_table_maker import make_table
        from mtl_gym.evaluation.plans import instance_ids
        from mtl_gym.problems.instances import TRAINING_IDS

        ids = [*instance_ids(instances, 0), *range(TRAINING_IDS[0], TRAINING_IDS[0] + training)]
        arguments = {"problem": problem, **environment_arguments(settings or [], _OPTIONS, TASK_GROUPING)}
        with progress_bar(len(ids), f"group table of {len(ids)} instances", show=False if quiet else None) as update:
            make_table(out, ids, command=command_line(), advance=lambda count: update(advance=count), **arguments)
        if as_json:
            print_json({"table": str(out), "instances": len(ids)})
        else:
            console.print(f"table:       {out}", soft_wrap=True, markup=False, highlight=False)

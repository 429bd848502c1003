"""The command ``mtl-gym record``."""

from __future__ import annotations

from typing import Annotated

import typer

from mtl_gym.cli.messages import console, print_json, reported
from mtl_gym.cli.options import EnvironmentId, EnvironmentSettings, Json, ProblemName, Quiet, environment_arguments
from mtl_gym.environments import LOSS_WEIGHTING
from mtl_gym.policies.grammar import split_policies

_OPTIONS = ("problem", "env", "policies", "dataset", "instances", "seed", "num_envs", "noise", "flat")

_POLICIES = "Names with options, paths of agents, or file.py:MyPolicy, as in compare; several make data of mixed quality."
_DATASET = "Id of the new Minari data set, e.g. digits/ppo-v0; its folder is in MINARI_DATASETS_PATH (~/.minari/datasets)."
_NOISE = "Standard deviation of exploration around actions, or the probability of a random action where they are discrete."
_FLAT = "Observations as one Box instead of a Dict, which d3rlpy needs."


def record(
    policies: Annotated[str, typer.Option(help=_POLICIES)],
    dataset: Annotated[str, typer.Option(help=_DATASET)],
    problem: ProblemName = None,
    env: EnvironmentId = LOSS_WEIGHTING,
    instances: Annotated[int, typer.Option(help="Number of instances, each an episode of every policy.")] = 20,
    seed: Annotated[int, typer.Option(help="Training instances 2^31 + seed * 10^4, ..., which no comparison uses.")] = 0,
    num_envs: Annotated[int, typer.Option(help="Number of parallel trainings.")] = 16,
    noise: Annotated[float, typer.Option(help=_NOISE)] = 0.0,
    flat: Annotated[bool, typer.Option("--flat", help=_FLAT)] = False,
    author: Annotated[str | None, typer.Option(help="Who made the data set.")] = None,
    author_email: Annotated[str | None, typer.Option(help="The author's address.")] = None,
    code_permalink: Annotated[str | None, typer.Option(help="Link to the code that made it.")] = None,
    description: Annotated[str | None, typer.Option(help="What it is; by default policies, problem and instances.")] = None,
    settings: EnvironmentSettings = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Record episodes of policies as a Minari data set, to train agents offline (docs/offline.md)."""
    with reported():
        from mtl_gym.evaluation.recording import record as recorded  # with torch

        folder = recorded(
            split_policies(policies),
            env,
            dataset=dataset,
            instances=instances,
            seed=seed,
            num_envs=num_envs,
            noise=noise,
            flat=flat,
            author=author,
            author_email=author_email,
            code_permalink=code_permalink,
            description=description,
            progress=False if quiet else None,
            problem=problem,
            **environment_arguments(settings or [], _OPTIONS, env),
        )
        if as_json:
            print_json({"dataset": dataset, "folder": str(folder)})
        elif not quiet:
            console.print(f"{folder}: minari.load_dataset({dataset!r}) loads it", soft_wrap=True, markup=False, highlight=False)

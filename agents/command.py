"""The command ``mtl-gym train``."""

from __future__ import annotations

import inspect
import json
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mtl_gym.agents import AGENTS
from mtl_gym.cli import assignments, console, environment_arguments, reported
from mtl_gym.problems import LOSS_WEIGHTING


def train(
    out: Annotated[Path, typer.Option(help="Folder of the training; the same command goes on from it.")],
    problem: Annotated[str | None, typer.Option(help="See: mtl-gym list problems. [default: the environment's]")] = None,
    algorithm: Annotated[
        str | None,
        typer.Option(help=f"One of {', '.join(AGENTS)}; by default ppo, or maskable-ppo where structures or groups are chosen."),
    ] = None,
    env: Annotated[str, typer.Option(help="Id of the environment.")] = LOSS_WEIGHTING,
    time_steps: Annotated[int, typer.Option(help="Decisions, over all rows.")] = 76_800,
    seed: Annotated[int, typer.Option(help="Of networks, exploration and instances.")] = 0,
    num_envs: Annotated[int, typer.Option(help="Trainings that run side by side.")] = 64,
    rollouts_per_instance: Annotated[
        int | None,
        typer.Option(help="Rows that share an instance, whose mean reward is the baseline. [default: 8; 1, none, off-policy]"),
    ] = None,
    evaluations: Annotated[int, typer.Option(help="How often the agent is evaluated and kept.")] = 10,
    instances: Annotated[int, typer.Option(help="Held-out instances of an evaluation.")] = 32,
    references: Annotated[
        str | None, typer.Option(help="Policies that are drawn beside the agent. [default: three of the environment's]")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Argument of the environment, key=value; can be repeated.", metavar="KEY=VALUE"),
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option("--option", help="Hyper-parameter of the algorithm, key=value; can be repeated.", metavar="KEY=VALUE"),
    ] = None,
) -> None:
    """Train an agent on drawn instances of a problem; keep the best one, the last one, and TensorBoard curves.

    An interrupted training is gone on from by the same command.
    """
    with reported(out):
        from mtl_gym.agents.monitor import OF_POLICIES
        from mtl_gym.agents.training import REFERENCES
        from mtl_gym.agents.training import train as run

        with _progress(time_steps) as on_progress:
            agent = run(
                problem,
                out=out,
                algorithm=algorithm,
                env=env,
                time_steps=time_steps,
                seed=seed,
                num_envs=num_envs,
                rollouts_per_instance=rollouts_per_instance,
                evaluations=evaluations,
                instances=instances,
                references=references,
                options=assignments("--option", options or []),
                on_progress=on_progress,
                **environment_arguments(settings or [], list(inspect.signature(train).parameters)),
            )
        best = agent.about["scores"][-1]
        place = shlex.quote(str(out) if "/" in str(out) else f"./{out}")  # a bare name would be a policy's
        trained = agent.about["environment"]["arguments"]
        shared = {name: value for name, value in trained.items() if name not in (*OF_POLICIES, "problem")}
        texts = [f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in shared.items()]
        texts += [text for text in settings or [] if text.startswith("group_table=")]  # an agent does not keep where it looked up
        given = "".join(f" --set {shlex.quote(text)}" for text in texts) + (f" --env {env}" if env != LOSS_WEIGHTING else "")
        beside, chosen = ",".join(REFERENCES[env]), f"--problem {trained['problem']}"
        held_out = f"return {best['reward']:.3f}, delta_m {best['delta_m']:.1f} % on held-out instances"
        lines = {
            "best agent": f"{held_out}, after {best['steps']:,.0f} time steps",
            "curves": f"tensorboard --logdir {place}/events",
            "compare it": f"mtl-gym compare {chosen} --policies {beside},{place} --out {place}/comparison{given}",
        }
        for name, line in lines.items():
            console.print(f"{name + ':':12} {line}", soft_wrap=True, markup=False, highlight=False)


@contextmanager
def _progress(time_steps: int) -> Iterator[Callable[[int, Mapping[str, float]], None]]:
    """A live bar with the last return and held-out score."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("references, evaluation", total=time_steps)

        def on_progress(steps: int, known: Mapping[str, float]) -> None:
            text = f"return {known['return']:.3f}, held-out delta_m {known['delta_m']:.1f} %"
            progress.update(task, description=text, completed=steps)

        yield on_progress

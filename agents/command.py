"""The command ``mtl-gym train``."""

from __future__ import annotations

import inspect
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from mtl_gym import LOSS_WEIGHTING, agents
from mtl_gym.agents import AGENTS
from mtl_gym.agents.defaults import defaults_of, required_of
from mtl_gym.cli import EnvironmentSettings, assignments, console, environment_arguments, progress, reported

_ALGORITHM = f"One of {', '.join(AGENTS)}; by default ppo, or maskable-ppo where some actions are masked."
_ROLLOUTS = "Trainings that share an instance; their mean reward is the baseline. [default: 8; off-policy 1, none]"
_REFERENCES = "Policies to plot with the agent. [default: three of the environment's]"
_OPTION = typer.Option("--option", help="Hyper-parameter of the algorithm, key=value; can be repeated.", metavar="KEY=VALUE")


def train(
    out: Annotated[Path, typer.Option(help="Output folder; rerun the command to resume.")],
    problem: Annotated[str | None, typer.Option(help="See: mtl-gym list problems. [default: the environment's]")] = None,
    algorithm: Annotated[str | None, typer.Option(help=_ALGORITHM)] = None,
    env: Annotated[str, typer.Option(help="Id of the environment.")] = LOSS_WEIGHTING,
    time_steps: Annotated[int, typer.Option(help="Number of decisions, over all trainings.")] = 76_800,
    seed: Annotated[int, typer.Option(help="Seed of networks, exploration and instances.")] = 0,
    num_envs: Annotated[int, typer.Option(help="Number of parallel trainings.")] = 64,
    rollouts_per_instance: Annotated[int | None, typer.Option(help=_ROLLOUTS)] = None,
    evaluations: Annotated[int, typer.Option(help="How often the agent is evaluated and saved.")] = 10,
    instances: Annotated[int, typer.Option(help="Number of held-out instances per evaluation.")] = 32,
    references: Annotated[str | None, typer.Option(help=_REFERENCES)] = None,
    settings: EnvironmentSettings = None,
    options: Annotated[list[str] | None, _OPTION] = None,
) -> None:
    """Train an agent on random instances of a problem; save the best agent, the last one, and TensorBoard curves.

    Rerun the command to resume after an interruption.
    """
    with reported(out):
        with progress(time_steps, "references, evaluation") as update:
            agent = agents.train(
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
                on_progress=lambda steps, known: update(description=_described(known), completed=steps),
                **environment_arguments(settings or [], list(inspect.signature(train).parameters)),
            )
        for name, line in _next(agent, out, env, settings or []).items():
            console.print(f"{name + ':':12} {line}", soft_wrap=True, markup=False, highlight=False)


def _described(known: Mapping[str, float]) -> str:
    return f"return {known['return']:.3f}, held-out delta_m {known['delta_m']:.1f} %"


def _next(agent: agents.Agent, out: Path, env: str, settings: list[str]) -> dict[str, str]:
    """The best agent's score, and the commands to run next."""
    best, defaults, trained = agent.about["scores"][-1], defaults_of(env), agent.about["environment"]["arguments"]
    place = shlex.quote(str(out) if "/" in str(out) else f"./{out}")  # a bare name would be a policy's
    shared = {name: value for name, value in trained.items() if name not in (*required_of(env), "reward", "problem")}
    texts = [f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in shared.items()]
    texts += [text for text in settings if text.startswith(tuple(f"{name}=" for name in defaults.forgotten))]
    given = "".join(f" --set {shlex.quote(text)}" for text in texts) + f" --env {env}"
    policies = ",".join((*defaults.references, place))
    held_out = f"return {best['reward']:.3f}, delta_m {best['delta_m']:.1f} % on held-out instances"
    return {
        "best agent": f"{held_out}, after {best['steps']:,.0f} time steps",
        "curves": f"tensorboard --logdir {place}/events",
        "compare it": f"mtl-gym compare --problem {trained['problem']} --policies {policies} --out {place}/comparison{given}",
    }

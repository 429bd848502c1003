"""The command ``mtl-gym train``."""

from __future__ import annotations

import inspect
import json
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from mtl_gym import LOSS_WEIGHTING, agents
from mtl_gym.agents import AGENTS
from mtl_gym.agents.cost import SHOWN, training_seconds
from mtl_gym.agents.defaults import defaults_of, required_of, score_of
from mtl_gym.cli import (
    Address,
    EnvironmentId,
    EnvironmentSettings,
    ExecutorName,
    Json,
    Quiet,
    assignments,
    complete_problem,
    console,
    environment_arguments,
    given_path,
    print_json,
    reported,
)

_ALGORITHM = f"One of {', '.join(AGENTS)}; by default ppo, or maskable-ppo where some actions are masked."
_ROLLOUTS = "Trainings that share an instance; their mean reward is the baseline. By default 8; off-policy 1, none."
_REFERENCES = "Policies to plot with the agent; by default three of the environment."
_PROBLEM = (
    "A name (mtl-gym list problems), or file.py:function for one of your own; by default the environment's. Several, with commas "
    "between them, are trained on side by side; as a JSON list of objects, each has arguments of its own."
)
_FLOOR = "Divides rewards, problem by problem, by the deviation between trainings that share an instance, but by no less than this."
_WORKERS = "Processes that step the trainings, each a part of them, with one thread; 1: this process, with its threads."
_OPTION = typer.Option("--option", help="Hyper-parameter of the algorithm, key=value; can be repeated.", metavar="KEY=VALUE")

_RESUMES = "The training resumes from its last evaluation, and then ends with the same agents as without the interruption."
_UNTRAINED = (
    "no evaluation was better than that of the untrained agent, so the training has not helped. "
    "Try more --time-steps, more --instances to evaluate on, or a smaller --option learning_rate=..."
)


def train(
    out: Annotated[Path, typer.Option(help="Output folder; rerun the command to resume.", parser=given_path, metavar="PATH")],
    problem: Annotated[str | None, typer.Option(help=_PROBLEM, autocompletion=complete_problem)] = None,
    algorithm: Annotated[str | None, typer.Option(help=_ALGORITHM)] = None,
    env: EnvironmentId = LOSS_WEIGHTING,
    time_steps: Annotated[int, typer.Option(help="Number of decisions, over all trainings.")] = 76_800,
    seed: Annotated[int, typer.Option(help="Seed of networks, exploration and instances.")] = 0,
    num_envs: Annotated[int, typer.Option(help="Number of parallel trainings.")] = 64,
    rollouts_per_instance: Annotated[int | None, typer.Option(help=_ROLLOUTS)] = None,
    evaluations: Annotated[int, typer.Option(help="How often the agent is evaluated and saved.")] = 10,
    instances: Annotated[int, typer.Option(help="Number of held-out instances per evaluation.")] = 32,
    references: Annotated[str | None, typer.Option(help=_REFERENCES)] = None,
    settings: EnvironmentSettings = None,
    reward_floor: Annotated[float | None, typer.Option(help=_FLOOR)] = None,
    options: Annotated[list[str] | None, _OPTION] = None,
    workers: Annotated[int, typer.Option(help=_WORKERS)] = 1,
    executor: ExecutorName = "local",
    address: Address = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Train an agent on random instances of a problem; save the best agent, the last one, and TensorBoard curves.

    Rerun the command to resume after an interruption.
    """
    with reported(out, _RESUMES):
        own = [name for name in inspect.signature(train).parameters if name not in ("settings", "options", "quiet", "as_json")]
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
            reward_floor=reward_floor,
            options=assignments("--option", options or []),
            workers=workers,
            executor=executor,
            address=address,
            progress=False if quiet else None,
            **environment_arguments(settings or [], own, env),
        )
        if as_json:
            print_json({"agent": str(out), **agent.about})
            return
        for name, line in _next(agent, out, env, settings or []):
            console.print(f"{name + ':':12} {line}", soft_wrap=True, markup=False, highlight=False)


def _estimate(found: Mapping[str, Any], duration: Callable[[float], str]) -> str | None:
    """The line of ``mtl-gym check`` on this command with its defaults."""
    given = inspect.signature(train).parameters
    seconds = training_seconds(found, **{name: given[name].default for name in ("time_steps", "evaluations", "instances")})
    if seconds is None:
        return None
    before, then = map(duration, seconds)
    return (
        f"{before} for references and first scores, then {then} per {SHOWN:,} decisions (training steps alone: what decisions "
        "measure, and the agent, come on top)"
    )


train.estimate = _estimate  # type: ignore[attr-defined]


def _next(agent: agents.Agent, out: Path, env: str, settings: list[str]) -> list[tuple[str, str]]:
    """The best agent's score, and the commands to run next."""
    best, defaults, trained = agent.about["scores"][-1], defaults_of(env), agent.about["environment"]["arguments"]
    place = shlex.quote(str(out) if "/" in str(out) else f"./{out}")  # a bare name would be a policy's
    shared = {name: value for name, value in trained.items() if name not in (*required_of(env), "reward", "problem")}
    texts = [f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in shared.items()]
    texts += [text for text in settings if text.startswith(tuple(f"{name}=" for name in defaults.forgotten))]
    given = "".join(f" --set {shlex.quote(text)}" for text in texts) + f" --env {env}"
    policies = ",".join((*defaults.references, place))
    reward = f"return {best['reward']:.3f} of the reward {score_of(env, trained)} (higher is better)"
    held_out = f"{reward}, delta_m {best['delta_m']:.1f} % on held-out instances"
    problems = trained["problem"].split(",")
    compared = f"--policies {policies} --out {place}/comparison"
    folders = [""] if len(problems) == 1 else [f"/{number}" for number in range(1, len(problems) + 1)]
    lines = [
        f"mtl-gym compare --problem {shlex.quote(own)} {compared}{at}{given}" for own, at in zip(problems, folders, strict=True)
    ]
    return [
        *([] if best["steps"] else [("attention", _UNTRAINED)]),
        ("best agent", f"{held_out}, after {best['steps']:,.0f} time steps{'' if best['steps'] else ', untrained'}"),
        ("curves", f"tensorboard --logdir {place}/events"),
        *(("compare it", line) for line in lines),
    ]

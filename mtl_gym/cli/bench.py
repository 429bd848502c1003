"""The command ``mtl-gym bench``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from mtl_gym.cli.messages import console, print_json, reported
from mtl_gym.cli.options import Json, ProblemName, Quiet, complete_env
from mtl_gym.cli.rows import Row, print_rows
from mtl_gym.evaluation.timing import SECONDS

Found = Mapping[str, Any]
_LOOPS = {"adam": "Adam", "fused_adam": "Adam(fused=True)"}

_ENV = "Id of an environment; can be repeated. By default all."


def bench(
    env: Annotated[list[str] | None, typer.Option(help=_ENV, autocompletion=complete_env)] = None,
    problem: ProblemName = None,
    num_envs: Annotated[str, typer.Option(help="Numbers of trainings side by side, separated by commas.")] = "1,16",
    device: Annotated[str, typer.Option(help="Torch device.")] = "cpu",
    seconds: Annotated[float, typer.Option(help="How long to measure; the preparations come on top.")] = SECONDS,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Measure the speed of every environment on this machine, beside a loop written by hand and a product of matrices.

    Everything is measured in interleaved rounds, in about a minute, with as many threads as torch has (OMP_NUM_THREADS).
    """
    with reported():
        from mtl_gym.evaluation.speed import bench as measured  # with torch

        counts: list[Any] = [_whole(text) for text in num_envs.split(",")]
        progress = False if quiet else None
        found = measured(env=env, problem=problem, num_envs=counts, device=device, seconds=seconds, progress=progress)
        if as_json:
            print_json(found)
        else:
            _show(found)


def _whole(text: str) -> int | str:
    """A whole number; a text that is none stays, and is refused by name."""
    try:
        return int(text)
    except ValueError:
        return text


def _show(found: Found) -> None:
    from mtl_gym.evaluation.kernels import described

    machine, peak = found["machine"], found["peak"]
    about = f"{machine['cpu']}, {machine['cores']} cores; {described(machine['kernels'])}"
    product = f"product of two {peak['size']:,} x {peak['size']:,} matrices: {_text(peak['gflops'])} GFLOP/s"
    console.print(f"{about}\n{product}\n", soft_wrap=True, markup=False, highlight=False)
    print_rows("environments", [_environment(row) for row in found["environments"]])
    print_rows("loops by hand, one network after another", [_loop(row) for row in found["loops"]])
    reasons = {row["env"]: f"no loop by hand: {row['no_loop']}" for row in found["environments"] if row["no_loop"]}
    for id, reason in {**reasons, **{id: f"left out: {own}" for id, own in found["left_out"].items()}}.items():
        console.print(f"{_short(id)}: {reason}", soft_wrap=True, markup=False, highlight=False)


def _environment(row: Found) -> Row:
    relative = row["speed_relative_to"] or {}
    return {  # what matters most first: narrow terminals show the first columns
        "environment": _short(row["env"]),
        "N": str(row["num_envs"]),
        "steps per second": _text(row["steps_per_second"]),
        "of peak": f"{row['peak_share']['median']:.1%}",
        **{f"x {name}": _text(relative[key]) if relative else "" for key, name in _LOOPS.items()},
        "problem": row["problem"],
        "GFLOP/s": f"{row['gflops']['median']:.3g}",
        "passes per step": f"{row['forward']:.3g} + {row['backward']:.3g}",
    }


def _loop(row: Found) -> Row:
    return {
        "network": row["network"].lower(),
        "problem": row["problem"],
        "optimizer": _LOOPS[row["optimizer"]],
        "steps per second": _text(row["steps_per_second"]),
        "GFLOP/s": f"{row['gflops']['median']:.3g}",
        "of peak": f"{row['peak_share']['median']:.1%}",
    }


def _short(id: str) -> str:
    return id.removeprefix("mtl_gym/")


def _text(spread: Mapping[str, float]) -> str:
    """Median and quartiles, with three digits at least."""
    middle, low, high = (_number(spread[name]) for name in ("median", "lower", "upper"))
    return f"{middle} ({low} to {high})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"

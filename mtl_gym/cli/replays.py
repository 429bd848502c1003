"""The commands ``mtl-gym reproduce`` and ``mtl-gym verify``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mtl_gym.cli.messages import console, print_json, reported
from mtl_gym.cli.options import Json, Quiet, given_path
from mtl_gym.cli.rows import print_rows

if TYPE_CHECKING:
    from mtl_gym.evaluation.replays import Replay

_SOURCE = typer.Argument(help="The --out of a comparison or a suite, or its file of results.", parser=given_path, metavar="PATH")
_ROW = typer.Argument(help="study/policy/instance of a suite; of another comparison, policy/instance.", metavar="ROW")
_TOLD = ("row", "comparable", "exact", "begun_alike", "difference")


def reproduce(source: Annotated[Path, _SOURCE], row: Annotated[str, _ROW], quiet: Quiet = False, as_json: Json = False) -> None:
    """Make one row of results again, and say whether it is the same."""
    with reported():
        from mtl_gym.evaluation import replays

        own = replays.reproduce(source, row, progress=False if quiet else None)
        pairs = {name: (value, own.found.metrics[name]) for name, value in own.known.metrics.items()}
        pairs["delta_m %"] = (own.known.delta_m, own.found.delta_m)
        if as_json:
            numbers = {name: {"known": known, "again": again} for name, (known, again) in pairs.items()}
            print_json({**{name: getattr(own, name) for name in _TOLD}, "numbers": numbers})
            return
        print_rows(row, [{"number": name, "in the file": f"{a:.6g}", "again": f"{b:.6g}"} for name, (a, b) in pairs.items()])
        console.print(_said(own), highlight=False)


def _said(own: Replay) -> str:
    if own.exact:
        return "The same, bit for bit."
    if own.comparable:
        return "Not the same, on the same kernels: the policy, or something that it depends on, has changed."
    begun = "begun alike" if own.begun_alike else "and its first losses differ"
    return f"On other kernels, {begun}: single rows may differ by several points."


def verify(
    source: Annotated[Path, _SOURCE],
    sample: Annotated[int, typer.Option(help="How many rows are made again.")] = 8,
    seed: Annotated[int, typer.Option(help="Which ones.")] = 0,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Make a random sample of a suite's rows again, in the suite's own settings; exits with 1 if they do not support the file."""
    with reported():
        from mtl_gym.evaluation import replays

        table = replays.verify(source, sample, seed=seed, progress=False if quiet else None)
        if as_json:
            print_json({**table.attrs, "rows": table.to_dict("index")})
        else:
            said = [("exactly" if own["exact"] else "begun alike" if own["begun_alike"] else "no") for _, own in table.iterrows()]
            numbers = [{"delta_m %": f"{own['delta_m']:.3f}", "again": f"{own['again']:.3f}"} for _, own in table.iterrows()]
            rows = [{"row": str(name), **own, "same": how} for name, own, how in zip(table.index, numbers, said, strict=True)]
            print_rows("rows that were made again", rows)
            for name, reason in table.attrs["unknown"].items():
                console.print(f"left out: {name}: {reason}", markup=False, highlight=False, soft_wrap=True)
            console.print(table.attrs["verdict"], markup=False, highlight=False)
        if not table.attrs["sound"]:
            raise typer.Exit(1)

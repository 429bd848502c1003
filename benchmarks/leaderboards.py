"""The leaderboards of suites: the standard ones of every environment, and all others of LossWeighting.

    python -m benchmarks.leaderboards                               every suite (two hours; rerun to resume)
    python -m benchmarks.leaderboards LossWeighting-v0              one of them, ``BOARDS``
    python -m benchmarks.leaderboards --rank                        ranks the rows that are kept again, without any training

It runs, for each of them,

    mtl-gym compare --suite SUITE --env ENV --policies ... --out runs/leaderboards/NAME

and keeps its rows without learning curves: ``benchmarks/results/leaderboards/NAME.sqlite.xz``. From these ``--rank`` makes every
leaderboard of ``docs/leaderboards.md`` again; unpacked as ``FOLDER/results.sqlite``, one is what ``mtl-gym compare --suite SUITE
--out FOLDER`` adds a policy of yours to. ``benchmarks/results/leaderboards.json`` has how long it took.
"""

from __future__ import annotations

import argparse
import itertools
import lzma
import sqlite3
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

import mtl_gym
from benchmarks.measuring import RESULTS, ROOT, Run, command_line
from mtl_gym.cache import write_whole
from mtl_gym.environments import LAYER_MERGING, LOSS_WEIGHTING, SAMPLE_WEIGHTING, TASK_GROUPING
from mtl_gym.evaluation.standing_files import write_standings
from mtl_gym.evaluation.standing_texts import notes_of, rows_of
from mtl_gym.evaluation.standings import ranking
from mtl_gym.evaluation.suite_frames import suite_frame
from mtl_gym.evaluation.suite_tables import SUITES

LEVEL = "rule:first=1:base=1:level=1"
LOSS_BALANCING = (
    *("ew", "init", "si", "si-mean", "gls", "rlw", "uw", "uw-so", "dwa", "imtl-l", "igb", "cov", "famo", "stch"),
    *(LEVEL, "best-rule", "ppo", "ppo:action=rule"),
)
"""Policies for the weights of losses, at most one and a half times the passes of equal weights."""
GRADIENT_BALANCING = ("igb+cagrad", "nash-mtl", "db-mtl")
"""Those of the methods at a backward pass for each task that were best on other instances (``docs/transfer.md``)."""
STANDARD: dict[str, tuple[tuple[str, ...], ...]] = {
    LOSS_WEIGHTING: (LOSS_BALANCING, GRADIENT_BALANCING),
    SAMPLE_WEIGHTING: (
        (*("uniform", "main", "slgrad", "l2rw", "gcs", "ol-aux", "small-loss", "self-paced", "ohem", "focal"), *("oracle", "ppo")),
    ),
    LAYER_MERGING: (("shared", "single-task", "branch", "random-merge", "mtsl", "conflict", "ppo", "ppo:action=threshold"),),
    TASK_GROUPING: (("joint", "single-task", "random-groups", "stg-mtl", "cosine-groups", "hoa", "tag", "ppo"),),
}
"""By environment, the policies that are run one after the other; the first one is the baseline. `oracle` knows which labels are
wrong; `exhaustive` cannot train all groups of the twelve tasks of `clusters`."""


class Board(NamedTuple):
    """A suite, and the policies that are run on it, stage by stage."""

    suite: str
    env: str
    stages: tuple[tuple[str, ...], ...]


def name_of(suite: str, env: str) -> str:
    """What the leaderboard of a suite is called: the environment, and the suite unless it is the standard one."""
    return "-".join([env.rpartition("/")[2], *([suite] if suite != "standard" else [])])


BOARDS = {
    name_of(suite, env): Board(suite, env, STANDARD[env] if suite == "standard" else (LOSS_BALANCING,))
    for suite, env in SUITES
    if suite != "quick"
}
"""By name, what is run; of the suites that change one thing, what costs as much as equal weights."""
FOLDER = RESULTS / "leaderboards"
COLUMNS = ("study", "policy", "instance", "delta_m", "forward", "backward", "diverged")


def rows_file(name: str, folder: Path = FOLDER) -> Path:
    """Where the rows of a leaderboard are."""
    return folder / f"{name}.csv"


def shown_file(name: str, folder: Path = FOLDER) -> Path:
    """Where a leaderboard is, as ``mtl-gym leaderboard`` prints it."""
    return folder / f"{name}-leaderboard.csv"


def played(board: Board, policies: Sequence[str], out: Path, workers: int) -> dict[str, Any]:
    """Runs a suite and writes its leaderboard; returns what was run, and the minutes that it took."""
    begun = time.perf_counter()
    frame = mtl_gym.compare_suite([*policies], board.suite, board.env, out=out, workers=workers)
    seconds = time.perf_counter() - begun
    return {"policies": len(policies), "minutes": round(seconds / 60, 1), **ranked(frame, policies[0], out)}


def ranked(frame: pd.DataFrame, baseline: str, out: Path) -> dict[str, Any]:
    """Writes the leaderboard of a suite's frame, and its rows beside the folder; returns how many there are, and what is noted."""
    runs = frame.drop_duplicates(["study", "policy", "instance"])[[*COLUMNS]]
    found = ranking(frame, baseline)
    write_standings(found, out)
    texts = {rows_file: runs.round({"delta_m": 4}), shown_file: pd.DataFrame(rows_of(found.table))}
    for file, own in texts.items():
        write_whole(file(out.name, out.parent), own.to_csv(index=False))
    return {"trainings": len(runs), "notes": notes_of(found.table)}


def publish(name: str, folder: Path) -> None:
    """Copies a leaderboard and its rows to where they are kept."""
    FOLDER.mkdir(exist_ok=True)
    for file in (rows_file, shown_file):
        write_whole(file(name), file(name, folder).read_text())
    pack(folder / name / "results.sqlite", FOLDER / f"{name}.sqlite.xz")


def pack(source: Path, target: Path) -> None:
    """Compresses a file of results, without learning curves and specifications, which the settings repeat."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "results.sqlite"
        with closing(sqlite3.connect(source)) as known, closing(sqlite3.connect(copy)) as slim:
            known.backup(slim)
            slim.execute("UPDATE results SET result = json_set(result, '$.curves', json('{}')), spec = '{}'")
            slim.commit()
            slim.execute("VACUUM")
        write_whole(target, lzma.compress(copy.read_bytes(), preset=9))


def unpack(source: Path, target: Path) -> None:
    """Writes the file of results that :func:`pack` has compressed, unless there is one."""
    if source.is_file() and not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        write_whole(target, lzma.decompress(source.read_bytes()))


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rank", action="store_true", help="only rank the rows that there are again")


def main(words: Sequence[str] | None = None) -> None:
    """Plays, and keeps the rows."""
    run: Run
    run, given = command_line(words, _options)
    known = run.known()
    if run.smoke:
        if run.out:
            name, (_, env, stages) = "TaskGrouping-v0", BOARDS["TaskGrouping-v0"]
            run.write({name: played(Board("quick", env, ()), stages[0][:2], run.out.parent / name, 1)})
        return
    for name in run.names or [*BOARDS]:
        board, folder = BOARDS[name], ROOT / "runs" / "leaderboards"
        rows = known.setdefault(name, {"workers": given.workers, "stages": []})
        if given.rank:
            unpack(FOLDER / f"{name}.sqlite.xz", folder / name / "results.sqlite")
            if rows["stages"]:
                rows["stages"][-1] |= ranked(suite_frame(folder / name), board.stages[0][0], folder / name)
                publish(name, folder)
                run.write(known)
            continue
        for stage in board.stages[len(rows["stages"]) :]:  # a stage that was cut off begins again, and its minutes are too few
            policies = [*itertools.chain(*board.stages[: len(rows["stages"])]), *stage]
            rows["stages"].append(played(board, policies, folder / name, given.workers))
            publish(name, folder)
            print(name, rows["stages"][-1], flush=True)
            run.write(known)


if __name__ == "__main__":
    main()

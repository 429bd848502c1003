"""The leaderboards of the standard suites: every environment, with all heuristics that cost no more than a backward pass a task.

    python -m benchmarks.leaderboards                               every environment (an hour; rerun to resume)
    python -m benchmarks.leaderboards LossWeighting-v0              one of them

It runs, for each environment,

    mtl-gym compare --suite standard --env ENV --policies ... --out runs/leaderboards/ENV

whose policies are ``POLICIES``, and keeps of each row what a leaderboard needs (``benchmarks/results/leaderboards``, a CSV file
for each environment), from which ``docs/leaderboards.md`` is made. ``benchmarks/results/leaderboards.json`` has how long it took.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

import mtl_gym
from benchmarks.measuring import RESULTS, ROOT, Run, command_line
from mtl_gym.cache import write_whole
from mtl_gym.environments import LAYER_MERGING, LOSS_WEIGHTING, SAMPLE_WEIGHTING, TASK_GROUPING
from mtl_gym.evaluation.suites import load_suite

SUITE = "standard"
LEVEL = "rule:first=1:base=1:level=1"
LOSS_BALANCING = (
    *("ew", "init", "si", "si-mean", "gls", "rlw", "uw", "uw-so", "dwa", "imtl-l", "igb", "cov", "famo", "stch"),
    *(LEVEL, "best-rule", "ppo", "ppo:action=rule"),
)
"""Policies for the weights of losses, at most one and a half times the passes of equal weights."""
GRADIENT_BALANCING = ("igb+cagrad", "nash-mtl", "db-mtl")
"""Those of the methods at a backward pass for each task that were best on other instances (``docs/transfer.md``)."""
POLICIES: dict[str, tuple[str, ...]] = {
    LOSS_WEIGHTING: (*LOSS_BALANCING, *GRADIENT_BALANCING),
    SAMPLE_WEIGHTING: (
        *(
            "uniform",
            "single-task",
            "main",
            "slgrad",
            "l2rw",
            "gcs",
            "ol-aux",
            "small-loss",
            "self-paced",
            "ohem",
            "focal",
            "oracle",
        ),
        "ppo",
    ),
    LAYER_MERGING: ("shared", "single-task", "branch", "random-merge", "mtsl", "conflict", "ppo", "ppo:action=threshold"),
    TASK_GROUPING: ("joint", "single-task", "random-groups", "stg-mtl", "cosine-groups", "hoa", "tag", "exhaustive", "ppo"),
}
"""By environment; the first one is the baseline. `oracle` knows which labels are wrong, `exhaustive` trains all groups of tasks."""
FOLDER = RESULTS / "leaderboards"
COLUMNS = ("study", "policy", "instance", "delta_m", "forward", "backward", "diverged")


def rows_file(env: str, folder: Path = FOLDER) -> Path:
    """Where the rows of an environment are."""
    return folder / f"{env.rpartition('/')[2]}.csv"


def rows_of(env: str) -> pd.DataFrame:
    """The rows of an environment's leaderboard, which :func:`mtl_gym.standings` ranks."""
    frame = pd.read_csv(rows_file(env))
    frame.attrs["suite"] = {"name": SUITE, "version": load_suite(SUITE, env).version, "env": env}
    return frame


def played(env: str, policies: Sequence[str], suite: str, out: Path, workers: int) -> dict[str, Any]:
    """Runs the suite, unless it has results already, and returns the seconds that it took."""
    begun = time.perf_counter()
    frame = mtl_gym.compare_suite([*policies], suite, env, out=out, workers=workers)
    seconds = time.perf_counter() - begun
    runs = frame.drop_duplicates(["study", "policy", "instance"])[[*COLUMNS]]
    write_whole(rows_file(env, out.parent), runs.round({"delta_m": 4}).to_csv(index=False))
    return {"policies": len(policies), "trainings": len(runs), "minutes": round(seconds / 60, 1), "workers": workers}


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workers", type=int, default=2)


def main(words: Sequence[str] | None = None) -> None:
    """Plays, and keeps the rows."""
    run: Run
    run, given = command_line(words, _options)
    known = run.known()
    names = {env.rpartition("/")[2]: env for env in POLICIES}
    for name in run.names or [*names][-1 if run.smoke else None :]:
        env, folder = names[name], ROOT / "runs" / "leaderboards"
        if run.smoke:
            if run.out:
                known[name] = played(env, POLICIES[env][:2], "quick", run.out.parent / name, 1)
            continue
        known[name] = {**known.get(name, {}), **played(env, POLICIES[env], SUITE, folder / name, given.workers)}
        FOLDER.mkdir(exist_ok=True)
        write_whole(rows_file(env), rows_file(env, folder).read_text())
        print(name, known[name], flush=True)
        run.write(known)


if __name__ == "__main__":
    main()

"""Kills commands at random moments, and compares their results with those of an undisturbed run.

    python -m benchmarks.kills              20 kills of each command (some minutes)
    python -m benchmarks.kills train        only this one

A command is started, killed with SIGKILL at a random moment after it has begun to write, and started again in the same folder, up
to five times; then it runs to its end. This is repeated in new folders, each with an empty cache, until the command has been killed
20 times. Its files have to be the same, byte for byte, as those of the undisturbed run. Writes ``benchmarks/results/kills.json``.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measuring import Run, command_line

KILLS, IN_A_ROW = 20, 5
_MODULES = [
    f"mtl_gym.{name}"
    for name in (
        "cli",
        "evaluation.comparison",
        "evaluation.export",
        "evaluation.group_table_maker",
        "agents.command",
        "agents.learning",
    )
]
"""What the commands import, loaded once."""


@dataclass(frozen=True)
class Study:
    """A command whose output is ``out``, and the files that have to be the same (of a file: its own name)."""

    words: tuple[str, ...]
    files: tuple[str, ...]
    out: str = "out"


_POLICIES = "ew,si,igb,dwa,rlw,constant:w=1,2,3,4,5"
STUDIES = {
    "compare": Study(
        (
            *("compare", "--problem", "digits", "--policies", _POLICIES, "--instances", "8", "--num-envs", "4"),
            *("--set", "train_steps=150", "--set", "hidden_sizes=[16]", "--set", "reward=gain"),
        ),
        ("results.csv", "summary.json"),
    ),
    "train": Study(
        (
            *(
                "train",
                "--problem",
                "quadratic",
                "--time-steps",
                "192",
                "--num-envs",
                "8",
                "--evaluations",
                "6",
                "--instances",
                "2",
            ),
            *("--references", "", "--option", "n_epochs=2", "--option", "batch_size=16", "--option", "episodes=1"),
            *("--set", "train_steps=80", "--set", "distribution=clean"),
        ),
        ("best.safetensors", "last.safetensors", "checkpoint.safetensors"),
    ),
    "groupings": Study(
        (
            *("groupings", "yeast", "--instances", "32", "--set", "num_tasks=3", "--set", "train_steps=30"),
            *("--set", "hidden_sizes=[16,16]"),
        ),
        ("",),
        out="table.npz",
    ),
}


def start(study: Study, folder: Path) -> Any:
    """Starts the command in a folder, with a cache of its own, in a process with the modules already imported."""
    folder.mkdir(exist_ok=True)
    process = multiprocessing.get_context("forkserver").Process(target=command, args=(study, folder))
    process.start()
    return process


def command(study: Study, folder: Path) -> None:
    """Runs the command."""
    from mtl_gym.cli import main as mtl_gym

    os.chdir(folder)
    os.environ["MTL_GYM_CACHE"] = str(folder / "cache")
    with open("log.txt", "ab") as log:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(log.fileno(), stream.fileno())
    sys.argv = ["mtl-gym", *study.words, "--out", study.out]
    mtl_gym()


def undisturbed(study: Study, folder: Path) -> tuple[float, float]:
    """Seconds after which the command begins to write, and ends."""
    process, begun, first = start(study, folder), time.perf_counter(), 0.0
    while process.is_alive():
        if not first and ((folder / study.out).exists() or (folder / "cache").exists()):
            first = time.perf_counter() - begun
        time.sleep(0.02)
    check(process, folder)
    return first, time.perf_counter() - begun


def check(process: Any, folder: Path) -> None:
    """Raises RuntimeError, with what the command has printed, if it has failed."""
    if process.exitcode:
        raise RuntimeError((folder / "log.txt").read_text())


def killed(study: Study, folder: Path, moments: Sequence[float]) -> int:
    """Runs the command to its end, killed after each of these numbers of seconds; returns how often it was still running then."""
    kills = 0
    for moment in moments:
        process = start(study, folder)
        process.join(moment)
        if not process.is_alive():
            check(process, folder)
            break
        process.kill()
        process.join()
        kills += 1
    last = start(study, folder)
    last.join()
    check(last, folder)
    return kills


def measured(study: Study, kills: int, folder: Path) -> dict[str, Any]:
    """The row of a study."""
    first, seconds = undisturbed(study, folder / "undisturbed")
    whole, rng = contents(study, folder / "undisturbed"), random.Random(0)
    done, trials, differing = 0, 0, []
    while done < kills:
        own = folder / f"killed-{trials}"
        done += killed(study, own, [rng.uniform(first, seconds) for _ in range(min(IN_A_ROW, kills - done))])
        differing += [name for name, content in contents(study, own).items() if content != whole[name]]
        trials += 1
    return {
        "kills": done,
        "folders": trials,
        "files compared": trials * len(whole),
        "files that differ": differing,
        "seconds undisturbed": round(seconds, 1),
        "seconds before the first file": round(first, 1),
    }


def contents(study: Study, folder: Path) -> dict[str, bytes]:
    """The files that have to be the same, by name."""
    paths = [folder / study.out / name if name else folder / study.out for name in study.files]
    return {path.name: path.read_bytes() for path in paths}


def main(words: Sequence[str] | None = None) -> None:
    """Kills, compares, prints and stores the results."""
    run: Run = command_line(words)
    rows = run.known()
    os.environ["OMP_NUM_THREADS"] = "1"
    multiprocessing.set_forkserver_preload(_MODULES)
    for name in run.chosen([*STUDIES]):
        with tempfile.TemporaryDirectory() as folder:
            rows[name] = measured(STUDIES[name], run.size(KILLS), Path(folder))
        print(f"{name:12}", rows[name], flush=True)
        run.write(rows)


if __name__ == "__main__":
    main()

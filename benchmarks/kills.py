"""Kills commands at random moments, and compares their results with those of an undisturbed run.

    python -m benchmarks.kills              20 kills of each command (some minutes)
    python -m benchmarks.kills train        only this one

A command is started, killed with SIGKILL at a random moment after it has begun to write, and started again in the same folder, up
to five times; then it runs to its end. This is repeated in new folders, each with an empty cache, until the command has been killed
20 times. Its files have to be the same, byte for byte, as those of the undisturbed run. Writes ``benchmarks/results/kills.json``.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measuring import ROOT, Run, command_line

KILLS, IN_A_ROW = 20, 5
_COMMAND = [sys.executable, "-m", "mtl_gym"]


@dataclass(frozen=True)
class Study:
    """A command whose output is ``out``, and the files that have to be the same (of a file: its own name)."""

    words: tuple[str, ...]
    files: tuple[str, ...]
    out: str = "out"


_POLICIES = "ew,si,igb,dwa,rlw,constant:w=1,2,3,4,5,6"
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
            *("train", "--problem", "quadratic", "--time-steps", "1600", "--num-envs", "8", "--evaluations", "10"),
            *("--instances", "4", "--set", "train_steps=100"),
        ),
        ("best.safetensors", "last.safetensors", "checkpoint.safetensors"),
    ),
    "groupings": Study(
        (
            *("groupings", "yeast", "--instances", "32", "--set", "num_tasks=4", "--set", "train_steps=60"),
            *("--set", "hidden_sizes=[16,16]"),
        ),
        ("",),
        out="table.npz",
    ),
}


def start(study: Study, folder: Path) -> subprocess.Popen[bytes]:
    """Starts the command in a folder, with a cache of its own."""
    variables = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MTL_GYM_CACHE": str(folder / "cache")}
    folder.mkdir(exist_ok=True)
    with open(folder / "log.txt", "ab") as log:
        return subprocess.Popen(
            [*_COMMAND, *study.words, "--out", study.out], cwd=folder, env={**os.environ, **variables}, stdout=log, stderr=log
        )


def undisturbed(study: Study, folder: Path) -> tuple[float, float]:
    """Seconds after which the command begins to write, and ends."""
    process, begun, first = start(study, folder), time.perf_counter(), 0.0
    while process.poll() is None:
        if not first and ((folder / study.out).exists() or (folder / "cache").exists()):
            first = time.perf_counter() - begun
        time.sleep(0.02)
    check(process, folder)
    return first, time.perf_counter() - begun


def check(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Raises RuntimeError, with what the command has printed, if it has failed."""
    if process.returncode:
        raise RuntimeError((folder / "log.txt").read_text())


def killed(study: Study, folder: Path, moments: Sequence[float]) -> int:
    """Runs the command to its end, killed after each of these numbers of seconds; returns how often it was still running then."""
    kills = 0
    for moment in moments:
        process = start(study, folder)
        try:
            process.wait(moment)
            check(process, folder)
            break  # it has ended
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
    last = start(study, folder)
    last.wait()
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
    for name in run.chosen([*STUDIES]):
        with tempfile.TemporaryDirectory() as folder:
            rows[name] = measured(STUDIES[name], run.size(KILLS), Path(folder))
        print(f"{name:12}", rows[name], flush=True)
        run.write(rows)


if __name__ == "__main__":
    main()

"""Compares the speed of this source tree with that of another, interleaved in one run.

    python -m benchmarks.composition_speed --before PATH            all figures, 20 rounds (minutes)
    python -m benchmarks.composition_speed --before PATH stereo     only figures with this word in their names
    python -m benchmarks.composition_speed --before PATH --rounds 5

Each tree runs in its own process with one thread; the processes take turns, a tenth of a second each. A ratio is this tree's speed
over the other's: medians and quartiles of the rounds. Writes ``benchmarks/results/composition_speed.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.measuring import ROOT, Run, Times, command_line, interleaved, ratio
from benchmarks.workloads import WORKLOADS

ROUNDS, SECONDS = 20, 0.1
FEWER = {"multimnist, N = 16": 6, "stereo, N = 16": 6, "warm-up with data maps, N = 16": 10, "63 groups side by side": 10}
"""Fewer rounds for figures with long steps."""
IMPORT = "import mtl_gym"
GOAL = 0.95
_IMPORT = "import gymnasium, time; start = time.perf_counter(); import mtl_gym; print(time.perf_counter() - start)"
_WORKLOADS = Path(__file__).with_name("workloads.py")


def options(parser: argparse.ArgumentParser) -> None:
    """Adds the options beyond those that all benchmarks have."""
    parser.add_argument("--before", type=Path, default=None, help="folder of the other tree (with --smoke: this one)")
    parser.add_argument("--rounds", type=int, default=None, help=f"rounds ({ROUNDS})")


def environment(tree: Path) -> dict[str, Any]:
    """Working folder and environment variables of a tree's process."""
    return {"cwd": tree, "env": {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}, "text": True}


class Worker:
    """A process that runs workloads in a tree.

    Args:
        tree: Its folder.
    """

    def __init__(self, tree: Path) -> None:
        self._tree = tree
        words = [sys.executable, "-P", str(_WORKLOADS)]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **environment(tree))

    def seconds(self, figure: str, length: float | None) -> float:
        """Seconds of a step of a figure, measured for that many seconds; ``None`` drops the figure."""
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the process has no pipes")
        self._process.stdin.write(json.dumps({"name": figure, "seconds": length}) + "\n")
        self._process.stdin.flush()
        if length is None:
            return 0.0
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the process of {self._tree} has ended at {figure!r}; its error is above")
        return float(answer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._process.stdin and self._process.stdout:
            self._process.stdin.close()
            self._process.stdout.close()
        self._process.wait()


def figures(names: Sequence[str]) -> list[str]:
    """The figures with one of these words in their names; all of them if no words are given."""
    return [own for own in (*WORKLOADS, IMPORT) if not names or any(name in own for name in names)]


def import_seconds(tree: Path) -> float:
    """Seconds of ``import mtl_gym`` in a new process, after Gymnasium's."""
    return float(
        subprocess.run([sys.executable, "-P", "-c", _IMPORT], capture_output=True, check=True, **environment(tree)).stdout.split()[
            -1
        ]
    )


def measured(figure: str, workers: Mapping[str, Worker], trees: Mapping[str, Path], rounds: int) -> dict[str, Times]:
    """Seconds of a step in each tree."""
    if figure == IMPORT:
        return interleaved({name: lambda own=tree: import_seconds(own) for name, tree in trees.items()}, rounds)  # type: ignore[misc]
    pieces: dict[str, Callable[[], float]] = {
        name: lambda own=worker: own.seconds(figure, SECONDS)  # type: ignore[misc]
        for name, worker in workers.items()
    }
    found = interleaved(pieces, rounds)
    for worker in workers.values():
        worker.seconds(figure, None)
    return found


def main(words: Sequence[str] | None = None) -> None:
    """Measures, prints and stores the results."""
    run: Run
    run, given = command_line(words, options)
    if given.before is None and not run.smoke:
        raise SystemExit("--before should be the folder of the other tree")
    trees = {"before": (given.before or ROOT).resolve(), "after": ROOT}
    rows: dict[str, Any] = run.known()
    with Worker(trees["before"]) as before, Worker(trees["after"]) as after:
        for figure in figures(run.names or (("scalar",) if run.smoke else ())):
            rounds = given.rounds or run.size(ROUNDS)
            times = measured(figure, {"before": before, "after": after}, trees, min(rounds, FEWER.get(figure, rounds)))
            least = {f"ms {name}": round(1000 * float(own.min()), 3) for name, own in times.items()}
            rows[figure] = {**ratio(times["before"], times["after"]), **least}
            print(f"{figure:34}", rows[figure], flush=True)
            run.write(rows)
    slow = [figure for figure, row in rows.items() if row["ratio"] < GOAL]
    print(f"below {GOAL}: {', '.join(slow) or 'none'}")


if __name__ == "__main__":
    main()

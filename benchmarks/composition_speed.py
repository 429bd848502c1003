"""Compares the speed of this source tree with that of another, interleaved in one run.

    python -m benchmarks.composition_speed --before PATH            all figures, 8 starts (a quarter of an hour)
    python -m benchmarks.composition_speed --before PATH stereo     only figures with this word in their names
    python -m benchmarks.composition_speed --before PATH --starts 2
    python -m benchmarks.composition_speed --before PATH --starts 0   only counts (a minute)

Each tree runs in its own process with one thread; the processes take turns, a tenth of a second each. A process may be a fifth
faster or slower than another of the same tree, from its start to its end, so all of them are started anew several times, in
alternating order, and a second process of the other tree runs along as a control. A ratio is this tree's speed over the other's,
the control's over the other's: medians over the starts, with the lowest and the highest. ``calls`` and ``numbers`` are free of
noise: this tree's calls into torch in a step over the other's, and the numbers that they compute. Writes
``benchmarks/results/composition_speed.json``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from benchmarks.measuring import ROOT, Run, Times, command_line, interleaved
from benchmarks.workloads import WORKLOADS

STARTS, ROUNDS, SECONDS = 8, 4, 0.1
FEWER = {"multimnist, N = 16": 2, "stereo, N = 16": 1, "warm-up with data maps, N = 16": 2, "63 groups side by side": 2}
"""Fewer rounds of each start for figures with long steps."""
IMPORT = "import mtl_gym"
GOAL = 0.95
_IMPORT = "import gymnasium, time; start = time.perf_counter(); import mtl_gym; print(time.perf_counter() - start)"
_WORKLOADS = Path(__file__).with_name("workloads.py")


def options(parser: argparse.ArgumentParser) -> None:
    """Adds the options beyond those that all benchmarks have."""
    parser.add_argument("--before", type=Path, default=None, help="folder of the other tree (with --smoke: this one)")
    parser.add_argument("--starts", type=int, default=STARTS, help=f"how often the processes are started ({STARTS})")


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

    def ask(self, figure: str, length: float | None) -> Any:
        """Seconds of a step of a figure, measured for that many seconds; 0: calls and numbers; ``None`` drops the figure."""
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the process has no pipes")
        self._process.stdin.write(json.dumps({"name": figure, "seconds": length}) + "\n")
        self._process.stdin.flush()
        if length is None:
            return None
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the process of {self._tree} has ended at {figure!r}; its error is above")
        return json.loads(answer)

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
        name: lambda own=worker: own.ask(figure, SECONDS)  # type: ignore[misc]
        for name, worker in workers.items()
    }
    found = interleaved(pieces, rounds)
    for worker in workers.values():
        worker.ask(figure, None)
    return found


def one_start(names: Sequence[str], trees: Mapping[str, Path], start: int, rounds: int) -> dict[str, dict[str, float]]:
    """Median seconds of a step, by figure and tree, of processes that are started for this."""
    order = list(trees)[:: -1 if start % 2 else 1]
    with contextlib.ExitStack() as stack:
        started = {name: stack.enter_context(Worker(trees[name])) for name in order}
        workers = {name: started[name] for name in trees}
        found = {}
        for figure in names:
            times = measured(figure, workers, trees, min(rounds, FEWER.get(figure, rounds)))
            found[figure] = {name: float(np.median(own)) for name, own in times.items()}
    return found


def counts(names: Sequence[str], trees: Mapping[str, Path]) -> dict[str, dict[str, float]]:
    """This tree's calls into torch and numbers over the other's, by figure."""
    found = {}
    with Worker(trees["before"]) as before, Worker(trees["after"]) as after:
        for figure in names:
            if figure == IMPORT:
                continue
            others, own = (worker.ask(figure, 0) for worker in (before, after))
            found[figure] = {kind: round(own[place] / others[place], 4) for place, kind in enumerate(("calls", "numbers"))}
            for worker in (before, after):
                worker.ask(figure, None)
    return found


def row(starts: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """The ratios of a figure over the starts, and the median milliseconds of a step."""
    found: dict[str, Any] = {}
    for name, other in (("ratio", "after"), ("control", "again")):
        ratios = [own["before"] / own[other] for own in starts]
        found[name] = round(float(np.median(ratios)), 3)
        found |= {f"lowest {name}": round(min(ratios), 3), f"highest {name}": round(max(ratios), 3)}
    return found | {f"ms {name}": round(1000 * float(np.median([own[name] for own in starts])), 3) for name in ("before", "after")}


def main(words: Sequence[str] | None = None) -> None:
    """Measures, prints and stores the results."""
    run: Run
    run, given = command_line(words, options)
    if given.before is None and not run.smoke:
        raise SystemExit("--before should be the folder of the other tree")
    before = (given.before or ROOT).resolve()
    trees = {"before": before, "after": ROOT, "again": before}
    names = figures(run.names or (("scalar",) if run.smoke else ()))
    starts = [one_start(names, trees, start, run.size(ROUNDS)) for start in range(1 if run.smoke else given.starts)]
    known, counted = run.known(), counts(names, trees)
    rows = {figure: own for figure, own in known.items() if figure not in names}
    for figure in names:
        timed = row([own[figure] for own in starts]) if starts else known.get(figure, {})
        rows[figure] = {**timed, **counted.get(figure, {})}
    for figure in names:
        print(f"{figure:34}", rows[figure], flush=True)
    run.write(rows)
    slow = [figure for figure in names if rows[figure].get("ratio", 1) < GOAL]
    print(f"below {GOAL}: {', '.join(slow) or 'none'}")


if __name__ == "__main__":
    main()

"""Searches for the best rule with constant coefficients, by CMA-ES on a fold's training family: the policy ``best-rule``.

    python -m benchmarks.best_rule              every fold, teachers alone, and "all" (eight minutes each; resumes)
    python -m benchmarks.best_rule digits       one fold (benchmarks/folds.py)

Each generation draws new training instances of every source, which its candidates share. A candidate's score on a source is its
mean `quality` on *reward*, less that of `init` on the same instances, over the deviation between candidates on an instance, which
counts as no smaller than .5 %; scores of sources are averaged. *test* plays no part. What is searched are the level and the
coefficients of ``first``, ``loss``, ``base`` and ``gap``, from the rule that follows `stch` on (``benchmarks/rules.py``). Every
generation is kept in ``runs/best_rule`` as soon as it is known; a rerun asks and tells the same again. Writes
``benchmarks/results/best_rule.json``: the mean of the final distribution, what each generation gained over `init`, and the number
of trainings.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cma
import numpy as np
import numpy.typing as npt

from benchmarks.folds import ALL, FOLDS, TEACHERS_ALONE, fingerprint, sources_of_fold
from benchmarks.measuring import ROOT, Run, command_line
from benchmarks.rules import BASE, COLUMNS, INIT, REACH, played
from mtl_gym.problems.instances import TRAINING_IDS

Array = npt.NDArray[np.float64]
GENERATIONS, CANDIDATES, INSTANCES = 12, 8, 4
STEP, FLOOR = 0.15, 0.5
"""First deviation of actions, and the smallest deviation between candidates on a source, in points."""
SEARCHED = tuple(COLUMNS.index(name) for name in ("level", "first", "loss", "base", "gap"))
"""The places of the searched coefficients."""
_MOST = 3.0


def search(fold: str, generations: int, candidates: int, instances: int, folder: Path | None, **others: Any) -> dict[str, Any]:
    """The best coefficients of a fold, and how many trainings it took to find them."""
    sources = sources_of_fold(fold)
    options = {"seed": 1, "popsize": candidates, "bounds": [-1, 1], "verbose": -9}
    strategy = cma.CMAEvolutionStrategy((BASE / REACH)[[*SEARCHED]], STEP, options)
    about = {"sources": [fingerprint(source) for source in sources], "candidates": candidates, "instances": instances}
    about |= {"start": BASE.tolist(), "step": STEP, "searched": SEARCHED, "options": options}
    kept, means = Generations(None if folder is None else folder / f"{fold}.jsonl", about), []
    for generation in range(generations):
        asked = np.array(strategy.ask())
        ids = TRAINING_IDS[0] + 10**6 + generation * instances + np.arange(instances)
        table = np.concatenate([INIT[None], natural(asked)])
        scores = kept.scores(
            generation,
            lambda: [relative(played({**own, **others}, table, ids)["reward"]) for own in sources],  # noqa: B023
        )
        strategy.tell(asked, [-score for score in scores])
        means.append(float(np.mean(scores)))
        favourite = natural(strategy.result.xfavorite[None])[0]
        print(fold, generation, f"{means[-1]:+.2f}", favourite.round(2).tolist(), flush=True)
    trainings = generations * (candidates + 1) * instances * len(sources)
    return {
        "trainings": trainings,
        "gains": [round(mean, 3) for mean in means],
        "coefficients": {COLUMNS[place]: round(float(favourite[place]), 3) for place in SEARCHED},
    }


def natural(asked: Array) -> Array:
    """Coefficients (R, 1 + F) in natural units of searched actions (R, 5)."""
    table = np.zeros((len(asked), len(REACH)))
    table[:, SEARCHED] = asked * REACH[[*SEARCHED]]
    return table


def relative(scores: Array) -> Array:
    """Scores of the candidates (R,) over those of the first row, `init`, from (1 + R, n), in deviations between rows.

    The deviation is from the median absolute one, and differences of more than 3 deviations count as 3, so that one training that
    has diverged does not hide what the others show.
    """
    apart = np.abs(scores - np.median(scores, axis=0))
    deviation = max(1.4826 * float(np.median(apart)), FLOOR)
    return np.asarray(((scores[1:] - scores[0]) / deviation).clip(-_MOST, _MOST).mean(1))


class Generations:
    """Scores of the generations of a search, kept in a file as soon as they are known.

    Args:
        file: JSON lines; ``None``: nothing is kept.
        about: What the search depends on; a file of another one is begun anew.
    """

    def __init__(self, file: Path | None, about: Mapping[str, Any]) -> None:
        self._file, self._known = file, list[list[float]]()
        plain = json.loads(json.dumps(about))
        if file is None:
            return
        lines = file.read_text().splitlines() if file.is_file() else []
        if lines and json.loads(lines[0]) == plain:
            self._known = [json.loads(line) for line in lines[1:]]
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(plain) + "\n")

    def scores(self, generation: int, play: Callable[[], Sequence[Array]]) -> list[float]:
        """The mean over sources of what ``play`` returns, the candidates' scores (R,) on each; from the file, if it is there."""
        if generation < len(self._known):
            return self._known[generation]
        scores = [float(own) for own in np.mean(play(), axis=0)]
        if self._file is not None:
            with self._file.open("a") as lines:
                lines.write(json.dumps(scores) + "\n")
        return scores


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--generations", type=int, default=GENERATIONS)


def main(words: Sequence[str] | None = None) -> None:
    """Searches each fold and adds it to the results."""
    run: Run
    run, given = command_line(words, _options)
    known, folder = run.known(), None if run.smoke else ROOT / "runs" / "best_rule"
    for fold in run.names or ((ALL,) if run.smoke else (ALL, TEACHERS_ALONE, *FOLDS)):
        size = (2, 4, 1) if run.smoke else (given.generations, CANDIDATES, INSTANCES)
        known[fold] = search(fold, *size, folder, **({"train_steps": 30} if run.smoke else {}))
        run.write(known)


if __name__ == "__main__":
    main()

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
from collections.abc import Sequence
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
    kept = None if folder is None else folder / f"{fold}.jsonl"
    about = {"sources": [fingerprint(source) for source in sources], "candidates": candidates, "instances": instances}
    about |= {"start": BASE.tolist(), "step": STEP, "searched": SEARCHED, "options": options}
    known, means = _known(kept, about), []
    for generation in range(generations):
        asked = np.array(strategy.ask())
        scores = known[generation] if generation < len(known) else None
        if scores is None:
            first = TRAINING_IDS[0] + 10**6 + generation * instances
            table = np.concatenate([INIT[None], natural(asked)])
            own = [_relative(played({**source, **others}, table, range(first, first + instances))["reward"]) for source in sources]
            scores = np.mean(own, axis=0).tolist()
            _keep(kept, scores)
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


def _relative(scores: Array) -> Array:
    """Scores of the candidates (R,) over those of the first row, `init`, from (1 + R, n), in deviations between rows.

    The deviation is from the median absolute one, and differences of more than 3 deviations count as 3, so that one training that
    has diverged does not hide what the others show.
    """
    apart = np.abs(scores - np.median(scores, axis=0))
    deviation = max(1.4826 * float(np.median(apart)), FLOOR)
    return np.asarray(((scores[1:] - scores[0]) / deviation).clip(-_MOST, _MOST).mean(1))


def _known(file: Path | None, about: dict[str, Any]) -> list[list[float]]:
    """The scores of the generations that are kept for the same settings; where they differ, the search begins anew."""
    if file is None:
        return []
    lines = file.read_text().splitlines() if file.is_file() else []
    plain = json.loads(json.dumps(about))
    if lines and json.loads(lines[0]) == plain:
        return [json.loads(line) for line in lines[1:]]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(plain) + "\n")
    return []


def _keep(file: Path | None, scores: list[float]) -> None:
    if file is not None:
        with file.open("a") as lines:
            lines.write(json.dumps(scores) + "\n")


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

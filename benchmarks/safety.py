"""Whether the shipped recipe is safe to choose blindly: on ever more instances of every left-out problem, until it is decided.

    python -m benchmarks.safety              every problem (half an hour; rerun to resume)
    python -m benchmarks.safety digits       one of them

An agent is safe on a problem if it is at most .3 points worse than equal weights and than `init`, by the 95 % intervals of paired
differences. Those that learned on teachers alone have seen no data of any problem here. Each problem is played on 30 new instances,
and on more of them until every seed's verdict is clear, every interval's half-width is .3 or 1,000 instances were played. Scores
are logs of metrics on *test*, in points, which need no single-task references; where a training diverged, it counts as 20 points
worse than that of the other policy. Looking several times makes a false verdict a little likelier than 5 %. Writes
``benchmarks/results/safety.json``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bandit import finals
from benchmarks.folds import FOLDS
from benchmarks.measuring import Run, case_arguments, command_line
from benchmarks.ranges import difference
from benchmarks.transfer import alone
from mtl_gym.evaluation.statistics import paired_difference
from mtl_gym.policies.grammar import make_policy

SIZES = (30, 60, 120, 250, 500, 1000)
"""Numbers of instances after which verdicts are read."""
FIRST = 100_000
"""The first instance: none of them took part in anything else."""
MOST_ROWS = 250
WORSE = HALF = 0.3
"""The loss, and the half-width of an interval, that matter, in points."""
BESIDE = ("ew", "init")


def verdict(rows: Sequence[Mapping[str, Any]]) -> str:
    """Whether no loss above ``WORSE`` is possible, or one is certain, by the intervals of differences."""
    if all(row["low"] > -WORSE for row in rows):
        return "yes"
    return "no" if any(row["high"] < -WORSE for row in rows) else "not shown"


def decided(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether more instances would tell no more."""
    return verdict(rows) != "not shown" or all((row["high"] - row["low"]) / 2 <= HALF for row in rows)


def measured(case: str, agents: Mapping[str, str], sizes: Sequence[int], **others: Any) -> dict[str, Any]:
    """The instances played, and by agent the rows of its differences from each other policy and the verdict."""
    names = {**{name: name for name in BESIDE}, **agents}
    policies, scores = {name: make_policy(own) for name, own in names.items()}, {name: np.empty(0) for name in names}
    given = {**case_arguments(case), **others}
    for size in sizes:
        for name, policy in policies.items():
            while (played := len(scores[name])) < size:
                ids = range(FIRST + played, FIRST + min(size, played + MOST_ROWS))
                scores[name] = np.concatenate([scores[name], finals(policy, given, ids, "test")])
        pairs = {
            name: {other: paired_difference(difference(scores[name], scores[other]), np.zeros(size), WORSE) for other in BESIDE}
            for name in agents
        }
        if all(decided([*own.values()]) for own in pairs.values()):
            break
    return {
        "instances": size,
        "agents": {
            name: {
                **{other: [round(float(row[key]), 3) for key in ("difference", "low", "high")] for other, row in own.items()},
                "safe": verdict([*own.values()]),
            }
            for name, own in pairs.items()
        },
    }


def main(words: Sequence[str] | None = None) -> None:
    """Measures each problem and adds it to the results."""
    run: Run = command_line(words)
    known = run.known()
    agents = {"ppo:action=rule": "ppo:action=rule"} if run.smoke else alone()
    of = [Path(file).stem for file in agents.values()]
    for case in run.chosen([case for cases in FOLDS.values() for case in cases]):
        if known.get(case, {}).get("of") != of:
            sizes, short = ((2, 3), {"train_steps": 60}) if run.smoke else (SIZES, {})
            known[case] = {"of": of, **measured(case, agents, sizes, **short)}
            run.write(known)
        print(case, known[case], flush=True)


if __name__ == "__main__":
    main()

"""How well the suite `standard` of LossWeighting ranks policies as all studies of weights do, from rows that are committed already.

    python -m benchmarks.suite_ranks        (seconds; nothing is trained)

Rows are those of ``benchmarks/results/transfer.json`` (as they are) and ``methods.json`` (searched): up to 30 instances of eleven
problems, 48 random ones, and each policy that played all of them. The suite's studies are scored on every other instance, and all
studies on the rest, so that no instance is in both. Printed is Kendall's rank correlation of the policies' mean scores, that of all
studies with themselves (on the two halves), which is the most that can be expected, and the range of a hundred random choices of as
many studies. Writes ``benchmarks/results/suite_ranks.json``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import kendalltau

from benchmarks.folds import FOLDS
from benchmarks.measuring import RESULTS, Run, command_line
from mtl_gym.environments import LOSS_WEIGHTING
from mtl_gym.evaluation.suites import load_suite

Array = npt.NDArray[np.float64]
FAMILY = {"teachers": "teachers_new"}
"""The case that a study of the suite stands for, where it has another name."""
CHOICES = 100
"""Random choices of studies."""


def tables() -> dict[str, dict[str, dict[str, Array]]]:
    """By kind, case and policy: the scores (n,)."""
    transfer, methods = (json.loads((RESULTS / f"{name}.json").read_text()) for name in ("transfer", "methods"))
    cases = [case for own in FOLDS.values() for case in own]
    searched = {case: methods[case]["policies"] for case in cases if case in methods}
    searched |= {case: row["policies"] for case, row in transfer["heuristics"].items()}
    kinds = {"as it is": transfer["blind"], "searched": searched}
    return {
        kind: {case: {name: np.array(row["scores"]) for name, row in own.items()} for case, own in rows.items()}
        for kind, rows in kinds.items()
    }


def scores(table: Mapping[str, Mapping[str, Array]], cases: Sequence[str], policies: Sequence[str], half: int) -> Array:
    """Mean scores (P,) of policies over these cases, each on every other instance."""
    return np.array([np.mean([table[case][name][half::2].mean() for case in cases]) for name in policies])


def ranks(table: Mapping[str, Mapping[str, Array]], chosen: Sequence[str]) -> dict[str, Any]:
    """Rank correlations of one kind."""
    cases = [*table]
    policies = [name for name in table[cases[0]] if all(name in table[case] for case in cases)]
    whole, rng = scores(table, cases, policies, 1), np.random.default_rng(0)
    others = [[*rng.choice(cases, len(chosen), replace=False)] for _ in range(CHOICES)]
    random = [_tau(scores(table, own, policies, 0), whole) for own in others]
    return {
        "policies": len(policies),
        "suite": round(_tau(scores(table, chosen, policies, 0), whole), 3),
        "all studies": round(_tau(scores(table, cases, policies, 0), whole), 3),
        "random choices": [round(float(own), 3) for own in np.quantile(random, [0.05, 0.5, 0.95])],
    }


def _tau(own: Array, other: Array) -> float:
    return float(kendalltau(own, other).statistic)


def main(words: Sequence[str] | None = None) -> None:
    """Computes the correlations of each kind."""
    run: Run = command_line(words)
    chosen = [FAMILY.get(study.name, study.name) for study in load_suite("standard", LOSS_WEIGHTING).studies]
    known = {kind: ranks(table, chosen) for kind, table in tables().items()}
    run.write(known)
    print(json.dumps(known, indent=1), flush=True)


if __name__ == "__main__":
    main()

"""Verdicts on pairs of policies: paired t-tests with Holm's correction, and the smallest difference that matters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any

from mtl_gym.evaluation.statistics import FEWEST, LEVEL, detectable_difference, holm

BETTER, WORSE, EQUAL, UNDECIDED = "better", "worse", "equal", "not told apart"
_OPPOSITE = {BETTER: WORSE, WORSE: BETTER}

Policies = Mapping[str, Mapping[str, Any]]
Pair = tuple[str, str]


@dataclass(frozen=True)
class Verdict:
    """What a comparison says of a policy and another one.

    Attributes:
        verdict: ``equal`` if the difference is significantly within the smallest difference that matters, whatever its sign;
            otherwise ``better`` or ``worse`` if it is significant, or else ``not told apart``.
        p: Holm's adjusted p-value of a difference (two-sided paired t-test).
        comparisons: Number of comparisons over which is corrected.
        detectable: Minimum detectable difference after correction, in points of delta_m.
    """

    verdict: str
    p: float
    comparisons: int
    detectable: float


def verdicts_with(policies: Policies, baseline: str) -> dict[str, Verdict]:
    """Verdicts of all policies on a baseline that was chosen beforehand: corrected over the comparisons with it.

    ``policies`` are those of :func:`mtl_gym.summarize`. Pairs with fewer than five shared instances are left out.
    """
    found = _verdicts(policies, [(name, baseline) for name in policies if name != baseline])
    return {name: own for (name, _), own in found.items()}


def verdicts_of_pairs(policies: Policies) -> dict[str, dict[str, dict[str, Any]]]:
    """Verdicts of every policy on every other, JSON-plain: corrected over all pairs.

    So they also hold for pairs that are chosen by their scores, such as the best policy and any other one.
    """
    found = _verdicts(policies, [*combinations(policies, 2)])
    found |= {(other, name): replace(own, verdict=_OPPOSITE.get(own.verdict, own.verdict)) for (name, other), own in found.items()}
    return {name: {other: asdict(found[name, other]) for other in policies if (name, other) in found} for name in policies}


def _verdicts(policies: Policies, pairs: Sequence[Pair]) -> dict[Pair, Verdict]:
    rows = {(name, other): policies[name]["paired"].get(other) for name, other in pairs}
    tested = {pair: row for pair, row in rows.items() if row and row["instances"] >= FEWEST}
    different, equal = (holm([row[test] for row in tested.values()]) for test in ("p", "p_equal"))
    return {
        pair: Verdict(
            verdict=_word(row["difference"], p, p_equal),
            p=p,
            comparisons=len(tested),
            detectable=detectable_difference(row["error"], row["instances"], len(tested)),
        )
        for (pair, row), p, p_equal in zip(tested.items(), different, equal, strict=True)
    }


def _word(difference: float, p: float, p_equal: float) -> str:
    if p_equal < 1 - LEVEL:
        return EQUAL
    if p >= 1 - LEVEL:
        return UNDECIDED
    return BETTER if difference > 0 else WORSE

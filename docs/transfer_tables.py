"""The tables of ``docs/transfer.md``, from the latest results of ``benchmarks/transfer.py`` and ``benchmarks/rules.py``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.folds import FOLDS
from benchmarks.measuring import FAMILY_CASES
from mtl_gym.evaluation.regrets import cross_fitted_regrets, difference_over_problems
from mtl_gym.evaluation.statistics import paired_difference

Array = npt.NDArray[np.float64]
Table = list[dict[str, str]]
Scores = dict[str, dict[str, Array]]
"""By case and policy: (S, n) of S seeds."""
RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
KINDS = ("as it is", "searched")
LEFT_OUT = [case for cases in FOLDS.values() for case in cases]
NEW, BEYOND = FAMILY_CASES
WORSE = 0.3
"""The loss, in points, that a policy that is safe to choose has on no problem."""


def transfer_tables() -> dict[str, Table]:
    """All tables by the names of their markers."""
    found, methods, rules = (_read(f"{name}.json") for name in ("transfer", "methods", "rules"))
    tables = {"headroom": headroom(rules)}
    for kind in KINDS:
        scores, passes = played(found, methods, kind), costs(found, methods, kind)
        tables |= {f"regrets {kind}": regrets(scores, passes), f"differences {kind}": differences(scores)}
    return {**tables, "safety": safety(played(found, methods, KINDS[0]))}


def _read(name: str) -> dict[str, Any]:
    return dict(json.loads((RESULTS / name).read_text())) if (RESULTS / name).is_file() else {}


def played(found: Mapping[str, Any], methods: Mapping[str, Any], kind: str) -> Scores:
    """Scores of all policies on what is left out: heuristics as they are or searched, and each fold's agents."""
    return {
        case: {name: np.atleast_2d(row["scores"]) for name, row in own.items()} for case, own in _rows(found, methods, kind).items()
    }


def costs(found: Mapping[str, Any], methods: Mapping[str, Any], kind: str) -> dict[str, float]:
    """The largest number of passes of each policy over that of equal weights, over all cases."""
    ratios: dict[str, list[float]] = {}
    for own in _rows(found, methods, kind).values():
        for name, row in own.items():
            ratios.setdefault(name, []).append(sum(row["passes"]) / sum(own["ew"]["passes"]))
    return {name: max(own) for name, own in ratios.items()}


def _rows(found: Mapping[str, Any], methods: Mapping[str, Any], kind: str) -> dict[str, dict[str, Any]]:
    """``scores`` and ``passes`` by case and policy."""
    rows: dict[str, dict[str, Any]] = {}
    for fold, cases in found.get("folds", {}).items():
        for case, kinds in cases.items():
            seen = case in FOLDS.get(fold, ()) or case in FAMILY_CASES
            label = "{}" if seen and fold != "teachers" else "{} (teachers)" if fold == "teachers" else ""
            for name, row in kinds.get(kind, {}).items() if label else ():
                _joined(rows.setdefault(case, {}), label.format(name), row)
    for case, own in rows.items():
        own |= _heuristics(found, methods, kind, case)
    return {case: own for case, own in rows.items() if "ew" in own}


def _joined(own: dict[str, Any], name: str, row: Mapping[str, Any]) -> None:
    """Adds a fold's row; of families, which all folds play, the agents of all folds are one recipe's."""
    known = own.get(name, {"scores": []})
    own[name] = {"scores": [*known["scores"], *row["scores"]], "passes": row["passes"]}


def _heuristics(found: Mapping[str, Any], methods: Mapping[str, Any], kind: str, case: str) -> dict[str, Any]:
    if kind == KINDS[0]:
        return dict(found.get("blind", {}).get(case, {}))
    if case in FAMILY_CASES:
        return dict(found.get("heuristics", {}).get(case, {}).get("policies", {}))
    return dict(methods.get(case, {}).get("policies", {}))


def regrets(scores: Scores, passes: Mapping[str, float]) -> Table:
    """Cross-fitted regrets of the policies that played every case: the mean over the left-out problems, the worst, and families."""
    names = _everywhere(scores)
    by_case = {case: cross_fitted_regrets({name: scores[case][name].mean(0) for name in names}) for case in scores}
    real = [case for case in LEFT_OUT if case in scores]
    if not names or not real:
        return _missing()
    rows = []
    for name in sorted(names, key=lambda name: np.mean([by_case[case][name] for case in real])):
        worst = max(real, key=lambda case: by_case[case][name])
        rows.append(
            {
                "policy": f"`{name}`",
                f"mean regret, {len(real)} problems": f"{np.mean([by_case[case][name] for case in real]):.2f}",
                "largest": f"{by_case[worst][name]:.1f} ({worst})",
                **{case: f"{by_case[case][name]:.2f}" for case in FAMILY_CASES if case in scores},
                "passes over `ew`": f"{passes[name]:.2f}",
            }
        )
    return rows


def differences(scores: Scores) -> Table:
    """What the best agent is ahead of each other policy, over the left-out problems, and over teachers as problems."""
    names = _everywhere(scores)
    agents = [name for name in names if len(scores[LEFT_OUT[0]][name]) > 1] if LEFT_OUT[0] in scores else []
    real = [case for case in LEFT_OUT if case in scores]
    if not agents:
        return _missing()
    best = min(agents, key=lambda name: np.mean([_regret(scores[case], names, name) for case in real]))
    rows = []
    for other in names:
        if other == best:
            continue
        row = {f"`{best}` minus": f"`{other}`"}
        row[f"{len(real)} problems"] = _interval([scores[case][best] for case in real], [scores[case][other] for case in real])
        for case in (NEW, BEYOND):
            if case in scores:
                own, another = scores[case][best], scores[case][other]
                row[f"{own.shape[1]} of {case}"] = _interval(list(own.T[:, :, None]), list(another.T[:, :, None]))
        rows.append(row)
    return rows


def safety(scores: Scores) -> Table:
    """What each agent is ahead of equal weights and `init` on each left-out problem, and whether it is safe there."""
    rows = []
    for case in [case for case in LEFT_OUT if case in scores]:
        for name, own in scores[case].items():
            if len(own) > 1:
                pairs = {other: paired_difference(own.mean(0), scores[case][other][0], WORSE) for other in ("ew", "init")}
                cells = {
                    f"minus `{other}`": f"{row['difference']:+.2f} [{row['low']:.2f}, {row['high']:.2f}]"
                    for other, row in pairs.items()
                }
                rows.append({"problem": case, "agent": f"`{name}`", **cells, "safe": _safe([*pairs.values()])})
    return rows or _missing()


def _safe(pairs: list[dict[str, Any]]) -> str:
    """Whether no loss above ``WORSE`` is possible, or one is certain, by 95 % intervals."""
    if all(row["low"] > -WORSE for row in pairs):
        return "yes"
    return "no" if any(row["high"] < -WORSE for row in pairs) else "not shown"


def _regret(own: Mapping[str, Array], names: list[str], name: str) -> float:
    return cross_fitted_regrets({other: own[other].mean(0) for other in names})[name]


def _everywhere(scores: Scores) -> list[str]:
    """The policies that played every case."""
    return [name for name in next(iter(scores.values()), {}) if all(name in own for own in scores.values())]


def _interval(own: list[Array], other: list[Array]) -> str:
    row = difference_over_problems(own, other)
    return f"{row['difference']:+.2f} [{row['low']:.2f}, {row['high']:.2f}]"


def headroom(studies: Mapping[str, Any]) -> Table:
    """What the best rule of each instance is worth, and of what the variance of returns consists."""
    rows = []
    for name, study in studies.items():
        over = {rule: study["over equal weights"][rule] for rule in ("init", "si", "best single")}
        own = study["shares"]["rules"] + study["shares"]["both"]
        rows.append(
            {
                "problem": f"{name} ({study['instances']})",
                "headroom": "{:+.2f} [{:.2f}, {:.2f}]".format(*study["headroom"]),
                **{f"{rule} minus `ew`": "{:+.2f} [{:.2f}, {:.2f}]".format(*row) for rule, row in over.items()},
                "share of rules": f"{100 * own:.2f} %",
                "of it chance": f"{100 * study['shares']['noise'] / own:.0f} %" if own else "",
            }
        )
    return rows or [{"not measured yet": "`python -m benchmarks.rules`"}]


def _missing() -> Table:
    return [{"not measured yet": "`python -m benchmarks.transfer`"}]

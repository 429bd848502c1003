"""The tables of ``docs/transfer.md``, from the latest results of ``benchmarks/transfer.py`` and ``benchmarks/rules.py``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.folds import FOLDS, TEACHERS_ALONE
from benchmarks.measuring import FAMILY_CASES
from benchmarks.transfer import ABLATED, SHIPPED, USUAL
from mtl_gym.evaluation.regrets import difference_over_problems
from mtl_gym.evaluation.statistics import paired_difference

Array = npt.NDArray[np.float64]
Table = list[dict[str, str]]
Scores = dict[str, dict[str, Array]]
"""By case and policy: (S, n) of S seeds."""
RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
KINDS = ("as it is", "searched")
LEFT_OUT = [case for cases in FOLDS.values() for case in cases]
DATA = {case: case.split("_")[0] for case in LEFT_OUT}
"""The data that a problem shares with others."""
LEARNED = USUAL
SHOWN = (SHIPPED, "level", "best-rule")
BESIDE = ("ew", "init", "stch", "igb", "ppo")
"""What has learned; what is compared with all other policies; and what the shipped agent is compared with."""
DRAWS = 1_000
"""Bootstrap samples of an interval."""
WORSE = 0.3
"""The loss, in points, that a policy that is safe to choose has on no problem."""


def transfer_tables() -> dict[str, Table]:
    """All tables by the names of their markers."""
    found, methods, rules, safe = (_read(f"{name}.json") for name in ("transfer", "methods", "rules", "safety"))
    scores = {kind: played(found, methods, kind) for kind in KINDS}
    tables = {"headroom": headroom(rules), "choice": choice(found), "safety": safety(safe)}
    for kind, own in scores.items():
        tables[f"regrets {kind}"] = regrets(own, costs(found, methods, kind), references(scores))
        tables[f"differences {kind}"] = differences(own)
    return tables | {"ablation": ablation(found, scores[KINDS[0]], references(scores)), "forms": forms(_read("action_forms.json"))}


def card_tables() -> dict[str, Table]:
    """The tables of the card of the shipped agent: what its seeds reached on left-out problems, and it far from usual ones."""
    found, methods, ranges = (_read(f"{name}.json") for name in ("transfer", "methods", "ranges"))
    scores = played(found, methods, KINDS[0])
    for case, kinds in found.get("folds", {}).get(TEACHERS_ALONE, {}).items():  # the shipped agent is one of these
        scores[case][SHIPPED] = np.atleast_2d(kinds[KINDS[0]][SHIPPED]["scores"])
    return {"left out": left_out(scores), "ranges": far(ranges)}


def left_out(scores: Scores) -> Table:
    """By left-out problem: scores of the shipped recipe's agents, as they are, and what they are ahead of other policies."""
    rows = []
    for case in [case for case in (*LEFT_OUT, *FAMILY_CASES) if SHIPPED in scores.get(case, {})]:
        own = scores[case][SHIPPED]
        pairs = {other: paired_difference(own.mean(0), scores[case][other].mean(0), WORSE) for other in BESIDE}
        cells = {
            f"minus `{other}`": f"{row['difference']:+.2f} [{row['low']:.2f}, {row['high']:.2f}]" for other, row in pairs.items()
        }
        seeds = f"{own.mean():.2f} ({own.mean(1).min():.2f} to {own.mean(1).max():.2f})"
        rows.append({"problem": case, "delta_m (of seeds)": seeds, **cells})
    return rows or _missing()


def far(ranges: Mapping[str, Any]) -> Table:
    """What policies are ahead of `init` for other numbers of tasks, lengths and rates."""
    rows = [
        {"setting": f"{axis} {value}", **{f"`{name}`": f"{row[0]:+.1f} [{row[1]:.1f}, {row[2]:.1f}]" for name, row in own.items()}}
        for axis, values in ranges.items()
        for value, own in values.items()
    ]
    return rows or [{"not measured yet": "`python -m benchmarks.ranges`"}]


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
    for fold in FOLDS:
        for case, kinds in found.get("folds", {}).get(fold, {}).items():
            for name, row in kinds.get(kind, {}).items():
                _join(rows.setdefault(case, {}), name, row)
    for case, own in rows.items():
        others = _heuristics(found, methods, kind, case)
        if both := own.keys() & others.keys():
            raise ValueError(f"Two policies have the same name on {case}: {', '.join(both)}.")
        own |= others
    return {case: own for case, own in rows.items() if "ew" in own}


def _join(own: dict[str, Any], name: str, row: Mapping[str, Any]) -> None:
    """Adds a fold's row. Families are played by the agents of all folds, which are then seeds of one recipe."""
    known = own.get(name, {"scores": []})
    if name in LEARNED or not known["scores"]:
        own[name] = {"scores": [*known["scores"], *row["scores"]], "passes": row["passes"]}


def _heuristics(found: Mapping[str, Any], methods: Mapping[str, Any], kind: str, case: str) -> dict[str, Any]:
    """The rows of heuristics on a case. Constant weights that were searched for there are no choice before it is known."""
    if kind == KINDS[0]:
        return dict(found.get("blind", {}).get(case, {}))
    if case in FAMILY_CASES:
        return dict(found.get("heuristics", {}).get(case, {}).get("policies", {}))
    return {name: row for name, row in methods.get(case, {}).get("policies", {}).items() if name != "constant"}


def references(scores: Mapping[str, Scores]) -> dict[str, tuple[float, float]]:
    """By case: the mean, on odd and on even instances, of the policy that is best on the others, as it is or searched."""
    found = {}
    for case in dict.fromkeys(case for own in scores.values() for case in own):
        table = np.array([row.mean(0) for own in scores.values() for row in own.get(case, {}).values()])
        halves = [np.arange(table.shape[1]) % 2 == part for part in (0, 1)]
        first, second = (float(table[table[:, ~half].mean(1).argmax(), half].mean()) for half in halves)
        found[case] = (first, second)
    return found


def regrets(scores: Scores, passes: Mapping[str, float], best: Mapping[str, tuple[float, float]]) -> Table:
    """Cross-fitted regrets of the policies that played every case, to the same best ones in both tables; the smallest first."""
    names, real = _everywhere(scores), [case for case in LEFT_OUT if case in scores]
    if not names or not real:
        return _missing()
    own = {name: {case: _regret(scores[case][name].mean(0), best[case]) for case in scores} for name in names}
    rows = []
    for name in sorted(names, key=lambda name: np.mean([own[name][case] for case in real])):
        worst = max(real, key=own[name].__getitem__)
        values = [own[name][case] for case in real]
        rows.append(
            {
                "policy": f"`{name}`",
                f"mean regret, {len(real)} problems": f"{np.mean(values):.2f}",
                "median": f"{np.median(values):.2f}",
                "largest": f"{max(values):.1f} ({worst})",
                **{case: f"{own[name][case]:.2f}" for case in FAMILY_CASES if case in scores},
                "passes over `ew`": f"{passes[name]:.2f}",
            }
        )
    return rows


def _regret(own: Array, best: tuple[float, float]) -> float:
    """The best policy's mean score minus a policy's own (n,), over both halves."""
    return (best[0] - float(own[0::2].mean()) + best[1] - float(own[1::2].mean())) / 2


def differences(scores: Scores) -> Table:
    """What the policies of ``SHOWN`` are ahead of each other policy, over the left-out problems."""
    names, real = _everywhere(scores), [case for case in LEFT_OUT if case in scores]
    if not real or not {*SHOWN} <= {*names}:
        return _missing()
    groups = [DATA[case] for case in real]
    return [
        {
            "policy": f"`{other}`",
            **{f"`{own}` minus it": "" if own == other else _interval(scores, real, own, other, groups) for own in SHOWN},
            **{
                f"`{own}` minus it, {case}": "" if own == other else _interval(scores, [case], own, other)
                for case in FAMILY_CASES
                if case in scores
                for own in SHOWN[::2]
            },
        }
        for other in names
    ]


def ablation(found: Mapping[str, Any], scores: Scores, best: Mapping[str, tuple[float, float]]) -> Table:
    """By recipe: what agents are ahead of `init` over the left-out problems, learned in the folds and on teachers alone.

    Of the latter also what they are ahead of equal weights and of `stch`, and their mean regret.
    """
    alone = found.get("folds", {}).get(TEACHERS_ALONE, {})
    cases = [case for case in LEFT_OUT if case in alone and "init" in scores.get(case, {})]
    if not cases:
        return _missing()
    both = {case: {**scores[case]} for case in cases}
    for case in cases:
        both[case] |= {f"{name}, alone": np.atleast_2d(row["scores"]) for name, row in alone[case][KINDS[0]].items()}
    groups = [DATA[case] for case in cases]

    def told(own: str, other: str) -> str:
        return _interval(both, cases, own, other, groups) if all(own in both[case] for case in cases) else ""

    def regret(own: str) -> str:
        known = all(own in both[case] for case in cases)
        return f"{np.mean([_regret(both[case][own].mean(0), best[case]) for case in cases]):.2f}" if known else ""

    return [
        {
            "recipe": f"`{name}`",
            "folds": told(name, "init"),
            "teachers alone": told(f"{name}, alone", "init"),
            **{f"these minus `{other}`": told(f"{name}, alone", other) for other in ("ew", "stch")},
            "their mean regret": regret(f"{name}, alone"),
        }
        for name in (*USUAL, *ABLATED)
    ]


def _interval(scores: Scores, cases: list[str], own: str, other: str, groups: list[str] | None = None) -> str:
    """Over cases; of a family, without groups, over instances as problems."""
    pairs = [(scores[case][own], scores[case][other]) for case in cases]
    if groups is None:
        pairs = [(first[:, [place]], second[:, [place]]) for first, second in pairs for place in range(first.shape[1])]
    row = difference_over_problems(*map(list, zip(*pairs, strict=True)), groups=groups, resamples=DRAWS)
    return f"{row['difference']:+.2f} [{row['low']:.2f}, {row['high']:.2f}]"


def safety(found: Mapping[str, Any]) -> Table:
    """By left-out problem: what the shipped recipe's agents are ahead of equal weights and `init`, and of how many it is safe."""
    rows = []
    for case, row in found.items():
        verdicts = [own["safe"] for own in row["agents"].values()]
        counts = {verdict: verdicts.count(verdict) for verdict in ("yes", "not shown", "no") if verdict in verdicts}
        rows.append(
            {
                "problem": case,
                "instances": str(row["instances"]),
                **{f"minus `{other}`": _of_seeds([own[other] for own in row["agents"].values()]) for other in ("ew", "init")},
                "safe (seeds)": ", ".join(f"{verdict} ({count})" for verdict, count in counts.items()),
            }
        )
    return rows or [{"not measured yet": "`python -m benchmarks.safety`"}]


def _of_seeds(rows: list[list[float]]) -> str:
    """The mean difference of seeds, and the outermost bounds of their intervals."""
    own = np.array(rows)
    return f"{own[:, 0].mean():+.2f} [{own[:, 1].min():.2f}, {own[:, 2].max():.2f}]"


def forms(found: Mapping[str, Any]) -> Table:
    """By form of the action: gains over `init` in deviations, with the standard error over sources, and those of each seed."""
    rows = []
    for name, gains in found.get("gains", {}).items():
        own = np.array(gains)  # (seeds, sources)
        error = own.mean(0).std(ddof=1) / own.shape[1] ** 0.5
        seeds = ", ".join(f"{one:.2f}" for one in own.mean(1))
        rows.append({"form": name, "gain (standard error)": f"{own.mean():.2f} ({error:.2f})", "seeds": seeds})
    return rows or [{"not measured yet": "`python -m benchmarks.action_forms`"}]


def choice(found: Mapping[str, Any]) -> Table:
    """What agents that learned on teachers alone, and rules, gain over `init` on new teachers; the best first."""
    gains = {name: np.array(own) for name, own in found.get("choose", {}).get("gains", {}).items()}
    return [
        {
            "policy": f"`{name}`",
            "gain": f"{own.mean():+.2f} ({_error(own.mean(0)):.2f})",
            "of seeds": ", ".join(f"{seed:+.2f}" for seed in own.mean(1)) if len(own) > 1 else "",
        }
        for name, own in sorted(gains.items(), key=lambda pair: -float(pair[1].mean()))
    ] or _missing()


def _error(gains: Array) -> float:
    """The standard error over draws of settings."""
    return float(gains.std(ddof=1) / len(gains) ** 0.5)


def _everywhere(scores: Scores) -> list[str]:
    """The policies that played every case."""
    return [name for name in next(iter(scores.values()), {}) if all(name in own for own in scores.values())]


def headroom(studies: Mapping[str, Any]) -> Table:
    """What the best rule of each instance is worth, and of what the variance of returns consists."""
    rows = []
    for name, study in studies.items():
        over = {rule: study["over equal weights"][rule] for rule in ("init", "level", "best single")}
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

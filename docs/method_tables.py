"""The tables of ``docs/methods.md``: the methods, and the latest results of the benchmarks of methods and solvers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.stats

from mtl_gym.baselines import BASELINES
from mtl_gym.baselines.gradient_heuristic import GradientHeuristic, WholeLossHeuristic
from mtl_gym.cli import first_sentence
from mtl_gym.environments import LOSS_WEIGHTING
from mtl_gym.evaluation.statistics import few_carry, student_interval
from mtl_gym.evaluation.verdicts import BETTER, EQUAL, UNDECIDED, WORSE
from mtl_gym.policies.finding import environment_of, policy_class

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
CONSTANT = "constant"
QUESTIONS = (
    (CONSTANT, "ew"),
    ("igb", "ew"),
    ("igb+cagrad", "cagrad"),
    ("igb+nash-mtl", "nash-mtl"),
    ("cagrad", "ew"),
    ("ppo", "ew"),
)
"""Pairs of policies whose difference answers a question."""
HEADS = {"share, %": "% of the Gram matrices' time", "torchjd, ratio": "torchjd / ours"}
FEWEST_RANKED = 8
"""Methods with the same settings of which a rank correlation is shown."""
Table = list[dict[str, str]]
Setting = tuple[str, str, float]
"""A method's name, the policy with its options, and the factor of the problem's rate."""


def method_tables() -> dict[str, Table]:
    """All tables by the names of their markers."""
    studies, command = _read("methods"), "benchmarks.methods"
    return {
        "methods": methods(),
        "scores": scores(studies, command),
        "longer": scores(_read("methods-4x"), f"{command} --length 4 --out benchmarks/results/methods-4x.json"),
        "verdicts": verdicts(studies, command),
        "kinds": kinds(studies, command),
        "questions": questions(studies, command),
        "discrimination": discrimination(studies, command),
        "agreement": agreement(studies, command),
        "stopped": scores(_read("methods-best_meta"), f"{command} --checkpoint best_meta"),
        "stopped_longer": scores(_read("methods-4x-best_meta"), f"{command} --checkpoint best_meta --length 4"),
        "settings": settings(_read("search")),
        "solvers": solvers(),
    }


def _read(name: str) -> dict[str, Any]:
    path = RESULTS / f"{name}.json"
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def _or_missing(rows: Table, command: str) -> Table:
    return rows or [{"not measured yet": f"`python -m {command}`"}]


def methods() -> Table:
    """What each method reads, where its weights act and what a step costs."""
    found = {name: policy_class(name) for name in BASELINES if environment_of(name) == LOSS_WEIGHTING}
    return [
        {
            "name": name,
            "what": first_sentence(own),
            "reads": ", ".join(f"`{key}`" for key in own.requires.observe),
            "weights act on": _scope(own),
            "passes of a step": _cost(own),
        }
        for name, own in found.items()
    ]


def _scope(method: Any) -> str:
    return "shared parameters" if issubclass(method, GradientHeuristic) and not issubclass(method, WholeLossHeuristic) else "losses"


def _cost(method: Any) -> str:
    if issubclass(method, GradientHeuristic):
        return "1 F + K B"
    return "2 F + 1 B" if "log_loss_after" in method.requires.observe else "1 F + 1 B"


def scores(studies: dict[str, Any], command: str) -> Table:
    """Mean delta_m with its interval, of each policy on each problem; the best on the most problems first."""
    names = list(dict.fromkeys(name for study in studies.values() for name in study["policies"]))
    ranks = {problem: _ranked(study) for problem, study in studies.items()}
    worst = len(names)
    names.sort(key=lambda name: sum(own.index(name) if name in own else worst for own in ranks.values()))
    rows = [
        {"policy": f"`{name}`", **{problem: _score(study["policies"].get(name)) for problem, study in studies.items()}}
        for name in names
    ]
    return _or_missing(rows, command)


def _ranked(study: dict[str, Any]) -> list[str]:
    return sorted(study["policies"], key=lambda name: -float(study["policies"][name]["delta_m"]["mean"]))


def _score(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    own, scores = row["delta_m"], np.asarray(row.get("scores", []))
    median = f"; median {np.median(scores):.1f}" if few_carry(scores) else ""
    return f"{own['mean']:.1f} [{own['low']:.1f}, {own['high']:.1f}]{median}"


def verdicts(studies: dict[str, Any], command: str) -> Table:
    """Which methods beat constant weights on a problem: with Holm's correction over the comparisons with them."""
    rows = []
    for problem, study in studies.items():
        over = {name: row["over"][CONSTANT] for name, row in study["policies"].items() if CONSTANT in row["over"]}
        words = {name: study["policies"][name].get("on constant") for name in over}
        better = [name for name in _ranked(study) if words.get(name) == BETTER]
        counts = {word: sum(own == word for own in words.values()) for word in (EQUAL, UNDECIDED, WORSE)}
        rows.append(
            {
                "problem": f"`{problem}`",
                "instances": str(study["instances"]),
                **({"trainings of the search": str(study["search"] or "not searched")} if "search" in study else {}),
                "better than constant weights": ", ".join(map(_over(over), better)) or ("**nothing**" if over else "unknown"),
                **{word: str(count) for word, count in counts.items()},
            }
        )
    return _or_missing(rows, command)


def kinds(studies: dict[str, Any], command: str) -> Table:
    """Mean delta_m of each policy on the classification and the regression tasks of problems that have both."""
    mixed = {problem: study["policies"] for problem, study in studies.items() if all(map(_kinds, study["policies"].values()))}
    columns = {f"{problem}, {kind}": (own, kind) for problem, own in mixed.items() for kind in _kinds(own["ew"])}
    names = dict.fromkeys(name for own in mixed.values() for name in _ranked({"policies": own}))
    rows = [
        {
            "policy": f"`{name}`",
            **{head: f"{_kinds(own[name])[kind]:.1f}" if name in own else "" for head, (own, kind) in columns.items()},
        }
        for name in names
    ]
    return _or_missing(rows, command)


def _kinds(row: dict[str, Any]) -> dict[str, float]:
    return dict(row.get("kinds", {}))


def discrimination(studies: dict[str, Any], command: str) -> Table:
    """How well a problem tells methods apart, and what its best method and equal weights gain."""
    rows = []
    for problem, study in studies.items():
        own = study.get("discrimination")
        if own is None:
            continue
        differences = {
            "best - equal weights": "best_over_baseline",
            "best - single-task learning": "best_over_single_task",
            "equal weights - single-task learning": "baseline_over_single_task",
        }
        rows.append(
            {
                "problem": f"`{problem}`",
                "pairs told apart": f"{own['told_apart']:.0%} of {own['pairs']}",
                "equal": f"{own['equal']:.0%}",
                "best": f"`{own['best']}`",
                **{head: _difference(own[name]) if name in own else "" for head, name in differences.items()},
            }
        )
    return _or_missing(rows, command)


def questions(studies: dict[str, Any], command: str) -> Table:
    """Paired differences, with intervals, of the policies that the verdicts are about."""
    rows = []
    for problem, study in studies.items():
        kept = {name: np.asarray(row["scores"]) for name, row in study["policies"].items() if "scores" in row}
        pairs = [(first, second) for first, second in QUESTIONS if first in kept and second in kept]
        differences = {f"`{first}` - `{second}`": _of_pair(kept[first] - kept[second]) for first, second in pairs}
        rows.append({"problem": f"`{problem}`", **{f"`{first}` - `{second}`": "" for first, second in QUESTIONS}, **differences})
    return _or_missing(rows, command)


def _of_pair(values: npt.NDArray[np.float64]) -> str:
    low, high = student_interval(values)
    return f"{values.mean():+.2f} [{low:.2f}, {high:.2f}]"


def agreement(studies: dict[str, Any], command: str) -> Table:
    """Rank correlations (Spearman) of the methods' mean scores between halves of the instances, lengths and kernels."""
    longer, other = _read("methods-4x"), _read("methods-avx2")
    stopped, stopped_longer = _read("methods-best_meta"), _read("methods-4x-best_meta")
    rows = []
    for problem, study in studies.items():
        means = _means(study)
        if not means:
            continue
        halves = [_means(study, slice(start, None, 2)) for start in (0, 1)]
        same_instances = slice(other.get(problem, {}).get("instances"))
        found = {
            "between halves of the instances": (*halves,),
            "between 1x and 4x training": (means, _means(longer.get(problem, {}))),
            'the same, `checkpoint="best_meta"`': (_means(stopped.get(problem, {})), _means(stopped_longer.get(problem, {}))),
            "between AVX-512 and AVX2": (_means(study, same_instances), _means(other.get(problem, {}))),
        }
        rows.append({"problem": f"`{problem}`", **{head: _correlation(*pair) for head, pair in found.items()}})
    return _or_missing(rows, command)


def _means(study: dict[str, Any], instances: slice = slice(None)) -> dict[Setting, float]:
    """Mean scores of the methods, each with its setting, on some of the instances; none if the study kept no scores."""
    kept = {
        (name, row.get("policy", name), row.get("factor", 1.0)): row["scores"][instances]
        for name, row in study.get("policies", {}).items()
        if "scores" in row
    }
    return {key: sum(own) / len(own) for key, own in kept.items()}


def _correlation(first: dict[Setting, float], second: dict[Setting, float]) -> str:
    """Spearman's correlation of the methods that have the same settings in both, and those that move by the most places."""
    keys = [key for key in first if key in second]
    if len(keys) < FEWEST_RANKED:
        return "not measured yet"
    ranks = [scipy.stats.rankdata([-own[key] for key in keys]) for own in (first, second)]
    moved = sorted(zip(keys, ranks[0], ranks[1], strict=True), key=lambda row: -abs(row[1] - row[2]))[:2]
    far = ", ".join(f"`{name}` {before:g} to {after:g}" for (name, *_), before, after in moved)
    number = "" if len(keys) == len(first) == len(second) else f"{len(keys)} methods; "
    return f"{scipy.stats.spearmanr(*ranks).statistic:.2f} ({number}{far})"


def _difference(row: dict[str, float]) -> str:
    return f"{row['difference']:+.1f} [{row['low']:.1f}, {row['high']:.1f}]"


def settings(found: dict[str, Any]) -> Table:
    """The setting of each method that the search chose on each problem, and how many trainings the search took."""
    names = dict.fromkeys(name for study in found.values() for name in study["methods"])
    chosen = {problem: study["methods"] for problem, study in found.items()}
    rows = [{"policy": f"`{name}`", **{problem: _setting(own.get(name)) for problem, own in chosen.items()}} for name in names]
    totals = {problem: f"{sum(own['trainings'] for own in study['methods'].values()):,}" for problem, study in found.items()}
    return _or_missing([*rows, {"policy": "trainings", **totals}] if rows else [], "benchmarks.search")


def _setting(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    option = row["policy"].partition(":")[2].replace("null", "that of the training")
    return f"{row['factor']:g} lr" + (f", {option}" if option else "")


def _over(over: dict[str, Any]) -> Any:
    return lambda name: f"`{name}` {over[name]['difference']:+.1f} [{over[name]['low']:.1f}, {over[name]['high']:.1f}]"


def solvers() -> Table:
    """Times of the solvers; heads of columns are written out."""
    rows = [
        {"policy": f"`{name}`", **{key: f"{value:g}" for key, value in row.items()}} for name, row in _read("solver_speed").items()
    ]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return _or_missing([{HEADS.get(key, key): row.get(key, "") for key in columns} for row in rows], "benchmarks.solver_speed")

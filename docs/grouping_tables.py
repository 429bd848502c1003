"""The measured tables of ``docs/task_grouping.md``, from the results of ``benchmarks/task_grouping.py``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results" / "task_grouping.json"
SPEED = RESULTS.with_name("grouping_speed.json")
Table = list[dict[str, str]]


def grouping_tables() -> dict[str, Table]:
    """All tables by their titles; studies that have not been run are left out."""
    studies: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    made: dict[str, Table] = {}
    if own := studies.get("planted"):
        title = (
            f"Adjusted Rand index of the groups of {own['tasks']} tasks against the planted clusters, {own['instances']} instances"
        )
        made[f"{title}; `layers` is average linkage of `layer_cka`."] = planted(own["problems"])
    if own := studies.get("digits"):
        made[f"STG-MTL on the 16 tasks of `digit_tasks` with 64 hidden units, {own['instances']} instances."] = digits(
            own["groups"]
        )
    if own := studies.get("hundred"):
        title = f"{own['tasks']} tasks from the warm-up to the last group's training, {own['threads']} thread(s)"
        made[f"{title}; the return is the gain over joint training, in percent."] = hundred(own["policies"])
    if own := studies.get("more"):
        for problem, row in own["problems"].items():
            title = f"Returns on all tasks of `{problem}`, {own['instances']} instances: gain over joint training, in percent"
            made[f"{title}; the agent was trained on six tasks at a time."] = returns(row)
    if own := studies.get("regret"):
        for problem, row in own["problems"].items():
            title = (
                f"Regret on `{problem}`, 6 tasks, {own['instances']} instances, in points of gain over joint training (*reward*)"
            )
            made[f"{title}; each group beyond the first costs 1 point; `trainings` is the cost in trainings of one network."] = (
                regrets(row)
            )
    if SPEED.is_file():
        title = "Ratios of times, with the quartiles of the rounds (`benchmarks/grouping_speed.py`)"
        made[
            f"{title}. A training step of 16 such networks takes a millisecond, so the cost of data maps is large in comparison."
        ] = speed()
    return made


def grouping_regrets() -> dict[str, Table]:
    """The tables of regrets by problems."""
    return {problem: regrets(row) for problem, row in json.loads(RESULTS.read_text())["regret"]["problems"].items()}


def speed() -> Table:
    """A row for each comparison."""
    studies = json.loads(SPEED.read_text())
    return [
        {"what": what, **{f"`{problem}`": _ratio(study[what]) for problem, study in studies.items()}}
        for what in next(iter(studies.values()))
    ]


def _ratio(row: dict[str, float]) -> str:
    return f"{row['ratio']:.2f} x ({row['lower quartile']:.2f} to {row['upper quartile']:.2f})"


def planted(problems: dict[str, Any]) -> Table:
    """A row for each clustering."""
    first = next(iter(problems.values()))
    return [
        {"groups from": f"`{name}`", **{f"`{problem}`": _interval(row[name]["rand index"]) for problem, row in problems.items()}}
        for name in first
    ]


def digits(groups: dict[str, Any]) -> Table:
    """A row for each number of groups."""
    return [
        {
            "groups": count,
            "instances with `random` alone": f"{row['random is alone']:.0%}",
            **{
                f"{pair}: same group, largest difference of memberships": f"{own['same group']:.0%}, {own['difference']:g}"
                for pair, own in row.items()
                if isinstance(own, dict) and "same group" in own
            },
        }
        for count, row in groups.items()
    ]


def hundred(policies: dict[str, Any]) -> Table:
    """A row for each policy."""
    return [
        {
            "policy": f"`{name}`",
            "seconds": f"{row['seconds']:.1f}",
            "groups": str(row["groups"]),
            "return": f"{100 * row['return']:+.1f}",
        }
        for name, row in policies.items()
    ]


def returns(policies: dict[str, Any]) -> Table:
    """A row for each policy, in order of return."""
    return [
        {
            "policy": f"`{name}`",
            "return": _interval(row["return"]),
            "ppo minus policy": _interval(row["ppo minus it"]) if "ppo minus it" in row else "",
            "groups": f"{row['groups']:.1f}",
        }
        for name, row in sorted(policies.items(), key=lambda pair: -float(pair[1]["return"]["mean"]))
    ]


def regrets(policies: dict[str, Any]) -> Table:
    """A row for each policy, in order of regret."""
    trained = any("ppo minus it" in row for row in policies.values())
    return [
        {
            "policy": f"`{name}`",
            "regret": _interval(row["regret"]),
            **({"ppo minus policy": _interval(row["ppo minus it"]) if "ppo minus it" in row else ""} if trained else {}),
            "delta_m on *test*": f"{row['delta_m']['mean']:.1f}",
            "groups": f"{row['groups']:.1f}",
            "trainings": f"{row['trainings']:.1f}",
        }
        for name, row in sorted(policies.items(), key=lambda pair: float(pair[1]["regret"]["mean"]))
    ]


def _interval(row: dict[str, float]) -> str:
    return f"{row['mean']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"

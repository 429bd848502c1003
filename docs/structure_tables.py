"""The tables of ``docs/structures.md``, from the latest results of ``benchmarks/structures.py``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

STUDIES = Path(__file__).parents[1] / "benchmarks" / "results" / "structures.json"
BEST = "best structure"
Table = list[dict[str, str]]


def structure_tables() -> dict[str, Table]:
    """All tables by the names of their markers."""
    studies: dict[str, Any] = json.loads(STUDIES.read_text()) if STUDIES.is_file() else {}
    return {decision: gains({problem: own[decision] for problem, own in studies.items()}) for decision in ("merging", "grouping")}


def gains(studies: dict[str, Any]) -> Table:
    """What the best structure and each policy gain over the better of all and nothing, the best first; heads have the instances."""
    rows = {problem: {BEST: own["best"], **own["policies"]} for problem, own in studies.items()}
    heads = {problem: f"{problem} ({own['instances']})" for problem, own in studies.items()}
    names = list(dict.fromkeys(name for own in rows.values() for name in own))
    names.sort(key=lambda name: (name != BEST, -sum(own[name]["return"]["mean"] for own in rows.values() if name in own)))
    made = [{"policy": _named(name), **{heads[problem]: _cell(own.get(name)) for problem, own in rows.items()}} for name in names]
    return made or [{"not measured yet": "`python -m benchmarks.structures`"}]


def _named(name: str) -> str:
    return f"**{name}**" if name == BEST else f"`{name}`"


def _cell(row: dict[str, Any] | None) -> str:
    return "" if row is None else f"{_interval(row['return'])}; *test* {_interval(row['test'])}"


def _interval(row: dict[str, float]) -> str:
    return f"{row['mean']:+.1f} [{row['low']:.1f}, {row['high']:.1f}]"

"""The tables of docs/leaderboards.md, and those of references and of how far actions matter in docs/suites.md."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from benchmarks.leaderboards import BOARDS, LOSS_BALANCING, shown_file
from mtl_gym.environments import LOSS_WEIGHTING
from mtl_gym.evaluation.suite_references import KINDS, headroom, suite_references
from mtl_gym.evaluation.suites import find_suites

ROOT = Path(__file__).parents[1]
Table = list[dict[str, str]]


def leaderboard_tables() -> dict[str, Table]:
    """By name: the leaderboard of each standard suite, as ``mtl-gym leaderboard`` wrote it; ``suites``: regrets in the others."""
    there = [name for name, board in BOARDS.items() if board.suite == "standard" and shown_file(name).is_file()]
    standard = {name: _shown(name).to_dict("records") for name in there}
    return {**standard, "suites": suite_regrets()}  # type: ignore[dict-item]


def suite_regrets() -> Table:
    """The mean regret of each policy in every suite that changes one thing, in points; the least mean over suites comes first."""
    regrets = {
        board.suite: _shown(name).set_index("policy")["regret"] for name, board in BOARDS.items() if board.suite != "standard"
    }
    table = pd.DataFrame(regrets).astype(float).loc[[*LOSS_BALANCING]]
    table["mean"] = table.mean(axis=1)
    ordered = table.sort_values("mean", kind="stable").map("{:.2f}".format)
    return [{"policy": f"`{policy}`", **{str(name): value for name, value in row.items()}} for policy, row in ordered.iterrows()]


def _shown(name: str) -> pd.DataFrame:
    return pd.read_csv(shown_file(name), keep_default_na=False).astype(str)


def reference_tables() -> dict[str, Table]:
    """What is known of suites: the start, the best constant action, the best schedule, and how far these are apart."""
    known = {key: found for key in find_suites() if len(found := suite_references(*key))}
    rows = [_referenced(f"`{name}`, {env.rpartition('/')[2]}", found) for (name, env), found in known.items()]
    shifts = {name: found for (name, env), found in known.items() if env == LOSS_WEIGHTING and name != "standard"}
    return {"references": [*rows, _referenced("all of LossWeighting-v0 but `standard`", together(shifts))]}


def together(suites: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The references of several suites; of studies that are alike, those of the first one."""
    studies = [
        own.assign(study=f"{name}/{study}") for name, found in suites.items() for study, own in found.groupby("study", sort=False)
    ]
    alike = {own[["instance", *KINDS]].to_numpy().tobytes(): own for own in reversed(studies)}
    together = pd.concat(reversed(alike.values()))
    together.attrs = next(iter(suites.values())).attrs
    return together


def _referenced(suite: str, known: pd.DataFrame) -> dict[str, str]:
    room = headroom(known)
    means = known.groupby("study", sort=False)[["start", "best_constant", "best_known"]].mean().mean()
    return {
        "suite": suite,
        "instances": str(len(known)),
        "start": f"`{known.attrs['start']}` {means['start']:.2f}",
        "best constant": f"{means['best_constant']:.2f}",
        "best known": f"{means['best_known']:.2f}",
        "headroom": f"{room['difference']:+.2f} [{room['low']:.2f}, {room['high']:.2f}]",
        "in standard errors": f"{room['difference'] / room['error']:.1f}" if room["error"] else "",
    }


def sensitivity_tables() -> dict[str, Table]:
    """By problem and environment: what actions explain of the variance of returns."""
    known = json.loads((ROOT / "mtl_gym" / "data" / "sensitivity.json").read_text())
    problems = list(dict.fromkeys(problem for own in known.values() for problem in own))
    rows = []
    for problem in problems:
        cells = {env.rpartition("/")[2]: own.get(problem) for env, own in known.items()}
        rows.append({"problem": f"`{problem}`", **{env: _sensitivity(cell) if cell else "" for env, cell in cells.items()}})
    return {"sensitivity": rows}


def _sensitivity(cell: Mapping[str, float]) -> str:
    """The share of the variance within instances, of it what is no chance where that is known, and the deviation."""
    certain = f" ({cell['actions']:.0%})" if "actions" in cell else ""
    return f"{cell['within']:.0%}{certain}, {cell['deviation']:.2f}"

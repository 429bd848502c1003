"""The tables of docs/leaderboards.md, and those of references and of how far actions matter in docs/suites.md."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from benchmarks.leaderboards import BOARDS, LOSS_BALANCING, rows_file, shown_file
from mtl_gym.environments import LOSS_WEIGHTING
from mtl_gym.evaluation.statistics import stratified_difference
from mtl_gym.evaluation.suite_references import KINDS, headroom, suite_references
from mtl_gym.evaluation.suites import find_suites

ROOT = Path(__file__).parents[1]
Table = list[dict[str, str]]
AGENT = "ppo:action=rule"
"""The agent that learned on random problems alone."""


def leaderboard_tables() -> dict[str, Table]:
    """By name: the leaderboard of each standard suite, as ``mtl-gym leaderboard`` wrote it; ``suites``: regrets in the others."""
    there = [name for name, board in BOARDS.items() if board.suite == "standard" and shown_file(name).is_file()]
    standard = {name: _shown(name).to_dict("records") for name in there}
    return {**standard, "suites": suite_regrets()}  # type: ignore[dict-item]


def suite_regrets() -> Table:
    """What policies are behind in the suites that change one thing: mean regrets, and the agent of random problems minus each.

    The least mean regret over the suites of teachers comes first.
    """
    names = {board.suite: name for name, board in BOARDS.items() if board.suite != "standard"}
    regrets = {suite: _shown(name).set_index("policy")["regret"] for suite, name in names.items()}
    table = pd.DataFrame(regrets).astype(float).loc[[*LOSS_BALANCING]]
    table.insert(len(table.columns) - 1, "mean of these", table.drop(columns="data").mean(axis=1))
    teachers, data = (_ahead({suite: names[suite] for suite in names if (suite == "data") is own}) for own in (False, True))
    rows = []
    for policy, row in table.sort_values("mean of these", kind="stable").map("{:.2f}".format).iterrows():
        own = {str(name): value for name, value in row.items()}
        ahead = {f"`{AGENT}` minus it": teachers[str(policy)], "the same, `data`": data[str(policy)]}
        rows.append({"policy": f"`{policy}`", **own, **ahead})
    return rows


def _ahead(names: Mapping[str, str]) -> dict[str, str]:
    """By policy: what the agent is ahead of it on these suites, with a 95 % interval; studies that are alike count once."""
    rows = pd.concat([pd.read_csv(rows_file(name)).assign(suite=suite) for suite, name in names.items()])
    wide = rows.pivot_table(index=["suite", "study", "instance"], columns="policy", values="delta_m", sort=False)
    studies = {own.to_numpy().tobytes(): own for _, own in wide.groupby(["suite", "study"], sort=False)}.values()
    found = {}
    for policy in wide.columns.drop(AGENT):
        apart = stratified_difference([(own[AGENT] - own[policy]).to_numpy() for own in studies])
        found[policy] = f"{apart['difference']:+.2f} [{apart['low']:.2f}, {apart['high']:.2f}]"
    return {**found, AGENT: ""}


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

"""The tables of ``docs/your_training.md``: what each policy reads in somebody's own loop, and what it changed in three of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mtl_gym
from mtl_gym.environments import LOSS_WEIGHTING, SAMPLE_WEIGHTING
from mtl_gym.policies.finding import environment_of, find_policies

_OWN_LOOPS = Path(__file__).parents[1] / "benchmarks" / "results" / "own_loops.json"
_TOLD: dict[str, float] = {"lr": 0.1, "steps_per_epoch": 2, "train_steps": 4}
"""Arguments that some policies need, with any values."""
_OPTIONS = {"constant": "constant:w=1,2"}
_CALLS = {
    "holdout": "`observe_holdout(losses)` when `decision_due`",
    "after": "`observe_after(losses)` after each step",
    "gradients": "`backward(losses, shared=...)`",
    "alignment": "`observe_alignment(model, losses, batch, holdout)` before each batch",
    "ids": "`ids=`",
}
_SAMPLE_CALLS = _CALLS | {"gradients": "`shared=`"}
Table = list[dict[str, str]]


def training_tables() -> dict[str, Table]:
    """All tables by the names of their markers."""
    return {
        "losses": _rows(LOSS_WEIGHTING, mtl_gym.LossBalancer, _CALLS),
        "samples": _rows(SAMPLE_WEIGHTING, mtl_gym.SampleBalancer, _SAMPLE_CALLS),
        "own loops": _gains(),
    }


def _gains() -> Table:
    """A row for each policy, with its gain over equal weights in each training."""
    studies = json.loads(_OWN_LOOPS.read_text())
    summaries = {name: study["summary"] for name, study in studies.items()}
    policies = [policy for policy in next(iter(summaries.values())) if policy != "ew"]
    return [{"policy": f"`{policy}`"} | {name: _gain(own[policy]) for name, own in summaries.items()} for policy in policies]


def _gain(row: dict[str, Any]) -> str:
    low, high = row["interval"]
    return f"{row['minus ew']:+.2f} [{low:.2f}, {high:.2f}], {row['ahead']}"


def _rows(env: str, balancer: Any, calls: dict[str, str]) -> Table:
    """A row for each policy that the balancer takes, by asking it; those that read what no loop knows are left out."""
    rows = []
    for name in find_policies():
        if environment_of(name) in (None, env) and name != "single-task" and _takes(balancer, name, _TOLD):
            needed = [f"`{own}`" for own in _TOLD if not _takes(balancer, name, {key: _TOLD[key] for key in _TOLD if key != own})]
            reads = balancer(_OPTIONS.get(name, name), ["a", "b"], **_TOLD).reads
            reads -= {"holdout"} if "alignment" in reads else set()  # `observe_alignment` takes the held-out losses as well
            handed = [call for read, call in calls.items() if read in reads]
            rows.append({"name": name, "needs the arguments": ", ".join(needed), "needs in the loop": "; ".join(handed)})
    return rows


def _takes(balancer: Any, name: str, told: dict[str, float]) -> bool:
    try:
        balancer(_OPTIONS.get(name, name), ["a", "b"], **told)
    except ValueError:
        return False
    return True

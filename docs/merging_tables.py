"""The tables of the merging agent's card, and the cost of merging, as the benchmarks last measured them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
Table = list[dict[str, str]]


def merging_tables() -> dict[str, Table]:
    """All tables by the names of their markers."""
    studies = json.loads((RESULTS / "layer_merging.json").read_text())
    problems = ("digits_4", "digits", "multimnist", "census")
    missing = [{"not measured yet": "`python -m benchmarks.layer_merging`"}]
    return {
        "planted": scan("threshold", studies["planted"]["scan"]),
        "planted_code": scan("threshold", studies["planted"].get("scan by the rule of the code", {})) or missing,
        "alignments": scan("factor", studies["planted"]["at .8, by factor of the alignment"]),
        "intervals": scan("steps between decisions", studies["planted"]["at .8, by steps between decisions"]),
        "own": scan("factor", studies["planted"]["at .8, initial weights of their own, by factor of the alignment"]),
        **{name: front(studies[name]) if name in studies else missing for name in problems},
    }


def scan(varied: str, rows: dict[str, Any]) -> Table:
    """The pairs that MTSL ends with, for every value of the varied setting."""
    return [
        {
            varied: value,
            "adjusted Rand index": _interval(row["rand index"], 2),
            "parameters": _interval(row["parameters"], 2),
            "return on *reward*, training instances": _interval(row["return on reward, training instances"], 3),
        }
        for value, row in rows.items()
    ]


def front(study: dict[str, Any]) -> Table:
    """Scores and parameters of every policy, from most to fewest parameters."""
    rows = sorted(study["policies"].items(), key=lambda item: -item[1]["parameters"]["mean"])
    return [
        {
            "policy": f"`{name}`",
            "parameters": f"{row['parameters']['mean']:.2f}",
            "delta_m": _interval(row["delta_m"]),
            "delta_m, corrupted inputs": _interval(row["corrupted"]),
            "return": _interval(row["return"], 3),
            "ppo minus policy: delta_m": _interval(row["ppo minus it"]["delta_m"]) if row["ppo minus it"] else "",
            "ppo minus policy: return": _interval(row["ppo minus it"]["return"], 3) if row["ppo minus it"] else "",
        }
        for name, row in rows
    ]


def merging_speed() -> dict[str, str]:
    """What ``benchmarks/merging_speed.py`` last measured."""
    rows = {name: _ratio(row) for name, row in json.loads((RESULTS / "merging_speed.json").read_text()).items()}
    return {
        "time of a training step with gathered layers, relative to separate networks, 16 trainings": rows["gathered over separate"],
        "time of a hand-written loop over 16 structures, relative to one step of all of them": rows[
            "loop over gathered, 16 structures"
        ],
        "time of the CKA of all pairs and stages, relative to the 20 steps between two decisions": rows[
            "cka over the time between two decisions"
        ],
    }


def _ratio(row: dict[str, float]) -> str:
    return f"{row['ratio']:.2f} x ({row['lower quartile']:.2f} to {row['upper quartile']:.2f})"


def _interval(row: dict[str, float], digits: int = 1) -> str:
    return f"{row['mean']:.{digits}f} [{row['low']:.{digits}f}, {row['high']:.{digits}f}]"

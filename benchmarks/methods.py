"""Every method that weighs tasks, on every problem, against constant weights that were searched for.

    python benchmarks/constant_weights.py      first: the constant weights
    python benchmarks/methods.py               every problem (hours; what is finished is kept in runs/methods and found again)
    python benchmarks/methods.py digits        one of them

All policies play the same instances at the problem's default learning rate. Writes ``benchmarks/results/methods.json`` problem by
problem; ``docs/generate.py`` makes the tables of ``docs/methods.md`` of it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import pandas as pd

import mtl_gym
from benchmarks.constant_weights import VANISHING
from mtl_gym.baselines import BASELINES
from mtl_gym.policies import environment_of
from mtl_gym.problems import LOSS_WEIGHTING, PROBLEMS
from mtl_gym.problems.metrics import delta_m

OUT = Path(__file__).parent / "results" / "methods.json"
KEPT = Path(__file__).parents[1] / "runs" / "methods"
SEARCHED = Path(__file__).parent / "results" / "constant_weights.json"
INSTANCES, NUM_ENVS = 20, 20
SLOW = {"multimnist": 10, "stereo": 10}
CONSTANT = "constant"
COMPOSITIONS = ("igb+cagrad", "igb+nash-mtl", "si+cagrad")
HEURISTICS = [name for name in BASELINES if environment_of(name) == LOSS_WEIGHTING and name != CONSTANT]


def policies(problem: str) -> dict[str, str]:
    """Labels to policies: all heuristics, some compositions, the shipped agent, and the constant weights that the search found."""
    own = dict.fromkeys((*HEURISTICS, *COMPOSITIONS, "ppo"))
    best = json.loads(SEARCHED.read_text()).get(problem)
    found = {CONSTANT: f"constant:w={','.join(map(str, best['best first'][0]['w']))}"} if best else {}
    return {**{name: name for name in own}, **found}


def study(problem: str, *, out: Path = KEPT, **arguments: Any) -> dict[str, Any]:
    """Plays all policies: scores with intervals, paired differences to equal and to constant weights, and costs."""
    settings = {"instances": SLOW.get(problem, INSTANCES), "num_envs": NUM_ENVS, **arguments}
    frame = mtl_gym.compare(policies(problem), problem=problem, out=out, **settings)
    if problem in VANISHING:
        frame = over_equal_weights(frame)
    summary = mtl_gym.summarize(frame)["policies"]
    rows = {
        name: {
            "delta_m": _rounded(own["delta_m"]),
            "over": {other: _rounded(own["paired"][other]) for other in ("ew", CONSTANT) if other in own["paired"]},
            "diverged": own["diverged"],
            "passes": list(own["cost"].values()),
        }
        for name, own in summary.items()
    }
    searched = json.loads(SEARCHED.read_text()).get(problem, {})
    return {"instances": settings["instances"], "search": searched.get("trainings"), "policies": rows}


def over_equal_weights(frame: pd.DataFrame) -> pd.DataFrame:
    """The same with gains over equal weights on the same instance in the place of those over single-task learning."""
    rows = frame.assign(name=frame["task"] + "/" + frame["metric"])
    tables = {key: dict(zip(own["name"], own["value"], strict=True)) for key, own in rows.groupby(["policy", "instance"])}
    gains = {(policy, instance): delta_m(own, tables["ew", instance]) for (policy, instance), own in tables.items()}
    return frame.assign(delta_m=[gains[key] for key in zip(frame["policy"], frame["instance"], strict=True)])


def _rounded(row: dict[str, float | None]) -> dict[str, float | None]:
    return {name: None if value is None else round(value, 2) for name, value in row.items()}


def main(names: list[str]) -> None:
    """Studies each problem, and adds it to the results."""
    for name in names or PROBLEMS:
        known = json.loads(OUT.read_text()) if OUT.is_file() else {}
        known[name] = study(name)
        OUT.write_text(json.dumps({name: known[name] for name in PROBLEMS if name in known}, indent=1) + "\n")
        print(name, json.dumps(known[name]["policies"]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])

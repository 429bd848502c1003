"""Compares every method that weights tasks, on every problem, with constant weights that were searched for.

    python -m benchmarks.constant_weights      first: the constant weights
    python -m benchmarks.methods               every problem (hours; rerun to resume, finished results are kept in runs/methods)
    python -m benchmarks.methods digits        one of them

All policies play the same instances at the problem's default learning rate. Writes ``benchmarks/results/methods.json`` problem by
problem, from which ``docs/generate.py`` makes the tables of ``docs/methods.md``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pandas as pd

import mtl_gym
from benchmarks.constant_weights import VANISHING
from benchmarks.measuring import RESULTS, Run, command_line, weighted_problems
from mtl_gym.baselines import BASELINES
from mtl_gym.environments import LOSS_WEIGHTING
from mtl_gym.policies.finding import environment_of
from mtl_gym.problems import PROBLEMS
from mtl_gym.problems.scores import delta_m

SEARCHED = RESULTS / "constant_weights.json"
INSTANCES, NUM_ENVS = 20, 20
SLOW = {"multimnist": 10, "stereo": 10}
CONSTANT = "constant"
COMPOSITIONS = ("igb+cagrad", "igb+nash-mtl", "si+cagrad")
HEURISTICS = [name for name in BASELINES if environment_of(name) == LOSS_WEIGHTING and name != CONSTANT]


def policies(problem: str, smoke: bool = False) -> dict[str, str]:
    """Labels to policies: all heuristics, some compositions, the pretrained agent, and the constant weights that the search found.

    In smoke mode one of each.
    """
    own = dict.fromkeys((HEURISTICS[0], COMPOSITIONS[0], "ppo") if smoke else (*HEURISTICS, *COMPOSITIONS, "ppo"))
    best = json.loads(SEARCHED.read_text()).get(problem)
    found = {CONSTANT: f"constant:w={','.join(map(str, best['best first'][0]['w']))}"} if best else {}
    return {**{name: name for name in own}, **found}


def study(problem: str, run: Run) -> dict[str, Any]:
    """Plays all policies: scores with intervals, paired differences to equal and to constant weights, and costs."""
    settings: dict[str, Any] = {"instances": SLOW.get(problem, INSTANCES), "num_envs": NUM_ENVS}
    if run.smoke:
        settings = {"instances": 2, "num_envs": 2, "train_steps": 40}
    frame = mtl_gym.compare(policies(problem, run.smoke), problem=problem, out=run.kept, **settings)
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
    """The frame with gains over equal weights on the same instance instead of gains over single-task learning."""
    rows = frame.assign(name=frame["task"] + "/" + frame["metric"])
    tables = {key: dict(zip(own["name"], own["value"], strict=True)) for key, own in rows.groupby(["policy", "instance"])}
    gains = {(policy, instance): delta_m(own, tables["ew", instance]) for (policy, instance), own in tables.items()}
    return frame.assign(delta_m=[gains[key] for key in zip(frame["policy"], frame["instance"], strict=True)])


def _rounded(row: dict[str, float | None]) -> dict[str, float | None]:
    return {name: None if value is None else round(value, 2) for name, value in row.items()}


def main(words: Sequence[str] | None = None) -> None:
    """Studies each problem and adds it to the results."""
    run: Run = command_line(words)
    for name in weighted_problems(run):
        known = run.known()
        known[name] = study(name, run)
        run.write({name: known[name] for name in PROBLEMS if name in known})
        print(name, json.dumps(known[name]["policies"]), flush=True)


if __name__ == "__main__":
    main()

"""How often the environment's bounds change what a baseline says, on every ``varied`` problem: they must not decide who wins.

    python benchmarks/clipping.py            all problems whose losses can be weighted
    python benchmarks/clipping.py digits     one of them

Prints and writes ``benchmarks/results/clipping.json``: the percentage of weights that lie on a bound,
and the largest weight.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from mtl_gym.baselines import BASELINES
from mtl_gym.evaluation.rollout import make_env
from mtl_gym.policies import environment_of, make_policy
from mtl_gym.problems import LOSS_WEIGHTING, PROBLEMS

OUT = Path(__file__).parent / "results" / "clipping.json"
INSTANCES = {"multimnist": 4, "stereo": 4}


def play(name: str, problem: str) -> dict[str, float]:
    """Whole episodes of one baseline."""
    policy, count = make_policy(name), INSTANCES.get(problem, 16)
    envs = make_env(policy, LOSS_WEIGHTING, count, {"problem": problem, "distribution": "varied"})
    observations, _ = envs.reset(options={"instance": np.arange(count)})
    memory, clipped, entries, largest = None, 0, 0, 0.0
    while not envs.unwrapped.finished.all():  # type: ignore[attr-defined]
        actions, memory = policy.predict(observations, memory)
        observations, _, _, _, infos = envs.step(actions)
        clipped, entries = clipped + int(infos["clipped"].sum()), entries + actions.size
        largest = max(largest, float(np.abs(actions).max()))
    return {"clipped, %": round(100 * clipped / entries, 4), "largest": float(f"{largest:.3g}")}


def main() -> None:
    """All baselines that choose their weights, on all problems."""
    names = [name for name in BASELINES if name != "constant" and environment_of(name) == LOSS_WEIGHTING]
    results = json.loads(OUT.read_text()) if OUT.is_file() else {}
    weighted = [problem for problem, row in PROBLEMS.items() if LOSS_WEIGHTING in row.environments]
    for problem in sys.argv[1:] or weighted:
        results[problem] = {name: play(name, problem) for name in names}
        print(problem, json.dumps(results[problem]), flush=True)
        OUT.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()

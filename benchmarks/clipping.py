"""How often the environment's bounds clip a baseline's weights, on every ``varied`` problem: bounds must not decide who wins.

    python -m benchmarks.clipping            all problems that LossWeighting supports
    python -m benchmarks.clipping digits     one of them

Prints the percentage of weights that lie on a bound and the largest weight, and writes ``benchmarks/results/clipping.json``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.measuring import Run, command_line, rollout, vector_env, weighted_problems
from mtl_gym.baselines import BASELINES
from mtl_gym.environments import LOSS_WEIGHTING
from mtl_gym.policies.finding import environment_of
from mtl_gym.policies.grammar import make_policy

INSTANCES = {"multimnist": 4, "stereo": 4}


def play(name: str, problem: str, count: int, **arguments: Any) -> dict[str, float]:
    """Plays whole episodes of one baseline."""
    policy, given = make_policy(name), {"problem": problem, "distribution": "varied", "autoreset_mode": "Disabled"}
    envs = vector_env(LOSS_WEIGHTING, count, policy, **given, **arguments)
    clipped, entries, largest = 0, 0, 0.0
    for actions, infos in rollout(envs, policy, range(count)):
        clipped, entries = clipped + int(infos["clipped"].sum()), entries + actions.size
        largest = max(largest, float(np.abs(actions).max()))
    return {"clipped, %": round(100 * clipped / entries, 4), "largest": float(f"{largest:.3g}")}


def main(words: Sequence[str] | None = None) -> None:
    """Runs all baselines that choose their weights, on all problems."""
    run: Run = command_line(words)
    names = [name for name in BASELINES if name != "constant" and environment_of(name) == LOSS_WEIGHTING]
    names = names[: 4 if run.smoke else None]
    results, short = run.known(), {"train_steps": 4} if run.smoke else {}
    for problem in weighted_problems(run):
        count = run.size(INSTANCES.get(problem, 16), 2)
        results[problem] = {name: play(name, problem, count, **short) for name in names}
        print(problem, json.dumps(results[problem]), flush=True)
        run.write(results)


if __name__ == "__main__":
    main()

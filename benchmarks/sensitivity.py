"""How far actions matter: for every environment and problem, the share of the variance of returns that actions explain.

    python -m benchmarks.sensitivity                    every supported pair (an hour; rerun to resume)
    python -m benchmarks.sensitivity LayerMerging-v0    one environment

Trainings of the same instance take random actions (:func:`mtl_gym.evaluation.sensitivity.action_sensitivity`); problems with
convolutions have fewer of them. Writes ``mtl_gym/data/sensitivity.json``, which ``docs/suites.md`` shows.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from benchmarks.measuring import FOR_GROUPS, ROOT, Run, command_line
from mtl_gym.environments import LAYER_MERGING, LOSS_WEIGHTING, SAMPLE_WEIGHTING, TASK_GROUPING, specification
from mtl_gym.envs.arguments import supported_problems
from mtl_gym.evaluation.sensitivity import action_sensitivity
from mtl_gym.problems import load_problem

FIRST, INSTANCES, ROWS = 100_000, 4, 12
SLOW = {"multimnist": 3, "stereo": 2}
"""Instances of problems with convolutions."""
FILE = ROOT / "mtl_gym" / "data" / "sensitivity.json"
ENVS = (LOSS_WEIGHTING, SAMPLE_WEIGHTING, LAYER_MERGING, TASK_GROUPING)
FEWER = {
    **{(env, problem): 6 for env in (LOSS_WEIGHTING, SAMPLE_WEIGHTING) for problem in SLOW},
    **{(LAYER_MERGING, "multimnist"): 3, (LAYER_MERGING, "yeast"): 6},
}
"""Rows of pairs that take long, or much memory."""
MOST_GROUPED = 5
"""Of more tasks, groups would be too many."""


def pairs() -> list[tuple[str, str]]:
    """Environments and the problems that they support; those made for grouping are in no other environment's studies."""
    known = [(env, problem) for env in ENVS for problem in supported_problems(specification(env))]
    return [(env, problem) for env, problem in known if env == TASK_GROUPING or problem not in FOR_GROUPS]


def own_tasks(env: str, problem: str) -> dict[str, Any]:
    """Which tasks are learned, and how many of them, where an environment does not take all."""
    if env != TASK_GROUPING:
        return {}
    names = [task.name for task in load_problem(problem).tasks if task.classifies]
    return {"tasks": names, "num_tasks": min(MOST_GROUPED, len(names))}


def measured(env: str, problem: str, run: Run) -> dict[str, float]:
    """The shares of a pair."""
    count = run.size(SLOW.get(problem, INSTANCES), 2)
    given = {"problem": problem, **own_tasks(env, problem), **({"train_steps": 40} if run.smoke else {})}
    rows = run.size(FEWER.get((env, problem), ROWS), 2)
    found = action_sensitivity(env, range(FIRST, FIRST + count), rows=rows, **given)
    return {name: round(value, 4) for name, value in found.items()} | {"instances": count, "trainings": 2 * rows * count}


def main(words: Sequence[str] | None = None) -> None:
    """Measures all pairs, and keeps each."""
    run: Run = command_line(words, results=FILE)
    known = run.known()
    chosen = [own for own in pairs() if not run.names or own[0].rpartition("/")[2] in run.names]
    for env, problem in chosen[: 1 if run.smoke else None]:
        own = known.setdefault(env, {})
        if problem not in own:
            begun = time.perf_counter()
            own[problem] = measured(env, problem, run)
            run.write(known)
            print(env, problem, own[problem], f"{time.perf_counter() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main()

"""How far `teachers` resembles the problems that are shipped: what a training under equal weights shows of itself.

    python -m benchmarks.teachers                       all problems (minutes)
    python -m benchmarks.teachers teachers digits       these

16 instances of each problem are trained with equal weights, with the agents' distribution (``varied``), and what they show is read
halfway and at the end: cosines between the tasks' gradients, how far their norms are apart, improvable gaps, over-fitting, and how
far losses have fallen. Each row gives the 10th, 50th and 90th percentile over instances. *reward* and *test* play no part. Of
families it also measures the time in which the data of an instance are drawn, over that of an episode. Writes
``benchmarks/results/teachers.json``; the family is frozen by it before any agent trains on it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.measuring import Run, command_line, ratio, side_by_side, vector_env, weighted_problems
from mtl_gym.environments import LOSS_WEIGHTING
from mtl_gym.problems import load_problem

Array = npt.NDArray[np.float64]
INSTANCES, MOST_TASKS, DECISIONS, ROWS, ROUNDS = 16, 6, 15, 64, 7
OBSERVED = ("cosines", "log_norms", "gap", "log_loss_mean", "meta_log_loss")
SHOWN: dict[str, Callable[[Mapping[str, Array]], Array]] = {
    "cosine": lambda seen: seen["cosines"].mean(1),
    "conflicts": lambda seen: (seen["cosines"] < 0).mean(1),
    "norms apart": lambda seen: seen["log_norms"].std(1),
    "gap": lambda seen: seen["gap"].mean(1),
    "gaps apart": lambda seen: np.log(seen["gap"].clip(1e-6)).std(1),
    "loss": lambda seen: seen["log_loss_mean"].mean(1),
    "losses apart": lambda seen: seen["log_loss_mean"].std(1),
    "over-fitting": lambda seen: (seen["meta_log_loss"] - seen["log_loss_mean"]).mean(1),
    "over-fitting apart": lambda seen: (seen["meta_log_loss"] - seen["log_loss_mean"]).std(1),
}
"""Numbers (N,) by name: means over tasks or pairs, the fraction of negative cosines; ``apart``: deviations over tasks, of logs."""


def shown(problem: str, instances: int, **arguments: Any) -> dict[str, Any]:
    """Percentiles over instances of what is shown halfway and at the end, by name."""
    loaded = load_problem(problem)
    steps = loaded.defaults.train_steps
    given = {"problem": problem, "num_tasks": min(loaded.num_tasks, MOST_TASKS), "distribution": "varied", "train_steps": steps}
    given |= {"action": "weights", "observe": list(OBSERVED), "reward": "none", **arguments}
    length = next(own for own in range(DECISIONS, 0, -1) if given["train_steps"] % own == 0)
    given["steps_per_action"] = given["train_steps"] // length
    envs = vector_env(LOSS_WEIGHTING, instances, autoreset_mode="Disabled", **given)
    envs.reset(options={"instance": [*range(instances)]})
    found: dict[str, Any] = {}
    for decision in range(1, length + 1):
        seen = envs.step(np.ones(envs.action_space.shape, np.float32))[0]
        if decision in (length // 2, length):
            place = "end" if decision == length else "half"
            found[place] = {
                name: _percentiles(row({key: own.astype(float) for key, own in seen.items()})) for name, row in SHOWN.items()
            }
    envs.close()
    return found


def drawing(problem: str, rounds: int, **arguments: Any) -> dict[str, float]:
    """Seconds in which an instance's data are drawn over those of its episode, of ``ROWS`` trainings of four tasks side by side."""
    family = load_problem(problem).family
    rows, given = (2, arguments) if arguments else (ROWS, {})
    tasks, rng = np.arange(4), np.random.default_rng(0)
    envs = vector_env(LOSS_WEIGHTING, rows, problem=problem, num_tasks=4, reward="none", autoreset_mode="Disabled", **given)

    def draw() -> int:
        for _ in range(rows):
            family.draw(family.values(family.ranges, rng), tasks, rng)
        return 1

    def episode() -> int:
        envs.reset(seed=0)
        while not envs.finished.all():
            envs.step(np.ones(envs.action_space.shape, np.float32))
        return 1

    times = side_by_side({"draw": draw, "episode": episode}, rounds=rounds, seconds=0)
    envs.close()
    return ratio(times["draw"], times["episode"])


def _percentiles(values: Array) -> list[float]:
    return [round(float(value), 3) for value in np.percentile(values, [10, 50, 90])]


def main(words: Sequence[str] | None = None) -> None:
    """Measures each problem and adds it to the results."""
    run: Run = command_line(words)
    known = run.known()
    short: dict[str, Any] = {"train_steps": 20} if run.smoke else {}
    for name in weighted_problems(run):
        known[name] = shown(name, 2 if run.smoke else INSTANCES, **short)
        if load_problem(name).family:
            known[name]["drawing"] = drawing(name, run.size(ROUNDS), **short)
        run.write(known)
        print(name, json.dumps(known[name]["half"]), flush=True)


if __name__ == "__main__":
    main()

"""What policies are worth far from where they were chosen: 2 to 40 tasks, 105 to 4,800 steps, a tenth to ten times the rate.

    python -m benchmarks.ranges              all of it (a quarter of an hour)
    python -m benchmarks.ranges tasks        numbers of tasks alone

Every row is a setting of teachers with 24 evaluation instances, each of which is a problem of its own. Scores are logs of metrics
on *test*, in points, as in ``benchmarks/rules.py``; printed are mean differences from `init` with 95 % intervals over instances.
Where a training diverged, it counts as 20 points worse than that of the other policy; where both did, as equal. Writes
``benchmarks/results/ranges.json``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.bandit import finals
from benchmarks.measuring import Run, command_line
from benchmarks.rules import DIVERGED, interval
from mtl_gym.policies.grammar import make_policy

Array = npt.NDArray[np.float64]
INSTANCES = 24
POLICIES = ("ew", "stch", "igb", "ppo:action=rule")
LABELS = {"labels": (0.1, 1.0)}
AXES: dict[str, dict[str, dict[str, Any]]] = {
    "tasks": {str(count): {"problem": "teachers_many", "num_tasks": count, "distribution": LABELS} for count in (2, 5, 10, 20, 40)},
    "steps": {
        str(steps): {"problem": "teachers", "num_tasks": 4, "train_steps": steps, "distribution": LABELS}
        for steps in (105, 300, 1200, 4800)
    },
    "rate": {
        f"{factor:g}": {"problem": "teachers", "num_tasks": 4, "distribution": {**LABELS, "lr": (factor, factor)}}
        for factor in (0.1, 0.3, 1.0, 3.0, 10.0)
    },
}
"""Settings by axis and value; a rate is a factor of the problem's own."""


def measured(arguments: Mapping[str, Any], policies: Mapping[str, Any], instances: int, **others: Any) -> dict[str, list[float]]:
    """By policy: the mean difference from `init` and its interval."""
    ids, given = range(instances), {**arguments, **others}
    first = finals(make_policy("init"), given, ids, "test")
    scores = {name: finals(policy, given, ids, "test") for name, policy in policies.items()}
    return {name: interval(difference(own, first)) for name, own in scores.items()}


def difference(own: Array, other: Array) -> Array:
    """Paired differences (n,) of scores, which are not finite where a training diverged."""
    lost, beside = ~np.isfinite(own), ~np.isfinite(other)
    return np.where(lost | beside, DIVERGED * (beside.astype(float) - lost), own - other)


def main(words: Sequence[str] | None = None) -> None:
    """Measures each axis and adds it to the results."""
    run: Run = command_line(words)
    known, short = run.known(), {"train_steps": 60} if run.smoke else {}
    policies = {name: make_policy(name) for name in (POLICIES[:1] if run.smoke else POLICIES)}
    for axis in run.chosen(tuple(AXES)):
        for value, arguments in [*AXES[axis].items()][: 1 if run.smoke else None]:
            known.setdefault(axis, {})[value] = measured(arguments, policies, run.size(INSTANCES, 2), **short)
            run.write(known)
            print(axis, value, json.dumps(known[axis][value]), flush=True)


if __name__ == "__main__":
    main()

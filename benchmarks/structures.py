"""What the best structure gains over the better of all and nothing, and how much of it each policy gets.

    python -m benchmarks.structures              all problems (an hour on a core; rerun to resume)
    python -m benchmarks.structures relations    one of them
    python -m benchmarks.structures --smoke      on two instances; writes nothing

Of ``LayerMerging`` with four tasks, all structures are trained: which tasks share the first stages, from the earliest decision on.
Of ``TaskGrouping``, all groups of six tasks. The best structure of an instance is that with the largest return on *reward*, prices
included, so its return is too large by the luck of the choice; what it gains on *test*, where nothing is chosen, stands beside it,
prices included too. Differences are paired over instances, which draw their own splits, with 95 % intervals. Writes
``benchmarks/results/structures.json``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

import mtl_gym
from benchmarks.layer_merging import interval
from benchmarks.measuring import Run, command_line
from mtl_gym.decisions.partitions import partitions, refines
from mtl_gym.environments import LAYER_MERGING, TASK_GROUPING
from mtl_gym.policies.protocol import Policy, Requirements

MERGED, GROUPED, INSTANCES = 4, 6, 20
"""Numbers of tasks that are merged, whose 60 structures of two stages are all trained, and grouped; and of instances."""
PROBLEMS: dict[str, dict[str, Any]] = {
    "relations": {"distribution": {"labels": (0.25, 0.25), "split": (1.0, 1.0)}},
    "digit_tasks": {"hidden_sizes": (16, 4), "distribution": {"labels": (0.5, 0.5), "split": (1.0, 1.0)}},
    "yeast": {"hidden_sizes": (16, 4), "lr": 0.003, "distribution": {"labels": (0.5, 0.5), "split": (1.0, 1.0)}},
    "tox21": {"hidden_sizes": (16, 4), "train_steps": 480, "distribution": {"labels": (0.25, 0.25), "split": (1.0, 1.0)}},
    "clusters_equal": {"hidden_sizes": (8, 4), "distribution": {"split": (1.0, 1.0)}},
}
"""Problems with the arguments that make them hard to share: narrow trunks and few labels."""
MERGERS = (
    *("single-task", "shared", "branch", "conflict", "mtsl", "mtsl:rule=paper", "mtsl:threshold=.6", "mtsl:threshold=.95"),
    *("random-merge", "ppo", "ppo:action=threshold"),
)
GROUPERS = ("single-task", "joint", "random-groups", "stg-mtl", "cosine-groups", "tag", "hoa", "exhaustive", "ppo")
NOTHING, ALL = {LAYER_MERGING: "single-task", TASK_GROUPING: "single-task"}, {LAYER_MERGING: "shared", TASK_GROUPING: "joint"}


PRICES: dict[str, Callable[[pd.DataFrame], pd.Series[float]]] = {
    LAYER_MERGING: lambda runs: 10 * runs["parameter_fraction"],
    TASK_GROUPING: lambda runs: 1.0 * runs["num_groups"],
}
"""What the environments' default prices take from a run, in points, but for a constant."""


class Fixed:
    """Merges the tasks of given partitions, one for each stage, from the second decision on.

    Args:
        stages: Numbers of partitions among :func:`mtl_gym.decisions.partitions.partitions`, each refining the one before.
    """

    requires = Requirements(observe=("action_mask",), action="merge", env=LAYER_MERGING)

    def __init__(self, stages: Sequence[int]) -> None:
        self._plan = (0, *stages)
        self.spec = {"fixed": [*stages]}  # by which finished results are found again

    def predict(
        self, observation: Mapping[str, Any], state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[npt.NDArray[np.int64], Any]:
        """The partition of the stage that is next."""
        rows = len(observation["action_mask"])
        steps = np.zeros(rows, dtype=np.int64) if state is None else np.where(episode_start, 0, state)
        return np.array([self._plan[min(step, len(self._plan) - 1)] for step in steps.tolist()]), steps + 1


def structures(num_tasks: int) -> dict[str, Policy]:
    """All structures of two stages."""
    listed = partitions(num_tasks)
    pairs = [(one, other) for one in range(len(listed)) for other in range(len(listed)) if refines(listed[other], listed[one])]
    return {f"{one}-{other}": Fixed((one, other)) for one, other in pairs}


def merging(problem: str, arguments: Mapping[str, Any], count: int, chosen: Run) -> dict[str, Any]:
    """Returns of all structures and policies, where layers are merged."""
    tried = structures(MERGED)
    if chosen.smoke:
        tried = dict(list(tried.items())[:3])
    given = {"problem": problem, "num_tasks": MERGED, "instances": count, "reward": "gain_change", "num_envs": count, **arguments}
    frame = mtl_gym.compare({**tried, **{name: name for name in MERGERS}}, LAYER_MERGING, out=chosen.kept, **given)
    return summary(frame, LAYER_MERGING, list(tried), MERGERS)


def grouping(problem: str, arguments: Mapping[str, Any], count: int, chosen: Run) -> dict[str, Any]:
    """Returns of all policies, where tasks are grouped; exhaustive search is the best."""
    given = {"problem": problem, "num_tasks": GROUPED, "instances": count, "reward": "gain_over_joint", **arguments}
    frame = mtl_gym.compare(",".join(GROUPERS), TASK_GROUPING, out=chosen.kept, **given)
    return summary(frame, TASK_GROUPING, ["exhaustive"], GROUPERS)


def summary(frame: pd.DataFrame, env: str, tried: Sequence[str], policies: Sequence[str]) -> dict[str, Any]:
    """What the best structure and each policy gain over the better of all and nothing, in points.

    ``return`` is on *reward*, ``test`` the same on *test*, prices included. Both the best structure and the better of all and
    nothing are chosen by the return, so that only the difference on *test* is free of the choice's luck.
    """
    runs = frame.drop_duplicates(["policy", "instance"])
    returns = 100 * runs.pivot(index="policy", columns="instance", values="return")
    worth = runs.assign(worth=runs["delta_m"] - PRICES[env](runs))
    scores = worth.pivot(index="policy", columns="instance", values="worth")
    best, best_score = _of_best(returns.loc[[*tried]], scores.loc[[*tried]])
    ends = [NOTHING[env], ALL[env]]
    reference, reference_score = _of_best(returns.loc[ends], scores.loc[ends])

    def gains(row: npt.NDArray[np.float64], score: npt.NDArray[np.float64]) -> dict[str, Any]:
        own = {"return": interval(row - reference), "test": interval(score - reference_score)}
        return {**own, "regret": interval(best - row)}

    return {
        "instances": returns.shape[1],
        "structures": len(tried),
        "best": gains(best, best_score),
        "policies": {name: gains(returns.loc[name].to_numpy(), scores.loc[name].to_numpy()) for name in policies},
    }


def _of_best(returns: pd.DataFrame, scores: pd.DataFrame) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The return on *reward* and the score on *test* of each instance's best row, which is chosen by the return."""
    places, columns = returns.to_numpy().argmax(0), np.arange(returns.shape[1])
    return returns.to_numpy()[places, columns], scores.to_numpy()[places, columns]


def main(words: Sequence[str] | None = None) -> None:
    """Runs the problems and adds them to the results."""
    chosen: Run = command_line(words)
    known, count = chosen.known(), chosen.size(INSTANCES, 2)
    for name in chosen.chosen(tuple(PROBLEMS), smoke=1):
        arguments = PROBLEMS[name]
        known[name] = {"merging": merging(name, arguments, count, chosen), "grouping": grouping(name, arguments, count, chosen)}
        chosen.write(known)
        print(name, json.dumps(known[name], indent=1), flush=True)


if __name__ == "__main__":
    main()

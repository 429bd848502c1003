"""What grouping tasks achieves: planted clusters that should be found, a hundred tasks in minutes, and regret against the best
grouping.

    python -m benchmarks.task_grouping             all (a quarter of an hour on two cores)
    python -m benchmarks.task_grouping planted     one of the studies: planted, digits, hundred, more, regret
    python -m benchmarks.task_grouping --smoke     on a few instances; writes nothing

*planted*: adjusted Rand index of STG-MTL and of affinities (gradients, look-ahead, layers) against the three clusters of a hundred
tasks, of different or the same difficulty. *digits*: whether STG-MTL isolates the random task, and gives a task and its complement
equal memberships; with 64 hidden units, which can memorise labels. *hundred*: seconds from the warm-up to the last training.
*more*: returns on 16 and on 100 tasks, where the best grouping is unknown. *regret*: of every baseline and the agent, where
precomputed group tables contain the best grouping, in points of the gain over joint training. Means with 95 % intervals; paired
differences. Writes ``benchmarks/results/task_grouping.json``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
import torch
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import adjusted_rand_score

from benchmarks.heldout import paired
from benchmarks.measuring import Run, command_line
from mtl_gym.baselines.partition_search import square_of
from mtl_gym.baselines.stg_mtl import STGMTL
from mtl_gym.environments import TASK_GROUPING
from mtl_gym.evaluation.comparison import run
from mtl_gym.evaluation.plans import plan
from mtl_gym.evaluation.rollout import make_env
from mtl_gym.policies.finding import find_policies
from mtl_gym.policies.grammar import make_policy
from mtl_gym.policies.protocol import Policy
from mtl_gym.problems import load_problem
from mtl_gym.problems.clusters import NUM_CLUSTERS, planted_clusters

PLANTED = ("clusters", "clusters_equal")
FINDERS = (*(f"{name}:groups={NUM_CLUSTERS}" for name in ("stg-mtl", "cosine-groups")), f"tag:budget={NUM_CLUSTERS}")
UNTOLD = ("stg-mtl", "cosine-groups")
"""Policies that also find the number of clusters."""
COMPLEMENTS = (("odd", "even"), ("loop", "not_loop"))
TABLES = ("digit_tasks", "yeast")
MORE = {
    "digit_tasks": ("joint", "stg-mtl", "cosine-groups", "random-groups", "tag", "ppo"),
    "clusters": ("joint", "stg-mtl", "stg-mtl:groups=3", "cosine-groups", "random-groups", "ppo"),
}
"""Problems with 16 and 100 tasks, and the policies that play them."""
POLICIES = (
    *("joint", "single-task", "random-groups", "stg-mtl", "stg-mtl:groups=2", "stg-mtl:groups=3", "stg-mtl:soft=true"),
    *("cosine-groups", "tag", "hoa", "exhaustive"),
)
AGENT = "ppo"
Labels = npt.NDArray[np.int64]


def main(words: Sequence[str] | None = None) -> None:
    """Runs the studies, prints their results and stores them; in smoke mode, studies with many tasks have to be named."""
    chosen: Run = command_line(words)
    known = chosen.known()
    for name in chosen.names or (("digits", "regret") if chosen.smoke else STUDIES):
        known[name] = STUDIES[name](chosen.smoke)
        print(name, json.dumps(known[name], indent=1), flush=True)
        chosen.write({own: known[own] for own in STUDIES if own in known})


def planted(short: bool) -> dict[str, Any]:
    """Adjusted Rand indices of the groups found among a hundred tasks from their warm-up."""
    ids, found = range(2 if short else 20), {}
    for problem in PLANTED:
        planted_groups = planted_clusters([task.name for task in load_problem(problem).tasks])
        own = {name: first_groups(make_policy(name), ids, problem=problem) for name in (*FINDERS, *UNTOLD)}
        own["layers"] = of_layers(ids, problem)
        found[problem] = {
            name: {
                "rand index": paired([adjusted_rand_score(planted_groups, row) for row in labels]),
                "groups": float(np.mean([len(set(row.tolist())) for row in labels])),
            }
            for name, labels in own.items()
        }
    return {"instances": len(ids), "tasks": len(planted_groups), "problems": found}


def reset(policy: Policy, ids: Sequence[int], **arguments: Any) -> dict[str, npt.NDArray[Any]]:
    """A policy's first observation of these instances; no group is trained."""
    envs = make_env(policy, TASK_GROUPING, len(ids), arguments)
    seen: dict[str, npt.NDArray[Any]] = envs.reset(options={"instance": np.asarray(ids)})[0]
    envs.close()
    return seen


def first_groups(policy: Any, ids: Sequence[int], **arguments: Any) -> Labels:
    """The groups (N, K) that a heuristic chooses at its first decision."""
    seen = reset(policy, ids, **arguments)
    memory = policy.initial_state(np.asarray(ids), seen["next_task"].shape[1])
    labels: Labels = policy.predict(seen, memory)[1]["labels"]
    return labels


def of_layers(ids: Sequence[int], problem: str) -> Labels:
    """Clusters (N, K) by average linkage of the layers' similarity, from single-task trainings."""
    made: Any = gymnasium.make_vec(
        TASK_GROUPING,
        num_envs=len(ids),
        vectorization_mode="vector_entry_point",
        problem=problem,
        observe=["layer_cka"],
        reward="none",
    )
    similar = made.reset(options={"instance": np.asarray(ids)})[0]["layer_cka"]
    made.close()
    count = load_problem(problem).num_tasks
    cluster = AgglomerativeClustering(NUM_CLUSTERS, metric="precomputed", linkage="average")
    return np.stack([cluster.fit_predict(1 - square_of(row.astype(float), count, 1.0)) for row in similar])


def digits(short: bool) -> dict[str, Any]:
    """Memberships of the random task and of complements."""
    ids = range(2 if short else 20)
    names = [task.name for task in load_problem("digit_tasks").tasks]
    place, found = {name: number for number, name in enumerate(names)}, {}
    seen = reset(STGMTL(), ids, problem="digit_tasks", hidden_sizes=[64])["map_distances"].astype(np.float64)
    for groups in (2, 3, 4, 5):
        rows = np.stack([STGMTL(groups).memberships(row, len(names), groups, id) for row, id in zip(seen, ids, strict=True)])
        labels = rows.argmax(2)
        alone = (labels == labels[:, place["random"], None]).sum(1) == 1
        found[str(groups)] = {
            "random is alone": float(alone.mean()),
            "membership of random in its group": paired(rows[:, place["random"]].max(1)),
            **{f"{one}, {other}": differing(rows[:, place[one]], rows[:, place[other]]) for one, other in COMPLEMENTS},
        }
    return {"instances": len(ids), "groups": found}


def differing(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> dict[str, float]:
    """How two tasks' memberships (N, groups) differ: how often the largest is the same, and the largest difference of all."""
    return {"same group": float((one.argmax(1) == other.argmax(1)).mean()), "difference": round(float(abs(one - other).max()), 4)}


def hundred(short: bool) -> dict[str, Any]:
    """Seconds of an episode of a hundred tasks; every policy plays a new instance."""
    found = {}
    for number, name in enumerate((f"stg-mtl:groups={NUM_CLUSTERS}", "stg-mtl:groups=10", "stg-mtl:groups=10:soft=true", *UNTOLD)):
        begun = time.perf_counter()
        policy, unknown = make_policy(name), 1_000 + number
        envs: Any = make_env(policy, TASK_GROUPING, 1, {"problem": PLANTED[0], "reward": "gain_over_joint"})
        seen, _ = envs.reset(options={"instance": [unknown]})
        memory = policy.initial_state(np.array([unknown]), load_problem(PLANTED[0]).num_tasks)  # type: ignore[attr-defined]
        while not envs.unwrapped.finished.all():
            actions, memory = policy.predict(seen, memory)
            seen, rewards, *_, infos = envs.step(actions)
        row = {"seconds": round(time.perf_counter() - begun, 1), "groups": int(infos["num_groups"][0])}
        found[name] = row | {"return": round(float(rewards[0]), 4)}
    return {"tasks": load_problem(PLANTED[0]).num_tasks, "threads": torch.get_num_threads(), "policies": found}


def regret(short: bool) -> dict[str, Any]:
    """Regret of every policy, and paired differences to the agent."""
    found = {}
    for problem in TABLES[: 1 if short else None]:
        trained = [AGENT] if has_agent() else []
        count = 2 if short else 50
        names = [*POLICIES, *trained]
        results = run(plan(names, TASK_GROUPING, problem=problem, num_tasks=6, instances=count, reward="gain_over_joint"))
        own = {name: [result for result in results if result.policy == name] for name in names}
        regrets = {name: 100 * np.array([result.outcome["regret"] for result in rows]) for name, rows in own.items()}
        found[problem] = {
            name: {
                "regret": paired(regrets[name]),
                "return": paired(100 * np.array([result.episode_return for result in rows])),
                "delta_m": paired([result.delta_m for result in rows]),
                "groups": float(np.mean([result.outcome["num_groups"] for result in rows])),
                "trainings": round(float(np.mean([result.cost["forward"] for result in rows])) / single_training(results), 1),
                **({"ppo minus it": paired(regrets[AGENT] - regrets[name])} if trained and name != AGENT else {}),
            }
            for name, rows in own.items()
        }
    return {"instances": count, "agent": identity() if has_agent() else None, "problems": found}


def more(short: bool) -> dict[str, Any]:
    """Returns on more tasks than the agent was trained on, and paired differences to the agent."""
    count, found = 3 if short else 20, {}
    for problem, own in MORE.items():
        results = run(plan(list(own), TASK_GROUPING, problem=problem, instances=count, reward="gain_over_joint"))
        returns = {name: 100 * np.array([row.episode_return for row in results if row.policy == name]) for name in own}
        groups = {name: np.mean([row.outcome["num_groups"] for row in results if row.policy == name]) for name in own}
        found[problem] = {
            name: {
                "return": paired(values),
                "groups": float(groups[name]),
                **({"ppo minus it": paired(returns[AGENT] - values)} if name != AGENT else {}),
            }
            for name, values in returns.items()
        }
    return {"instances": count, "agent": identity(), "problems": found}


def single_training(results: Sequence[Any]) -> float:
    """Forward passes of one training: the cost of ``joint``, which needs no probes."""
    return float(next(result.cost["forward"] for result in results if result.policy == "joint"))


def has_agent() -> bool:
    """Whether there is a pretrained agent that groups tasks."""
    try:
        return AGENT in find_policies() and make_policy(AGENT, TASK_GROUPING) is not None
    except ValueError:
        return False


def identity() -> str:
    """The agent's checksum."""
    return str(make_policy(AGENT, TASK_GROUPING).spec["agent"])  # type: ignore[attr-defined]


STUDIES: dict[str, Callable[[bool], dict[str, Any]]] = {
    "planted": planted,
    "digits": digits,
    "hundred": hundred,
    "more": more,
    "regret": regret,
}

if __name__ == "__main__":
    main()

"""What grouping tasks brings: planted clusters that should be found, a hundred tasks in minutes, and regret against the best.

    python benchmarks/task_grouping.py             all (a quarter of an hour on two cores)
    python benchmarks/task_grouping.py planted     one of the studies: planted, digits, hundred, more, regret
    python benchmarks/task_grouping.py --short     all, on a few instances; writes nothing

*planted*: adjusted Rand index of STG-MTL and of affinities (gradients, look-ahead, layers) against the three clusters of a hundred
tasks, which differ in difficulty or do not. *digits*: whether STG-MTL isolates the random task, and gives a task and its complement
equal memberships; with 64 hidden units, which can learn labels by heart. *hundred*: seconds from the warm-up to the last training.
*more*: returns on 16 and on 100 tasks, where nobody knows the best grouping. *regret*: of every baseline and the agent, where the
shipped group tables tell the best grouping; percent of what all together reach. Means with 95 % intervals; paired differences.
Writes ``benchmarks/results/task_grouping.json``.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import gymnasium
import numpy as np
import numpy.typing as npt
import torch
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import adjusted_rand_score

from benchmarks.heldout import paired
from mtl_gym.baselines.partition_search import square_of
from mtl_gym.baselines.stg_mtl import STGMTL
from mtl_gym.evaluation.comparison import plan, run
from mtl_gym.evaluation.rollout import make_env
from mtl_gym.policies import Policy, find_policies, make_policy
from mtl_gym.problems import TASK_GROUPING, load_problem
from mtl_gym.problems.clusters import NUM_CLUSTERS, planted_clusters

OUT = Path(__file__).parent / "results" / "task_grouping.json"
PLANTED = ("clusters", "clusters_equal")
FINDERS = (*(f"{name}:groups={NUM_CLUSTERS}" for name in ("stg-mtl", "cosine-groups")), f"tag:budget={NUM_CLUSTERS}")
UNTOLD = ("stg-mtl", "cosine-groups")
"""They find the number of clusters too."""
COMPLEMENTS = (("odd", "even"), ("loop", "not_loop"))
TABLES = ("digit_tasks", "yeast")
MORE = {
    "digit_tasks": ("joint", "stg-mtl", "cosine-groups", "random-groups", "tag", "ppo"),
    "clusters": ("joint", "stg-mtl", "stg-mtl:groups=3", "cosine-groups", "random-groups", "ppo"),
}
"""Problems with 16 and 100 tasks, and who plays them."""
POLICIES = (
    *("joint", "single-task", "random-groups", "stg-mtl", "stg-mtl:groups=2", "stg-mtl:groups=3", "stg-mtl:soft=true"),
    *("cosine-groups", "tag", "hoa", "exhaustive"),
)
AGENT = "ppo"
Labels = npt.NDArray[np.int64]


def main(arguments: Sequence[str]) -> None:
    """Runs the studies, prints what they find, and adds it to the results."""
    short = "--short" in arguments
    known = json.loads(OUT.read_text()) if OUT.is_file() else {}
    for name in [own for own in arguments if own != "--short"] or STUDIES:
        known[name] = STUDIES[name](short)
        print(name, json.dumps(known[name], indent=1), flush=True)
        if not short:
            OUT.write_text(json.dumps({own: known[own] for own in STUDIES if own in known}, indent=1) + "\n")


def planted(short: bool) -> dict[str, Any]:
    """Adjusted Rand indices of the groups that are found in a hundred tasks, from what their warm-up shows."""
    ids, found = range(2 if short else 20), {}
    for problem in PLANTED:
        truth = planted_clusters([task.name for task in load_problem(problem).tasks])
        own = {name: first_groups(make_policy(name), ids, problem=problem) for name in (*FINDERS, *UNTOLD)}
        own["layers"] = of_layers(ids, problem)
        found[problem] = {
            name: {
                "rand index": paired([adjusted_rand_score(truth, row) for row in labels]),
                "groups": float(np.mean([len(set(row.tolist())) for row in labels])),
            }
            for name, labels in own.items()
        }
    return {"instances": len(ids), "tasks": len(truth), "problems": found}


def reset(policy: Policy, ids: Sequence[int], **arguments: Any) -> dict[str, npt.NDArray[Any]]:
    """What a policy sees of these instances at first; no group is trained."""
    envs = make_env(policy, TASK_GROUPING, len(ids), arguments)
    seen: dict[str, npt.NDArray[Any]] = envs.reset(options={"instance": np.asarray(ids)})[0]
    envs.close()
    return seen


def first_groups(policy: Any, ids: Sequence[int], **arguments: Any) -> Labels:
    """The groups (N, K) that a heuristic decides for at its first decision."""
    seen = reset(policy, ids, **arguments)
    memory = policy.initial_state(np.asarray(ids), seen["next_task"].shape[1])
    labels: Labels = policy.predict(seen, memory)[1]["labels"]
    return labels


def of_layers(ids: Sequence[int], problem: str) -> Labels:
    """Clusters (N, K) of average linkage of the layers' similarity: a training of every task alone."""
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
            **{f"{one}, {other}": apart(rows[:, place[one]], rows[:, place[other]]) for one, other in COMPLEMENTS},
        }
    return {"instances": len(ids), "groups": found}


def apart(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> dict[str, float]:
    """How two tasks' memberships (N, groups) differ: how often the largest is the same, and the largest difference of all."""
    return {"same group": float((one.argmax(1) == other.argmax(1)).mean()), "difference": round(float(abs(one - other).max()), 4)}


def hundred(short: bool) -> dict[str, Any]:
    """Seconds of an episode of a hundred tasks; every policy on an instance that nobody has seen."""
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
    """Regret of every policy, and the agent's paired with it."""
    found = {}
    for problem in TABLES:
        trained = [AGENT] if has_agent() else []
        count = 5 if short else 50
        names = [*POLICIES, *trained]
        results = run(plan(names, TASK_GROUPING, problem=problem, num_tasks=6, instances=count, reward="gain_over_joint"))
        own = {name: [result for result in results if result.policy == name] for name in names}
        regrets = {name: 100 * np.array([result.grouping["regret"] for result in rows]) for name, rows in own.items()}
        found[problem] = {
            name: {
                "regret": paired(regrets[name]),
                "return": paired(100 * np.array([result.episode_return for result in rows])),
                "delta_m": paired([result.delta_m for result in rows]),
                "groups": float(np.mean([result.grouping["num_groups"] for result in rows])),
                "trainings": round(float(np.mean([result.cost["forward"] for result in rows])) / single_training(results), 1),
                **({"ppo minus it": paired(regrets[AGENT] - regrets[name])} if trained and name != AGENT else {}),
            }
            for name, rows in own.items()
        }
    return {"instances": count, "agent": identity() if has_agent() else None, "problems": found}


def more(short: bool) -> dict[str, Any]:
    """Returns on more tasks than the agent was trained on, and the agent's paired with them."""
    count, found = 3 if short else 20, {}
    for problem, own in MORE.items():
        results = run(plan(list(own), TASK_GROUPING, problem=problem, instances=count, reward="gain_over_joint"))
        returns = {name: 100 * np.array([row.episode_return for row in results if row.policy == name]) for name in own}
        groups = {name: np.mean([row.grouping["num_groups"] for row in results if row.policy == name]) for name in own}
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
    """Forward passes of one training: what all together cost, which need no look at anything."""
    return float(next(result.cost["forward"] for result in results if result.policy == "joint"))


def has_agent() -> bool:
    """Whether there is a pretrained agent that groups tasks."""
    try:
        return AGENT in find_policies() and make_policy(AGENT, TASK_GROUPING) is not None
    except ValueError:
        return False


def identity() -> str:
    """The agent's digest."""
    return str(make_policy(AGENT, TASK_GROUPING).spec["agent"])  # type: ignore[attr-defined]


STUDIES: dict[str, Callable[[bool], dict[str, Any]]] = {
    "planted": planted,
    "digits": digits,
    "hundred": hundred,
    "more": more,
    "regret": regret,
}

if __name__ == "__main__":
    main(sys.argv[1:])

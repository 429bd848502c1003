"""What gradient balancing costs beside the Gram matrix it reads, and beside torchjd; one run, one table.

    OMP_NUM_THREADS=1 python benchmarks/solver_speed.py

*policy*: ``predict`` on real Gram matrices (``digits``, four tasks, batch 64, N = 64 trainings that have begun to learn), as a
share of the time that the learner takes for those matrices (K backward passes and the products; without the forward pass, which is
the training's own). *torchjd*: one call for each matrix, over the policy's time for each. *K = 100*: the policy on 16 matrices of
100 tasks, whose gradients have 1,000 parameters, or 50, so that they depend on each other. Best of interleaved rounds. Writes
``benchmarks/results/solver_speed.json``.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch

from mtl_gym.baselines import BASELINES
from mtl_gym.baselines.gradient_heuristic import GradientHeuristic
from mtl_gym.envs.arguments import check_arguments
from mtl_gym.policies import environment_of, make_policy, policy_class
from mtl_gym.problems import LOSS_WEIGHTING
from mtl_gym.training.learner import Learner
from mtl_gym.training.signals import cosines, log_loss, log_norms

OUT = Path(__file__).parent / "results" / "solver_speed.json"
TASKS = ["digit", "parity", "loop", "ink"]
REPLICAS, BEGUN, ROUNDS = 64, 50, 15
MANY_TASKS, MANY_REPLICAS, MANY_PARAMETERS = 100, 16, (1000, 50)
METHODS = [name for name in BASELINES if environment_of(name) and issubclass(policy_class(name), GradientHeuristic)]
Observation = dict[str, np.ndarray]


def begun() -> Learner:
    """N trainings after a few steps with equal weights."""
    arguments = check_arguments(LOSS_WEIGHTING, problem="digits", tasks=TASKS)
    learner = Learner(arguments.problem, arguments.recipe, REPLICAS)
    learner.begin(range(REPLICAS), range(REPLICAS))
    for _ in range(BEGUN):
        learner.update(torch.ones(REPLICAS, len(TASKS)), torch.ones(REPLICAS, dtype=torch.bool))
    return learner


def gram_matrix(learner: Learner) -> Callable[[], Any]:
    """Computes the Gram matrices of the pending batch anew; the forward pass is not counted."""
    active = torch.ones(REPLICAS, dtype=torch.bool)

    def compute() -> Any:
        learner._gradients = None
        return learner.gramian(active)

    learner.forward()
    return compute


def observed(losses: torch.Tensor, gramian: torch.Tensor) -> Observation:
    """What a policy sees."""
    seen = {"log_loss": log_loss(losses), "cosines": cosines(gramian), "log_norms": log_norms(gramian)}
    return {name: values.float().numpy() for name, values in seen.items()}


def playing(name: str, obs: Observation) -> Callable[[], Any]:
    """A decision of a policy."""
    policy: Any = make_policy(name)
    rows, count = obs["log_loss"].shape
    memory = policy.initial_state(np.arange(rows), count)
    return lambda: policy.predict(obs, memory)


def oracles(gramian: torch.Tensor, count: int = 8) -> dict[str, Callable[[], Any]]:
    """The weights of torchjd for the first ``count`` matrices, in float64."""
    from torchjd.aggregation import CAGradWeighting, NashMTL

    own = gramian[:count].double()
    roots = torch.linalg.cholesky(own + 1e-10 * torch.eye(own.shape[1]) * own.diagonal(dim1=1, dim2=2).mean(1)[:, None, None])
    nash, conflict_averse = NashMTL(own.shape[1]), CAGradWeighting(c=0.4)
    return {
        "nash-mtl": lambda: [nash(root) for root in roots],
        "cagrad": lambda: [conflict_averse(one) for one in own],
    }


def milliseconds(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """The best time of each call, in interleaved rounds."""
    best = dict.fromkeys(calls, np.inf)
    for _ in range(rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            best[name] = min(best[name], 1000 * (time.perf_counter() - start))
    return best


def many_tasks(parameters: int) -> Observation:
    """Gram matrices of many tasks, whose gradients are independent normal vectors."""
    gradients = torch.from_numpy(np.random.default_rng(0).normal(size=(MANY_REPLICAS, MANY_TASKS, parameters))).float()
    return observed(torch.rand(MANY_REPLICAS, MANY_TASKS) + 0.5, gradients @ gradients.transpose(1, 2))


def main() -> None:
    """Measures, prints and writes."""
    warnings.simplefilter("ignore")  # cvxpy's
    torch.set_num_threads(1)
    learner = begun()
    gramian = gram_matrix(learner)
    obs = observed(learner.forward(), gramian())
    times = milliseconds({"Gram matrix": gramian, **{name: playing(name, obs) for name in METHODS}}, ROUNDS)
    torchjd = {name: own / 8 for name, own in milliseconds(oracles(gramian()), 2).items()}
    large = {}
    for parameters in MANY_PARAMETERS:
        many = many_tasks(parameters)
        large[f"K = 100, P = {parameters}, ms"] = milliseconds({name: playing(name, many) for name in METHODS}, 1)
    rows: dict[str, dict[str, float]] = {"Gram matrix": {"ms": round(times["Gram matrix"], 2)}}
    for name in METHODS:
        row = {"ms": times[name], "share, %": 100 * times[name] / times["Gram matrix"]}
        row |= {column: own[name] for column, own in large.items()}
        if name in torchjd:
            row |= {"torchjd, ms": torchjd[name], "torchjd, ratio": torchjd[name] / (times[name] / REPLICAS)}
        rows[name] = {key: round(value, 2) for key, value in row.items()}
        print(f"{name:12}", rows[name])
    print("Gram matrix ", rows["Gram matrix"])
    OUT.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""What gradient balancing costs, relative to the Gram matrix that it reads and to torchjd; one run, one table.

    OMP_NUM_THREADS=1 python -m benchmarks.solver_speed

*policy*: ``predict`` on real Gram matrices (``digits_scales``, four tasks, batch 64, N = 64 trainings that have begun to learn),
also as a fraction of the time that the trainer takes for those matrices (K backward passes and the products, without the forward
pass, which training needs anyway). *torchjd*: one call for each matrix, relative to the policy's time for each. *K = 100*: the
policy on 16 matrices of 100 tasks, whose gradients have 1,000 parameters, or 50, so that they are linearly dependent. Best of
interleaved rounds. Writes ``benchmarks/results/solver_speed.json``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.measuring import Run, command_line, first_memory, side_by_side, threads
from mtl_gym.baselines import BASELINES
from mtl_gym.baselines.gradient_heuristic import GradientHeuristic
from mtl_gym.environments import LOSS_WEIGHTING, specification
from mtl_gym.envs.arguments import check_arguments
from mtl_gym.policies.finding import environment_of, policy_class
from mtl_gym.policies.grammar import make_policy
from mtl_gym.training.formulas import cosines, log_loss, log_norms
from mtl_gym.training.trainer import Trainer

TASKS = ["digit", "parity", "loop", "ink"]
REPLICAS, BEGUN, ROUNDS = 64, 50, 15
MANY_TASKS, MANY_REPLICAS, MANY_PARAMETERS = 100, 16, (1000, 50)
METHODS = [name for name in BASELINES if environment_of(name) and issubclass(policy_class(name), GradientHeuristic)]
Observation = dict[str, np.ndarray]


def begun(replicas: int, steps: int) -> Trainer:
    """N trainings after a few steps with equal weights."""
    arguments = check_arguments(specification(LOSS_WEIGHTING), problem="digits_scales", tasks=TASKS)
    trainer = Trainer(arguments.problem, arguments.recipe, replicas)
    trainer.begin(range(replicas), range(replicas))
    for _ in range(steps):
        trainer.update(torch.ones(replicas, len(TASKS)), torch.ones(replicas, dtype=torch.bool))
    return trainer


def gram_matrix(trainer: Trainer) -> Callable[[], torch.Tensor]:
    """Recomputes the Gram matrices of the pending batch; the forward pass is not counted."""
    trainer.losses.forward()

    def compute() -> torch.Tensor:
        trainer.losses.pending.gradients = None
        shared = trainer.task_gradients()[0][:, :, : trainer.model.num_shared]
        return shared @ shared.transpose(1, 2)

    return compute


def observed(losses: torch.Tensor, gramian: torch.Tensor) -> Observation:
    """What a policy observes."""
    seen = {"log_loss": log_loss(losses), "cosines": cosines(gramian), "log_norms": log_norms(gramian)}
    return {name: values.float().numpy() for name, values in seen.items()}


def playing(name: str, obs: Observation) -> Callable[[], Any]:
    """A decision of a policy."""
    policy: Any = make_policy(name)
    rows, count = obs["log_loss"].shape
    memory = first_memory(policy, range(rows), count)
    return lambda: policy.predict(obs, memory)


def oracles(gramian: torch.Tensor, count: int = 8) -> dict[str, Callable[[], Any]]:
    """The weights of torchjd for the first ``count`` matrices, in float64."""
    from torchjd.aggregation import CAGradWeighting, NashMTL

    own = gramian[:count].double()
    roots = torch.linalg.cholesky(own + 1e-10 * torch.eye(own.shape[1]) * own.diagonal(dim1=1, dim2=2).mean(1)[:, None, None])
    nash, conflict_averse = NashMTL(own.shape[1]), CAGradWeighting(c=0.4)
    return {"nash-mtl": lambda: [nash(root) for root in roots], "cagrad": lambda: [conflict_averse(one) for one in own]}


def _silent(call: Callable[[], Any]) -> Callable[[], None]:
    def work() -> None:
        call()

    return work


def milliseconds(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """The best time of each call over interleaved rounds."""
    works = {name: _silent(call) for name, call in calls.items()}
    return {name: 1000 * float(own.min()) for name, own in side_by_side(works, rounds=rounds, seconds=0).items()}


def many_tasks(tasks: int, parameters: int) -> Observation:
    """Gram matrices of many tasks, whose gradients are independent normal vectors."""
    gradients = torch.from_numpy(np.random.default_rng(0).normal(size=(MANY_REPLICAS, tasks, parameters))).float()
    losses = torch.from_numpy(np.random.default_rng(1).uniform(0.5, 1.5, (MANY_REPLICAS, tasks))).float()
    return observed(losses, gradients @ gradients.transpose(1, 2))


def main(words: Sequence[str] | None = None) -> None:
    """Measures, prints and stores the results."""
    run: Run = command_line(words)
    with warnings.catch_warnings(), threads(1):
        warnings.simplefilter("ignore")  # cvxpy's
        rows = study(run)
    for name, row in rows.items():
        print(f"{name:12}", row)
    run.write(rows)


def study(run: Run) -> dict[str, dict[str, float]]:
    """A row for each method."""
    methods, several = run.chosen(METHODS, smoke=len(METHODS)), run.size(8)
    trainer = begun(run.size(REPLICAS, 4), run.size(BEGUN))
    gramian = gram_matrix(trainer)
    obs = observed(trainer.losses.forward(), gramian())
    times = milliseconds({"Gram matrix": gramian, **{name: playing(name, obs) for name in methods}}, run.size(ROUNDS))
    of_torchjd = milliseconds(oracles(gramian(), several), run.size(2))
    torchjd = {name: own / several for name, own in of_torchjd.items()}
    large = {}
    for parameters in MANY_PARAMETERS:
        many = many_tasks(run.size(MANY_TASKS, 10), parameters)
        large[f"K = {MANY_TASKS}, P = {parameters}, ms"] = milliseconds({name: playing(name, many) for name in methods}, 1)
    rows: dict[str, dict[str, float]] = {"Gram matrix": {"ms": round(times["Gram matrix"], 2)}}
    for name in methods:
        row = {"ms": times[name], "share, %": 100 * times[name] / times["Gram matrix"]}
        row |= {column: own[name] for column, own in large.items()}
        if name in torchjd:
            row |= {"torchjd, ms": torchjd[name], "torchjd, ratio": torchjd[name] / (times[name] / trainer.num_replicas)}
        rows[name] = {key: round(value, 2) for key, value in row.items()}
    return rows


if __name__ == "__main__":
    main()

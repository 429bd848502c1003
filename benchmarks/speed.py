"""Speed relative to a hand-written loop, as ratios measured side by side in one run: ``python -m benchmarks.speed``.

Every round measures all contestants one after another, in pieces of a tenth of a second, so that other load on the machine affects
all of them alike. A ratio is the median over rounds of the ratio of speeds; its quartiles and the ratio of the best rounds are kept
too. One thread. The ratios depend on the machine. Writes ``benchmarks/results/speed.json``.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import torch

from benchmarks.measuring import ROOT, Run, Work, command_line, first_memory, side_by_side, speeds, threads, vector_env
from mtl_gym.baselines import BASELINES
from mtl_gym.environments import LOSS_WEIGHTING, specification
from mtl_gym.envs.arguments import check_arguments
from mtl_gym.evaluation.handwritten import Shared, trainings as loop_by_hand
from mtl_gym.policies.finding import environment_of
from mtl_gym.policies.grammar import make_policy
from mtl_gym.training.trainer import Trainer

ROUNDS = 30
RATES = 16
CONSTANT = "constant"


def handwritten(problem: str, *, fused: bool, steps: int) -> Work:
    """The hand-written loop, one training."""
    checked = check_arguments(specification(LOSS_WEIGHTING), problem=problem)
    loop = loop_by_hand(Shared, checked.problem, replace(checked.recipe, train_steps=steps), fused=fused)

    def work() -> int:
        for _ in itertools.islice(loop, steps):
            pass
        return steps

    return work


def vector(problem: str, num_envs: int, **arguments: object) -> Work:
    """A decision of the vector environment, without any policy."""
    envs = vector_env(LOSS_WEIGHTING, num_envs, problem=problem, **arguments)
    envs.reset(seed=0)
    actions = np.zeros(envs.action_space.shape, dtype=np.float32)
    steps = envs.arguments.steps_per_action

    def work() -> int:
        envs.step(actions)
        return int(steps * num_envs)

    return work


def scalar(problem: str) -> Work:
    """A decision of the scalar environment."""
    env = gymnasium.make(LOSS_WEIGHTING, problem=problem)
    action = np.zeros(env.action_space.shape or (), dtype=np.float32)
    steps = env.unwrapped.vector.arguments.steps_per_action  # type: ignore[attr-defined]
    ended = True

    def work() -> int:
        nonlocal ended
        if ended:
            env.reset()
        _, _, terminated, truncated, _ = env.step(action)
        ended = terminated or truncated
        return int(steps)

    return work


def heuristic(name: str, num_envs: int) -> Work:
    """A decision of a heuristic, which is one training step, without a reward."""
    policy = make_policy(name)
    envs = vector_env(LOSS_WEIGHTING, num_envs, policy)
    observation, _ = envs.reset(seed=0)
    memory = first_memory(policy, range(num_envs), envs.arguments.recipe.num_tasks)

    def work() -> int:
        nonlocal observation, memory
        actions, memory = policy.predict(observation, memory)
        observation, _, _, _, _ = envs.step(actions)
        return num_envs

    return work


def trainings(num_replicas: int, rates: int, train_steps: int) -> Work:
    """A training step of replicas that have that many different learning rates."""
    arguments = check_arguments(specification(LOSS_WEIGHTING), train_steps=train_steps)
    trainer = Trainer(arguments.problem, arguments.recipe, num_replicas)
    trainer.begin(range(num_replicas), range(num_replicas))
    own = trainer.replicas.learning_rates
    own.mul_(1 - 0.01 * (torch.arange(num_replicas, device=own.device) % rates))
    weights, active = torch.ones(num_replicas, arguments.recipe.num_tasks), torch.ones(num_replicas, dtype=torch.bool)

    def work() -> int:
        trainer.update(weights, active)
        return num_replicas

    return work


def loss_balancing(smoke: bool) -> list[str]:
    """The heuristics that weight tasks."""
    names = [name for name in BASELINES if environment_of(name) == LOSS_WEIGHTING]
    return [f"{name}:w=1,1,1,1,1" if name == CONSTANT else name for name in names[: 3 if smoke else None]]


def dense_speed(run: Run) -> dict[str, object]:
    """The vector and the scalar environment."""
    steps = run.size(150, 5)
    works = {
        "hand-written": handwritten("digits", fused=False, steps=steps),
        "hand-written, fused": handwritten("digits", fused=True, steps=steps),
        "vector, N = 16": vector("digits", 16),
        "vector, N = 64": vector("digits", 64),
        "scalar": scalar("digits"),
    }
    times = side_by_side(works, rounds=run.size(ROUNDS), seconds=run.size(100, 0) / 1000)
    return {name: speeds(times, name) for name in ("hand-written", "hand-written, fused")}


def heuristic_speed(run: Run) -> dict[str, object]:
    """Every heuristic that weights tasks."""
    works = {"hand-written": handwritten("digits", fused=False, steps=run.size(150, 5))}
    works |= {name: heuristic(name, run.size(16, 2)) for name in loss_balancing(run.smoke)}
    return {**speeds(side_by_side(works, rounds=run.size(ROUNDS // 2), seconds=run.size(100, 0) / 1000), "hand-written")}


def rate_speed(run: Run) -> dict[str, object]:
    """Replicas with different learning rates; each rate is one optimiser call."""
    steps = run.size(20_000, 100)
    works = {"one rate": trainings(RATES, 1, steps), f"{RATES} rates": trainings(RATES, RATES, steps)}
    return {**speeds(side_by_side(works, rounds=run.size(ROUNDS), seconds=run.size(100, 0) / 1000), "one rate")}


def convolutional_speed(run: Run) -> dict[str, object]:
    """Problems with convolutions."""
    result: dict[str, object] = {}
    for problem in ("multimnist", "stereo"):
        base, count = f"hand-written, {problem}", run.size(16, 1)
        small = {"train_steps": 4, "steps_per_action": 1} if run.smoke else {}
        works = {
            base: handwritten(problem, fused=False, steps=run.size(40)),
            f"vector, N = {count}, {problem}": vector(problem, count, **small),
        }
        result |= speeds(side_by_side(works, rounds=run.size(3), seconds=0), base)
    return result


def memory(run: Run) -> dict[str, float]:
    """Peak memory (MiB) of a process with N replicas of ``digits`` that plays three decisions."""
    counts = (1,) if run.smoke else (1, 256, 512, 1024)
    return {f"N = {count}": float(_child("-m", "benchmarks.speed", f"memory:{count}")) for count in counts}


def import_time(run: Run) -> dict[str, float]:
    """Seconds of ``import mtl_gym`` after ``import gymnasium``; the median of 9 new processes."""
    code = "import gymnasium, time; start = time.perf_counter(); import mtl_gym; print(time.perf_counter() - start)"
    times = [float(_child("-c", code)) for _ in range(run.size(9))]
    return {"seconds beyond gymnasium": round(statistics.median(times), 4)}


def _child(*words: str) -> str:
    """The last word printed by a new Python process, on one thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    answer = subprocess.run([sys.executable, *words], capture_output=True, check=True, text=True, cwd=ROOT, env=environment)
    return answer.stdout.split()[-1]


def _memory_of(count: int) -> None:
    work = vector("digits", count)
    for _ in range(3):
        work()
    # Not getrusage: a process inherits its maximum from its parent.
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(round(int(peak.split()[1]) / 1024))


STUDIES: dict[str, tuple[str, Callable[[Run], object]]] = {
    "dense": ("digits: training steps per second, 10 steps per decision, hold-outs of 128 for reward and meta", dense_speed),
    "heuristics": ("digits: heuristics at every step, reward none, N = 16, against the hand-written loop", heuristic_speed),
    "convolutions": ("convolutional problems, against the hand-written loop", convolutional_speed),
    "memory": ("digits: peak memory in MiB", memory),
    "import": ("import mtl_gym", import_time),
    "rates": ("digits: training steps per second of 16 trainings with 16 different learning rates, against one", rate_speed),
}


def main(words: Sequence[str] | None = None) -> None:
    """Measures, prints and stores the results."""
    run: Run = command_line(words)
    if run.names and run.names[0].startswith("memory:"):
        _memory_of(int(run.names[0].removeprefix("memory:")))
        return
    results = run.known()
    with threads(1):
        for name in run.chosen([*STUDIES], smoke=len(STUDIES)):
            title, study = STUDIES[name]
            results[title] = study(run)
    results = {title: results[title] for title, _ in STUDIES.values() if title in results}
    run.write(results)
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()

"""Speed against a hand-written loop, as ratios measured side by side in one run: ``python benchmarks/speed.py``.

Every round measures all contestants one after another, in pieces of a tenth of a second, so that whatever else the machine does
meets all of them. A ratio is that of all steps over all seconds of one contestant to those of another, beside the ratio of their
best rounds and the quartiles of the rounds' ratios. One thread. Writes ``benchmarks/results/speed.json``.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ["OMP_NUM_THREADS"] = "1"

import gymnasium
import numpy as np
import torch

from benchmarks.handwritten import train
from mtl_gym.baselines import BASELINES
from mtl_gym.policies import make_policy
from mtl_gym.problems import load_problem

ENV = "mtl_gym/LossWeighting-v0"
OUT = Path(__file__).parent / "results" / "speed.json"
ROUNDS = 30


def handwritten(problem: str, *, fused: bool, steps: int) -> Callable[[], int]:
    data = load_problem(problem)

    def work() -> int:
        train(data, range(1), steps, fused=fused)
        return steps

    return work


def vector(problem: str, num_envs: int, *, decisions: int, **arguments: object) -> Callable[[], int]:
    envs = gymnasium.make_vec(ENV, num_envs=num_envs, vectorization_mode="vector_entry_point", problem=problem, **arguments)
    envs.reset(seed=0)
    actions = np.zeros(envs.action_space.shape, dtype=np.float32)
    steps = envs.unwrapped.arguments.steps_per_action

    def work() -> int:
        for _ in range(decisions):
            envs.step(actions)
        return decisions * steps * num_envs

    return work


def scalar(problem: str, *, decisions: int) -> Callable[[], int]:
    env = gymnasium.make(ENV, problem=problem)
    action = np.zeros(env.action_space.shape, dtype=np.float32)

    ended = True

    def work() -> int:
        nonlocal ended
        for _ in range(decisions):
            if ended:
                env.reset()
            _, _, terminated, truncated, _ = env.step(action)
            ended = terminated or truncated
        return decisions * env.unwrapped.vector.arguments.steps_per_action

    return work


def heuristic(name: str, num_envs: int, *, decisions: int) -> Callable[[], int]:
    policy = make_policy(name)
    required = policy.requires.arguments()  # type: ignore[attr-defined]
    envs = gymnasium.make_vec(ENV, num_envs=num_envs, vectorization_mode="vector_entry_point", reward="none", **required)
    observation, _ = envs.reset(seed=0)
    memory = None

    def work() -> int:
        nonlocal observation, memory
        for _ in range(decisions):
            actions, memory = policy.predict(observation, memory)
            observation, _, _, _, _ = envs.step(actions)
        return decisions * num_envs

    return work


def measure(contestants: dict[str, Callable[[], int]], rounds: int = ROUNDS) -> dict[str, np.ndarray]:
    """Steps and seconds (rounds, 2) of each contestant, after a round that does not count."""
    speeds: dict[str, list[tuple[int, float]]] = {name: [] for name in contestants}
    for _ in range(rounds + 1):
        for name, work in contestants.items():
            start = time.perf_counter()
            steps = work()
            speeds[name].append((steps, time.perf_counter() - start))
    return {name: np.array(own[1:]) for name, own in speeds.items()}


def ratios(speeds: dict[str, np.ndarray], base: str) -> dict[str, dict[str, float]]:
    """Each contestant's speed over the base's, in all rounds together, and the quartiles of single rounds."""
    result = {}
    for name, own in speeds.items():
        if name != base:
            steps, seconds = own.sum(0)
            base_steps, base_seconds = speeds[base].sum(0)
            rounds = (own[:, 0] / own[:, 1]) / (speeds[base][:, 0] / speeds[base][:, 1])
            low, high = np.quantile(rounds, [0.25, 0.75])
            best = (own[:, 0] / own[:, 1]).max() / (speeds[base][:, 0] / speeds[base][:, 1]).max()
            ratio = steps / seconds / (base_steps / base_seconds)
            row = {"ratio": ratio, "best of each": best, "lower quartile": low, "upper quartile": high}
            result[name] = {key: round(float(value), 2) for key, value in row.items()}
    return result


def dense_speed() -> dict[str, object]:
    speeds = measure(
        {
            "hand-written": handwritten("digits", fused=False, steps=150),
            "hand-written, fused": handwritten("digits", fused=True, steps=150),
            "vector, N = 16": vector("digits", 16, decisions=5),
            "vector, N = 64": vector("digits", 64, decisions=2),
            "scalar": scalar("digits", decisions=15),
        }
    )
    return {name: ratios(speeds, name) for name in ("hand-written", "hand-written, fused")}


def heuristic_speed() -> dict[str, object]:
    names = [f"{name}:w=1,1,1,1,1,1" if name == "constant" else name for name in BASELINES]
    contestants = {"hand-written": handwritten("digits", fused=False, steps=150)}
    contestants |= {name: heuristic(name, 16, decisions=30) for name in names}
    return ratios(measure(contestants, rounds=15), "hand-written")


def convolutional_speed() -> dict[str, object]:
    result = {}
    for problem in ("multimnist", "stereo"):
        base = f"hand-written, {problem}"
        contestants = {
            base: handwritten(problem, fused=False, steps=40),
            f"vector, N = 16, {problem}": vector(problem, 16, decisions=1),
        }
        result |= ratios(measure(contestants, rounds=3), base)
    return result


def memory() -> dict[str, float]:
    """Peak memory (MiB) of a process with N replicas of ``digits`` that plays an episode of 30 steps."""
    return {f"N = {count}": float(_child(f"memory:{count}")) for count in (1, 256, 512, 1024)}


def import_time() -> dict[str, float]:
    """Seconds of ``import mtl_gym`` beyond ``import gymnasium``, the median of 9 new processes each."""
    code = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"
    times = {"gymnasium": [], "gymnasium, mtl_gym": []}  # type: dict[str, list[float]]
    for _ in range(9):
        for modules, own in times.items():
            own.append(
                float(
                    subprocess.run([sys.executable, "-c", code.format(modules)], capture_output=True, check=True, text=True).stdout
                )
            )
    medians = {modules: statistics.median(own) for modules, own in times.items()}
    return {"seconds beyond gymnasium": round(medians["gymnasium, mtl_gym"] - medians["gymnasium"], 3)}


def _child(job: str) -> str:
    return subprocess.run([sys.executable, __file__, job], capture_output=True, check=True, text=True).stdout.split()[-1]


def _memory_of(count: int) -> None:
    vector("digits", count, decisions=3)()
    # Not getrusage, whose maximum a process inherits from its parent.
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(round(int(peak.split()[1]) / 1024))


STUDIES: dict[str, Callable[[], object]] = {
    "digits: training steps per second, 10 steps per decision, hold-outs of 128 for reward and meta": dense_speed,
    "digits: heuristics at every step, reward none, N = 16, against the hand-written loop": heuristic_speed,
    "convolutional problems, against the hand-written loop": convolutional_speed,
    "digits: peak memory in MiB": memory,
    "import mtl_gym": import_time,
}


def main() -> None:
    torch.set_num_threads(1)
    results = {name: study() for name, study in STUDIES.items()}
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        _memory_of(int(sys.argv[1].removeprefix("memory:")))
    else:
        main()

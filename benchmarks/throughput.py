"""What the adapter, SB3's rollouts and the callbacks cost: the throughput of training beside that of its parts.

The parts: the bare vector environment under random actions, and SB3's own update, each over the same number of decisions.
Training everything together should reach 80 % of that; the periodic evaluations are not in it. Writes
``benchmarks/results/throughput.json``.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm

from mtl_gym.agents.monitor import Monitor
from mtl_gym.agents.training import TRAINED_ON, Settings, check_settings, make_envs, make_model
from mtl_gym.problems import LOSS_WEIGHTING

OUT = Path(__file__).parent / "results" / "throughput.json"
ROUNDS, ROLLOUTS = 5, 3


def settings(rollouts_per_instance: int) -> Settings:
    arguments = {**TRAINED_ON[LOSS_WEIGHTING], "problem": "digits", "num_tasks": 4}
    common = {"algorithm": "ppo", "options": {}, "time_steps": 10**9, "seed": 0, "num_envs": 64}
    watched = {"rollouts_per_instance": rollouts_per_instance, "evaluations": 1, "instances": 4, "references": []}
    return check_settings(Settings(env=LOSS_WEIGHTING, arguments=arguments, **common, **watched))  # type: ignore[arg-type]


def seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def bare(chosen: Settings, decisions: int) -> Callable[[], None]:
    envs = make_envs(chosen)[0].unwrapped.envs
    envs.reset(seed=0)
    rng = np.random.default_rng(0)

    def work() -> None:
        for _ in range(decisions):
            envs.step(rng.uniform(-0.3, 0.3, envs.action_space.shape))

    return work


def trained(model: BaseAlgorithm, monitor: Monitor, decisions: int) -> Callable[[], None]:
    return lambda: model.learn(decisions * model.n_envs, callback=monitor, reset_num_timesteps=False)


def main() -> None:
    """Measures the parts and the whole in interleaved rounds."""
    chosen = settings(rollouts_per_instance=8)
    model = make_model(chosen, 0)
    decisions = ROLLOUTS * model.n_steps
    with tempfile.TemporaryDirectory() as folder:
        monitor = Monitor(chosen, Path(folder), [], None)
        whole, alone = trained(model, monitor, decisions), bare(chosen, decisions)
        whole(), alone()  # which also evaluates once, before the rounds
        rounds, rates = [], []
        for _ in range(ROUNDS):
            parts = seconds(alone)
            update = ROLLOUTS * seconds(model.train)
            together = seconds(whole)
            rounds.append((parts + update) / together)
            rates.append(decisions * 64 / together)
    result = {
        "share of the parts' throughput": round(statistics.median(rounds), 3),
        "rounds": [round(share, 3) for share in rounds],
        "decisions a round": decisions * 64,
        "decisions a second": round(statistics.median(rates), 1),
        "minutes for 76,800 decisions": round(76_800 / statistics.median(rates) / 60, 1),
    }
    OUT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()

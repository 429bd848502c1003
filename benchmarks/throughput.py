"""What the adapter, SB3's rollouts and the callbacks cost: the throughput of agent training relative to that of its parts.

The parts are the bare vector environment under random actions, and SB3's own update, each over the same number of decisions. The
whole should reach 80 % of their combined throughput; periodic evaluations are excluded. Writes
``benchmarks/results/throughput.json``.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm

from benchmarks.measuring import Run, command_line
from mtl_gym.agents.defaults import defaults_of
from mtl_gym.agents.learning import make_model
from mtl_gym.agents.monitor import Monitor
from mtl_gym.agents.rows import make_envs
from mtl_gym.agents.settings import Settings, check_settings
from mtl_gym.environments import LOSS_WEIGHTING

ROUNDS, ROLLOUTS, NUM_ENVS = 5, 3, 64


def settings(run: Run) -> Settings:
    short = {"train_steps": 40} if run.smoke else {}
    arguments = {**defaults_of(LOSS_WEIGHTING).arguments, "problem": "digits", "num_tasks": 4, **short}
    common = {"algorithm": "ppo", "options": {}, "time_steps": 10**9, "seed": 0, "num_envs": run.size(NUM_ENVS, 8)}
    watched = {"rollouts_per_instance": run.size(8, 4), "evaluations": 1, "instances": run.size(4), "references": []}
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


def main(words: Sequence[str] | None = None) -> None:
    """Measures the parts and the whole in interleaved rounds."""
    run: Run = command_line(words)
    chosen = settings(run)
    model = make_model(chosen, 0)
    rollouts = run.size(ROLLOUTS)
    decisions = rollouts * model.n_steps
    with tempfile.TemporaryDirectory() as folder:
        monitor = Monitor(chosen, Path(folder), [], lambda steps, known: None)
        whole, alone = trained(model, monitor, decisions), bare(chosen, decisions)
        whole(), alone()  # includes one evaluation, before the rounds
        rounds, rates = [], []
        for _ in range(run.size(ROUNDS)):
            parts = seconds(alone)
            update = rollouts * seconds(model.train)
            total = seconds(whole)
            rounds.append((parts + update) / total)
            rates.append(decisions * chosen.num_envs / total)
    result = {
        "share of the parts' throughput": round(statistics.median(rounds), 3),
        "rounds": [round(fraction, 3) for fraction in rounds],
        "decisions a round": decisions * chosen.num_envs,
        "decisions a second": round(statistics.median(rates), 1),
        "minutes for 76,800 decisions": round(76_800 / statistics.median(rates) / 60, 1),
    }
    run.write(result)
    print(json.dumps(result))


if __name__ == "__main__":
    main()

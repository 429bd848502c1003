"""Searches hyper-parameters of the algorithms with Optuna, on ``digits_scales``, in short trainings; needs the extra "tuning".

    python -m benchmarks.tuning ppo --trials 12

Every trial trains for 10 rounds of 64 episodes and is scored by the mean delta_m on the *reward* split of 32 held-out instances.
The first trial uses the algorithm's defaults. Writes ``benchmarks/results/tuning.json``, algorithm by algorithm.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna

from benchmarks.measuring import Run, command_line
from benchmarks.pretrain import TASKS
from mtl_gym import agents

TIME_STEPS = 9_600


def rollouts(trial: optuna.Trial) -> dict[str, Any]:
    return {
        "learning_rate": trial.suggest_float("learning_rate", 3e-4, 1e-2, log=True),
        "n_epochs": trial.suggest_categorical("n_epochs", [3, 5, 10, 20]),
        "batch_size": trial.suggest_categorical("batch_size", [120, 240, 480]),
        "gae_lambda": trial.suggest_categorical("gae_lambda", [0.8, 0.9, 0.95, 1.0]),
        "policy_kwargs": {"log_std_init": trial.suggest_float("log_std_init", -2.5, -0.5)},
    }


def entropies(trial: optuna.Trial) -> dict[str, Any]:
    return {**replays(trial), "ent_coef": trial.suggest_categorical("ent_coef", ["auto_0.1", "auto_0.01", 0.001])}


def noises(trial: optuna.Trial) -> dict[str, Any]:
    return {**replays(trial), "noise": trial.suggest_float("noise", 0.03, 0.5, log=True)}


def replays(trial: optuna.Trial) -> dict[str, Any]:
    return {
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 3e-3, log=True),
        "gradient_steps": trial.suggest_categorical("gradient_steps", [4, 16, 32]),
        "gamma": trial.suggest_categorical("gamma", [0.8, 0.9, 0.99]),
    }


SPACES: dict[str, Callable[[optuna.Trial], dict[str, Any]]] = {
    "ppo": rollouts,
    "recurrent-ppo": rollouts,
    "sac": entropies,
    "tqc": entropies,
    "td3": noises,
}


def command(parser: argparse.ArgumentParser) -> None:
    """Adds the options beyond those that all benchmarks have."""
    parser.add_argument("--trials", type=int, default=12, help="trials for each algorithm (default: 12)")


def main(words: Sequence[str] | None = None) -> None:
    """Runs the search for each algorithm."""
    run: Run
    run, given = command_line(words, command)
    for name in run.chosen([*SPACES]):
        known = run.known() | {name: search(name, 1 if run.smoke else given.trials, run)}
        run.write(known)


def search(name: str, trials: int, run: Run) -> list[dict[str, Any]]:
    """The trials of one algorithm, the best first."""
    short: dict[str, Any] = {"num_envs": 8, "train_steps": 40, "instances": 1} if run.smoke else {}
    rows: list[dict[str, Any]] = []

    def objective(trial: optuna.Trial) -> float:
        options = SPACES[name](trial) if trial.number else {}
        folder, begun = tempfile.mkdtemp(), time.process_time()
        agents.train(
            "digits_scales",
            tasks=TASKS,
            num_tasks=4,
            algorithm=name,
            options=options,
            out=folder,
            time_steps=run.size(TIME_STEPS, 16),
            evaluations=1,
            references=[],
            **short,
        )
        seconds = time.process_time() - begun
        scores = agents.load(Path(folder) / "last.safetensors").about["scores"]
        begun_at, gain = scores[0]["reward"], scores[-1]["reward"]
        shutil.rmtree(folder)
        row = {"options": options or "defaults", "reward": round(gain, 2), "untrained": round(begun_at, 2)}
        rows.append({**row, "cpu seconds": round(seconds)})
        print(name, rows[-1], flush=True)
        return float(gain)

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=max(3, trials // 2))
    )
    study.optimize(objective, n_trials=trials)
    return sorted(rows, key=lambda row: -float(row["reward"]))


if __name__ == "__main__":
    main()

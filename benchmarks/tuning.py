"""Searches hyper-parameters of the algorithms with Optuna, on ``digits``, in short trainings; needs the extra "tuning".

    python benchmarks/tuning.py ppo 12

Every trial trains for 10 rounds of 64 episodes and is scored by the mean delta_m on the *reward* split of 32 held-out instances.
The first trial is the row's defaults. Writes ``benchmarks/results/tuning.json``, algorithm by algorithm.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import optuna

from benchmarks.pretrain import TASKS
from mtl_gym import agents

OUT = Path(__file__).parent / "results" / "tuning.json"
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


def main(name: str, trials: int) -> None:
    """Searches for one algorithm."""
    rows: list[dict[str, Any]] = []

    def objective(trial: optuna.Trial) -> float:
        options = SPACES[name](trial) if trial.number else {}
        folder, begun = tempfile.mkdtemp(), time.process_time()
        agents.train(
            tasks=TASKS,
            num_tasks=4,
            algorithm=name,
            options=options,
            out=folder,
            time_steps=TIME_STEPS,
            evaluations=1,
            references=[],
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
    known = json.loads(OUT.read_text()) if OUT.is_file() else {}
    known[name] = sorted(rows, key=lambda row: -row["reward"])
    OUT.write_text(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

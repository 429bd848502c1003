"""Trains the agents of ``agents/pretrained``, one for each environment.

    python benchmarks/pretrain.py ppo           weights of tasks: ten minutes on two cores; then ``benchmarks/heldout.py``
    python benchmarks/pretrain.py ppo_merging   merging of layers: half an hour; then ``benchmarks/layer_merging.py``
    python benchmarks/pretrain.py ppo_samples   weights of samples: half an hour; then ``benchmarks/sample_weighting.py``

``ppo`` never sees the task ``centre``: held-out suites have task subsets that training had not. ``ppo_samples`` sees no main task
but ``digit``, no problem but digits and no optimiser but Adam.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

import agents
from agents.pretrained import FOLDER
from mtl_gym.problems import LAYER_MERGING, SAMPLE_WEIGHTING

RESULTS = Path(__file__).parent / "results"
TASKS = ["digit", "parity", "loop", "ink", "reconstruction"]
TRAININGS: dict[str, dict[str, Any]] = {
    "ppo": {"tasks": TASKS, "num_tasks": 4},
    "ppo_samples": {
        "env": SAMPLE_WEIGHTING,
        "main": "digit",
        "tasks": ["digit", "parity", "loop", "ink"],
        "num_tasks": 3,
        "lr": 2e-3,
        "horizon": 1200,
        "num_envs": 32,
        "siblings": 8,
        "time_steps": 73_728,
        "evaluations": 4,
        "instances": 16,
        "references": [],
        "options": {"learning_rate": 5e-3, "batch_size": 512, "n_epochs": 8, "gamma": 0.97},
    },
    "ppo_merging": {
        "env": LAYER_MERGING,
        "num_tasks": 4,
        "time_steps": 57_600,
        "evaluations": 6,
        "instances": 32,
        "references": [],
    },
}
"""Arguments of :func:`agents.train`, all on digits, by the name of the agent's file."""


def main(name: str, kept: str | None = None) -> None:
    """Trains, and puts the best agent in its place; the training's folder is kept if one is named."""
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(kept or folder)
        agent = agents.train("digits", out=out, **TRAININGS[name])
        seconds = time.perf_counter() - begun
        last = agents.load(out / "last.safetensors")
        shutil.copy(out / "best.safetensors", FOLDER / f"{name}.safetensors")
    training, arguments = last.about["training"], agent.about["environment"]["arguments"]
    result = {
        "seconds": round(seconds),
        "threads": torch.get_num_threads(),
        "seed": training["seed"],
        "time_steps": training["time_steps"],
        "episodes": training["time_steps"] // (arguments.get("horizon", 300) // arguments["steps_per_action"]),
        "evaluations": len(last.about["scores"]),
        "chosen after": agent.about["training"]["time_steps"],
        "scores": last.about["scores"],
    }
    (RESULTS / ("pretrain.json" if name == "ppo" else f"pretrain-{name}.json")).write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main(*(sys.argv[1:] or ["ppo"]))

"""Trains the agents of ``agents/pretrained``, one for each environment.

    python benchmarks/pretrain.py ppo             weights of tasks: ten minutes on two cores; then ``benchmarks/heldout.py``
    python benchmarks/pretrain.py ppo_merging     merging of layers: half an hour; then ``benchmarks/layer_merging.py``
    python benchmarks/pretrain.py ppo_threshold   the same by a threshold of similarity: a quarter of an hour
    python benchmarks/pretrain.py ppo_samples     weights of samples: half an hour; then ``benchmarks/sample_weighting.py``
    python benchmarks/pretrain.py ppo_groups      groups of tasks: minutes, after the groups of 500 instances have been trained once
                                                  (a quarter of an hour); then ``benchmarks/task_grouping.py``

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

from mtl_gym import agents
from mtl_gym.agents.monitor import HELD_OUT
from mtl_gym.agents.pretrained import FOLDER
from mtl_gym.evaluation.groupings import make_table
from mtl_gym.problems import LAYER_MERGING, SAMPLE_WEIGHTING, TASK_GROUPING
from mtl_gym.problems.instances import TRAINING_IDS

RESULTS = Path(__file__).parent / "results"
TASKS = ["digit", "parity", "loop", "ink", "reconstruction"]
TRAININGS: dict[str, dict[str, Any]] = {
    "ppo": {"tasks": TASKS, "num_tasks": 4},
    "ppo_samples": {
        "env": SAMPLE_WEIGHTING,
        "main_task": "digit",
        "tasks": ["digit", "parity", "loop", "ink"],
        "num_tasks": 3,
        "lr": 2e-3,
        "train_steps": 1200,
        "num_envs": 32,
        "rollouts_per_instance": 8,
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
    "ppo_threshold": {
        "env": LAYER_MERGING,
        "algorithm": "ppo",
        "action": "threshold",
        "num_tasks": 4,
        "steps_per_action": 60,  # of fifteen decisions under noise, one would always merge
        "time_steps": 9_600,
        "evaluations": 6,
        "instances": 32,
        "references": [],
        "options": {"policy_kwargs": {"log_std_init": 0.0}, "learning_rate": 3e-3},  # thresholds near 1 are far from the first ones
    },
    "ppo_groups": {
        "problem": "digit_tasks",
        "env": TASK_GROUPING,
        "num_tasks": 6,
        "time_steps": 300_000,
        "evaluations": 10,
        "instances": 100,
        "references": [],
    },
}
"""Arguments of :func:`mtl_gym.agents.train`, all on digits, by the name of the agent's file."""
LOOKED_UP = {"ppo_groups": 400}
"""Training instances all of whose groups are trained beforehand, so that an episode is a look-up; the held-out ones are too."""
TABLES = Path(__file__).parents[1] / "runs" / "groupings"


def main(name: str, kept: str | None = None) -> None:
    """Trains, and puts the best agent in its place; the training's folder is kept if one is named."""
    arguments = TRAININGS[name]
    if name in LOOKED_UP:
        arguments = arguments | {"group_table": str(table_of(name))}
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(kept or folder)
        agent = agents.train(out=out, **{"problem": "digits"} | arguments)
        seconds = time.perf_counter() - begun
        last = agents.load(out / "last.safetensors")
        shutil.copy(out / "best.safetensors", FOLDER / f"{name}.safetensors")
    training, arguments = last.about["training"], agent.about["environment"]["arguments"]
    result = {
        "seconds": round(seconds),
        "threads": torch.get_num_threads(),
        "seed": training["seed"],
        "time_steps": training["time_steps"],
        "episodes": training["time_steps"] // decisions(arguments),
        "evaluations": len(last.about["scores"]),
        "chosen after": agent.about["training"]["time_steps"],
        "scores": last.about["scores"],
    }
    (RESULTS / ("pretrain.json" if name == "ppo" else f"pretrain-{name}.json")).write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


def decisions(arguments: dict[str, Any]) -> int:
    """Of an episode."""
    steps = arguments.get("steps_per_action")
    return int(arguments.get("train_steps", 300) // steps if steps else arguments["num_tasks"])


def table_of(name: str) -> Path:
    """The group table that a training looks instances up in, made or completed."""
    own = TRAININGS[name]
    ids = [*range(TRAINING_IDS[0], TRAINING_IDS[0] + LOOKED_UP[name]), *range(HELD_OUT, HELD_OUT + own["instances"])]
    path = TABLES / f"{name}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        print(f"groups of {done} of {len(ids)} instances", end="\r", file=sys.stderr, flush=True)

    make_table(path, ids, problem=own["problem"], num_tasks=own["num_tasks"], advance=advance)
    return path


if __name__ == "__main__":
    main(*(sys.argv[1:] or ["ppo"]))

"""Trains the agents of ``agents/pretrained``, one or more for each environment.

    python -m benchmarks.pretrain ppo             task weights: ten minutes on two cores; then ``benchmarks/heldout.py``
    python -m benchmarks.pretrain ppo_merging     layer merging: half an hour; then ``benchmarks/layer_merging.py``
    python -m benchmarks.pretrain ppo_threshold   the same by a similarity threshold: a quarter of an hour
    python -m benchmarks.pretrain ppo_samples     sample weights: half an hour; then ``benchmarks/sample_weighting.py``
    python -m benchmarks.pretrain ppo_groups      task groups: minutes, after the groups of 500 instances have been trained once
                                                  (a quarter of an hour); then ``benchmarks/task_grouping.py``

``ppo`` is trained without the task ``centre``, so held-out suites contain task subsets that are new to it. ``ppo_samples`` is
trained only with ``digit`` as the main task, on digits_scales, with Adam.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.measuring import RESULTS, ROOT, Run, command_line
from mtl_gym import agents
from mtl_gym.agents.pretrained import FOLDER
from mtl_gym.agents.settings import HELD_OUT
from mtl_gym.environments import LAYER_MERGING, SAMPLE_WEIGHTING, TASK_GROUPING
from mtl_gym.evaluation.group_table_maker import make_table
from mtl_gym.problems.instances import TRAINING_IDS

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
        "steps_per_action": 60,  # with fifteen decisions under exploration noise, one would always merge
        "time_steps": 9_600,
        "evaluations": 6,
        "instances": 32,
        "references": [],
        "options": {
            "policy_kwargs": {"log_std_init": 0.0},
            "learning_rate": 3e-3,
        },  # thresholds near 1 are far from the initial ones
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
"""Arguments of :func:`mtl_gym.agents.train`, all on digits_scales, by the name of the agent's file."""
LOOKED_UP = {"ppo_groups": 400}
"""Number of training instances whose groups are trained in advance (and those of the held-out ones): an episode is a look-up."""
TABLES = ROOT / "runs" / "groupings"
SMOKE: dict[str, Any] = {"num_envs": 8, "time_steps": 40, "evaluations": 1, "instances": 1, "references": []}


def options(parser: argparse.ArgumentParser) -> None:
    """Adds the options beyond those that all benchmarks have."""
    parser.add_argument("--folder", type=Path, default=None, help="folder to keep the training in (default: not kept)")


def main(words: Sequence[str] | None = None) -> None:
    """Trains the agents and installs the best ones; keeps the training's folder if one is given."""
    run: Run
    run, given = command_line(words, options)
    for name in run.names or (("ppo", "ppo_groups") if run.smoke else ("ppo",)):
        stem = "pretrain" if name == "ppo" else f"pretrain-{name}"
        result = pretrain(name, given.folder, run)
        if not run.smoke:
            (RESULTS / f"{stem}.json").write_text(json.dumps(result, indent=1) + "\n")
        print(json.dumps(result))


def pretrain(name: str, kept: Path | None, run: Run) -> dict[str, Any]:
    """Trains an agent and returns how; in smoke mode the existing file is not replaced."""
    arguments = TRAININGS[name]
    if run.smoke:
        arguments = (
            arguments
            | SMOKE
            | ({"num_tasks": 2, "train_steps": 20} if name in LOOKED_UP else {"train_steps": 100 if "env" in arguments else 40})
        )
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        if name in LOOKED_UP:
            path = Path(folder) / "table.npz" if run.smoke else TABLES / f"{name}.npz"
            arguments = arguments | {"group_table": str(table_of(name, arguments, path, run))}
            begun = time.perf_counter()
        out = kept or Path(folder) / "training"
        agent = agents.train(out=out, **{"problem": "digits_scales"} | arguments)
        seconds = time.perf_counter() - begun
        last = agents.load(out / "last.safetensors")
        if not run.smoke:
            shutil.copy(out / "best.safetensors", FOLDER / f"{name}.safetensors")
    training, arguments = last.about["training"], agent.about["environment"]["arguments"]
    return {
        "seconds": round(seconds),
        "threads": torch.get_num_threads(),
        "seed": training["seed"],
        "time_steps": training["time_steps"],
        "episodes": training["time_steps"] // decisions(arguments),
        "evaluations": len(last.about["scores"]),
        "chosen after": agent.about["training"]["time_steps"],
        "scores": last.about["scores"],
    }


def decisions(arguments: dict[str, Any]) -> int:
    """Number of decisions in an episode."""
    steps = arguments.get("steps_per_action")
    return int(arguments.get("train_steps", 300) // steps if steps else arguments["num_tasks"])


def table_of(name: str, own: dict[str, Any], path: Path, run: Run) -> Path:
    """The precomputed group table of a training, made or completed."""
    looked_up = run.size(LOOKED_UP[name])
    ids = [*range(TRAINING_IDS[0], TRAINING_IDS[0] + looked_up), *range(HELD_OUT, HELD_OUT + own["instances"])]
    short = {"train_steps": own["train_steps"]} if run.smoke else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        print(f"groups of {done} of {len(ids)} instances", end="\r", file=sys.stderr, flush=True)

    make_table(path, ids, problem=own["problem"], num_tasks=own["num_tasks"], advance=advance, **short)
    return path


if __name__ == "__main__":
    main()

"""Trains the agents of ``agents/pretrained``; under ten minutes on two cores. Then run ``benchmarks/heldout.py``.

The agent never sees the task ``centre``: held-out suites have task subsets that training had not.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import agents
from agents.pretrained import FOLDER
from mtl_gym.problems import load_problem

OUT = Path(__file__).parent / "results" / "pretrain.json"
TASKS = ["digit", "parity", "loop", "ink", "reconstruction"]
NUM_TASKS = 4


def main() -> None:
    """Trains, and puts the best agent in its place."""
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(folder)
        agent = agents.train("digits", tasks=TASKS, num_tasks=NUM_TASKS, out=out)
        seconds = time.perf_counter() - begun
        last = agents.load(out / "last.safetensors")
        shutil.copy(out / "best.safetensors", FOLDER / "ppo.safetensors")
    training = last.about["training"]
    decisions = load_problem("digits").defaults.horizon // agent.about["environment"]["arguments"]["steps_per_action"]
    result = {
        "seconds": round(seconds),
        "seed": training["seed"],
        "time_steps": training["time_steps"],
        "episodes": training["time_steps"] // decisions,
        "evaluations": len(last.about["scores"]),
        "chosen after": agent.about["training"]["time_steps"],
        "scores": last.about["scores"],
    }
    OUT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()

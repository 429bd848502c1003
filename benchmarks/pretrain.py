"""Trains the agents of ``agents/pretrained``; under ten minutes on two cores. Then run ``benchmarks/heldout.py``.

The agent never sees the task ``centre``: held-out suites have task subsets that training had not.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import agents
from agents.pretrained import FOLDER

TASKS = ["digit", "parity", "loop", "ink", "reconstruction"]
NUM_TASKS = 4


def main() -> None:
    """Trains, and puts the best agent in its place."""
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(folder)
        agent = agents.train("digits", tasks=TASKS, num_tasks=NUM_TASKS, out=out, watch=_tell)
        shutil.copy(out / "best.safetensors", FOLDER / "ppo.safetensors")
    print(f"{time.perf_counter() - begun:.0f} s; held-out scores:")
    for score in agent.about["scores"]:
        print(score)


def _tell(steps: int, known: object) -> None:
    if steps % 12_800 == 0:
        print(steps, known, flush=True)


if __name__ == "__main__":
    main()

"""What each choice of the training's defaults is worth: the same short training of PPO without it. Digits, four of its tasks.

Every variant trains for 20 rounds of 64 episodes; scores are mean delta_m on the *reward* split of 64 held-out instances, with
95 % intervals of the paired difference to the rule ``init``, at which a residual agent begins. Writes
``benchmarks/results/ablation.json``.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import mtl_gym
from benchmarks.heldout import paired
from benchmarks.pretrain import TASKS
from mtl_gym import agents
from mtl_gym.agents.monitor import HELD_OUT

OUT = Path(__file__).parent / "results" / "ablation.json"
EPISODES, INSTANCES = 20 * 64, 64

VARIANTS: dict[str, dict[str, Any]] = {
    "the defaults": {},
    "without leave-one-out": {"rollouts_per_instance": 1},
    "reward val_mean": {"reward": "val_mean"},
    "reward terminal_delta_m": {"reward": "terminal_delta_m"},
    "10 steps per action": {"steps_per_action": 10},
    "softmax instead of residual": {"action": "softmax"},
    "weight_range 1e6": {"weight_range": 1e6},
}


def main(names: list[str]) -> None:
    """Trains every variant."""
    known = json.loads(OUT.read_text()) if OUT.is_file() else {}
    ids = list(range(HELD_OUT, HELD_OUT + INSTANCES))
    common: dict[str, Any] = {"problem": "digits", "num_tasks": 4, "distribution": "varied", "tasks": TASKS}
    measured: dict[str, Any] = {"instances": ids, "num_envs": 64, "reward": "terminal_delta_m", **common}
    base = returns(mtl_gym.evaluate("init", **measured))
    for name in names or VARIANTS:
        variant = VARIANTS[name]
        decisions = 300 // variant.get("steps_per_action", 20)
        with tempfile.TemporaryDirectory() as folder:
            options = {"time_steps": EPISODES * decisions, "evaluations": 1, "instances": 8, "references": []}
            agents.train(out=folder, **{**common, **options, **variant})
            agent = agents.load(Path(folder) / "last.safetensors")
            known[name] = paired(returns(mtl_gym.evaluate(agent, **measured)) - base)
        OUT.write_text(json.dumps(known, indent=1) + "\n")
        print(name, known[name], flush=True)


def returns(frame: Any) -> Any:
    """The return of each instance, delta_m on the reward split."""
    return frame.drop_duplicates("instance").set_index("instance")["return"]


if __name__ == "__main__":
    main(sys.argv[1:])

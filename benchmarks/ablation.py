"""What each default of agent training contributes: the same short PPO training without it, on four of the tasks of digits_scales.

Every variant trains for 20 rounds of 64 episodes. Scores are the mean delta_m on the *reward* split of 64 held-out instances, with
95 % intervals of the paired difference to the rule ``init``, from which a residual agent starts. Writes
``benchmarks/results/ablation.json``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mtl_gym
from benchmarks.heldout import paired
from benchmarks.measuring import Run, command_line
from benchmarks.pretrain import TASKS
from mtl_gym import agents
from mtl_gym.agents.settings import HELD_OUT

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


def main(words: Sequence[str] | None = None) -> None:
    """Trains every variant."""
    run: Run = command_line(words)
    known, ids = run.known(), list(range(HELD_OUT, HELD_OUT + run.size(INSTANCES, 2)))
    train_steps, num_envs = run.size(300, 40), run.size(64, 8)
    common: dict[str, Any] = {"problem": "digits_scales", "num_tasks": 4, "distribution": "varied", "tasks": TASKS}
    common["train_steps"] = train_steps
    measured: dict[str, Any] = {"instances": ids, "num_envs": 64, "reward": "terminal_delta_m", **common}
    base = returns(mtl_gym.evaluate("init", **measured))
    for name in run.chosen([*VARIANTS]):
        variant = VARIANTS[name]
        decisions = train_steps // variant.get("steps_per_action", 20)
        with tempfile.TemporaryDirectory() as folder:
            options = {"time_steps": run.size(EPISODES, num_envs) * decisions, "evaluations": 1, "references": []}
            options |= {"instances": run.size(8), "num_envs": num_envs}
            agents.train(out=folder, **{**common, **options, **variant})
            agent = agents.load(Path(folder) / "last.safetensors")
            known[name] = paired(returns(mtl_gym.evaluate(agent, **measured)) - base)
        run.write(known)
        print(name, known[name], flush=True)


def returns(frame: Any) -> Any:
    """The return of each instance: delta_m on the reward split."""
    return frame.drop_duplicates("instance").set_index("instance")["return"]


if __name__ == "__main__":
    main()

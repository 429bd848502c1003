"""How close a policy that d3rlpy trained offline comes to its teacher, by the number of recorded episodes.

    D3RLPY=.environments/d3rlpy/bin/python .environments/minari/bin/python -m benchmarks.offline   (ten minutes on one core)

The pretrained agent is recorded on training instances, behaviour cloning learns from the data set in d3rlpy's environment, and both
are compared on other instances; `init` is what the agent's action 0 does. Writes ``benchmarks/results/offline.json``.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.heldout import paired
from benchmarks.measuring import ROOT, Run, command_line

if "D3RLPY" not in os.environ:
    raise ModuleNotFoundError("D3RLPY should be the Python of an environment with d3rlpy: see `make clients`", name="d3rlpy")

EXAMPLES = ROOT / "examples"
ARGUMENTS = {"problem": "digits_scales", "distribution": "varied"}
TEACHER = "ppo"
RECORDED = {
    "cloned from 64 episodes": {"instances": 64},
    "cloned from 512 episodes": {"instances": 512},
    "cloned from 512 episodes with noise": {"instances": 512, "noise": 0.2},
}
"""Label of a student to how its data set is recorded."""
OTHERS = ("init", "ew")


def main(words: Sequence[str] | None = None) -> None:
    """Records, trains and compares; prints and writes the scores, and their differences from the teacher's."""
    import mtl_gym
    from examples.offline_student import Student

    run: Run = command_line(words)
    arguments = ARGUMENTS | ({"train_steps": 40} if run.smoke else {})
    policies: dict[str, Any] = {"teacher": TEACHER}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MINARI_DATASETS_PATH"] = folder
        for place, (label, recorded) in enumerate(RECORDED.items()):
            dataset, path = f"offline/ppo-v{place}", Path(folder, f"{place}.npz")
            sizes = recorded | ({"instances": 4} if run.smoke else {})
            mtl_gym.record(TEACHER, dataset=dataset, flat=True, num_envs=32, **arguments, **sizes)
            trained(dataset, path, run.size(4000, 10))
            policies[label] = Student(path)
        frame = mtl_gym.compare(policies | {name: name for name in OTHERS}, instances=run.size(64, 2), num_envs=32, **arguments)
    scores = frame.groupby(["policy", "instance"], sort=False)["delta_m"].first().unstack("policy")
    found = {
        name: {"delta_m": paired(scores[name]), "minus teacher": paired(scores[name] - scores["teacher"])}
        for name in (*policies, *OTHERS)
    }
    print(json.dumps(found))
    run.write({"arguments": arguments, "instances": len(scores), "policies": found})


def trained(dataset: str, path: Path, steps: int) -> None:
    """Trains in d3rlpy's environment, which does not see this one."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = [os.environ["D3RLPY"], "-W", "ignore", str(EXAMPLES / "offline_d3rlpy.py"), dataset, str(path), str(steps)]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()

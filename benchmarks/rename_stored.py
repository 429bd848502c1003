"""Renames what is stored under earlier names; values, arrays and parameters stay bit for bit. Running it again changes nothing.

Agents' files, the references of ``terminal_delta_m``, the shipped group tables and ``benchmarks/results``. The digests of agents
that results are kept under follow their files.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch

from mtl_gym.agents.files import SUFFIX, digest, read, write
from mtl_gym.agents.pretrained import FOLDER
from mtl_gym.training.group_tables import write_group_table

ROOT = Path(__file__).parents[1]
ARGUMENTS = {
    **{"horizon": "train_steps", "hidden": "hidden_sizes", "main": "main_task", "truth": "group_table"},
    **{"one_class": "constant_label", "adversarial": "nearest_flip"},
}
"""Arguments of environments and axes of distributions."""
OBSERVATIONS = {"legal": "action_mask", "parameter_share": "parameter_fraction"}
REWARDS = {"over_together": "gain_over_joint", "score": "gain_change"}
SETTINGS = {"siblings": "rollouts_per_instance"}
POLICIES = {"separate": "single-task", "apart": "single-task", "together": "joint"}
STUDIES = {
    "without siblings": "without leave-one-out",
    "sac: 9,600 decisions of 20 steps, all six tasks, siblings in the buffer; the defaults were learning_rate 1e-3, "
    "gradient_steps 8, gamma 0.99, ent_coef auto_0.1": "sac: 9,600 decisions of 20 steps, all six tasks, leave-one-out rewards "
    "in the buffer; the defaults were learning_rate 1e-3, gradient_steps 8, gamma 0.99, ent_coef auto_0.1",
}


def keys(value: Any, names: Mapping[str, str]) -> Any:
    """A nest with keys renamed everywhere; their order stays."""
    if isinstance(value, Mapping):
        return {names.get(key, key): keys(item, names) for key, item in value.items()}
    return [keys(item, names) for item in value] if isinstance(value, list) else value


def agent(path: Path) -> tuple[str, str]:
    """Renames within an agent's file, and returns its digest before and after."""
    content = read(path)
    about = content["about"]
    environment, before = about["environment"], _digest(content)
    arguments = keys(environment["arguments"], ARGUMENTS)
    arguments["reward"] = REWARDS.get(arguments["reward"], arguments["reward"])
    arguments["observe"] = [OBSERVATIONS.get(name, name) for name in arguments["observe"]]
    renamed = {
        **about,
        "environment": {**environment, "arguments": arguments},
        "observations": {OBSERVATIONS.get(name, name): row for name, row in about["observations"].items()},
        "training": keys(about["training"], SETTINGS),
    }
    if renamed != about:
        write(path, {**content, "about": renamed})
    after = read(path)
    assert after["about"] == renamed
    assert all(torch.equal(own, content["parameters"][name]) for name, own in after["parameters"].items())
    assert list(after["parameters"]) == list(content["parameters"])
    return before, _digest(after)


def _digest(content: Mapping[str, Any]) -> str:
    """What :attr:`mtl_gym.agents.Agent.spec` says."""
    kept = {name: content["about"][name] for name in ("algorithm", "policy", "environment", "observations")}
    return digest(repr(sorted(kept.items())), content["parameters"])


def references(path: Path) -> None:
    """Renames within the keys of the references, which are JSON themselves."""
    known = json.loads(path.read_text())
    renamed = {json.dumps(keys(json.loads(key), ARGUMENTS), sort_keys=True): values for key, values in known.items()}
    assert list(renamed.values()) == list(known.values())
    path.write_text(json.dumps(renamed, indent=1) + "\n")


def group_table(path: Path) -> None:
    """Renames within the header of a group table."""
    with np.load(path, allow_pickle=False) as stored:
        arrays = dict(stored)
    header = json.loads(str(arrays.pop("header")))
    renamed = {**header, "training": keys(header["training"], ARGUMENTS)}
    if renamed != header:
        write_group_table(path, renamed, arrays)
    with np.load(path, allow_pickle=False) as stored:
        assert stored.files == ["header", *arrays]
        assert all(np.array_equal(stored[name], own) and stored[name].dtype == own.dtype for name, own in arrays.items())


def result(path: Path, digests: Mapping[str, str]) -> None:
    """Renames policies, the arguments of suites and the digests of agents in what a benchmark wrote."""
    text = path.read_text()
    known = json.loads(text)
    renamed = _result(known, digests)
    if renamed != known:
        indent = len(text.splitlines()[1]) - len(text.splitlines()[1].lstrip())
        path.write_text(json.dumps(renamed, indent=indent) + "\n")


def _result(value: Any, digests: Mapping[str, str]) -> Any:
    if isinstance(value, Mapping):
        names = {**POLICIES, **STUDIES}
        return {
            names.get(key, key): keys(item, ARGUMENTS) if key == "arguments" else _result(item, digests)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_result(item, digests) for item in value]
    return digests.get(value, value) if isinstance(value, str) else value


def main() -> None:
    """All of it."""
    digests = dict(agent(path) for path in sorted(FOLDER.glob(f"*{SUFFIX}")))
    references(ROOT / "mtl_gym" / "data" / "references.json")
    for path in sorted((ROOT / "mtl_gym" / "data" / "grouping").glob("*.npz")):
        group_table(path)
    for path in sorted((ROOT / "benchmarks" / "results").glob("*.json")):
        result(path, digests)


if __name__ == "__main__":
    main()

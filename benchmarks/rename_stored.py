"""Renames stored arguments, observations, rewards and policies to their current names; values, arrays and parameters stay
bit-identical. Running it again changes nothing.

Covers agents' files, the references of ``terminal_delta_m``, the bundled group tables and ``benchmarks/results``. Results are
keyed by agents' checksums, which are updated with the files.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measuring import ROOT, Run, command_line
from mtl_gym.agents.files import SUFFIX, digest, read, write
from mtl_gym.decisions.grouping.group_tables import write_group_table

FOLDERS = ("agents/pretrained", "mtl_gym/data", "benchmarks/results")
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
    """Nested data with keys renamed at all levels, in the same order."""
    if isinstance(value, Mapping):
        return {names.get(key, key): keys(item, names) for key, item in value.items()}
    return [keys(item, names) for item in value] if isinstance(value, list) else value


def agent(path: Path) -> tuple[str, str]:
    """Renames within an agent's file; returns its checksum before and after."""
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
    """The checksum in :attr:`mtl_gym.agents.Agent.spec`."""
    kept = {name: content["about"][name] for name in ("algorithm", "policy", "environment", "observations")}
    return digest(repr(sorted(kept.items())), content["parameters"])


def references(path: Path) -> None:
    """Renames within the keys of the references, which are JSON too."""
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
    """Renames policies, arguments of suites and checksums of agents in a benchmark's results."""
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


def rename(root: Path) -> None:
    """Renames everything below a folder."""
    digests = dict(agent(path) for path in sorted((root / "agents" / "pretrained").glob(f"*{SUFFIX}")))
    references(root / "mtl_gym" / "data" / "references.json")
    for path in sorted((root / "mtl_gym" / "data" / "grouping").glob("*.npz")):
        group_table(path)
    for path in sorted((root / "benchmarks" / "results").glob("*.json")):
        result(path, digests)


def main(words: Sequence[str] | None = None) -> None:
    """Renames in place; in smoke mode in a copy."""
    run: Run = command_line(words)
    if not run.smoke:
        rename(ROOT)
        return
    with tempfile.TemporaryDirectory() as folder:
        for name in FOLDERS:
            shutil.copytree(ROOT / name, Path(folder) / name)
        rename(Path(folder))


if __name__ == "__main__":
    main()

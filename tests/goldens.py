"""Golden trajectories: what the environments, comparisons and pretrained agents return, bit for bit, as hashes in ``goldens.json``.

    python tests/goldens.py record OUT.json
    python tests/goldens.py check FILE.json    # prints the paths that differ, and fails if there are any

Every argument of an environment is explicit, so that a default may change. A path is a case, then a step (0 is the reset) and a
leaf: ``LossWeighting/digits/softmax/vector/3/observation/gap``; infos of vectors have the row before their name. What a newer
version returns beyond the recorded is no difference. Bits are those of one set of kernels, :func:`kernels`, on one thread.
"""

from __future__ import annotations

import argparse
import hashlib
import inspect
import json
import os
import platform
import re
import sys
import tempfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Discrete

import mtl_gym
from mtl_gym.agents.pretrained import ppo

LOSS, SAMPLE, LAYER, GROUP = "LossWeighting", "SampleWeighting", "LayerMerging", "TaskGrouping"
DECISIONS, ROWS = 6, 3
Leaves = Iterator[tuple[str, Any]]

DIGITS = ["digit", "parity", "loop", "angle", "clean"]
TASKS = {
    "digits": DIGITS,
    "multimnist": ["top_left", "bottom_right"],
    "census": ["income", "never_married", "college"],
    "river_flow": ["CHSI2", "NASI2", "EADM7", "SCLM7"],
    "yeast": [f"class_{number}" for number in range(1, 8)],
    "stereo": ["depth", "normals", "layers"],
    "quadratic": ["objective_1", "objective_2", "objective_3"],
    "digit_tasks": ["is_0", "odd", "even", "loop"],
}
"""Tasks that take part unless a case says so."""

OF_TASKS = ["log_loss_mean", "slope", "gap", "meta_log_loss", "meta_slope", "last_weights", "progress"]
OF_SAMPLES = ["sample_loss", "sample_mean", "rank_feature", "mean_feature", "alignment_feature", "main_feature"]
OF_STRUCTURES = ["frontier_cka", "last_cka", "shared_stages", "open", "action_mask", "parameter_fraction"]
OF_GROUPS = ["map_features", "map_distances", "gradient_cosines"]
OF_PLACES = [*OF_GROUPS, "groups", "next_task", "action_mask", "progress"]

COMMON: dict[str, Any] = {
    **{"distribution": "clean", "steps_per_action": 6, "reward_every": 6, "train_steps": 24, "batch_size": 16, "holdout_size": 16},
    **{"optimizer": "adam", "lr": 5e-3, "lr_schedule": "constant", "momentum": 0.9, "weight_decay": 0.0},
    **{"hidden_sizes": [8], "device": "cpu"},
}
OWN: dict[str, dict[str, Any]] = {
    LOSS: {
        **{"observe": OF_TASKS, "reward": "val_mean", "action": "softmax", "rule": "init", "weight_range": 1e6},
        **{"scope": "all", "gradient_ema": 0.0},
    },
    SAMPLE: {
        **{"observe": [*OF_SAMPLES, *OF_TASKS], "reward": "val_mean", "action": "rule", "sharpness": 10.0, "num_quantiles": 4},
        **{"features": ["rank", "mean", "alignment", "main"]},
    },
    LAYER: {
        **{"observe": [*OF_STRUCTURES, *OF_TASKS], "reward": "gain_change", "action": "merge", "similarity": "cka"},
        **{"transfer": "imitate", "transfer_steps": 4, "average_moments": False, "alignment": 0.0, "parameter_price": 0.1},
        **{"rule": "code", "adapters": "affine", "hidden_sizes": [8, 8]},
    },
    GROUP: {
        **{"observe": OF_PLACES, "reward": "gain_over_joint", "action": "place", "max_groups": 3, "sharpness": 10.0},
        **{"group_price": 0.01, "snapshots": 3, "affinity_every": 10, "group_table": "train", "batch_size": 32},
    },
}
LEFT_OUT: dict[str, tuple[str, ...]] = {GROUP: ("steps_per_action", "reward_every", "holdout_size")}
OF_POLICIES = {
    LOSS: ("observe", "action", "rule", "weight_range", "scope", "gradient_ema", "steps_per_action", "reward_every"),
    SAMPLE: ("observe", "action", "steps_per_action", "reward_every", "features", "sharpness"),
    LAYER: (
        *("observe", "action", "similarity", "transfer", "transfer_steps", "average_moments", "alignment"),
        *("rule", "adapters", "steps_per_action", "reward_every"),
    ),
    GROUP: ("observe", "action", "sharpness", "snapshots", "affinity_every"),
}
"""Arguments that a policy requires of its environment, and that are left to it."""

THREE, SMALL = {"tasks": ["digit", "parity", "angle"]}, {"size": [0.1, 0.15], "noise": [0.0, 0.2]}
HARMFUL = {"noise": [0.2, 0.4], "constant_label": [0.1, 0.2], "unrelated": [0.2, 0.4], "nearest_flip": [0.2, 0.4]}
SGD = {"optimizer": "sgd", "momentum": 0.8, "weight_decay": 1e-3, "lr_schedule": "cosine"}
ADAMW = {"optimizer": "adamw", "weight_decay": 1e-2, "lr_schedule": "step"}
SOME = {"tasks": ["loop", "digit", "angle", "parity", "clean"], "num_tasks": 4}
TABLE: list[tuple[str, str, str, str, dict[str, Any]]] = [
    (LOSS, "digits", "softmax", "scalar vector disabled", {}),
    (LOSS, "river_flow", "softmax", "scalar vector disabled", {"weight_range": 100.0, "batch_size": 32}),
    (
        *(LOSS, "digits", "weights-shared", "scalar vector"),
        {"action": "weights", "scope": "shared", "gradient_ema": 0.9, "reward": "same_batch", "distribution": SMALL}
        | {"observe": ["cosines", "log_norms", "gap", "log_loss", "log_loss_after"]},
    ),
    (
        *(LOSS, "digits", "residual-varied", "vector disabled"),
        {"action": "residual", "distribution": "varied", "reward": "gain", "reward_every": 12, **SOME},
    ),
    (
        *(LOSS, "yeast", "igb", "scalar vector"),
        {"action": "residual", "rule": "si", "reward": "igb", "distribution": SMALL, **SGD}
        | {"observe": ["gap", "epoch", "log_epoch", "lr", "last_weights"]},
    ),
    (LOSS, "digits", "terminal", "scalar vector", {"reward": "terminal_delta_m", **THREE, **ADAMW}),
    (LOSS, "digits", "truncated", "vector", {"reward": "val_min", "max_episode_steps": 3, **THREE}),
    (LOSS, "digits", "diverging", "vector disabled", {"action": "weights", "optimizer": "sgd", "lr": 10.0, **THREE}),
    (LOSS, "quadratic", "change", "vector", {"reward": "gain_change", "hidden_sizes": [], "distribution": "varied"}),
    (LOSS, "stereo", "softmax", "scalar", {"hidden_sizes": [2, 2], "steps_per_action": 3, "reward_every": 3, "train_steps": 12}),
    (LOSS, "digits", "gls,cagrad,igb", "compare", {"distribution": "varied", **SOME}),
    (LOSS, "digits", "residual", "agent", {"train_steps": 60, "distribution": "varied", **SOME}),
    (
        *(SAMPLE, "digits", "rule-noisy", "scalar vector disabled"),
        {"distribution": "noisy", "observe": [*OF_SAMPLES, *OF_TASKS, "alignment_cosine"], "tasks": DIGITS[:4]},
    ),
    (SAMPLE, "yeast", "rule", "scalar vector disabled", {"num_tasks": 4, "main_task": "class_3"}),
    (
        *(SAMPLE, "digits", "quantiles", "scalar vector"),
        {"action": "quantiles", "distribution": "noisy", "reward": "gain", "main_task": "parity", **SOME, "num_tasks": 3},
    ),
    (
        *(SAMPLE, "digits", "weights-harmful", "scalar vector"),
        {"action": "weights", "steps_per_action": 1, "reward_every": 1, "train_steps": 4, "reward": "terminal_delta_m", **THREE}
        | {"observe": ["sample_log_loss", "alignment", "alignment_cosine", "label_right", "main_meta_log_loss", "log_loss_after"]}
        | {"distribution": {**HARMFUL, "holdout_noise": [0.5, 1.0]}},
    ),
    (
        *(SAMPLE, "river_flow", "rank-main", "vector"),
        {"features": ["rank", "main"], "reward": "gain_change", "reward_every": 12, "distribution": HARMFUL, **SGD},
    ),
    (SAMPLE, "digits", "uniform,slgrad,oracle", "compare", {"distribution": "noisy", **THREE}),
    (SAMPLE, "digits", "rule", "agent", {"train_steps": 75, "distribution": "noisy", **THREE}),
    (LAYER, "digits", "merge", "scalar vector disabled", THREE),
    (LAYER, "yeast", "pairs", "scalar vector disabled", {"transfer": "average", "reward": "val_mean"}),
    (
        *(LAYER, "digits", "threshold-gradient", "scalar vector"),
        {"action": "threshold", "similarity": "gradient", "transfer": "none", "alignment": 0.2, "reward": "gain", **THREE}
        | {"observe": [*OF_STRUCTURES, "frontier_cosine"]},
    ),
    (
        *(LAYER, "digits", "threshold-moments", "vector"),
        {"action": "threshold", "average_moments": True, "parameter_price": 0.5, "reward": "val_mean", **SOME, **SGD},
    ),
    (
        *(LAYER, "river_flow", "merge-varied", "vector disabled"),
        {"average_moments": True, "distribution": "varied", "reward": "gain", "reward_every": 12, **ADAMW},
    ),
    (LAYER, "multimnist", "merge", "scalar", {"hidden_sizes": [2, 8], "reward": "val_mean", "transfer_steps": 2}),
    (LAYER, "digits", "single-task,shared,mtsl", "compare", {"train_steps": 60, **THREE}),
    (LAYER, "digits", "merge", "agent", {"train_steps": 60, "transfer_steps": 20, "distribution": "varied", **THREE}),
    (LAYER, "digits", "threshold", "agent", {"train_steps": 120, "transfer_steps": 20, "distribution": "varied", **THREE}),
    (GROUP, "digit_tasks", "place", "scalar vector disabled", {"num_tasks": 3}),
    (GROUP, "census", "place", "scalar vector disabled", {"distribution": {"size": [0.01, 0.02]}, "max_groups": 2}),
    (
        *(GROUP, "digit_tasks", "place-all", "scalar vector"),
        {"distribution": "varied", "num_tasks": 3, "hidden_sizes": [8, 8], **ADAMW}
        | {"observe": [*OF_PLACES, "lookahead", "layer_cka", "pair_gains", "outcomes"]},
    ),
    (
        *(GROUP, "digit_tasks", "merge", "scalar vector"),
        {"action": "merge", "observe": [*OF_GROUPS, "groups", "action_mask", "progress"], "max_groups": 2, **SGD},
    ),
    (
        *(GROUP, "digit_tasks", "memberships", "scalar vector"),
        {"action": "memberships", "observe": [*OF_GROUPS, "progress"], "num_tasks": 3, "max_groups": 2, "sharpness": 2.0},
    ),
    (GROUP, "yeast", "place-noisy", "vector", {"num_tasks": 3, "distribution": HARMFUL | {"size": [0.1, 0.2]}, "reward": "none"}),
    (GROUP, "digit_tasks", "joint,single-task,exhaustive", "compare", {"num_tasks": 3, "lr": 1.1e-2}),
    (GROUP, "digit_tasks", "place", "agent", {"tasks": ["odd", "random", "large", "not_loop"], "max_groups": 4, "lr": 1.2e-2}),
]
"""Environment, problem, name, forms, and arguments beside ``COMMON`` and ``OWN``.

A comparison is named by its policies, and an agent by its action. Groups that were trained once are remembered in the process, so
instances are the case's own: those of trajectories by their seeds, the others by a learning rate.
"""


@dataclass(frozen=True)
class Case:
    """One row of ``TABLE`` in one form: ``scalar``, ``vector``, ``disabled``, ``compare`` or ``agent``."""

    env: str
    problem: str
    name: str
    form: str
    given: Mapping[str, Any] = field(hash=False)

    def __str__(self) -> str:
        return "/".join((self.env, self.problem, self.name, self.form))

    @property
    def id(self) -> str:
        """The environment's id."""
        return f"mtl_gym/{self.env}-v0"

    @property
    def seed(self) -> int:
        """Of the instances, which no other case has."""
        return zlib.crc32(str(self).encode())

    def arguments(self, left_out: Collection[str] = ()) -> dict[str, Any]:
        """The environment's arguments."""
        tasks = TASKS[self.problem]
        values = {"problem": self.problem, "tasks": tasks, **COMMON, **OWN[self.env], **self.given}
        values.setdefault("num_tasks", len(values["tasks"]))
        if self.env == SAMPLE:
            values.setdefault("main_task", values["tasks"][0])
        return {name: value for name, value in values.items() if name not in (*left_out, *LEFT_OUT.get(self.env, ()))}


def cases() -> list[Case]:
    """All cases, as the rows of the table have them."""
    return [Case(env, problem, name, form, given) for env, problem, name, forms, given in TABLE for form in forms.split()]


def trajectories(case: Case) -> dict[str, str]:
    """The hash of every leaf that a case returns, by its path."""
    leaves = {"compare": _compare, "agent": _consult}.get(case.form, _play)
    with one_thread():
        return {f"{case}/{path}": digest(value) for path, value in leaves(case)}


@contextmanager
def one_thread() -> Iterator[None]:
    """The order of sums depends on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def digest(value: Any) -> str:
    """A hash of numbers, whatever their type, or of texts."""
    array = np.asarray(value)
    if array.dtype.kind in "OU":
        content = json.dumps(array.tolist()).encode()
    else:
        numbers = array.astype("<f8")
        content = np.where(np.isnan(numbers), np.nan, numbers).astype("<f8").tobytes()
    return hashlib.sha256(content).hexdigest()[:16]


# --- what is recorded -----------------------------------------------------------------------------------------------------


def _play(case: Case) -> Leaves:
    """Six decisions; scalars are reset when an episode has ended, and some rows under ``Disabled`` after three decisions."""
    env, rng = _make(case), np.random.default_rng(0)
    yield from _seen("0", *env.reset(seed=case.seed))
    for step in range(1, DECISIONS + 1):
        observation, *paid, info = env.step(_action(env, rng, step))
        yield from _seen(str(step), observation, info)
        yield from ((f"{step}/{name}", value) for name, value in zip(("reward", "terminated", "truncated"), paid, strict=True))
        if case.form == "scalar" and any(paid[1:]):
            yield from _seen(f"{step}/reset", *env.reset())
        if case.form == "disabled" and step == DECISIONS // 2:
            yield from _seen(f"{step}/reset", *env.reset(options={"reset_mask": np.arange(ROWS) != 1}))
    env.close()


def _make(case: Case) -> Any:
    if case.form == "scalar":
        return gymnasium.make(case.id, disable_env_checker=True, **case.arguments())
    return _make_vec(case.id, ROWS, {"vector": "SameStep", "disabled": "Disabled"}[case.form], case.arguments())


def _make_vec(id: str, num_envs: int, mode: str, arguments: Mapping[str, Any]) -> Any:
    return gymnasium.make_vec(id, num_envs, vectorization_mode="vector_entry_point", autoreset_mode=mode, **arguments)


def _action(env: Any, rng: np.random.Generator, step: int) -> Any:
    """An action within the space, of which some entries lie on a bound; of those with masks mostly one that is legal."""
    if hasattr(env.unwrapped, "action_masks") and not hasattr(env.action_space, "low"):
        masks = env.unwrapped.action_masks()
        rows = [_choice(mask, rng, masked=step in (1, 3) and not row) for row, mask in enumerate(np.atleast_2d(masks))]
        return rows[0] if isinstance(env.action_space, Discrete) else np.array(rows)
    space = env.action_space
    return np.clip(rng.uniform(-1.2, 1.2, space.shape), space.low, space.high).astype(np.float32)


def _choice(mask: np.ndarray, rng: np.random.Generator, *, masked: bool) -> int:
    """One of the legal actions, or of those that are not, if there are any."""
    found = np.flatnonzero(~mask if masked and not mask.all() else mask)
    return int(found[int(rng.random() * len(found))])


def _seen(path: str, observation: Any, info: Any) -> Leaves:
    yield from _named(f"{path}/observation", observation)
    if any(name.startswith("_") for name in info):
        for row in range(ROWS):
            yield from _named(f"{path}/info/{row}", _of_row(info, row))
    else:
        yield from _named(f"{path}/info", info)


def _of_row(infos: Mapping[str, Any], row: int) -> dict[str, Any]:
    """What a vector's infos say of one row."""
    known = {name: own for name, own in infos.items() if not name.startswith("_") and infos[f"_{name}"][row]}
    return {name: _of_row(own, row) if isinstance(own, Mapping) else own[row] for name, own in known.items()}


def _named(path: str, values: Mapping[str, Any]) -> Leaves:
    """The leaves of nested mappings."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _named(f"{path}/{name}", value)
        else:
            yield f"{path}/{name}", value


def _compare(case: Case) -> Leaves:
    """The statistics of a comparison, and the columns of its frame."""
    arguments = case.arguments(OF_POLICIES[case.env])
    frame = mtl_gym.compare(case.name.split(","), case.id, instances=[100, 101], num_envs=2, seed=0, **arguments)
    yield from _named("policies", mtl_gym.summarize(frame)["policies"])
    for label, rows in frame.groupby("policy", sort=False):
        yield from _named(f"frame/{label}", {name: rows[name].to_numpy() for name in rows})


def _consult(case: Case) -> Leaves:
    """What a pretrained agent sees and does at its first two decisions, in the environment that a comparison would make."""
    agent: Any = ppo(env=case.id, action=case.name)
    required = agent.requires.arguments()
    env = _make_vec(case.id, 2, "Disabled", {**case.arguments(), **required, **_multiples(required)})
    observation, _ = env.reset(options={"instance": np.arange(2)})
    takes_masks = "action_masks" in inspect.signature(agent.predict).parameters and hasattr(env.unwrapped, "action_masks")
    memory, start = None, np.ones(2, dtype=bool)
    for step in range(2):
        masks = {"action_masks": env.unwrapped.action_masks()} if takes_masks else {}
        action, memory = agent.predict(observation, state=memory, episode_start=start, deterministic=True, **masks)
        yield from _named(f"{step}/observation", observation)
        yield f"{step}/action", action
        observation, *_ = env.step(action)
        start = np.zeros(2, dtype=bool)
    env.close()


def _multiples(required: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments that go by the length of a decision, which is the agent's."""
    return {"reward_every": required["steps_per_action"]} if "steps_per_action" in required else {}


# --- the file -------------------------------------------------------------------------------------------------------------


def kernels() -> dict[str, str]:
    """What the bits depend on beside the code."""
    blas = re.search(r"BLAS_INFO=(\w+)", torch.__config__.show())
    return {
        "torch": torch.__version__,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "blas": blas[1] if blas else "",
        "machine": f"{platform.machine()} {_processor()}".strip(),
        "libraries": ", ".join(f"{name} {version(name)}" for name in ("numpy", "scipy", "scikit-learn")),
    }


def _processor() -> str:
    """The processor's model, by which BLAS chooses its kernels."""
    known = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", known.read_text()) if known.is_file() else None
    return model[1] if model else platform.processor()


def packed(hashes: Mapping[str, str]) -> dict[str, str]:
    """The hashes of one leaf at all steps as one line, by the path with ``*`` in the step's place; ``-`` where there is none."""
    steps: dict[str, dict[int, str]] = {}
    for path, own in hashes.items():
        step, _, leaf = path.partition("/")
        known, place = (f"*/{leaf}", int(step)) if step.isdigit() else (path, 0)
        steps.setdefault(known, {})[place] = own
    return {leaf: " ".join(own.get(step, "-") for step in range(max(own) + 1)) for leaf, own in steps.items()}


def unpacked(lines: Mapping[str, str]) -> dict[str, str]:
    """The hashes of :func:`packed`."""
    found = {leaf.replace("*", str(step), 1): own for leaf, line in lines.items() for step, own in enumerate(line.split())}
    return {path: own for path, own in found.items() if own != "-"}


def record(file: Path) -> None:
    """Plays all cases, and writes what they return."""
    found = {str(case): trajectories(case) for case in cases()}
    lines = {name: packed({path.removeprefix(f"{name}/"): own for path, own in hashes.items()}) for name, hashes in found.items()}
    file.write_text(json.dumps({"kernels": kernels(), "cases": lines}, indent=0) + "\n")
    print(f"{len(found)} cases, {sum(map(len, found.values()))} leaves")


def read(file: Path) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """The kernels of a file, and the hashes of each case by their paths."""
    content = json.loads(file.read_text())
    found = {case: {f"{case}/{path}": own for path, own in unpacked(lines).items()} for case, lines in content["cases"].items()}
    return content["kernels"], found


def differing(recorded: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """The recorded paths that are missing or have another hash."""
    return [path for path, own in recorded.items() if found.get(path) != own]


def check(file: Path) -> int:
    """Plays all cases, and prints the recorded paths that differ; returns 1 if there are any."""
    known, recorded = read(file)
    if known != kernels():
        print(f"The kernels differ, so bits may: recorded {known}, here {kernels()}.", file=sys.stderr)
    here_too = {str(case): case for case in cases()}
    differences = [
        path
        for name, hashes in recorded.items()
        for path in differing(hashes, trajectories(here_too[name]) if name in here_too else {})
    ]
    print("\n".join([*differences, f"{len(differences)} of {sum(map(len, recorded.values()))} leaves differ"]))
    return int(bool(differences))


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("record", "check"))
    parser.add_argument("file", type=Path)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MTL_GYM_CACHE"] = folder
        return check(chosen.file) if chosen.command == "check" else record(chosen.file) or 0


if __name__ == "__main__":
    sys.exit(main())

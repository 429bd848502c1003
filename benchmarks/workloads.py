"""The workloads of :mod:`benchmarks.composition_speed`. Each tree runs this file by its path in its own process, and imports the
``mtl_gym`` that is first on the module path.

It reads lines of JSON: ``{"name": figure, "seconds": s}`` is answered with the seconds of a step, measured for that long;
with 0 seconds, with the calls into torch and the numbers that a step computes; with ``null``, the figure is dropped. Trees from
before the trainer (``mtl_gym.training.trainer``) have other names of arguments and classes; ``BEFORE`` and the functions that
check it translate them.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import runpy
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import mtl_gym  # noqa: F401  registers the environments

LOSS_WEIGHTING, SAMPLE_WEIGHTING = "mtl_gym/LossWeighting-v0", "mtl_gym/SampleWeighting-v0"
LAYER_MERGING, TASK_GROUPING = "mtl_gym/LayerMerging-v0", "mtl_gym/TaskGrouping-v0"
BEFORE = importlib.util.find_spec("mtl_gym.training.trainer") is None
OLD_NAMES = {"train_steps": "horizon", "hidden_sizes": "hidden", "main_task": "main"}
SAMPLES: dict[str, Any] = {
    "problem": "digits_scales",
    "tasks": ["digit", "parity", "loop", "ink"],
    "distribution": {"noise": [0.4, 0.4]},
    "holdout_size": 128,
}
LAYERS: dict[str, Any] = {"problem": "digits_scales", "tasks": ["digit", "parity", "ink", "centre"], "hidden_sizes": [64, 64, 64]}
LONG = 20_000
"""Enough training steps that no training ends while it is measured."""


def named(arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments under the tree's own names."""
    return {OLD_NAMES.get(name, name) if BEFORE else name: value for name, value in arguments.items()}


def checked(env: str, **arguments: Any) -> Any:
    """Checked arguments of an environment."""
    module = importlib.import_module("mtl_gym.envs.arguments")
    known = env if BEFORE else importlib.import_module("mtl_gym.environments").specification(env)
    return module.check_arguments(known, **named(arguments))


def policy_of(name: str) -> Any:
    """A heuristic, not by entry points, which are those of the installed package."""
    home = importlib.import_module("baselines" if BEFORE else "mtl_gym.baselines").BASELINES[name]
    module, own = home.split(":")
    return getattr(importlib.import_module(module), own)()


def made(env: str, count: int, **arguments: Any) -> Any:
    """A vector environment."""
    return gymnasium.make_vec(env, num_envs=count, vectorization_mode="vector_entry_point", **named(arguments)).unwrapped


def vector(problem: str, count: int, **arguments: Any) -> Callable[[], int]:
    """A decision of ten steps, observations and rewards included."""
    envs = made(LOSS_WEIGHTING, count, problem=problem, **arguments)
    envs.reset(seed=0)
    actions = np.zeros(envs.action_space.shape, dtype=np.float32)

    def work() -> int:
        envs.step(actions)
        return 1

    return work


def scalar() -> Callable[[], int]:
    """The same of the scalar environment."""
    env = gymnasium.make(LOSS_WEIGHTING, problem="digits")
    action = np.zeros(env.action_space.shape or (), dtype=np.float32)
    ended = True

    def work() -> int:
        nonlocal ended
        if ended:
            env.reset(seed=0)
        _, _, terminated, truncated, _ = env.step(action)
        ended = terminated or truncated
        return 1

    return work


def playing(env: str, name: str, count: int, **arguments: Any) -> Callable[[], int]:
    """A decision of a heuristic, without a reward."""
    policy = policy_of(name)
    envs = made(env, count, reward="none", **policy.requires.arguments(), **arguments)
    observation, _ = envs.reset(options={"instance": np.arange(count)})
    recipe = envs.arguments.recipe
    memory = policy.initial_state(np.arange(count), recipe.num_tasks) if hasattr(policy, "initial_state") else None

    def work() -> int:
        nonlocal observation, memory
        actions, memory = policy.predict(observation, memory)
        observation = envs.step(actions)[0]
        return 1

    return work


def slgrad(count: int) -> Callable[[], int]:
    """A training step with SLGrad's weights: held-out gradient, forward mode, update."""
    own = checked(SAMPLE_WEIGHTING, train_steps=LONG, **SAMPLES)
    active = torch.ones(count, dtype=torch.bool)
    if BEFORE:
        module = importlib.import_module("mtl_gym.training.sample_learner")
        trainer = module.SampleLearner(own.problem, own.recipe, count)
    else:
        trainer = importlib.import_module("mtl_gym.training.trainer").Trainer(own.problem, own.recipe, count, by_samples=True)
        align = importlib.import_module("mtl_gym.training.alignments").align
    trainer.begin(range(count), range(count))

    def work() -> int:
        found = trainer.look([module.ALIGNMENT], active)[module.ALIGNMENT] if BEFORE else align(trainer).products
        weights = found.clamp(min=0)
        trainer.update_samples(weights / weights.mean((1, 2), keepdim=True).clamp(min=1e-30), active)
        return 1

    return work


def merging(count: int, *, compare: bool) -> Callable[[], int]:
    """A training step of gathered layers; or the comparison of all pairs and stages."""
    envs = made(LAYER_MERGING, count, reward="none", train_steps=LONG, **LAYERS)
    envs.reset(options={"instance": np.arange(count)})
    active, weights = torch.ones(count, dtype=torch.bool), torch.ones(count, len(LAYERS["tasks"]))
    trainer = envs.learner if BEFORE else envs.decision.trainer

    def work() -> int:
        if not compare:
            trainer.update(weights, active)
        elif BEFORE:
            trainer.similarities(~active)
        else:
            envs.decision.similarities()
        return 1

    return work


def groups(tasks: int) -> Callable[[], int]:
    """All groups of some tasks of ``digit_tasks``, as one batch."""
    own = checked(TASK_GROUPING, problem="digit_tasks", num_tasks=tasks, train_steps=60)
    module = importlib.import_module("mtl_gym.training.groups" if BEFORE else "mtl_gym.decisions.grouping.group_training")
    masks = range(1, 1 << tasks)

    def work() -> int:
        for _ in module.train_groups(own.problem, own.recipe, [0] * len(masks), module.members(masks, tasks)):
            pass
        return 1

    return work


def warm_up(count: int) -> Callable[[], int]:
    """A warm-up with data maps."""
    own = checked(TASK_GROUPING, problem="digit_tasks")
    module = importlib.import_module("mtl_gym.training.warm_up" if BEFORE else "mtl_gym.decisions.grouping.warm_up")
    watching, names = module.Watching(4, 10), (module.MAP_DISTANCES, module.MAP_FEATURES)

    def work() -> int:
        if BEFORE:
            learner = module.WarmUpLearner(own.problem, own.recipe, count)
            learner.begin(range(count), range(count))
            learner.run(watching, names)
        else:
            module.WarmUp(own.problem, own.recipe, range(count)).run(watching, names)
        return 1

    return work


HEURISTICS = ("ew", "igb", "famo", "cagrad", "nash-mtl")
WORKLOADS: dict[str, Callable[[], Callable[[], int]]] = {
    "digits, N = 16": partial(vector, "digits", 16),
    "digits, N = 64": partial(vector, "digits", 64),
    "digits, scalar": scalar,
    **{f"{name} at every step, N = 16": partial(playing, LOSS_WEIGHTING, name, 16) for name in HEURISTICS},
    "multimnist, N = 16": partial(vector, "multimnist", 16),
    "stereo, N = 16": partial(vector, "stereo", 16),
    **{f"SLGrad's step, N = {count}": partial(slgrad, count) for count in (1, 16, 64)},
    **{
        f"SLGrad's decision, N = {count}": partial(playing, SAMPLE_WEIGHTING, "slgrad", count, train_steps=LONG, **SAMPLES)
        for count in (1, 16, 64)
    },
    "gathered layers' step, N = 16": partial(merging, 16, compare=False),
    "CKA of layers, N = 16": partial(merging, 16, compare=True),
    "63 groups side by side": partial(groups, 6),
    "warm-up with data maps, N = 16": partial(warm_up, 16),
}
"""The workloads by name: functions that make the work, which returns its number of steps."""


class Counts(TorchDispatchMode):
    """Counts the calls into torch, and the numbers that they compute; those that only return views compute none."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = self.numbers = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        self.calls += 1
        if not function.is_view:
            self.numbers += sum(own.numel() for own in tree_leaves(found) if isinstance(own, torch.Tensor))
        return found


def counted(work: Callable[[], int]) -> list[float]:
    """Calls and numbers of a step."""
    with Counts() as counts:
        steps = work()
    return [counts.calls / steps, counts.numbers / steps]


def serve() -> None:
    """Answers requests until the input ends."""
    torch.set_num_threads(1)
    piece = runpy.run_path(str(Path(__file__).parents[1] / "mtl_gym" / "evaluation" / "timing.py"))[
        "piece"
    ]  # the same in both trees
    works: dict[str, Callable[[], int]] = {}
    for line in sys.stdin:
        request = json.loads(line)
        name, seconds = request["name"], request["seconds"]
        if seconds is None:
            works.pop(name, None)
            continue
        if name not in works:
            works[name] = WORKLOADS[name]()
            works[name]()
        answer = piece(works[name], seconds) if seconds else counted(works[name])
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()

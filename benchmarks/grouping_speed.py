"""What training groups side by side saves, and what data maps cost; measured in one run.

*Groups*: all 63 groups of six tasks, as one batch of the learner, against the same learner with one group after another, and
against hand-written modules (``nn.Linear``, fused Adam) one after another; on one thread, and all of them on two. *Maps*: a
warm-up with data maps against one without, 16 replicas and one, on one thread. Medians and quartiles of the ratios of interleaved
rounds. Writes ``benchmarks/results/grouping_speed.json``.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from mtl_gym.envs.arguments import Arguments, check_arguments
from mtl_gym.problems import TASK_GROUPING
from mtl_gym.training.groups import members, train_groups
from mtl_gym.training.learner import Learner
from mtl_gym.training.warm_up import MAP_DISTANCES, MAP_FEATURES, WarmUpLearner, Watching

OUT = Path(__file__).parent / "results" / "grouping_speed.json"
TASKS, TRAIN_STEPS = 6, 60
ROUNDS, OF_MAPS = 7, 21
PROBLEMS = ("digit_tasks", "yeast")


def batched(checked: Arguments) -> None:
    """All groups side by side."""
    masks = range(1, 1 << TASKS)
    for _ in train_groups(checked.problem, checked.recipe, [0] * len(masks), members(masks, TASKS)):
        pass


def one_by_one(checked: Arguments) -> None:
    """One group after another, by the same learner."""
    for mask in range(1, 1 << TASKS):
        for _ in train_groups(checked.problem, checked.recipe, [0], members([mask], TASKS)):
            pass


def by_hand(checked: Arguments) -> None:
    """One group after another, by modules as one would write them; the tasks of a group have a head each."""
    problem, recipe = checked.problem, checked.recipe
    instance = recipe.draw(problem, 0)
    order = torch.from_numpy(instance.order(recipe.batch_size, recipe.train_steps)).long()
    train = problem.splits["train"]
    widths = [train.inputs[0].numel(), *recipe.hidden_sizes]
    for mask in range(1, 1 << TASKS):
        own = [int(task) for place, task in enumerate(instance.tasks) if mask >> place & 1]
        layers = [layer for pair in pairwise(widths) for layer in (nn.Linear(*pair), nn.ReLU())]
        network = nn.Sequential(*layers, nn.Linear(widths[-1], len(own)))
        optimiser = torch.optim.Adam(network.parameters(), lr=recipe.lr, fused=True)
        for batch in order:
            outputs = network(train.inputs[batch].flatten(1))
            loss = (
                functional.binary_cross_entropy_with_logits(outputs, train.targets[batch][:, own], reduction="none").mean(0).sum()
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()


def warm_up(checked: Arguments, count: int, names: tuple[str, ...] | None) -> Callable[[], None]:
    """A warm-up of some instances; ``None``: the plain learner's training."""

    def run() -> None:
        learner = (Learner if names is None else WarmUpLearner)(checked.problem, checked.recipe, count)
        learner.begin(range(count), range(count))
        if isinstance(learner, WarmUpLearner):
            learner.run(Watching(4, 10), names or ())
            return
        ones, active = torch.ones(count, checked.recipe.num_tasks), torch.ones(count, dtype=torch.bool)
        for _ in range(checked.recipe.train_steps):
            learner.update(ones, active)

    return run


def main() -> None:
    """Measures and writes."""
    result: dict[str, Any] = {}
    for name in sys.argv[1:] or PROBLEMS:
        groups = check_arguments(TASK_GROUPING, problem=name, num_tasks=TASKS, train_steps=TRAIN_STEPS)
        whole = check_arguments(TASK_GROUPING, problem=name)
        maps = (MAP_FEATURES, MAP_DISTANCES)
        trainings = {
            "batch": lambda own=groups: batched(own),
            "one by one": lambda own=groups: one_by_one(own),
            "by hand": lambda own=groups: by_hand(own),
        }
        result[name] = {}
        for threads in (2, 1):
            torch.set_num_threads(threads)
            times, where = side_by_side(trainings), f"{threads} thread" + "s" * (threads > 1)
            result[name] |= {
                f"63 groups one after another over one batch, {where}": ratio(times["one by one"], times["batch"]),
                f"63 groups by hand, one after another, over one batch, {where}": ratio(times["by hand"], times["batch"]),
            }
        steps = {
            "plain, 16": warm_up(whole, 16, None),
            "maps, 16": warm_up(whole, 16, maps),
            "plain, 1": warm_up(whole, 1, None),
            "maps, 1": warm_up(whole, 1, maps),
        }
        times = side_by_side(steps, OF_MAPS)
        result[name] |= {
            "warm-up with data maps over one without, 16 instances": ratio(times["maps, 16"], times["plain, 16"]),
            "warm-up with data maps over one without, one instance": ratio(times["maps, 1"], times["plain, 1"]),
        }
        for what, row in result[name].items():
            print(name, what, row, flush=True)
    OUT.write_text(json.dumps(result, indent=1) + "\n")


def side_by_side(steps: dict[str, Callable[[], Any]], rounds: int = ROUNDS) -> dict[str, list[float]]:
    """Seconds of each in interleaved rounds."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if turn:  # the first one warms up
                times[name].append(time.perf_counter() - start)
    return times


def ratio(first: list[float], second: list[float]) -> dict[str, float]:
    """Median and quartiles of the rounds' ratios."""
    low, middle, high = np.quantile(np.array(first) / np.array(second), [0.25, 0.5, 0.75])
    rows = {"ratio": middle, "lower quartile": low, "upper quartile": high}
    return {name: round(float(value), 3) for name, value in rows.items()}


if __name__ == "__main__":
    main()

"""What training groups side by side saves, and what data maps cost, measured in one run.

    python -m benchmarks.grouping_speed                digit_tasks and yeast
    python -m benchmarks.grouping_speed digit_tasks    one of them

*Groups*: all 63 groups of six tasks as one batch of the trainer, compared with the same trainer one group after another, and with
hand-written modules (``nn.Linear``, fused Adam) one after another; on one thread, and all of them on two. *Maps*: a warm-up with
data maps compared with one without, for 16 replicas and one, on one thread. Medians and quartiles of the ratios of interleaved
rounds. Writes ``benchmarks/results/grouping_speed.json``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from benchmarks.measuring import Run, command_line, ratio, side_by_side, threads
from mtl_gym.decisions.grouping.group_training import members, train_groups
from mtl_gym.decisions.grouping.warm_up import MAP_DISTANCES, MAP_FEATURES, WarmUp, Watching
from mtl_gym.environments import TASK_GROUPING, specification
from mtl_gym.envs.arguments import Arguments, check_arguments
from mtl_gym.models import make_model
from mtl_gym.training.references import train
from mtl_gym.training.trainer import Trainer

TASKS, TRAIN_STEPS = 6, 60
ROUNDS, OF_MAPS = 7, 21
PROBLEMS = ("digit_tasks", "yeast")


def batched(checked: Arguments, masks: Sequence[int]) -> None:
    """All groups side by side."""
    for _ in train_groups(checked.problem, checked.recipe, [0] * len(masks), members(masks, TASKS)):
        pass


def one_by_one(checked: Arguments, masks: Sequence[int]) -> None:
    """One group after another, by the same trainer."""
    for mask in masks:
        for _ in train_groups(checked.problem, checked.recipe, [0], members([mask], TASKS)):
            pass


def by_hand(checked: Arguments, masks: Sequence[int]) -> None:
    """One group after another, with hand-written modules; each task of a group has its own head."""
    problem, recipe = checked.problem, checked.recipe
    instance = recipe.draw(problem, make_model(problem, recipe.hidden_sizes).identity, 0)
    order = torch.from_numpy(instance.order(recipe.batch_size, recipe.train_steps)).long()
    samples = problem.splits["train"]
    widths = [samples.inputs[0].numel(), *recipe.hidden_sizes]
    for mask in masks:
        own = [int(task) for place, task in enumerate(instance.tasks) if mask >> place & 1]
        layers = [layer for pair in pairwise(widths) for layer in (nn.Linear(*pair), nn.ReLU())]
        network = nn.Sequential(*layers, nn.Linear(widths[-1], len(own)))
        optimiser = torch.optim.Adam(network.parameters(), lr=recipe.lr, fused=True)
        for batch in order:
            outputs = network(samples.inputs[batch].flatten(1))
            loss = (
                functional.binary_cross_entropy_with_logits(outputs, samples.targets[batch][:, own], reduction="none").mean(0).sum()
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()


def warm_up(checked: Arguments, count: int, names: tuple[str, ...] | None) -> Callable[[], None]:
    """A warm-up of some instances; ``None``: training without data maps."""

    def run() -> None:
        if names is not None:
            WarmUp(checked.problem, checked.recipe, range(count)).run(Watching(4, 10), names)
            return
        trainer = Trainer(checked.problem, checked.recipe, count)
        trainer.begin(range(count), range(count))
        train(trainer, torch.ones(count, checked.recipe.num_tasks))

    return run


def main(words: Sequence[str] | None = None) -> None:
    """Measures and stores the results."""
    run: Run = command_line(words)
    result = run.known()
    for name in run.chosen(PROBLEMS):
        result[name] = study(name, run)
        for what, row in result[name].items():
            print(name, what, row, flush=True)
    run.write(result)


def study(name: str, run: Run) -> dict[str, Any]:
    """Groups and maps of one problem."""
    spec, short = specification(TASK_GROUPING), {"train_steps": 10} if run.smoke else {}
    groups = check_arguments(spec, problem=name, num_tasks=TASKS, **{"train_steps": TRAIN_STEPS, **short})
    whole = check_arguments(spec, problem=name, **short)
    masks, maps = range(1, run.size(1 << TASKS, 4)), (MAP_FEATURES, MAP_DISTANCES)
    trainings: dict[str, Callable[[], None]] = {
        "batch": lambda: batched(groups, masks),
        "one by one": lambda: one_by_one(groups, masks),
        "by hand": lambda: by_hand(groups, masks),
    }
    result = {}
    for count in (1,) if run.smoke else (2, 1):
        with threads(count):
            times, where = side_by_side(trainings, rounds=run.size(ROUNDS), seconds=0), f"{count} thread" + "s" * (count > 1)
        result |= {
            f"63 groups one after another over one batch, {where}": ratio(times["one by one"], times["batch"]),
            f"63 groups by hand, one after another, over one batch, {where}": ratio(times["by hand"], times["batch"]),
        }
    steps = {
        "plain, 16": warm_up(whole, 16, None),
        "maps, 16": warm_up(whole, 16, maps),
        "plain, 1": warm_up(whole, 1, None),
        "maps, 1": warm_up(whole, 1, maps),
    }
    with threads(1):
        times = side_by_side(steps, rounds=run.size(OF_MAPS), seconds=0)
    return result | {
        "warm-up with data maps over one without, 16 instances": ratio(times["maps, 16"], times["plain, 16"]),
        "warm-up with data maps over one without, one instance": ratio(times["maps, 1"], times["plain, 1"]),
    }


if __name__ == "__main__":
    main()

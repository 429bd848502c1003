"""What gathered layers cost, and what N structures side by side save; measured in one run.

One thread, digits, four tasks, three layers of 64, 16 replicas. *Separate*: K networks for each replica as one batch of N K copies,
without tables; *gathered*: the learner's step; *loop*: hand-written modules, one structure after another; *cka*: the comparison of
all pairs and stages, against the 20 steps between two decisions. Medians and quartiles of the ratios of interleaved rounds. Writes
``benchmarks/results/merging_speed.json``.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from mtl_gym.envs.arguments import check_arguments
from mtl_gym.problems import LAYER_MERGING
from mtl_gym.training.branch_learner import BranchLearner
from mtl_gym.training.learner import Learner
from mtl_gym.training.partitions import labels, together

OUT = Path(__file__).parent / "results" / "merging_speed.json"
TASKS, HIDDEN_SIZES, REPLICAS, STEPS_PER_ACTION = ["digit", "parity", "ink", "centre"], [64, 64, 64], 16, 20
ROUNDS, SECONDS = 15, 0.3


class Separate(BranchLearner):
    """The same trainings, whose tasks use their own copies without a table."""

    def _outputs(self, inputs: torch.Tensor) -> torch.Tensor:
        values = inputs[:, None].expand(-1, self.recipe.num_tasks, *inputs.shape[1:]).flatten(0, 1)
        for stage in range(self.network.num_stages):
            values = self.network.run(stage, self._parameters[stage].flatten(0, 1), values)
        own, tasks = values.unflatten(0, (len(inputs), -1)), self.replicas.tasks[0].tolist()
        places = [tasks.index(task) if task in tasks else 0 for task in range(self.problem.num_tasks)]
        weights, biases = self._parameters[-2:]
        columns = zip(places, self.problem.output_slices, strict=True)
        return torch.cat([torch.baddbmm(biases[:, :, part], own[:, place], weights[:, :, part]) for place, part in columns], dim=2)


class Branches(nn.Module):
    """What one would write by hand: a module for each copy of each stage."""

    def __init__(self, assign: torch.Tensor, inputs: int, outputs: list[int]) -> None:
        super().__init__()
        self.assign = assign.tolist()
        widths = [inputs, *HIDDEN_SIZES]
        self.stages = nn.ModuleList(
            nn.ModuleDict({str(copy): nn.Linear(widths[stage], widths[stage + 1]) for copy in sorted(set(row))})
            for stage, row in enumerate(self.assign)
        )
        self.heads = nn.ModuleList(nn.Linear(HIDDEN_SIZES[-1], size) for size in outputs)

    def forward(self, inputs: torch.Tensor) -> list[torch.Tensor]:
        known = {(): inputs}
        answers = []
        for task, head in enumerate(self.heads):
            path: tuple[int, ...] = ()
            for stage, row in enumerate(self.assign):
                longer = (*path, row[task])
                if longer not in known:
                    known[longer] = torch.relu(self.stages[stage][str(row[task])](known[path]))
                path = longer
            answers.append(head(known[path]))
        return answers


def structures(count: int, tasks: int) -> torch.Tensor:
    """Different trees (count, S, K): partitions of which each refines the one before."""
    rng, found = np.random.default_rng(0), {}
    while len(found) < count:
        rows, pairs = [], torch.ones(tasks, tasks, dtype=torch.bool)
        for _ in HIDDEN_SIZES:
            pairs = pairs & together(torch.from_numpy(rng.integers(0, 2, tasks)))
            rows.append(labels(pairs))
        found[str(torch.stack(rows).tolist())] = torch.stack(rows)
    return torch.stack(list(found.values()))


def main() -> None:
    """Measures and writes."""
    torch.set_num_threads(1)
    checked = check_arguments(LAYER_MERGING, tasks=TASKS, hidden_sizes=HIDDEN_SIZES, train_steps=20_000)
    trees = structures(REPLICAS, len(TASKS))

    def trained(learner: Learner) -> Callable[[], None]:
        count = learner.num_replicas
        learner.begin(range(count), range(count))
        weights, active = torch.ones(count, len(TASKS)), torch.ones(count, dtype=torch.bool)
        return lambda: learner.update(weights, active)

    gathered, merged = (BranchLearner(checked.problem, checked.recipe, REPLICAS) for _ in range(2))
    steps = {
        "separate": trained(Separate(checked.problem, checked.recipe, REPLICAS)),
        "gathered": trained(gathered),
        "gathered, 16 structures": trained(merged),
        "loop over 16 structures": loop(checked, trees),
    }
    merged.merge(trees, transfer="average", steps=1, average_moments=False)
    nobody = torch.zeros(REPLICAS, dtype=torch.bool)
    steps["cka"] = lambda: gathered.similarities(nobody)  # type: ignore[assignment]
    times = side_by_side(steps)
    result = {
        "gathered over separate": ratio(times["gathered"], times["separate"]),
        "loop over gathered, 16 structures": ratio(times["loop over 16 structures"], times["gathered, 16 structures"]),
        "cka over the time between two decisions": ratio(times["cka"], [own * STEPS_PER_ACTION for own in times["gathered"]]),
    }
    for name, row in result.items():
        print(name, row)
    OUT.write_text(json.dumps(result, indent=1) + "\n")


def loop(checked: Any, trees: torch.Tensor) -> Callable[[], None]:
    """One step of each structure, one after another."""
    problem = checked.problem
    train, tasks = problem.splits["train"], [task for task in problem.tasks if task.name in TASKS]
    places = [column for column, task in zip(problem.target_slices, problem.tasks, strict=True) if task.name in TASKS]
    made = [Branches(tree, train.inputs.shape[1], [task.outputs for task in tasks]) for tree in trees]
    optimisers = [torch.optim.Adam(module.parameters(), lr=checked.recipe.lr) for module in made]
    rng = torch.Generator().manual_seed(0)
    losses = {
        "cross_entropy": lambda outputs, targets: functional.cross_entropy(outputs, targets[:, 0].long()),
        "bce": functional.binary_cross_entropy_with_logits,
        "mse": functional.mse_loss,
    }

    def step() -> None:
        for module, optimiser in zip(made, optimisers, strict=True):
            batch = torch.randint(len(train), (checked.recipe.batch_size,), generator=rng)
            inputs, targets = train.inputs[batch], train.targets[batch]
            answers = zip(module(inputs), tasks, places, strict=True)
            total = sum(losses[task.loss](outputs, targets[:, place]) for outputs, task, place in answers)
            optimiser.zero_grad()
            total.backward()
            optimiser.step()

    return step


def side_by_side(steps: dict[str, Callable[[], Any]]) -> dict[str, list[float]]:
    """Seconds of a step in interleaved rounds."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(ROUNDS + 1):
        for name, step in steps.items():
            count, start = 0, time.perf_counter()
            while time.perf_counter() - start < SECONDS:
                step()
                count += 1
            if turn:  # the first one warms up
                times[name].append((time.perf_counter() - start) / count)
    return times


def ratio(first: list[float], second: list[float]) -> dict[str, float]:
    """Median and quartiles of the rounds' ratios."""
    low, middle, high = np.quantile(np.array(first) / np.array(second), [0.25, 0.5, 0.75])
    rows = {"ratio": middle, "lower quartile": low, "upper quartile": high}
    return {name: round(float(value), 3) for name, value in rows.items()}


if __name__ == "__main__":
    main()

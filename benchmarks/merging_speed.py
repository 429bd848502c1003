"""What gathered layers cost, and what N structures side by side save, measured in one run.

One thread, digits_scales, four tasks, three layers of 64, 16 replicas. *Separate*: K networks for each replica as one batch of N K
copies, without tables; *gathered*: the trainer's step; *loop*: hand-written modules, one structure after another; *cka*:
comparing all pairs and stages, relative to the 20 steps between two decisions. Medians and quartiles of the ratios of
interleaved rounds. Writes ``benchmarks/results/merging_speed.json``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.measuring import Run, Work, command_line, ratio, side_by_side, threads, vector_env
from mtl_gym.decisions.merging.decision import Merging
from mtl_gym.decisions.merging.transfer import Transfer
from mtl_gym.decisions.partitions import labels, together
from mtl_gym.environments import LAYER_MERGING
from mtl_gym.models import make_model
from mtl_gym.models.base import Model, Tensors
from mtl_gym.models.branched import PLACES, BranchedModel
from mtl_gym.problems.base import Problem
from mtl_gym.training.recipe import Recipe
from mtl_gym.training.trainer import Trainer

TASKS, HIDDEN_SIZES, REPLICAS, STEPS_PER_ACTION = ["digit", "parity", "ink", "centre"], [64, 64, 64], 16, 20
ROUNDS, SECONDS = 15, 0.3


class Separate(BranchedModel):
    """The same networks, with each task using its own copies without a table."""

    def forward(
        self, parameters: Tensors, buffers: Tensors, inputs: torch.Tensor, *, train: bool = False, seeds: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, Tensors]:
        """Outputs of all heads, from the own copy of each task that takes part: the same ones in all rows."""
        ordered = [*parameters.values()]
        values = inputs[:, None].expand(-1, self.num_tasks, *inputs.shape[1:]).flatten(0, 1)
        for stage in range(self.num_stages):
            values = self.run(stage, ordered[stage].flatten(0, 1), values)
        own = values.unflatten(0, (len(inputs), -1))
        weights, biases = ordered[-2:]
        columns = zip(buffers[PLACES][0].tolist(), self._columns, strict=True)
        parts = [
            torch.baddbmm(biases[:, :, start:stop], own[:, place], weights[:, :, start:stop]) for place, (start, stop) in columns
        ]
        return torch.cat(parts, dim=2), buffers


def separate(problem: Problem, recipe: Recipe) -> Model:
    """A separate network for each task."""
    return Separate(make_model(problem, recipe.hidden_sizes), problem, recipe.num_tasks)


class Branches(nn.Module):
    """Hand-written code: a module for each copy of each stage."""

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
    """Different trees (count, S, K): partitions, each of which refines the one before."""
    rng, found = np.random.default_rng(0), {}
    while len(found) < count:
        rows, pairs = [], torch.ones(tasks, tasks, dtype=torch.bool)
        for _ in HIDDEN_SIZES:
            pairs = pairs & together(torch.from_numpy(rng.integers(0, 2, tasks)))
            rows.append(labels(pairs))
        found[str(torch.stack(rows).tolist())] = torch.stack(rows)
    return torch.stack(list(found.values()))


def main(words: Sequence[str] | None = None) -> None:
    """Measures and stores the results."""
    run: Run = command_line(words)
    arguments: dict[str, Any] = {
        "problem": "digits_scales",
        "tasks": TASKS,
        "hidden_sizes": HIDDEN_SIZES,
        "train_steps": run.size(20_000, 400),
    }
    gathered, merged = (environment(**arguments) for _ in range(2))
    checked, trees = gathered.arguments, structures(REPLICAS, len(TASKS))
    alone = Trainer(checked.problem, checked.recipe, REPLICAS, model=separate)
    alone.begin(range(REPLICAS), range(REPLICAS))
    Transfer(merged.decision.trainer, kind="average", steps=1, average_moments=False).merge(trees)
    decision: Merging = gathered.decision
    works: dict[str, Work] = {
        "separate": trained(alone),
        "gathered": trained(decision.trainer),
        "gathered, 16 structures": trained(merged.decision.trainer),
        "loop over 16 structures": loop(checked, trees),
        "cka": lambda: None if len(decision.similarities()) else 0,
    }
    with threads(1):
        times = side_by_side(works, rounds=run.size(ROUNDS), seconds=0 if run.smoke else SECONDS)
    result = {
        "gathered over separate": ratio(times["gathered"], times["separate"]),
        "loop over gathered, 16 structures": ratio(times["loop over 16 structures"], times["gathered, 16 structures"]),
        "cka over the time between two decisions": ratio(times["cka"], times["gathered"] * STEPS_PER_ACTION),
    }
    for name, row in result.items():
        print(name, row)
    run.write(result)


def environment(**arguments: Any) -> Any:
    """Trainings in progress, whose layers can be merged."""
    env = vector_env(LAYER_MERGING, REPLICAS, reward="none", **arguments)
    env.reset(options={"instance": np.arange(REPLICAS)})
    return env


def trained(trainer: Trainer) -> Callable[[], None]:
    """A training step with weights of 1."""
    weights, active = torch.ones(REPLICAS, len(TASKS)), torch.ones(REPLICAS, dtype=torch.bool)
    return lambda: trainer.update(weights, active)


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


if __name__ == "__main__":
    main()

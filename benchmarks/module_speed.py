"""The training steps of people's own modules, beside native networks and loops written by hand: a part of ``doors_speed``.

Sixteen replicas of the digits. A perceptron of the problem's size as a ``torch.nn.Module``, by ``vmap`` and by a loop, relative to
the native network (goal of ``vmap``: at least .6); and a convolutional network with batch norm by a loop, relative to a
hand-written loop over 16 modules, each with its own fused Adam (goal: at least .9).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from benchmarks.measuring import Run, Work, side_by_side, speeds
from mtl_gym.environments import LOSS_WEIGHTING, specification
from mtl_gym.envs.arguments import check_arguments
from mtl_gym.problems import load_problem
from mtl_gym.problems.base import Problem
from mtl_gym.training.trainer import Trainer

REPLICAS, ROUNDS, STEPS = 16, 21, 300


class Perceptron(nn.Module):
    """The digits' native network of the default widths."""

    def __init__(self) -> None:
        super().__init__()
        digits = load_problem("digits")
        widths = [64, *digits.defaults.hidden_sizes]
        pairs = pairwise(widths)
        self.trunk = nn.Sequential(nn.Flatten(), *(layer for pair in pairs for layer in (nn.Linear(*pair), nn.ReLU())))
        self.heads = nn.Linear(widths[-1], digits.outputs)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Outputs of all tasks side by side."""
        return self.heads(self.trunk(inputs))


class Convolutional(nn.Module):
    """Two convolutions with batch norm, a linear layer and the heads."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Unflatten(1, (1, 8, 8)), *_block(1, 16), *_block(16, 32), nn.Flatten(), nn.Linear(128, 64))
        self.heads = nn.Linear(64, load_problem("digits").outputs)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Outputs of all tasks side by side."""
        return self.heads(functional.relu(self.trunk(inputs)))


def _block(channels: int, width: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2)


def trainer_of(problem: str | Problem) -> Trainer:
    """A trainer of all replicas, at the start."""
    given = check_arguments(specification(LOSS_WEIGHTING), problem=problem, train_steps=STEPS)
    trainer = Trainer(given.problem, given.recipe, REPLICAS)
    trainer.begin(range(REPLICAS), range(REPLICAS))
    return trainer


def digits_by(make: Callable[[], nn.Module], vectorize: str) -> Problem:
    """The digits, learned by a module."""
    digits = load_problem("digits")
    return Problem("digits_by", digits.tasks, digits.splits, model=make, vectorize=vectorize)


def steps_of(trainer: Trainer) -> Work:
    """Steps of all replicas with equal weights; from the start again at the end of an episode."""
    weights = torch.ones(REPLICAS, trainer.recipe.num_tasks)
    active = torch.ones(REPLICAS, dtype=torch.bool)

    def work() -> int:
        if int(trainer.ledger.step[0]) == STEPS:
            trainer.begin(range(REPLICAS), range(REPLICAS))
        trainer.update(weights, active)
        return REPLICAS

    return work


def by_hand(trainer: Trainer) -> Work:
    """The same by a loop over modules with an optimiser each, on the trainer's batches."""
    problem, order = trainer.problem, trainer.losses.drawn.batches.order.long()
    modules = [Convolutional() for _ in range(REPLICAS)]
    optimisers = [torch.optim.Adam(module.parameters(), lr=trainer.recipe.lr, fused=True) for module in modules]
    samples, steps = problem.splits["train"], iter(range(10**9))

    def work() -> int:
        step = next(steps) % STEPS
        for module, optimiser, rows in zip(modules, optimisers, order[:, step], strict=True):
            outputs = module(samples.inputs[rows])
            loss = _loss(problem, outputs, samples.targets[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        return REPLICAS

    return work


def _loss(problem: Problem, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The sum of the digits' losses, as one would write it."""
    functions: dict[Any, Callable[..., torch.Tensor]] = {
        "cross_entropy": lambda own, labels: functional.cross_entropy(own, labels[:, 0].long()),
        "bce": functional.binary_cross_entropy_with_logits,
        "mse": functional.mse_loss,
    }
    slices = zip(problem.tasks, problem.output_slices, problem.target_slices, strict=True)
    return torch.stack([functions[task.loss](outputs[:, own], targets[:, labels]) for task, own, labels in slices]).sum()


def modules(run: Run) -> dict[str, Any]:
    """Steps of modules, relative to the native network and to a loop by hand."""
    perceptrons = {"native": trainer_of("digits")} | {way: trainer_of(digits_by(Perceptron, way)) for way in ("vmap", "loop")}
    convolutional = trainer_of(digits_by(Convolutional, "auto"))
    groups = {
        "perceptron": ("native", {name: steps_of(own) for name, own in perceptrons.items()}),
        "convolutional": ("by hand", {"by hand": by_hand(convolutional), "module": steps_of(convolutional)}),
    }
    found: dict[str, Any] = {"replicas": REPLICAS, "convolutional is computed by": convolutional.model.vectorization.name}  # type: ignore[attr-defined]
    for name, (base, works) in groups.items():
        times = side_by_side(works, rounds=run.size(ROUNDS), seconds=0 if run.smoke else 0.2)
        steps = {own: round(1 / float(sorted(seconds)[len(seconds) // 2])) for own, seconds in times.items()}
        found[name] = {"steps per second": steps, f"speed relative to {base}": speeds(times, base)}
    return found

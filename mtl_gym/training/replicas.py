"""N copies of a model that are evaluated and optimised together."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor

from mtl_gym.models.base import Model, Tensors
from mtl_gym.problems.inputs import Inputs
from mtl_gym.problems.instances import Instance
from mtl_gym.training.optim import LR_SCHEDULES, OPTIMIZERS
from mtl_gym.training.recipe import Recipe
from mtl_gym.training.state import State

_LARGE_ODD: Final = -7046029254386353131  # spreads a replica's seeds over the 64-bit integers


class Replicas:
    """N copies of a model, their optimisers and learning rates."""

    def __init__(self, model: Model, recipe: Recipe, state: State) -> None:
        self.recipe = recipe
        self.flat = state.add("parameters", (model.size,))  # (N, P)
        self.buffers = {name: state.add(f"buffer {name}", *kind) for name, kind in model.buffers.items()}
        self.moments = state.add("moments", (OPTIMIZERS[recipe.optimizer].buffers, model.size))
        self.updates = state.add("updates", (len(model.blocks),))
        self.learning_rates = state.add("learning_rates", (), torch.float64)  # (N,) before the schedule
        self._seeds = state.add("seeds", (), torch.int64) if model.stochastic else None
        self.link(model)

    def link(self, model: Model) -> None:
        """Creates everything that is derived from the model and the state, such as views for autograd and the optimiser."""
        self.model = model
        self.gradient = torch.empty_like(self.flat)  # (N, P) for the next step, which writes it before it is read
        # ``flat`` as leaves of the autograd graph, (N, *shape) by name
        self.parameters = {name: part.detach().requires_grad_() for name, part in self.views(self.flat).items()}
        self.__dict__.pop("_pieces", None)
        self._used: dict[int, list[int]] = {}

    @functools.cached_property
    def _pieces(self) -> list[list[Tensor]]:
        """The parts of all rows that are optimised, made at the first step: one tensor each, with many rows this takes a while."""
        optimised = (self.flat, self.gradient, *self.moments.unbind(1))
        pieces = [[piece for row in tensor.unbind(0) for piece in row.split(self.model.blocks)] for tensor in optimised]
        return [*pieces, list(self.updates.flatten())]

    def __getstate__(self) -> dict[str, Any]:
        derived = ("model", "gradient", "parameters", "_pieces", "_used")
        return {name: value for name, value in self.__dict__.items() if name not in derived}

    def begin(self, row: int, instance: Instance) -> None:
        """Sets a row to an instance's initial values."""
        values, buffers = self.model.init(instance.stream("parameters"), instance.tasks)
        self.flat[row] = torch.from_numpy(values)
        for name, value in buffers.items():
            self.buffers[name][row] = torch.as_tensor(value)
        self.learning_rates[row] = self.recipe.lr * instance.lr
        if self._seeds is not None:
            self._seeds[row] = int(instance.stream("dropout").integers(2**62))

    def restructured(self) -> None:
        """To be called after buffers were written: the parts in use are determined again."""
        self._used.clear()

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """Views of a table (N, P) as parameters (N, *shape) by name."""
        parts = flat.split(self.model.sizes, dim=1)
        return {name: part.unflatten(1, shape) for part, (name, shape) in zip(parts, self.model.shapes.items(), strict=True)}

    def shared(self) -> list[Tensor]:
        """The shared parameters, as leaves of the autograd graph."""
        return [*self.parameters.values()][: self.model.shared]

    def train_pass(self, parameters: Tensors, inputs: Inputs, step: Tensor) -> tuple[Tensor, Tensors]:
        """Outputs (N, B, O, *S) and new buffers of a training pass at each replica's step (N,), which seeds its randomness."""
        seeds = None if self._seeds is None else self._seeds + step * _LARGE_ODD
        return self.model.forward(parameters, self.buffers, inputs, train=True, seeds=seeds)

    def outputs(self, inputs: Inputs) -> Tensor:
        """Outputs (N, B, O, *S) outside training."""
        return self.model.forward(self.parameters, self.buffers, inputs)[0]

    def step(self, rows: Tensor, rates: Sequence[float], buffers: Tensors) -> None:
        """One optimiser step along ``gradient`` in the rows (N,) bool, whose buffers become those of the training pass.

        ``rates`` are the learning rates of all rows; rows with the same rate share one call.
        """
        chosen = [row for row, plays in enumerate(rows.tolist()) if plays]
        for name, own in self.buffers.items():
            if name in buffers and buffers[name] is not own:
                own[chosen] = buffers[name].detach()[chosen]
        recipe, update = self.recipe, OPTIMIZERS[self.recipe.optimizer].update
        alike: dict[float, list[int]] = {}
        for row in chosen:
            alike.setdefault(rates[row], []).extend(self._numbers(row))
        for lr, numbers in alike.items():
            parameters, gradients, *moments, updates = [[pieces[number] for number in numbers] for pieces in self._pieces]
            update(parameters, gradients, moments, updates, lr=lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay)

    def _numbers(self, row: int) -> list[int]:
        """The parts of a row that are in use and therefore trained."""
        if row not in self._used:
            used = self.model.used({name: own[row : row + 1] for name, own in self.buffers.items()})
            count = self.updates.shape[1]
            flags = [True] * count if used is None else used[0].tolist()
            self._used[row] = [row * count + piece for piece, own in enumerate(flags) if own]
        return self._used[row]

    def rates(self, step: Tensor) -> list[float]:
        """Learning rates of the rows' next steps, according to the schedule."""
        factor, train_steps = LR_SCHEDULES[self.recipe.lr_schedule], self.recipe.train_steps
        pairs = zip(self.learning_rates.tolist(), step.tolist(), strict=True)
        return [lr * factor(own / train_steps) for lr, own in pairs]

    def finite(self) -> Tensor:
        """Whether all parameters of a replica are finite (N,)."""
        return torch.isfinite(self.flat.sum(1))

"""How much each sample of a batch helps a main task: inner products of its gradient with the held-out gradient, in one pass.

The inner product of a sample's gradient with a vector v is the derivative of its loss along v, so one forward-mode pass gives those
of all samples, tasks and replicas. (Gregoire, Chaudhary and Verboven, arXiv 2306.04519, use B K backward passes for a batch of B.)
"""

from __future__ import annotations

import functools
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional

from mtl_gym.checks import should
from mtl_gym.problems.base import Problem
from mtl_gym.training.objectives import Objectives
from mtl_gym.training.trainer import Trainer

_FORWARD_MODE = threading.Lock()
"""Torch has a single level of forward mode per process."""


class Alignments(NamedTuple):
    """The result of :func:`align`."""

    products: Tensor  # (N, B, K) of each sample's gradient with the normalised gradient of the main task's loss on *meta*
    main: Tensor  # (N,) that loss
    forward: Tensor  # cost (N,) in forward passes beyond those of a training step
    backward: Tensor  # the same in backward passes


@functools.cache
def _load_forward_mode() -> None:
    """Loads torch's forward-mode rules once, without the warning about a deprecated function that this raises."""
    with warnings.catch_warnings(), forward_ad.dual_level():
        warnings.simplefilter("ignore", DeprecationWarning)
        forward_ad.make_dual(torch.zeros(1), torch.zeros(1))


@contextmanager
def forward_mode() -> Iterator[None]:
    """The level of forward mode, of which torch has one in a process.

    Raises:
        RuntimeError: If the level is somebody else's.
    """
    with _FORWARD_MODE:
        level = getattr(forward_ad, "_current_level", -1)
        if level >= 0:
            remedy = "Torch has one such level in a process, and samples are aligned by it."
            raise RuntimeError(should("torch.autograd.forward_ad.dual_level", "be left before", f"level {level}", remedy))
        _load_forward_mode()
        with forward_ad.dual_level():
            yield


def main_task(trainer: Trainer) -> int:
    """The main task's index in the problem."""
    names = [task.name for task in trainer.problem.tasks]
    return names.index(trainer.recipe.main_task or names[0])


def align(trainer: Trainer) -> Alignments:
    """Aligns the next batch's samples with the main task's gradient on *meta* (shared parameters); also computes their losses."""
    direction, main = _direction(trainer)
    with forward_mode():
        # Heads have zero tangents: without a tangent for each factor, torch runs the rule of a product in Python.
        pairs = trainer.replicas.parameters.items()
        duals = {name: forward_ad.make_dual(own, direction[name]) for name, own in pairs}
        found, buffers = trainer.losses.sample_losses(duals)
        losses, tangents = forward_ad.unpack_dual(found)
    trainer.losses.pending.of_samples, trainer.losses.pending.buffers = losses, buffers
    products = torch.zeros_like(losses) if tangents is None else tangents.detach()
    held_out = trainer.losses.held_out_cost(["meta"])
    fresh = trainer.once("alignments")
    return Alignments(products, main, fresh * (held_out + 1), fresh * held_out)  # the tangents cost as much as the values


def _direction(trainer: Trainer) -> tuple[dict[str, Tensor], Tensor]:
    """The main task's normalised gradient on *meta* by parameter, 0 where it vanishes and for heads, and its loss (N,)."""
    losses, problem, replicas, number = trainer.losses, trainer.problem, trainer.replicas, main_task(trainer)
    inputs = losses.data.holdout_inputs(["meta"])
    outputs = trainer.model.outputs(replicas.parameters, replicas.buffers, inputs, problem.output_slices[number])
    labels = losses.data.holdout_labels("meta")[:, :, problem.target_slices[number]]
    objective = _objective(problem, number, trainer.state.device, missing=not losses.drawn.complete)
    main = objective.parts(outputs, labels, [outputs.shape[1]])[0][:, 0]
    main = main * trainer.ledger.scales[:, 0]
    flat = torch.zeros_like(replicas.flat)
    if trainer.model.shared:
        parts = torch.autograd.grad(main.sum(), replicas.shared(), materialize_grads=True)
        joined = torch.cat([part.flatten(1) for part in parts], dim=1)
        flat[:, : joined.shape[1]] = functional.normalize(joined, dim=1, eps=1e-30)
    return replicas.views(flat), main.detach()


@functools.lru_cache(maxsize=8)
def _objective(problem: Problem, task: int, device: torch.device, *, missing: bool) -> Objectives:
    return Objectives(problem, (problem.tasks[task].name,), device, missing=missing, alone=True)


def cosines(trainer: Trainer, products: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines (N, B, K) from ``products``, with sample gradients by B K backward passes over single samples; and their cost."""
    losses = trainer.losses.sample_graph()
    if not trainer.model.shared:
        return torch.zeros_like(products), torch.zeros_like(products[:, 0, 0])
    squares = torch.zeros_like(losses)
    for sample in range(losses.shape[1]):
        for task in range(losses.shape[2]):
            own = losses[:, sample, task].sum()
            parts = torch.autograd.grad(own, trainer.replicas.shared(), retain_graph=True, materialize_grads=True)
            squares[:, sample, task] = sum(part.flatten(1).square().sum(1) for part in parts)
    norms = squares.detach().sqrt()
    found = torch.where(norms > 0, products / norms.clamp(min=1e-30), 0).clamp(-1, 1)
    return found, trainer.once("cosines") * (losses.shape[1] * losses.shape[2])

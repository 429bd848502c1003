"""What a problem is like before anyone waits for it: data, scales and conflicts at the start, time, memory, and what to mind."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import gymnasium
import torch
from torch import Tensor

from mtl_gym.context import own_mode
from mtl_gym.environments import LOSS_WEIGHTING, find_environments, specification
from mtl_gym.envs.arguments import check_arguments
from mtl_gym.evaluation.kernels import running_kernels
from mtl_gym.evaluation.problem_data import input_data, recurring, task_data
from mtl_gym.evaluation.problem_warnings import warnings_of
from mtl_gym.problems import load_problem
from mtl_gym.problems.axes import AXES
from mtl_gym.problems.base import Problem
from mtl_gym.problems.drawn_splits import check_drawable
from mtl_gym.training.memory import allowed_bytes, check_memory, training_bytes
from mtl_gym.training.recipe import Recipe
from mtl_gym.training.references import AVERAGED
from mtl_gym.training.trainer import Trainer, own_model

INSTANCES = 8
"""Instances over which losses and gradients at the start are averaged: 0 to 7 of the distribution ``clean``."""
SIDE_BY_SIDE, COMPARED = 16, 20
"""Trainings side by side, and instances, of a comparison with default arguments."""
_WARM, _TIMED, _SECONDS = 2, 20, 1.0
"""Training steps before those that are timed; how many of these, at most, and for how long."""


@own_mode()
def check(
    problem: str | Problem,
    *,
    hidden_sizes: Sequence[int] | None = None,
    batch_size: int | None = None,
    train_steps: int | None = None,
    device: str = "cpu",
) -> dict[str, Any]:
    """Says what a problem is like, in seconds: nothing is trained beyond a few steps.

    Args:
        problem: A name, ``file.py:function``, ``module:function``, or a :class:`Problem`.
        hidden_sizes: Widths of the trunk's layers; ``None``: the problem's default, as for the others.
        batch_size: Samples of a training step.
        train_steps: Length of a training.
        device: Where it is measured.

    Returns:
        JSON-plain:

        ``problem``, ``address``, ``splits`` (sizes), ``inputs`` (:func:`~mtl_gym.evaluation.problem_data.input_data`), and
        ``recurring`` (samples by split whose inputs another split has too).

        ``tasks`` by name: :func:`~mtl_gym.evaluation.problem_data.task_data`, and, as means over the first batches of instances 0
        to 7 that have its labels, ``start_loss`` and ``start_gradient``, the norm of the gradient of the shared parameters.

        ``conflicts``: ``cosines`` of these gradients, a list of two tasks and a number, in ascending order, and ``pairs`` and
        ``negative``, how many there are and are below 0.

        ``network``: ``name``, ``identity``, numbers of ``shared`` parameters and of those of all ``heads``.

        ``training``: ``num_tasks``, ``train_steps``, ``batch_size``, ``lr``, ``epochs``; by number of trainings side by side,
        ``"1"`` and ``"16"``, ``step_seconds`` and ``bytes`` (an upper bound; ``None`` where that is more than there may
        be); ``seconds`` of one training with equal weights; of :func:`mtl_gym.compare` with its defaults: of the
        single-task ``references``, and of each policy that costs as much as equal weights (``policy``); and of the
        references of rewards (``reward``), which are kept. Estimates, on the ``kernels`` of this process.

        ``environments`` by id: ``None``, or why it does not support the problem. ``axes`` by name: ``None``, or why instances
        cannot vary along it. ``warnings``: sentences.

        Where the problem cannot be trained or compared, ``error`` says why; in the former case, ``conflicts`` and ``training`` are
        ``None``.

    Raises:
        ValueError, TypeError: If there is no such problem, or an argument is wrong.

    Example:
        >>> import mtl_gym
        >>> found = mtl_gym.check("quadratic")
        >>> found["splits"], found["axes"]["split"]
        ({'train': 128, 'meta': 16, 'reward': 16, 'test': 16}, 'it has no pool from which instances could draw a split')
    """
    loaded = load_problem(problem)
    given = {"hidden_sizes": hidden_sizes, "batch_size": batch_size, "train_steps": train_steps, "device": device}
    found: dict[str, Any] = {
        "problem": loaded.name,
        "address": loaded.address,
        "splits": {name: len(split) for name, split in loaded.splits.items()},
        "inputs": input_data(loaded),
        "recurring": recurring(loaded),
        "tasks": task_data(loaded),
        "conflicts": None,
        "network": None,
        "training": None,
        "environments": {id: _reason(loaded, id) for id in find_environments()},
        "axes": _axes(loaded),
        "error": None,
    }
    try:
        recipe = check_arguments(specification(LOSS_WEIGHTING), problem=loaded, **given).recipe  # type: ignore[arg-type]
        _measure(loaded, recipe, found)
        loaded.check_labelled("test", recipe.tasks)  # as comparisons do
    except ValueError as error:
        if any(value not in (None, "cpu") for value in given.values()):
            raise
        found["error"] = str(error)
    return {**found, "warnings": warnings_of(found)}


def _measure(problem: Problem, recipe: Recipe, found: dict[str, Any]) -> None:
    """Adds what trainings are like."""
    model = own_model(problem, recipe)
    heads = model.size - model.num_shared
    found["network"] = {"name": problem.network_name, "identity": model.identity, "shared": model.num_shared, "heads": heads}
    if (way := getattr(model, "vectorization", None)) is not None:
        found["network"]["computed by"] = str(way)
    rows = (
        INSTANCES if training_bytes(problem, recipe, model, INSTANCES, task_gradients=True) <= allowed_bytes(recipe.device) else 1
    )
    check_memory(problem, recipe, 1, task_gradients=True, argument=None)
    started = Trainer(problem, recipe, rows)
    started.begin(range(rows), range(rows))
    losses, norms, cosines = _start(started)
    for task, loss, norm in zip(problem.tasks, losses, norms, strict=True):
        found["tasks"][task.name] |= {"start_loss": loss, "start_gradient": norm}
    found["conflicts"] = _conflicts([task.name for task in problem.tasks], cosines)
    found["training"] = _training(problem, recipe)


def _start(trainer: Trainer) -> tuple[list[float | None], list[float | None], Tensor]:
    """Means over instances of the losses and gradient norms (K) of the first batch, where it has labels, and cosines (K, K)."""
    known = trainer.losses.labelled().cpu()
    losses = trainer.losses.forward().double().cpu()
    gradients = trainer.task_gradients()[0][:, :, : trainer.model.num_shared].double().cpu()  # (N, K, Q)
    norms = gradients.norm(dim=2)  # (N, K)
    units = gradients / norms.where(norms > 0, torch.nan)[:, :, None]
    cosines = (units @ units.transpose(1, 2)).nanmean(0) if gradients.shape[2] else torch.full(norms.shape[1:] * 2, torch.nan)
    return _means(losses, known), _means(norms, known), cosines


def _means(values: Tensor, known: Tensor) -> list[float | None]:
    return [None if own != own else own for own in values.where(known, torch.nan).nanmean(0).tolist()]


def _conflicts(names: Sequence[str], cosines: Tensor) -> dict[str, Any]:
    pairs = [(float(cosines[a, b]), names[a], names[b]) for a, b in combinations(range(len(names)), 2)]
    known = sorted((pair for pair in pairs if pair[0] == pair[0]), key=lambda pair: pair[0])  # NaN where a gradient is 0
    cosine_of = [[first, second, cosine] for cosine, first, second in known]
    return {"pairs": len(known), "negative": sum(pair[0] < 0 for pair in known), "cosines": cosine_of}


def _training(problem: Problem, recipe: Recipe) -> dict[str, Any]:
    model = own_model(problem, recipe)
    needed = {count: training_bytes(problem, recipe, model, count) for count in (1, SIDE_BY_SIDE)}
    fits = {count: needed[count] <= allowed_bytes(recipe.device) for count in needed}
    seconds = {count: _step_seconds(problem, recipe, count) if fits[count] else None for count in needed}
    alone, together = seconds[1], seconds[SIDE_BY_SIDE]
    rounds = recipe.train_steps * COMPARED / SIDE_BY_SIDE
    return {
        "num_tasks": recipe.num_tasks,
        "train_steps": recipe.train_steps,
        "batch_size": recipe.batch_size,
        "lr": recipe.lr,
        "epochs": recipe.train_steps * recipe.batch_size / len(problem.splits["train"]),
        "bytes": {str(count): int(own) if fits[count] else None for count, own in needed.items()},
        "step_seconds": {str(count): own for count, own in seconds.items()},
        "seconds": {
            "training": None if alone is None else recipe.train_steps * alone,
            "references": None if together is None else rounds * recipe.num_tasks * together,
            "policy": None if together is None else rounds * together,
            "reward": None if together is None else rounds * AVERAGED / COMPARED * recipe.num_tasks * together,
        },
        "kernels": running_kernels(recipe.device),
    }


def _step_seconds(problem: Problem, recipe: Recipe, rows: int) -> float:
    """The median time of a training step with equal weights."""
    timed = replace(recipe, train_steps=_WARM + _TIMED)
    trainer = Trainer(problem, timed, rows)
    trainer.begin(range(rows), range(rows))
    weights = torch.ones(rows, recipe.num_tasks, device=trainer.state.device)
    active = torch.ones(rows, dtype=torch.bool, device=trainer.state.device)
    found: list[float] = []
    for step in range(_WARM + _TIMED):
        begun = time.perf_counter()
        trainer.update(weights, active)
        if trainer.state.device.type == "cuda":
            torch.cuda.synchronize(trainer.state.device)
        found += [time.perf_counter() - begun] if step >= _WARM else []
        if sum(found) > _SECONDS:
            break
    return statistics.median(found)


def _reason(problem: Problem, env: str) -> str | None:
    """Why an environment does not support a problem; ``None`` if it does. It is made, but nothing is trained."""
    try:
        unsupported = specification(env).supports(problem)
        if unsupported is None:
            gymnasium.make_vec(env, num_envs=1, vectorization_mode="vector_entry_point", problem=problem).close()
        return unsupported
    except ValueError as error:
        return str(error)
    except Exception as error:  # another package's environment may raise anything
        return f"it cannot be made: {type(error).__name__}: {error}"


def _axes(problem: Problem) -> dict[str, str | None]:
    """Why instances of a problem cannot vary along an axis, or do not; ``None`` where they can."""
    reasons: dict[str, str | None] = dict.fromkeys([*AXES, *(problem.family.axes if problem.family else ())])
    if problem.family is not None:
        reasons["split"] = "its instances draw all their data"
    elif problem.pool is None:
        reasons["split"] = "it has no pool from which instances could draw a split"
    else:
        try:
            check_drawable(problem)
        except ValueError as error:
            reasons["split"] = str(error)
    if problem.num_tasks == 1:
        reasons |= dict.fromkeys(("unrelated", "nearest_flip"), "there are no auxiliary tasks")
    return reasons

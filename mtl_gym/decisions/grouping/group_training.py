"""Groups of tasks: trains a new network for each on the sum of its tasks' losses, and measures the results.

In hard groupings, a *group* is a bit mask of the instance's K tasks: bit t is task t. M is the number of the problem's metrics.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from mtl_gym.checks import should
from mtl_gym.models.base import Model
from mtl_gym.problems.base import Problem
from mtl_gym.problems.scores import MetricTable, split_metrics
from mtl_gym.progress import progress_bar
from mtl_gym.training.data import spread
from mtl_gym.training.formulas import linear_cka, pooled
from mtl_gym.training.recipe import Recipe
from mtl_gym.training.references import train
from mtl_gym.training.trainer import Trainer

MEASURED = ("meta", "reward", "test")
"""Splits on which groups are measured."""
LAYER_CKA = "layer_cka"
"""The signal of :func:`layer_similarity`."""
COMPARED = 256
"""Training samples on which the layers of single-task networks are compared."""
AT_ONCE = 64
"""Trainings that run side by side."""


def mask_of(tasks: Iterable[int]) -> int:
    """The bit mask of some tasks."""
    return sum(1 << task for task in tasks)


def masks_of(labels: Sequence[int]) -> list[int]:
    """The groups' bit masks, in order of their first tasks, from the group of each task."""
    return [mask_of([task for task, own in enumerate(labels) if own == label]) for label in dict.fromkeys(labels)]


def members(masks: Sequence[int], num_tasks: int) -> Tensor:
    """1 for each task in a group, else 0 (len(masks), K)."""
    return torch.tensor([[float(mask >> task & 1) for task in range(num_tasks)] for mask in masks]).view(-1, num_tasks)


def train_groups(problem: Problem, recipe: Recipe, ids: Sequence[int], weights: Tensor) -> Iterator[Trainer]:
    """Trains one network per group, in parallel, from the instances' initial weights and in their data order.

    Args:
        problem: The problem.
        recipe: How to train.
        ids: (R) the instance of each group.
        weights: (R, K) weights of the tasks' losses in each group.

    Yields:
        Trainers at the end of training, whose rows are up to 64 groups.
    """
    for start in range(0, len(ids), AT_ONCE):
        own = ids[start : start + AT_ONCE]
        trainer = Trainer(problem, recipe, len(own))
        trainer.begin(range(len(own)), own)
        with progress_bar(recipe.train_steps, f"groups: trainings {start + 1} to {start + len(own)} of {len(ids)}") as update:
            train(trainer, weights[start : start + AT_ONCE].to(trainer.ledger.scales), partial(update, advance=1))
        yield trainer


def group_metrics(problem: Problem, recipe: Recipe, ids: Sequence[int], masks: Sequence[int]) -> Tensor:
    """Metrics (R, 3, M) float64 on *meta*, *reward* and *test* of one group per instance (R), trained alone; NaN if diverged."""
    trainers = train_groups(problem, recipe, ids, members(masks, recipe.num_tasks))
    found = [measure(trainer) for trainer in trainers]
    return torch.cat(found) if found else torch.empty(0, len(MEASURED), len(MetricTable(problem).names), dtype=torch.float64)


def ensemble_metrics(problem: Problem, recipe: Recipe, ids: Sequence[int], memberships: Tensor) -> Tensor:
    """Metrics (N, 3, M) float64 of STG-MTL's soft groupings, with ``memberships`` u (N, K, G) that sum to 1 for each task.

    Every group with a member is trained on ``sum_t u_tc L_t``; a task's prediction is ``z_t = sum_c u_tc z_t^(c)``, on the logits.
    """
    rows, columns = (memberships > 0).any(1).nonzero(as_tuple=True)
    shares = memberships[rows, :, columns]  # (R, K)
    totals, labels = ([torch.empty(0)] * len(MEASURED) for _ in range(2))
    start = 0
    for trainer in train_groups(problem, recipe, [ids[row] for row in rows.tolist()], shares):
        own = slice(start, start + trainer.num_replicas)
        start = own.stop
        of_outputs = _of_outputs(trainer, shares[own])
        for place, name in enumerate(MEASURED):
            outputs, targets = trainer.outputs(name), trainer.losses.data.targets(name)
            apart = targets.ndim == outputs.ndim  # where instances have splits of their own
            parts = outputs * of_outputs.view(len(of_outputs), 1, -1, *[1] * (outputs.ndim - 3))
            if totals[place].ndim == 1:
                totals[place] = outputs.new_zeros(len(ids), *outputs.shape[1:])
                labels[place] = targets.new_zeros(len(ids), *targets.shape[1:]) if apart else targets
            totals[place].index_add_(0, rows[own].to(outputs.device), parts)
            if apart:
                labels[place][rows[own].to(outputs.device)] = targets
    return torch.stack([_measured(problem, *pair) for pair in zip(totals, labels, strict=True)], dim=1)


def _of_outputs(trainer: Trainer, shares: Tensor) -> Tensor:
    """Memberships (R, O) of all output channels from those of the participating tasks (R, K); 0 for the others."""
    of_tasks = torch.zeros(len(shares), trainer.problem.num_tasks).scatter(1, trainer.ledger.tasks.cpu(), shares)
    widths = torch.tensor([task.outputs for task in trainer.problem.tasks])
    return of_tasks.repeat_interleave(widths, dim=1).to(trainer.ledger.scales)


def measure(trainer: Trainer) -> Tensor:
    """Metrics (R, 3, M) float64 of networks on *meta*, *reward* and *test*; NaN if diverged."""
    finite = trainer.finite().cpu()[:, None]
    found = [_measured(trainer.problem, trainer.outputs(name), trainer.losses.data.targets(name)) for name in MEASURED]
    return torch.stack([torch.where(finite, values, torch.nan) for values in found], dim=1)


def _measured(problem: Problem, outputs: Tensor, targets: Tensor) -> Tensor:
    """Metrics (R, M) of outputs (R, n, O, *S) on a split with these targets; NaN for rows that are not finite."""
    metrics = split_metrics(problem, outputs, targets.to(outputs.device))
    finite = torch.isfinite(outputs).flatten(1).all(1).cpu()[:, None]
    table = torch.stack([metrics[name].cpu().double() for name in MetricTable(problem).names], dim=1)
    return torch.where(finite, table, torch.nan)


def layer_similarity(problem: Problem, recipe: Recipe, ids: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Similarity of single-task networks of the instances (N).

    Returns:
        Debiased linear CKA (N, K (K - 1) / 2) of their last hidden layers' features on 256 training samples, and the networks'
        metrics (N, K, 3, M).
    """
    num_tasks, similar, metrics = recipe.num_tasks, [], []
    per_round = max(1, AT_ONCE // num_tasks)
    first, second = torch.triu_indices(num_tasks, num_tasks, offset=1)
    for start in range(0, len(ids), per_round):
        own = ids[start : start + per_round]
        several = [id for id in own for _ in range(num_tasks)]
        parts = list(train_groups(problem, recipe, several, torch.eye(num_tasks).repeat(len(own), 1)))
        features = torch.cat([last_features(trainer) for trainer in parts]).unflatten(0, (-1, num_tasks))
        similar.append(linear_cka(pooled(features))[:, first, second])
        metrics.append(torch.cat([measure(trainer) for trainer in parts]).unflatten(0, (-1, num_tasks)))
    return torch.cat(similar), torch.cat(metrics)


def last_features(trainer: Trainer) -> Tensor:
    """Features (R, B, C, ...) of the last hidden layer on 256 training samples; raises as :func:`check_stages` does."""
    check_stages(trainer.model, trainer.recipe)
    samples = spread(len(trainer.problem.splits["train"]), COMPARED).to(trainer.state.device)
    with torch.no_grad():
        return trainer.model.features(trainer.replicas.parameters, trainer.losses.data.fixed_inputs("train", samples))[-1]


def check_stages(model: Model, recipe: Recipe) -> None:
    """Checks that there are hidden layers to compare; raises ``ValueError`` if not."""
    if not model.stages:
        condition = f"give {model.identity} hidden layers, one after another, for 'layer_cka' to compare"
        raise ValueError(should("hidden_sizes", condition, list(recipe.hidden_sizes)))

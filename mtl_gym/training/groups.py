"""Groups of tasks: one network for each, trained anew on the sum of its tasks' losses, and what they reach together.

A *group* of hard groupings is a bit mask of the instance's K tasks: bit t is task t. M is the number of the problem's metrics.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from mtl_gym.arguments import should
from mtl_gym.problems.base import Problem
from mtl_gym.problems.metrics import MetricTable, task_metrics
from mtl_gym.training.learner import Learner
from mtl_gym.training.recipe import Recipe
from mtl_gym.training.samples import spread
from mtl_gym.training.signals import linear_cka, pooled

MEASURED = ("meta", "reward", "test")
"""Splits on which groups are measured."""
COMPARED = 256
"""Training samples on which the layers of single-task networks are compared."""
_AT_ONCE = 64  # trainings that run side by side


def mask_of(tasks: Iterable[int]) -> int:
    """The bit mask of some tasks."""
    return sum(1 << task for task in tasks)


def masks_of(labels: Sequence[int]) -> list[int]:
    """The groups' bit masks, by their first tasks, from the group of each task."""
    return [mask_of([task for task, own in enumerate(labels) if own == label]) for label in dict.fromkeys(labels)]


def members(masks: Sequence[int], num_tasks: int) -> Tensor:
    """Whether each task is in a group, as numbers (len(masks), K)."""
    return torch.tensor([[float(mask >> task & 1) for task in range(num_tasks)] for mask in masks]).view(-1, num_tasks)


def train_groups(problem: Problem, recipe: Recipe, ids: Sequence[int], weights: Tensor) -> Iterator[Learner]:
    """Trains one network for each group, all of them side by side, from the instances' initial weights and in their data order.

    Args:
        problem: The problem.
        recipe: How to train.
        ids: (R) the instance of each group.
        weights: (R, K) weights of the tasks' losses in each group.

    Yields:
        Learners that have come to the end of training; their rows are the groups, at most 64 of them at once.
    """
    for start in range(0, len(ids), _AT_ONCE):
        own = ids[start : start + _AT_ONCE]
        learner = Learner(problem, recipe, len(own))
        learner.begin(range(len(own)), own)
        given = weights[start : start + _AT_ONCE].to(learner.replicas.scales)
        active = torch.ones(len(own), dtype=torch.bool, device=given.device)
        for _ in range(recipe.train_steps):
            learner.update(given, active)
        yield learner


def group_metrics(problem: Problem, recipe: Recipe, ids: Sequence[int], masks: Sequence[int]) -> Tensor:
    """Metrics (R, 3, M) float64 on *meta*, *reward* and *test* of groups, each trained by itself; NaN where one diverged.

    Args:
        problem: The problem.
        recipe: How to train.
        ids: (R) instances.
        masks: (R) groups.
    """
    learners = train_groups(problem, recipe, ids, members(masks, recipe.num_tasks))
    found = [measure(learner) for learner in learners]
    return torch.cat(found) if found else torch.empty(0, len(MEASURED), len(MetricTable(problem).names), dtype=torch.float64)


def ensemble_metrics(problem: Problem, recipe: Recipe, ids: Sequence[int], memberships: Tensor) -> Tensor:
    """Metrics (N, 3, M) float64 of soft groupings, STG-MTL's: a network for each group, and the mean of their logits.

    Every group with a member is trained on ``sum_t u_tc L_t``; a task's prediction is ``z_t = sum_c u_tc z_t^(c)``.

    Args:
        problem: The problem.
        recipe: How to train.
        ids: (N) instances.
        memberships: u (N, K, G), rows of which sum to 1.
    """
    rows, columns = (memberships > 0).any(1).nonzero(as_tuple=True)
    shares = memberships[rows, :, columns]  # (R, K)
    totals: list[Tensor] = [torch.empty(0)] * len(MEASURED)
    start = 0
    for learner in train_groups(problem, recipe, [ids[row] for row in rows.tolist()], shares):
        own = slice(start, start + learner.num_replicas)
        start = own.stop
        of_outputs = _of_outputs(learner, shares[own])
        for place, name in enumerate(MEASURED):
            outputs = learner.outputs(problem.splits[name])
            parts = outputs * of_outputs.view(len(of_outputs), 1, -1, *[1] * (outputs.ndim - 3))
            if totals[place].ndim == 1:
                totals[place] = outputs.new_zeros(len(ids), *outputs.shape[1:])
            totals[place].index_add_(0, rows[own].to(outputs.device), parts)
    return torch.stack([_measured(problem, name, total) for name, total in zip(MEASURED, totals, strict=True)], dim=1)


def _of_outputs(learner: Learner, shares: Tensor) -> Tensor:
    """Shares (R, O) of all output channels, from those of the tasks that take part (R, K); 0 of the others."""
    of_tasks = torch.zeros(len(shares), learner.problem.num_tasks).scatter(1, learner.replicas.tasks.cpu(), shares)
    widths = torch.tensor([task.outputs for task in learner.problem.tasks])
    return of_tasks.repeat_interleave(widths, dim=1).to(learner.replicas.scales)


def measure(learner: Learner) -> Tensor:
    """Metrics (R, 3, M) float64 of networks on *meta*, *reward* and *test*; NaN where one has diverged."""
    finite = learner.finite().cpu()[:, None]
    found = [_measured(learner.problem, name, learner.outputs(learner.problem.splits[name])) for name in MEASURED]
    return torch.stack([torch.where(finite, values, torch.nan) for values in found], dim=1)


def _measured(problem: Problem, split: str, outputs: Tensor) -> Tensor:
    """Metrics (R, M) of outputs (R, n, O, *S) on a split; NaN where one is not finite."""
    targets = problem.splits[split].targets.to(outputs.device)
    metrics = task_metrics(problem, outputs.movedim(1, 2).flatten(2), targets.movedim(0, 1).flatten(1))
    finite = torch.isfinite(outputs).flatten(1).all(1).cpu()[:, None]
    table = torch.stack([metrics[name].cpu().double() for name in MetricTable(problem).names], dim=1)
    return torch.where(finite, table, torch.nan)


def layer_similarity(problem: Problem, recipe: Recipe, ids: Sequence[int]) -> tuple[Tensor, Tensor]:
    """How alike the tasks' own networks are, each trained by itself.

    Args:
        problem: The problem.
        recipe: How to train.
        ids: (N) instances.

    Returns:
        Debiased linear CKA (N, K (K - 1) / 2) of the features of their last hidden layers, on 256 training samples, and the
        networks' metrics (N, K, 3, M).
    """
    num_tasks, similar, metrics = recipe.num_tasks, [], []
    per_round = max(1, _AT_ONCE // num_tasks)
    first, second = torch.triu_indices(num_tasks, num_tasks, offset=1)
    for start in range(0, len(ids), per_round):
        own = ids[start : start + per_round]
        several = [id for id in own for _ in range(num_tasks)]
        parts = list(train_groups(problem, recipe, several, torch.eye(num_tasks).repeat(len(own), 1)))
        features = torch.cat([last_features(learner) for learner in parts]).unflatten(0, (-1, num_tasks))
        similar.append(linear_cka(pooled(features))[:, first, second])
        metrics.append(torch.cat([measure(learner) for learner in parts]).unflatten(0, (-1, num_tasks)))
    return torch.cat(similar), torch.cat(metrics)


def last_features(learner: Learner) -> Tensor:
    """Features (R, B, C, ...) of the last hidden layer, on 256 training samples.

    Raises:
        ValueError: If the network is no chain of hidden layers.
    """
    check_stages(learner)
    inputs = learner.problem.splits["train"].inputs
    values = inputs[spread(len(inputs), COMPARED)].to(learner.replicas.parameters.device)
    values = values.expand(learner.num_replicas, *values.shape)
    with torch.no_grad():
        for place, stage in enumerate(learner.network.stages):
            weight, bias = learner._parameters[2 * place : 2 * place + 2]
            values = stage(weight, bias, values)
    return values


def check_stages(learner: Learner) -> None:
    """Sees to it that there are hidden layers to compare.

    Raises:
        ValueError: If there are none.
    """
    if not learner.network.stages:
        condition = f"give {learner.problem.network!r} hidden layers, one after another, for 'layer_cka' to compare"
        raise ValueError(should("hidden_sizes", condition, list(learner.recipe.hidden_sizes)))

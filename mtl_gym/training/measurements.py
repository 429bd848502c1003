"""The probes of a trainer: what can be measured besides the losses of its steps. N replicas, K tasks."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from mtl_gym.problems.scores import WORST_DELTA_M, log_qualities, relative_gains, split_metrics
from mtl_gym.training.formulas import inner_products
from mtl_gym.training.probes import (
    AFTER,
    EPOCH,
    GAINS,
    GRAMIAN,
    INITIAL_LR,
    LR,
    META,
    PRESENT,
    QUALITY,
    REWARD,
    SCORE,
    UPCOMING,
    Probe,
    Reading,
)
from mtl_gym.training.references import average_references
from mtl_gym.training.trainer import Trainer

LOST = 3.0
"""How much lower than that of outputs of 0 a quality may be."""


def training_probes(trainer: Trainer) -> list[Probe]:
    """The probes of a trainer, in the order in which they are measured.

    ``meta`` and ``reward`` (N, K): held-out losses; ``upcoming`` and ``after`` (N, K): losses of the next batch, and of the last
    one after its step; ``gramian`` (N, K, K); ``gains`` (N, K): relative gains in percent over single-task learning, on *reward*;
    ``quality`` (N, K): logs of metrics on *reward*, without references; ``score`` (N,): the mean gain at the end of an episode;
    ``lr`` (N,) and ``epoch`` (N,) of the next step; ``initial_lr`` (N,), the learning rate of the first one; ``present`` (N, K): 1
    if the next batch has a label of a task, else 0. If there is a main task, only it is rewarded: ``reward``, ``gains`` and
    ``quality`` contain only its column (N, 1).
    """
    return [
        Probe((META, REWARD), lambda names: _holdout(trainer, names), periodic=(REWARD,)),
        Probe((UPCOMING,), lambda names: Reading({UPCOMING: trainer.losses.forward()})),
        Probe((AFTER,), lambda names: Reading({AFTER: last_batch(trainer)}, forward=1.0)),
        Probe((GRAMIAN,), lambda names: _gramian(trainer)),
        Probe((GAINS,), lambda names: Reading({GAINS: gains(trainer)}), periodic=(GAINS,)),
        Probe((QUALITY,), lambda names: Reading({QUALITY: qualities(trainer)}), periodic=(QUALITY,)),
        Probe((SCORE,), lambda names: Reading({SCORE: _score(trainer)}), final=True),
        Probe((LR,), lambda names: Reading({LR: learning_rates(trainer)})),
        Probe((INITIAL_LR,), lambda names: Reading({INITIAL_LR: trainer.replicas.learning_rates.float()})),
        Probe((PRESENT,), lambda names: Reading({PRESENT: trainer.losses.labelled().float()})),
        Probe((EPOCH,), lambda names: Reading({EPOCH: trainer.ledger.step // steps_per_epoch(trainer)})),
    ]


def _holdout(trainer: Trainer, names: Collection[str]) -> Reading:
    splits = [name for name in (META, REWARD) if name in names]
    losses = trainer.losses.held_out(splits)
    if REWARD in losses:
        losses[REWARD] = _counting(trainer, losses[REWARD])
    return Reading(losses, forward=trainer.losses.held_out_cost(splits))


def last_batch(trainer: Trainer) -> Tensor:
    """Current losses (N, K) of the batch that was trained on last."""
    return trainer.losses.at(trainer.replicas.parameters, (trainer.ledger.step - 1).clamp(min=0))


def _gramian(trainer: Trainer) -> Reading:
    gradients, cost = trainer.task_gradients()
    return Reading({GRAMIAN: inner_products(gradients[:, :, : trainer.model.num_shared])}, backward=cost)


def gains(trainer: Trainer) -> Tensor:
    """Relative gains (N, K) in percent of the rewarded tasks, on *reward*, over averaged single-task references."""
    problem = trainer.problem
    table = relative_gains(problem, trainer.metrics(REWARD), average_references(problem, trainer.recipe))
    return _counting(trainer, table.gather(1, trainer.ledger.tasks))


def qualities(trainer: Trainer) -> Tensor:
    """Qualities (N, K) of the rewarded tasks, on *reward*; see :func:`mtl_gym.problems.scores.log_qualities`.

    None is lower than that of outputs of 0, which know nothing, less 3: a training that is still finite has then not lost more than
    one that has diverged.
    """
    problem, targets = trainer.problem, trainer.losses.data.targets(REWARD)
    samples = targets.shape[:2] if trainer.losses.data.apart else (1, targets.shape[0])
    nothing = targets.new_zeros(*samples, problem.outputs, *problem.splits[REWARD].targets.shape[2:])
    least = log_qualities(problem, split_metrics(problem, nothing, targets)) - LOST
    own = log_qualities(problem, trainer.metrics(REWARD))
    return _counting(trainer, torch.maximum(own, least).gather(1, trainer.ledger.tasks))


def _score(trainer: Trainer) -> Tensor:
    return gains(trainer).mean(1).nan_to_num(nan=WORST_DELTA_M).clamp(min=WORST_DELTA_M)


def _counting(trainer: Trainer, values: Tensor) -> Tensor:
    """Selects the rewarded tasks from values (N, K): all, or the main one (N, 1)."""
    return values if trainer.recipe.main_task is None else values[:, :1]


def learning_rates(trainer: Trainer) -> Tensor:
    """The learning rate (N,) of the next step."""
    return torch.tensor(trainer.replicas.rates(trainer.ledger.step), device=trainer.state.device)


def steps_per_epoch(trainer: Trainer) -> Tensor:
    """Batches (N,) per epoch."""
    batch_size, instances = trainer.recipe.batch_size, trainer.ledger.instances
    sizes = [1 if instance is None else len(instance.rows) // batch_size for instance in instances]
    return torch.tensor(sizes, device=trainer.state.device)

import copy
import math
import pickle
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from rollouts import make_trainer, own_parameters, poison, read, rows_of, same, slow_unless, small, train, with_splits
from torch.nn import functional

from mtl_gym.environments import LOSS_WEIGHTING, specification
from mtl_gym.envs.arguments import check_arguments
from mtl_gym.models import NETWORKS
from mtl_gym.problems import PROBLEMS, load_problem
from mtl_gym.problems.base import Problem, Split
from mtl_gym.problems.quadratic import optimum
from mtl_gym.training.measurements import last_batch, steps_per_epoch
from mtl_gym.training.optim import LR_SCHEDULES, OPTIMIZERS
from mtl_gym.training.trainer import Trainer

TORCH_OPTIMIZERS = {
    "adam": lambda parameters, lr, decay: torch.optim.Adam(parameters, lr=lr, weight_decay=decay),
    "adamw": lambda parameters, lr, decay: torch.optim.AdamW(parameters, lr=lr, weight_decay=decay),
    "sgd": lambda parameters, lr, decay: torch.optim.SGD(parameters, lr=lr, momentum=0.9, weight_decay=decay),
}
TORCH_SCHEDULES = {
    "constant": lambda optimizer, train_steps: torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0),
    "step": lambda optimizer, train_steps: torch.optim.lr_scheduler.MultiStepLR(
        optimizer, [train_steps // 2, 3 * train_steps // 4]
    ),
    "cosine": lambda optimizer, train_steps: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, train_steps),
}
QUICK = ("digits", "yeast", "quadratic", "multimnist")
CONVOLUTIONAL = {name for name, row in PROBLEMS.items() if row.network in ("conv", "dense")}


def digits_losses(parameters, inputs, targets):
    """The five losses of `digits` under a network with one hidden layer, written by hand."""
    weight, bias, head, head_bias = parameters
    outputs = torch.relu(inputs @ weight + bias) @ head + head_bias
    return torch.stack(
        [
            functional.cross_entropy(outputs[:, :10], targets[:, 0].long()),
            functional.binary_cross_entropy_with_logits(outputs[:, 10], targets[:, 1]),
            functional.binary_cross_entropy_with_logits(outputs[:, 11], targets[:, 2]),
            functional.mse_loss(outputs[:, 12], targets[:, 3]),
            functional.mse_loss(outputs[:, 13:], targets[:, 4:]),
        ]
    )


def leaves(trainer, row=0):
    """A row's parameters as a list."""
    return [*own_parameters(trainer, row).values()]


def batch(trainer, step, row=0):
    """Inputs and right targets of a row's batch."""
    samples = trainer.ledger.instances[row].order(trainer.recipe.batch_size, trainer.recipe.train_steps)[step]
    split = trainer.problem.splits["train"]
    return split.inputs[samples], split.targets[samples]


# --- oracles ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lr_schedule", LR_SCHEDULES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_one_replica_equals_a_hand_written_loop(optimizer, lr_schedule):
    trainer = make_trainer(ids=[5], optimizer=optimizer, lr=0.01, lr_schedule=lr_schedule, weight_decay=0.02, train_steps=12)
    weights = torch.tensor([1.0, 0.5, 2.0, 0.1, -0.3])
    parameters = leaves(trainer)
    own = TORCH_OPTIMIZERS[optimizer](parameters, 0.01, 0.02)
    schedule = TORCH_SCHEDULES[lr_schedule](own, 12)
    for step in range(12):
        own.zero_grad()
        (digits_losses(parameters, *batch(trainer, step)) * weights).sum().backward()
        own.step()
        schedule.step()
    train(trainer, 12, weights)
    torch.testing.assert_close(
        trainer.replicas.flat[0], torch.cat([part.detach().flatten() for part in parameters]), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize(
    ("optimizer", "momentum", "oracle", "rtol"),
    [
        ("sgd", 0.0, partial(torch.optim.SGD, momentum=0.0), 1e-5),
        ("sgd", 0.5, partial(torch.optim.SGD, momentum=0.5), 1e-5),
        ("adam", 0.5, partial(torch.optim.Adam, betas=(0.5, 0.999)), 1e-4),
    ],
)
def test_momentum_is_that_of_sgd_and_the_first_decay_rate_of_adam(optimizer, momentum, oracle, rtol):
    trainer = make_trainer(ids=[5], optimizer=optimizer, lr=0.05, momentum=momentum)
    parameters = leaves(trainer)
    own = oracle(parameters, lr=0.05)
    for step in range(8):
        own.zero_grad()
        digits_losses(parameters, *batch(trainer, step)).sum().backward()
        own.step()
    train(trainer, 8)
    expected = torch.cat([part.detach().flatten() for part in parameters])
    torch.testing.assert_close(trainer.replicas.flat[0], expected, rtol=rtol, atol=1e-5)


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (3.0, 0.2, 1.0), (0.1, 0.1, 5.0)])
def test_full_batch_descent_on_the_quadratic_reaches_the_known_optimum(weights):
    trainer = make_trainer("quadratic", ids=[0, 1], optimizer="sgd", lr=0.05, batch_size=128, train_steps=300)
    train(trainer, 300, weights)
    for point in trainer.replicas.flat:
        np.testing.assert_allclose(point, optimum(weights), atol=1e-3)


def alone(problem, task):
    """The problem with that one task: the same trunk, one head."""
    own = problem.tasks[task]
    splits = {}
    for name, split in problem.splits.items():
        inputs = split.inputs
        if problem.network == "point":  # its inputs are the scales of each task
            inputs = inputs[:, problem.output_slices[task]]
        splits[name] = Split(inputs, split.targets[:, problem.target_slices[task]])
    return Problem(problem.name, [own], splits, network=problem.network, defaults=problem.defaults)


def columns(trainer, row, outputs):
    """A row's trunk, the parameters of some of its heads, and those of the others."""
    parts = [part.detach() for part in leaves(trainer, row)]
    shared, heads = parts[: trainer.model.shared], parts[trainer.model.shared :]
    axes = [1 if head.ndim == 2 else 0 for head in heads]  # linear layers are (in, out), convolutions (out, in, 3, 3)
    chosen = torch.zeros(trainer.problem.outputs, dtype=torch.bool)
    chosen[outputs] = True
    own = [head.movedim(axis, 0)[chosen].movedim(0, axis) for head, axis in zip(heads, axes, strict=True)]
    others = [head.movedim(axis, 0)[~chosen] for head, axis in zip(heads, axes, strict=True)]
    return [*shared, *own], others


def with_data_of(instance, problem):
    """The problem with the splits of an instance, if they are of its own."""
    if problem.family is None:
        return problem
    splits = {name: instance.split(problem, name) for name in problem.splits}
    return Problem(problem.name, problem.tasks, splits, network=problem.network, defaults=problem.defaults)


@pytest.mark.parametrize("name", slow_unless(QUICK.__contains__, PROBLEMS))
def test_one_hot_weights_equal_single_task_training(name):
    steps = 2 if name in CONVOLUTIONAL else 6
    problem = load_problem(name)
    for task in {0, problem.num_tasks - 1}:
        trainer = make_trainer(problem, ids=[3])
        single = make_trainer(alone(with_data_of(trainer.ledger.instances[0], problem), task), ids=[3])
        outputs = problem.output_slices[task]
        before, others = columns(trainer, 0, outputs)
        single.losses.drawn.batches.order.copy_(trainer.losses.drawn.batches.order)
        single.replicas.flat[0] = torch.cat([part.flatten() for part in before])
        weights = torch.eye(problem.num_tasks)[task]
        train(trainer, steps, weights)
        train(single, steps)
        after, others_after = columns(trainer, 0, outputs)
        expected = single.replicas.flat[0]
        torch.testing.assert_close(torch.cat([part.flatten() for part in after]), expected, rtol=1e-4, atol=1e-5)
        assert same(others, others_after)


def test_gramian_holds_the_inner_products_of_each_replicas_task_gradients():
    trainer = train(make_trainer(ids=[1, 2]), 2)
    gramian = read(trainer, "gramian")["gramian"]
    for row in range(2):
        parameters = leaves(trainer, row)
        losses = digits_losses(parameters, *batch(trainer, 2, row))
        gradients = [torch.autograd.grad(loss, parameters[:2], retain_graph=True) for loss in losses]
        stacked = torch.stack([torch.cat([part.flatten() for part in parts]) for parts in gradients])
        torch.testing.assert_close(gramian[row], stacked @ stacked.T, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("split", ["meta", "reward"])
def test_holdout_is_the_mean_over_the_split_when_all_of_it_is_asked_for(split):
    trainer = train(make_trainer(ids=[1, 2], holdout_size=10_000), 2)
    losses = trainer.losses.held_out([split])[split]
    data = trainer.problem.splits[split]
    for row in range(2):
        expected = digits_losses(leaves(trainer, row), data.inputs, data.targets)
        torch.testing.assert_close(losses[row], expected.detach(), rtol=1e-4, atol=1e-6)


def test_both_holdouts_at_once_equal_one_by_one():
    trainer = make_trainer()
    both = trainer.losses.held_out(["meta", "reward"])
    assert list(both) == ["meta", "reward"]
    for split in both:
        torch.testing.assert_close(both[split], trainer.losses.held_out([split])[split])


def test_forward_returns_the_losses_that_update_records():
    trainer = make_trainer()
    upcoming = trainer.losses.forward()
    assert same(upcoming, trainer.losses.forward())
    train(trainer, 1)
    assert same(trainer.losses.history[:, 0], upcoming)


def test_last_batch_measures_the_trained_batch_anew():
    trainer = train(make_trainer(ids=[1]), 3)
    expected = digits_losses(leaves(trainer), *batch(trainer, 2)).detach()
    torch.testing.assert_close(last_batch(trainer)[0], expected, rtol=1e-4, atol=1e-6)


def test_metrics_of_a_whole_split_are_those_of_its_outputs():
    trainer = train(make_trainer(ids=[1, 2]), 2)
    data = trainer.problem.splits["reward"]
    values = trainer.metrics("reward")
    for row in range(2):
        weight, bias, head, head_bias = leaves(trainer, row)
        outputs = torch.relu(data.inputs @ weight + bias) @ head + head_bias
        right = (outputs[:, :10].argmax(1) == data.targets[:, 0]).double().mean()
        torch.testing.assert_close(values["digit/accuracy"][row], right)


# --- scales, noise, subsets -------------------------------------------------------------------------------------------


def test_scales_multiply_the_losses():
    trainer = make_trainer(ids=[1, 2], distribution={"scale": (0.1, 10.0)})
    losses = trainer.losses.forward()
    for row, instance in enumerate(trainer.ledger.instances):
        expected = digits_losses(leaves(trainer, row), *batch(trainer, 0, row)).detach()
        torch.testing.assert_close(losses[row], expected * torch.from_numpy(instance.scales), rtol=1e-4, atol=1e-6)


def test_a_task_subset_trains_those_tasks():
    trainer = make_trainer(ids=[1, 2, 3], num_tasks=3)
    losses = trainer.losses.forward()
    for row, instance in enumerate(trainer.ledger.instances):
        expected = digits_losses(leaves(trainer, row), *batch(trainer, 0, row)).detach()
        torch.testing.assert_close(losses[row], expected[instance.tasks], rtol=1e-4, atol=1e-6)


def test_a_task_subset_is_of_the_named_tasks():
    trainer = make_trainer(ids=[1, 2, 3, 4], num_tasks=2, tasks=["loop", "digit", "angle"])
    names = {trainer.problem.tasks[task].name for task in trainer.ledger.tasks.flatten().tolist()}
    assert names == {"digit", "angle", "loop"}
    losses = trainer.losses.forward()
    for row, instance in enumerate(trainer.ledger.instances):
        expected = digits_losses(leaves(trainer, row), *batch(trainer, 0, row)).detach()
        torch.testing.assert_close(losses[row], expected[instance.tasks], rtol=1e-4, atol=1e-6)


def test_only_tasks_that_may_take_part_need_labels():
    meta = load_problem("digits").splits["meta"]
    names = [task.name for task in load_problem("digits").tasks]
    targets = meta.targets.clone()
    targets[:, load_problem("digits").target_slices[2]] = torch.nan
    problem = with_splits("digits", meta=Split(meta.inputs, targets))
    with pytest.raises(ValueError, match=rf"`splits\['meta'\].targets` should contain a label of the task {names[2]!r}"):
        make_trainer(problem)
    assert torch.isfinite(train(make_trainer(problem, tasks=[*names[:2], *names[3:]]), 2).losses.forward()).all()


def test_training_batches_bear_the_planted_labels():
    trainer = make_trainer(ids=[1], distribution={"noise": (0.4, 0.4)})
    instance, split = trainer.ledger.instances[0], trainer.problem.splits["train"]
    source = instance.label_source(trainer.problem).astype(np.int64)
    samples = instance.order(16, 1)[0]
    slices = trainer.problem.target_slices
    targets = torch.cat([split.targets[source[samples, task]][:, slices[task]] for task in range(5)], dim=1)
    assert not torch.equal(targets, split.targets[samples])
    expected = digits_losses(leaves(trainer), split.inputs[samples], targets).detach()
    torch.testing.assert_close(trainer.losses.forward()[0], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("split", ["meta", "reward"])
def test_label_noise_leaves_the_holdouts_right(split):
    trainer = make_trainer(ids=[1], distribution={"noise": (0.4, 0.4)}, holdout_size=10_000)
    data = trainer.problem.splits[split]
    expected = digits_losses(leaves(trainer), data.inputs, data.targets).detach()
    losses = trainer.losses.held_out([split])[split][0]
    torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("split", ["meta", "reward"])
def test_holdout_noise_plants_wrong_labels_there(split):
    distribution = {"noise": (0.4, 0.4), "holdout_noise": (1.0, 1.0)}
    trainer = make_trainer(ids=[1], distribution=distribution, holdout_size=10_000)
    data, instance = trainer.problem.splits[split], trainer.ledger.instances[0]
    source = instance.holdout_source(split, 5, np.arange(len(data))).astype(np.int64)
    slices = trainer.problem.target_slices
    targets = torch.cat([data.targets[source[:, task]][:, slices[task]] for task in range(5)], dim=1)
    assert not torch.equal(targets, data.targets)
    expected = digits_losses(leaves(trainer), data.inputs, targets).detach()
    losses = trainer.losses.held_out([split])[split][0]
    torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("split", ["reward", "test"])
def test_metrics_are_measured_on_right_labels_under_label_noise(split):
    noisy = make_trainer(ids=[1], distribution={"noise": (0.4, 0.4)})
    clean = make_trainer(ids=[1])
    clean.replicas.flat.copy_(noisy.replicas.flat)
    assert same(noisy.metrics(split), clean.metrics(split))


# --- isolation --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", slow_unless(QUICK.__contains__, PROBLEMS))
def test_replicas_equal_being_trained_alone(name):
    steps = 2 if name in CONVOLUTIONAL else 6
    name = load_problem(name)
    together = train(make_trainer(name, ids=[4, 9, 2]), steps)
    single = train(make_trainer(name, ids=[9]), steps)
    torch.testing.assert_close(together.replicas.flat[1], single.replicas.flat[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", slow_unless(QUICK.__contains__, PROBLEMS))
def test_replicas_of_one_instance_are_trained_as_those_of_several(name):
    steps = 2 if name in CONVOLUTIONAL else 6
    name = load_problem(name)
    factors = torch.tensor([[0.5], [2.0]]).expand(-1, make_trainer(name, ids=[9]).recipe.num_tasks)
    alike = train(make_trainer(name, ids=[9, 9]), steps, factors)
    mixed = train(make_trainer(name, ids=[9, 4]), steps, factors)
    assert same(rows_of(alike.clone(), [0]), rows_of(mixed.clone(), [0]))
    assert not same(rows_of(alike.clone(), [0]), rows_of(alike.clone(), [1]))


def test_replicas_of_one_instance_may_be_at_different_steps():
    trainer, single = make_trainer(ids=[9, 9]), train(make_trainer(ids=[9]), 5)
    train(trainer, 2)
    train(trainer, 3, active=[True, False])
    train(trainer, 1)
    train(single, 1)
    torch.testing.assert_close(trainer.replicas.flat[0], single.replicas.flat[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_poisoned_replica_leaves_the_others_bitwise(optimizer, value):
    healthy = train(make_trainer(optimizer=optimizer), 5)
    poisoned = make_trainer(optimizer=optimizer)
    poison(poisoned, 1, value, entry=3)
    train(poisoned, 5)
    assert not torch.isfinite(poisoned.replicas.flat[1]).all()
    assert same(rows_of(healthy.clone(), [0, 2]), rows_of(poisoned.clone(), [0, 2]))


@pytest.mark.parametrize("name", slow_unless(lambda name: name != "multimnist", [*sorted(CONVOLUTIONAL), "quadratic"]))
def test_a_poisoned_replica_leaves_the_others_bitwise_in_every_network(name):
    healthy = train(make_trainer(name, ids=[0, 1]), 2)
    poisoned = make_trainer(name, ids=[0, 1])
    poison(poisoned, 1, torch.nan)
    train(poisoned, 2)
    assert same(rows_of(healthy.clone(), [0]), rows_of(poisoned.clone(), [0]))


def test_poisoned_weights_of_one_replica_leave_the_others_bitwise():
    weights = torch.ones(3, 5)
    healthy = train(make_trainer(), 3, weights)
    weights[1, 2] = torch.nan
    poisoned = train(make_trainer(), 3, weights)
    assert same(rows_of(healthy.clone(), [0, 2]), rows_of(poisoned.clone(), [0, 2]))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_inactive_rows_are_untouched(optimizer):
    trainer = train(make_trainer(optimizer=optimizer, weight_decay=0.1), 2)
    before = trainer.clone()
    train(trainer, 3, active=[True, False, True])
    assert same(rows_of(before, [1]), rows_of(trainer.clone(), [1]))
    assert not same(rows_of(before, [0]), rows_of(trainer.clone(), [0]))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_rows_that_paused_go_on_as_if_they_had_not(optimizer):
    paused = train(train(make_trainer(optimizer=optimizer, lr_schedule="cosine"), 3, active=[True, False, True]), 3)
    steady = train(make_trainer(optimizer=optimizer, lr_schedule="cosine"), 3)
    torch.testing.assert_close(paused.replicas.flat[1], steady.replicas.flat[1])


def test_no_active_row_changes_nothing():
    trainer = train(make_trainer(), 2)
    before = trainer.clone()
    train(trainer, 1, active=[False, False, False])
    assert same(before, trainer.clone())


def test_a_partial_begin_leaves_the_other_rows_bitwise():
    trainer = train(make_trainer(), 3)
    before = trainer.clone()
    trainer.begin([1], [77])
    assert same(rows_of(before, [0, 2]), rows_of(trainer.clone(), [0, 2]))
    assert trainer.ledger.step.tolist() == [3, 0, 3]


def test_a_row_that_begins_later_trains_as_if_at_first():
    trainer = train(make_trainer(), 3)
    trainer.begin([1], [1])
    train(trainer, 3, active=[False, True, False])
    torch.testing.assert_close(trainer.replicas.flat[1], train(make_trainer(), 3).replicas.flat[1])


# --- keeping ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_restored_run_continues_bit_for_bit(optimizer):
    trainer = train(make_trainer(optimizer=optimizer), 3)
    kept = trainer.clone()
    first = train(trainer, 3).clone()
    trainer.load(kept)
    assert same(first, train(trainer, 3).clone())


def test_another_learner_continues_from_a_state_bit_for_bit():
    trainer = train(make_trainer(distribution="varied"), 3)
    other = make_trainer(ids=[7, 8, 9], distribution="varied")
    other.load(trainer.clone())
    assert same(train(trainer, 3).clone(), train(other, 3).clone())


def test_training_does_not_change_a_state_taken_before():
    trainer = train(make_trainer(), 1)
    kept = trainer.clone()
    copied = copy.deepcopy(kept)
    train(trainer, 3)
    assert same(kept, copied)


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda trainer: pickle.loads(pickle.dumps(trainer))])
def test_a_copy_continues_bit_for_bit(clone):
    trainer = train(make_trainer(distribution="varied"), 3)
    trainer.losses.forward()
    other = clone(trainer)
    assert same(train(trainer, 3).clone(), train(other, 3).clone())


def test_a_fork_is_a_copy_that_goes_its_own_way():
    trainer = train(make_trainer(distribution="varied"), 3)
    trainer.copy_rows([0], [2])
    state = trainer.clone()
    assert same(rows_of(state, [0]), rows_of(state, [2]))
    assert trainer.ledger.instances[2] is trainer.ledger.instances[0]
    train(trainer, 2, [[1.0] * 5, [1.0] * 5, [2.0] * 4 + [0.0]])
    assert not torch.equal(trainer.replicas.flat[0], trainer.replicas.flat[2])


def test_a_fork_swaps_rows_that_are_source_and_target():
    trainer = train(make_trainer(), 3)
    before, instances = trainer.clone(), list(trainer.ledger.instances)
    trainer.copy_rows([0, 1], [1, 0])
    assert same(rows_of(before, [0, 1]), rows_of(trainer.clone(), [1, 0]))
    assert trainer.ledger.instances[:2] == [instances[1], instances[0]]


# --- bookkeeping ------------------------------------------------------------------------------------------------------


def test_each_update_counts_one_pass_each_way_in_active_rows():
    trainer = train(train(make_trainer(), 2), 3, active=[True, False, True])
    assert trainer.ledger.passes.tolist() == [[5, 5], [2, 2], [5, 5]]
    assert trainer.ledger.step.tolist() == [5, 2, 5]


@pytest.mark.parametrize(
    ("measure", "cost"),
    [
        (lambda trainer, charged: read(trainer, "upcoming", charged=charged), [0, 0]),
        (lambda trainer, charged: read(trainer, "meta", charged=charged), [1, 0]),
        (lambda trainer, charged: read(trainer, "meta", "reward", charged=charged), [2, 0]),
        (lambda trainer, charged: read(trainer, "after", charged=charged), [1, 0]),
        (lambda trainer, charged: read(trainer, "gramian", charged=charged), [0, 5]),
        (lambda trainer, charged: read(trainer, "lr", "epoch", charged=charged), [0, 0]),
        (lambda trainer, charged: trainer.metrics("test"), [0, 0]),
    ],
    ids=["upcoming", "meta", "both holdouts", "after", "gramian", "lr and epoch", "metrics"],
)
def test_measuring_is_charged_to_the_charged_alone_and_changes_nothing_else(measure, cost):
    trainer = train(make_trainer(), 2)
    before = trainer.clone()
    measure(trainer, [True, False, True])
    after = trainer.clone()
    assert (after.pop("passes") - before.pop("passes")).tolist() == [cost, [0, 0], cost]
    del before["charged gradients"], after["charged gradients"]
    assert same(before, after)


def test_measuring_does_not_change_the_training():
    trainer = make_trainer()
    for _ in range(4):
        read(trainer, "meta", "reward", "upcoming", "gramian", "lr", "epoch")
        trainer.metrics("test")
        trainer.losses.sample_losses(trainer.replicas.parameters)
        train(trainer, 1)
        last_batch(trainer)
    plain = train(make_trainer(), 4)
    assert same(trainer.replicas.flat, plain.replicas.flat)


def test_losses_and_weights_of_every_step_are_kept():
    trainer, weights = make_trainer(ids=[1]), torch.arange(5.0)
    train(trainer, 3, weights)
    assert trainer.weights[0, :4].tolist() == [weights.tolist()] * 3 + [[0.0] * 5]
    assert (trainer.losses.history[0, :3] > 0).all()
    assert (trainer.losses.history[0, 3:] == 0).all()


def test_epochs_count_whole_passes_over_the_own_training_set():
    trainer = make_trainer(ids=[1], batch_size=400, train_steps=6)
    assert [read(train(trainer, steps), "epoch")["epoch"].item() for steps in (0, 1, 1, 1, 1)] == [0, 0, 1, 1, 2]
    assert steps_per_epoch(trainer).tolist() == [2]


def test_finite_names_the_rows_that_are():
    trainer = make_trainer()
    poison(trainer, 1, torch.nan, entry=0)
    assert trainer.finite().tolist() == [True, False, True]


def test_global_generators_are_neither_read_nor_written():
    states = torch.get_rng_state().clone(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = train(make_trainer(distribution="varied"), 2).clone()
    assert torch.equal(states[0], torch.get_rng_state())
    assert np.array_equal(states[1], np.random.get_state()[1])  # noqa: NPY002
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    assert same(first, train(make_trainer(distribution="varied"), 2).clone())


@pytest.mark.parametrize("name", slow_unless(QUICK.__contains__, PROBLEMS))
def test_every_layer_is_trained(name):
    trainer = make_trainer(load_problem(name), ids=[0])
    before = leaves(trainer)
    train(trainer, 1)
    assert torch.isfinite(trainer.replicas.flat).all()
    assert not any(torch.equal(old, new) for old, new in zip(before, leaves(trainer), strict=True))


def test_a_batch_larger_than_the_smallest_training_set_is_refused():
    arguments = check_arguments(specification(LOSS_WEIGHTING), **small(distribution={"size": (0.1, 1.0)}, batch_size=81))
    with pytest.raises(ValueError, match=r"`batch_size` should be at most 80.*Received batch_size=81"):
        Trainer(arguments.problem, arguments.recipe, 1)


def test_every_network_is_used_by_a_problem():
    assert {row.network for row in PROBLEMS.values()} == set(NETWORKS)


def test_the_losses_of_samples_average_to_those_of_the_batch():
    trainer = make_trainer(distribution={"scale": (2.0, 2.0)})
    losses, _ = trainer.losses.sample_losses(trainer.replicas.parameters)
    assert losses.shape == (3, 16, 5)
    torch.testing.assert_close(losses.mean(1), trainer.losses.forward())


# --- weights of shared parameters and heads, and averaged gradients -------------------------------------------------------


def flat_gradients(trainer):
    """Gradients (N, K, P) of the tasks' losses, by one backward pass each."""
    losses, parameters = trainer.losses.graph(), [*trainer.replicas.parameters.values()]
    parts = [torch.autograd.grad(losses[:, task].sum(), parameters, retain_graph=True) for task in range(losses.shape[1])]
    return torch.stack([torch.cat([part.flatten(1) for part in own], dim=1) for own in parts], dim=1)


def shared_size(trainer):
    return sum(math.prod(shape) for shape in [*trainer.model.shapes.values()][: trainer.model.shared])


@pytest.mark.parametrize("weights", [[1.0, 2.0, 0.5], [0.0, 0.0, 1.0], [-1.0, 0.0, 3.0], [0.0, 0.0, 0.0]])
def test_weights_apart_act_on_shared_parameters_and_heads_alone(weights):
    trainer = make_trainer(num_tasks=3, optimizer="sgd", momentum=0.0, lr=0.1)
    before, gradients, shared = trainer.clone()["parameters"], flat_gradients(trainer), shared_size(trainer)
    heads = torch.tensor([2.0, -1.0, 0.0])
    trainer.update_apart(torch.tensor([weights] * 3), heads.expand(3, 3), torch.tensor([True, False, True]))
    step = torch.einsum("k,nkp->np", torch.tensor(weights), gradients)
    step[:, shared:] = torch.einsum("k,nkp->np", heads, gradients)[:, shared:]
    expected = before - 0.1 * step
    expected[1] = before[1]
    torch.testing.assert_close(trainer.replicas.flat, expected, rtol=1e-5, atol=1e-7)
    if not any(weights):
        assert torch.equal(trainer.replicas.flat[:, :shared], before[:, :shared])


def test_equal_weights_apart_are_weights_of_the_whole_losses():
    weights, active = torch.tensor([[1.0, 0.0, -2.0]] * 3), torch.ones(3, dtype=torch.bool)
    whole, apart = (make_trainer(num_tasks=3) for _ in range(2))
    for _ in range(3):
        whole.update(weights, active)
        apart.update_apart(weights, weights, active)
    torch.testing.assert_close(apart.replicas.flat, whole.replicas.flat, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("problem", ["quadratic", "digits"])
def test_networks_without_heads_or_without_shared_parameters_take_weights_apart(problem):
    trainer = make_trainer(problem, hidden_sizes=[])
    ones = torch.ones(3, trainer.recipe.num_tasks)
    trainer.update_apart(ones, 0 * ones, torch.ones(3, dtype=torch.bool))
    assert bool(trainer.finite().all())


def test_the_gradients_of_the_gram_matrix_make_the_step_and_are_counted_once():
    trainer, everyone = make_trainer(num_tasks=3), torch.ones(3, dtype=torch.bool)
    ones = torch.ones(3, 3)
    read(trainer, "gramian", charged=[True] * 3)
    read(trainer, "gramian", charged=[True] * 3)
    trainer.update_apart(ones, ones, everyone)
    assert trainer.ledger.passes.tolist() == [[1, 3]] * 3
    trainer.update_apart(ones, ones, everyone)
    assert trainer.ledger.passes.tolist() == [[2, 6]] * 3


@pytest.mark.parametrize("decay", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_averaged_gradients_take_the_place_of_the_shared_parameters(optimizer, decay):
    settings = {"num_tasks": 3, "optimizer": optimizer, "lr": 0.01, "momentum": 0.9 if optimizer == "adam" else 0.0}
    options = {"gradient_ema": 0.5, "gradient_ema_decay": decay}
    trainer, active = make_trainer(options=options, **settings), torch.ones(3, dtype=torch.bool)
    weights, shared, average = torch.tensor([[1.0, 2.0, 0.5]] * 3), shared_size(trainer), None
    parameters = trainer.clone()["parameters"].requires_grad_()
    made = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[optimizer]([parameters], lr=0.01)
    for step in range(1, 5):
        gradients, kept = flat_gradients(trainer), 0.5 / step**decay
        average = gradients if average is None else kept * average + (1 - kept) * gradients
        own = average[:, :, :shared]
        torch.testing.assert_close(read(trainer, "gramian")["gramian"], own @ own.transpose(1, 2), rtol=1e-4, atol=1e-7)
        parameters.grad = torch.cat([(weights[:, :, None] * part).sum(1) for part in (own, gradients[:, :, shared:])], dim=1)
        made.step()
        trainer.update(weights, active)
        torch.testing.assert_close(trainer.replicas.flat, parameters.detach(), rtol=1e-4, atol=1e-5)


def test_averages_that_keep_less_and_less_follow_the_steps_of_each_row():
    options = {"gradient_ema": 0.9, "gradient_ema_decay": 0.5}
    together, alone = make_trainer(num_tasks=3, options=options), make_trainer(num_tasks=3, options=options, ids=[1])
    weights, everyone = torch.ones(3, 3), torch.ones(3, dtype=torch.bool)
    together.update(weights, torch.tensor([True, False, True]))  # its second row is a step behind
    for _ in range(3):
        together.update(weights, everyone)
        alone.update(weights[:1], everyone[:1])
    torch.testing.assert_close(together.averages[1], alone.averages[0], rtol=1e-4, atol=1e-6)


def test_a_decay_without_an_average_is_refused():
    with pytest.raises(ValueError, match=r"`gradient_ema_decay` should be 0 where there is no average.*`gradient_ema`"):
        make_trainer(options={"gradient_ema_decay": 0.5})


@pytest.mark.parametrize("options", [{}, {"gradient_ema": 0.5}, {"gradient_ema": 0.5, "gradient_ema_decay": 0.5}])
def test_a_restored_or_forked_trainer_goes_on_with_weights_apart(options):
    trainer, active = make_trainer(num_tasks=3, options=options), torch.ones(3, dtype=torch.bool)
    weights = torch.tensor([[1.0, -2.0, 0.5]] * 3)
    trainer.update_apart(weights, weights, active)
    read(trainer, "gramian")
    assert ("averages" in trainer.state) == bool(options)
    copies = [make_trainer(num_tasks=3, options=options), pickle.loads(pickle.dumps(trainer))]
    copies[0].load(trainer.clone())
    for own in (trainer, *copies):
        own.update_apart(weights, weights, active)
    assert all(same(trainer.clone(), own.clone()) for own in copies)


# --- learning rates of rows ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lr_schedule", LR_SCHEDULES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_rows_with_rates_of_their_own_are_trained_as_by_themselves(optimizer, lr_schedule):
    rates, settings = (0.02, 0.001, 0.005), {"optimizer": optimizer, "lr_schedule": lr_schedule, "weight_decay": 0.02}
    trainer = make_trainer(lr=0.3, **settings)
    trainer.replicas.learning_rates.copy_(torch.tensor(rates, dtype=torch.float64))
    train(trainer, 8)
    for row, lr in enumerate(rates):
        uniform = train(make_trainer(lr=lr, **settings), 8)
        assert same(*(rows_of(own.clone(), [row]) for own in (trainer, uniform)))
        alone = train(make_trainer(ids=[row], lr=lr, **settings), 8)
        torch.testing.assert_close(trainer.replicas.flat[row], alone.replicas.flat[0], rtol=1e-4, atol=1e-5)


def test_rows_of_the_same_rate_share_one_fused_call(monkeypatch):
    calls, trainer = [], make_trainer(ids=range(4), optimizer="sgd")
    row = OPTIMIZERS["sgd"]

    def counted(parameters, *rest, lr, **options):
        calls.append((len(parameters), lr))
        row.update(parameters, *rest, lr=lr, **options)

    monkeypatch.setitem(OPTIMIZERS, "sgd", replace(row, update=counted))
    train(trainer, 1)
    assert calls == [(4, trainer.recipe.lr)]
    trainer.replicas.learning_rates[2] = 0.5
    train(trainer, 1)
    assert sorted(calls[1:]) == [(1, 0.5), (3, trainer.recipe.lr)]


def test_a_rate_that_is_changed_acts_from_the_next_step_on_and_ends_with_the_training():
    trainer, steady = train(make_trainer(), 2), train(make_trainer(), 2)
    trainer.replicas.learning_rates[1] = 0.0
    before = trainer.replicas.flat[1].clone()
    train(trainer, 2)
    assert same(trainer.replicas.flat[1], before)
    assert same(rows_of(trainer.clone(), [0, 2]), rows_of(train(steady, 2).clone(), [0, 2]))
    assert read(trainer, "lr")["lr"].tolist() == pytest.approx([trainer.recipe.lr, 0.0, trainer.recipe.lr])
    trainer.begin([1], [1])
    assert trainer.replicas.learning_rates.tolist() == [trainer.recipe.lr] * 3


def test_a_poisoned_rate_of_one_row_leaves_the_others_bitwise():
    poisoned, healthy = make_trainer(), train(make_trainer(), 3)
    poisoned.replicas.learning_rates[1] = torch.nan
    train(poisoned, 3)
    assert poisoned.finite().tolist() == [True, False, True]
    assert same(rows_of(poisoned.clone(), [0, 2]), rows_of(healthy.clone(), [0, 2]))


def test_rates_of_rows_are_kept_copied_and_pickled():
    trainer = make_trainer()
    trainer.replicas.learning_rates.copy_(torch.tensor([0.1, 0.01, 0.001]))
    other, third = make_trainer(), pickle.loads(pickle.dumps(trainer))
    other.load(trainer.clone())
    assert same(train(trainer, 3).clone(), train(other, 3).clone())
    assert same(trainer.clone(), train(third, 3).clone())
    trainer.copy_rows([0], [2])
    assert trainer.replicas.learning_rates[2] == trainer.replicas.learning_rates[0]


# --- begin, and what is refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "ids"), [([0, 1], [5]), ([0], [5, 6]), ([3], [5]), ([-1], [5]), ([0, 0], [5, 6]), ([0], [-1])])
def test_a_begin_that_is_refused_changes_nothing(rows, ids):
    trainer = train(make_trainer(), 2)
    before = trainer.clone()
    with pytest.raises(ValueError, match="should"):
        trainer.begin(rows, ids)
    assert same(before, trainer.clone())


def test_a_step_along_the_gradient_of_the_weighted_losses_is_the_step_with_those_weights():
    own, given = make_trainer(ids=[3, 4]), make_trainer(ids=[3, 4])
    active = torch.tensor([True, False])
    own.update(torch.full((2, own.recipe.num_tasks), 0.5), active)
    given.update_along(own.replicas.gradient.clone(), active)
    assert same(own.replicas.flat, given.replicas.flat)
    assert given.ledger.step.tolist() == [1, 0]
    assert given.ledger.passes.tolist() == [[1, 0], [0, 0]]  # the gradient's own cost is charged by whoever computed it
    assert given.weights[0, 0].isnan().all()
    assert same(own.losses.history, given.losses.history)


def test_rows_that_step_in_turns_pay_for_their_own_gradients():
    trainer = make_trainer(ids=[3, 4])
    weights = torch.ones(2, trainer.recipe.num_tasks)
    for active in ([True, False], [False, True]):
        trainer.update_apart(weights, weights, torch.tensor(active))
    assert trainer.ledger.passes.tolist() == [[1, trainer.recipe.num_tasks]] * 2


@pytest.mark.parametrize("option", [{"gradient_ema": 0.5}, {"recorder": print}])
def test_options_that_losses_of_samples_would_ignore_are_refused(option):
    with pytest.raises(ValueError, match="`by_samples` should be left out"):
        make_trainer(options={"by_samples": True} | option)

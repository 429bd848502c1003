import copy
import math
import pickle

import numpy as np
import pytest
import torch
from rollouts import make_learner, own_parameters, poison, rows_of, same, small, train, with_splits
from torch.nn import functional

from mtl_gym.envs.arguments import check_arguments
from mtl_gym.problems import PROBLEMS, load_problem
from mtl_gym.problems.base import Problem, Split
from mtl_gym.problems.quadratic import optimum
from mtl_gym.training.learner import Learner
from mtl_gym.training.networks import NETWORKS
from mtl_gym.training.optim import LR_SCHEDULES, OPTIMIZERS

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
CONVOLUTIONAL = {name for name, row in PROBLEMS.items() if row.network in ("conv", "dense")}


def digits_losses(parameters, inputs, targets):
    """The six losses of `digits` under a network with one hidden layer, written by hand."""
    weight, bias, head, head_bias = parameters
    outputs = torch.relu(inputs @ weight + bias) @ head + head_bias
    return torch.stack(
        [
            functional.cross_entropy(outputs[:, :10], targets[:, 0].long()),
            functional.binary_cross_entropy_with_logits(outputs[:, 10], targets[:, 1]),
            functional.binary_cross_entropy_with_logits(outputs[:, 11], targets[:, 2]),
            functional.mse_loss(outputs[:, 12], targets[:, 3]),
            functional.mse_loss(outputs[:, 13:15], targets[:, 4:6]),
            functional.mse_loss(outputs[:, 15:], targets[:, 6:]),
        ]
    )


def batch(learner, step, row=0):
    """Inputs and right targets of a row's batch."""
    samples = learner.instances[row].order(learner.recipe.batch_size, learner.recipe.train_steps)[step]
    split = learner.problem.splits["train"]
    return split.inputs[samples], split.targets[samples]


# --- oracles ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lr_schedule", LR_SCHEDULES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_one_replica_equals_a_hand_written_loop(optimizer, lr_schedule):
    learner = make_learner(ids=[5], optimizer=optimizer, lr=0.01, lr_schedule=lr_schedule, weight_decay=0.02, train_steps=12)
    weights = torch.tensor([1.0, 0.5, 2.0, 0.1, -0.3, 3.0])
    parameters = own_parameters(learner)
    own = TORCH_OPTIMIZERS[optimizer](parameters, 0.01, 0.02)
    schedule = TORCH_SCHEDULES[lr_schedule](own, 12)
    for step in range(12):
        own.zero_grad()
        (digits_losses(parameters, *batch(learner, step)) * weights).sum().backward()
        own.step()
        schedule.step()
    train(learner, 12, weights)
    torch.testing.assert_close(
        learner.replicas.parameters[0], torch.cat([part.detach().flatten() for part in parameters]), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_momentum_is_that_of_sgd(momentum):
    learner = make_learner(ids=[5], optimizer="sgd", lr=0.05, momentum=momentum)
    parameters = own_parameters(learner)
    own = torch.optim.SGD(parameters, lr=0.05, momentum=momentum)
    for step in range(8):
        own.zero_grad()
        digits_losses(parameters, *batch(learner, step)).sum().backward()
        own.step()
    train(learner, 8)
    expected = torch.cat([part.detach().flatten() for part in parameters])
    torch.testing.assert_close(learner.replicas.parameters[0], expected, rtol=1e-5, atol=1e-5)


def test_momentum_is_the_first_decay_rate_of_adam():
    learner = make_learner(ids=[5], optimizer="adam", lr=0.05, momentum=0.5)
    parameters = own_parameters(learner)
    own = torch.optim.Adam(parameters, lr=0.05, betas=(0.5, 0.999))
    for step in range(8):
        own.zero_grad()
        digits_losses(parameters, *batch(learner, step)).sum().backward()
        own.step()
    train(learner, 8)
    expected = torch.cat([part.detach().flatten() for part in parameters])
    torch.testing.assert_close(learner.replicas.parameters[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (3.0, 0.2, 1.0), (0.1, 0.1, 5.0)])
def test_full_batch_descent_on_the_quadratic_reaches_the_known_optimum(weights):
    learner = make_learner("quadratic", ids=[0, 1], optimizer="sgd", lr=0.05, batch_size=128, train_steps=300)
    train(learner, 300, weights)
    for point in learner.replicas.parameters:
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


def columns(learner, row, outputs):
    """A row's trunk, the parameters of some of its heads, and those of the others."""
    parts = [part.detach() for part in own_parameters(learner, row)]
    shared, heads = parts[: learner.network.shared], parts[learner.network.shared :]
    axes = [1 if head.ndim == 2 else 0 for head in heads]  # linear layers are (in, out), convolutions (out, in, 3, 3)
    chosen = torch.zeros(learner.problem.outputs, dtype=torch.bool)
    chosen[outputs] = True
    own = [head.movedim(axis, 0)[chosen].movedim(0, axis) for head, axis in zip(heads, axes, strict=True)]
    others = [head.movedim(axis, 0)[~chosen] for head, axis in zip(heads, axes, strict=True)]
    return [*shared, *own], others


@pytest.mark.parametrize("name", PROBLEMS)
def test_one_hot_weights_equal_single_task_training(name):
    steps = 2 if name in CONVOLUTIONAL else 6
    problem = load_problem(name)
    for task in {0, problem.num_tasks - 1}:
        learner = make_learner(problem, ids=[3])
        single = make_learner(alone(problem, task), ids=[3])
        outputs = problem.output_slices[task]
        before, others = columns(learner, 0, outputs)
        single.replicas.order.copy_(learner.replicas.order)
        single.replicas.parameters[0] = torch.cat([part.flatten() for part in before])
        weights = torch.eye(problem.num_tasks)[task]
        train(learner, steps, weights)
        train(single, steps)
        after, others_after = columns(learner, 0, outputs)
        expected = single.replicas.parameters[0]
        torch.testing.assert_close(torch.cat([part.flatten() for part in after]), expected, rtol=1e-4, atol=1e-5)
        assert same(others, others_after)


def test_gramian_holds_the_inner_products_of_each_replicas_task_gradients():
    learner = train(make_learner(ids=[1, 2]), 2)
    gramian = learner.gramian(torch.ones(2, dtype=torch.bool))
    for row in range(2):
        parameters = own_parameters(learner, row)
        losses = digits_losses(parameters, *batch(learner, 2, row))
        gradients = [torch.autograd.grad(loss, parameters[:2], retain_graph=True) for loss in losses]
        stacked = torch.stack([torch.cat([part.flatten() for part in parts]) for parts in gradients])
        torch.testing.assert_close(gramian[row], stacked @ stacked.T, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("split", ["meta", "reward"])
def test_holdout_is_the_mean_over_the_split_when_all_of_it_is_asked_for(split):
    learner = train(make_learner(ids=[1, 2], holdout_size=10_000), 2)
    losses = learner.holdout([split], torch.ones(2, dtype=torch.bool))[split]
    data = learner.problem.splits[split]
    for row in range(2):
        expected = digits_losses(own_parameters(learner, row), data.inputs, data.targets)
        torch.testing.assert_close(losses[row], expected.detach(), rtol=1e-4, atol=1e-6)


def test_both_holdouts_at_once_equal_one_by_one():
    learner, everyone = make_learner(), torch.ones(3, dtype=torch.bool)
    both = learner.holdout(["meta", "reward"], everyone)
    for split in both:
        torch.testing.assert_close(both[split], learner.holdout([split], everyone)[split])


def test_forward_returns_the_losses_that_update_records():
    learner = make_learner()
    upcoming = learner.forward()
    assert same(upcoming, learner.forward())
    train(learner, 1)
    assert same(learner.replicas.losses[:, 0], upcoming)


def test_last_batch_measures_the_trained_batch_anew():
    learner = train(make_learner(ids=[1]), 3)
    expected = digits_losses(own_parameters(learner), *batch(learner, 2)).detach()
    torch.testing.assert_close(learner.last_batch(torch.tensor([True]))[0], expected, rtol=1e-4, atol=1e-6)


def test_metrics_of_a_whole_split_are_those_of_its_outputs():
    learner = train(make_learner(ids=[1, 2]), 2)
    data = learner.problem.splits["reward"]
    values = learner.metrics("reward")
    for row in range(2):
        weight, bias, head, head_bias = own_parameters(learner, row)
        outputs = torch.relu(data.inputs @ weight + bias) @ head + head_bias
        right = (outputs[:, :10].argmax(1) == data.targets[:, 0]).double().mean()
        torch.testing.assert_close(values["digit/accuracy"][row], right)


# --- scales, noise, subsets -------------------------------------------------------------------------------------------


def test_scales_multiply_the_losses():
    learner = make_learner(ids=[1, 2], distribution={"scale": (0.1, 10.0)})
    losses = learner.forward()
    for row, instance in enumerate(learner.instances):
        expected = digits_losses(own_parameters(learner, row), *batch(learner, 0, row)).detach()
        torch.testing.assert_close(losses[row], expected * torch.from_numpy(instance.scales), rtol=1e-4, atol=1e-6)


def test_a_task_subset_trains_those_tasks():
    learner = make_learner(ids=[1, 2, 3], num_tasks=3)
    losses = learner.forward()
    for row, instance in enumerate(learner.instances):
        expected = digits_losses(own_parameters(learner, row), *batch(learner, 0, row)).detach()
        torch.testing.assert_close(losses[row], expected[instance.tasks], rtol=1e-4, atol=1e-6)


def test_a_task_subset_is_of_the_named_tasks():
    learner = make_learner(ids=[1, 2, 3, 4], num_tasks=2, tasks=["loop", "digit", "ink"])
    names = {learner.problem.tasks[task].name for task in learner.replicas.tasks.flatten().tolist()}
    assert names == {"digit", "ink", "loop"}
    losses = learner.forward()
    for row, instance in enumerate(learner.instances):
        expected = digits_losses(own_parameters(learner, row), *batch(learner, 0, row)).detach()
        torch.testing.assert_close(losses[row], expected[instance.tasks], rtol=1e-4, atol=1e-6)


def test_only_tasks_that_may_take_part_need_labels():
    meta = load_problem("digits").splits["meta"]
    names = [task.name for task in load_problem("digits").tasks]
    targets = meta.targets.clone()
    targets[:, load_problem("digits").target_slices[2]] = torch.nan
    problem = with_splits("digits", meta=Split(meta.inputs, targets))
    with pytest.raises(ValueError, match=f"`holdout_size` should be larger: meta has no label of the task {names[2]!r}"):
        make_learner(problem)
    assert torch.isfinite(train(make_learner(problem, tasks=[*names[:2], *names[3:]]), 2).forward()).all()


def test_training_batches_bear_the_planted_labels():
    learner = make_learner(ids=[1], distribution={"noise": (0.4, 0.4)})
    instance, split = learner.instances[0], learner.problem.splits["train"]
    source = instance.label_source(learner.problem).astype(np.int64)
    samples = instance.order(16, 1)[0]
    slices = learner.problem.target_slices
    targets = torch.cat([split.targets[source[samples, task]][:, slices[task]] for task in range(6)], dim=1)
    assert not torch.equal(targets, split.targets[samples])
    expected = digits_losses(own_parameters(learner), split.inputs[samples], targets).detach()
    torch.testing.assert_close(learner.forward()[0], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("split", ["meta", "reward"])
def test_label_noise_leaves_the_holdouts_right(split):
    learner = make_learner(ids=[1], distribution={"noise": (0.4, 0.4)}, holdout_size=10_000)
    data = learner.problem.splits[split]
    expected = digits_losses(own_parameters(learner), data.inputs, data.targets).detach()
    losses = learner.holdout([split], torch.tensor([True]))[split][0]
    torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("split", ["meta", "reward"])
def test_holdout_noise_plants_wrong_labels_there(split):
    distribution = {"noise": (0.4, 0.4), "holdout_noise": (1.0, 1.0)}
    learner = make_learner(ids=[1], distribution=distribution, holdout_size=10_000)
    data, instance = learner.problem.splits[split], learner.instances[0]
    source = instance.holdout_source(split, 6, np.arange(len(data))).astype(np.int64)
    slices = learner.problem.target_slices
    targets = torch.cat([data.targets[source[:, task]][:, slices[task]] for task in range(6)], dim=1)
    assert not torch.equal(targets, data.targets)
    expected = digits_losses(own_parameters(learner), data.inputs, targets).detach()
    losses = learner.holdout([split], torch.tensor([True]))[split][0]
    torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("split", ["reward", "test"])
def test_metrics_are_measured_on_right_labels_under_label_noise(split):
    noisy = make_learner(ids=[1], distribution={"noise": (0.4, 0.4)})
    clean = make_learner(ids=[1])
    clean.replicas.parameters.copy_(noisy.replicas.parameters)
    assert same(noisy.metrics(split), clean.metrics(split))


# --- isolation --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROBLEMS)
def test_replicas_equal_being_trained_alone(name):
    steps = 2 if name in CONVOLUTIONAL else 6
    name = load_problem(name)
    together = train(make_learner(name, ids=[4, 9, 2]), steps)
    single = train(make_learner(name, ids=[9]), steps)
    torch.testing.assert_close(together.replicas.parameters[1], single.replicas.parameters[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", PROBLEMS)
def test_replicas_of_one_instance_are_trained_as_those_of_several(name):
    steps = 2 if name in CONVOLUTIONAL else 6
    name = load_problem(name)
    factors = torch.tensor([[0.5], [2.0]]).expand(-1, make_learner(name, ids=[9]).recipe.num_tasks)
    alike = train(make_learner(name, ids=[9, 9]), steps, factors)
    mixed = train(make_learner(name, ids=[9, 4]), steps, factors)
    assert same(rows_of(alike.state(), [0]), rows_of(mixed.state(), [0]))
    assert not same(rows_of(alike.state(), [0]), rows_of(alike.state(), [1]))


def test_replicas_of_one_instance_may_be_at_different_steps():
    learner, single = make_learner(ids=[9, 9]), train(make_learner(ids=[9]), 5)
    train(learner, 2)
    train(learner, 3, active=[True, False])
    train(learner, 1)
    train(single, 1)
    torch.testing.assert_close(learner.replicas.parameters[0], single.replicas.parameters[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_poisoned_replica_leaves_the_others_bitwise(optimizer, value):
    healthy = train(make_learner(optimizer=optimizer), 5)
    poisoned = make_learner(optimizer=optimizer)
    poison(poisoned, 1, value, entry=3)
    train(poisoned, 5)
    assert not torch.isfinite(poisoned.replicas.parameters[1]).all()
    assert same(rows_of(healthy.state(), [0, 2]), rows_of(poisoned.state(), [0, 2]))


@pytest.mark.parametrize("name", [*sorted(CONVOLUTIONAL), "quadratic"])
def test_a_poisoned_replica_leaves_the_others_bitwise_in_every_network(name):
    healthy = train(make_learner(name, ids=[0, 1]), 2)
    poisoned = make_learner(name, ids=[0, 1])
    poison(poisoned, 1, torch.nan)
    train(poisoned, 2)
    assert same(rows_of(healthy.state(), [0]), rows_of(poisoned.state(), [0]))


def test_poisoned_weights_of_one_replica_leave_the_others_bitwise():
    weights = torch.ones(3, 6)
    healthy = train(make_learner(), 3, weights)
    weights[1, 2] = torch.nan
    poisoned = train(make_learner(), 3, weights)
    assert same(rows_of(healthy.state(), [0, 2]), rows_of(poisoned.state(), [0, 2]))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_inactive_rows_are_untouched(optimizer):
    learner = train(make_learner(optimizer=optimizer, weight_decay=0.1), 2)
    before = learner.state()
    train(learner, 3, active=[True, False, True])
    assert same(rows_of(before, [1]), rows_of(learner.state(), [1]))
    assert not same(rows_of(before, [0]), rows_of(learner.state(), [0]))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_rows_that_paused_go_on_as_if_they_had_not(optimizer):
    paused = train(train(make_learner(optimizer=optimizer, lr_schedule="cosine"), 3, active=[True, False, True]), 3)
    steady = train(make_learner(optimizer=optimizer, lr_schedule="cosine"), 3)
    torch.testing.assert_close(paused.replicas.parameters[1], steady.replicas.parameters[1])


def test_no_active_row_changes_nothing():
    learner = train(make_learner(), 2)
    before = learner.state()
    train(learner, 1, active=[False, False, False])
    assert same(before, learner.state())


def test_a_partial_begin_leaves_the_other_rows_bitwise():
    learner = train(make_learner(), 3)
    before = learner.state()
    learner.begin([1], [77])
    assert same(rows_of(before, [0, 2]), rows_of(learner.state(), [0, 2]))
    assert learner.replicas.step.tolist() == [3, 0, 3]


def test_a_row_that_begins_later_trains_as_if_at_first():
    learner = train(make_learner(), 3)
    learner.begin([1], [1])
    train(learner, 3, active=[False, True, False])
    torch.testing.assert_close(learner.replicas.parameters[1], train(make_learner(), 3).replicas.parameters[1])


# --- keeping ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_restored_run_continues_bit_for_bit(optimizer):
    learner = train(make_learner(optimizer=optimizer), 3)
    kept = learner.state()
    first = train(learner, 3).state()
    learner.restore(kept)
    assert same(first, train(learner, 3).state())


def test_another_learner_continues_from_a_state_bit_for_bit():
    learner = train(make_learner(distribution="varied"), 3)
    other = make_learner(ids=[7, 8, 9], distribution="varied")
    other.restore(learner.state())
    assert same(train(learner, 3).state(), train(other, 3).state())


def test_training_does_not_change_a_state_taken_before():
    learner = train(make_learner(), 1)
    kept = learner.state()
    copied = copy.deepcopy(kept)
    train(learner, 3)
    assert same(kept, copied)


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda learner: pickle.loads(pickle.dumps(learner))])
def test_a_copy_continues_bit_for_bit(clone):
    learner = train(make_learner(distribution="varied"), 3)
    learner.forward()
    other = clone(learner)
    assert same(train(learner, 3).state(), train(other, 3).state())


def test_a_fork_is_a_copy_that_goes_its_own_way():
    learner = train(make_learner(distribution="varied"), 3)
    learner.fork([0], [2])
    state = learner.state()
    assert same(rows_of(state, [0]), rows_of(state, [2]))
    assert learner.instances[2] is learner.instances[0]
    train(learner, 2, [[1.0] * 6, [1.0] * 6, [2.0] * 5 + [0.0]])
    assert not torch.equal(learner.replicas.parameters[0], learner.replicas.parameters[2])


def test_a_fork_swaps_rows_that_are_source_and_target():
    learner = train(make_learner(), 3)
    before, instances = learner.state(), list(learner.instances)
    learner.fork([0, 1], [1, 0])
    assert same(rows_of(before, [0, 1]), rows_of(learner.state(), [1, 0]))
    assert learner.instances[:2] == [instances[1], instances[0]]


# --- bookkeeping ------------------------------------------------------------------------------------------------------


def test_each_update_counts_one_pass_each_way_in_active_rows():
    learner = train(train(make_learner(), 2), 3, active=[True, False, True])
    assert learner.replicas.passes.tolist() == [[5, 5], [2, 2], [5, 5]]
    assert learner.replicas.step.tolist() == [5, 2, 5]


@pytest.mark.parametrize(
    ("measure", "cost"),
    [
        (lambda learner, charged: learner.forward(), [0, 0]),
        (lambda learner, charged: learner.holdout(["meta"], charged), [1, 0]),
        (lambda learner, charged: learner.holdout(["meta", "reward"], charged), [2, 0]),
        (lambda learner, charged: learner.last_batch(charged), [1, 0]),
        (lambda learner, charged: learner.gramian(charged), [0, 6]),
        (lambda learner, charged: learner.metrics("test"), [0, 0]),
    ],
    ids=["forward", "holdout", "both holdouts", "last_batch", "gramian", "metrics"],
)
def test_measuring_is_charged_to_the_charged_alone_and_changes_nothing_else(measure, cost):
    learner = train(make_learner(), 2)
    before = learner.state()
    measure(learner, torch.tensor([True, False, True]))
    after = learner.state()
    assert (after.pop("passes") - before.pop("passes")).tolist() == [cost, [0, 0], cost]
    del before["differentiated"], after["differentiated"]
    assert same(before, after)


def test_measuring_does_not_change_the_training():
    learner, everyone = make_learner(), torch.ones(3, dtype=torch.bool)
    for _ in range(4):
        learner.gramian(everyone)
        learner.holdout(["meta", "reward"], everyone)
        train(learner, 1)
        learner.last_batch(everyone)
    plain = train(make_learner(), 4)
    assert same(learner.replicas.parameters, plain.replicas.parameters)


def test_losses_and_weights_of_every_step_are_kept():
    learner, weights = make_learner(ids=[1]), torch.arange(6.0)
    train(learner, 3, weights)
    assert learner.replicas.weights[0, :4].tolist() == [weights.tolist()] * 3 + [[0.0] * 6]
    assert (learner.replicas.losses[0, :3] > 0).all()
    assert (learner.replicas.losses[0, 3:] == 0).all()


def test_epochs_count_whole_passes_over_the_own_training_set():
    learner = make_learner(ids=[1], batch_size=400, train_steps=6)
    assert [train(learner, steps).epoch().item() for steps in (0, 1, 1, 1, 1)] == [0, 0, 1, 1, 2]


def test_finite_names_the_rows_that_are():
    learner = make_learner()
    poison(learner, 1, torch.nan, entry=0)
    assert learner.finite().tolist() == [True, False, True]


def test_global_generators_are_neither_read_nor_written():
    states = torch.get_rng_state().clone(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = train(make_learner(distribution="varied"), 2).state()
    assert torch.equal(states[0], torch.get_rng_state())
    assert np.array_equal(states[1], np.random.get_state()[1])  # noqa: NPY002
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    assert same(first, train(make_learner(distribution="varied"), 2).state())


@pytest.mark.parametrize("name", PROBLEMS)
def test_every_layer_is_trained(name):
    learner = make_learner(load_problem(name), ids=[0])
    before = own_parameters(learner)
    train(learner, 1)
    assert torch.isfinite(learner.replicas.parameters).all()
    assert not any(torch.equal(old, new) for old, new in zip(before, own_parameters(learner), strict=True))


def test_a_batch_larger_than_the_smallest_training_set_is_refused():
    arguments = check_arguments("mtl_gym/LossWeighting-v0", **small(distribution={"size": (0.1, 1.0)}, batch_size=81))
    with pytest.raises(ValueError, match=r"`batch_size` should be at most 80.*Received batch_size=81"):
        Learner(arguments.problem, arguments.recipe, 1)


def test_every_network_is_used_by_a_problem():
    assert {row.network for row in PROBLEMS.values()} == set(NETWORKS)


def test_the_losses_of_samples_average_to_those_of_the_batch():
    learner = make_learner(distribution={"scale": (2.0, 2.0)})
    torch.testing.assert_close(2 * learner.sample_losses().mean(1), learner.forward())


# --- weights of shared parameters and heads, and averaged gradients -------------------------------------------------------


def flat_gradients(learner):
    """Gradients (N, K, P) of the tasks' losses, by one backward pass each."""
    losses = learner._graph()
    parts = [torch.autograd.grad(losses[:, task].sum(), learner._parameters, retain_graph=True) for task in range(losses.shape[1])]
    return torch.stack([torch.cat([part.flatten(1) for part in own], dim=1) for own in parts], dim=1)


def shared_size(learner):
    return sum(math.prod(shape) for shape in learner.network.shapes[: learner.network.shared])


@pytest.mark.parametrize("weights", [[1.0, 2.0, 0.5], [0.0, 0.0, 1.0], [-1.0, 0.0, 3.0], [0.0, 0.0, 0.0]])
def test_weights_apart_act_on_shared_parameters_and_heads_alone(weights):
    learner = make_learner(num_tasks=3, optimizer="sgd", momentum=0.0, lr=0.1)
    before, gradients, shared = learner.state()["parameters"], flat_gradients(learner), shared_size(learner)
    heads = torch.tensor([2.0, -1.0, 0.0])
    learner.update_apart(torch.tensor([weights] * 3), heads.expand(3, 3), torch.tensor([True, False, True]))
    step = torch.einsum("k,nkp->np", torch.tensor(weights), gradients)
    step[:, shared:] = torch.einsum("k,nkp->np", heads, gradients)[:, shared:]
    expected = before - 0.1 * step
    expected[1] = before[1]
    torch.testing.assert_close(learner.replicas.parameters, expected, rtol=1e-5, atol=1e-7)
    if not any(weights):
        assert torch.equal(learner.replicas.parameters[:, :shared], before[:, :shared])


def test_equal_weights_apart_are_weights_of_the_whole_losses():
    weights, active = torch.tensor([[1.0, 0.0, -2.0]] * 3), torch.ones(3, dtype=torch.bool)
    whole, apart = (make_learner(num_tasks=3) for _ in range(2))
    for _ in range(3):
        whole.update(weights, active)
        apart.update_apart(weights, weights, active)
    torch.testing.assert_close(apart.replicas.parameters, whole.replicas.parameters, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("problem", ["quadratic", "digits"])
def test_networks_without_heads_or_without_shared_parameters_take_weights_apart(problem):
    learner = make_learner(problem, hidden_sizes=[])
    ones = torch.ones(3, learner.recipe.num_tasks)
    learner.update_apart(ones, 0 * ones, torch.ones(3, dtype=torch.bool))
    assert bool(learner.finite().all())


def test_the_gradients_of_the_gram_matrix_make_the_step_and_are_counted_once():
    learner, everyone = make_learner(num_tasks=3), torch.ones(3, dtype=torch.bool)
    ones = torch.ones(3, 3)
    learner.gramian(everyone)
    learner.gramian(everyone)
    learner.update_apart(ones, ones, everyone)
    assert learner.replicas.passes.tolist() == [[1, 3]] * 3
    learner.update_apart(ones, ones, everyone)
    assert learner.replicas.passes.tolist() == [[2, 6]] * 3


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_averaged_gradients_take_the_place_of_the_shared_parameters(optimizer):
    settings = {"num_tasks": 3, "optimizer": optimizer, "lr": 0.01, "momentum": 0.9 if optimizer == "adam" else 0.0}
    learner, active = make_learner(gradient_ema=0.5, **settings), torch.ones(3, dtype=torch.bool)
    weights, shared, average = torch.tensor([[1.0, 2.0, 0.5]] * 3), shared_size(learner), None
    parameters = learner.state()["parameters"].requires_grad_()
    made = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[optimizer]([parameters], lr=0.01)
    for _ in range(4):
        gradients = flat_gradients(learner)
        average = gradients if average is None else 0.5 * average + 0.5 * gradients
        own = average[:, :, :shared]
        torch.testing.assert_close(learner.gramian(active), own @ own.transpose(1, 2), rtol=1e-4, atol=1e-7)
        parameters.grad = torch.cat([(weights[:, :, None] * part).sum(1) for part in (own, gradients[:, :, shared:])], dim=1)
        made.step()
        learner.update(weights, active)
        torch.testing.assert_close(learner.replicas.parameters, parameters.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("gradient_ema", [0.0, 0.5])
def test_a_restored_or_forked_learner_goes_on_with_weights_apart(gradient_ema):
    learner, active = make_learner(num_tasks=3, gradient_ema=gradient_ema), torch.ones(3, dtype=torch.bool)
    weights = torch.tensor([[1.0, -2.0, 0.5]] * 3)
    learner.update_apart(weights, weights, active)
    learner.gramian(active)
    copies = [make_learner(num_tasks=3, gradient_ema=gradient_ema), pickle.loads(pickle.dumps(learner))]
    copies[0].restore(learner.state())
    for own in (learner, *copies):
        own.update_apart(weights, weights, active)
    assert all(same(learner.state(), own.state()) for own in copies)

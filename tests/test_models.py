import copy
import functools
import math
import pickle
import random
from itertools import pairwise
from pkgutil import resolve_name

import gymnasium
import numpy as np
import pytest
import torch
from modules import Attentive, CounterDropout, attentive, attentive_twin, masks, module_problem
from own_modules import PROBLEMS_OF
from rollouts import (
    HIDDEN_SIZES,
    SAMPLE_WEIGHTING,
    differing,
    make,
    make_trainer,
    make_vec,
    own_parameters,
    play,
    poison,
    random_actions,
    read,
    rows_of,
    same,
    slow_unless,
    small,
    train,
)
from torch import nn
from torch.nn import functional

from mtl_gym.decisions.merging.decision import branched_model
from mtl_gym.environments import LAYER_MERGING, LOSS_WEIGHTING, specification
from mtl_gym.models import NETWORKS, make_model
from mtl_gym.models.branched import BranchedModel, is_chain
from mtl_gym.problems import PROBLEMS, load_problem
from mtl_gym.problems.axes import resolve
from mtl_gym.problems.base import Problem
from mtl_gym.problems.quadratic import DIMENSIONS
from mtl_gym.training.alignments import align, cosines
from mtl_gym.training.measurements import last_batch
from mtl_gym.training.references import fingerprint, single_task_metrics

PROBLEM_OF = {row.network: name for name, row in reversed(PROBLEMS.items())}
DEEPER = {"mlp": [8, 5], "conv": [3, 4, 6], "dense": [3, 4, 5], "point": []}
FAMILIES = pytest.mark.parametrize("name", NETWORKS)
MODELS = pytest.mark.parametrize(
    "name",
    slow_unless(lambda name: name not in ("perceptron", "recurrent", "tables"), [*NETWORKS, "branched", "module", *PROBLEMS_OF]),
)


def trainer_of(name, ids=(0, 1, 2), **others):
    """A trainer of a model: of a native family, of branches, or of somebody's module."""
    options = others.pop("options", {})
    if name == "branched":
        others, options = {"num_tasks": 3, "hidden_sizes": [8, 5]} | others, {"model": branched_model} | options
    problem = {"branched": "digits", "module": module_problem()}.get(name) or PROBLEM_OF.get(name) or PROBLEMS_OF[name]()
    return make_trainer(problem, ids=ids, options=options, **others)


def passed(trainer, *, train):
    """Outputs and buffers of the next batch."""
    replicas, inputs = trainer.replicas, trainer.losses.batch().inputs
    if train:
        return replicas.train_pass(replicas.parameters, inputs, trainer.ledger.step)
    return trainer.model.forward(replicas.parameters, replicas.buffers, inputs)


# --- the native families, against plain torch -----------------------------------------------------------------------------


def linear(layers, features):
    for weight, bias in layers[:-1]:
        features = functional.relu(functional.linear(features, weight.T, bias[0]))
    return functional.linear(features, layers[-1][0].T, layers[-1][1][0])


def conv2d(image, weight, bias):
    return functional.relu(functional.conv2d(image, weight, bias, padding="same"))


def mlp(layers, inputs):
    return linear(layers, inputs.flatten(1))


def conv(layers, inputs):
    for weight, bias in layers[:-2]:
        inputs = nn.MaxPool2d(2)(conv2d(inputs, weight, bias))
    return linear(layers[-2:], inputs.flatten(1))


def dense(layers, inputs):
    full = conv2d(inputs, *layers[0])
    half = nn.AvgPool2d(2)(full)
    for weight, bias in layers[1:-1]:
        half = conv2d(half, weight, bias)
    return functional.conv2d(torch.cat([full, nn.Upsample(scale_factor=2)(half)], dim=1), *layers[-1])


def point(layers, inputs):
    (position,) = layers[0]
    return torch.cat([position * scales for scales in inputs.split(DIMENSIONS, dim=1)], dim=1)


BY_HAND = {"mlp": mlp, "conv": conv, "dense": dense, "point": point}


def stacked(name, hidden_sizes, replicas=3, batch=5):
    """A network, random parameters for N replicas by name, and random batches."""
    problem = load_problem(PROBLEM_OF[name])
    network = resolve_name(NETWORKS[name])(problem, tuple(hidden_sizes))
    rng = np.random.default_rng(0)
    parameters = {
        part: torch.tensor(rng.normal(size=(replicas, *shape)) / 3, dtype=torch.float32) for part, shape in network.shapes.items()
    }
    return problem, network, parameters, torch.tensor(rng.normal(size=(replicas, batch, *problem.input_shape)), dtype=torch.float32)


def outputs_of(network, parameters, inputs):
    return network.forward(parameters, {}, inputs)[0]


@pytest.mark.parametrize("widths", [HIDDEN_SIZES, pytest.param(DEEPER, marks=pytest.mark.slow)], ids=["small", "deeper"])
@FAMILIES
def test_the_stacked_forward_equals_each_replicas_own(name, widths):
    _, network, parameters, inputs = stacked(name, widths[name])
    outputs = outputs_of(network, parameters, inputs)
    for row in range(3):
        own = [part[row] for part in parameters.values()]
        layers = list(zip(own[::2], own[1::2], strict=True)) if len(own) > 1 else [tuple(own)]
        torch.testing.assert_close(outputs[row], BY_HAND[name](layers, inputs[row]), rtol=1e-4, atol=1e-4)


@FAMILIES
def test_outputs_have_the_channels_of_all_heads_and_the_shape_of_the_labels(name):
    problem, network, parameters, inputs = stacked(name, HIDDEN_SIZES[name])
    space = problem.splits["train"].targets.shape[2:]
    assert outputs_of(network, parameters, inputs).shape == (3, 5, problem.outputs, *space)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "point"])
def test_heads_share_all_but_their_own_columns(name):
    problem, network, parameters, inputs = stacked(name, HIDDEN_SIZES[name])
    leaves = [part.requires_grad_() for part in parameters.values()]
    outputs = outputs_of(network, parameters, inputs)[:, :, problem.output_slices[0]]
    gradients = torch.autograd.grad(outputs.square().sum(), leaves)
    assert all((gradient != 0).any() for gradient in gradients[: network.shared])
    for gradient in gradients[network.shared :]:
        channels = gradient.flatten(1).shape[1] // problem.outputs
        assert (gradient != 0).sum() <= 3 * channels * problem.tasks[0].outputs


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "point"])
def test_initial_values_are_uniform_within_the_bounds_of_torchs_layers(name):
    _, network, _, _ = stacked(name, DEEPER[name])
    drawn = np.stack([network.init(np.random.default_rng(seed), np.arange(1))[0] for seed in range(50)])
    parts = dict(zip(network.shapes, np.split(drawn, np.cumsum(network.sizes)[:-1], axis=1), strict=True))
    for weight, bias in list(pairwise(parts))[::2]:
        shape = network.shapes[weight]
        fan_in = shape[0] if len(shape) == 2 else math.prod(shape[1:])
        for part in (parts[weight], parts[bias]):
            assert abs(part).max() <= 1 / math.sqrt(fan_in)
            assert abs(part).max() > 0.9 / math.sqrt(fan_in)
            assert abs(part.mean()) < 0.1 / math.sqrt(fan_in)


@pytest.mark.parametrize("name", ["conv", "dense"])
def test_convolutions_need_images(name):
    with pytest.raises(ValueError, match="`problem` should have images"):
        resolve_name(NETWORKS[name])(load_problem("digits"), (2, 2))


# --- the contract -----------------------------------------------------------------------------------------------------------


@MODELS
def test_a_pass_is_pure(name):
    trainer = train(trainer_of(name), 1)
    before = trainer.clone()
    for mode in (True, False, True):
        first, second = passed(trainer, train=mode), passed(trainer, train=mode)
        assert same(first, second)
        assert same(before, trainer.clone())


@MODELS
def test_sizes_are_those_of_the_parameters(name):
    model = trainer_of(name).model
    assert model.size == sum(model.sizes) == sum(math.prod(shape) for shape in model.shapes.values()) == sum(model.blocks)
    assert model.num_shared == sum(model.sizes[: model.shared])
    values, buffers = model.init(np.random.default_rng(0), np.arange(3))
    assert (values.shape, values.dtype) == ((model.size,), np.float32)
    assert np.isfinite(values).all()
    assert buffers.keys() == model.buffers.keys()
    assert all(np.shape(buffers[name]) == shape for name, (shape, _) in model.buffers.items())


@MODELS
def test_initial_values_are_a_function_of_the_stream_alone(name):
    model = trainer_of(name, begin=False).model
    first, second, other = (model.init(np.random.default_rng(seed), np.arange(3))[0] for seed in (3, 3, 4))
    assert same(first, second)
    assert not same(first, other)


@MODELS
def test_a_replica_sees_nothing_of_the_others(name):
    trainer = trainer_of(name)
    outputs, _ = passed(trainer, train=True)
    gradients = torch.autograd.grad(outputs[1].square().sum(), [*trainer.replicas.parameters.values()], materialize_grads=True)
    assert all((gradient[[0, 2]] == 0).all() for gradient in gradients)
    used = [(gradient[1] != 0).any() for part, gradient in zip(trainer.model.shapes, gradients, strict=True) if part != "unused"]
    assert all(used)


@MODELS
def test_some_channels_alone_are_those_of_all(name):
    trainer = train(trainer_of(name), 2)
    whole, _ = passed(trainer, train=False)
    for own in trainer.problem.output_slices:
        part = trainer.model.outputs(trainer.replicas.parameters, trainer.replicas.buffers, trainer.losses.batch().inputs, own)
        torch.testing.assert_close(part, whole[:, :, own])


@MODELS
def test_the_features_of_the_last_stage_lead_to_the_heads(name):
    trainer = trainer_of(name)
    features = trainer.model.features(trainer.replicas.parameters, trainer.losses.batch().inputs)
    assert len(features) == len(trainer.model.stages)
    assert bool(features) == (name in ("mlp", "conv"))
    if features:
        *_, weight, bias = trainer.replicas.parameters.values()
        torch.testing.assert_close(torch.baddbmm(bias, features[-1], weight), passed(trainer, train=False)[0], rtol=1e-4, atol=1e-5)


def measure_all(trainer):
    """All that can be measured of a training between two steps, after a way back and forth."""
    kept = trainer.clone()
    read(trainer, "upcoming", "gramian")
    trainer.load(kept)
    read(trainer, "meta", "reward", "upcoming", "after", "gramian", "lr", "epoch")
    trainer.metrics("test")
    trainer.losses.held_out(["reward"])
    last_batch(trainer)
    trainer.task_gradients()
    trainer.losses.sample_graph()
    trainer.losses.sample_losses({name: 2 * part for name, part in trainer.replicas.parameters.items()})


@pytest.mark.parametrize("by_samples", [pytest.param(False, marks=pytest.mark.slow), True])
@MODELS
def test_no_number_of_measurements_changes_a_bit_of_the_training(name, by_samples):
    probed, plain = (trainer_of(name, options={"by_samples": by_samples}) for _ in range(2))
    for _ in range(3):
        measure_all(probed)
        measure_all(probed)
        if by_samples:
            align(probed)
        for own in (probed, plain):
            train(own, 1)
    changed = set(differing(probed.clone(), plain.clone()))
    assert changed <= {"/charged gradients", "/charged alignments"}


@MODELS
def test_a_row_of_four_is_a_training_by_itself(name):
    many, one = train(trainer_of(name, ids=[3, 5, 7, 9]), 4), train(trainer_of(name, ids=[7]), 4)
    torch.testing.assert_close(many.replicas.flat[2], one.replicas.flat[0], rtol=1e-4, atol=1e-5)
    for buffer in many.replicas.buffers:
        torch.testing.assert_close(many.replicas.buffers[buffer][2], one.replicas.buffers[buffer][0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@MODELS
def test_a_poisoned_replica_leaves_the_others_bitwise(name, value):
    healthy, poisoned = train(trainer_of(name), 3), trainer_of(name)
    poison(poisoned, 1, value)
    measured = [read(own, "meta", "reward", "gramian") for own in (train(poisoned, 3), healthy)]
    assert not poisoned.finite()[1]
    assert same(rows_of(healthy.clone(), [0, 2]), rows_of(poisoned.clone(), [0, 2]))
    assert same(*({name: values[[0, 2]] for name, values in own.items()} for own in measured))


@MODELS
def test_a_partial_begin_leaves_the_others_bitwise(name):
    trainer, steady = train(trainer_of(name), 2), train(trainer_of(name), 2)
    trainer.begin([1], [77])
    assert same(rows_of(trainer.clone(), [1]), rows_of(trainer_of(name, ids=[0, 77, 2]).clone(), [1]))
    for own in (trainer, steady):
        train(own, 2)
    assert same(rows_of(trainer.clone(), [0, 2]), rows_of(steady.clone(), [0, 2]))


@MODELS
def test_inactive_rows_are_untouched_buffers_included(name):
    trainer = train(trainer_of(name), 2)
    before = trainer.clone()
    train(trainer, 2, active=[True, False, True])
    assert same(rows_of(before, [1]), rows_of(trainer.clone(), [1]))
    assert not same(rows_of(before, [0]), rows_of(trainer.clone(), [0]))


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@MODELS
def test_a_training_goes_on_bit_for_bit_from_every_kind_of_copy(name, optimizer):
    trainer = train(trainer_of(name, optimizer=optimizer), 2)
    read(trainer, "upcoming")
    loaded = trainer_of(name, ids=[7, 8, 9], optimizer=optimizer)
    loaded.load(trainer.clone())
    copies = [loaded, copy.deepcopy(trainer), pickle.loads(pickle.dumps(trainer))]
    kept = trainer.clone()
    after = train(trainer, 3).clone()
    assert all(same(after, train(own, 3).clone()) for own in copies)
    trainer.load(kept)
    assert same(after, train(trainer, 3).clone())


@MODELS
def test_a_copied_row_goes_on_as_its_original(name):
    trainer = train(trainer_of(name), 2)
    read(trainer, "upcoming", "gramian")  # what is known of the next batch is of the row before
    trainer.copy_rows([0], [2])
    train(trainer, 2)
    assert same(rows_of(trainer.clone(), [0]), rows_of(trainer.clone(), [2]))


@MODELS
def test_every_parameter_in_use_is_trained_and_no_other(name):
    trainer = trainer_of(name, ids=[0])
    before = own_parameters(trainer)
    train(trainer, 2)
    still = [part for part, values in own_parameters(trainer).items() if torch.equal(values, before[part])]
    assert still == (["unused"] if name == "module" else [])


@MODELS
def test_no_global_generator_is_read_or_written(name):
    def generators():
        return torch.get_rng_state().clone(), np.random.get_state()[1].copy(), str(random.getstate())  # noqa: NPY002

    before = generators()
    first = train(trainer_of(name), 2)
    measure_all(first)
    assert same(before, generators())
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    random.seed(1)
    second = train(trainer_of(name), 2)
    assert same(first.losses.history, second.losses.history)
    assert same(first.replicas.flat, second.replicas.flat)


@MODELS
def test_gradients_of_tasks_are_autograds_own(name):
    trainer = train(trainer_of(name), 1)
    gradients, cost = trainer.task_gradients()
    assert gradients.shape == (3, trainer.recipe.num_tasks, trainer.model.size)
    assert cost.tolist() == [trainer.recipe.num_tasks] * 3
    losses, parts = trainer.losses.graph(), [*trainer.replicas.parameters.values()]
    for task in (0, trainer.recipe.num_tasks - 1):
        own = torch.autograd.grad(losses[2, task], parts, retain_graph=True, materialize_grads=True)
        torch.testing.assert_close(gradients[2, task], torch.cat([part[2].flatten() for part in own]), rtol=1e-4, atol=1e-6)


@MODELS
def test_the_identity_is_part_of_the_seed(name):
    trainer = trainer_of(name)
    assert trainer.ledger.network == trainer.model.identity
    own = trainer.recipe.draw(trainer.problem, trainer.model.identity, 0)
    assert own.entropy == trainer.ledger.instances[0].entropy
    assert own.entropy != trainer.recipe.draw(trainer.problem, "other", 0).entropy


# --- somebody's module --------------------------------------------------------------------------------------------------------


def module_trainer(**others):
    return trainer_of("module", **others)


def plain_module(trainer, row=0):
    """The module itself with a row's parameters and buffers."""
    outputs = {task.name: task.outputs for task in trainer.problem.tasks}
    module = Attentive(math.prod(trainer.problem.input_shape), *trainer.recipe.hidden_sizes, outputs)
    replicas = trainer.replicas
    values = {name: part[row].detach() for name, part in (*replicas.parameters.items(), *replicas.buffers.items())}
    module.load_state_dict({name: value.clone() for name, value in values.items()})
    return module


def module_losses(trainer, outputs, targets):
    """The five losses of the digits, by hand."""
    digit, parity, loop, angle, image = outputs.split([task.outputs for task in trainer.problem.tasks], dim=1)
    return torch.stack(
        [
            functional.cross_entropy(digit, targets[:, 0].long()),
            functional.binary_cross_entropy_with_logits(parity[:, 0], targets[:, 1]),
            functional.binary_cross_entropy_with_logits(loop[:, 0], targets[:, 2]),
            functional.mse_loss(angle[:, 0], targets[:, 3]),
            functional.mse_loss(image, targets[:, 4:]),
        ]
    )


def step_seed(trainer, row=0):
    """The seed of a row's next step, as the model is given it."""
    seen, model = [], trainer.model
    forward = model.forward

    def watched(*arguments, **options):
        seen.append(options["seeds"])
        return forward(*arguments, **options)

    model.forward = watched
    with torch.no_grad():
        passed(trainer, train=True)
    del model.forward
    return seen[0][row]


@pytest.mark.parametrize("row", [0, 2])
def test_a_module_is_trained_as_by_a_plain_loop_of_torch(row):
    trainer = module_trainer(ids=[3, 5, 7], lr=0.01)
    with torch.random.fork_rng(devices=[]):
        module = plain_module(trainer, row).train()
    own, split = torch.optim.Adam(module.parameters(), lr=0.01), trainer.problem.splits["train"]
    weights = torch.tensor([1.0, 0.5, 2.0, 0.1, -0.3])
    for step in range(8):
        samples = trainer.losses.drawn.batches.order[row, step].long()
        with CounterDropout(step_seed(trainer, row)):
            outputs = module(split.inputs[samples])
        own.zero_grad()
        losses = module_losses(trainer, outputs, split.targets[samples])
        torch.testing.assert_close(trainer.losses.forward()[row], losses.detach(), rtol=1e-3, atol=1e-4)
        (losses * weights).sum().backward()
        own.step()
        train(trainer, 1, weights)
    state = module.state_dict()
    for name, part in (*trainer.replicas.parameters.items(), *trainer.replicas.buffers.items()):
        torch.testing.assert_close(part[row].detach(), state[name], rtol=1e-3, atol=1e-4)
    assert state["norm.num_batches_tracked"] == 8


def test_outside_training_a_module_is_as_in_eval_mode():
    trainer = train(module_trainer(), 3)
    data = trainer.problem.splits["reward"]
    outputs = trainer.outputs("reward")
    with torch.random.fork_rng(devices=[]):
        module = plain_module(trainer, 1).eval()
    torch.testing.assert_close(outputs[1], module(data.inputs).detach(), rtol=1e-4, atol=1e-4)
    assert same(outputs, trainer.outputs("reward"))


def test_batch_norm_counts_each_batch_once_whatever_is_measured_kept_or_pickled():
    trainer = module_trainer()
    measure_all(trainer)
    train(trainer, 2)
    measure_all(trainer)
    kept = trainer.clone()
    train(trainer, 3)
    trainer.load(kept)
    trainer = pickle.loads(pickle.dumps(trainer))
    read(trainer, "upcoming", "gramian")
    train(trainer, 2, active=[True, False, True])
    assert trainer.replicas.buffers["norm.num_batches_tracked"].tolist() == [4, 2, 4]
    plain = train(train(module_trainer(), 2), 2, active=[True, False, True])
    assert same(trainer.replicas.buffers, plain.replicas.buffers)


def test_buffers_are_those_of_each_replicas_own_batches():
    trainer = module_trainer()
    mean, var, count = (trainer.replicas.buffers[f"norm.{name}"] for name in ("running_mean", "running_var", "num_batches_tracked"))
    assert (mean == 0).all()
    assert (var == 1).all()
    assert count.tolist() == [0, 0, 0]
    train(trainer, 2)
    assert not torch.equal(mean[0], mean[1])
    trainer.begin([1], [1])
    assert (mean[1] == 0).all()
    assert count.tolist() == [2, 0, 2]


def test_every_way_to_step_commits_the_buffers_once():
    everyone = torch.ones(3, dtype=torch.bool)
    whole, apart, samples = (module_trainer(options={"by_samples": last}) for last in (False, False, True))
    for _ in range(2):
        whole.update(torch.ones(3, 5), everyone)
        apart.update_apart(torch.ones(3, 5), torch.ones(3, 5), everyone)
        align(samples)
        samples.update_samples(torch.ones(3, 16, 5), everyone)
    for own in (whole, apart, samples):
        assert own.replicas.buffers["norm.num_batches_tracked"].tolist() == [2, 2, 2]
        torch.testing.assert_close(own.replicas.buffers, whole.replicas.buffers, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(own.replicas.flat, whole.replicas.flat, rtol=1e-3, atol=1e-4)


def test_gradients_of_an_unused_parameter_are_zeros():
    trainer = train(module_trainer(), 1)
    gradients, _ = trainer.task_gradients()
    first = trainer.replicas.views(gradients[:, 0])
    assert (first["unused"] == 0).all()
    assert (first["embed.weight"] != 0).any()
    assert (first["heads.loop.weight"] == 0).all()
    assert (first["heads.digit.weight"] != 0).any()
    assert (trainer.replicas.parameters["unused"] == 1).all()


def test_weight_decay_acts_on_an_unused_parameter_as_in_torch():
    trainer = train(module_trainer(optimizer="sgd", momentum=0.0, lr=0.1, weight_decay=0.5), 2)
    torch.testing.assert_close(trainer.replicas.parameters["unused"].detach(), torch.full((3, 3), 0.95**2))


def test_alignments_in_forward_mode_are_products_of_gradients_through_batch_norm_and_dropout():
    trainer = train(module_trainer(options={"by_samples": True}), 2)
    found = align(trainer)
    shared, products = trainer.replicas.shared(), found.products.clone()
    meta = trainer.losses.held_out(["meta"])["meta"]
    torch.testing.assert_close(found.main, meta[:, 0], rtol=1e-4, atol=1e-5)
    inputs = trainer.losses.data.holdout_inputs(["meta"])
    outputs, labels = trainer.replicas.outputs(inputs), trainer.losses.data.holdout_labels("meta")
    main = trainer.losses.objectives.parts(outputs, labels, [inputs.shape[1]])[0][:, 0]
    direction = torch.autograd.grad(main.sum(), shared, materialize_grads=True)
    losses = trainer.losses.sample_graph()
    for sample, task in ((0, 0), (5, 3), (15, 4)):
        own = torch.autograd.grad(losses[:, sample, task].sum(), shared, retain_graph=True, materialize_grads=True)
        flat, along = (torch.cat([part.flatten(1) for part in parts], dim=1) for parts in (own, direction))
        expected = (flat * along).sum(1) / along.norm(dim=1)
        torch.testing.assert_close(products[:, sample, task], expected, rtol=1e-3, atol=1e-4)
    values, cost = cosines(trainer, products)
    assert values.abs().max() <= 1
    assert cost.tolist() == [16 * 5] * 3


def test_a_mask_is_a_function_of_seed_and_layer():
    first, second = masks(5, (400, 8), layers=2)
    assert same([first, second], masks(5, (400, 8), layers=2))
    others = [second, *masks(6, (400, 8)), *masks(-(2**60), (400, 8)), *masks(0, (400, 8))]
    for other in others:
        assert (first == other).float().mean() == pytest.approx(0.75**2 + 0.25**2, abs=0.03)  # as if independent
        assert other.float().mean() == pytest.approx(0.75, abs=0.03)


def test_dropout_is_of_the_replicas_seed_and_its_step():
    trainer = module_trainer(ids=[4, 4, 9])
    trainer.replicas.flat[:] = trainer.replicas.flat[0].clone()
    inputs = trainer.problem.splits["train"].inputs[:16].expand(3, 16, -1)

    def outputs(*steps):
        with torch.no_grad():
            return trainer.replicas.train_pass(trainer.replicas.parameters, inputs, torch.tensor(steps))[0]

    first = outputs(0, 0, 0)
    assert same(first, outputs(0, 0, 0))
    torch.testing.assert_close(first[0], first[1])  # the same instance at the same step
    assert not torch.allclose(first[0], first[2])  # another instance
    assert not torch.allclose(first[0], outputs(1, 0, 0)[0])  # another step
    assert same(first[1:], outputs(1, 0, 0)[1:])
    assert not torch.allclose(first, trainer.replicas.outputs(inputs).detach())


def test_a_stochastic_model_needs_seeds():
    trainer = module_trainer()
    with pytest.raises(ValueError, match="`seeds` should be given"):
        trainer.model.forward(trainer.replicas.parameters, {}, trainer.losses.batch().inputs, train=True)


def test_the_last_batch_is_measured_with_the_dropout_of_its_step():
    trainer = module_trainer(optimizer="sgd", lr=1e-30, momentum=0.0)  # nothing moves
    before = trainer.losses.forward()
    train(trainer, 1)
    torch.testing.assert_close(last_batch(trainer), before)


def test_another_identity_is_another_instance():
    own, twin = (make_trainer(module_problem(network)) for network in (attentive, attentive_twin))
    assert own.ledger.instances[0].entropy != twin.ledger.instances[0].entropy
    assert not same(own.replicas.flat, twin.replicas.flat)
    assert own.problem.identity != twin.problem.identity


def test_networks_of_one_function_are_told_apart_by_their_identity():
    digits = load_problem("digits")

    def wider(problem, hidden_sizes, by):
        return attentive(problem, [by * width for width in hidden_sizes])

    own, twin = (Problem("own", digits.tasks, digits.splits, network=functools.partial(wider, by=by)) for by in (1, 2))
    assert own.network_name.endswith("wider")
    found = [fingerprint(problem, make_trainer(problem).recipe) for problem in (own, twin)]
    assert [fingerprint["network"] for fingerprint in found] == ["attentive[8]", "attentive[16]"]


def test_a_chain_with_dropout_is_not_merged():
    model = make_model(load_problem("digits"), (8,))
    model.stochastic = True
    assert not is_chain(model)
    with pytest.raises(ValueError, match="without buffers or dropout"):
        BranchedModel(model, load_problem("digits"), 5)


def test_what_is_no_chain_of_layers_is_not_merged_and_says_why():
    problem = module_problem()
    reason = specification(LAYER_MERGING).supports(problem)
    assert "no chain of layers" in reason
    assert "attentive[8]" in reason
    with pytest.raises(ValueError, match="no chain of layers"):
        make(problem, LAYER_MERGING)
    with pytest.raises(ValueError, match="`hidden_sizes` should give at least one hidden layer"):
        BranchedModel(make_model(problem, (8,)), problem, 5)
    assert specification(LOSS_WEIGHTING).supports(problem) is None


def test_single_task_references_of_a_module_are_its_trainings_alone():
    trainer = make_trainer(module_problem(), ids=[3])
    metrics = single_task_metrics(trainer.problem, trainer.recipe, [3], "reward")
    train(trainer, 8, torch.eye(5)[2])
    torch.testing.assert_close(metrics["loop/accuracy"].float(), trainer.metrics("reward")["loop/accuracy"].float())


@pytest.mark.parametrize("env_id", [LOSS_WEIGHTING, SAMPLE_WEIGHTING])
def test_an_episode_with_a_module_is_played_and_restored_bit_for_bit(env_id):
    env = make_vec(module_problem(), 3, env_id)
    actions = [np.stack([action] * 3) for action in random_actions(env.single_action_space, 2)]
    env.reset(seed=0)
    env.step(actions[0])
    kept = env.state()
    first = env.step(actions[1])
    assert first[2].all()
    env.restore(kept)
    assert same(first, env.step(actions[1]))
    other = make_vec(module_problem(), 3, env_id)
    assert same(play(other, actions), play(make_vec(module_problem(), 3, env_id), actions))
    other.reset(seed=5)
    other.restore(kept)
    assert same(first, other.step(actions[1]))
    env.close()


def test_gymnasium_makes_environments_of_a_problem_with_a_function_as_network():
    digits = load_problem("digits")
    problem = Problem("own", digits.tasks, digits.splits, network=attentive)
    env = gymnasium.make_vec("mtl_gym/LossWeighting-v0", num_envs=2, **small(problem))
    answers = play(env, [np.zeros(env.action_space.shape, np.float32)] * 2)
    assert answers[-1][2].all()
    assert np.isfinite(answers[-1][1]).all()
    assert problem.network_name == "modules:attentive"
    assert resolve("clean") == env.unwrapped.arguments.recipe.distribution

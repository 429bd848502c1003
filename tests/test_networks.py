import math

import numpy as np
import pytest
import torch
from rollouts import HIDDEN_SIZES
from torch import nn
from torch.nn import functional

from mtl_gym.problems import PROBLEMS, load_problem
from mtl_gym.problems.quadratic import DIMENSIONS
from mtl_gym.training.networks import NETWORKS

PROBLEM_OF = {row.network: name for name, row in reversed(PROBLEMS.items())}
DEEPER = {"mlp": [8, 5], "conv": [3, 4, 6], "dense": [3, 4, 5], "point": []}


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
    """A network, random parameters for N replicas, and random batches."""
    problem = load_problem(PROBLEM_OF[name])
    network = NETWORKS[name](problem, tuple(hidden_sizes))
    rng = np.random.default_rng(0)
    parameters = [torch.tensor(rng.normal(size=(replicas, *shape)) / 3, dtype=torch.float32) for shape in network.shapes]
    return problem, network, parameters, torch.tensor(rng.normal(size=(replicas, batch, *problem.input_shape)), dtype=torch.float32)


@pytest.mark.parametrize("widths", [HIDDEN_SIZES, DEEPER], ids=["small", "deeper"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_stacked_forward_equals_each_replicas_own(name, widths):
    _, network, parameters, inputs = stacked(name, widths[name])
    outputs = network.forward(parameters, inputs)
    for row in range(3):
        own = [part[row] for part in parameters]
        layers = list(zip(own[::2], own[1::2], strict=True)) if len(own) > 1 else [tuple(own)]
        torch.testing.assert_close(outputs[row], BY_HAND[name](layers, inputs[row]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_have_the_channels_of_all_heads_and_the_shape_of_the_labels(name):
    problem, network, parameters, inputs = stacked(name, HIDDEN_SIZES[name])
    space = problem.splits["train"].targets.shape[2:]
    assert network.forward(parameters, inputs).shape == (3, 5, problem.outputs, *space)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_replica_sees_nothing_of_the_others(name):
    _, network, parameters, inputs = stacked(name, HIDDEN_SIZES[name])
    parameters = [part.requires_grad_() for part in parameters]
    gradients = torch.autograd.grad(network.forward(parameters, inputs)[1].square().sum(), parameters)
    assert all((gradient[[0, 2]] == 0).all() for gradient in gradients)
    assert all((gradient[1] != 0).any() for gradient in gradients)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "point"])
def test_heads_share_all_but_their_own_columns(name):
    problem, network, parameters, inputs = stacked(name, HIDDEN_SIZES[name])
    parameters = [part.requires_grad_() for part in parameters]
    outputs = network.forward(parameters, inputs)[:, :, problem.output_slices[0]]
    gradients = torch.autograd.grad(outputs.square().sum(), parameters)
    assert all((gradient != 0).any() for gradient in gradients[: network.shared])
    for gradient in gradients[network.shared :]:
        channels = gradient.flatten(1).shape[1] // problem.outputs
        assert (gradient != 0).sum() <= 3 * channels * problem.tasks[0].outputs


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "point"])
def test_bounds_are_those_of_torchs_layers(name):
    _, network, _, _ = stacked(name, DEEPER[name])
    for weight, bound in zip(network.shapes[::2], network.bounds[::2], strict=True):
        fan_in = weight[0] if len(weight) == 2 else math.prod(weight[1:])
        assert bound == pytest.approx(1 / math.sqrt(fan_in))
    assert network.bounds[::2] == network.bounds[1::2]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_size_is_the_number_of_parameters(name):
    _, network, parameters, _ = stacked(name, HIDDEN_SIZES[name])
    assert network.size == sum(part[0].numel() for part in parameters)
    assert len(network.shapes) == len(network.bounds)


@pytest.mark.parametrize("name", ["conv", "dense"])
def test_convolutions_need_images(name):
    with pytest.raises(ValueError, match="`problem` should have images"):
        NETWORKS[name](load_problem("digits"), (2, 2))

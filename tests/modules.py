"""Somebody's ``torch.nn.Module`` with all that is awkward: attention, batch norm, dropout and an unused parameter."""

import functools
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from mtl_gym.models.base import Model
from mtl_gym.problems import load_problem
from mtl_gym.problems.base import Problem
from mtl_gym.problems.rows import Defaults
from mtl_gym.randomness import borrowed_generator

TOKENS = 8


class SelfAttention(nn.Module):
    """Multi-head self-attention of sequences (B, T, C), of operations with batching and forward-mode rules."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        # A bias of the keys changes nothing: its gradients are rounding alone, which Adam would take for as good as any.
        self.mixed, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width)

    def forward(self, tokens):
        query, key, value = self.mixed(tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each (B, H, T, C / H)
        shares = torch.softmax(query @ key.mT / query.shape[-1] ** 0.5, dim=-1)
        return self.out((shares @ value).transpose(1, 2).flatten(2))


class Attentive(nn.Module):
    """Attention over pieces of the input, and a head for each task; one of its parameters is never used."""

    def __init__(self, inputs, width, outputs, rate=0.25):
        super().__init__()
        self.heads = nn.ModuleDict({name: nn.Linear(width, count) for name, count in outputs.items()})  # named first, put last
        self.embed = nn.Linear(inputs // TOKENS, width)
        self.attention = SelfAttention(width, 2)
        self.unused = nn.Parameter(torch.ones(3))
        self.norm = nn.BatchNorm1d(width)
        self.linear = nn.Linear(width, width)
        self.dropouts = nn.ModuleList([nn.Dropout(rate), nn.Dropout(rate)])

    def forward(self, inputs):
        tokens = self.embed(inputs.flatten(1).unflatten(1, (TOKENS, -1)))
        tokens = self.dropouts[0](tokens + self.attention(tokens))
        features = self.dropouts[1](torch.relu(self.linear(self.norm(tokens.mean(1)))))
        return torch.cat([head(features) for head in self.heads.values()], dim=1)


class CounterDropout(TorchFunctionMode):
    """Dropout as a function of (seed, layer, entry): no generator is read. Layers are counted as they are called.

    Args:
        seed: () int64.
    """

    def __init__(self, seed):
        self.seed, self.layer = seed, 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        own = self._dropout if func is functional.dropout else func
        return own(*args, **(kwargs or {}))

    def _dropout(self, input, p=0.5, training=True, inplace=False):
        if not training or p == 0:
            return input
        self.layer += 1
        entries = torch.arange(input.numel(), device=input.device).view(input.shape)
        bits = mixed(mixed(mixed(self.seed) + self.layer) + entries)
        return torch.where((bits & 0xFFFFFF) >= p * 2**24, input / (1 - p), 0)


def mixed(numbers):
    """splitmix64's finaliser: numbers of 64 bits whose every bit depends on all bits of the argument."""
    numbers = (numbers ^ (numbers >> 30 & (1 << 34) - 1)) * -4658895280553007687
    numbers = (numbers ^ (numbers >> 27 & (1 << 37) - 1)) * -7723592293110705685
    return numbers ^ (numbers >> 31 & (1 << 33) - 1)


class ModuleModel(Model):
    """N copies of a module.

    Args:
        make: Makes the module; its parameters named ``heads.`` are the heads'.
        identity: Words.
        stochastic: Whether it has dropout.
    """

    def __init__(self, make, identity, *, stochastic=True):
        self._make, self.identity, self.stochastic = make, identity, stochastic
        with borrowed_generator(0):
            self.module, self._evaluated = make().train(), make().eval()
        shapes = {name: tuple(part.shape) for name, part in self.module.named_parameters()}
        self._order = sorted(shapes, key=lambda name: name.startswith("heads."))  # stable
        self.shapes = {name: shapes[name] for name in self._order}
        self.shared = sum(not name.startswith("heads.") for name in shapes)
        self.buffers = {name: (tuple(own.shape), own.dtype) for name, own in self.module.named_buffers()}

    def init(self, rng, tasks):
        with borrowed_generator(int(rng.integers(2**32))):
            module = self._make()
        parts = dict(module.named_parameters())
        values = [parts[name].detach().flatten() for name in self._order]
        return torch.cat(values).numpy().astype(np.float32), {name: own.numpy() for name, own in module.named_buffers()}

    def forward(self, parameters, buffers, inputs, *, train=False, seeds=None):
        if train and self.stochastic and seeds is None:
            raise ValueError("`seeds` should be given in training: dropout is a function of them")
        module = self.module if train else self._evaluated

        def one(parameters, buffers, inputs, seed):
            own = {name: buffer.clone() for name, buffer in buffers.items()}  # batch norm writes into them
            with CounterDropout(seed) if train and self.stochastic else nullcontext():
                return functional_call(module, (parameters, own), (inputs,)), own

        given = torch.zeros(len(inputs), dtype=torch.int64, device=inputs.device) if seeds is None else seeds
        outputs, new = vmap(one, randomness="error")(dict(parameters), dict(buffers), inputs, given)
        return outputs, new if train else buffers


def _attentive_module(inputs, width, outputs) -> nn.Module:
    return Attentive(inputs, width, dict(outputs))


def attentive(problem: Problem, hidden_sizes) -> ModuleModel:
    """The factory that a problem is given."""
    outputs = tuple((task.name, task.outputs) for task in problem.tasks)
    inputs, (width,) = int(np.prod(problem.input_shape)), hidden_sizes
    return ModuleModel(functools.partial(_attentive_module, inputs, width, outputs), f"attentive[{width}]")


def attentive_twin(problem: Problem, hidden_sizes) -> ModuleModel:
    """The same by another name."""
    model = attentive(problem, hidden_sizes)
    model.identity = f"twin[{hidden_sizes[0]}]"
    return model


@functools.cache
def module_problem(network=attentive) -> Problem:
    """The digits, learned by that network."""
    digits = load_problem("digits")
    defaults = Defaults(lr=5e-3, batch_size=16, train_steps=8, hidden_sizes=(8,))
    return Problem("digits_by_module", digits.tasks, digits.splits, network=network, defaults=defaults)


def masks(seed, shape, layers=1, rate=0.25) -> list[Tensor]:
    """What each of some dropout layers lets through (of ones), with a seed."""
    with CounterDropout(torch.tensor(seed)):
        return [functional.dropout(torch.ones(shape), rate) != 0 for _ in range(layers)]

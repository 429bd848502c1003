"""Modules as people write them, and problems that are learned by them."""

import functools

import numpy as np
import torch
from torch import nn

from mtl_gym.problems import load_problem
from mtl_gym.problems.base import SPLITS, Problem, Split, Task
from mtl_gym.problems.rows import Defaults

DEFAULTS = Defaults(lr=5e-3, batch_size=16, train_steps=8)


def heads(width):
    return nn.ModuleDict({task.name: nn.Linear(width, task.outputs) for task in load_problem("digits").tasks})


class Perceptron(nn.Module):
    """Two layers with a head for each task: outputs by name."""

    def __init__(self, width=8):
        super().__init__()
        self.heads = heads(width)  # before the trunk, which comes first in a model
        self.trunk = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())

    def forward(self, inputs):
        features = self.trunk(inputs)
        return {name: head(features) for name, head in self.heads.items()}


class Convolutional(nn.Module):
    """A convolution with batch norm and two kinds of dropout: outputs in a list."""

    def __init__(self, channels=4):
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Dropout2d(0.2),
            nn.MaxPool2d(4),
            nn.Flatten(),
            nn.Dropout(0.2),
        )
        self.heads = heads(4 * channels)

    def forward(self, inputs):
        features = self.trunk(inputs.unflatten(1, (1, 8, 8)))
        return [head(features) for head in self.heads.values()]


class Recurrent(nn.Module):
    """Rows of an image one after another: a layer without a batching rule; outputs side by side."""

    def __init__(self, width=8):
        super().__init__()
        self.trunk = nn.LSTM(8, width, batch_first=True)
        self.out = nn.Linear(width, load_problem("digits").outputs)

    def forward(self, inputs):
        return self.out(self.trunk(inputs.unflatten(1, (8, 8)))[0][:, -1])


class Attentive(nn.Module):
    """A small transformer over tokens with a mask of padding."""

    def __init__(self, width=8):
        super().__init__()
        self.trunk = nn.ModuleDict(
            {
                "embed": nn.Embedding(11, width),
                # A bias of the keys changes nothing: its gradients are rounding alone.
                "layer": nn.TransformerEncoderLayer(width, 2, 16, dropout=0.1, batch_first=True, bias=False),
            }
        )
        self.heads = nn.ModuleDict({"first": nn.Linear(width, 3), "length": nn.Linear(width, 1)})

    def forward(self, inputs):
        hidden = self.trunk["layer"](self.trunk["embed"](inputs["tokens"]), src_key_padding_mask=inputs["padding"])
        features = hidden.masked_fill(inputs["padding"][..., None], 0).sum(1) / 6
        return {"length": self.heads["length"](features)[:, 0], "first": self.heads["first"](features)}


class Tables(nn.Module):
    """Embeddings of two columns of a table."""

    def __init__(self, width=4):
        super().__init__()
        self.trunk = nn.ModuleList([nn.Embedding(7, width), nn.Embedding(5, width), nn.Linear(2 * width, width)])
        self.heads = nn.ModuleList([nn.Linear(width, 1), nn.Linear(width, 1)])

    def forward(self, inputs):
        one, two, mix = self.trunk
        features = torch.tanh(mix(torch.cat([one(inputs[:, 0]), two(inputs[:, 1])], dim=1)))
        return [head(features) for head in self.heads]


@functools.cache
def digits_by(make=Perceptron, vectorize="auto"):
    """The digits, learned by a module."""
    digits = load_problem("digits")
    return Problem("digits_by", digits.tasks, digits.splits, model=make, vectorize=vectorize, defaults=DEFAULTS)


def _texts(rng, count):
    """Tokens (n, 6) of which the last few are padding: the kind of the first one, and how many there are."""
    tokens, lengths = rng.integers(1, 11, (count, 6)), rng.integers(2, 7, count)
    padding = np.arange(6) >= lengths[:, None]
    inputs = {"tokens": np.where(padding, 0, tokens), "padding": padding}
    return Split.of(inputs, [tokens[:, 0] % 3, lengths / 6 + 0.1 * rng.normal(size=count)])


@functools.cache
def texts(vectorize="auto"):
    rng = np.random.default_rng(0)
    splits = {name: _texts(rng, 80 if name == "train" else 40) for name in SPLITS}
    tasks = [Task("first", "cross_entropy", ("accuracy",), outputs=3), Task("length", "mse", ("rmse",))]
    return Problem("texts", tasks, splits, model=Attentive, vectorize=vectorize, defaults=DEFAULTS)


@functools.cache
def tables():
    rng = np.random.default_rng(0)
    splits = {}
    for name in SPLITS:
        ids = np.stack([rng.integers(0, 7, 60), rng.integers(0, 5, 60)], axis=1)
        splits[name] = Split.of(ids, [(ids.sum(1) % 2), ids[:, 0] / 7 + 0.1 * rng.normal(size=60)])
    tasks = [Task("odd", "bce", ("auc",)), Task("size", "l1", ("rmse",))]
    return Problem("tables", tasks, splits, model=Tables, defaults=DEFAULTS)


PROBLEMS_OF = {
    "perceptron": digits_by,
    "convolutional": functools.partial(digits_by, Convolutional),
    "recurrent": functools.partial(digits_by, Recurrent),
    "attentive": texts,
    "tables": tables,
}
"""Kind of module to a function that makes its problem."""
MODES = {"perceptron": "vmap", "convolutional": "loop", "recurrent": "loop", "attentive": "vmap", "tables": "vmap"}

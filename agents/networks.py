"""Networks that share weights across any number of tasks (or of samples and tasks).

A set of entities is a tensor with *entity axes*: (..., K, F) for K tasks, (..., B, K, F) for B samples of K tasks. A layer maps
each entity's features and those pooled over the axes, with the same weights for all entities. So permuting the entities of an axis
permutes the output (equivariance), and the number of entities may change after training.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor, nn


class Exchangeable(nn.Module):
    """A linear layer over entities: of each entity's features, and their means and maxima over every subset of the entity axes.

    For one axis this is a layer of Zaheer et al., "Deep Sets", NeurIPS 2017; for two, of Hartford et al., "Deep Models of
    Interactions Across Sets", ICML 2018, with maxima in addition to the means.

    Args:
        inputs: F, features per entity.
        outputs: Output features per entity.
        axes: Number of entity axes: 1 for tasks, 2 for samples and tasks.
    """

    def __init__(self, inputs: int, outputs: int, *, axes: int = 1) -> None:
        super().__init__()
        places = range(-1 - axes, -1)  # the last axis holds the features
        self.pooled = [subset for size in range(1, axes + 1) for subset in combinations(places, size)]
        self.linear = nn.Linear(inputs * (1 + 2 * len(self.pooled)), outputs)

    def forward(self, entities: Tensor) -> Tensor:
        """Maps (..., K, F) to (..., K, outputs)."""
        parts = [entities]
        for subset in self.pooled:
            means, maxima = entities.mean(subset, keepdim=True), entities.amax(subset, keepdim=True)
            parts += [means.expand_as(entities), maxima.expand_as(entities)]
        return self.linear(torch.cat(parts, dim=-1))


def exchangeable_layers(
    inputs: int, widths: Sequence[int], *, axes: int = 1, activation: type[nn.Module] = nn.Tanh
) -> nn.Sequential:
    """An equivariant stack of :class:`Exchangeable` layers with an activation after each."""
    layers: list[nn.Module] = []
    for width in widths:
        layers += [Exchangeable(inputs, width, axes=axes), activation()]
        inputs = width
    return nn.Sequential(*layers)


class Pool(nn.Module):
    """Mean and maximum over the entity axes (one by default): (..., K, F) to (..., 2 F), invariant to permutations."""

    def __init__(self, *, axes: int = 1) -> None:
        super().__init__()
        self.places = tuple(range(-1 - axes, -1))

    def forward(self, entities: Tensor) -> Tensor:
        """Pools."""
        return torch.cat([entities.mean(self.places), entities.amax(self.places)], dim=-1)


class OverEntities(nn.Module):
    """Lets Stable-Baselines3, whose features are flat, call modules over entities: (N, K F) becomes (N, K, F).

    Args:
        module: Takes (N, K, F).
        num_entities: K.
        extra: Whether K trailing columns, one number per entity (a critic's actions), become the entities' last features.
        flatten: Whether the output (N, K, H) is flattened again.
    """

    def __init__(self, module: nn.Module, num_entities: int, *, extra: bool = False, flatten: bool = True) -> None:
        super().__init__()
        self.module, self.num_entities, self.extra, self.flatten = module, num_entities, extra, flatten

    def forward(self, flat: Tensor) -> Tensor:
        """Unflattens, maps, and flattens."""
        count = self.num_entities
        if self.extra:
            entities = torch.cat([flat[..., :-count].unflatten(-1, (count, -1)), flat[..., -count:, None]], dim=-1)
        else:
            entities = flat.unflatten(-1, (count, -1))
        outputs: Tensor = self.module(entities)
        return outputs.flatten(-2) if self.flatten else outputs


class EntityLSTM(nn.Module):
    """An LSTM shared across K entities, with a memory for each; like an ``nn.LSTM`` over flat features, K F to K H.

    Args:
        inputs: F.
        hidden: H.
        num_entities: K.
    """

    num_layers = 1

    def __init__(self, inputs: int, hidden: int, num_entities: int) -> None:
        super().__init__()
        self.num_entities = num_entities
        self.input_size, self.hidden_size = num_entities * inputs, num_entities * hidden
        self.lstm = nn.LSTM(inputs, hidden)

    def forward(self, flat: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Maps a sequence (T, N, K F) with a memory of two tensors (1, N, K H)."""
        rows = flat.shape[1]
        split = [part.unflatten(-1, (self.num_entities, -1)).flatten(1, 2) for part in (flat, *state)]  # (T, N K, F)
        outputs, memory = self.lstm(split[0], (split[1], split[2]))
        joined = [part.unflatten(1, (rows, -1)).flatten(2) for part in (outputs, *memory)]
        return joined[0], (joined[1], joined[2])

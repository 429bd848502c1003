"""What SB3's policies over tasks see: observations as features of each task, in whatever number and order."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from mtl_gym import should

SAMPLE_WIDTH = 16
"""Width of the layers shared by all samples of all tasks, before samples are pooled to features of their task."""
_KINDS = ("task", "one", "pooled", "pair", "sample", "choice")
POOLED = 4
"""Numbers in an observation that is pooled over tasks."""
SHARES = ("last_weights",)
"""Observations that sum to 1 over tasks: they are multiplied by K, so that an equal fraction is 1."""


class TaskFeatures(BaseFeaturesExtractor):
    """A flat Dict of observations as features of each task, (N, K F).

    An observation of tasks gives each task one feature; those of the whole training, and those pooled over tasks, are features of
    every task; one of pairs gives each task its mean and minimum over the other tasks. Where nothing is observed of single tasks,
    the features are those of one task that stands for all (K = 1). Observations of samples pass through layers shared by all
    samples of all tasks, and each task gets the means and maxima over its samples, in any number and order.

    Args:
        observation_space: The environment's.
        kinds: The observations' rows of ``SIZES``, by name.
        per_task: Whether an action is, or ends with, one number for each task.

    Raises:
        ValueError: If an observation is of something else, or none is per task.
    """

    def __init__(self, observation_space: spaces.Dict, kinds: Mapping[str, str], per_task: bool = True) -> None:
        self.kinds, self.per_task = {name: kinds[name] for name in observation_space}, per_task
        if not set(self.kinds.values()) <= set(_KINDS):
            raise ValueError(should("observe", f"hold observations of {', '.join(_KINDS)}", self.kinds))
        self.num_tasks = num_tasks = task_count(observation_space, self.kinds, per_task)
        if "task" not in self.kinds.values() and (
            wrong := [name for name, kind in self.kinds.items() if kind in ("pair", "sample")]
        ):
            remedy = "Observe something of each task too, or pooled_cosine in place of cosines."
            raise ValueError(should("observe", f"not hold {', '.join(wrong)} where all else is pooled over tasks", wrong, remedy))
        self.of_samples = [name for name, kind in self.kinds.items() if kind == "sample"]
        width = sum({"pair": 2, "sample": 0, "choice": 0, "pooled": POOLED}.get(kind, 1) for kind in self.kinds.values())
        super().__init__(observation_space, features_dim=num_tasks * (width + 2 * SAMPLE_WIDTH * bool(self.of_samples)))
        if self.of_samples:
            layers = (nn.Linear(len(self.of_samples), SAMPLE_WIDTH), nn.Tanh(), nn.Linear(SAMPLE_WIDTH, SAMPLE_WIDTH), nn.Tanh())
            self.samples = nn.Sequential(*layers)
        first, second = torch.triu_indices(num_tasks, num_tasks, offset=1)
        pairs = torch.zeros(num_tasks, num_tasks, dtype=torch.long)
        pairs[first, second] = pairs[second, first] = torch.arange(len(first))
        others = ~torch.eye(num_tasks, dtype=torch.bool)
        self.pairs = pairs[others].view(num_tasks, num_tasks - 1)  # (K, K - 1)

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        """Stacks the features in the order of the names: (N, K F)."""
        parts = []
        for name, kind in self.kinds.items():
            values = observations[name]
            if kind in ("sample", "choice"):
                continue
            if kind == "pair" and self.num_tasks > 1:
                others = values[:, self.pairs]  # (N, K, K - 1)
                parts += [others.mean(-1), others.amin(-1)]
            elif kind == "pair":
                parts += [torch.zeros(len(values), 1, device=values.device)] * 2
            elif kind == "pooled":
                parts += [own[:, None].expand(-1, self.num_tasks) for own in values.unbind(1)]
            else:
                level = self.num_tasks if name in SHARES else 1
                parts.append(level * values.expand(-1, self.num_tasks))
        features = torch.stack(parts, dim=-1)  # (N, K, F)
        if self.of_samples:
            tables = [observations[name].unflatten(1, (-1, self.num_tasks)) for name in self.of_samples]
            encoded = self.samples(torch.stack(tables, dim=-1))  # (N, B, K, width)
            features = torch.cat([features, encoded.mean(1), encoded.amax(1)], dim=-1)
        return features.flatten(1)


def task_count(observation_space: spaces.Dict, kinds: Mapping[str, str], per_task: bool = True) -> int:
    """K, the length of an observation of each task; 1 if there is none, and no action is of a task either.

    Raises:
        ValueError: If K cannot be known.
    """
    counts = [int(box.shape[0]) for name, box in observation_space.items() if kinds[name] == "task"]  # type: ignore[index]
    if not counts and not per_task and ("pooled" in kinds.values() or {*kinds.values()} == {"one"}):
        return 1
    if not counts:
        raise ValueError(should("observe", "hold at least one observation of each task", list(observation_space)))
    return counts[0]

"""A policy that places one task at a time in a group, for any number of tasks and groups.

A group's score is computed from the pooled features of its members, including their relation to the next task. So the scores do not
depend on the order of the tasks, permuting the groups permutes the scores, and both numbers may change after training.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from mtl_gym import should
from mtl_gym.agents.networks import Pool, exchangeable_layers
from mtl_gym.agents.structure_policies import ScoringPolicy
from mtl_gym.agents.task_encoding import task_count
from mtl_gym.agents.task_policies import WIDTHS

GROUPS, NEXT = "groups", "next_task"
_KINDS = ("map", "task", "one", "pair", "square", "member", "choice")


class GroupFeatures(BaseFeaturesExtractor):
    """Turns a flat Dict of observations into features of each task (K, F) and the members of the groups (K, G).

    Observations of pairs are relations between tasks, both raw and standardised over all pairs, since affinities are small. For
    each relation a task has the mean, minimum and maximum over the other tasks, its value with the next task, and its mean over the
    group; further features are the fraction of tasks in its group and the fraction of groups in use.

    Args:
        observation_space: The environment's.
        kinds: The observations' rows of ``SIZES``, by name.

    Raises:
        ValueError: If ``groups`` or ``next_task`` is missing, or an observation is neither of tasks nor of pairs.
    """

    def __init__(self, observation_space: spaces.Dict, kinds: Mapping[str, str]) -> None:
        self.kinds = {name: kinds[name] for name in observation_space}
        if not {GROUPS, NEXT} <= set(self.kinds) or not set(self.kinds.values()) <= set(_KINDS):
            condition = f"hold {GROUPS!r} and {NEXT!r}, and otherwise only observations of tasks and pairs"
            raise ValueError(should("observe", condition, list(self.kinds)))
        self.num_tasks = task_count(observation_space, kinds)
        lengths = {name: int(box.shape[0]) for name, box in observation_space.items()}  # type: ignore[index]
        self.num_groups = lengths[GROUPS] // self.num_tasks
        relations = 2 * sum({"pair": 1, "square": 2}.get(kind, 0) for kind in self.kinds.values())
        alone = [lengths[name] // self.num_tasks for name, kind in self.kinds.items() if kind == "map"]
        alone += [1 for kind in self.kinds.values() if kind in ("task", "one")]
        self.of_task = sum(alone) + 5 * relations + 3
        super().__init__(observation_space, features_dim=self.num_tasks * (self.of_task + self.num_groups))

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        """Features (N, K F + K G)."""
        count, members = self.num_tasks, observations[GROUPS].unflatten(1, (self.num_tasks, -1))
        parts = [observations[NEXT][:, :, None]]  # the first feature
        for name, kind in self.kinds.items():
            if name == NEXT:
                continue
            if kind == "map":
                parts.append(observations[name].unflatten(1, (count, -1)))
            elif kind in ("task", "one"):
                parts.append(observations[name].expand(-1, count)[:, :, None])
        tasks = torch.cat([*parts, *self._related(observations, members), *_placed(members)], dim=2)
        return torch.cat([tasks.flatten(1), members.flatten(1)], dim=1)

    def _related(self, observations: dict[str, Tensor], members: Tensor) -> list[Tensor]:
        """For each relation of a task: mean, minimum and maximum, value with the next task, mean over its group; each (N, K, P)."""
        tables = [table for name in self.kinds for table in self._tables(name, observations[name])]
        if not tables:
            return []
        relations = torch.stack(tables, dim=3)  # (N, K, K, P)
        others = 1 - torch.eye(self.num_tasks, device=relations.device)
        mates = (members @ members.mT) * others
        barred = (others == 0)[None, :, :, None]
        return [
            relations.sum(2) / max(self.num_tasks - 1, 1),
            relations.masked_fill(barred, torch.inf).amin(2).nan_to_num(posinf=0),
            relations.masked_fill(barred, -torch.inf).amax(2).nan_to_num(neginf=0),
            torch.einsum("nijp,nj->nip", relations, observations[NEXT]),
            torch.einsum("nijp,nij->nip", relations, mates) / mates.sum(2, keepdim=True).clamp(min=1),
        ]

    def _tables(self, name: str, values: Tensor) -> list[Tensor]:
        """Relations (N, K, K) with zeros on the diagonal: raw and standardised, in both directions."""
        count, kind = self.num_tasks, self.kinds[name]
        if kind not in ("pair", "square"):
            return []
        others = 1 - torch.eye(count, device=values.device)
        if kind == "pair":
            table = values.new_zeros(len(values), count, count)
            first, second = torch.triu_indices(count, count, offset=1)
            table[:, first, second] = table[:, second, first] = values
        else:
            table = values.unflatten(1, (count, count)) * others
        pairs = max(count * (count - 1), 1)
        means = table.sum((1, 2), keepdim=True) / pairs
        deviations = ((table - means).square() * others).sum((1, 2), keepdim=True).div(pairs).sqrt()
        standard = (table - means) * others / deviations.clamp(min=1e-6)
        return [table, standard] if kind == "pair" else [table, standard, table.mT, standard.mT]


def _placed(members: Tensor) -> list[Tensor]:
    """For each task (N, K, 1): whether it is placed, the fraction of tasks in its group, and the fraction of groups in use."""
    count, sizes = members.shape[1], members.sum(1, keepdim=True)
    used = (sizes > 0).sum(2, keepdim=True) / count
    return [members.sum(2, keepdim=True), (members * sizes).sum(2, keepdim=True) / count, used.expand(-1, count, -1)]


class _GroupLatents(nn.Module):
    """Replaces SB3's ``MlpExtractor``: latents of each group for the actor, pooled latents of the tasks for the critic."""

    def __init__(self, features: GroupFeatures, activation: type[nn.Module]) -> None:
        super().__init__()
        self.num_tasks, self.num_groups, self.of_task = features.num_tasks, features.num_groups, features.of_task
        width = WIDTHS[-1]
        self.latent_dim_pi, self.latent_dim_vf = self.num_groups * width, 2 * width
        self.tasks = exchangeable_layers(self.of_task, WIDTHS, activation=activation)
        self.groups = nn.Sequential(nn.Linear(3 * width + 2, width), activation(), nn.Linear(width, width), activation())
        self.critic = nn.Sequential(exchangeable_layers(self.of_task, WIDTHS, activation=activation), Pool())

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return self.forward_actor(features), self.forward_critic(features)

    def forward_actor(self, features: Tensor) -> Tensor:
        tasks, members = self._split(features)
        entities = self.tasks(tasks)  # (N, K, W)
        inside = members.mT[..., None]  # (N, G, K, 1)
        sizes = inside.sum(2)  # (N, G, 1)
        means = members.mT @ entities / sizes.clamp(min=1)
        spread = torch.where(inside > 0, entities[:, None], -torch.inf).amax(2)
        maxima = torch.where(sizes > 0, spread, 0)
        coming = (entities * tasks[:, :, :1]).sum(1, keepdim=True).expand_as(means)
        known = torch.cat([means, maxima, coming, sizes / self.num_tasks, (sizes == 0).to(sizes)], dim=2)
        latents: Tensor = self.groups(known).flatten(1)
        return latents

    def forward_critic(self, features: Tensor) -> Tensor:
        values: Tensor = self.critic(self._split(features)[0])
        return values

    def _split(self, features: Tensor) -> tuple[Tensor, Tensor]:
        parts = features.split([self.num_tasks * self.of_task, self.num_tasks * self.num_groups], dim=1)
        tasks, members = (part.unflatten(1, (self.num_tasks, -1)) for part in parts)
        return tasks, members


class _GroupScores(nn.Module):
    """Scores (N, G) of the groups, from their latents."""

    def __init__(self, width: int, num_tasks: int, actions: int) -> None:
        super().__init__()
        self.score, self.width = nn.Linear(width, 1), width

    def forward(self, latents: Tensor) -> Tensor:
        scores: Tensor = self.score(latents.unflatten(1, (-1, self.width)))[:, :, 0]
        return scores


class GroupingPolicy(ScoringPolicy):
    """MaskablePPO's policy over the actions of ``place``: scores of groups, and an invariant critic."""

    features, latents, scores = GroupFeatures, _GroupLatents, _GroupScores

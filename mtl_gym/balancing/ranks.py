"""Averages over the processes of a distributed training, so that all of them take the same decisions."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from mtl_gym.checks import should


def checked(group: object) -> dist.ProcessGroup | None:
    """The processes of a training; raises ``TypeError`` if it is something else."""
    if group is not None and not (dist.is_available() and isinstance(group, dist.ProcessGroup)):
        raise TypeError(should("process_group", "be a torch.distributed.ProcessGroup, or None for the default one", group))
    return group


def size(group: dist.ProcessGroup | None) -> int:
    """Number of processes; 1 if nothing is distributed."""
    return dist.get_world_size(group) if dist.is_available() and dist.is_initialized() else 1


def mean_of_known(values: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """Mean of values (K,) over the processes in which they are not NaN; NaN where none knows one."""
    if size(group) == 1:
        return values
    known = ~values.isnan()
    table = torch.stack([values.nan_to_num(nan=0.0), known.to(values.dtype)])
    dist.all_reduce(table, group=group)
    return table[0] / table[1]


def mean(values: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """Mean of a tensor over all processes, in place."""
    if (count := size(group)) > 1:
        dist.all_reduce(values, group=group)
        values /= count
    return values

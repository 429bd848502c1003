"""How much memory trainings take at most, estimated before any of it is taken.

:func:`training_bytes` is an upper bound of what N trainings add to a process from their construction to the end of an episode:

| what | bytes, at most |
|---|---|
| parameters, their gradient and the optimiser's moments | 4 N P (3 + moments), and an object for every part that is optimised |
| gradients of the tasks, where they are needed apart | 12 N K P; 4 N K Q for moving averages |
| the order of the batches; losses and weights of every step | 4 N (H + 1) B; 8 N H K |
| sources of wrong labels | 4 N n T |
| a training pass and its gradients | three times the intermediate results of a forward pass, which a dry run without data counts |
| measuring held-out losses and whole splits | half of the intermediate results of a forward pass, and 4 times the outputs |
| observations and their spaces | 256 N K^2 |

N replicas of P parameters, of which Q are shared, K of T tasks, H steps of B samples, n training samples.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mtl_gym.checks import should
from mtl_gym.models.base import Model
from mtl_gym.problems.base import Problem
from mtl_gym.problems.inputs import each, parts, shapes
from mtl_gym.problems.modules import ModuleFactory
from mtl_gym.training.checkpoints import CHECKPOINTS
from mtl_gym.training.drawn import HOLDOUTS, family_size, own_splits, source_sizes
from mtl_gym.training.optim import OPTIMIZERS
from mtl_gym.training.recipe import Recipe
from mtl_gym.training.trainer import CHUNK, own_model

FIXED = 64 * 2**20
"""Bytes for everything whose size does not depend on the arguments."""
_FRACTION = 4  # of the free memory, a quarter may be taken
_UNKNOWN = 8 * 2**30  # free bytes where the system does not tell
_OBJECT = 800  # of a tensor that is a view of another one
_PASSES = 3  # a forward pass, its gradients, and what both need in between
_OUTPUT = 4  # numbers for every output: losses and metrics, and what they are computed from
_PAIR = 256  # of an observation of two tasks: two measurements, arrays, and the bounds of two spaces

Further = Mapping[str, tuple[Any, Callable[[Recipe, int], float]]]
"""A decision's own arguments that take memory: name to value, and to the bytes as a function of the recipe and N."""


def check_memory(
    problem: Problem,
    recipe: Recipe,
    rows: int,
    *,
    model: Callable[[Problem, Recipe], Model] = own_model,
    task_gradients: bool = False,
    by_samples: bool = False,
    further: Further | None = None,
    argument: str | None = "num_envs",
) -> float:
    """Refuses trainings that would take more than a quarter of the free memory, before any of it is taken.

    Args:
        problem: The problem.
        recipe: How to train.
        rows: N.
        model: Makes the model.
        task_gradients: Whether the tasks' gradients are needed apart.
        by_samples: Whether losses are computed per sample and aligned with a gradient.
        further: What else a decision needs.
        argument: Name of the argument that sets N; ``None`` if no argument does.

    Returns:
        The bytes that they take at most.

    Raises:
        ValueError: If they would; it names the argument whose default would save most, and says how much would be taken.
    """

    def estimate(recipe: Recipe, rows: int) -> float:
        made = model(problem, recipe)
        own = training_bytes(problem, recipe, made, rows, task_gradients=task_gradients, by_samples=by_samples)
        return own + sum(bytes_of(recipe, rows) for _, bytes_of in (further or {}).values())

    needed = estimate(recipe, rows)
    if needed <= allowed_bytes(recipe.device):
        return needed
    given = {name: getattr(recipe, name) for name in ("hidden_sizes", "train_steps", "batch_size", "holdout_size")}
    usual = {**vars(problem.defaults), "holdout_size": 1}
    others = {name: estimate(replace(recipe, **{name: usual[name]}), rows) for name in given}
    others |= {name: needed - bytes_of(recipe, rows) for name, (_, bytes_of) in (further or {}).items()}
    values = {**given, "hidden_sizes": list(recipe.hidden_sizes)} | {name: value for name, (value, _) in (further or {}).items()}
    if argument is not None:
        others[argument], values[argument] = estimate(recipe, 1), rows
    name = min(others, key=lambda own: others[own])
    check_bytes(name, values[name], needed, recipe.device)
    return needed


def check_bytes(name: str, value: object, needed: float, device: str = "cpu") -> None:
    """Raises ValueError, which names an argument with its value, if more than a quarter of the free memory is needed."""
    most = allowed_bytes(device)
    if needed > most:
        sizes = f"{needed / 1e9:,.1f} GB of memory would be taken, and {most / 1e9:,.1f} GB, a quarter of what is free, may be"
        raise ValueError(should(name, f"be smaller: {sizes}", value))


def training_bytes(
    problem: Problem, recipe: Recipe, model: Model, rows: int, *, task_gradients: bool = False, by_samples: bool = False
) -> float:
    """What ``rows`` trainings of a model take at most, in bytes; see the module and :func:`check_memory`."""
    size, num_tasks, batch = model.size, recipe.num_tasks, recipe.batch_size
    tables = 3 + OPTIMIZERS[recipe.optimizer].buffers + CHECKPOINTS[recipe.checkpoint]
    fixed, sample, outputs = pass_bytes(model, problem)
    of_inputs, targets = _input_bytes(problem), problem.splits["train"].targets[0].numel()
    inputs = of_inputs // 4
    sample, labelled = sample + of_inputs, 4 * (_OUTPUT * outputs + 4 * targets)
    order = (recipe.train_steps + 1) * batch
    sources = sum(count * tasks for count, tasks in source_sizes(problem, recipe).values())
    sources += own_splits(recipe) * (sum(map(len, problem.splits.values())) + 2 * (inputs + targets))
    sources += family_size(problem) * (inputs + targets)
    state = 4 * size * tables + _OBJECT * len(model.blocks) * tables + 8 * recipe.train_steps * num_tasks + 4 * order + 4 * sources
    gradients = 4 * num_tasks * (3 * size + model.num_shared) if task_gradients else 0
    training = _PASSES * (1 + by_samples) * (fixed + batch * (sample + labelled)) + by_samples * _of_samples(problem, recipe)
    held_out = sum(min(recipe.holdout_size, len(problem.splits[name])) for name in HOLDOUTS)
    largest = max(len(split) for name, split in problem.splits.items() if name != "train")
    at_once = max(held_out, min(CHUNK, largest))  # samples, without gradients; the inputs of own splits are those of each row
    own = own_splits(recipe) or problem.family is not None
    measuring = fixed + at_once * (sample / 2 + own * 8 * inputs) + max(held_out, largest) * labelled
    row = state + gradients + training + measuring + _PAIR * (num_tasks + 1) ** 2
    begun = 32 * size + 16 * order + 16 * sources  # one row at a time
    return FIXED + rows * row + begun


def _of_samples(problem: Problem, recipe: Recipe) -> int:
    """Bytes of the sums of the samples' losses, and of a batch's measurements, weights and observations, with their spaces."""
    return 4 * len(problem.splits["train"]) * (recipe.num_tasks + 1) + _PAIR * recipe.batch_size * recipe.num_tasks


def pass_bytes(model: Model, problem: Problem) -> tuple[float, float, float]:
    """The intermediate results of a forward pass, in bytes: of a replica, and of one more sample; and the outputs of a sample.

    A dry run counts them on tensors without data. Models that compute with values cannot run so; then they are estimated from the
    parameters: every one of them takes part in one product for each sample.
    """
    own = weakref.ref(model) if isinstance(problem.network, ModuleFactory) else None  # names and shapes do not tell what it does
    key = (own, model.identity, *model.shapes.items(), repr(shapes(problem.splits["train"].inputs)), problem.outputs)
    found = _counted.get(key)
    if found is None:
        if len(_counted) >= _MOST_COUNTED:
            _counted.clear()
        found = _counted[key] = _pass_bytes(model, problem)
    return found


_counted: dict[tuple[Any, ...], tuple[float, float, float]] = {}
_MOST_COUNTED = 256


def _pass_bytes(model: Model, problem: Problem) -> tuple[float, float, float]:
    try:
        (few, _), (many, outputs) = _dry_run(model, problem, 2), _dry_run(model, problem, 4)
    except Exception:  # whatever somebody's module does with tensors that hold no data
        return 4.0 * model.size, 4.0 * model.size, float(problem.outputs)
    sample = (many - few) / 2
    return max(few - 2 * sample, 0.0), sample, outputs / 4


def _dry_run(model: Model, problem: Problem, samples: int) -> tuple[int, int]:
    """Bytes of all results of a training pass on some samples, and the number of its outputs."""
    with torch.no_grad(), _Counter() as counter:
        parameters = {name: _empty(shape) for name, shape in model.shapes.items()}
        buffers = {name: _empty(*kind) for name, kind in model.buffers.items()}
        inputs = each(lambda own: _empty((samples, *own.shape[1:]), own.dtype), problem.splits["train"].inputs)
        seeds = _empty((), torch.int64) if model.stochastic else None
        counter.bytes = 0
        outputs = model.forward(parameters, buffers, inputs, train=True, seeds=seeds)[0]
    return counter.bytes, outputs.numel()


def _input_bytes(problem: Problem) -> int:
    """Bytes of the inputs of a sample."""
    return sum(own[0].nbytes for own in parts(problem.splits["train"].inputs))


def _empty(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty((1, *shape), dtype=dtype, device="meta")


class _Counter(TorchDispatchMode):
    """Counts the bytes of all tensors that operations return, except views."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if not any(own.alias_info for own in func._schema.returns):
            several = found if isinstance(found, (tuple, list)) else [found]
            self.bytes += sum(own.nbytes for own in several if isinstance(own, Tensor))
        return found


def allowed_bytes(device: str = "cpu") -> float:
    """Bytes that may be taken on a device: a quarter of what is free."""
    return free_bytes(device) / _FRACTION


def free_bytes(device: str = "cpu") -> int:
    """Bytes of memory that are free on a device: of a GPU, or of the system or the container that the process runs in."""
    if torch.device(device).type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    limit, used = _number(_CGROUP / "memory.max"), _number(_CGROUP / "memory.current", 0)
    return min(limit - used + _reclaimable(), _available())


_CGROUP = Path("/sys/fs/cgroup")
"""Where Linux tells a container's limits."""


def _reclaimable() -> int:
    """Bytes of files that a container's system keeps in memory, counts as used, and gives up when memory is needed."""
    try:
        lines = dict(line.split(" ", 1) for line in (_CGROUP / "memory.stat").read_text().splitlines())
        return int(lines["inactive_file"])
    except (OSError, KeyError, ValueError):
        return 0


def _available() -> int:
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, OSError, ValueError):
        return _UNKNOWN


def _number(file: Path, missing: int = 2**63) -> int:
    """The number in a file; ``missing`` if there is none, as where a container has no limit."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return missing

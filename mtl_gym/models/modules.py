"""Somebody's ``torch.nn.Module`` as a :class:`~mtl_gym.models.base.Model`: N replicas by ``vmap`` or by a loop.

``vmap`` is chosen where a dry run of two replicas agrees with a loop in outputs, buffers and gradients; once for a problem, however
many replicas there are, so that a result does not depend on their number.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import weakref
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.conv import _ConvNd

from mtl_gym.checks import should
from mtl_gym.context import own_mode
from mtl_gym.models.base import Model, Tensors
from mtl_gym.models.replication import REPLICATIONS, by_loop
from mtl_gym.models.task_outputs import OfGroup, TaskOutputs
from mtl_gym.models.trials import Results, Trial, differing, first_of_two
from mtl_gym.models.unfused import unfused
from mtl_gym.problems.base import Problem
from mtl_gym.problems.inputs import Inputs, each, shapes
from mtl_gym.problems.modules import ModuleFactory

_LOG = logging.getLogger(__name__)
_TRIED = 8
"""Samples of each replica in the dry run."""


@dataclass(frozen=True)
class Vectorization:
    """How replicas are computed: ``"vmap"`` or ``"loop"``, and why."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


class _Watched(nn.Module):
    """A module that also returns its buffers, since some write into them and others put new tensors in their place."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        places = [(name, *name.rpartition(".")[::2]) for name, _ in module.named_buffers()]
        self._owners = [(name, module.get_submodule(path), own) for name, path, own in places]  # looked up once, as every pass asks

    def forward(self, inputs: Inputs) -> tuple[Any, Tensors]:
        return self.module(inputs), {name: getattr(owner, own) for name, owner, own in self._owners}


class ModuleModel(Model):
    """N replicas of a module.

    Frozen parameters (``requires_grad=False``) are buffers that never change. Modules are in training mode in training passes and
    in evaluation mode otherwise. Random numbers, such as dropout's, depend only on a replica's seed and the number of the call;
    outside training, where there should be none, the seed is 0.

    Attributes:
        vectorization: How replicas are computed, and which layer decided.
    """

    def __init__(self, problem: Problem, factory: ModuleFactory) -> None:
        self._factory, (self._trained, self._evaluated) = factory, factory.modules
        named = dict(self._trained.named_parameters())
        trained = [name for name, own in named.items() if own.requires_grad]
        self._order = sorted(trained, key=lambda name: not factory.is_shared(name))  # stable
        self.shapes = {name: tuple(named[name].shape) for name in self._order}
        self.shared = sum(map(factory.is_shared, self._order))
        kept = {**{name: own for name, own in named.items() if not own.requires_grad}, **dict(self._trained.named_buffers())}
        self.buffers = {name: (tuple(own.shape), own.dtype) for name, own in kept.items()}
        self._watched, self._changing = _Watched(self._trained), dict(self._trained.named_buffers()).keys()
        self.identity = f"module[{_digest([factory.architecture, self._order, self.shared])}]"
        self._tied = _has_ties(self._trained)  # torch looks for ties at every call, unless told that there are none
        self._outputs = TaskOutputs(problem)
        self._in_use = threading.RLock()  # a pass puts a replica's tensors into the module
        self.stochastic, self._noisy = True, True  # until it is known
        with own_mode():
            self.stochastic, self._noisy = (self._look(trial) for trial in self._trials(problem))
            trials = self._trials(problem)
            self._check_gradients(trials)
            self.vectorization = _chosen(factory.vectorize, trials)
        self._replicate = REPLICATIONS[self.vectorization.name]
        _LOG.info("The network of %r is computed by %s", problem.name, self.vectorization)

    def init(self, rng: np.random.Generator, tasks: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
        """The module's own initialisation; see :meth:`Model.init`."""
        module = self._factory.alike(int(rng.integers(2**63, dtype=np.uint64)))
        named = {name: own.detach() for name, own in (*module.named_parameters(), *module.named_buffers())}
        values = torch.cat([named[name].flatten() for name in self._order])
        return values.numpy().copy(), {name: named[name].clone() for name in self.buffers}

    def forward(
        self, parameters: Tensors, buffers: Tensors, inputs: Inputs, *, train: bool = False, seeds: Tensor | None = None
    ) -> tuple[Tensor, Tensors]:
        """Outputs of all heads, and the module's buffers after a training pass; see :meth:`Model.forward`."""
        if train and self.stochastic and seeds is None:
            raise ValueError(should("seeds", "be given in training: random numbers are a function of them", seeds))
        one, draws = (self._one_trained, self.stochastic) if train else (self._one_evaluated, self._noisy)
        drawn = _seeds(seeds if train else None, parameters) if draws else None
        with self._in_use:
            outputs, new = self._replicate(one, drawn, (dict(parameters), dict(buffers), inputs))
        return outputs, {**buffers, **new}

    def plain(self, parameters: Tensors, buffers: Tensors, heads: Mapping[str, slice]) -> nn.Module:
        """The module itself with these values; see :meth:`Model.plain`. In a group of tasks, its outputs are those of the group."""
        module = self._factory.alike(0)
        module.load_state_dict({**parameters, **buffers}, strict=False)  # buffers that are not saved stay as they were made
        return module if len(heads) == self._outputs.num_tasks else OfGroup(module, self._outputs, heads)

    def by_samples(self) -> AbstractContextManager[None]:
        """Without fused kernels of attention and recurrent layers; see :meth:`Model.by_samples`."""
        return unfused(self._trained)

    def _one_trained(self, parameters: Tensors, buffers: Tensors, inputs: Inputs) -> tuple[Tensor, Tensors]:
        """Outputs (B, O, *S) of one replica in training, and the buffers that may have changed."""
        tensors = {f"module.{name}": own for name, own in {**parameters, **self._copied(buffers)}.items()}
        found, new = functional_call(self._watched, tensors, (inputs,), tie_weights=self._tied)
        return self._outputs.joined(found), new

    def _one_evaluated(self, parameters: Tensors, buffers: Tensors, inputs: Inputs) -> tuple[Tensor, Tensors]:
        """The same outside training, where no buffer changes."""
        tensors = {**parameters, **self._copied(buffers)}
        return self._outputs.joined(functional_call(self._evaluated, tensors, (inputs,), tie_weights=self._tied)), {}

    def _copied(self, buffers: Tensors) -> Tensors:
        """The buffers of one replica, those copied into which the module may write."""
        return {name: own.clone() if name in self._changing else own for name, own in buffers.items()}

    # --- the dry run ---------------------------------------------------------------------------------------------------------

    def _trials(self, problem: Problem) -> list[Trial]:
        """Two replicas with different weights and samples, in training and in evaluation mode."""
        first, second = (_tensors(own) for own in (self._trained, self._evaluated))
        second = {name: _other(own) if name in self.shapes else own for name, own in second.items()}
        stacked = {name: torch.stack([first[name], second[name]]) for name in first}
        parameters, buffers = ({name: stacked[name] for name in own} for own in (self.shapes, self.buffers))
        inputs = each(_two, problem.splits["train"].inputs)
        modes = ((self._trained, self.stochastic), (self._evaluated, self._noisy))
        return [Trial(module, parameters, buffers, ((inputs,), {}), (1, 2) if drawn else None) for module, drawn in modes]

    def _look(self, trial: Trial) -> bool:
        """Whether a pass draws random numbers; raises a ValueError if the module fails or its outputs do not match the tasks."""
        try:
            found, calls = trial.alone(0)
        except Exception as error:  # of somebody's module
            condition = f"compute outputs from a batch of the problem's inputs, of shape {shapes(trial.call[0][0])}"
            raise ValueError(should("model", condition, f"{type(error).__name__}: {error}")) from error
        self._outputs.joined(found)
        return calls > 0

    def _tried(self, trial: Trial) -> Results:
        """The results by a loop; raises a ValueError if they cannot be differentiated."""
        try:
            return trial.results(by_loop)
        except Exception as error:  # of somebody's module
            condition = "compute outputs that can be differentiated by its parameters"
            raise ValueError(should("model", condition, f"{type(error).__name__}: {error}")) from error

    def _check_gradients(self, trials: Sequence[Trial]) -> None:
        """Checks that outputs depend on every shared parameter, and that a plain module with the same values does the same."""
        found = [self._tried(trial) for trial in trials]
        pairs = [(name, part) for own in found for name, part in zip(self.shapes, own.gradients, strict=True) if part is not None]
        reached = {name for name, _ in pairs}
        if sparse := {name for name, part in pairs if part.is_sparse}:
            remedy = "Make embeddings with sparse=False."
            raise ValueError(should("model", "have dense gradients of all parameters", sorted(sparse), remedy))
        if not reached:
            raise ValueError(should("model", "return outputs with a graph that leads to its parameters", "none"))
        if lost := [name for name in [*self.shapes][: self.shared] if name not in reached]:
            remedy = "Remove or freeze them (`requires_grad_(False)`), or leave them out of `shared`."
            raise ValueError(should("shared", "name parameters on which outputs depend; these get no gradient", lost, remedy))
        for trial, own in zip(trials, found, strict=True):
            plain = trial.plainly(self._factory.alike(2))
            if kinds := differing(replace(plain, buffers=[]), replace(first_of_two(own), buffers=[])):
                condition = (
                    f"be a function of its inputs, registered parameters and buffers, and torch's random numbers; "
                    f"its {' and '.join(kinds)} differ from those of another module with the same values"
                )
                remedy = "Keep no other state or references, draw numbers by torch, and do without `torch.utils.checkpoint`."
                raise ValueError(should("model", condition, type(trial.module).__name__, remedy))


def module_model(problem: Problem, factory: ModuleFactory) -> ModuleModel:
    """The model of a problem; made once, as the dry run takes a while."""
    with _MAKING:  # since a dry run and a training of the same modules would see each other's tensors
        if problem not in _made:
            _made[problem] = ModuleModel(problem, factory)
        return _made[problem]


_MAKING = threading.RLock()
_made: weakref.WeakKeyDictionary[Problem, ModuleModel] = weakref.WeakKeyDictionary()


def _chosen(vectorize: str, trials: Sequence[Trial]) -> Vectorization:
    """How replicas are computed; raises a ValueError if ``"vmap"`` is wanted and does not work."""
    if vectorize == "loop":
        return Vectorization("loop", "as was asked for")
    convolutions = [f"{name} ({type(own).__name__})" for name, own in trials[0].module.named_modules() if isinstance(own, _ConvNd)]
    if convolutions and vectorize == "auto":
        return Vectorization("loop", f"{convolutions[0]} is a convolution, which a loop computes faster")
    for trial, mode in ((trials[0], nullcontext()), (trials[1], nullcontext()), (trials[1], torch.no_grad())):
        with mode:
            reason = trial.difference()
        if reason:
            culprit = trial.culprit()
            if vectorize == "vmap":
                condition = f"be 'auto' or 'loop': {culprit} does not work with `vmap` ({reason})"
                raise ValueError(should("vectorize", condition, vectorize))
            return Vectorization("loop", f"{culprit} does not work with vmap ({reason})")
    return Vectorization("vmap", "it agrees with a loop")


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {name: own.detach() for name, own in (*module.named_parameters(), *module.named_buffers())}


def _has_ties(module: nn.Module) -> bool:
    """Whether a tensor has several names."""
    every = (*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False))
    return len(every) > len(_tensors(module))


def _other(values: Tensor) -> Tensor:
    """Similar values, also where initial ones are always the same."""
    steps = torch.cos(3 * torch.arange(values.numel(), dtype=values.dtype)).view(values.shape)
    return values + 0.01 * values.abs().mean().clamp(min=0.1) * steps


def _two(inputs: Tensor) -> Tensor:
    """Samples of two replicas (2, B, *shape), different ones if there are enough."""
    count = min(_TRIED, len(inputs))
    rows = torch.arange(2 * count) % len(inputs)
    return inputs[rows].unflatten(0, (2, count))


def _seeds(seeds: Tensor | None, parameters: Tensors) -> list[int]:
    """Seeds (N,) as numbers; 0 outside training and where tensors hold no data."""
    if seeds is None or seeds.is_meta:
        return [0] * len(next(iter(parameters.values())))
    return [int(seed) for seed in seeds.tolist()]


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]

"""A problem's network as somebody's ``torch.nn.Module``: the function that makes it, and what is known of it beforehand."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from mtl_gym.checks import choose, should
from mtl_gym.context import own_mode
from mtl_gym.identity import class_content, code_content
from mtl_gym.randomness import borrowed_generators

VECTORIZE = {
    "auto": "`vmap` where it agrees with a loop, and a loop for convolutions, which it computes faster",
    "vmap": "all replicas together; an error where that does not work",
    "loop": "one replica after the other, in one graph",
}
"""How several replicas of a module are computed."""

Architecture = tuple[tuple[str, tuple[int, ...], str], ...]
"""Name, shape and dtype of all parameters and buffers."""


@dataclass(frozen=True, eq=False)
class ModuleFactory:
    """Makes modules of one architecture.

    Attributes:
        make: ``() -> module`` with initial weights of its own; called once for every training.
        shared: Names of the parameters that all tasks share, or what they begin with: ``"trunk"`` is ``trunk.0.weight`` and so on.
            All others are the heads'.
        vectorize: Row of ``VECTORIZE``.

    Raises:
        TypeError: If ``make`` is not callable or makes no module, or ``shared`` are no names.
        ValueError: If modules are not alike or have parts in common, a name of ``shared`` is unknown, or there are no parameters,
            or some that are not float32, not yet initialised or not on the CPU.
    """

    make: Callable[[], nn.Module]
    shared: tuple[str, ...]
    vectorize: str = "auto"

    def __post_init__(self) -> None:
        if isinstance(self.make, nn.Module) or not callable(self.make):
            remedy = "Give the module's class, or `lambda: copy.deepcopy(module)`." if callable(self.make) else ""
            raise TypeError(should("model", "be a function that makes a module", self.make, remedy))
        choose("vectorize", self.vectorize, VECTORIZE)
        names = (self.shared,) if isinstance(self.shared, str) else self.shared
        if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
            raise TypeError(should("shared", "be a name or a list of names", self.shared))
        object.__setattr__(self, "shared", tuple(names))
        _check_apart(*self.modules)
        _check_parameters(self.modules[0])
        for name in self.shared:
            if not any(self._begins(own, name) for own, _ in self.modules[0].named_parameters()):
                known = dict.fromkeys(own.split(".")[0] for own, _ in self.modules[0].named_parameters())
                raise ValueError(should("shared", f"name parameters of the module, which has {', '.join(known)}", name))

    def __reduce__(self) -> tuple[Any, ...]:
        return ModuleFactory, (self.make, self.shared, self.vectorize)

    @staticmethod
    def _begins(name: str, prefix: str) -> bool:
        return name == prefix or name.startswith(f"{prefix}.")

    def is_shared(self, name: str) -> bool:
        """Whether all tasks share the parameter with this name."""
        return any(self._begins(name, prefix) for prefix in self.shared)

    def initialised(self, seed: int) -> nn.Module:
        """A new module with its own initialisation, as a function of a seed in [0, 2^63)."""
        with own_mode(), borrowed_generators(seed):
            module = self.make()
        if not isinstance(module, nn.Module):
            raise TypeError(should("model", "make a `torch.nn.Module`", type(module).__name__))
        return module

    def alike(self, seed: int) -> nn.Module:
        """The same; raises a ValueError if its architecture is not that of the others."""
        module = self.initialised(seed)
        _check_alike(self.architecture, architecture(module))
        return module

    @functools.cached_property
    def modules(self) -> tuple[nn.Module, nn.Module]:
        """Two modules: one in training, the other in evaluation mode."""
        return self.initialised(0).train(), self.initialised(1).eval()

    @functools.cached_property
    def architecture(self) -> Architecture:
        """Name, shape and dtype of all parameters and buffers, in the module's order."""
        return architecture(self.modules[0])

    @functools.cached_property
    def content(self) -> list[Any]:
        """What makes the network, JSON-serialisable: code without comments, settings of layers, shapes, ``shared``, ``vectorize``.

        Raises a ValueError if some of the function's values cannot be described.
        """
        parts = [(name, module, type(module)) for name, module in self.modules[0].named_modules()]
        try:
            kinds = dict.fromkeys(own for *_, own in parts if not _is_of_torch(own))
            code = [code_content(self.make), [class_content(own) for own in kinds]]
        except (TypeError, RecursionError) as error:
            remedy = "Let it refer to numbers, texts, arrays, functions and classes."
            raise ValueError(should("model", f"be a function that can be identified: {error}", self.make, remedy)) from error
        layers = [[name, own.__qualname__, module.extra_repr()] for name, module, own in parts if _is_of_torch(own)]
        return [code, layers, [list(map(str, part)) for part in self.architecture], list(self.shared), self.vectorize]


def architecture(module: nn.Module) -> Architecture:
    """Name, shape and dtype of all parameters and buffers of a module."""
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return tuple((name, tuple(own.shape), str(own.dtype).removeprefix("torch.")) for name, own in tensors if not is_lazy(own))


def _is_of_torch(kind: type) -> bool:
    return kind.__module__.split(".")[0] == "torch"


def _check_apart(first: nn.Module, second: nn.Module) -> None:
    """Checks that two modules are alike and have no part in common."""
    _check_alike(architecture(first), architecture(second))
    kept = {id(part) for part in _parts(first)}
    for name, part in (*second.named_modules(), *second.named_parameters(), *second.named_buffers()):
        if id(part) in kept:
            remedy = "Make it within the function, or copy it there (`copy.deepcopy`)."
            condition = f"make modules that have nothing in common, but two of them share {name!r}" if name else "make a new module"
            raise ValueError(should("model", condition, type(part).__name__, remedy))


def _parts(module: nn.Module) -> Iterable[nn.Module | Tensor]:
    return (*module.modules(), *module.parameters(), *module.buffers())


def _check_alike(first: Architecture, second: Architecture) -> None:
    if first != second:
        differing = next((pair for pair in zip(first, second, strict=False) if pair[0] != pair[1]), (len(first), len(second)))
        raise ValueError(should("model", "make modules of one architecture", f"{differing[0]}, then {differing[1]}"))


def _check_parameters(module: nn.Module) -> None:
    named = dict(module.named_parameters())
    if not any(own.requires_grad for own in named.values()):
        raise ValueError(should("model", "make a module with parameters to train", type(module).__name__))
    for name, own in named.items():
        if is_lazy(own):
            raise ValueError(should("model", "make a module whose parameters have shapes; lazy ones have none", name))
        if own.device.type != "cpu" or own.dtype is not torch.float32:
            raise ValueError(
                should("model", "make a module of float32 parameters on the CPU", f"{name}: {own.dtype}, {own.device}")
            )

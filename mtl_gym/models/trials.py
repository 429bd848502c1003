"""A dry run of a module with two replicas: whether ``vmap`` agrees with a loop, and if not, which layer is to blame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from mtl_gym.models.draws import Draws
from mtl_gym.models.replication import Replicate, by_loop, by_vmap

TOLERANCE = 1e-4
"""Largest difference between `vmap` and a loop, relative to the largest entry of a tensor."""
_ROUNDING = 1e-6
"""And relative to the largest entry of all tensors: what would be 0 but for rounding need not agree."""
_LONGEST = 200  # characters of somebody's error


@dataclass(frozen=True)
class Results:
    """Of two replicas: tensors (2, ...)."""

    outputs: list[Tensor]
    buffers: list[Tensor]
    gradients: list[Tensor | None]  # by parameter; ``None`` if no output depends on it


@dataclass(frozen=True)
class Trial:
    """A module, and two replicas' tensors (2, ...) with which it is called.

    Attributes:
        module: A module in training or evaluation mode, or one of its submodules.
        parameters: By name.
        buffers: By name.
        call: Positional and keyword arguments; what is no tensor is the same for both.
        seeds: One for each replica; ``None`` if no random numbers are drawn.
    """

    module: nn.Module
    parameters: dict[str, Tensor]
    buffers: dict[str, Tensor]
    call: tuple[tuple[Any, ...], dict[str, Any]]
    seeds: Sequence[int] | None

    def alone(self, row: int) -> tuple[Any, int]:
        """What the module returns for one replica, without a graph, and its number of random calls.

        Raises:
            ValueError: If it writes into its inputs.
        """
        parameters, buffers, call = _map(lambda own: own[row].clone(), (self.parameters, self.buffers, self.call))
        inputs = [own for own in tree_leaves(call) if isinstance(own, Tensor)]
        with torch.no_grad(), Draws([row if self.seeds is None else self.seeds[row]], stacked=False) as draws:
            versions = [own._version for own in inputs]
            found = functional_call(self.module, (parameters, buffers), *call)
        if [own._version for own in inputs] != versions:
            raise ValueError("it writes into its inputs, which are the problem's own data; clone them first, or set inplace=False")
        return found, draws.calls

    def results(self, replicate: Replicate) -> Results:
        """Outputs, new buffers, and gradients of a fixed combination of the outputs, none in ``torch.no_grad``."""
        leaves, form = tree_flatten(self.call)
        places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]

        def one(parameters: dict[str, Tensor], buffers: dict[str, Tensor], tensors: list[Tensor]) -> Any:
            new, own = {name: buffer.clone() for name, buffer in buffers.items()}, dict(zip(places, tensors, strict=True))
            args, kwargs = tree_unflatten([own.get(place, leaf) for place, leaf in enumerate(leaves)], form)
            outputs = functional_call(self.module, (parameters, new), args, kwargs)
            return [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)], new

        wanted = {name: own.detach().requires_grad_() for name, own in self.parameters.items()}
        outputs, new = replicate(one, self.seeds, (wanted, self.buffers, [leaves[place] for place in places]))
        reached = [own for own in outputs if own.requires_grad]
        gradients: Sequence[Tensor | None] = [None] * len(wanted)
        if reached and wanted:
            gradients = torch.autograd.grad(reached, [*wanted.values()], [_uneven(own) for own in reached], allow_unused=True)
        return Results([own.detach() for own in outputs], [*new.values()], list(gradients))

    def plainly(self, module: nn.Module) -> Results:
        """The same of the first replica alone, by a module of its own that is given its values, as anybody would train it."""
        parameters, buffers = dict(module.named_parameters()), dict(module.named_buffers())
        with torch.no_grad():
            for name, own in (*self.parameters.items(), *self.buffers.items()):
                (parameters | buffers)[name].copy_(own[0])
        args, kwargs = _map(lambda own: own[0], self.call)
        with nullcontext() if self.seeds is None else Draws(self.seeds[:1], stacked=False):
            found = module.train(self.module.training)(*args, **kwargs)
        outputs = [own for own in tree_leaves(found) if isinstance(own, Tensor)]
        wanted, reached = [parameters[name] for name in self.parameters], [own for own in outputs if own.requires_grad]
        # In the combination of two replicas, the first one's numbers come first.
        weights = [_uneven(own.expand(2, *own.shape))[0] for own in reached]
        gradients: Sequence[Tensor | None] = [None] * len(wanted)
        if reached:
            gradients = torch.autograd.grad(reached, wanted, weights, allow_unused=True)
        return Results(
            [own.detach() for own in outputs], [buffers[name] for name in self.buffers if name in buffers], list(gradients)
        )

    def difference(self) -> str | None:
        """Why ``vmap`` does not serve; ``None`` if it agrees with a loop in values and gradients."""
        expected = self.results(by_loop)
        functorch: Any = torch._C._functorch
        fallback = functorch._is_vmap_fallback_enabled()  # operations without a rule are loops, with a warning
        functorch._set_vmap_fallback_enabled(False)
        try:
            found = self.results(by_vmap)
        except Exception as error:  # whatever somebody's module does with tensors of several replicas
            return (str(error).strip() or type(error).__name__).split("\n")[0][:_LONGEST]
        finally:
            functorch._set_vmap_fallback_enabled(fallback)
        kinds = differing(found, expected)
        return f"its {' and '.join(kinds)} are not a loop's" if kinds else None

    def fails(self) -> bool:
        """Whether a layer is to blame; not if it cannot even be called again in a loop."""
        try:
            return self.difference() is not None
        except Exception:  # of somebody's layer, called alone
            return False

    def culprit(self) -> str:
        """The first layer, inner ones first, for which ``vmap`` does not serve, as ``name (class)``; the module itself if none."""
        first, second = self._calls(0), self._calls(1)
        for name, call in first.items():
            own = self._inner(name, call, second[name]) if name in second else None
            if own is not None and own.fails():
                return f"{name} ({type(own.module).__name__})"
        return type(self.module).__name__

    def _calls(self, row: int) -> dict[str, Any]:
        """Arguments of the first call of each submodule in one replica, in the order in which the calls end."""
        found: dict[str, Any] = {}
        named = [(name, own) for name, own in self.module.named_modules() if name]
        handles = [own.register_forward_hook(_recorder(found, name), with_kwargs=True) for name, own in named]
        try:
            self.alone(row)
        finally:
            for handle in handles:
                handle.remove()
        return found

    def _inner(self, name: str, first: Any, second: Any) -> Trial | None:
        """The trial of a submodule with the arguments of two calls; ``None`` if these do not fit together."""
        pairs = zip(tree_leaves(first), tree_leaves(second), strict=False)
        if any(isinstance(one, Tensor) and (not isinstance(other, Tensor) or one.shape != other.shape) for one, other in pairs):
            return None
        call = tree_map(lambda one, other: torch.stack([one, other]) if isinstance(one, Tensor) else one, first, second)
        parameters, buffers = (
            {own.removeprefix(f"{name}."): value for own, value in named.items() if own.startswith(f"{name}.")}
            for named in (self.parameters, self.buffers)
        )
        return Trial(self.module.get_submodule(name), parameters, buffers, call, self.seeds)


def differing(found: Results, expected: Results) -> list[str]:
    """The kinds of results that do not agree within the tolerance."""
    return [kind for kind in vars(expected) if not _agree(vars(found)[kind], vars(expected)[kind])]


def first_of_two(results: Results) -> Results:
    """The first replica's."""
    return Results(*([None if own is None else own[0] for own in several] for several in vars(results).values()))  # type: ignore[arg-type]


def _recorder(found: dict[str, Any], name: str) -> Callable[..., None]:
    def record(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        found.setdefault(name, _map(Tensor.detach, (args, kwargs)))

    return record


def _map(function: Callable[[Tensor], Tensor], tree: Any) -> Any:
    return tree_map(lambda leaf: function(leaf) if isinstance(leaf, Tensor) else leaf, tree)


def _uneven(like: Tensor) -> Tensor:
    """Numbers of one shape that are neither equal nor random."""
    return torch.cos(torch.arange(like.numel(), device=like.device)).view(like.shape).to(like.dtype)


def _agree(found: Sequence[Tensor | None], expected: Sequence[Tensor | None]) -> bool:
    """Whether tensors agree within the tolerance; ``None`` stands for zeros."""
    sizes = [float(own.abs().max()) for own in expected if own is not None and own.is_floating_point() and own.numel()]
    least = _ROUNDING * max(sizes, default=0.0)
    pairs = [(one, other) for one, other in zip(found, expected, strict=True) if one is not None or other is not None]
    return len(found) == len(expected) and all(_close(one, other, least) for one, other in pairs)


def _close(one: Tensor | None, other: Tensor | None, least: float) -> bool:
    one, other = (torch.zeros_like(other) if one is None else one, torch.zeros_like(one) if other is None else other)  # type: ignore[arg-type]
    if one.shape != other.shape or not one.is_floating_point() or not one.numel():
        return torch.equal(one, other)
    apart = float((one - other).abs().max())
    return apart <= max(least, TOLERANCE * float(other.abs().max()))

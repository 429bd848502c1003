"""How much each sample of a batch helps the main task, in anybody's module: one forward-mode pass. B samples, K tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call

from mtl_gym.checks import should
from mtl_gym.models.unfused import unfused
from mtl_gym.training.alignments import forward_mode

SampleLosses = Callable[[nn.Module, Any], Any]
"""Maps a module and a batch to the losses of its samples: (B, K), or (B,) by task."""


class _Computed(nn.Module):
    """A function of a module and a batch as a module, whose parameters can be replaced for a call."""

    def __init__(self, model: nn.Module, losses: Callable[[nn.Module, Any], Tensor]) -> None:
        super().__init__()
        self.model, self._losses = model, losses

    def forward(self, batch: Any) -> Tensor:
        return self._losses(self.model, batch)


def shared_parameters(model: nn.Module, shared: Iterable[Tensor] | None) -> dict[str, Tensor]:
    """The shared parameters by their names in the module; all that are trained if none are given.

    Raises:
        ValueError: If one of them is not a parameter of the module, or none is trained.
    """
    names = {id(own): name for name, own in model.named_parameters()}
    given = list(model.parameters() if shared is None else shared)
    if any(id(own) not in names for own in given):
        raise ValueError(should("shared", "hold parameters of `model`, such as model.trunk.parameters()", len(given)))
    found = {names[id(own)]: own for own in given if own.requires_grad}
    if not found:
        raise ValueError(should("shared", "hold parameters that require a gradient", len(given)))
    return found


def alignments(
    model: nn.Module,
    losses: Callable[[nn.Module, Any], Tensor],
    batch: Any,
    direction: dict[str, Tensor],
    shared: dict[str, Tensor],
) -> Tensor:
    """Inner products (B, K) of the samples' gradients with a direction, by one forward-mode pass that changes nothing.

    Args:
        model: The module, in the mode in which it trains; its buffers and the global generator are left as they are.
        losses: Maps it and a batch to (B, K) losses, 0 where there is no label.
        batch: The batch.
        direction: By name of the shared parameters.
        shared: The parameters by name.

    Raises:
        ValueError: If an operation of the module has no forward-mode rule.
    """
    computed = _Computed(model, losses)
    with torch.no_grad(), unfused(model), forward_mode(), _generators_kept():
        duals = {f"model.{name}": forward_ad.make_dual(own.detach(), direction[name]) for name, own in shared.items()}
        buffers = {f"model.{name}": own.clone() for name, own in model.named_buffers()}
        try:
            found = functional_call(computed, {**buffers, **duals}, (batch,))
        except NotImplementedError as error:
            remedy = "Use a layer that has one, or a policy that reads no alignments."
            raise ValueError(should("model", "have forward-mode rules", str(error), remedy)) from error
        tangents = forward_ad.unpack_dual(found).tangent
    if tangents is None:
        raise ValueError(should("shared", "hold parameters on which the losses depend", list(shared)))
    return tangents.clone()


def unit_gradient(loss: Tensor, shared: dict[str, Tensor]) -> dict[str, Tensor]:
    """The gradient of a loss by name of the shared parameters, divided by its norm; 0 where it vanishes."""
    parts = torch.autograd.grad(loss, [*shared.values()], materialize_grads=True)
    if sparse := [name for name, part in zip(shared, parts, strict=True) if part.is_sparse]:
        remedy = "Make embeddings with sparse=False, or leave them out."
        raise ValueError(should("shared", "hold parameters with dense gradients", sparse, remedy))
    norm = torch.cat([part.flatten() for part in parts]).norm().clamp(min=1e-30)
    return {name: part / norm for name, part in zip(shared, parts, strict=True)}


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The module in evaluation mode; each submodule's own mode is restored."""
    modes: Sequence[tuple[nn.Module, bool]] = [(own, own.training) for own in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for own, training in modes:
            own.training = training


@contextmanager
def _generators_kept() -> Iterator[None]:
    """Restores the global generators, from which random layers draw."""
    with torch.random.fork_rng():
        yield

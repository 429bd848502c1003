"""Which parameters somebody's losses are of: those that are given, and those that a graph reaches."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from mtl_gym.checks import should


def parameters_of(shared: Iterable[Tensor] | None) -> list[Tensor]:
    """The shared parameters that are trained, as a list.

    Raises:
        TypeError: If they are no tensors, as the names of ``named_parameters``.
        ValueError: If there is none that requires a gradient, or one is no leaf, as a trunk's output.
    """
    given = tensors("shared", [shared] if isinstance(shared, Tensor) else shared)
    if computed := [tuple(own.shape) for own in given if not own.is_leaf]:
        remedy = "Give trunk.parameters(), or the trunk's output as `features`."
        raise ValueError(should("shared", "hold parameters, not what is computed from them", computed, remedy))
    found = list(dict.fromkeys(own for own in given if own.requires_grad))
    if not found:
        remedy = "Give the parameters that all tasks share: balancer.backward(losses, shared=trunk.parameters())."
        raise ValueError(should("shared", "hold parameters that require a gradient", len(given), remedy))
    return found


def tensors(name: str, given: Any) -> list[Tensor]:
    """Tensors as a list, empty if there is nothing; raises ``TypeError`` if they are something else."""
    found = list(given) if isinstance(given, Iterable) else []
    if wrong := [own for own in found if not isinstance(own, Tensor)]:
        raise TypeError(should(name, "be parameters, such as trunk.parameters()", type(wrong[0]).__name__))
    return found


def leaves(losses: Iterable[Tensor | None], stops: Iterable[Tensor] = ()) -> list[Tensor]:
    """All leaves of the graphs of these losses that require a gradient, but those that are only reached through the stops."""
    todo: list[Any] = [loss.grad_fn for loss in losses if loss is not None]
    seen = {*todo, *(stop.grad_fn for stop in stops if stop.grad_fn is not None)}
    found: dict[Tensor, None] = {}
    while todo:
        node = todo.pop()
        variable = getattr(node, "variable", None)
        if variable is not None and type(node).__name__ == "AccumulateGrad":
            found[variable] = None
        for following, _ in () if node is None else node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                todo.append(following)
    return list(found)

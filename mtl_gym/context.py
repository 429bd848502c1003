"""Torch's modes and defaults in which this library trains, whatever its caller has set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_KINDS = ("cpu", "cuda")


@contextmanager
def own_mode() -> Iterator[None]:
    """Trains in float32 on the CPU, unless told otherwise, with gradients and without autocast.

    So ``with torch.no_grad(): env.step(action)`` still trains, bit for bit, also in inference mode, under autocast, and with
    another default dtype or device. Only the calling thread is affected: what is set for the process stays as it is.
    """
    kinds = [kind for kind in _KINDS if torch.is_autocast_enabled(kind)]
    device, dtype = torch.empty(0).device, torch.get_default_dtype()  # asking for the default device takes ten times as long
    usual = torch.is_grad_enabled() and not torch.is_inference_mode_enabled() and not kinds
    if usual and device.type == "cpu" and dtype is torch.float32:
        yield  # nothing to set
        return
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for kind in kinds:
            stack.enter_context(torch.autocast(kind, enabled=False))
        # These two only if necessary, since they slow down every call into torch.
        if device.type != "cpu":
            stack.enter_context(torch.device("cpu"))
        if dtype is not torch.float32:
            stack.enter_context(_Float32())
        yield


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Computes with a number of torch's threads, and restores the number afterwards; ``None`` leaves it as it is."""
    before = torch.get_num_threads()
    if count in (None, before):
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Float32(TorchFunctionMode):
    """Passes float32 to the functions that create tensors of the default dtype, and to divisions of whole numbers, which do.

    (Setting the default would affect all threads.)
    """

    def __torch_function__(
        self, function: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        if given.get("dtype") is None and (function in _ALWAYS or (function in _FROM_FLOATS and _floats([*args, *given.values()]))):
            given["dtype"] = torch.float32
        if function in _DIVISIONS and not any(isinstance(own, Tensor) and own.is_floating_point() for own in args):
            args = [own.float() if isinstance(own, Tensor) else own for own in args]
        return function(*args, **given)


_ALWAYS = {torch.zeros, torch.ones, torch.empty, torch.eye, torch.linspace, torch.rand, torch.randn}
"""Create the default dtype."""
_FROM_FLOATS = {torch.tensor, torch.as_tensor, torch.full, torch.arange, torch.scalar_tensor}
"""Create the default dtype if they are called with Python floats."""

_DIVISIONS = {torch.div, torch.true_divide, Tensor.div, Tensor.true_divide, Tensor.__truediv__, Tensor.__rtruediv__}
"""Create the default dtype from whole numbers."""


def _floats(values: Sequence[Any]) -> bool:
    """Whether nested lists hold a Python float."""
    return any(_floats(value) if isinstance(value, (list, tuple)) else type(value) is float for value in values)

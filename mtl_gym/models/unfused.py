"""Layers by operations that can be batched over replicas or differentiated in forward mode, in place of fused kernels.

Torch's switches of these kernels are the process's: one is off while anybody needs it off, and then as it was before.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

_LOCK = threading.Lock()


class _Switch:
    """A switch of torch's with those who need it off."""

    def __init__(self, get: Callable[[], bool], set: Callable[[bool], None]) -> None:
        self._get, self._set, self._users, self._kept = get, set, 0, True

    @contextmanager
    def off(self) -> Iterator[None]:
        with _LOCK:
            if self._users == 0:
                self._kept = self._get()
                self._set(False)
            self._users += 1
        try:
            yield
        finally:
            with _LOCK:
                self._users -= 1
                if self._users == 0:
                    self._set(self._kept)


def _set_cudnn(enabled: bool) -> None:
    torch.backends.cudnn.enabled = enabled


_FAST_PATH = _Switch(torch.backends.mha.get_fastpath_enabled, torch.backends.mha.set_fastpath_enabled)
"""Whole blocks of torch's transformer, outside training and without gradients."""
_ATTENTION = (
    _Switch(torch.backends.cuda.flash_sdp_enabled, torch.backends.cuda.enable_flash_sdp),  # on a CPU too
    _Switch(torch.backends.cuda.mem_efficient_sdp_enabled, torch.backends.cuda.enable_mem_efficient_sdp),
    _Switch(torch.backends.cuda.cudnn_sdp_enabled, torch.backends.cuda.enable_cudnn_sdp),
)
_RECURRENT = (
    _Switch(torch._C._get_mkldnn_enabled, torch._C._set_mkldnn_enabled),
    _Switch(lambda: torch.backends.cudnn.enabled, _set_cudnn),
)


def batchable() -> AbstractContextManager[Any]:
    """Computes attention by operations that have batching rules."""
    return _off(_FAST_PATH, *_ATTENTION)


def unfused(module: nn.Module) -> AbstractContextManager[Any]:
    """Computes a module's attention and recurrent layers by operations that have forward-mode rules."""
    recurrent = any(isinstance(own, nn.RNNBase) for own in module.modules())
    return _off(_FAST_PATH, *_ATTENTION, *(_RECURRENT if recurrent else ()))


@contextmanager
def _off(*switches: _Switch) -> Iterator[None]:
    with ExitStack() as stack:
        for switch in switches:
            stack.enter_context(switch.off())
        yield

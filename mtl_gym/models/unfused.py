"""Layers by operations that can be batched over replicas and differentiated in forward mode, in place of fused kernels."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

_LOCK = threading.Lock()
_FAST = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerEncoder)
"""Layers that compute whole blocks by fused kernels, outside training and without gradients."""


class _FastPath:
    """Torch's switch of these kernels, which is the process's: off while anybody needs it off."""

    users, kept = 0, True


def has_fast_path(module: nn.Module) -> bool:
    """Whether a module has layers with such kernels."""
    return any(isinstance(own, _FAST) for own in module.modules())


@contextmanager
def without_fast_path() -> Iterator[None]:
    """Computes attention outside training as in training; whatever the caller has set is restored."""
    with _LOCK:
        if _FastPath.users == 0:
            _FastPath.kept = torch.backends.mha.get_fastpath_enabled()
            torch.backends.mha.set_fastpath_enabled(False)
        _FastPath.users += 1
    try:
        yield
    finally:
        with _LOCK:
            _FastPath.users -= 1
            if _FastPath.users == 0:
                torch.backends.mha.set_fastpath_enabled(_FastPath.kept)


@contextmanager
def unfused() -> Iterator[None]:
    """Computes attention and recurrent layers by operations with forward-mode rules; sets switches of the process, under a lock."""
    with without_fast_path(), sdpa_kernel(SDPBackend.MATH):
        kept = torch._C._get_mkldnn_enabled(), torch.backends.cudnn.enabled
        torch._C._set_mkldnn_enabled(False)  # `torch.backends.mkldnn.flags` also sets what only Intel's GPUs have
        torch.backends.cudnn.enabled = False
        try:
            yield
        finally:
            torch._C._set_mkldnn_enabled(kept[0])
            torch.backends.cudnn.enabled = kept[1]

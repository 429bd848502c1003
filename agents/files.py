"""Agent files: tensors and JSON in one safetensors file, written atomically and read without running code.

The content is nested mappings and lists whose leaves are tensors or JSON-plain. Tensors are stored as such, everything else as JSON
in the header, which holds each tensor's name in its place. A checksum of both detects altered files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save

from mtl_gym import should, write_whole

SUFFIX = ".safetensors"
_TENSOR, _ITEMS = "$tensor", "$items"
_HEADER = "mtl_gym.agents"  # one entry, so that the same content gives the same bytes
_LARGEST_HEADER = 10_000_000  # characters of JSON; an agent's has some thousands


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Writes nested tensors, numpy arrays and JSON-plain values; if interrupted, the previous file is kept.

    Raises:
        TypeError: If a leaf is neither; nothing is written.
    """
    tensors: dict[str, torch.Tensor] = {}
    text = json.dumps(_without_tensors(content, "", tensors), allow_nan=False)
    header = json.dumps({"digest": digest(text, tensors), "content": text})
    write_whole(path, save(tensors, {_HEADER: header}))


def read(path: Path) -> dict[str, Any]:
    """Reads what :func:`write` wrote; arrays come back as tensors.

    Raises:
        ValueError: If the file is missing, truncated, altered or not an agent file; nothing of it is used.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            header = (file.metadata() or {})[_HEADER]
            if len(header) > _LARGEST_HEADER:
                raise ValueError("its header is too long")
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        known, text = (whole := json.loads(header))["digest"], whole["content"]
        if known != digest(text, tensors):
            raise ValueError("its checksum does not match its content")
        content = _with_tensors(json.loads(text), tensors)
        if not isinstance(content, dict):
            raise TypeError("its content is not a mapping")
    except Exception as error:  # a damaged or hostile file may raise anything
        condition, reason = "be a complete agent file, as mtl_gym.agents.train writes it", f"{type(error).__name__}: {error}"
        raise ValueError(should("path", condition, str(path), reason)) from error
    return content


def digest(text: str, tensors: Mapping[str, torch.Tensor]) -> str:
    """The checksum of a text and of tensors: their names, types, shapes and bytes."""
    sha = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return sha.hexdigest()


def _without_tensors(value: Any, name: str, tensors: dict[str, torch.Tensor]) -> Any:
    """The JSON-plain form of nested values; moves their tensors to ``tensors``, named after their place."""
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("=")))  # a copy: it may be read-only
    if isinstance(value, torch.Tensor):
        unique = f"{len(tensors)}{name}"  # two keys may read the same
        tensors[unique] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {_TENSOR: unique}
    if isinstance(value, Mapping):
        if not all(key is None or isinstance(key, (bool, int, float, str)) for key in value):
            raise TypeError(should("content", "have texts and numbers as keys", list(value)))
        items = {key: _without_tensors(item, f"{name}/{key}", tensors) for key, item in value.items()}
        plain = all(isinstance(key, str) and not key.startswith("$") for key in items)
        return items if plain else {_ITEMS: [list(pair) for pair in items.items()]}  # an optimiser's state has numbers as keys
    if isinstance(value, (list, tuple)):
        return [_without_tensors(item, f"{name}/{place}", tensors) for place, item in enumerate(value)]
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(should("content", "be made of tensors, numbers, texts, lists and mappings", {name: value}))


def _with_tensors(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """Inverts :func:`_without_tensors`."""
    if isinstance(value, list):
        return [_with_tensors(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if _TENSOR in value:
        return tensors[value[_TENSOR]]
    pairs = value[_ITEMS] if _ITEMS in value else value.items()
    return {key: _with_tensors(item, tensors) for key, item in pairs}

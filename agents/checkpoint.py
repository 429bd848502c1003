"""Checkpoints, from which an interrupted training resumes: parameters, optimisers, replay buffer and scores in one safe file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import ReplayBuffer

from mtl_gym import should
from mtl_gym.agents.compatibility import check_version, versions
from mtl_gym.agents.files import SUFFIX, read, write

_ARRAYS = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


def check_finite(model: BaseAlgorithm, folder: Path) -> None:
    """Raises FloatingPointError if a parameter of the policy is not finite, before anything in the folder is replaced."""
    if not all(torch.isfinite(tensor).all() for tensor in model.policy.state_dict().values()):
        raise FloatingPointError(f"The agent's parameters are not finite. A smaller learning_rate may help; {folder} is as it was.")


def write_checkpoint(folder: Path, settings: Mapping[str, Any], model: BaseAlgorithm, scores: list[dict[str, float]]) -> None:
    """Writes the state of a training, atomically."""
    content = {
        "settings": settings,
        "versions": versions(),
        "steps": model.num_timesteps,
        "updates": getattr(model, "_n_updates", 0),
        "scores": scores,
        "parameters": model.get_parameters(),
        "variables": {name: getattr(model, name).data for name in _variables(model)},
        "buffer": _buffer(model),
    }
    write(folder / f"checkpoint{SUFFIX}", content)


def read_checkpoint(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """The state of the training in a folder; ``None`` if there is none.

    Raises:
        ValueError: If the folder holds a training with other settings or of another version, of which the message names one, or
            the checkpoint is damaged.
    """
    file = folder / f"checkpoint{SUFFIX}"
    if not file.is_file():
        return None
    try:
        content = read(file)
    except ValueError as error:
        raise ValueError(f"{error} Move it away to train from the beginning.") from error
    if not {"settings", "versions", "steps", "scores", "parameters", "variables", "buffer", "updates"} <= set(content):
        raise ValueError(should("out", "hold the checkpoint of a training, or none", str(file)))
    check_version(content["versions"])
    for name, value in settings.items():
        known = content["settings"].get(name)
        if known != value:
            raise ValueError(should(name, f"be {known!r}, as in the training in {folder}", value, "Or choose another folder."))
    return content


def restore(model: BaseAlgorithm, checkpoint: Mapping[str, Any]) -> None:
    """Restores a training's state in a model made with the same settings."""
    model.set_parameters(checkpoint["parameters"])
    for name, value in checkpoint["variables"].items():
        getattr(model, name).data.copy_(value)
    if hasattr(model, "_n_updates"):
        model._n_updates = checkpoint["updates"]
    kept, buffer = checkpoint["buffer"], getattr(model, "replay_buffer", None)
    if kept and isinstance(buffer, ReplayBuffer):
        buffer.pos, buffer.full = kept["pos"], kept["full"]
        for name in _ARRAYS:
            _fill(getattr(buffer, name), kept[name])


def _variables(model: BaseAlgorithm) -> list[str]:
    """Names of the tensors that an algorithm keeps outside its networks, such as SAC's log temperature."""
    return [name for name in model._get_torch_save_params()[1] if getattr(model, name, None) is not None]


def _buffer(model: BaseAlgorithm) -> dict[str, Any] | None:
    buffer = getattr(model, "replay_buffer", None)
    if not isinstance(buffer, ReplayBuffer):
        return None
    size = buffer.size()
    return {"pos": buffer.pos, "full": buffer.full, **{name: _first(getattr(buffer, name), size) for name in _ARRAYS}}


def _first(values: Any, size: int) -> Any:
    return {name: part[:size] for name, part in values.items()} if isinstance(values, dict) else values[:size]


def _fill(target: Any, values: Any) -> None:
    if isinstance(target, dict):
        for name, part in target.items():
            _fill(part, values[name])
    else:
        target[: len(values)] = values.numpy()

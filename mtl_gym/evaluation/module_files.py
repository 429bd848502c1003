"""Files of trained networks: safetensors, with how they were made, from which the module is built again."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import nn

from mtl_gym.cache import check_writable, write_whole
from mtl_gym.checks import path_of, should
from mtl_gym.models import make_model
from mtl_gym.models.plain import Branches, key
from mtl_gym.problems import load_problem
from mtl_gym.problems.axes import resolve
from mtl_gym.problems.base import Problem

SUFFIX = ".safetensors"
_ABOUT = "mtl_gym"
"""Key of the description in a file's metadata."""
_KINDS: dict[str, Any] = {"problem": str, "address": (str, type(None)), "tasks": list, "hidden_sizes": list, "arguments": dict}
"""What the description holds that a module is built from."""


def file_of(name: str, path: str | Path) -> Path:
    """The file of a network at a path, whose suffix may be left out.

    Raises:
        TypeError: If it is no path.
        ValueError: If it is no name of a file, or cannot be written.
    """
    given = path_of(name, str(path) if path != Path() else "")
    if not given.name:
        raise ValueError(should(name, "name a file", str(path)))
    file = given if given.suffix == SUFFIX else given.with_name(given.name + SUFFIX)
    check_writable(file.parent, [file.name], argument=name)
    return file


def write(file: Path, state: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Writes a ``state_dict`` and a description, atomically.

    Raises:
        ValueError: If the ``state_dict`` holds something else than tensors.
    """
    if others := [name for name, own in state.items() if not isinstance(own, torch.Tensor)]:
        remedy = "Write it yourself: torch.save(fit.module.state_dict(), path)."
        raise ValueError(should("module", "have a state_dict of tensors to be saved", others, remedy))
    tensors = {name: own.contiguous().clone() for name, own in state.items()}  # tied ones apart, as the format has no ties
    write_whole(file, save(tensors, metadata={_ABOUT: json.dumps(about)}))


def address_of(address: str | None, argument: str, name: str) -> str:
    """The address of a problem; raises ValueError if it has none."""
    if address is None:
        remedy = "Give the problem itself: load_module(path, problem), or fit(problem, policy, seed=instance)."
        raise ValueError(should(argument, "be of a problem that can be found again, not one made in Python", name, remedy))
    return address


def load_module(path: str | Path, problem: str | Problem | None = None) -> nn.Module:
    """Rebuilds the module in a file of :meth:`Fit.save`, in evaluation mode.

    No code in the file is run, but the problem that it names is loaded: give the ``problem`` for a file that you do not trust.

    Args:
        path: The file.
        problem: The problem whose network it is; ``None``: the one that the file names, which a problem made in Python has no
            name for.

    Raises:
        ValueError: If the file is missing, damaged or of something else, its problem cannot be found, or the module is one that
            only :func:`fit` makes: groups of networks that are no chains of stages.

    Warns:
        RuntimeWarning: If its instance drew its own split, so that ``problem.encode`` standardises otherwise than its *train* was.
    """
    state, about = _read(path)
    problem = load_problem(address_of(about["address"], "path", about["problem"]) if problem is None else problem)
    if missing := set(about["tasks"]) - {task.name for task in problem.tasks}:
        raise ValueError(should("problem", f"have the tasks of the file's network, also {sorted(missing)}", problem))
    try:
        module = _built(problem, about)
        module.load_state_dict(state)
    except Exception as error:  # of a damaged or hostile file, or another problem's
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(should("path", "hold a module that its problem's network makes", str(path), reason)) from error
    if problem.encoding and problem.pool and resolve(about["arguments"].get("distribution", {}), problem)["split"][0]:
        remedy = "Pickle `Fit.encoding` beside the file: its `encode` and `decode` are those of this network."
        text = f"{path}: trained on a split that its instance drew, whose means are not those of `problem.encode`. {remedy}"
        warnings.warn(text, RuntimeWarning, stacklevel=2)
    return module.eval()


def _built(problem: Problem, about: Mapping[str, Any]) -> nn.Module:
    """The module without its values."""
    model, names = make_model(problem, tuple(about["hidden_sizes"])), about["tasks"]
    heads = {task.name: own for task, own in zip(problem.tasks, problem.output_slices, strict=True) if task.name in names}
    parameters = {name: torch.zeros(shape) for name, shape in model.shapes.items()}
    buffers = {name: torch.zeros(shape, dtype=dtype) for name, (shape, dtype) in model.buffers.items()}
    module = model.plain(parameters, buffers, heads)
    if isinstance(module, Branches):
        paths = {task: tuple(path) for task, path in about.get("paths", {}).items()}
        depths = {stage: depth for path in paths.values() for depth, stage in enumerate(path)}
        stages = [copy.deepcopy(module.stages[depths[stage]]) for stage in sorted(depths)]
        module = Branches(stages, paths, {task: module.heads[key(task)] for task in paths})
    return module


def _read(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    try:
        with safe_open(str(path), framework="pt") as file:
            about = dict(json.loads(file.metadata()[_ABOUT]))
            if wrong := [name for name, kinds in _KINDS.items() if not isinstance(about[name], kinds)]:
                raise TypeError(f"its {', '.join(wrong)} are of another type")
            if not about["tasks"] or not all(isinstance(task, str) for task in about["tasks"]):
                raise ValueError("its tasks should be names")
            return {name: file.get_tensor(name) for name in file.keys()}, about
    except Exception as error:  # a damaged or hostile file may raise anything
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(should("path", "be a file that Fit.save has written", str(path), reason)) from error

"""On which problems agents and rules learn, and on which they are then judged: four folds of problems that are left out.

Problems that share data leave together. What is learned in a fold never sees its problems, and they choose no checkpoint or seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mtl_gym.decisions.task_features import DEFAULT_FEATURES, TASK_FEATURES
from mtl_gym.problems import load_problem

FOLDS: dict[str, tuple[str, ...]] = {
    "digits": ("digits", "digits_scales", "digits_few"),
    "tables": ("census", "river_flow"),
    "genes": ("yeast", "yeast_few", "relations", "relations_few"),
    "molecules": ("tox21", "tox21_few"),
}
"""The cases (``benchmarks/measuring.py``) that are left out, by the fold's name."""

ALL, TEACHERS_ALONE = "all", "teachers"
"""Further names: what leaves nothing out, and what sees no shipped data."""
TEACHERS: tuple[dict[str, Any], ...] = (
    {"problem": "teachers", "num_tasks": 2},
    {"problem": "teachers", "num_tasks": 3, "distribution": {"labels": (0.05, 1.0), "size": (0.3, 1.0)}},
    {"problem": "teachers", "num_tasks": 4, "distribution": {"scale": (0.1, 10.0), "labels": (0.1, 1.0), "lr": (0.5, 2.0)}},
    {"problem": "teachers", "num_tasks": 6, "distribution": {"noise": (0.0, 0.4), "scale": (0.1, 10.0)}},
    {"problem": "teachers", "num_tasks": 4, "train_steps": 900, "distribution": {"labels": (0.1, 1.0), "size": (0.3, 1.0)}},
    {"problem": "teachers", "num_tasks": 5, "optimizer": "sgd", "lr": 0.05, "distribution": {"labels": (0.1, 1.0)}},
)
"""Settings of the family that every fold trains on: other numbers of tasks, labels, scales, noise, lengths and optimisers."""
REAL: tuple[dict[str, Any], ...] = (
    {"problem": "digits", "num_tasks": 4, "distribution": "varied"},
    {"problem": "river_flow", "num_tasks": 4, "train_steps": 405, "distribution": "varied"},
    {"problem": "census", "distribution": "varied"},
    {"problem": "yeast", "num_tasks": 5, "distribution": "varied"},
    {"problem": "relations", "num_tasks": 5, "distribution": "varied"},
    {"problem": "tox21", "num_tasks": 4, "train_steps": 495, "distribution": "varied"},
)
"""Settings of shipped problems that a fold trains on unless their problem is left out."""


def training_sources(fold: str | None) -> list[dict[str, Any]]:
    """The settings on which a fold trains, or ``None``: all."""
    left_out = () if fold is None else FOLDS[fold]
    return [*TEACHERS, *(own for own in REAL if own["problem"] not in left_out)]


def sources_of_fold(fold: str) -> list[dict[str, Any]]:
    """The same by name: of a fold, ``"teachers"`` alone, or ``"all"``."""
    return [*TEACHERS] if fold == TEACHERS_ALONE else training_sources(None if fold == ALL else fold)


def fingerprint(source: dict[str, Any]) -> dict[str, Any]:
    """What determines the trainings of a source, and the features that are searched."""
    found = load_problem(source["problem"])
    reaches = {name: TASK_FEATURES[name].reach for name in DEFAULT_FEATURES}
    return {**source, "problem": found.identity, "features": reaches}


def policy_of(found: Mapping[str, Any]) -> str:
    """The policy of a search's result, as a text."""
    return "rule:" + ":".join(f"{name}={value:g}" for name, value in found["coefficients"].items())

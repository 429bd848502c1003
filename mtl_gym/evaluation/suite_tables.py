"""The suites of this package: ``SUITES``, by name and environment. A suite's studies never change without a new version of it.

Ids lie beyond those by which agents, rates and rules were ever chosen. Networks, steps and rates are those of the problems unless
they are the subject; so are all labels, no noise and scales of 1. Where a problem has a pool, every instance draws its own split.
"""

from __future__ import annotations

from typing import Any

from mtl_gym.environments import LAYER_MERGING, LOSS_WEIGHTING, SAMPLE_WEIGHTING, TASK_GROUPING
from mtl_gym.evaluation.suite import Study, Suite
from mtl_gym.problems import PROBLEMS

FIRST = 200_000
"""The first id of all suites' instances."""
OWN_SPLIT = {"split": [1.0, 1.0]}
_NO_POOL = ("quadratic", "teachers", "teachers_shifted", "teachers_many", "clusters", "clusters_equal", "multimnist", "stereo")
"""Problems whose instances do not draw splits."""


def study(name: str, problem: str, count: int, data: str = "", **arguments: Any) -> Study:
    """A study of a problem of this package, of the version that it has now."""
    drawn = {} if problem in _NO_POOL else OWN_SPLIT
    distribution = {**drawn, **arguments.pop("distribution", {})}
    own = {**arguments, **({"distribution": distribution} if distribution else {})}
    return Study(name, problem, PROBLEMS[problem].version, own, FIRST, count, data or problem)


def _alike(ends: float) -> list[float]:
    return [ends, ends]


_TEACHERS: dict[str, Any] = {"num_tasks": 4}
_ANY: dict[str, Any] = {"labels": [0.05, 1.0], "size": [0.3, 1.0], "scale": [0.1, 10.0], "noise": [0.0, 0.3]}
"""Teachers in many respects at once."""
_LOSSES = (
    study("digits", "digits", 24),
    study("digits_scales", "digits_scales", 24, "digits"),
    study("digits_few", "digits", 24, distribution={"labels:digit": _alike(0.08)}),
    study("census", "census", 24),
    study("river_flow", "river_flow", 24),
    study("yeast", "yeast", 24),
    study("tox21", "tox21", 24),
    study("relations_few", "relations", 24, hidden_sizes=[32, 16], distribution={"labels": _alike(0.25)}),
    study("teachers", "teachers", 24, distribution=_ANY, **_TEACHERS),
)


def _shift(name: str, summary: str, **settings: dict[str, Any]) -> Suite:
    """A suite of teachers (and other problems, if a setting names them) that differ in one respect."""
    studies = []
    for label, given in settings.items():
        own = {**_TEACHERS, **given}
        studies.append(study(label.removeprefix("_"), own.pop("problem", "teachers"), 12, **own))
    return Suite(name, LOSS_WEIGHTING, "1.0", summary, tuple(studies))


_SHIFTS = (
    _shift(
        "tasks", "2 to 40 tasks", **{f"_{count}": {"problem": "teachers_many", "num_tasks": count} for count in (2, 5, 10, 20, 40)}
    ),
    _shift(
        "noise", "wrong training labels", **{f"_{rate:g}": {"distribution": {"noise": _alike(rate)}} for rate in (0.0, 0.2, 0.4)}
    ),
    _shift(
        "labels",
        "few training labels",
        **{f"_{share:g}": {"distribution": {"labels": _alike(share)}} for share in (0.05, 0.2, 1.0)},
    ),
    _shift(
        "scale",
        "losses of other scales",
        **{f"_{reach:g}": {"distribution": {"scale": [1 / reach, reach]}} for reach in (1.0, 10.0, 1000.0)},
    ),
    _shift(
        "conflict", "tasks in conflict", **{f"_{own:g}": {"distribution": {"conflict": _alike(own)}} for own in (0.0, 0.5, 1.0)}
    ),
    _shift(
        "size", "few training samples", **{f"_{share:g}": {"distribution": {"size": _alike(share)}} for share in (0.1, 0.3, 1.0)}
    ),
    _shift(
        "network",
        "narrow, wide and deep networks",
        narrow={"hidden_sizes": [16, 8]},
        wide={"hidden_sizes": [256, 128]},
        deep={"hidden_sizes": [64, 64, 64, 32]},
    ),
    _shift("optimizer", "SGD instead of Adam", adam={}, sgd={"optimizer": "sgd", "lr": 0.05}),
    _shift(
        "rate",
        "a tenth to ten times the learning rate",
        **{f"_{own:g}": {"distribution": {"lr": _alike(own)}} for own in (0.1, 1.0, 10.0)},
    ),
    _shift("length", "120 to 4,800 steps", **{f"_{steps}": {"train_steps": steps} for steps in (120, 300, 1200, 4800)}),
)
_DATA = Suite(
    "data",
    LOSS_WEIGHTING,
    "1.0",
    "data that no agent of this package has seen",
    (
        study("yeast_few", "yeast", 24, distribution={"labels": _alike(0.2)}),
        study("tox21_few", "tox21", 24, distribution={"labels": _alike(0.25)}),
        study("relations", "relations", 24),
        study("census", "census", 24),
        study("river_flow", "river_flow", 24),
    ),
)


def _wrong(rate: float, **others: Any) -> dict[str, Any]:
    """Digits of which the main task's labels, and those of two auxiliary tasks, are partly wrong."""
    noise = {"distribution": {"noise": _alike(rate), **others.pop("distribution", {})}}
    return {"main_task": "digit", "tasks": ["digit", "parity", "loop"], "lr": 2e-3, "train_steps": 300, **noise, **others}


_SAMPLES = (
    study("clean", "digits_scales", 16, "digits", **_wrong(0.0)),
    study("wrong_40", "digits_scales", 16, "digits", **_wrong(0.4)),
    study("wrong_60", "digits_scales", 16, "digits", **_wrong(0.6)),
    study("wrong_long", "digits_scales", 16, "digits", **_wrong(0.6, train_steps=1500)),
    study(
        "harmful",
        "digits_scales",
        16,
        "digits",
        **_wrong(0.4, distribution={"unrelated": _alike(0.5), "nearest_flip": _alike(0.5)}),
    ),
    study("parity", "digits_scales", 16, "digits", **_wrong(0.4, main_task="parity")),
)
_MERGES = (
    study("digits", "digits", 16),
    study("yeast", "yeast", 16, num_tasks=5),
    study("relations", "relations", 16, num_tasks=6),
    study("teachers", "teachers", 16, **_TEACHERS),
)
_GROUPS = (
    study("digit_tasks", "digit_tasks", 16, num_tasks=6),
    study("yeast", "yeast", 16, num_tasks=6),
    study("relations", "relations", 16, num_tasks=6),
    study("clusters", "clusters", 8, num_tasks=12),
)
_QUICK = {
    LOSS_WEIGHTING: (
        study("digits_few", "digits", 6, train_steps=300, distribution={"labels:digit": _alike(0.08)}),
        study("census", "census", 6, train_steps=150),
        study("teachers", "teachers", 6, distribution=_ANY, **_TEACHERS),
    ),
    SAMPLE_WEIGHTING: (study("wrong_60", "digits_scales", 6, "digits", **_wrong(0.6)),),
    LAYER_MERGING: (study("teachers", "teachers", 6, **_TEACHERS), study("relations", "relations", 6, num_tasks=4)),
    TASK_GROUPING: (study("yeast", "yeast", 6, num_tasks=5), study("relations", "relations", 6, num_tasks=5)),
}
_STANDARD = {LOSS_WEIGHTING: _LOSSES, SAMPLE_WEIGHTING: _SAMPLES, LAYER_MERGING: _MERGES, TASK_GROUPING: _GROUPS}
SUITES: dict[tuple[str, str], Suite] = {
    **{("quick", env): Suite("quick", env, "1.0", "a minute: does it run, and is it far off?", own) for env, own in _QUICK.items()},
    **{("standard", env): Suite("standard", env, "1.0", "what methods are ranked by", own) for env, own in _STANDARD.items()},
    **{(own.name, own.env): own for own in (*_SHIFTS, _DATA)},
}
"""Suites by name and environment."""

"""The tidy frame of a comparison, and the way back from a frame, or from an output folder, to its results."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import pandas as pd

from mtl_gym.checks import path_of, should
from mtl_gym.evaluation.columns import columns_of
from mtl_gym.evaluation.kernels import counted
from mtl_gym.evaluation.results import Result, stored
from mtl_gym.problems.metrics import METRICS, add_stored
from mtl_gym.problems.scores import WORST_DELTA_M, delta_m_by_kind, relative_gain

Source = pd.DataFrame | str | Path
"""A comparison: the frame of :func:`mtl_gym.compare`, or its output folder."""


class Attached(str):
    """Results that travel in a frame's ``attrs``, since curves do not fit in its rows.

    pandas deep-copies attributes at nearly every step, compares them, and writes them as JSON; to it, this is a short text.
    """

    results: tuple[Result, ...]

    def __new__(cls, results: Sequence[Result]) -> Self:
        """A text that carries the results."""
        own = super().__new__(cls, f"{len(results)} results")
        own.results = tuple(results)
        return own

    def __deepcopy__(self, memo: dict[int, Any]) -> Attached:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Attached, (self.results,)


def to_frame(results: Sequence[Result], about: Mapping[str, Any]) -> pd.DataFrame:
    """The tidy frame of results; see :func:`mtl_gym.compare`. Adds ``columns`` to ``about``: the names of the columns of scores by
    kind of task and of the environment's.
    """
    own = {column.name: column.key or column.name for column in columns_of(about["env"])}
    kinds = _scores_by_kind(results, about["arguments"].get("main_task"))
    outcomes = [{**scores, **result.outcome} for scores, result in zip(kinds, results, strict=True)]
    known = {name: key for name, key in own.items() if any(key in outcome for outcome in outcomes)}
    rows = []
    for result, outcome in zip(results, outcomes, strict=True):
        common: dict[str, Any] = {
            "delta_m": result.delta_m,
            **result.cost,
            "return": result.episode_return,
            "diverged": result.diverged,
            **{name: outcome[key] for name, key in known.items() if key in outcome},
        }
        for name, value in result.metrics.items():
            task, metric = name.rsplit("/", 1)
            reference = result.references[name]
            head = {"policy": result.policy, "instance": result.instance, "task": task, "metric": metric}
            rows.append({**head, "value": value, "reference": reference, "gain": relative_gain(value, reference, metric), **common})
    frame = pd.DataFrame(rows)
    frame.attrs["about"] = {**about, "columns": [*known]}
    frame.attrs["results"] = Attached(results)
    return frame


def _scores_by_kind(results: Sequence[Result], main_task: str | None) -> list[dict[str, float]]:
    """Each result's delta_m by kind of task; empty unless tasks of several kinds count, of which a main task is one alone."""
    rows = []
    for result in results:
        counting = {name: value for name, value in result.metrics.items() if main_task in (None, name.rsplit("/", 1)[0])}
        own = delta_m_by_kind(counting, result.references)
        rows.append(dict.fromkeys(own, WORST_DELTA_M) if result.diverged else own)
    return rows if len({kind for row in rows for kind in row}) > 1 else [{} for _ in rows]


def about(
    setting: Mapping[str, Any],
    results: Sequence[Result],
    *,
    seed: int | None = None,
    command: str | None = None,
    address: str | None = None,
    smallest_difference: float = 0.0,
    suite: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """How results were made, JSON-plain: the setting, the instances, the versions, the kernels and each metric's direction.

    ``address`` is the text by which :func:`mtl_gym.load_problem` finds the problem, ``suite`` the study of which they are, if any.
    """
    metrics = {name: METRICS[name.rsplit("/", 1)[1]].higher_is_better for result in results for name in result.metrics}
    return {
        "env": setting["env"],
        "problem": setting["problem"],
        "identity": setting.get("identity"),
        "address": address,
        "instances": sorted({result.instance for result in results}),
        "seed": seed,
        "arguments": dict(sorted(setting["arguments"].items())),
        "command": command,
        "smallest_difference": smallest_difference,
        **({"suite": dict(suite)} if suite else {}),
        "kernels": counted(result.kernels for result in results),
        "versions": {
            "python": platform.python_version(),
            "mtl-gym": setting["version"],
            **{name: version(name) for name in ("torch", "numpy", "gymnasium", "stable-baselines3")},
        },
        "metrics": {name: {"higher_is_better": higher} for name, higher in metrics.items()},
    }


def results_of(source: Source) -> tuple[list[Result], dict[str, Any]]:
    """The results of a comparison, and how they were made.

    Of a frame, those that its rows still name, so that a part of a frame is a part of the comparison; of a folder, all policies in
    the setting of the last comparison: its own results, and the newest of other policies and instances.

    Raises:
        ValueError: If a frame is not of :func:`mtl_gym.compare`, has lost its ``attrs`` or all of its rows, or has rows of another
            comparison, or a folder has no results.
        TypeError: If it is neither.
    """
    if isinstance(source, (str, Path)):
        setting, origin, results = stored(path_of("source", source))
        add_stored(setting.get("metrics", {}))
        return results, about(setting, results, **origin)
    if not isinstance(source, pd.DataFrame):
        raise TypeError(should("source", "be the frame of mtl_gym.compare, or its output folder", source))
    attached = source.attrs.get("results")
    if not isinstance(attached, Attached):
        remedy = "Files and some operations of pandas lose `attrs`. Pass the output folder (`out`) instead."
        raise ValueError(
            should("source", "be the frame of mtl_gym.compare, with its attrs", sorted(map(str, source.attrs)), remedy)
        )
    kept = _pairs(source, attached)
    results = [result for result in attached.results if (result.policy, result.instance) in kept]
    known: dict[str, Any] = source.attrs["about"]
    ids = sorted({result.instance for result in results})
    return results, {**known, "instances": ids, "kernels": counted(result.kernels for result in results)}


def frame_of(source: Source) -> pd.DataFrame:
    """The frame of a comparison; raises as :func:`results_of` does, also for a frame, which is returned as it is."""
    found = results_of(source)
    return source if isinstance(source, pd.DataFrame) else to_frame(*found)


def _pairs(frame: pd.DataFrame, attached: Attached) -> set[tuple[str, int]]:
    """The (policy, instance) pairs of a frame's rows, all of which its results have to hold.

    Raises:
        ValueError: If there are none, or some are not of these results: of frames that are put together, pandas keeps the ``attrs``
            of the first.
    """
    heads = ["policy", "instance", "task", "metric"]
    if missing := [name for name in heads[:2] if name not in frame]:
        raise ValueError(should("source", f"have the columns {' and '.join(heads[:2])}", [*frame], f"Missing: {missing}."))
    pairs = set(zip(frame["policy"], frame["instance"], strict=True))
    if not pairs:
        raise ValueError(should("source", "have rows", f"<{len(frame)} rows>"))
    foreign = pairs - {(result.policy, result.instance) for result in attached.results}
    twice = set(heads) <= {*frame} and frame.duplicated(heads).any()
    if foreign or twice:
        condition = "have rows of one comparison only, each once"
        policies = sorted({str(name) for name, _ in foreign} or set(frame.loc[frame.duplicated(heads), "policy"]))
        remedy = "Compare all policies in one call of mtl_gym.compare, or in the same folder (`out`), and pass that."
        raise ValueError(should("source", condition, policies, remedy))
    return pairs

"""The frame of a suite: those of its studies, one below the other; and the way back to scores and results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mtl_gym.checks import path_of, should
from mtl_gym.evaluation.frames import Source, about, to_frame
from mtl_gym.evaluation.results import Result, stored_in
from mtl_gym.evaluation.suite_settings import check_setting
from mtl_gym.evaluation.suites import installed
from mtl_gym.problems.metrics import add_stored

Array = npt.NDArray[np.float64]
Scores = dict[str, dict[str, Array]]
"""By study and policy: ``delta_m`` (n,) of the study's instances, in the order of their ids."""
Made = tuple[Sequence[Result], Mapping[str, Any]]
"""The results of a study, and how they were made."""


def joined(suite: Mapping[str, str], studies: Mapping[str, Made]) -> pd.DataFrame:
    """The frames of a suite's studies, one below the other, after a column ``study``; how each was made is in ``attrs``."""
    frames = {name: to_frame(*own) for name, own in studies.items()}
    whole = pd.concat([own.assign(study=name) for name, own in frames.items()], ignore_index=True)
    whole = whole[["study", *(name for name in whole if name != "study")]]
    whole.attrs = {"suite": dict(suite), "studies": {name: dict(own.attrs) for name, own in frames.items()}}
    return whole


def suite_frame(source: Source) -> pd.DataFrame:
    """The frame of a suite; of a folder or file of results, that of the suite whose studies came last.

    Raises:
        ValueError: If the source has no results of a suite, or of other settings than those of the suite, which is installed.
        TypeError: If it is neither a frame nor a path.
    """
    if isinstance(source, pd.DataFrame):
        if "study" not in source or not {"suite", "studies"} <= {*source.attrs}:
            raise ValueError(should("source", "be the frame of mtl_gym.compare_suite, with its attrs", [*source.columns]))
        return source
    if not isinstance(source, (str, Path)):
        raise TypeError(should("source", "be the frame of mtl_gym.compare_suite, or a path", source))
    suite, studies = _stored(path_of("source", source))
    return joined(suite, studies)


def _stored(path: Path) -> tuple[dict[str, str], dict[str, Made]]:
    """A suite that is stored, and its studies' results."""
    store, found = stored_in(path), []
    for setting, origin, results in store.studies():
        if results:
            add_stored(setting.get("metrics", {}))
            own = origin["suite"]
            suite = {"name": own["name"], "version": own["version"], "env": setting["env"]}
            if installed(suite):
                check_setting(setting, origin)
            found.append((suite, own["study"], (results, about(setting, results, **origin))))
    if not found:
        raise ValueError(should("source", "hold results of a suite", str(path), "mtl-gym compare --suite writes them."))
    last = found[-1][0]
    return last, {name: made for suite, name, made in found if suite == last}


def is_suite(source: Source) -> bool:
    """Whether a source is a frame of a suite, or a folder in which a suite was compared last."""
    if isinstance(source, pd.DataFrame):
        return "suite" in source.attrs
    if not isinstance(source, (str, Path)):
        return False
    try:
        return bool(stored_in(path_of("source", source)).latest()[1].get("suite"))
    except ValueError:  # what reads comparisons says it in its own words
        return False


def results_by_study(frame: pd.DataFrame) -> dict[str, Made]:
    """Results and how they were made, of the studies and policies that a suite's frame still names."""
    kept = {study: {*own["policy"]} for study, own in frame.groupby("study", sort=False)}
    found: dict[str, Made] = {}
    for name, own in frame.attrs["studies"].items():
        if name in kept:
            found[name] = ([result for result in own["results"].results if result.policy in kept[name]], own["about"])
    return found


def scores_of(frame: pd.DataFrame) -> tuple[Scores, list[str], list[str]]:
    """The scores of the policies that have results on all instances of all studies that have rows, the names of the policies that
    lack some, and those of the suite's studies that have no row.

    Raises:
        ValueError: If no policy has all results.
    """
    runs = runs_of(frame)
    wanted, studies = _instances(frame), [*dict.fromkeys(frame["study"])]
    kept = [id in wanted[study] for study, id in zip(runs["study"], runs["instance"], strict=True)]
    policies, runs = [*dict.fromkeys(runs["policy"])], runs[kept]
    counts = runs.groupby(["policy", "study"], sort=False, observed=True).size().unstack(fill_value=0)
    counts = counts.reindex(index=policies, columns=studies, fill_value=0)
    whole = counts.eq([len(wanted[study]) for study in studies]).all(axis=1)
    names, left_out = [name for name in policies if whole[name]], [name for name in policies if not whole[name]]
    if not names:
        raise ValueError(should("source", "hold at least one policy with results on all instances of all studies", left_out))
    runs = runs[runs["policy"].isin(names)].sort_values("instance", kind="stable")
    by_study = dict(iter(runs.groupby("study", sort=False, observed=True)))
    scores = {
        str(study): {
            str(name): own["delta_m"].to_numpy(np.float64)
            for name, own in by_study[study].groupby("policy", sort=False, observed=True)
        }
        for study in studies
    }
    missing = [study for study in wanted if study not in scores]
    return {study: {name: own[name] for name in names} for study, own in scores.items()}, left_out, missing


def _instances(frame: pd.DataFrame) -> dict[str, set[int]]:
    """The ids of each study's instances: the suite's if it is installed in this version, otherwise those that any policy has."""
    found: dict[str, set[int]] = {study: set() for study in frame.attrs["studies"]}
    found |= {str(study): {*own} for study, own in frame.groupby("study", sort=False, observed=True)["instance"]}
    suite = installed(frame.attrs["suite"])
    return found | ({study.name: {*study.ids} for study in suite.studies} if suite else {})


def runs_of(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with one row for each training."""
    return frame.drop_duplicates(["study", "policy", "instance"])

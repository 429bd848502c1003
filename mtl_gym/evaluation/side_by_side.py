"""Two runs side by side: the paired differences of policies of the same name, of the second run minus the first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from mtl_gym.checks import should
from mtl_gym.evaluation.frames import Source, results_of
from mtl_gym.evaluation.kernels import listed
from mtl_gym.evaluation.results import Result
from mtl_gym.evaluation.statistics import stratified_difference
from mtl_gym.evaluation.suite_frames import Array, Made, is_suite, results_by_study, suite_frame
from mtl_gym.evaluation.verdicts import verdicts_with

_SAME = ("env", "problem", "identity", "arguments")
"""What has to be the same of two studies; versions and kernels may differ."""


class _Run(NamedTuple):
    """A comparison, whose only study has no name, or a suite with its studies."""

    title: str
    studies: dict[str, Made]

    @property
    def policies(self) -> list[str]:
        return [*dict.fromkeys(result.policy for results, _ in self.studies.values() for result in results)]


def side_by_side(first: Source, second: Source) -> pd.DataFrame:
    """What changed from a run to another one in the same setting: of a comparison, or of a suite, whose studies count alike.

    Policies of the same name are paired by instance, whatever they are, such as an agent before and after more training, or a
    method in two versions of a package.

    Args:
        first: The frame of :func:`mtl_gym.compare` or :func:`mtl_gym.compare_suite`, or the output folder.
        second: The other one.

    Returns:
        A frame indexed by ``policy``, in the order of the second one's means, of the policies that share at least two instances on
        every common study. ``first`` and ``second`` are the mean ``delta_m`` on the common instances, with ``_low`` and ``_high``;
        ``difference``, ``low`` and ``high`` those of the paired differences, second minus first. ``verdict`` (``better``: the
        second is) and ``p`` are of t-tests with Holm's correction over the policies, ``detectable`` is as in
        :func:`mtl_gym.standings`; there is none from fewer than five instances. ``instances`` are shared, on ``same`` of which
        both have the same score; ``passes`` are those of the second over those of the first. ``attrs`` has the runs' ``title`` and
        ``commands``, the common ``studies``, the mean differences ``by_study`` and policy, and ``notes``: what only one of them
        has, versions and kernels that differ, and how many instances have other single-task references or batches.

    Raises:
        ValueError: If one is a suite and the other is not, suites or their versions or the settings of a common study differ, or
            no policy of the same name has two common instances.
        TypeError: If either is neither a frame nor a path.
    """
    runs = _run(first), _run(second)
    if runs[0].title != runs[1].title:
        raise ValueError(should("second", f"be a run of the same as the first, {runs[0].title}", runs[1].title))
    common = [name for name in runs[0].studies if name in runs[1].studies]
    for name in common:
        _check_same(name, *(run.studies[name][1] for run in runs))
    pairs = {name: _paired(runs, common, name) for name in runs[0].policies if name in runs[1].policies}
    pairs = {name: own for name, own in pairs.items() if own and min(map(len, own)) > 1}
    if not pairs:
        known = [run.policies for run in runs]
        raise ValueError(should("second", "share a policy's name and two instances of every common study with the first", known))
    table = _table({name: [_columns(study) for study in own] for name, own in pairs.items()})
    table.attrs = {
        "title": runs[0].title,
        "studies": [name for name in common if name],
        "by_study": _by_study(common, pairs),
        "commands": [[*dict.fromkeys(about.get("command") for _, about in run.studies.values())] for run in runs],
        "notes": [*_notes(runs, common, [*pairs]), *_notes_on_pairs(common, pairs)],
    }
    return table.sort_values("second", ascending=False, kind="stable")


def _run(source: Source) -> _Run:
    if is_suite(source):
        frame = suite_frame(source)
        suite = frame.attrs["suite"]
        return _Run(f"{suite['name']} {suite['version']} of {suite['env']}", results_by_study(frame))
    results, about = results_of(source)
    return _Run(f"{about['problem']} of {about['env']}", {"": (results, about)})


def _check_same(study: str, first: Mapping[str, Any], second: Mapping[str, Any]) -> None:
    """Raises ValueError if two studies differ in their settings, which it names."""
    known = [{**own, **own["arguments"]} for own in (first, second)]
    names = [*(name for name in _SAME[:-1]), *sorted({*first["arguments"], *second["arguments"]})]
    wrong = {name: (own, other) for name in names if (own := known[0].get(name)) != (other := known[1].get(name))}
    if wrong:
        where = f" of {study}" if study else ""
        condition = (
            f"have the setting{where} of the first, so that instances are the same; {', '.join(wrong)} differ (first, second)"
        )
        raise ValueError(should("second", condition, wrong))


def _paired(runs: tuple[_Run, _Run], common: list[str], policy: str) -> list[list[tuple[Result, Result]]]:
    """Of each common study, the results of a policy on the instances that both runs have."""
    found = []
    for name in common:
        own, other = ({result.instance: result for result in run.studies[name][0] if result.policy == policy} for run in runs)
        found.append([(own[id], other[id]) for id in sorted({*own} & {*other})])
    return found


def _columns(study: list[tuple[Result, Result]]) -> Array:
    """Scores and passes (4, n) of the first and second run."""
    rows = [[one.delta_m, two.delta_m, sum(one.cost.values()), sum(two.cost.values())] for one, two in study]
    return np.array(rows, np.float64).T


def _table(pairs: Mapping[str, list[Array]]) -> pd.DataFrame:
    """The table of policies' scores and passes by study, each (4, n)."""
    apart = {name: stratified_difference([own[1] - own[0] for own in studies]) for name, studies in pairs.items()}
    verdicts = verdicts_with({name: {"paired": {"": own}} for name, own in apart.items()}, "")
    rows = {}
    for name, studies in pairs.items():
        ends = [stratified_difference([own[place] for own in studies]) for place in (0, 1)]
        told, equal = verdicts.get(name), sum(int((own[0] == own[1]).sum()) for own in studies)
        rows[name] = {
            **{f"first{end}": ends[0][key] for end, key in _ENDS.items()},
            **{f"second{end}": ends[1][key] for end, key in _ENDS.items()},
            **{key: apart[name][key] for key in ("difference", "low", "high")},
            **{"verdict": told.verdict if told else "", "p": told.p if told else np.nan},
            "detectable": told.detectable if told else np.nan,
            **{"instances": sum(own.shape[1] for own in studies), "same": equal},
            "passes": float(np.mean([own[3].mean() / own[2].mean() for own in studies])),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("policy")


def _by_study(common: list[str], pairs: Mapping[str, list[list[tuple[Result, Result]]]]) -> dict[str, dict[str, float]]:
    """Mean differences by study and policy."""
    return {
        study: {name: float(np.mean([two.delta_m - one.delta_m for one, two in own[place]])) for name, own in pairs.items()}
        for place, study in enumerate(common)
    }


_ENDS = {"": "difference", "_low": "low", "_high": "high"}


def _notes(runs: tuple[_Run, _Run], common: list[str], shown: list[str]) -> list[str]:
    """Sentences on what is not compared, and on versions and kernels that differ."""
    found = []
    for place, run, other in (("first", *runs), ("second", *runs[::-1])):
        if alone := [name for name in run.policies if name not in other.policies]:
            found.append(f"Only in the {place}: {', '.join(alone)}.")
        if alone := [name for name in run.studies if name not in common]:
            found.append(f"Studies only in the {place}: {', '.join(alone)}.")
    both = [name for name in runs[0].policies if name in runs[1].policies]
    if few := [name for name in both if name not in shown]:
        found.append(f"Left out, with fewer than two common instances on a study: {', '.join(few)}.")
    for what, of in {"Versions": _versions, "Kernels": _kernels}.items():
        texts = ["; ".join(dict.fromkeys(of(about) for _, about in run.studies.values())) for run in runs]
        if texts[0] != texts[1]:
            found.append(f"{what} differ: {texts[0]} in the first, {texts[1]} in the second.")
    return found


def _notes_on_pairs(common: list[str], pairs: Mapping[str, list[list[tuple[Result, Result]]]]) -> list[str]:
    """Sentences on instances of which other things than scores differ; files of earlier versions have no batches."""
    every = [(study, *own) for found in pairs.values() for study, results in zip(common, found, strict=True) for own in results]
    count = len({(study, one.instance) for study, one, _ in every})
    found = []
    for what, meaning in _APART.items():
        known = [(study, one.instance, getattr(one, what), getattr(two, what)) for study, one, two in every]
        if apart := {(study, id) for study, id, own, other in known if own and other and own != other}:
            found.append(f"{meaning[0]} differ on {len(apart)} of {count} instances, {meaning[1]}.")
    return found


_APART = {
    "references": ("Single-task references", "where a part of the difference is that of the references"),
    "batch": ("Batches (the instances trained side by side)", "which may change the last bits of scores"),
}
"""Fields of results that should be the same of both runs: what they are called, and what a difference means."""


def _versions(about: Mapping[str, Any]) -> str:
    return f"mtl-gym {about['versions']['mtl-gym']}"


def _kernels(about: Mapping[str, Any]) -> str:
    return listed(about["kernels"])

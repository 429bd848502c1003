"""The leaderboard of a suite: what policies are worth over all of its studies, and what it costs to choose one beforehand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from mtl_gym.checks import choose
from mtl_gym.evaluation.frames import Source
from mtl_gym.evaluation.notes import drawn
from mtl_gym.evaluation.regrets import cross_fitted_regrets, difference_over_problems
from mtl_gym.evaluation.resampling import improvement
from mtl_gym.evaluation.statistics import FEWEST, stratified_difference
from mtl_gym.evaluation.suite_frames import Array, Made, Scores, results_by_study, runs_of, scores_of, suite_frame
from mtl_gym.evaluation.suite_references import described as told, normalised, of_suite
from mtl_gym.evaluation.verdicts import verdicts_with


@dataclass(frozen=True)
class Ranking:
    """A leaderboard with what it was made from.

    Attributes:
        table: See :func:`standings`.
        scores: Those of the policies of the table.
        frame: The suite's frame.
    """

    table: pd.DataFrame
    scores: Scores
    frame: pd.DataFrame

    @property
    def baseline(self) -> str:
        """The policy from which differences are."""
        return str(self.table.attrs["baseline"])

    @cached_property
    def studies(self) -> dict[str, Made]:
        """The results of each study, and how they were made."""
        return results_by_study(self.frame)

    def differences(self, name: str) -> list[Array]:
        """Of each study, the paired differences (n,) of a policy's scores from the baseline's."""
        return [own[name] - own[self.baseline] for own in self.scores.values()]


def standings(source: Source, baseline: str | None = None) -> pd.DataFrame:
    """The policies of a suite, best first, with intervals.

    Studies count alike. Intervals and verdicts are on this suite: its studies are given, and the instances within them are drawn.
    What a policy costs on a problem that the suite does not have is better told by ``regret``.

    Args:
        source: The frame of :func:`mtl_gym.compare_suite`, or its output folder, or a file of results.
        baseline: The policy from which the others' differences are, named before the scores are known; by default the first one.

    Returns:
        A frame indexed by ``policy``. ``delta_m`` is the mean over studies of the means over instances, in percent, ``low`` and
        ``high`` its 95 % interval. ``difference``, ``difference_low`` and ``difference_high`` are those of paired differences from
        the baseline, ``verdict`` and ``p`` of a t-test (Welch-Satterthwaite) with Holm's correction over all comparisons with it,
        and ``detectable`` the smallest difference that could have been seen, after correction, with a power of 80 %.
        ``probability`` is the fraction of instances on which it is better than the baseline, studies alike
        (:func:`~mtl_gym.evaluation.resampling.improvement`), with its ends ``probability_low`` and ``probability_high``.
        ``data_low`` and ``data_high`` are the interval of the difference if data sets are redrawn too, each with all of its
        studies (bootstrap): for those who ask about other problems. There is none for fewer than five data sets. ``regret`` is
        the mean over studies of how far a policy is behind the best one, which is chosen on other instances than it is measured on
        (cross-fitted); ``largest_regret`` the largest one and ``worst_study`` where. ``wins`` is the number of studies on which it
        has the best mean. ``score``, with ``score_low`` and ``score_high``, is 0 for the suite's usual start and 1 for the best
        known schedule (:func:`mtl_gym.suite_references`), where these are known. ``passes`` are forward and backward passes over
        those of the baseline, where this is most. ``diverged`` counts trainings. ``attrs["suite"]`` names the suite,
        ``attrs["left_out"]`` the policies that lack results on an instance of the suite, ``attrs["missing"]`` its studies of which
        no policy has any, and ``attrs["draws"]`` says of each study whether its instances draw an ``own split`` or their ``own
        data``, so that intervals redraw splits too, or have ``one split``.

    Raises:
        ValueError: If the source has no results of a suite, no policy has all of them, or there is no such baseline.
        TypeError: If it is neither a frame nor a path.
    """
    return ranking(source, baseline).table


def ranking(source: Source, baseline: str | None = None) -> Ranking:
    """The leaderboard of a suite, with what it was made from; as :func:`standings`, whose errors it raises."""
    frame = suite_frame(source)
    scores, left_out, missing = scores_of(frame)
    names = [*next(iter(scores.values()))]
    first = choose("baseline", names[0] if baseline is None else baseline, {name: name for name in names})
    abouts, runs = {name: frame.attrs["studies"][name]["about"] for name in scores}, runs_of(frame)
    table = _table(scores, names, first, abouts)
    table["passes"] = _passes(runs, first)
    table["diverged"] = runs.groupby("policy", observed=True)["diverged"].sum()
    known = of_suite(frame.attrs["suite"])
    scored = normalised(runs, known) if len(known) else {}
    for place, column in enumerate(SCORE):
        table[column] = [scored[name][place] if name in scored else np.nan for name in table.index]
    table = table.sort_values("delta_m", ascending=False, kind="stable")
    table.attrs |= {
        "suite": dict(frame.attrs["suite"]),
        "left_out": left_out,
        "missing": missing,
        "baseline": first,
        "studies": {name: len(own[first]) for name, own in scores.items()},
        "draws": {name: drawn(own) for name, own in abouts.items()},
        "kernels": _counted(abouts),
        "references": told(known, scored) if scored else "",
    }
    return Ranking(table, scores, frame)


def _counted(abouts: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """The number of results by their kernels, over all studies."""
    counts: dict[str, int] = {}
    for own in abouts.values():
        for text, count in own["kernels"].items():
            counts[text] = counts.get(text, 0) + count
    return counts


def _table(scores: Scores, names: list[str], first: str, abouts: Mapping[str, Any]) -> pd.DataFrame:
    """All columns that come from scores."""
    data = [own["suite"]["data"] for own in abouts.values()]
    smallest = max(own.get("smallest_difference", 0.0) for own in abouts.values())
    own = {name: [rows[name] for rows in scores.values()] for name in names}
    means = {name: stratified_difference(values) for name, values in own.items()}
    apart = {name: [a - b for a, b in zip(own[name], own[first], strict=True)] for name in names}
    pairs = {name: stratified_difference(values, smallest) for name, values in apart.items()}
    verdicts = verdicts_with({name: {"paired": {first: pairs[name]}} for name in names}, first)
    regrets = {study: cross_fitted_regrets(rows) for study, rows in scores.items()}
    best = [max(names, key=lambda name: float(rows[name].mean())) for rows in scores.values()]
    rows = []
    for name in names:
        behind = {study: regrets[study][name] for study in scores}
        worst = max(behind, key=lambda study: behind[study])
        pair, told = (pairs[name], verdicts.get(name)) if name != first else ({}, None)
        rows.append(
            {
                "policy": name,
                **{"delta_m": means[name]["difference"], "low": means[name]["low"], "high": means[name]["high"]},
                **{f"difference{end}": pair.get(key) for end, key in (("", "difference"), ("_low", "low"), ("_high", "high"))},
                **{"verdict": told.verdict if told else "", "p": told.p if told else None},
                "detectable": told.detectable if told else None,
                **(_over_baseline(apart[name], data) if name != first else dict.fromkeys(_OVER_BASELINE)),
                **{"regret": float(np.mean([*behind.values()])), "largest_regret": behind[worst], "worst_study": worst},
                "wins": best.count(name),
            }
        )
    texts = ("policy", "verdict", "worst_study")
    table = pd.DataFrame(rows)
    return table.astype({name: np.float64 for name in table if name not in (*texts, "wins")}).set_index("policy")


SCORE = ("score", "score_low", "score_high")
_OVER_BASELINE = ("probability", "probability_low", "probability_high", "data_low", "data_high")


def _over_baseline(differences: list[Array], data: list[str]) -> dict[str, float | None]:
    """The probability of improvement, and the interval that redraws data sets: columns of those names."""
    chance = improvement(differences)
    ends: dict[str, float] = {}
    if len({*data}) >= FEWEST:
        ends = difference_over_problems(differences, [np.zeros(len(own)) for own in differences], data)
    return dict(zip(_OVER_BASELINE, (*map(float, chance), ends.get("low"), ends.get("high")), strict=True))


def _passes(runs: pd.DataFrame, first: str) -> pd.Series:
    """The largest ratio over studies of a policy's mean passes to the baseline's."""
    means = (runs["forward"] + runs["backward"]).groupby([runs["study"], runs["policy"]], observed=True).mean().unstack()
    return means.div(means[first], axis=0).max()

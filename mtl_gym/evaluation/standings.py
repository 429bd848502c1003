"""The leaderboard of a suite: what policies are worth over all of its studies, and what it costs to choose one beforehand."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mtl_gym.checks import choose, path_of, should
from mtl_gym.evaluation.frames import about, to_frame
from mtl_gym.evaluation.regrets import cross_fitted_regrets
from mtl_gym.evaluation.results import stored_in
from mtl_gym.evaluation.statistics import stratified_difference
from mtl_gym.evaluation.verdicts import verdicts_with
from mtl_gym.problems.metrics import add_stored

Array = npt.NDArray[np.float64]
Scores = dict[str, dict[str, Array]]
"""By study and policy: ``delta_m`` (n,) of the study's instances, in the order of their ids."""


def standings(source: pd.DataFrame | str | Path, baseline: str | None = None) -> pd.DataFrame:
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
        and ``detectable`` the smallest difference that could have been seen, after correction, with a power of 80 %. ``regret`` is
        the mean over studies of how far a policy is behind the best one, which is chosen on other instances than it is measured on
        (cross-fitted); ``largest_regret`` the largest one and ``worst_study`` where. ``wins`` is the number of studies on which it
        has the best mean. ``passes`` are forward and backward passes over those of the baseline, where this is most. ``diverged``
        counts trainings. ``attrs["suite"]`` names the suite, ``attrs["left_out"]`` the policies that lack results.

    Raises:
        ValueError: If the source has no results of a suite, or there is no such baseline.
        TypeError: If it is neither a frame nor a path.
    """
    frame, suite = suite_frame(source)
    runs = frame.drop_duplicates(["study", "policy", "instance"])
    counts = runs.groupby(["policy", "study"], sort=False, observed=True).size().unstack(fill_value=0)
    whole = counts.eq(counts.max()).all(axis=1)
    names, left_out = [name for name in counts.index if whole[name]], [name for name in counts.index if not whole[name]]
    if not names:
        raise ValueError(should("source", "hold at least one policy with results on all instances of all studies", left_out))
    first = choose("baseline", names[0] if baseline is None else baseline, {name: name for name in names})
    runs = runs[runs["policy"].isin(names)].sort_values("instance", kind="stable")
    scores: Scores = {
        str(study): {
            str(name): own["delta_m"].to_numpy(np.float64) for name, own in rows.groupby("policy", sort=False, observed=True)
        }
        for study, rows in runs.groupby("study", sort=False, observed=True)
    }
    table = _table(scores, names, first)
    table["passes"] = _passes(runs, first)
    table["diverged"] = runs.groupby("policy", observed=True)["diverged"].sum()
    table = table.sort_values("delta_m", ascending=False, kind="stable")
    table.attrs |= {
        "suite": suite,
        "left_out": left_out,
        "baseline": first,
        "studies": {name: len(own[first]) for name, own in scores.items()},
    }
    return table


def _table(scores: Scores, names: list[str], first: str) -> pd.DataFrame:
    """All columns that come from scores."""
    own = {name: [rows[name] for rows in scores.values()] for name in names}
    means = {name: stratified_difference(values) for name, values in own.items()}
    pairs = {name: stratified_difference([a - b for a, b in zip(own[name], own[first], strict=True)]) for name in names}
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
                **{"regret": float(np.mean([*behind.values()])), "largest_regret": behind[worst], "worst_study": worst},
                "wins": best.count(name),
            }
        )
    texts = ("policy", "verdict", "worst_study")
    table = pd.DataFrame(rows)
    return table.astype({name: np.float64 for name in table if name not in (*texts, "wins")}).set_index("policy")


def _passes(runs: pd.DataFrame, first: str) -> pd.Series:
    """The largest ratio over studies of a policy's mean passes to the baseline's."""
    means = (runs["forward"] + runs["backward"]).groupby([runs["study"], runs["policy"]], observed=True).mean().unstack()
    return means.div(means[first], axis=0).max()


def suite_frame(source: pd.DataFrame | str | Path) -> tuple[pd.DataFrame, dict[str, str]]:
    """The frame of a suite, with its column ``study``, and the suite's ``name``, ``version`` and ``env``; raises as above."""
    if isinstance(source, pd.DataFrame):
        if "study" not in source or "suite" not in source.attrs:
            raise ValueError(should("source", "be the frame of mtl_gym.compare_suite, with its attrs", [*source.columns]))
        return source, dict(source.attrs["suite"])
    if not isinstance(source, (str, Path)):
        raise TypeError(should("source", "be the frame of mtl_gym.compare_suite, or a path", source))
    path = path_of("source", source)
    store = stored_in(path)
    frames, suites = [], []
    for setting, origin, results in store.studies():
        if results:
            store.check(setting, origin)
            add_stored(setting.get("metrics", {}))
            own = to_frame(results, about(setting, results, **origin))
            frames.append(own.assign(study=origin["suite"]["study"]))
            suites.append({"name": origin["suite"]["name"], "version": origin["suite"]["version"], "env": setting["env"]})
    if not suites:
        raise ValueError(should("source", "hold results of a suite", str(path), "mtl-gym compare --suite writes them."))
    last = suites[-1]
    frame = pd.concat([own for own, suite in zip(frames, suites, strict=True) if suite == last], ignore_index=True)
    return frame, last


def rows_of(table: pd.DataFrame) -> list[dict[str, str]]:
    """The cells of a leaderboard as texts, for a terminal, a page or a paper."""
    first = table.attrs["baseline"]
    return [
        {
            "policy": str(name),
            "delta_m %": f"{row['delta_m']:.2f} [{row['low']:.2f}, {row['high']:.2f}]",
            f"over {first}": ""
            if math.isnan(row["difference"])
            else f"{row['difference']:+.2f} [{row['difference_low']:.2f}, {row['difference_high']:.2f}]",
            "verdict": row["verdict"],
            "regret": f"{row['regret']:.2f}",
            "largest": f"{row['largest_regret']:.1f} ({row['worst_study']})",
            "wins": f"{row['wins']:.0f}",
            "passes": f"{row['passes']:.2f}",
        }
        for name, row in table.iterrows()
    ]


def notes_of(table: pd.DataFrame) -> list[str]:
    """Sentences below a leaderboard."""
    found = []
    if table["detectable"].notna().any():
        ends = f"{table['detectable'].min():.2f} to {table['detectable'].max():.2f}"
        found.append(f"Minimum detectable difference (80 % power, after correction): {ends} points.")
    if diverged := int(table["diverged"].sum()):
        found.append(f"{diverged} trainings diverged; each counts as -100 %.")
    if left_out := table.attrs["left_out"]:
        found.append(f"Left out, since they lack results: {', '.join(left_out)}. Run them on the whole suite.")
    return found


def described(suite: Mapping[str, Any], table: pd.DataFrame) -> str:
    """The title of a leaderboard."""
    studies = table.attrs["studies"]
    return f"{suite['name']} {suite['version']} of {suite['env']}: {len(studies)} studies, {sum(studies.values())} instances"

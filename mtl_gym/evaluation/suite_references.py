"""What is known of a suite's instances beside the policies that were compared: ``mtl_gym/data/suites``, one file for each suite.

The usual start (equal weights and the like), the action that is best when it is held throughout, and the best schedule that a
search found (:mod:`mtl_gym.evaluation.best_known`), of the first instances of each study. ``python -m benchmarks.best_known`` makes
the files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mtl_gym.environments import LOSS_WEIGHTING
from mtl_gym.evaluation.statistics import stratified_difference
from mtl_gym.evaluation.suites import load_suite

Array = npt.NDArray[np.float64]
KINDS = ("start", "best_constant", "best_known")


def suite_references(suite: str = "standard", env: str = LOSS_WEIGHTING) -> pd.DataFrame:
    """The references of a suite's instances.

    Args:
        suite: The suite's name.
        env: The environment's id.

    Returns:
        A frame with a row for each study and instance: ``start``, ``best_constant`` and ``best_known`` are ``delta_m`` on *test*,
        in percent; single-task learning is 0. The last two were chosen on *reward*, so they may lose, and are no optima.
        ``attrs["trainings"]`` is the number of trainings of an instance that a search took at most, and ``attrs["start"]`` the
        name of the policy that is the start. It has no rows if the suite has no references.

    Raises:
        ValueError: If there is no such suite.
    """
    chosen = load_suite(suite, env)
    return of_suite({"name": chosen.name, "version": chosen.version, "env": chosen.env})


def of_suite(suite: Mapping[str, str]) -> pd.DataFrame:
    """The same of a suite's ``name``, ``version`` and ``env``, which need not be installed."""
    known = stored(suite["name"], suite["env"], suite["version"])
    if not known or not known.get("complete"):  # of some studies alone, scores would be those of another suite
        known = {"studies": {}}
    rows = [
        {"study": study, "instance": id, **{kind: own[kind][place] for kind in KINDS}}
        for study, own in known["studies"].items()
        for place, id in enumerate(own["instances"])
    ]
    frame = pd.DataFrame(rows, columns=["study", "instance", *KINDS])
    frame.attrs = {name: known.get(name) for name in ("trainings", "start")}
    return frame


def stored(suite: str, env: str, version: str) -> dict[str, Any] | None:
    """The file of a suite's references, if there is one of this version."""
    file = resources.files("mtl_gym") / "data" / "suites" / file_name(suite, env)
    found = json.loads(file.read_text()) if file.is_file() else {}
    return found if found.get("version") == version else None


def file_name(suite: str, env: str) -> str:
    """The name of the file of a suite's references."""
    return f"{env.rpartition('/')[2]}-{suite}.json"


def headroom(references: pd.DataFrame) -> dict[str, float]:
    """Best known minus best constant, the mean over studies: ``difference``, ``low``, ``high`` and ``error``, in points."""
    return stratified_difference(_by_study(references["best_known"] - references["best_constant"], references))


def normalised(runs: pd.DataFrame, references: pd.DataFrame) -> dict[str, tuple[float, float, float]]:
    """Scores of policies with 95 % intervals: 0 is the start, 1 the best known, each a mean over studies of means over instances.

    Ratios are of means over the suite's searched instances, since those of single instances have small denominators. Intervals are
    those of t over the ratio's linear form (the delta method), paired by instance, so they count the references' spread too.

    Args:
        runs: A row for each ``study``, ``policy`` and ``instance``, with ``delta_m``.
        references: Those of the suite. Policies that lack an instance of them have no score, and none has one if the best known is
            not above the start with an interval above 0: it was not chosen on *test*.
    """
    room = _by_study(references["best_known"] - references["start"], references)
    if stratified_difference(room)["low"] <= 0:
        return {}
    whole = np.mean([own.mean() for own in room])
    wide = runs.pivot_table(index=["study", "instance"], columns="policy", values="delta_m", observed=True, sort=False)
    values = wide.reindex(pd.MultiIndex.from_frame(references[["study", "instance"]])).set_index(references.index)
    found = {}
    for name in [name for name in values if values[name].notna().all()]:
        gains = _by_study(values[name] - references["start"], references)
        score = float(np.mean([own.mean() for own in gains]) / whole)
        apart = stratified_difference([own - score * most for own, most in zip(gains, room, strict=True)])
        found[str(name)] = (score, score + apart["low"] / whole, score + apart["high"] / whole)
    return found


def _by_study(values: pd.Series, references: pd.DataFrame) -> list[Array]:
    return [own.to_numpy(np.float64) for _, own in values.groupby(references["study"], sort=False)]


def described(references: pd.DataFrame, scored: Mapping[str, Any]) -> str:
    """A sentence on what scores are."""
    room, about = headroom(references), references.attrs
    span = f"{room['difference']:+.2f} [{room['low']:.2f}, {room['high']:.2f}]"
    return (
        f"Score: 0 is {about['start']}, 1 the best schedule known (at most {about['trainings']} trainings an instance, chosen on "
        f"reward), on {len(references)} instances; that is {span} over the best constant action. "
        f"Policies with a score: {len(scored)}."
    )

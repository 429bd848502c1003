"""What is known to be possible on the instances of suites: usual starts, the best constant actions, and the best schedules found.

    python -m benchmarks.best_known                                       every suite but the quick ones (hours; rerun to resume)
    python -m benchmarks.best_known LossWeighting-v0-standard             one of them

Of each study, the first instances are searched, 24 of a suite and at least four of a study
(``mtl_gym/evaluation/best_known.py``): 64 trainings each for constant actions and 64 for schedules, chosen on *reward* and read on
*test*. Problems with convolutions are not in suites. Writes ``mtl_gym/data/suites``, study by study, which
:func:`mtl_gym.suite_references` reads, and ``benchmarks/results/best_known.json``: the headroom, best known minus best constant.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import mtl_gym
from benchmarks.measuring import ROOT, Run, command_line
from mtl_gym.cache import write_whole
from mtl_gym.environments import LAYER_MERGING, LOSS_WEIGHTING, SAMPLE_WEIGHTING, TASK_GROUPING
from mtl_gym.evaluation.best_known import best_constant, best_known
from mtl_gym.evaluation.kernels import running_kernels
from mtl_gym.evaluation.suite import Study, Suite
from mtl_gym.evaluation.suite_references import file_name, headroom, suite_references
from mtl_gym.evaluation.suites import find_suites, load_suite

CANDIDATES, MOST, LEAST = 64, 24, 4
"""Trainings of each instance, and instances: of a suite, shared out among its studies, and at least of each of them."""
FEWER = {(LAYER_MERGING, problem): 32 for problem in ("digits", "relations", "teachers")} | {(LAYER_MERGING, "yeast"): 6}
"""Candidates where trainings take much memory; four instances of each study are searched then."""
FOLDER = ROOT / "mtl_gym" / "data" / "suites"
STARTS = {LOSS_WEIGHTING: "ew", SAMPLE_WEIGHTING: "uniform", LAYER_MERGING: "shared", TASK_GROUPING: "joint"}
"""The policy that scores 0."""
CHOICES = (TASK_GROUPING,)
"""Environments whose actions are choices, which mean another thing at each decision and instance: each instance is searched for
itself, and the start stands in for the best constant."""


def study_references(suite: Suite, study: Study, candidates: int, most: int, **others: Any) -> dict[str, Any]:
    """The references of a study's first instances."""
    ids, given = study.ids[:most], {"problem": study.problem, **study.arguments, **others}
    start = mtl_gym.compare(STARTS[suite.env], suite.env, instances=ids, progress=False, **given).drop_duplicates("instance")
    row = {"instances": ids, "start": _rounded(start["delta_m"])}
    if suite.env in CHOICES:
        found = [best_known(suite.env, [id], candidates=candidates, **given) for id in ids]
        return {
            **row,
            "best_constant": row["start"],
            "best_known": [_rounded(own.test)[0] for own in found],
            "schedule": [own.schedule.tolist() for own in found],
        }
    constant = best_constant(suite.env, ids, candidates=candidates, **given)
    best = best_known(suite.env, ids, candidates=candidates, held=constant.schedule[0], **given)
    return {
        **row,
        "best_constant": _rounded(constant.test),
        "best_known": _rounded(best.test),
        "chosen_by": {"best_constant": _rounded(constant.reward), "best_known": _rounded(best.reward)},
        "constant": np.round(constant.schedule[0], 4).tolist(),
        "schedule": np.round(best.schedule, 4).tolist(),
    }


def _rounded(values: Any) -> list[float]:
    return [round(float(own), 3) for own in values]


def referenced(suite: Suite, run: Run, folder: Path) -> None:
    """Fills the file of a suite, study by study."""
    path, most = folder / file_name(suite.name, suite.env), run.size(CANDIDATES, 8)
    about = {"suite": suite.name, "version": suite.version, "env": suite.env, "start": STARTS[suite.env], "trainings": most}
    known = json.loads(path.read_text()) if path.is_file() else {}
    if {name: known.get(name) for name in about} != about:
        known = {**about, "kernels": running_kernels("cpu"), "studies": {}}
    for study in suite.studies[: 1 if run.smoke else None]:
        if study.name not in known["studies"]:
            others = {"train_steps": 40} if run.smoke else {}
            rows = min(FEWER.get((suite.env, study.problem), most), most)
            count = max(MOST // len(suite.studies), LEAST) if rows == CANDIDATES else LEAST
            own = study_references(suite, study, rows, run.size(count, 2), **others)
            known["studies"][study.name] = own if rows == most else {"trainings": rows, **own}
            known["complete"] = len(known["studies"]) == len(suite.studies)
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(path, json.dumps(known) + "\n")
            print(suite.env, suite.name, study.name, *(f"{name} {np.mean(own[name]):.2f}" for name in _SHOWN), flush=True)


_SHOWN = ("start", "best_constant", "best_known")


def main(words: Sequence[str] | None = None) -> None:
    """Searches, and writes what was found."""
    run: Run = command_line(words)
    folder = FOLDER if not run.smoke else run.out.parent if run.out else None
    names = {file_name(*key).removesuffix(".json"): key for key in find_suites() if key[0] != "quick"}
    for name in run.names or [*names][: 1 if run.smoke else None]:
        if folder:
            referenced(load_suite(*names[name]), run, folder)
    if not run.smoke:
        run.write({name: headroom(suite_references(*key)) for name, key in names.items() if len(suite_references(*key))})


if __name__ == "__main__":
    main()

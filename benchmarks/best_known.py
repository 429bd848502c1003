"""What is known to be possible on the instances of suites: usual starts, the best constant actions, and the best schedules found.

    python -m benchmarks.best_known                                       every suite but the quick ones (hours; rerun to resume)
    python -m benchmarks.best_known LossWeighting-v0-standard             one of them

Of each study, the first instances are searched, at most 24 of a suite (``mtl_gym/evaluation/best_known.py``, 64 trainings each).
The best constant action is the one of 64 with the best mean on *reward* of four other instances of the study. All are read on
*test*. Problems with convolutions are not in suites. Writes ``mtl_gym/data/suites``, study by study, which
:func:`mtl_gym.suite_references` reads.
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
from mtl_gym.evaluation.best_known import best_known, constants, held
from mtl_gym.evaluation.kernels import running_kernels
from mtl_gym.evaluation.suite import Study, Suite
from mtl_gym.evaluation.suite_references import file_name, headroom, suite_references
from mtl_gym.evaluation.suites import find_suites, load_suite

ROWS, MOST, TUNED_ON = 64, 24, 4
FOLDER = ROOT / "mtl_gym" / "data" / "suites"
STARTS = {LOSS_WEIGHTING: "ew", SAMPLE_WEIGHTING: "uniform", LAYER_MERGING: "shared", TASK_GROUPING: "joint"}
"""The policy that scores 0."""
NO_CONSTANTS = (TASK_GROUPING,)
"""Environments whose action means another thing at each decision: the start stands in for the best constant."""


def study_references(suite: Suite, study: Study, rows: int, most: int, **others: Any) -> dict[str, Any]:
    """The references of a study's first instances."""
    ids, given = study.ids[: max(most // len(suite.studies), 1)], {"problem": study.problem, **study.arguments, **others}
    start = mtl_gym.compare(STARTS[suite.env], suite.env, instances=ids, progress=False, **given).drop_duplicates("instance")
    found = [best_known(suite.env, id, rows=rows, **given) for id in ids]
    row = {
        "instances": ids,
        "start": _rounded(start["delta_m"]),
        "best_known": _rounded([own.delta_m for own in found]),
        "chosen_by": _rounded([own.chosen_by for own in found]),
        "schedules": [np.round(own.schedule, 3).tolist() for own in found],
    }
    if suite.env in NO_CONSTANTS:
        return {**row, "best_constant": row["start"]}
    tried = constants(suite.env, study.ids[-TUNED_ON:], rows=rows, **given)
    action = tried["actions"][tried["reward"].mean(1).argmax()]
    return {**row, "constant": np.round(action, 4).tolist(), "best_constant": _rounded(held(suite.env, ids, action, **given))}


def _rounded(values: Any) -> list[float]:
    return [round(float(own), 3) for own in values]


def referenced(suite: Suite, run: Run, folder: Path) -> None:
    """Fills the file of a suite, study by study."""
    path, rows = folder / file_name(suite.name, suite.env), run.size(ROWS, 4)
    about = {"suite": suite.name, "version": suite.version, "env": suite.env, "start": STARTS[suite.env], "trainings": rows}
    known = json.loads(path.read_text()) if path.is_file() else {}
    if {name: known.get(name) for name in about} != about:
        known = {**about, "kernels": running_kernels("cpu"), "studies": {}}
    for study in suite.studies[: 1 if run.smoke else None]:
        if study.name not in known["studies"]:
            others = {"train_steps": 40} if run.smoke else {}
            known["studies"][study.name] = own = study_references(suite, study, rows, run.size(MOST, 2), **others)
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

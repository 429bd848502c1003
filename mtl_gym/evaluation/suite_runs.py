"""Runs policies on all studies of a suite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from mtl_gym.checks import path_of, should
from mtl_gym.environments import LOSS_WEIGHTING
from mtl_gym.evaluation.comparison import Performed, perform_all
from mtl_gym.evaluation.executors import make_executor
from mtl_gym.evaluation.executors.jobs import Executor
from mtl_gym.evaluation.plans import Plan, plan
from mtl_gym.evaluation.suite import Study, Suite
from mtl_gym.evaluation.suite_frames import joined
from mtl_gym.evaluation.suites import load_suite
from mtl_gym.policies.protocol import Policy
from mtl_gym.problems import load_problem


def compare_suite(
    policies: str | Sequence[str | Policy] | Mapping[str, str | Policy],
    suite: str = "standard",
    env: str = LOSS_WEIGHTING,
    *,
    num_envs: int = 24,
    smallest_difference: float = 0.0,
    out: str | Path | None = None,
    progress: bool | None = None,
    workers: int | None = None,
    executor: str = "local",
    address: str | None = None,
) -> pd.DataFrame:
    """Runs every policy on every instance of a suite.

    Args:
        policies: As in :func:`mtl_gym.compare`.
        suite: The suite's name (``mtl-gym list suites``).
        env: The environment's id.
        num_envs: Number of parallel trainings.
        smallest_difference: The smallest difference that matters, in points of ``delta_m``.
        out: Output folder: ``results.sqlite``, where finished results are kept and reused, and a folder with page and table for
            each study. ``None`` writes nothing.
        progress: As in :func:`mtl_gym.compare`.
        workers: As in :func:`mtl_gym.compare`. They train batches of all studies.
        executor: As in :func:`mtl_gym.compare`.
        address: The same.

    Returns:
        The frames of :func:`mtl_gym.compare`, one below the other, after a column ``study``. ``frame.attrs["suite"]`` has the
        suite's ``name``, ``version`` and ``env``. :func:`mtl_gym.standings` computes the leaderboard.

    Raises:
        ValueError, TypeError: If an argument is wrong, a problem has another version than the suite means, or a policy does not
            fit a study, before anything is run.
    """
    chosen, trainers = load_suite(suite, env), make_executor(executor, workers, address)
    plans = plans_of(chosen, policies, num_envs=num_envs, smallest_difference=smallest_difference)
    folder = None if out is None else path_of("out", out)
    suite_of = {"name": chosen.name, "version": chosen.version, "env": chosen.env}
    return joined(suite_of, performed(plans, folder, progress=progress, executor=trainers))


def plans_of(suite: Suite, policies: Any, **options: Any) -> dict[str, Plan]:
    """The checked comparisons of a suite, by study."""
    return {study.name: _planned(suite, study, policies, options) for study in suite.studies}


def _planned(suite: Suite, study: Study, policies: Any, options: Mapping[str, Any]) -> Plan:
    found = load_problem(study.problem).version
    if found != study.problem_version:
        condition = f"be a suite of the installed problems: {study.name} means version {study.problem_version} of {study.problem}"
        remedy = f"Version {found} is installed. Install the mtl-gym that the suite belongs to, or take a newer suite."
        raise ValueError(should("suite", condition, suite.title, remedy))
    try:
        own = plan(policies, suite.env, instances=study.ids, problem=study.problem, **study.arguments, **options)
    except (ValueError, TypeError) as error:
        raise type(error)(f"{error} (In the study {study.name!r} of the suite {suite.title}.)") from error
    return replace(own, suite=suite.origin(study))


def performed(
    plans: Mapping[str, Plan],
    folder: Path | None,
    *,
    command: str | None = None,
    progress: bool | None = None,
    executor: Executor | None = None,
) -> dict[str, Performed]:
    """Runs all plans, of which finished results are in ``folder``, and writes the page of each; results by study."""
    if folder is None:
        return perform_all(plans, command=command, progress=progress, executor=executor)
    from mtl_gym.evaluation.export import check_outputs, export  # draws, which takes a second to load

    check_outputs(folder)
    for name in plans:
        check_outputs(folder / name)

    def write(name: str, done: Performed) -> None:
        export(*done, folder / name)

    return perform_all(plans, out=folder, command=command, progress=progress, executor=executor, on_end=write)

"""Makes rows of results again, and says whether they are what the file has."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mtl_gym.checks import path_of, positive_int, should
from mtl_gym.context import own_mode, threads
from mtl_gym.environments import specification
from mtl_gym.envs.arguments import check_arguments
from mtl_gym.evaluation.kernels import described
from mtl_gym.evaluation.module_files import address_of
from mtl_gym.evaluation.plans import arguments_of
from mtl_gym.evaluation.results import Comparison, Result, Results, plain, stored_in
from mtl_gym.evaluation.rollout import rollout
from mtl_gym.evaluation.single_task import reference_metrics
from mtl_gym.evaluation.statistics import student_interval
from mtl_gym.evaluation.suite_settings import check_setting
from mtl_gym.policies.grammar import make_policy
from mtl_gym.problems import load_problem
from mtl_gym.problems.base import Problem
from mtl_gym.problems.scores import WORST_DELTA_M, delta_m
from mtl_gym.progress import progress_bar

ALIKE, FEW = 1e-4, 5
"""Largest relative difference of losses at the first checkpoint, with which a training has begun alike on other kernels; fewer rows
of other kernels say nothing."""
_EXACT = ("metrics", "references", "delta_m", "cost", "curves", "diverged")
_COLUMNS = ("delta_m", "again", "difference", "comparable", "exact", "begun_alike")


@dataclass(frozen=True)
class Replay:
    """A row that was made again.

    Attributes:
        row: The words by which it is asked for: ``study/policy/instance``, or ``policy/instance`` outside of suites.
        known: What the file has.
        found: What it is now.
    """

    row: str
    known: Result
    found: Result

    @property
    def comparable(self) -> bool:
        """Whether both were made with the same kernels and number of threads, beside the same instances."""
        return bool(self.known.batch) and described(self.known.kernels) == described(self.found.kernels)

    @property
    def exact(self) -> bool:
        """Whether metrics, references, ``delta_m``, cost and curves, where the file has them, are the same, bit for bit."""
        names = _EXACT if self.known.curves else [name for name in _EXACT if name != "curves"]
        return all(plain(getattr(self.known, name)) == plain(getattr(self.found, name)) for name in names)

    @property
    def begun_alike(self) -> bool:
        """Whether the losses of the first checkpoint after the start differ by less than ``ALIKE``, and passes do not, unless a
        training diverged.
        """
        curves, again = self.known.curves.get("loss", {}), self.found.curves.get("loss", {})
        as_dear = self.known.cost == self.found.cost or self.known.diverged or self.found.diverged
        if not as_dear or {*curves} != {*again}:
            return False
        return all(_close(own[1], again[task][1]) for task, own in curves.items() if len(own) > 1)

    @property
    def difference(self) -> float:
        """``delta_m`` now minus then."""
        return self.found.delta_m - self.known.delta_m


def _close(own: float | None, other: float | None) -> bool:
    return own is other if own is None or other is None else math.isclose(own, other, rel_tol=ALIKE, abs_tol=1e-9)


def reproduce(source: str | Path, row: str, *, progress: bool | None = None) -> Replay:
    """Makes one row of a file of results again.

    Args:
        source: The output folder of a comparison or a suite, or its file of results.
        row: ``study/policy/instance`` of a suite, ``policy/instance`` of the last other comparison.
        progress: As in :func:`mtl_gym.compare`.

    Raises:
        ValueError: If there is no such row, its policy or problem cannot be found, or the problem has changed since.
    """
    rows = {word: (result, comparison) for word, result, comparison in _rows(_comparisons(stored_in(path_of("source", source))))}
    if row not in rows:
        nearest = [word for word in rows if word.rpartition("/")[0] == row.rpartition("/")[0]] or [*rows]
        raise ValueError(should("row", f"be one of {', '.join(nearest[:6])}{' ...' if len(nearest) > 6 else ''}", row))
    with progress_bar(1, row, show=progress) as update:
        found = _again(row, *rows[row])
        update(advance=1)
    return found


def verify(source: str | Path, sample: int = 8, *, seed: int = 0, progress: bool | None = None) -> pd.DataFrame:
    """Makes a random sample of a suite's rows again.

    The settings are the suite's own, so a file cannot pass with easier ones; single-task references are made again too. Of *all*
    rows, ``delta_m`` has to be what metrics and references give. A policy that the file names by ``file.py:Class`` is loaded, so
    its code runs.

    Args:
        source: The output folder of a suite, or its file of results.
        sample: How many rows.
        seed: Which ones.
        progress: As in :func:`mtl_gym.compare`.

    Returns:
        A frame indexed by ``row``: ``delta_m`` in the file and ``again``, their ``difference``, and whether the two are
        ``comparable``, ``exact`` and ``begun_alike`` (see :class:`Replay`). ``attrs["verdict"]`` is a sentence, and
        ``attrs["sound"]`` whether all rows were made, comparable ones are exact, and the others, of other kernels, are at least
        ``FEW``, have begun alike and do not differ in the mean (95 %). ``attrs["unknown"]`` has the reasons why rows were not made,
        as of policies that cannot be found by their names, and ``attrs["wrong"]`` the rows whose ``delta_m`` is not that of their
        metrics.

    Raises:
        ValueError: If the file holds no suite, or one of other settings than the installed one.
    """
    comparisons = [own for own in stored_in(path_of("source", source)).studies() if own[2]]
    if not comparisons:
        raise ValueError(should("source", "hold results of a suite", str(source), "mtl-gym compare --suite writes them."))
    problems = [check_setting(*comparison[:2]) for comparison in comparisons]
    rows = [(*row, problem) for own, problem in zip(comparisons, problems, strict=True) for row in _rows([own])]
    order = np.random.default_rng(positive_int("seed", seed, least=0)).permutation(len(rows))
    chosen = [rows[place] for place in order[: positive_int("sample", sample)]]
    found, unknown = [], {}
    with progress_bar(len(chosen), "rows", show=progress) as update:
        for word, result, comparison, problem in chosen:
            try:
                found.append(_again(word, result, comparison, problem))
            except (ValueError, ImportError) as error:
                unknown[word] = str(error)
            update(description=word, advance=1)
    table = pd.DataFrame([_row(own) for own in found], columns=["row", *_COLUMNS]).set_index("row")
    wrong = [word for word, result, comparison, _ in rows if not _adds_up(result, comparison[0]["arguments"].get("main_task"))]
    table.attrs |= {"unknown": unknown, "wrong": wrong, **_judged(found, len(unknown), len(wrong))}
    return table


def _adds_up(result: Result, main_task: str | None) -> bool:
    """Whether ``delta_m`` is what metrics and references give, those of the main task if there is one."""
    counting = {name: value for name, value in result.metrics.items() if main_task in (None, name.rsplit("/", 1)[0])}
    expected = WORST_DELTA_M if result.diverged or not counting else delta_m(counting, result.references)
    return math.isclose(result.delta_m, expected, rel_tol=1e-9, abs_tol=1e-9)


def _row(own: Replay) -> dict[str, Any]:
    known = {name: getattr(own, name) for name in _COLUMNS[2:]}
    return {"row": own.row, "delta_m": own.known.delta_m, "again": own.found.delta_m, **known}


def _judged(found: list[Replay], unknown: int, wrong: int) -> dict[str, Any]:
    """Whether replays support a file, and the sentence that says so."""
    same, others = [own for own in found if own.comparable], [own for own in found if not own.comparable]
    exact, alike = sum(own.exact for own in same), sum(own.begun_alike for own in others)
    parts, sound = [], bool(found) and not unknown and not wrong and exact == len(same) and alike == len(others)
    if same:
        parts.append(f"{exact} of {len(same)} rows on the same kernels are the same, bit for bit")
    if others:
        differences = np.array([own.difference for own in others])
        low, high = student_interval(differences)
        ends = "" if low is None else f" [{low:.2f}, {high:.2f}]"
        few = f", too few to say more: sample until there are {FEW}" if len(others) < FEW else ""
        parts.append(
            f"{alike} of {len(others)} rows on other kernels have begun alike, mean difference {differences.mean():+.2f}{ends}{few}"
        )
        sound = sound and not few and (low is None or high is None or low <= 0 <= high)
    if unknown:
        parts.append(f"{unknown} rows could not be made again")
    if wrong:
        parts.append(f"of {wrong} rows of the file, delta_m is not what their metrics give")
    return {"verdict": "; ".join(parts) + ".", "sound": sound}


def _comparisons(store: Results) -> list[Comparison]:
    """The studies of suites in a file, or else the last comparison."""
    if found := [own for own in store.studies() if own[2]]:
        return found
    last = store.latest()
    store.check(*last[:2])
    return [last]


def _rows(comparisons: list[Comparison]) -> list[tuple[str, Result, Comparison]]:
    """Every row: its words, what the file has, and the comparison that it is of."""
    rows = []
    for comparison in comparisons:
        study = (comparison[1].get("suite") or {}).get("study")
        rows += [("/".join([*([study] if study else []), own.policy, str(own.instance)]), own, comparison) for own in comparison[2]]
    return rows


@own_mode()
def _again(row: str, known: Result, comparison: Comparison, problem: Problem | None = None) -> Replay:
    """Makes a row again, beside the same instances and with as many threads, and its single-task references too.

    The problem is that of the file's address, unless one is given.
    """
    own, origin, results = comparison
    problem = problem or load_problem(address_of(origin.get("address"), "source", own["problem"]))
    if plain(problem.identity) != own.get("identity"):
        raise ValueError(should("source", f"be of {problem.name!r} as it is now", row, "Its data or its code have changed."))
    arguments = arguments_of(own) | {"problem": problem}
    policy, batch = make_policy(known.policy), known.batch or [known.instance]
    beside = {result.instance: result.references for result in results}
    if missing := [id for id in batch if id not in beside]:
        raise ValueError(should("source", f"hold the instances that were trained beside {row}", missing))
    with threads(known.kernels.get("threads")):
        references = beside | reference_metrics(check_arguments(specification(own["env"]), **arguments), [known.instance])
        done = rollout(known.policy, policy, own["env"], batch, arguments=arguments, references=references)
    return Replay(row, known, done[batch.index(known.instance)])

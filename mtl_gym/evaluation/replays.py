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
from mtl_gym.evaluation.plans import arguments_of, setting_of
from mtl_gym.evaluation.results import Comparison, Result, Results, plain, stored_in
from mtl_gym.evaluation.rollout import rollout
from mtl_gym.evaluation.single_task import reference_metrics
from mtl_gym.evaluation.statistics import student_interval
from mtl_gym.evaluation.suites import load_suite
from mtl_gym.policies.grammar import make_policy
from mtl_gym.problems import load_problem
from mtl_gym.progress import progress_bar

ALIKE = 1e-4
"""Largest relative difference of losses at the first checkpoint, with which a training has begun alike on other kernels."""
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
        """Whether metrics, references, ``delta_m``, cost and curves are the same, bit for bit."""
        return all(plain(getattr(self.known, name)) == plain(getattr(self.found, name)) for name in _EXACT)

    @property
    def begun_alike(self) -> bool:
        """Whether the losses of the first checkpoint after the start differ by less than ``ALIKE``; also where there are none."""
        curves, again = self.known.curves.get("loss", {}), self.found.curves.get("loss", {})
        return {*curves} == {*again} and all(_close(own[1], again[task][1]) for task, own in curves.items() if len(own) > 1)

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

    The settings are the suite's own, so a file cannot pass with easier ones; single-task references are made again too. Rows of
    policies that cannot be found by their names are left out, and named in ``attrs["unknown"]``.

    Args:
        source: The output folder of a suite, or its file of results.
        sample: How many rows.
        seed: Which ones.
        progress: As in :func:`mtl_gym.compare`.

    Returns:
        A frame indexed by ``row``: ``delta_m`` in the file and ``again``, their ``difference``, and whether the two are
        ``comparable``, ``exact`` and ``begun_alike`` (see :class:`Replay`). ``attrs["verdict"]`` is a sentence, and
        ``attrs["sound"]`` whether all comparable rows are exact, and the others, of other kernels, have begun alike and do not
        differ in the mean (95 %).

    Raises:
        ValueError: If the file holds no suite, or one of other settings than the installed one.
    """
    comparisons = [own for own in stored_in(path_of("source", source)).studies() if own[2]]
    if not comparisons:
        raise ValueError(should("source", "hold results of a suite", str(source), "mtl-gym compare --suite writes them."))
    for comparison in comparisons:
        _check_setting(comparison)
    rows = _rows(comparisons)
    order = np.random.default_rng(positive_int("seed", seed, least=0)).permutation(len(rows))
    chosen = [rows[place] for place in order[: positive_int("sample", sample)]]
    found, unknown = [], {}
    with progress_bar(len(chosen), "rows", show=progress) as update:
        for word, result, comparison in chosen:
            try:
                found.append(_again(word, result, comparison))
            except (ValueError, ImportError) as error:
                unknown[word] = str(error)
            update(description=word, advance=1)
    table = pd.DataFrame([_row(own) for own in found], columns=["row", *_COLUMNS]).set_index("row")
    table.attrs |= {"unknown": unknown, **_judged(found)}
    return table


def _row(own: Replay) -> dict[str, Any]:
    known = {name: getattr(own, name) for name in _COLUMNS[2:]}
    return {"row": own.row, "delta_m": own.known.delta_m, "again": own.found.delta_m, **known}


def _judged(found: list[Replay]) -> dict[str, Any]:
    """Whether replays support a file, and the sentence that says so."""
    same, others = [own for own in found if own.comparable], [own for own in found if not own.comparable]
    exact, alike = sum(own.exact for own in same), sum(own.begun_alike for own in others)
    parts, sound = [], bool(found) and exact == len(same) and alike == len(others)
    if same:
        parts.append(f"{exact} of {len(same)} rows on the same kernels are the same, bit for bit")
    if others:
        differences = np.array([own.difference for own in others])
        low, high = student_interval(differences)
        ends = "" if low is None else f" [{low:.2f}, {high:.2f}]"
        parts.append(
            f"{alike} of {len(others)} rows on other kernels have begun alike, mean difference {differences.mean():+.2f}{ends}"
        )
        sound = sound and (low is None or high is None or low <= 0 <= high)
    return {"verdict": "; ".join(parts) + "." if parts else "No row could be made again.", "sound": sound}


def _comparisons(store: Results) -> list[Comparison]:
    """The studies of suites in a file, or else the last comparison."""
    return [own for own in store.studies() if own[2]] or [store.latest()]


def _rows(comparisons: list[Comparison]) -> list[tuple[str, Result, Comparison]]:
    """Every row: its words, what the file has, and the comparison that it is of."""
    rows = []
    for comparison in comparisons:
        study = (comparison[1].get("suite") or {}).get("study")
        rows += [("/".join([*([study] if study else []), own.policy, str(own.instance)]), own, comparison) for own in comparison[2]]
    return rows


def _check_setting(comparison: Comparison) -> None:
    """Raises ValueError if a study's setting is not that of the installed suite."""
    known, origin, _ = comparison
    suite, named = load_suite(origin["suite"]["name"], known["env"]), origin["suite"]
    study = {own.name: own for own in suite.studies}.get(named["study"])
    if suite.version != named["version"] or study is None:
        raise ValueError(should("source", f"be of studies of {suite.title}, which is installed", named))
    given = {"problem": study.problem, **plain(study.arguments)}
    own = setting_of(suite.env, check_arguments(specification(suite.env), **given), given)
    if differing := [name for name in ("identity", "arguments") if plain(own[name]) != plain(known.get(name))]:
        condition = f"have the settings of {suite.title}; {study.name} differs in {', '.join(differing)}"
        raise ValueError(should("source", condition, known.get(differing[0])))


@own_mode()
def _again(row: str, known: Result, comparison: Comparison) -> Replay:
    """Makes a row again, beside the same instances and with as many threads, and its single-task references too."""
    own, origin, results = comparison
    problem = load_problem(address_of(origin.get("address"), "source", own["problem"]))
    if problem.identity != own.get("identity"):
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

"""Searches for every method's learning rate and its own parameter, on the *reward* split of training instances.

    python -m benchmarks.constant_weights            first: the constant weights
    python -m benchmarks.search                      every problem and case (many hours; rerun to resume)
    python -m benchmarks.search digits yeast         these
    python -m benchmarks.search yeast --names ew,uw-so,single-task

Every method tries half, one and two times the problem's rate. One with a parameter of its own tries three values of it (``OWN``)
at each of these rates; of a composition such as ``igb+cagrad``, the last method's. While the best rate lies at an end of those that
were tried, the next one is tried too, from an eighth to eight times the problem's. Equal weights and single-task learning, to which
``delta_m`` will refer, try the rates too. All score the mean ``delta_m`` of the same training instances, over single-task learning
at the problem's rate; *test* plays no part. Writes ``benchmarks/results/search.json``, method by method, with the best setting and
the number of trainings that it took; ``benchmarks/methods.py`` runs every method with it. Scores are kept in ``runs/search`` as
soon as they are known, so a kill loses only the trainings that are running.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

import mtl_gym
from benchmarks.constant_weights import VANISHING
from benchmarks.measuring import (
    FAMILY_CASES,
    Run,
    case_arguments,
    cases,
    command_line,
    rollout,
    searched_in,
    still_valid,
    vector_env,
)
from benchmarks.methods import SINGLE_TASK, policies
from benchmarks.rates import FACTORS, beyond
from mtl_gym.cache import write_whole
from mtl_gym.environments import LOSS_WEIGHTING, specification
from mtl_gym.envs.arguments import check_arguments
from mtl_gym.evaluation.results import spec_key
from mtl_gym.evaluation.single_task import metric_names
from mtl_gym.policies.grammar import make_policy
from mtl_gym.problems.instances import TRAINING_IDS
from mtl_gym.problems.scores import delta_m
from mtl_gym.training.references import average_references, fingerprint, single_task_metrics

OWN: dict[str, tuple[str, tuple[Any, ...]]] = {
    "uw": ("lr", ("null", 0.01, 0.1)),  # null: that of the training
    "imtl-l": ("lr", ("null", 0.01, 0.1)),
    "dwa": ("temperature", (0.5, 2, 8)),
    "uw-so": ("temperature", (1, 10, 100)),
    "famo": ("gamma", (0.0001, 0.001, 0.01)),  # what the paper searches
    "stch": ("mu", (0.3, 1, 3)),
    "gradvac": ("beta", (0.01, 0.1, 0.5)),  # the paper's and LibMTL's, and between them
    "cagrad": ("c", (0.2, 0.4, 0.8)),
    "nash-mtl": ("max_norm", (0.3, 1, 3)),
    "fairgrad": ("alpha", (1, 2, 4)),
    "gradnorm": ("alpha", (0.5, 1.5, 3)),
    "moco": ("gamma", (0.01, 0.1, 1)),
    "db-mtl": ("beta", (0.1, 0.5, 0.9)),
    "rule": ("level", (0, 0.5, 1)),
    "best-rule": ("level", (0, 0.482, 1)),
}
"""A method's own parameter, and the values that are tried."""
INSTANCES = 8
OTHERS = {"multimnist": 4, "stereo": 2, **dict.fromkeys(FAMILY_CASES, 24)}
"""Instances of cases that are slow, or whose instances are problems of their own."""
Metrics = dict[str, float]


def candidates(name: str) -> list[str]:
    """A policy with each value of its own parameter; the policy itself if it has none."""
    option, values = OWN.get(name.rsplit("+", 1)[-1], ("", ()))
    return [f"{name}:{option}={value}" for value in values] or [name]


def played(text: str, given: Mapping[str, Any], ids: Sequence[int]) -> list[Metrics]:
    """Metrics of each instance on *reward*, after training with a policy in an environment with these arguments.

    Those of a training that diverged are NaN.
    """
    arguments = check_arguments(specification(LOSS_WEIGHTING), **given)
    if text == SINGLE_TASK:
        metrics, diverged = single_task_metrics(arguments.problem, arguments.recipe, ids, "reward"), np.zeros(len(ids), dtype=bool)
    else:
        policy = make_policy(text)
        envs = vector_env(LOSS_WEIGHTING, len(ids), policy, autoreset_mode="Disabled", **given)
        diverged = np.zeros(len(ids), dtype=bool)
        for _, infos in rollout(envs, policy, ids):
            diverged |= infos["diverged"]
        metrics = envs.decision.trainings.metrics("reward")
    names = metric_names(arguments, ids)
    return [{name: math.nan if diverged[row] else float(metrics[name][row]) for name in names[id]} for row, id in enumerate(ids)]


class Scores:
    """Mean delta_m of settings on a case's training instances, each computed once.

    Args:
        case: Its name.
        run: How the benchmark is run; in its folder ``kept``, if any, scores are found again.
    """

    def __init__(self, case: str, run: Run) -> None:
        short = {"train_steps": 40} if run.smoke else {}
        self._given = {**case_arguments(case), **short}
        self.arguments = check_arguments(specification(LOSS_WEIGHTING), **self._given)
        self.ids = list(range(TRAINING_IDS[0], TRAINING_IDS[0] + run.size(OTHERS.get(case, INSTANCES), 2)))
        self._file = run.kept / f"{case}.json" if run.kept else None
        self._known: dict[str, float] = json.loads(self._file.read_text()) if self._file and self._file.is_file() else {}
        self._references = self._equal_weights() if case in VANISHING else self._single_task()  # of each instance

    def trainings(self, text: str) -> int:
        """How many trainings a score takes."""
        return len(self.ids) * (self.arguments.recipe.num_tasks if text == SINGLE_TASK else 1)

    def of(self, text: str, factor: float) -> float:
        """The score of a policy at a multiple of the problem's rate."""
        given = {**self._given, "lr": factor * self.arguments.recipe.lr}
        arguments = check_arguments(specification(LOSS_WEIGHTING), **given)
        policy = None if text == SINGLE_TASK else getattr(make_policy(text), "spec", text)
        trained = fingerprint(arguments.problem, arguments.recipe)
        used = {"policy": policy, "trained": trained, "ids": self.ids, "references": self._references}
        key = spec_key({**used, "version": mtl_gym.__version__})
        if key not in self._known:
            pairs = zip(played(text, given, self.ids), self._references, strict=True)
            gains = [delta_m(own, references) for own, references in pairs]
            self._known[key] = float(np.mean(gains))
            if self._file:
                write_whole(self._file, json.dumps(self._known, indent=1) + "\n")
        return self._known[key]

    def _single_task(self) -> list[Metrics]:
        if self.arguments.problem.family:
            return played(SINGLE_TASK, self._given, self.ids)
        return [dict(average_references(self.arguments.problem, self.arguments.recipe))] * len(self.ids)

    def _equal_weights(self) -> list[Metrics]:
        each = played("ew", self._given, self.ids)
        return [{name: float(np.mean([own[name] for own in each])) for name in each[0]}] * len(self.ids)


def search(name: str, scores: Scores) -> dict[str, Any]:
    """Tries all settings of a policy: the best one, its score, the number of trainings, and all scores by setting and rate."""
    tried = {text: {factor: scores.of(text, factor) for factor in FACTORS} for text in candidates(name)}
    best, factor = _best(tried)
    while (further := beyond(tried[best], factor)) is not None:
        tried[best][further] = scores.of(best, further)
        best, factor = _best(tried)
    return {
        "policy": best,
        "factor": factor,
        "delta_m": round(tried[best][factor], 2),
        "trainings": sum(map(len, tried.values())) * scores.trainings(name),
        "tried": {text: {str(own): round(row[own], 2) for own in sorted(row)} for text, row in tried.items()},
    }


def _best(tried: Mapping[str, Mapping[float, float]]) -> tuple[str, float]:
    return max(((text, factor) for text in tried for factor in tried[text]), key=lambda own: tried[own[0]][own[1]])


def study(case: str, names: Mapping[str, str], run: Run, write: Callable[[dict[str, Any]], None]) -> None:
    """Searches for the settings of policies by label, and calls ``write`` with the results after each."""
    scores = Scores(case, run)
    found = still_valid(run.known().get(case, {}), case).get("methods", {})
    for label, name in names.items():
        found[label] = search(name, scores)
        print(case, label, json.dumps(found[label]), flush=True)
        write({**searched_in(case), "instances": len(scores.ids), "methods": found})


def command(parser: argparse.ArgumentParser) -> None:
    """Adds the options beyond those that all benchmarks have."""
    parser.add_argument("--names", dest="methods", help="the methods to search for, separated by commas (default: all)")


def main(words: Sequence[str] | None = None) -> None:
    """Searches on each case and adds what is found to the results."""
    run: Run
    run, given = command_line(words, command)
    for case in cases(run):
        known = {SINGLE_TASK: SINGLE_TASK, **policies(case, run.smoke)}
        chosen = given.methods.split(",") if given.methods else [*known]
        names = {label: known.get(label, label) for label in chosen}
        study(case, names, run, lambda found, case=case: run.write({**run.known(), case: found}))  # type: ignore[misc]


if __name__ == "__main__":
    main()

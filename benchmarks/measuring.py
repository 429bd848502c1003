"""Shared code of the benchmarks: times in interleaved rounds, ratios with quartiles, the command line and stored results.

Every benchmark is run as a module, ``python -m benchmarks.speed``, and takes names of its studies, ``--out FILE`` and ``--smoke``.
"""

from __future__ import annotations

import argparse
import contextlib
import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_gym.evaluation.timing import Times, Work, interleaved, piece, quartiles

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
FOR_GROUPS = ("digit_tasks", "clusters", "clusters_equal")
CASES: dict[str, dict[str, Any]] = {
    "digits_few": {"problem": "digits", "distribution": {"labels:digit": (0.08, 0.08)}},
    "yeast_few": {"problem": "yeast", "distribution": {"labels": (0.2, 0.2)}},
    "tox21_few": {"problem": "tox21", "distribution": {"labels": (0.25, 0.25)}},
    "relations_few": {"problem": "relations", "hidden_sizes": (32, 16), "distribution": {"labels": (0.25, 0.25)}},
}
"""Studies of weights besides those of whole problems: few labels, the usual reason to learn tasks together."""
_ANY_TEACHER: dict[str, Any] = {
    "num_tasks": 4,
    "distribution": {"labels": (0.05, 1.0), "size": (0.3, 1.0), "scale": (0.1, 10.0), "noise": (0.0, 0.3)},
}
FAMILY_CASES: dict[str, dict[str, Any]] = {
    "teachers_new": {"problem": "teachers", **_ANY_TEACHER},
    "teachers_beyond": {"problem": "teachers_shifted", **_ANY_TEACHER},
}
"""Studies of families, in which every instance is a problem of its own: as in training, and beyond it."""


# --- times -----------------------------------------------------------------------------------------------------------------------


def side_by_side(works: Mapping[str, Work], *, rounds: int, seconds: float = 0.1) -> dict[str, Times]:
    """Seconds of a step of each kind of work, in interleaved rounds, so that other load on the machine affects all of them alike.

    Args:
        works: By name.
        rounds: Rounds that count.
        seconds: Length of a piece at least; 0: every work is called once a round.
    """
    return interleaved({name: lambda own=own: piece(own, seconds) for name, own in works.items()}, rounds)  # type: ignore[misc]


def ratio(first: Times, second: Times, digits: int = 3) -> dict[str, float]:
    """Median and quartiles of the rounds' ratios, and the ratio of the best (least) of each."""
    low, middle, high = quartiles(first / second)
    row = {"ratio": middle, "lower quartile": low, "upper quartile": high, "best of each": first.min() / second.min()}
    return {name: round(float(value), digits) for name, value in row.items()}


def speeds(times: Mapping[str, Times], base: str, digits: int = 2) -> dict[str, dict[str, float]]:
    """How many times faster than the base each other work is."""
    return {name: ratio(times[base], own, digits) for name, own in times.items() if name != base}


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Sets torch's number of threads, and restores it afterwards."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# --- environments ----------------------------------------------------------------------------------------------------------------


def vector_env(env: str, num_envs: int, policy: Any = None, **arguments: Any) -> Any:
    """A vector environment, made as a policy requires."""
    import gymnasium

    import mtl_gym  # noqa: F401  it registers the environments

    required = {} if policy is None else {"reward": "none", **policy.requires.arguments()}
    given = {**required, **arguments}
    return gymnasium.make_vec(env, num_envs=num_envs, vectorization_mode="vector_entry_point", **given).unwrapped


def weighted_problems(run: Run) -> list[str]:
    """The problems that were named; else those of the studies of weights, or in smoke mode the first of them.

    The others are made for grouping, and have up to a hundred similar tasks.
    """
    if run.names or run.smoke:  # avoids loading the problems, which takes seconds
        return [*run.names] or ["digits"]
    from mtl_gym.environments import LOSS_WEIGHTING, specification
    from mtl_gym.envs.arguments import supported_problems

    return [name for name in supported_problems(specification(LOSS_WEIGHTING)) if name not in FOR_GROUPS]


def cases(run: Run) -> list[str]:
    """The names of the studies of weights that were asked for: rows of ``CASES``, and problems that are no families."""
    known = weighted_problems(run)
    return known if run.names or run.smoke else [*(name for name in known if not name.startswith("teachers")), *CASES]


def case_arguments(name: str) -> dict[str, Any]:
    """The environment's arguments of a study of weights: each instance draws its own split where the problem has a pool."""
    from mtl_gym.problems import load_problem

    given = {**CASES, **FAMILY_CASES}.get(name, {"problem": name})
    drawn = {"split": (1.0, 1.0)} if load_problem(given["problem"]).pool else {}
    return {**given, "distribution": {**drawn, **given.get("distribution", {})}}


def searched_in(case: str) -> dict[str, Any]:
    """What a search on a case is valid for, as JSON shows it: the problem with its version, and the case's other arguments."""
    from mtl_gym.problems import load_problem

    given = case_arguments(case)
    return dict(json.loads(json.dumps({**given, "problem": load_problem(given["problem"]).identity})))


def still_valid(found: Mapping[str, Any], case: str) -> dict[str, Any]:
    """What a search found on a case; nothing if the case was another one then, or the problem of another version."""
    return dict(found) if found and all(found.get(key) == value for key, value in searched_in(case).items()) else {}


def first_memory(policy: Any, ids: Sequence[int], num_tasks: int) -> Any:
    """A policy's memory before its first decision on these instances; ``None`` if it has no ``initial_state``."""
    begin = getattr(policy, "initial_state", None)
    return None if begin is None else begin(np.asarray(ids), num_tasks)


def rollout(envs: Any, policy: Any, ids: Sequence[int]) -> Iterator[tuple[npt.NDArray[Any], dict[str, Any]]]:
    """Plays these instances to their end with a policy, in environments that do not reset themselves; yields actions and infos.

    Actions are clipped to their bounds, as in a comparison; those that are yielded are what the policy said.
    """
    seen, _ = envs.reset(options={"instance": np.asarray(ids)})
    memory = first_memory(policy, ids, envs.arguments.recipe.num_tasks)
    while not envs.finished.all():
        actions, memory = policy.predict(seen, memory, deterministic=True)
        seen, *_, infos = envs.step(np.clip(actions, envs.action_space.low, envs.action_space.high))
        yield actions, infos


# --- running and storing ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """How a benchmark is run.

    Attributes:
        names: The studies to run; none: all.
        smoke: Whether only to show that it runs: tiny sizes, one round, and no stored results are reused.
        out: The output file; ``None``: none is written.
        kept: The folder of finished results that a later run reuses, named after the output file, so that results of other lengths
            or kernels are kept apart; ``None``: none.
    """

    names: tuple[str, ...]
    smoke: bool
    out: Path | None
    kept: Path | None

    def known(self) -> dict[str, Any]:
        """The results so far."""
        return dict(json.loads(self.out.read_text())) if self.out and self.out.is_file() else {}

    def write(self, results: Mapping[str, Any]) -> None:
        """Stores the results, atomically."""
        if self.out:
            from mtl_gym.cache import write_whole

            write_whole(self.out, json.dumps(results, indent=1) + "\n")

    def beside(self, path: Path) -> Path | None:
        """Where another file is written: the path itself, or in smoke mode next to the results, if they are written."""
        if not self.smoke:
            return path
        return self.out.with_name(path.name) if self.out else None

    def size(self, full: int, smoke: int = 1) -> int:
        """A number of rounds, instances or the like."""
        return smoke if self.smoke else full

    def chosen(self, names: Sequence[str], smoke: int = 1) -> tuple[str, ...]:
        """The named studies, else all; in smoke mode the first ones."""
        return self.names or tuple(names[: smoke if self.smoke else None])


def command_line(
    words: Sequence[str] | None = None,
    options: Callable[[argparse.ArgumentParser], None] | None = None,
    results: Path | None = None,
) -> Any:
    """The :class:`Run` that the words (``None``: the process's) ask for, of the benchmark that calls this.

    Args:
        words: Without the program.
        options: Adds more of them to the parser; the parsed ones are then returned beside the run.
        results: Where results are kept, if not in ``benchmarks/results``.
    """
    caller = inspect.currentframe().f_back  # type: ignore[union-attr]
    description, stem = caller.f_globals["__doc__"], Path(caller.f_globals["__file__"]).stem  # type: ignore[union-attr]
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{stem}", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="the studies to run (default: all)")
    parser.add_argument("--smoke", action="store_true", help="only show that it runs: tiny sizes, one round")
    usual = results or RESULTS / f"{stem}.json"
    parser.add_argument("--out", type=Path, help=f"output file (default: {usual.relative_to(ROOT)}; with --smoke: none)")
    if options:
        options(parser)
    given = parser.parse_args(words)
    out = given.out or (None if given.smoke else usual)
    run = Run(tuple(given.names), given.smoke, out, None if given.smoke else ROOT / "runs" / out.stem)
    return (run, given) if options else run

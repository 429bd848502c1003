"""What an agent is trained on: one problem, or several side by side, each with arguments of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtl_gym import Problem, check_argument_names, load_problem, plain, should, specification
from mtl_gym.agents.defaults import with_defaults

Source = str | Problem | Mapping[str, Any]
Sources = Source | Sequence[Source]


def sources_of(problem: Sources, env: str, shared: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The arguments of each source of a training, with the environment's defaults for training.

    Args:
        problem: A problem; a mapping of arguments with one; a list of these; or a text: names with commas between them, or a list
            in JSON.
        env: The environment's id.
        shared: The arguments of all sources; those of a source take precedence.

    Raises:
        ValueError, TypeError: If there is no source, or one is wrong.
    """
    listed = _listed(problem)
    if not listed:
        raise ValueError(should("problem", "name at least one problem", problem))
    return [_arguments(own, env, shared) for own in listed]


def _listed(problem: Sources) -> list[Source]:
    if isinstance(problem, str):
        if problem.lstrip().startswith("["):
            try:
                return list(json.loads(problem))
            except json.JSONDecodeError as error:
                raise ValueError(should("problem", f"be a list in JSON: {error}", problem)) from error
        whole = Path(problem.rpartition(":")[0] or problem).is_file()  # whose name may contain a comma
        return [problem] if whole else [name.strip() for name in problem.split(",")]
    if not isinstance(problem, (Problem, Mapping, Sequence)):
        raise TypeError(should("problem", "be a name, a Problem, a mapping with one, or a list of these", problem))
    return [problem] if isinstance(problem, (Problem, Mapping)) else list(problem)


def _arguments(source: Source, env: str, shared: Mapping[str, Any]) -> dict[str, Any]:
    """All arguments of a source, plain, with its problem as the text by which it is found, or as it is."""
    own = dict(source) if isinstance(source, Mapping) else {"problem": source}
    if "problem" not in own:
        raise ValueError(should("problem", "be named in the arguments of each source", own))
    check_argument_names(specification(env), own)
    found = load_problem(own.pop("problem"))
    return {**plain(with_defaults(env, {"problem": None, **shared, **own})), "problem": found.address or found}

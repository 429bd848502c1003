"""The command ``mtl-gym list``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import typer

from mtl_gym.checks import choose
from mtl_gym.cli.messages import errors, print_json, reported
from mtl_gym.cli.options import Json
from mtl_gym.cli.rows import Row, print_rows
from mtl_gym.environments import environment_class, find_environments, specification
from mtl_gym.evaluation.suites import find_suites, load_suite
from mtl_gym.plugins import resolve
from mtl_gym.policies.finding import environment_of, find_policies, policy_class
from mtl_gym.problems import PROBLEMS, find_problems


def list_names(
    what: Annotated[Literal["all", "environments", "problems", "policies", "suites"], typer.Argument(help="What to list.")] = "all",
    env: Annotated[str | None, typer.Option(help="Only what this environment has or supports.")] = None,
    search: Annotated[str | None, typer.Option(help="Only lines with this text, upper and lower case alike.")] = None,
    as_json: Json = False,
) -> None:
    """List the available environments, problems, policies and suites."""
    with reported():
        if env is not None:
            choose("env", env, find_environments())
        found = {name: _kept(name, env, search or "") for name in _TABLES if what in ("all", name)}
        if as_json:
            print_json(found)
        elif not any(found.values()):
            errors.print("Nothing of that kind: try another --search, or mtl-gym list.", highlight=False)
            raise typer.Exit(1)
        else:
            for name, rows in found.items():
                print_rows(name, rows)


def _kept(table: str, env: str | None, text: str) -> list[Row]:
    """The rows of a table with a text, and for an environment."""
    rows = [row for row in _TABLES[table]() if text.lower() in " ".join(row.values()).lower()]
    return rows if env is None else [row for row in rows if _BELONGS[table](row, env)]


def tables() -> dict[str, list[Row]]:
    """The rows of ``environments``, ``problems`` and ``policies`` that ``mtl-gym list`` and the README show."""
    return {name: find() for name, find in _TABLES.items()}


def _environments() -> list[Row]:
    return [{"id": id, "what": _said(lambda env: first_sentence(environment_class(env)), id)} for id in find_environments()]


def _problems() -> list[Row]:
    return [_problem(name, home) for name, home in find_problems().items()]


def _problem(name: str, home: str) -> Row:
    if (row := PROBLEMS.get(name)) is not None:
        return {"name": name, "what": row.summary, "network": row.network, "needs": 'extra "data"' if row.package else ""}
    what = _said(lambda name: first_sentence(resolve(name, home)), name)
    return {"name": name, "what": what, "network": "", "needs": f"package {home.partition('.')[0].partition(':')[0]}"}


def _policies() -> list[Row]:
    return [
        {
            "name": name,
            "what": _said(lambda name: first_sentence(policy_class(name)), name),
            "for": _said(lambda name: (environment_of(name) or "each its own").removeprefix("mtl_gym/"), name),
            "home": home,
        }
        for name, home in find_policies().items()
    ]


def _suites() -> list[Row]:
    return [_suite(name, env) for name, env in find_suites()]


def _suite(name: str, env: str) -> Row:
    head = {"name": name, "for": env.removeprefix("mtl_gym/")}
    try:
        found = load_suite(name, env)
    except Exception as error:  # another package may raise anything
        return {**head, "version": "", "size": "", "what": f"cannot be loaded: {type(error).__name__}: {error}"}
    size = f"{len(found.studies)} {'study' if len(found.studies) == 1 else 'studies'}, {found.instances} instances"
    return {**head, "version": found.version, "size": size, "what": found.summary}


def _said(describe: Callable[[str], str], name: str) -> str:
    """The description of a name, or the reason why it cannot be loaded."""
    try:
        return describe(name)
    except Exception as error:  # another package may raise anything
        return f"cannot be loaded: {type(error).__name__}: {error}"


def _supports(problem: Row, env: str) -> bool:
    from mtl_gym.envs.arguments import supported_problems  # with torch and the data

    return problem["name"] in supported_problems(specification(env))


def _plays(policy: Row, env: str) -> bool:
    return environment_of(policy["name"]) in (None, env)


_TABLES: dict[str, Callable[[], list[Row]]] = {
    "environments": _environments,
    "problems": _problems,
    "policies": _policies,
    "suites": _suites,
}
_BELONGS: dict[str, Callable[[Row, str], bool]] = {
    "environments": lambda row, env: row["id"] == env,
    "problems": _supports,
    "policies": _plays,
    "suites": lambda row, env: row["for"] == env.removeprefix("mtl_gym/"),
}
"""Whether a row is for an environment."""


def first_sentence(thing: Any) -> str:
    """The beginning of a docstring, up to its first colon, semicolon, period or question mark."""
    text = " ".join((thing.__doc__ or "").split())
    ends = [position + (mark == "? ") for mark in (": ", "; ", ". ", "? ") if (position := text.find(mark)) > 0]
    return text[: min(ends)] if ends else text.rstrip(".")

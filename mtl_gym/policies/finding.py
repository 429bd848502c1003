"""Finds policies by name, in all installed packages, or by file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtl_gym.checks import should, shown, unknown
from mtl_gym.plugins import POLICIES, POLICY_FILES, entries, load, load_table, resolve, skip, theirs
from mtl_gym.policies.protocol import Policy, Requirements


def find_policies() -> dict[str, str]:
    """Maps names to ``"module:Class"``, from all installed packages with the entry point; others cannot override our names."""
    tables = [load_table(entry) for entry in entries(POLICIES)]
    return {name: home for table in reversed(tables) for name, home in table.items()}


def policy_class(name: str, known: Mapping[str, str] | None = None, env: str | None = None) -> Any:
    """The class (or factory) of a policy, which can be called.

    Args:
        name: Its name.
        known: The policies, if :func:`find_policies`, which looks through all installed packages, has been called already.
        env: Id of the environment that it is for, if that is known.

    Raises:
        ValueError: If the name is unknown; the known ones of the environment are listed.
        ImportError: If another package's class cannot be loaded, or is none.
    """
    table = find_policies() if known is None else known
    if name not in table:
        listed = [own for own in table if env is None or _is_for(own, env)]
        raise ValueError(
            f"{unknown('policies', name, listed)} `mtl-gym list policies --search TEXT` finds what they do. Paths of agents may be "
            f"given too; there is no file or folder {name!r}."
        )
    found = resolve(name, table[name])
    if not callable(found):
        raise ImportError(f"{name!r} is {table[name]!r}, which should be a class or function. It is {shown(found)}.")
    return found


def environment_of(name: str) -> str | None:
    """Id of a policy's environment; ``None`` if it has an option for it or supports all. Raises as :func:`policy_class` does."""
    requires = getattr(policy_class(name), "requires", None)
    return requires.env if isinstance(requires, Requirements) else None


def _is_for(name: str, env: str) -> bool:
    try:
        return environment_of(name) in (None, env)
    except ImportError:  # another package's, which will be named when it is used
        return False


def policy_of_file(path: str) -> Policy:
    """The policy in a file or folder, from the first installed loader that accepts it; raises ``ValueError`` if none does."""
    loaders = [(entry, loader) for entry in entries(POLICY_FILES) if (loader := load(entry))]
    if not exists(path) or not loaders:
        known = ", ".join(find_policies())
        raise ValueError(should("policies", "be known names or paths of existing agents", path, f"Known: {known}."))
    reasons = []
    for entry, loader in loaders:
        try:
            return loader(path)
        except ValueError as error:
            reasons.append(error)
        except BaseException as error:  # another package may raise anything
            if not theirs(error, entry.value):
                raise
            skip(entry, f"{type(error).__name__}: {error}")
    raise reasons[0] if reasons else ValueError(should("policies", "be paths of agents", path))


def exists(path: str) -> bool:
    """Whether there is a file or folder of that name; none if the system takes no such name."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False

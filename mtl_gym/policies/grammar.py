"""The syntax of policies: ``name:option=value``, ``file.py:MyPolicy:option=value``, ``first+second``, and lists of them."""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mtl_gym.checks import printable, should
from mtl_gym.plugins import theirs
from mtl_gym.policies.addresses import ADDRESS, maker_at
from mtl_gym.policies.finding import exists, find_policies, policy_class, policy_of_file
from mtl_gym.policies.protocol import Policy

LONGEST_TEXT = 4096
"""Largest number of characters of a policy, which may be a path."""


def make_policy(text: str, env: str | None = None) -> Policy:
    """Makes a policy from its name and options, as on the command line, ``name:option=value:option=value``, or from a file.

    ``a+b`` chains a loss balancer with a gradient balancer (which has a method ``after``): ``igb+cagrad:c=0.5``. Values are parsed
    as JSON if possible, and numbers separated by commas are lists: ``constant:w=1,2,3``. ``file.py:MyPolicy`` stands for a name: a
    class, an object or a function in a file of one's own (:func:`mtl_gym.policies.addresses.maker_at`). Another text that is no
    known name and contains a slash or exists as a file or folder is a path, such as an agent's.

    Args:
        text: Name, or file and name, and options; or path.
        env: Id of the environment, for policies with an option ``env``, whose one name covers several environments.

    Raises:
        ValueError, TypeError: If the name is unknown or too long, an option has no value, is given twice or is not accepted, the
            file contains no policy, or the policies cannot be chained.
        ImportError: If another package's policy cannot be loaded or made.
    """
    if len(text) > LONGEST_TEXT:
        raise ValueError(should("policies", f"be names or paths of at most {LONGEST_TEXT} characters", text))
    known = find_policies()
    text = text.strip()
    at = ADDRESS.match(text)
    if text.endswith(".py"):
        raise ValueError(should("policies", "name a policy in the file", text, f"For example: {text}:MyPolicy."))
    if text and not at and text.partition(":")[0] not in known and ("/" in text or exists(text)):
        return policy_of_file(text)
    start = at.end("home") if at and exists(at["home"]) else 0  # a plus in a path separates nothing
    first, *others = _PLUS.split(text[start:])
    made = _single(text[:start] + first, env, known)
    for other in others:  # one by one, so that a chain that cannot be ends at its first wrong link
        made = _after(text, made, _single(other, env, known))
    return made


def _single(text: str, env: str | None, known: Mapping[str, str]) -> Policy:
    """The policy of a name with options."""
    text = text.strip()
    at = ADDRESS.fullmatch(text)
    name, *pairs = text.split(":") if at is None else (f"{at['home']}:{at['name']}", *at["options"].split(":")[1:])
    options = _options(text, pairs)
    made = policy_class(name, known, env) if at is None else maker_at(name)
    try:
        accepted = inspect.signature(made)
    except (ValueError, TypeError) as error:  # that of something written in C
        raise ImportError(f"{name!r} is {known.get(name, name)!r}, whose options are unknown: {error}") from error
    if env is not None and "env" in accepted.parameters:
        options = {"env": env, **options}
    try:
        accepted.bind(**options)
    except TypeError as error:
        own = ", ".join(accepted.parameters) or "none"
        raise ValueError(should("policies", f"use the options of {name!r} ({own}); {error}", text)) from None
    try:
        return made(**options)
    except (ValueError, TypeError):  # of its options
        raise
    except BaseException as error:  # another package may raise anything
        if not theirs(error, known[name]):
            raise
        raise ImportError(f"{name!r} is {known[name]!r}, which cannot be made: {type(error).__name__}: {error}") from error


def _options(text: str, pairs: Sequence[str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for pair in pairs:
        option, equals, value = pair.partition("=")
        own = option.strip().replace("-", "_")
        if not equals or not own:
            raise ValueError(should("policies", "be of the form name:option=value", text))
        if own in options:
            raise ValueError(should("policies", f"give the option {own!r} once", text))
        options[own] = option_value(value)
    return options


_PLUS = re.compile(r"\+(?=\s*[a-z])")
"""A plus between two names; in a number such as 1e+3, a digit follows."""


def _after(text: str, first: Policy, second: Policy) -> Policy:
    if not hasattr(second, "after"):
        raise ValueError(should("policies", "have a gradient balancer after the plus, as in igb+cagrad", text))
    try:
        return second.after(first)
    except ValueError:
        raise ValueError(should("policies", "have one that weights losses at every step before the plus", text)) from None


_COMMA = re.compile(r",(?!\s*[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[-+]?\d+)?\s*(?:[],:]|\+\s*[a-z]|$))", re.IGNORECASE)
"""A comma between policies: one that is not followed by a complete number, as within an option, which may end at a plus."""


def split_policies(text: str) -> list[str]:
    """Splits a list of policies at its commas, except those before a number, which belong to a value."""
    return [part.strip() for part in _COMMA.split(text) if part.strip()]


def option_value(text: str) -> Any:
    """The value of an option: JSON if possible, also with single quotes; a list if it contains commas; otherwise the text."""
    for candidate in (text, f"[{text}]"):
        try:
            return json.loads(candidate)
        except (ValueError, RecursionError):  # also of integers with thousands of digits, and of thousands of brackets
            continue
    if text.strip()[:1] in tuple("[{('\""):
        return _literal(text)
    parts = text.split(",")
    try:
        numbers = [float(part) for part in parts]  # such as .5 and +1, which JSON lacks
    except ValueError:
        return [part.strip() for part in parts] if len(parts) > 1 else text
    return numbers if len(parts) > 1 else numbers[0]


def _literal(text: str) -> Any:
    """The JSON-plain value of a Python literal, such as ``{'noise': [0, 1]}``; the text, in one piece, if it is none."""
    try:
        return json.loads(json.dumps(ast.literal_eval(text)))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return text


def names_and_policies(
    policies: str | Sequence[str | Policy] | Mapping[str, str | Policy], env: str | None = None
) -> dict[str, Policy]:
    """Policies by label, from a command-line text, a list or a mapping; ``env`` is passed to :func:`make_policy`.

    Raises:
        TypeError: If one of them is neither a name nor has ``predict``, or a label is no text.
        ValueError: If there is none, a name is unknown, or a label is repeated or cannot be printed.
    """
    if isinstance(policies, str):
        policies = split_policies(policies)
    if not isinstance(policies, (Mapping, Sequence)):
        raise TypeError(should("policies", "be a text, a list or a mapping from labels to policies", policies))
    if not isinstance(policies, Mapping):
        labels = [item if isinstance(item, str) else _label(item) for item in policies]
        if len(set(labels)) < len(labels):
            raise ValueError(should("policies", "have unique labels; pass a mapping from labels to policies", labels))
        policies = dict(zip(labels, policies, strict=True))
    if not policies:
        raise ValueError(should("policies", "name at least one policy", policies, f"Known: {', '.join(find_policies())}."))
    for label in policies:
        printable("policies", label)
    made = {label: make_policy(item, env) if isinstance(item, str) else item for label, item in policies.items()}
    for label, item in made.items():
        if isinstance(item, type) or not isinstance(item, Policy):
            wrapped = callable(item) and not isinstance(item, type)
            remedy = "Wrap a function from losses to weights: mtl_gym.policy(function)." if wrapped else ""
            raise TypeError(should("policies", "be names or have a method `predict`", {label: item}, remedy))
    return made


def _label(item: Policy) -> str:
    name = getattr(getattr(item, "function", None), "__name__", type(item).__name__)
    return "function" if name == "<lambda>" else str(name)

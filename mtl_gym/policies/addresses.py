"""Policies at an address, ``file.py:MyPolicy``: a class, an object, or a function from losses to weights, of a person's own."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

from mtl_gym.addresses import place_of
from mtl_gym.checks import should
from mtl_gym.function_memory import memory_digest
from mtl_gym.identity import own_modules, source_digest
from mtl_gym.policies.functions import policy
from mtl_gym.policies.protocol import Policy

ADDRESS = re.compile(r"(?P<home>.+?\.py):(?P<name>[A-Za-z_]\w*)(?P<options>(:.*)?)", re.DOTALL)
"""``file.py:name``, and options after a further colon."""
_FORM = "be of the form file.py:MyPolicy"


def maker_at(text: str) -> Callable[..., Policy]:
    """What makes the policy at an address from its options: its signature lists them.

    | what is there | options |
    |---|---|
    | a class with ``predict`` | those of its constructor |
    | an object with ``predict`` | none |
    | a function from losses to weights, see :func:`mtl_gym.policy` | its arguments after the losses |
    | a function without arguments that makes such a function for each training | none |

    The policy's ``spec`` contains checksums of the file, of what it imports that is not installed, and of the policy's values, such
    as weights that it has read, so that results are only reused where all are the same. An object of an installed class keeps its
    own ``spec``, or has none.

    Raises:
        ValueError: If there is no such file or name, or running the file fails.
        TypeError: If what is there is no policy.
    """
    place = place_of("policies", text, _FORM)
    found = place.load(noun="policy", listed=_is_offered)
    if not _is_offered(found):
        remedy = "It needs a method `predict`, see mtl_gym.Policy, or is a function from losses to weights."
        raise TypeError(should("policies", "name a class, an object or a function that is a policy", place.address, remedy))

    def make(**options: Any) -> Policy:
        with place.running():
            source = source_digest(*own_modules(place.module().__name__))
            if not hasattr(found, "predict"):
                return _of_function(found, options, source)
            made = found(**options) if isinstance(found, type) else copy.copy(found)
            own = own_modules(type(made).__module__)
            return _identified(made, {"at": place.name, "options": options, "source": source}) if own else made

    make.__signature__ = _options_of(found)  # type: ignore[attr-defined]
    return make


def _is_offered(value: Any) -> bool:
    return callable(getattr(value, "predict", None)) or inspect.isfunction(value)


def _options_of(found: Any) -> inspect.Signature:
    if isinstance(found, type):
        return inspect.signature(found)
    if hasattr(found, "predict"):
        return inspect.Signature()
    signature = inspect.signature(found)
    return signature.replace(parameters=[*signature.parameters.values()][1:])


def _of_function(function: Callable[..., Any], options: Mapping[str, Any], source: str) -> Policy:
    def weights(*losses: Any) -> Any:
        return function(*losses, **options)

    weights.__qualname__ = weights.__name__ = function.__name__
    weights.__dict__["source"] = source  # which is then part of its `spec`
    return policy(weights, per_training=not inspect.signature(function).parameters)


def _identified(made: Policy, identity: Mapping[str, Any]) -> Policy:
    """The policy with another ``spec``, by a class of its own, since its ``spec`` may be a property.

    It is ``None`` if the policy's values have no checksum.
    """
    values = memory_digest(made)
    spec = values and {**identity, "values": values, "own": getattr(made, "spec", None)}
    kind: Any = type(made)
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__, "__slots__": ()}
    made.__class__ = type(kind)(kind.__name__, (kind,), {**names, "spec": property(lambda self: spec)})
    return made

"""Identifies code by what it does, regardless of comments, docstrings and formatting."""

from __future__ import annotations

import ast
import dis
import functools
import hashlib
import importlib.util
import inspect
import json
import sys
import sysconfig
import textwrap
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

_SILENT = ("NOP", "CACHE", "EXTENDED_ARG")
"""Instructions without effect; among other things, they depend on line breaks in the source."""
_ASIDE = ("__doc__", "__firstlineno__")
"""Names that hold a class body's docstring and line number."""


@functools.cache
def source_digest(*modules: str) -> str:
    """Hashes the source of modules without comments, docstrings and formatting.

    Args:
        modules: Their names. None is imported, and those without source are skipped.
    """
    hashed = hashlib.sha256()
    for name in modules:
        if file := _source_of(name):
            hashed.update(ast.unparse(_Bare().visit(ast.parse(file.read_bytes()))).encode())  # the same on all Python versions
    return hashed.hexdigest()


def own_modules(module: str) -> list[str]:
    """A module and those that it imports, wherever in it, and so on: all that are neither installed nor of this library."""
    found, new = set[str](), [module]
    while new:
        name = new.pop()
        file = None if name in found or name.partition(".")[0] == __package__ or is_installed(name) else _found_source(name)
        if file is not None and not _in_installation(file):
            found.add(name)
            new += _imported(file)
    return sorted(found)


def _found_source(module: str) -> Path | None:
    try:
        return _source_of(module)
    except (ImportError, ValueError, AttributeError):  # it, or the package that it is in, cannot be found
        return None


def _imported(file: Path) -> list[str]:
    """The names that may be modules in the imports of a file."""
    nodes = [*ast.walk(ast.parse(file.read_bytes()))]
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    froms = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level]
    return [*names, *(str(node.module) for node in froms), *(f"{node.module}.{own.name}" for node in froms for own in node.names)]


def _source_of(module: str) -> Path | None:
    if module in sys.modules:
        place = getattr(sys.modules[module], "__file__", None)
    else:
        place = getattr(importlib.util.find_spec(module) if module else None, "origin", None)
    return Path(place) if place and place.endswith(".py") and Path(place).is_file() else None


class _Bare(ast.NodeTransformer):
    """Removes docstrings, including those that follow a variable."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:  # the name that ast expects
        alone = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if alone else node


def function_content(thing: Any, seen: tuple[Any, ...] = ()) -> Any:
    """A JSON-serialisable description of a function by its code and all that it refers to; raises a TypeError if there is none."""
    if thing is None or isinstance(thing, (bool, int, float, str)):
        return [type(thing).__name__, repr(thing)]
    if isinstance(thing, (list, tuple)):
        return [type(thing).__name__, [function_content(item, seen) for item in thing]]
    if isinstance(thing, (set, frozenset)):
        return ["set", sorted(json.dumps(function_content(item, seen)) for item in thing)]
    if isinstance(thing, dict):
        return ["dict", [[function_content(key, seen), function_content(value, seen)] for key, value in thing.items()]]
    if isinstance(thing, np.ndarray) and thing.dtype != object:
        return ["array", thing.dtype.str, thing.tolist()]
    if isinstance(thing, np.generic):
        return ["number", thing.dtype.str, thing.item()]
    if isinstance(thing, types.ModuleType):
        return ["module", thing.__name__]
    if isinstance(thing, types.CodeType):
        return ["code", str(inspect.getargs(thing)), _instructions(thing, seen)]
    if isinstance(thing, types.FunctionType):
        return _of_function(thing, seen)
    raise TypeError(f"{thing!r} cannot be identified")


def _of_function(function: types.FunctionType, seen: tuple[Any, ...]) -> Any:
    if function in seen:
        return ["function", seen.index(function)]
    used = inspect.getclosurevars(function)
    values = [function.__defaults__, function.__kwdefaults__, dict(used.nonlocals), _globals_of(function)]
    values += [vars(function)] if vars(function) else []
    return [function_content(function.__code__), [function_content(value, (*seen, function)) for value in values]]


def _globals_of(function: types.FunctionType) -> dict[str, Any]:
    """The global values that a function names, also in functions, lambdas and generators inside it, in order of their names."""
    codes = [function.__code__]
    for code in codes:
        codes += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    names = sorted({name for code in codes for name in code.co_names})
    return {name: function.__globals__[name] for name in names if name in function.__globals__}


def _instructions(code: types.CodeType, seen: tuple[Any, ...]) -> list[Any]:
    """The instructions of ``code`` with the constants they use, without docstrings."""
    steps = [step for step in dis.get_instructions(code) if step.opname not in _SILENT]
    aside = [step.opname == "STORE_NAME" and step.argval in _ASIDE for step in steps]
    loads = [*aside[1:], False]  # the instruction that loads the value to be stored there
    kept = [step for step, *unused in zip(steps, aside, loads, strict=True) if not any(unused)]
    return [[step.opname, _operand(code, step, seen)] for step in kept]


def _operand(code: types.CodeType, step: dis.Instruction, seen: tuple[Any, ...]) -> Any:
    if step.opcode not in dis.hasconst:
        return step.argrepr or step.arg
    # Python 3.11 and 3.12 do not resolve the names of keyword arguments.
    value = code.co_consts[step.arg] if step.opname == "KW_NAMES" and step.arg is not None else step.argval
    return function_content(value, seen)


def code_content(thing: Any, seen: tuple[Any, ...] = ()) -> Any:
    """A description, as :func:`function_content`, that also follows classes, methods, partial functions, tensors and objects.

    Classes are described by their syntax trees without comments and docstrings, and whatever an installed package provides by its
    name. Raises a TypeError if there is no description.
    """
    if any(thing is known for known in seen):
        return ["as", next(place for place, known in enumerate(seen) if known is thing)]
    described = functools.partial(code_content, seen=(*seen, thing))
    if isinstance(thing, (list, tuple)):
        return [type(thing).__name__, [described(item) for item in thing]]
    if isinstance(thing, dict):
        return ["dict", [[described(key), described(value)] for key, value in thing.items()]]
    if (torch := sys.modules.get("torch")) and isinstance(thing, torch.Tensor):
        values = thing.detach().cpu().contiguous()
        return ["tensor", str(values.dtype), list(values.shape), hashlib.sha256(values.numpy().tobytes()).hexdigest()]
    if isinstance(thing, functools.partial):
        return ["partial", *map(described, (thing.func, thing.args, thing.keywords))]
    if isinstance(thing, types.MethodType):
        return ["method", described(thing.__self__), described(thing.__func__)]
    if isinstance(thing, (type, types.FunctionType, types.BuiltinFunctionType)) and _is_known(thing.__module__ or "builtins"):
        return ["installed", thing.__module__, thing.__qualname__]
    if isinstance(thing, types.FunctionType):
        used = inspect.getclosurevars(thing)
        values = (thing.__defaults__, thing.__kwdefaults__, dict(used.nonlocals), _globals_of(thing))
        return [function_content(thing.__code__), [described(value) for value in values]]
    if isinstance(thing, type):
        return _of_class(thing, described)
    if type(thing).__module__.startswith(f"{__package__}.") and hasattr(thing, "identity"):
        return ["object", described(type(thing)), described(thing.identity)]
    if type(thing).__module__ == "torch":  # a dtype, a device
        return ["object", repr(thing)]
    if type(thing).__module__.split(".")[0] in sys.stdlib_module_names and " at 0x" not in repr(thing):  # a path, a logger
        return ["object", type(thing).__qualname__, repr(thing)]
    if is_installed(type(thing).__module__) or not hasattr(thing, "__dict__"):
        return function_content(thing)
    return ["object", described(type(thing)), described(vars(thing))]


def _is_known(module: str) -> bool:
    """Whether a name says what a module's functions and classes do: those of installed packages and of this one."""
    return module.split(".")[0] == __package__ or is_installed(module)


def class_content(own: type) -> Any:
    """The same of a class by its source, even if a package that is installed provides it."""
    return _of_class(own, functools.partial(code_content, seen=(own,)))


def _of_class(own: type, described: Callable[[Any], Any]) -> Any:
    """A class by its source, its bases, and what its functions refer to; by its functions where there is no source."""
    functions = [value for value in vars(own).values() if isinstance(value, types.FunctionType)]
    try:
        source: Any = ast.unparse(_Bare().visit(ast.parse(textwrap.dedent(inspect.getsource(own)))))
    except (OSError, TypeError, SyntaxError):
        source = [function_content(function.__code__) for function in functions]
    used = [inspect.getclosurevars(function) for function in functions]
    values = {name: value for own_vars in used for name, value in {**own_vars.globals, **own_vars.nonlocals}.items()}
    values.pop("__class__", None)  # that of `super()`
    return ["class", own.__qualname__, source, [described(base) for base in own.__bases__], described(dict(sorted(values.items())))]


_PLAIN = (bool, int, float, complex, str, bytes, np.generic, type(None))
_INSTALLED = ("stdlib", "platstdlib", "purelib", "platlib")


@functools.cache
def is_installed(module: str) -> bool:
    """Whether a module is Python's own or one of an installed package."""
    if module in sys.builtin_module_names:
        return True
    file = getattr(sys.modules.get(module), "__file__", None)
    return file is not None and _in_installation(Path(file))


def _in_installation(file: Path) -> bool:
    return any(file.is_relative_to(sysconfig.get_path(name)) for name in _INSTALLED)

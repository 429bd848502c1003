"""A person's own code at an address, ``file.py:name`` or ``module:name``, found from any working folder; errors name the line."""

from __future__ import annotations

import functools
import hashlib
import importlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from mtl_gym.checks import should


@dataclass(frozen=True)
class Place:
    """Where something of a person's own is.

    Attributes:
        argument: The argument that names it, for errors.
        home: A file's absolute path, or a module's name.
        name: Its name there.
        folder: The folder whose modules the code can import: the file's, or the working folder.
        checksum: That of the file; ``None`` for a module.
    """

    argument: str
    home: str
    name: str
    folder: Path = field(compare=False)  # since a module is imported once, wherever it was
    checksum: str | None

    @property
    def address(self) -> str:
        """``home:name``: valid in any working folder, for a file."""
        return f"{self.home}:{self.name}"

    def module(self) -> ModuleType:
        """The module: a file is run once per process, and again when it has changed."""
        with self.running():
            return importlib.import_module(self.home) if self.checksum is None else _run(Path(self.home), self.checksum)

    def load(self, *, noun: str, listed: Callable[[Any], bool]) -> Any:
        """The object.

        Args:
            noun: What it should be, for errors.
            listed: Whether an object of the module is one of those that an error lists, if this one is not there.

        Raises:
            ValueError: If the module has no such object, or running it fails; the message names file and line.
        """
        module = self.module()
        if not hasattr(module, self.name):
            own = [key for key, value in vars(module).items() if _is_of(module, value) and listed(value)]
            condition = f"name a {noun} of {self.file or self.home}: {', '.join(own) or 'it has none'}"
            raise ValueError(should(self.argument, condition, self.address))
        return getattr(module, self.name)

    @property
    def file(self) -> str | None:
        """The file that holds it, if there is one."""
        return self.home if self.checksum is not None else getattr(sys.modules.get(self.home), "__file__", None)

    @contextmanager
    def running(self) -> Iterator[None]:
        """While a person's code runs, it can import the modules of its folder, as a script can, and its errors are named."""
        sys.path.insert(0, str(self.folder))
        try:
            yield
        except (Exception, SystemExit) as error:  # a script that ends in sys.exit(main())
            frames = traceback.extract_tb(error.__traceback__)
            lines = [frame.lineno for frame in frames if self.file and frame.filename == self.file]
            place = f" ({self.file}, line {lines[-1]})" if lines else ""
            remedy = f"{type(error).__name__}: {error}{place}"
            raise ValueError(should(self.argument, "name code that runs without an error", self.address, remedy)) from error
        finally:
            sys.path.remove(str(self.folder))


def place_of(argument: str, text: str, form: str) -> Place:
    """The place at an address; ``form`` says which addresses there are.

    Raises:
        ValueError: If it is no address, or of a file that does not exist.
    """
    home, _, name = text.rpartition(":")
    if not home or not name:
        raise ValueError(should(argument, form, text, f"For example: {text.rstrip(':') or 'mine.py'}:make."))
    if not (home.endswith(".py") or "/" in home or os.sep in home):
        return Place(argument, home, name, Path.cwd(), None)
    path = Path(home).expanduser().resolve()
    if path.suffix != ".py" or not path.is_file():
        raise ValueError(should(argument, "name an existing Python file", text, f"There is no {path}."))
    return Place(argument, str(path), name, path.parent, hashlib.sha256(path.read_bytes()).hexdigest())


@functools.cache
def _run(path: Path, checksum: str) -> ModuleType:
    """Runs a file as a module. The checksum in its name makes changed code another one."""
    import cloudpickle  # here, so that `import mtl_gym` stays light

    module = ModuleType(f"{path.stem}_{checksum[:16]}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # where dataclasses look for their module
    cloudpickle.register_pickle_by_value(module)  # other processes cannot import it
    try:
        exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)  # not its bytecode, which may be a second too old
    except BaseException:
        cloudpickle.unregister_pickle_by_value(module)
        del sys.modules[module.__name__]
        raise
    return module


def _is_of(module: ModuleType, value: Any) -> bool:
    """Whether an object was made by a module, rather than imported by it."""
    return getattr(value, "__module__", None) == module.__name__ or not hasattr(value, "__name__")

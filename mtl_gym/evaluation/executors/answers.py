"""What a job returns, raises and warns of in a worker, and how this reaches the process that compares."""

from __future__ import annotations

import sys
import traceback
import warnings
from dataclasses import dataclass
from typing import Any

import cloudpickle

from mtl_gym.context import own_mode, threads
from mtl_gym.evaluation.executors.jobs import Advance, Job
from mtl_gym.progress import progress_bar


@dataclass(frozen=True)
class Answer:
    """What a job has returned or raised in a worker, and its warnings: message, category, file and line."""

    value: Any
    error: Exception | None
    warned: list[tuple[str, type[Warning], str, int]]


def packed(job: Job) -> bytes:
    """A job for a worker, and where modules are found here."""
    return cloudpickle.dumps((sys.path, cloudpickle.dumps(job)))


def answered(job: bytes, advance: Advance) -> bytes:
    """Runs a packed job in a worker, with one thread; returns its :class:`Answer`, packed."""
    value, error = None, None
    with own_mode(), threads(1), progress_bar(0, show=False), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            paths, inner = cloudpickle.loads(job)
            sys.path += [path for path in paths if path not in sys.path]
            value = cloudpickle.loads(inner).run(advance)
        except KeyboardInterrupt:
            raise
        except BaseException as raised:  # also SystemExit
            error = _portable(raised)
    try:
        told = [(str(own.message), own.category, own.filename, own.lineno) for own in warned]
        return cloudpickle.dumps(Answer(value, error, told))
    except Exception as raised:  # pickling other people's objects may raise anything
        return cloudpickle.dumps(Answer(None, _told(error or raised), []))


def _portable(error: BaseException) -> Exception:
    """An error that can be pickled, with the worker's traceback as a note; a RuntimeError of its message if it cannot be."""
    try:
        copy = cloudpickle.loads(cloudpickle.dumps(error))
        if isinstance(error, Exception) and type(copy) is type(error) and str(copy) == str(error):
            error.add_note(_trace(error))
            return error
    except BaseException:  # of other people's classes
        return _told(error)
    return _told(error)


def _told(error: BaseException) -> RuntimeError:
    try:
        text = str(error)
    except Exception:  # of other people's classes
        text = ""
    found = RuntimeError(f"{type(error).__name__}: {text}")
    found.add_note(_trace(error))
    return found


def _trace(error: BaseException) -> str:
    return f"In a worker:\n{''.join(traceback.format_exception(error))}".rstrip()


class Answers:
    """Opens the answers of workers: returns what a job returned, raises what it raised, and gives each of its warnings once."""

    def __init__(self) -> None:
        self._given = set[tuple[str, type[Warning]]]()

    def open(self, packed: bytes) -> Any:
        """What a job returned; raises what it raised."""
        answer: Answer = cloudpickle.loads(packed)
        for message, category, file, line in answer.warned:
            if (message, category) not in self._given:
                self._given.add((message, category))
                warnings.warn_explicit(message, category, file, line)
        if answer.error is not None:
            raise answer.error
        return answer.value

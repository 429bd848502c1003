"""Jobs: what is trained at once, picklable; and what an executor is."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import cloudpickle

from mtl_gym.checks import should

if TYPE_CHECKING:
    from mtl_gym.evaluation.executors.holders import Holder

TRIES = 3
"""How often a job is tried whose workers are killed."""
_KEPT = 64
"""Problems that a worker keeps."""


class Shared:
    """A value of many jobs, which is pickled once, and unpickled once by each worker, or by each job.

    Args:
        name: What it is called in errors.
        value: The value.
        fresh: Whether each job begins with a copy of its own, of the value as it was when it was pickled, since jobs may change it.
            What cannot be copied is the same in all jobs of this process.
    """

    def __init__(self, name: str, value: Any, *, fresh: bool = False) -> None:
        self.name, self.value, self.fresh = name, value, fresh

    @functools.cached_property
    def pickled(self) -> bytes:
        """The value as bytes; raises whatever pickling it raises."""
        return cloudpickle.dumps((self.name, self.value))

    def of_job(self) -> Any:
        """The value for a job in this process."""
        if not self.fresh:
            return self.value
        try:
            return _unpickled(self.pickled).value
        except Exception:  # of other people's objects
            return self.value

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled if self.fresh else _kept, (self.pickled,)


def _unpickled(pickled: bytes) -> Shared:
    return Shared(*cloudpickle.loads(pickled))


@functools.lru_cache(maxsize=_KEPT)
def _kept(pickled: bytes) -> Shared:
    return _unpickled(pickled)


Advance = Callable[[int], None]


@dataclass(frozen=True)
class Job:
    """A batch to train.

    Attributes:
        place: Its place among all jobs; executors prefer the first.
        label: What it is called in messages.
        steps: Its training steps, over all its instances.
        function: Trains it: a function of ``*shared``, ``*own`` and ``advance``, which it calls with the number of steps just done.
        shared: Values that other jobs have too.
        own: Values of its own.
    """

    place: int
    label: str
    steps: int
    function: Callable[..., Any]
    shared: tuple[Shared, ...]
    own: tuple[Any, ...]

    def __lt__(self, other: Job) -> bool:
        return self.place < other.place

    def run(self, advance: Advance) -> Any:
        """Trains it in this process."""
        return self.function(*(one.of_job() for one in self.shared), *self.own, advance=advance)


@dataclass(frozen=True)
class Work:
    """What an executor has to do.

    Attributes:
        waiting: A heap of jobs. More are added while it runs: those that need the results of others.
        shared: All that jobs share, also those to come.
        advance: Called with a job and the number of steps just done: a negative one if they are lost.
        bytes: Memory that a job takes at most.
        device: Where jobs train.
    """

    waiting: list[Job]
    shared: list[Shared]
    advance: Callable[[Job, int], None]
    bytes: float = 0.0
    device: str = "cpu"

    def pickle_fresh(self) -> None:
        """Pickles what each job begins with a copy of, before jobs change it; passes over what cannot be copied."""
        for one in self.shared:
            with contextlib.suppress(Exception):
                one.fresh and one.pickled  # noqa: B018


class Executor(Protocol):
    """Runs jobs.

    Attributes:
        threads: The number of torch's threads with which a job is trained; ``None``: that of the process.
    """

    @property
    def threads(self) -> int | None:
        """See above."""
        ...

    def check(self, work: Work) -> None:
        """Raises the errors that are known before anything is run."""
        ...

    def run(self, work: Work) -> Iterator[tuple[Job, Any]]:
        """Jobs and what they return, as they end; raises what one of them raises, after ending the others."""
        ...

    def hold(self, device: str = "cpu") -> AbstractContextManager[list[Holder]]:
        """Workers for objects that compute on a device, each with one thread, until the context ends.

        There are none if all is done in this process.
        """
        ...


def check_copies(shared: Sequence[Shared], executor: object) -> None:
    """Raises TypeError if something that jobs share cannot be copied into other processes; ``executor`` is what was asked for."""
    for one in shared:
        try:
            one.pickled  # noqa: B018
        except Exception as error:  # pickling other people's objects may raise anything
            remedy = f"({type(error).__name__}: {error}) With workers=1, all is trained in this process."
            condition = f"be left out with {one.name}, which cannot be copied into other processes"
            raise TypeError(should("workers", condition, executor, remedy)) from error


def lost(job: Job, workers: object, reason: str, *, memory: bool = True) -> ChildProcessError:
    """The error of a job whose workers were killed ``TRIES`` times; ``memory``: whether for want of memory, as far as is known."""
    advice, cause = ended(memory=memory)
    condition = f"{advice}: {job.label} was tried {TRIES} times, and its worker was ended each time ({reason})"
    return ChildProcessError(should("workers", condition, workers, f"{cause} Finished results are kept; run it again to resume."))


def ended(*, memory: bool) -> tuple[str, str]:
    """What ``workers`` should be where one has ended, and why it may have."""
    if memory:
        return "be fewer, or num_envs smaller", "Often the system has no memory left."
    return "go on", "Something in it, such as a package, ends its process."

"""Workers that hold objects from one call to the next, such as the environments of an agent's training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from mtl_gym.checks import should
from mtl_gym.evaluation.executors.jobs import Advance, Job, Shared, check_copies, ended

_HELD: dict[str, Any] = {}
"""In a worker: its objects by name."""


class Ended(Exception):  # noqa: N818  (what it means is up to who catches it)
    """A worker has ended by itself, or was killed; the message says how.

    ``memory`` says whether for want of memory, as far as is known.
    """

    def __init__(self, how: str, *, memory: bool = True) -> None:
        super().__init__(how)
        self.memory = memory


class Holder(Protocol):
    """A worker that runs jobs one after the other.

    Attributes:
        workers: The number of workers that were asked for.
    """

    workers: int

    def give(self, job: Job) -> None:
        """Sends a job, and does not wait for it."""
        ...

    def take(self) -> Any:
        """Waits for the first job whose answer was not taken; returns what it returned, and raises what it raised.

        Raises:
            Ended: If the worker has ended.
        """
        ...


class Held:
    """An object in a worker. Calls are sent, and answers received later, so that several workers compute at once.

    A worker answers in the order in which calls were sent to it, whichever of its objects they are for, also after an error.
    Making the object is the first call; its answer is ``None``.

    Args:
        holder: The worker, see :meth:`~mtl_gym.evaluation.executors.jobs.Executor.hold`.
        name: The object's name in the worker, which forgets another one of that name.
        label: What it is called in errors.
        make: Makes it there, of ``given``.

    Raises:
        TypeError: If ``given`` cannot be copied into other processes.
    """

    def __init__(self, holder: Holder, name: str, label: str, make: Callable[..., Any], *given: Any) -> None:
        self._holder, self._name, self._label = holder, name, label
        shared = Shared(label, given)
        check_copies([shared], holder.workers)
        self._give(_make, (shared,), name, make)

    def send(self, method: str, *given: Any) -> None:
        """Calls a method there; :meth:`receive` returns its answer."""
        self._give(_call, (), self._name, method, given)

    def receive(self) -> Any:
        """What the first call returned whose answer is still missing; raises what it raised.

        Raises:
            ChildProcessError: If the worker has ended.
        """
        try:
            return self._holder.take()
        except Ended as error:
            advice, cause = ended(memory=error.memory)
            condition = f"{advice}: the worker that holds {self._label} was ended ({error})"
            remedy = f"{cause} Run it again to resume from the last checkpoint."
            raise ChildProcessError(should("workers", condition, self._holder.workers, remedy)) from error

    def _give(self, function: Callable[..., Any], shared: tuple[Shared, ...], *own: Any) -> None:
        self._holder.give(Job(0, self._label, 0, function, shared, own))


# --- in a worker -----------------------------------------------------------------------------------------------------------------


def _make(given: tuple[Any, ...], name: str, make: Callable[..., Any], advance: Advance) -> None:
    _HELD.pop(name, None)  # before another one takes memory
    _HELD[name] = make(*given)


def _call(name: str, method: str, given: tuple[Any, ...], advance: Advance) -> Any:
    return getattr(_HELD[name], method)(*given)

"""Jobs on a Ray cluster: one machine or more."""

from __future__ import annotations

import contextlib
import heapq
import importlib.util
import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mtl_gym.checks import should
from mtl_gym.evaluation.executors.answers import Answers, answered, packed
from mtl_gym.evaluation.executors.holders import Ended, Holder
from mtl_gym.evaluation.executors.jobs import TRIES, Job, Work, check_copies, lost

_AHEAD = 2
"""Jobs that are handed over for each core, so that none waits for the process that compares."""


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster, in which every job has a core, or a GPU if it trains on one, and one thread. Ray tries jobs again whose
    worker or machine is lost.

    Attributes:
        workers: Number of jobs that are handed over at once; ``None``: twice as many as there are cores.
        address: Of the cluster, as ``ray.init`` takes it; ``None``: the one to which this process is connected, else that of
            ``RAY_ADDRESS``, else a new one on this machine, even if another one runs there.
    """

    workers: int | None = None
    address: str | None = None
    threads: int = 1

    def __post_init__(self) -> None:
        if importlib.util.find_spec("ray") is None:
            raise ModuleNotFoundError(
                "`executor` 'ray' needs the package 'ray', which is not installed. "
                'Install it with: pip install "mtl-gym[cluster]"'
            )

    def check(self, work: Work) -> None:
        """Raises TypeError if something cannot be copied into workers."""
        check_copies(work.shared, self.workers)

    def run(self, work: Work) -> Iterator[tuple[Job, Any]]:
        """Jobs and what they return, as they end."""
        with _connected(self.address) as ray:
            yield from _jobs(ray, work, self.workers)

    @contextlib.contextmanager
    def hold(self, device: str = "cpu") -> Iterator[list[Holder]]:
        """Actors for objects, one if no number was asked for.

        Raises:
            ValueError: If the cluster has fewer cores.
        """
        count = self.workers or 1
        with _connected(self.address) as ray:
            if count > (cores := int(ray.cluster_resources().get("CPU", 0))):
                raise ValueError(should("workers", f"be at most {cores}, the number of cores of the cluster", count))
            actor, answers, seats = ray.remote(**_needs(device))(_Actor), Answers(), list[_Seat]()
            try:
                while len(seats) < count:
                    seats.append(_Seat(ray, actor.remote(), count, answers))
                yield [*seats]
            finally:
                for seat in seats:
                    seat.end()


@contextlib.contextmanager
def _connected(address: str | None) -> Iterator[Any]:
    """The package ``ray``, connected to the cluster; disconnected afterwards if it was not connected before.

    Raises:
        ValueError: If it is connected to another one.
    """
    own = address is None and "RAY_ADDRESS" not in os.environ
    with _without_credentials() if own else contextlib.nullcontext():
        import ray

        mine = not ray.is_initialized()
        if mine:
            ray.init(address="local" if own else address, include_dashboard=False if own else None)
        elif address not in (None, "auto", known := ray.get_runtime_context().gcs_address):
            condition = f"be {known!r}, or left out: this process is connected to that cluster"
            raise ValueError(should("address", condition, address, "Call ray.shutdown() first to use another one."))
        try:
            yield ray
        finally:
            if mine:
                ray.shutdown()


@contextlib.contextmanager
def _without_credentials() -> Iterator[None]:
    """Keeps Ray from writing a file of credentials, unless the environment says what it should do."""
    name = "RAY_AUTH_MODE"
    chosen = name in os.environ
    os.environ.setdefault(name, "disabled")
    try:
        yield
    finally:
        if not chosen:
            os.environ.pop(name, None)


def _deaths(ray: Any) -> tuple[type[Exception], ...]:
    """Errors that say that a worker or its machine has ended."""
    own = ray.exceptions
    return own.WorkerCrashedError, own.NodeDiedError, own.LocalRayletDiedError, own.OutOfMemoryError, own.RayActorError


def _needs(device: str) -> dict[str, int]:
    """What a job or an actor needs of a machine."""
    return {"num_cpus": 1, "num_gpus": 0 if device == "cpu" else 1}


def _jobs(ray: Any, work: Work, workers: int | None) -> Iterator[tuple[Job, Any]]:
    """Jobs and what they return, as they end."""
    remote, answers = ray.remote(**_needs(work.device), max_retries=TRIES - 1)(_answered), Answers()
    running: dict[Any, Job] = {}
    try:
        while work.waiting or running:
            most = workers or _AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
            while work.waiting and len(running) < most:
                job = heapq.heappop(work.waiting)
                running[remote.remote(packed(job))] = job
            [done], _ = ray.wait([*running], num_returns=1)
            job = running.pop(done)
            try:
                answer = ray.get(done)
            except _deaths(ray) as error:
                raise lost(job, workers, str(error).partition("\n")[0]) from error
            value = answers.open(answer)
            work.advance(job, job.steps)
            yield job, value
    finally:
        for left in running:
            ray.cancel(left, force=True)


def _answered(job: bytes) -> bytes:
    return answered(job, lambda steps: None)


class _Actor:
    """In a worker of the cluster: runs jobs one after the other."""

    def answered(self, job: bytes) -> bytes:
        """The packed answer of a packed job."""
        return _answered(job)


class _Seat:
    """An actor that holds objects."""

    def __init__(self, ray: Any, actor: Any, workers: int, answers: Answers) -> None:
        self.workers, self._ray, self._actor, self._answers = workers, ray, actor, answers
        self._given: deque[Any] = deque()

    def give(self, job: Job) -> None:
        """Sends a job."""
        self._given.append(self._actor.answered.remote(packed(job)))

    def take(self) -> Any:
        """The answer of the first job that has none; raises ``Ended`` if there will be none."""
        try:
            answer = self._ray.get(self._given.popleft())
        except _deaths(self._ray) as error:
            raise Ended(str(error).partition("\n")[0]) from error
        return self._answers.open(answer)

    def end(self) -> None:
        """Ends the actor."""
        self._ray.kill(self._actor)

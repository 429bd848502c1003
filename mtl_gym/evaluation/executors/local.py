"""Jobs on this machine: in this process, or in worker processes, one for each core."""

from __future__ import annotations

import contextlib
import heapq
import json
import math
import os
import pickle
import queue
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mtl_gym.evaluation.executors.answers import Answers, packed
from mtl_gym.evaluation.executors.holders import Ended, Holder
from mtl_gym.evaluation.executors.jobs import TRIES, Job, Work, check_copies, lost
from mtl_gym.training.memory import free_bytes

PATIENCE = 5.0
"""Seconds that are trained in this process before workers are started, which takes about as long."""
_KILLED = "signal 9"
"""How a worker ends that the system kills, as it does when there is no memory left."""
_OF_A_WORKER = 512 * 2**20
"""Bytes of a process that has loaded torch."""
_SINGLE = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
_START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from mtl_gym.evaluation.executors.worker import main; main()"


@dataclass(frozen=True)
class Local:
    """This machine.

    Attributes:
        workers: 1 trains in this process, with its threads; any other number in so many processes, with one thread each. ``None``
            begins in this process, with one thread. What is not done after ``PATIENCE`` seconds is handed to a worker for each
            core, as far as the free memory allows, if batches are left to train side by side, on the CPU, and can be copied.
    """

    workers: int | None = None

    @property
    def threads(self) -> int | None:
        """Torch's threads in a job."""
        return None if self.workers == 1 else 1

    def check(self, work: Work) -> None:
        """Raises TypeError if workers were asked for, and something cannot be copied into them."""
        if self.workers not in (None, 1):
            check_copies(work.shared, self.workers)

    def run(self, work: Work) -> Iterator[tuple[Job, Any]]:
        """Jobs and what they return, as they end."""
        if self.workers is None:
            yield from _begun_here(work)
        elif self.workers == 1:
            yield from _here(work)
        else:
            yield from _in_workers(work, self.workers)

    @contextlib.contextmanager
    def hold(self, device: str = "cpu") -> Iterator[list[Holder]]:
        """Worker processes for objects; none if one worker was asked for, or no number."""
        count, answers, seats = self.workers or 1, Answers(), list[_Seat]()
        try:
            while len(seats) < count > 1:
                seats.append(_Seat(count, answers))
            yield [*seats]
        finally:
            for seat in seats:
                seat.end()


def _here(work: Work) -> Iterator[tuple[Job, Any]]:
    while work.waiting:
        job = heapq.heappop(work.waiting)
        yield job, job.run(lambda steps, job=job: work.advance(job, steps))  # type: ignore[misc]


class _Late(Exception):  # noqa: N818  (no error)
    """A job takes longer than ``PATIENCE``, while others wait."""


class _Watch:
    """Counts a job's steps, and raises ``_Late`` if they take too long while others wait."""

    def __init__(self, work: Work, job: Job, end: float) -> None:
        self._work, self._job, self._end, self.steps = work, job, end, 0

    def __call__(self, steps: int) -> None:
        self.steps += steps
        self._work.advance(self._job, steps)
        if self._work.waiting and time.monotonic() > self._end:
            raise _Late


def _begun_here(work: Work) -> Iterator[tuple[Job, Any]]:
    """Trains in this process, and in workers as soon as that may be faster. The batch that was running then begins again."""
    left = PATIENCE  # seconds
    if work.device != "cpu" or (count := _room(work)) == 1:
        left = math.inf
    while work.waiting:
        job, begun = heapq.heappop(work.waiting), time.monotonic()
        watch = _Watch(work, job, begun + left)
        try:
            value = job.run(watch)
        except _Late:
            work.advance(job, -watch.steps)
            heapq.heappush(work.waiting, job)
            left = 0
        else:
            left -= time.monotonic() - begun
            yield job, value
        if len(work.waiting) > 1 and left <= 0:
            try:
                check_copies(work.shared, None)
            except TypeError:
                left = math.inf
            else:
                yield from _in_workers(work, count)


def _room(work: Work) -> int:
    """The number of workers: one for each core, if each finds as much memory free as it asks for."""
    from joblib import cpu_count  # knows a container's limits too

    asked = 4 * work.bytes  # a quarter of what is free has to be enough
    return int(min(cpu_count(), max(1, 1 + (free_bytes() - asked) // (work.bytes + _OF_A_WORKER))))


class _Worker:
    """A worker process, and the thread that reads its messages into an inbox; ``None`` is the last one: it has ended."""

    def __init__(self, inbox: queue.SimpleQueue[tuple[_Worker, Any]]) -> None:
        words = [sys.executable, "-c", _START, json.dumps([*map(str, sys.path)])]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, **_SINGLE})
        threading.Thread(target=self._read, args=(inbox,), daemon=True).start()
        self.job: Job | None = None
        self.steps = 0

    def give(self, job: Job) -> None:
        """Lets it run a job."""
        self.job, self.steps = job, 0
        with contextlib.suppress(OSError):  # it has ended, as the inbox will say
            pickle.dump(packed(job), self._process.stdin)  # type: ignore[arg-type]
            self._process.stdin.flush()  # type: ignore[union-attr]

    def _read(self, inbox: queue.SimpleQueue[tuple[_Worker, Any]]) -> None:
        with contextlib.suppress(Exception):  # a message that a kill has cut off may raise anything
            while True:
                inbox.put((self, pickle.load(self._process.stdout)))  # type: ignore[arg-type]
        inbox.put((self, None))

    def end(self) -> str:
        """Ends it; returns how it has ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0.1)  # if it has ended on its own
        self._process.kill()
        code = self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                stream.close()  # type: ignore[union-attr]
        return f"signal {-code}" if code < 0 else f"exit status {code}"


def _in_workers(work: Work, count: int) -> Iterator[tuple[Job, Any]]:
    """Trains in worker processes. A job whose worker is killed is given to another one."""
    inbox: queue.SimpleQueue[tuple[_Worker, Any]] = queue.SimpleQueue()
    answers, tries, workers = Answers(), Counter[int](), list[_Worker]()
    try:
        while work.waiting or any(worker.job for worker in workers):
            idle = [worker for worker in workers if not worker.job]
            while work.waiting and (idle or len(workers) < count):
                if not idle:
                    idle.append(_Worker(inbox))
                    workers += idle
                idle.pop().give(heapq.heappop(work.waiting))
            worker, message = inbox.get()
            job = worker.job
            if message is None:
                workers.remove(worker)
                how = worker.end()
                if job:
                    tries[job.place] += 1
                    if tries[job.place] == TRIES:
                        raise lost(job, count, how, memory=how == _KILLED)
                    work.advance(job, -worker.steps)
                    heapq.heappush(work.waiting, job)
            elif isinstance(message, int):
                worker.steps += message
                work.advance(job, message)  # type: ignore[arg-type]
            else:
                worker.job = None
                yield job, answers.open(message)  # type: ignore[misc]
    finally:
        for worker in workers:
            worker.end()


class _Seat:
    """A worker process that holds objects."""

    def __init__(self, workers: int, answers: Answers) -> None:
        self.workers, self._answers = workers, answers
        self._inbox: queue.SimpleQueue[tuple[_Worker, Any]] = queue.SimpleQueue()
        self._worker = _Worker(self._inbox)

    def give(self, job: Job) -> None:
        """Sends a job."""
        self._worker.give(job)

    def take(self) -> Any:
        """The answer of the first job that has none; raises ``Ended`` if there will be none."""
        while isinstance(message := self._inbox.get()[1], int):
            pass  # steps
        if message is None:
            self._inbox.put((self._worker, None))  # for those who ask again
            how = self._worker.end()
            raise Ended(how, memory=how == _KILLED)
        return self._answers.open(message)

    def end(self) -> None:
        """Ends the process."""
        self._worker.end()

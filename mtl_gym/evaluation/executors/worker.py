"""A worker process: reads jobs from stdin, and writes steps and answers to what was stdout.

It ends with the process that started it, however that ends: its stdin is closed then.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import sys
import threading
import time
from typing import Any

from mtl_gym.evaluation.executors.answers import answered

_PAUSE = 0.2
"""Seconds between two messages on the progress of a job."""


def main() -> None:
    """Runs jobs until stdin is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal: the other process will end this one
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what policies print
    jobs: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(jobs,), daemon=True).start()
    while True:
        steps = _Steps(out)
        answer = answered(jobs.get(), steps)
        steps.tell()
        _write(out, answer)


def _read(jobs: queue.SimpleQueue[bytes]) -> None:
    try:
        while True:
            jobs.put(pickle.load(sys.stdin.buffer))
    finally:
        os._exit(0)


def _write(out: Any, message: int | bytes) -> None:
    pickle.dump(message, out)
    out.flush()


class _Steps:
    """Tells how many steps were done, now and then."""

    def __init__(self, out: Any) -> None:
        self._out, self._steps, self._last = out, 0, time.monotonic()

    def __call__(self, steps: int) -> None:
        self._steps += steps
        if time.monotonic() > self._last + _PAUSE:
            self.tell()

    def tell(self) -> None:
        """Tells at once."""
        _write(self._out, self._steps)
        self._steps, self._last = 0, time.monotonic()

"""Jobs on a Ray cluster: one machine or more."""

from __future__ import annotations

import heapq
import importlib.util
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mtl_gym.evaluation.executors.jobs import TRIES, Answers, Job, Work, answered, check_copies, lost, packed

_AHEAD = 2
"""Jobs that are handed over for each core, so that none waits for the process that compares."""


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster, in which every job has a core, or a GPU if it trains on one, and one thread. Ray tries jobs again whose
    worker or machine is lost.

    Attributes:
        workers: Number of jobs that are handed over at once; ``None``: twice as many as there are cores.
        address: Of the cluster, as ``ray.init`` takes it; ``None``: the one that Ray finds by ``RAY_ADDRESS``, else a new one on
            this machine.
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
        check_copies(work, self.workers)

    def run(self, work: Work) -> Iterator[tuple[Job, Any]]:
        """Jobs and what they return, as they end."""
        own = self.address is None and "RAY_ADDRESS" not in os.environ
        if own:
            os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # else Ray writes a file of credentials
        import ray

        mine = not ray.is_initialized()
        if mine:
            ray.init(address=self.address, include_dashboard=False if own else None)
        needs = {"num_cpus": 1, "num_gpus": 0 if work.device == "cpu" else 1}
        remote, answers = ray.remote(**needs, max_retries=TRIES - 1)(_answered), Answers()
        running: dict[Any, Job] = {}
        try:
            while work.waiting or running:
                most = self.workers or _AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
                while work.waiting and len(running) < most:
                    job = heapq.heappop(work.waiting)
                    running[remote.remote(packed(job))] = job
                [done], _ = ray.wait([*running], num_returns=1)
                job = running.pop(done)
                try:
                    answer = ray.get(done)
                except ray.exceptions.RayError as error:
                    raise lost(job, self.workers, str(error).partition("\n")[0]) from error
                value = answers.open(answer)
                work.advance(job, job.steps)
                yield job, value
        finally:
            for left in running:
                ray.cancel(left, force=True)
            if mine:
                ray.shutdown()


def _answered(job: bytes) -> bytes:
    return answered(job, lambda steps: None)

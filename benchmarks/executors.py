"""Measures executors: what a second worker gains, what bookkeeping costs, and that killed comparisons give the same table.

    python -m benchmarks.executors                    all studies (half an hour on a quiet machine of two cores)
    python -m benchmarks.executors workers kills      only these

| study | what |
|---|---|
| workers | the time of a comparison with one worker over that with two, both processes; interleaved |
| bookkeeping | the time of a comparison in one process beyond that of its trainings: planning and storing, and the page apart |
| kills | the command with two workers, killed with SIGKILL at 20 random moments (`benchmarks/kills.py`) |
| ray | the time on a local Ray cluster of two nodes with a core each over that with two workers; interleaved |
| ray_long | the same of four times as many instances, twice: connecting and starting workers counts less |
| ray_kills | as kills, on that cluster |
| collecting | the time of an agent's rollouts, without updates, with one worker process over that with two; interleaved |

Those of Ray need the extra `cluster`, and mtl_gym where its workers find it (``PYTHONPATH``); without Ray they are left out. Every
run has an empty cache, so references are trained too. Writes ``benchmarks/results/executors.json``.
"""

from __future__ import annotations

import contextlib
import heapq
import importlib.util
import itertools
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.kills import _MODULES, KILLS, STUDIES, measured
from benchmarks.measuring import Run, command_line, interleaved, ratio

POLICIES = "ew,si,igb,dwa,rlw,stch"
ROUNDS = 3


def setting(run: Run, instances: int = 24) -> dict[str, Any]:
    """The comparison: 3 + 6 * 3 batches of 8 trainings of 24 instances."""
    return {"problem": "digits", "instances": run.size(instances, 4), "num_envs": run.size(8, 2), "train_steps": run.size(600, 40)}


@contextlib.contextmanager
def fresh() -> Iterator[Path]:
    """An output folder, beside an empty cache."""
    before = os.environ.get("MTL_GYM_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MTL_GYM_CACHE"] = f"{folder}/cache"
        try:
            yield Path(folder, "out")
        finally:
            if before is None:
                del os.environ["MTL_GYM_CACHE"]
            else:
                os.environ["MTL_GYM_CACHE"] = before


def seconds(run: Run, executor: Any, instances: int = 24) -> float:
    """Of a comparison without its page."""
    from mtl_gym.evaluation.comparison import perform
    from mtl_gym.evaluation.plans import plan

    with fresh() as out:
        begun = time.perf_counter()
        perform(plan(POLICIES, **setting(run, instances)), out=out, progress=False, executor=executor)
        return time.perf_counter() - begun


def workers(run: Run) -> dict[str, Any]:
    """One worker and two."""
    from mtl_gym.evaluation.executors.local import _in_workers

    @dataclass(frozen=True)
    class Workers:
        """So many worker processes, also if it is one."""

        count: int
        threads: int = 1

        def check(self, work: Any) -> None:
            """Nothing to check."""

        def run(self, work: Any) -> Iterator[Any]:
            return _in_workers(work, self.count)

    pieces: dict[str, Callable[[], float]] = {str(count): lambda count=count: seconds(run, Workers(count)) for count in (1, 2)}  # type: ignore[misc]
    times = interleaved(pieces, run.size(ROUNDS))
    medians = {f"seconds with {name}": round(float(sorted(own)[len(own) // 2]), 1) for name, own in times.items()}
    return {"cores": os.cpu_count(), **medians, "one over two": ratio(times["1"], times["2"])}


@dataclass
class Timed:
    """Trains in this process, and keeps the seconds of each job."""

    seconds: list[float] = field(default_factory=list)
    threads: int = 1

    def check(self, work: Any) -> None:
        """Nothing to check."""

    def run(self, work: Any) -> Iterator[Any]:
        while work.waiting:
            job, begun = heapq.heappop(work.waiting), time.perf_counter()
            value = job.run(lambda steps, job=job: work.advance(job, steps))
            self.seconds.append(time.perf_counter() - begun)
            yield job, value


def bookkeeping(run: Run) -> dict[str, Any]:
    """The parts of a comparison in one process."""
    from mtl_gym.evaluation.comparison import perform
    from mtl_gym.evaluation.export import export
    from mtl_gym.evaluation.plans import plan

    rows = []
    for _ in range(run.size(ROUNDS)):
        timed = Timed()
        with fresh() as out:
            times = [time.perf_counter()]
            checked = plan(POLICIES, **setting(run))
            times.append(time.perf_counter())
            results, about = perform(checked, out=out, progress=False, executor=timed)
            times.append(time.perf_counter())
            export(results, about, out)
            times.append(time.perf_counter())
        trained, planned, ran, drawn = (sum(timed.seconds), *(later - earlier for earlier, later in itertools.pairwise(times)))
        rows.append((trained, planned / trained, ran / trained - 1, drawn))
    trained, planned, stored, drawn = (sorted(own)[len(own) // 2] for own in zip(*rows, strict=True))
    return {
        "seconds of training": round(trained, 1),
        "planning / training": round(planned, 4),
        "storing and the rest / training": round(stored, 4),
        "seconds of the page": round(drawn, 1),
    }


def kills(run: Run, *words: str) -> dict[str, Any]:
    """The row of the command, killed."""
    study = STUDIES["compare"]
    with tempfile.TemporaryDirectory() as folder:
        own = replace(study, words=(*study.words, *(words or ("--workers", "2"))))
        return measured(own, run.size(KILLS), Path(folder))


@contextlib.contextmanager
def two_nodes() -> Iterator[str]:
    """The address of a Ray cluster of two nodes with a core each."""
    os.environ["RAY_AUTH_MODE"] = "disabled"
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    try:
        yield cluster.address
    finally:
        cluster.shutdown()


def ray(run: Run, instances: int = 24, rounds: int = ROUNDS) -> dict[str, Any]:
    """Ray and two workers."""
    from mtl_gym.evaluation.executors.cluster import Cluster
    from mtl_gym.evaluation.executors.local import Local

    with two_nodes() as address:
        pieces = {
            "ray": lambda: seconds(run, Cluster(address=address), instances),
            "local": lambda: seconds(run, Local(2), instances),
        }
        times = interleaved(pieces, run.size(rounds))
    medians = {f"seconds with {name}": round(float(sorted(own)[len(own) // 2]), 1) for name, own in times.items()}
    return {**medians, "ray over local": ratio(times["ray"], times["local"])}


def ray_kills(run: Run) -> dict[str, Any]:
    """As kills, on a cluster."""
    with two_nodes() as address:
        return kills(run, "--executor", "ray", "--address", address)


def collecting(run: Run) -> dict[str, Any]:
    """Rollouts of an agent's training, by one worker and by two."""
    import numpy as np

    from mtl_gym.agents.defaults import with_defaults
    from mtl_gym.agents.rows import make_envs
    from mtl_gym.agents.settings import Settings, check_settings
    from mtl_gym.environments import LOSS_WEIGHTING
    from mtl_gym.evaluation.executors.local import Local

    arguments = with_defaults(LOSS_WEIGHTING, {"problem": "digits", "train_steps": run.size(1500, 40)})
    sizes = {
        "num_envs": run.size(64, 4),
        "rollouts_per_instance": run.size(8, 2),
        "time_steps": 1,
        "evaluations": 1,
        "instances": 1,
    }
    own = check_settings(Settings(LOSS_WEIGHTING, arguments, "ppo", {}, seed=0, references=[], **sizes))

    def seconds(holders: Sequence[Any]) -> float:
        envs, length = make_envs(own, holders)
        envs.seed(0)
        envs.reset()  # trains references, if they are not known
        rng, begun = np.random.default_rng(0), time.perf_counter()
        for _ in range(length):
            envs.step(rng.uniform(-0.3, 0.3, (envs.num_envs, *(envs.action_space.shape or ()))).astype(np.float32))
        return time.perf_counter() - begun

    with fresh(), Local(2).hold() as holders:
        pieces = {str(count): lambda count=count: seconds(holders[:count]) for count in (1, 2)}  # type: ignore[misc]
        times = interleaved(pieces, run.size(ROUNDS))
    return {"one over two": ratio(times["1"], times["2"])}


ALL: Mapping[str, Callable[[Run], dict[str, Any]]] = {
    "workers": workers,
    "bookkeeping": bookkeeping,
    "kills": kills,
    "ray": ray,
    "ray_long": partial(ray, instances=96, rounds=2),
    "ray_kills": ray_kills,
    "collecting": collecting,
}


def main(words: Sequence[str] | None = None) -> None:
    """Measures, prints and stores the results."""
    run: Run = command_line(words)
    rows = run.known()
    os.environ["OMP_NUM_THREADS"] = "1"
    multiprocessing.set_forkserver_preload(_MODULES)
    there = [name for name in ALL if not name.startswith("ray") or importlib.util.find_spec("ray")]
    for name in run.names or there[: 2 if run.smoke else None]:
        rows[name] = ALL[name](run)
        print(f"{name:12}", rows[name], flush=True)
        run.write(rows)


if __name__ == "__main__":
    main()

"""Who trains the batches of a comparison: this process, processes of this machine, or a Ray cluster.

A batch, up to ``num_envs`` instances of one policy, is a job (``jobs``). Executors run jobs in any order and on any worker; the
process that compares alone writes results. A row never depends on how many workers there are.
"""

from __future__ import annotations

from mtl_gym.checks import choose, positive_int, printable, should
from mtl_gym.evaluation.executors.cluster import Cluster
from mtl_gym.evaluation.executors.jobs import Executor
from mtl_gym.evaluation.executors.local import Local

EXECUTORS: dict[str, type[Local] | type[Cluster]] = {"local": Local, "ray": Cluster}
"""The executors by name."""


def make_executor(executor: str = "local", workers: int | None = None, address: str | None = None) -> Executor:
    """The executor of that name.

    Args:
        executor: Its name in ``EXECUTORS``.
        workers: Number of batches that are trained at once; ``None``: as many as the executor finds room for.
        address: Address of the Ray cluster, such as ``"auto"`` or ``"ray://host:10001"``; only of that executor.

    Raises:
        ValueError, TypeError: If an argument is wrong.
        ModuleNotFoundError: If the package that the executor needs is not installed; the message says how to install it.
    """
    kind = choose("executor", executor, EXECUTORS)
    count = None if workers is None else positive_int("workers", workers)
    if kind is Cluster:
        return Cluster(count, None if address is None else printable("address", address))
    if address is not None:
        raise ValueError(should("address", 'be given with executor="ray" alone', address))
    return Local(count)

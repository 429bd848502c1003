"""Mean losses per epoch, over the batches that have labels of a task, kept in a policy's memory."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mtl_gym.baselines.base import HAS_LABEL, Observation, State, losses


def empty_epochs(rows: int, num_tasks: int) -> State:
    """An empty memory: the current epoch's number (N, 1), counts and sums (N, K), and the last two means (N, K)."""
    zeros, unknown = np.zeros((rows, num_tasks)), np.full((rows, num_tasks), np.nan)
    return {"epoch": np.zeros((rows, 1)), "count": zeros, "sum": zeros, "last": unknown, "before_last": unknown}


def follow_epochs(obs: Observation, state: State) -> tuple[State, npt.NDArray[np.bool_]]:
    """Advances the memory where an epoch begins and adds the losses of the next batch; also returns where one begins (N, 1).

    The mean of an epoch without labels of a task is that of the epoch before.
    """
    labelled, epoch = obs[HAS_LABEL].astype(np.float64), obs["epoch"].astype(np.float64)
    begins, current = epoch > state["epoch"], losses(obs) * labelled
    mean = np.where(state["count"] > 0, state["sum"] / np.maximum(state["count"], 1), state["last"])
    return {
        "epoch": epoch,
        "count": np.where(begins, labelled, state["count"] + labelled),
        "sum": np.where(begins, current, state["sum"] + current),
        "last": np.where(begins, mean, state["last"]),
        "before_last": np.where(begins, state["last"], state["before_last"]),
    }, begins

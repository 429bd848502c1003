"""Fast adaptive multi-task optimisation."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from mtl_gym.arguments import number
from mtl_gym.baselines.adam import adam, empty_moments
from mtl_gym.baselines.base import Array, Heuristic, Observation, State, softmax
from mtl_gym.policies import LOSSES_TO_WEIGHTS, Requirements


class FAMO(Heuristic):
    """Fast adaptive multi-task optimisation (FAMO): all log losses are to fall at the same rate.

    ``w_k = (z_k / L_k) / sum_j z_j / L_j`` with ``z = softmax(xi)``. After each step xi descends, by Adam with weight decay gamma,
    along ``z (delta - <z, delta>)``, delta the decline of the log losses of the same batch by that step: what has fallen more than
    the average gets less weight. That costs one more forward pass (``log_loss_after``).

    Liu, Feng, Stone and Liu, "FAMO: Fast Adaptive Multitask Optimization", NeurIPS 2023, algorithm 1. Weights sum to 1 and act on
    the whole losses, as in the authors' code, ``torchjd`` and LibMTL. The authors also clip the shared gradient to a norm of 1; not
    followed.

    Args:
        lr: Learning rate of xi; the paper's 0.025.
        gamma: Weight decay of xi; 0.001, the paper's, LibMTL's and ``torchjd``'s (the authors' code has 0.01).

    Raises:
        ValueError, TypeError: If lr is not positive, gamma negative, or one of them no number.
    """

    requires: ClassVar[Requirements] = replace(LOSSES_TO_WEIGHTS, observe=("log_loss", "log_loss_after"))

    def __init__(self, lr: float = 0.025, gamma: float = 1e-3) -> None:
        self.lr, self.gamma = number("lr", lr, low=0.0, ends="(]"), number("gamma", gamma, low=0.0)

    def initial_state(self, seeds: npt.NDArray[np.int64], num_tasks: int) -> State:
        """Logits xi of 0, unknown last log losses (N, K), and Adam's moments."""
        shape = (len(seeds), num_tasks)
        return {"logits": np.zeros(shape), "before": np.full(shape, np.nan), **empty_moments(*shape)}

    def act(self, obs: Observation, state: State) -> tuple[Array, State]:
        """One step of Adam on the logits, for the last batch, and the weights of this one."""
        known = np.isfinite(state["before"])
        decline = np.where(known, state["before"] - obs["log_loss_after"], 0)
        shares = softmax(state["logits"])
        slope = shares * (decline - (shares * decline).sum(axis=1, keepdims=True)) + self.gamma * state["logits"]
        move, moments = adam(state, slope, self.lr)
        first = ~known.all(axis=1, keepdims=True)
        after = {"logits": state["logits"] + move, **moments}
        after = {name: np.where(first, state[name], value) for name, value in after.items()}
        log_loss = obs["log_loss"].astype(np.float64)
        return softmax(np.log(softmax(after["logits"])) - log_loss), {**after, "before": log_loss}

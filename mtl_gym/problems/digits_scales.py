"""``digits_scales``: six mixed tasks on scikit-learn's 1,797 images of 8 x 8, whose losses differ by a factor of more than 10.

A test of loss scales: the input holds the answer of three of the tasks (``reconstruction`` is the identity, ``ink`` and ``centre``
nearly linear), so that the tasks share little and compete for step size alone.
"""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

from mtl_gym.problems.base import Pool, Split, Task
from mtl_gym.problems.digits import WITH_LOOP
from mtl_gym.problems.sources import divide, standardise

TASKS = (
    Task("digit", "cross_entropy", ("accuracy",), outputs=10),
    Task("parity", "bce", ("accuracy",)),
    Task("loop", "bce", ("accuracy",)),
    Task("ink", "mse", ("nrmse",)),
    Task("centre", "mse", ("nrmse",), outputs=2),
    Task("reconstruction", "mse", ("nrmse",), outputs=64),
)
_SIZES = {"train": 800, "meta": 250, "reward": 250, "test": -1}
_INK_AND_CENTRE = (3, 4, 5)  # columns


def load() -> tuple[tuple[Task, ...], dict[str, Split], Pool]:
    """Returns the tasks, splits of 800, 250, 250 and 497 images, and the pool.

    Inputs are the 64 pixels in [0, 1]. Tasks: the digit; whether it is odd; whether it has a loop (0, 6, 8, 9); its ink
    (mean pixel, standardised); its centre of mass (row and column, standardised); the pixels themselves, in [0, 1].
    """
    data = load_digits()
    pixels, digit = data.data / 16, data.target
    rows = divide(len(pixels), _SIZES, seed=0)
    ink = pixels.mean(1, keepdims=True)
    grid = np.stack([index.ravel() for index in np.indices((8, 8))], axis=1)  # (64, 2)
    centre = pixels @ grid / pixels.sum(1, keepdims=True)
    classes = [digit, digit % 2, np.isin(digit, WITH_LOOP)]
    labels = [*classes, standardise(ink, ink[rows["train"]]), standardise(centre, centre[rows["train"]]), pixels]
    splits = {name: Split.of(pixels[index], [label[index] for label in labels]) for name, index in rows.items()}
    return TASKS, splits, Pool(Split.of(pixels, [*classes, ink, centre, pixels]), rows, scaled_targets=_INK_AND_CENTRE)

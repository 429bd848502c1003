"""``digits``: five mixed tasks on scikit-learn's 1,797 images of 8 x 8, turned, with noise and a covered patch."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits

from mtl_gym.problems.base import Pool, Split, Task
from mtl_gym.problems.sources import divide

SIDE = 8  # px
TASKS = (
    Task("digit", "cross_entropy", ("accuracy",), outputs=10),
    Task("parity", "bce", ("accuracy",)),
    Task("loop", "bce", ("accuracy",)),
    Task("angle", "mse", ("nrmse",)),
    Task("clean", "mse", ("nrmse",), outputs=SIDE * SIDE),
)
WITH_LOOP = (0, 6, 8, 9)
_SIZES = {"train": 800, "meta": 250, "reward": 250, "test": -1}
_LARGEST_ANGLE = 30.0  # degrees
_NOISE, _PATCH = 0.2, 3  # standard deviation of a pixel; side in px
_ANGLE = 3  # column of the labels
_STEP = 2.0**-12  # to which pixels are rounded, so that they do not depend on a platform's sine


def load() -> tuple[tuple[Task, ...], dict[str, Split], Pool]:
    """Returns the tasks, splits of 800, 250, 250 and 497 images, and the pool of all 1,797.

    Each image is turned by an angle from -30 to 30 degrees (uniform), Gaussian noise is added to each pixel, and a square of
    3 x 3 px at a random place is set to 0: these 64 numbers are the input. All are drawn once, from a fixed seed. Tasks: the
    digit; whether it is odd; whether it has a loop (0, 6, 8, 9); the angle (standardised by *train*); and the 64 pixels of the
    clean image, turned as the input is, but without noise and patch, in [0, 1].
    """
    data = load_digits()
    digit, rng = data.target, np.random.default_rng(0)
    angles = rng.uniform(-_LARGEST_ANGLE, _LARGEST_ANGLE, len(digit))
    clean = _rounded(turned(data.images / 16, angles))
    noisy = clean + _rounded(_NOISE * rng.normal(size=clean.shape))
    inputs = np.where(_squares(rng, len(digit)), 0, noisy).reshape(len(digit), -1)
    labels = [digit, digit % 2, np.isin(digit, WITH_LOOP), angles, clean.reshape(len(digit), -1)]
    pool = Pool(Split.of(inputs, labels), divide(len(digit), _SIZES, seed=0), scaled_targets=(_ANGLE,))
    return TASKS, pool.splits(pool.rows), pool


def turned(images: npt.NDArray[Any], degrees: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Turns images (n, H, W) by an angle each (n,) around their middle, counter-clockwise as they are seen.

    Values are interpolated between the four nearest pixels; outside of the image they are 0.
    """
    height, width = images.shape[1:]
    down, across = np.indices((height, width)) - np.reshape([(height - 1) / 2, (width - 1) / 2], (2, 1, 1))
    sine, cosine = (own(np.deg2rad(degrees))[:, None, None] for own in (np.sin, np.cos))
    row = cosine * down + sine * across + (height - 1) / 2  # (n, H, W) where each pixel comes from
    column = cosine * across - sine * down + (width - 1) / 2
    padded = np.pad(images, ((0, 0), (1, 2), (1, 2)))
    top, left = (np.clip(np.floor(place).astype(int), -1, most) for place, most in ((row, height), (column, width)))
    lower, right = np.clip(row - top, 0, 1), np.clip(column - left, 0, 1)
    each = np.arange(len(images))[:, None, None]
    corners = [padded[each, top + 1 + below, left + 1 + beside] for below in (0, 1) for beside in (0, 1)]
    shares = [(1 - lower) * (1 - right), (1 - lower) * right, lower * (1 - right), lower * right]
    return np.asarray(sum(share * corner for share, corner in zip(shares, corners, strict=True)))


def _squares(rng: np.random.Generator, count: int) -> npt.NDArray[np.bool_]:
    """Which pixels (count, 8, 8) are covered."""
    top, left = rng.integers(0, SIDE - _PATCH + 1, (2, count, 1, 1))
    row, column = np.indices((SIDE, SIDE))
    return (row >= top) & (row < top + _PATCH) & (column >= left) & (column < left + _PATCH)


def _rounded(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    return np.round(values / _STEP) * _STEP

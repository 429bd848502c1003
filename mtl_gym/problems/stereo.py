"""``stereo``: depth, surface normals and depth layers of a stereo pair, pixel by pixel: a small stand-in for NYUv2.

The pair is scikit-image's ``stereo_motorcycle``, from Scharstein et al., "High-Resolution Stereo Datasets with Subpixel-Accurate
Ground Truth", GCPR 2014.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from skimage.data import stereo_motorcycle

from mtl_gym.problems.base import Pool, Split, Task

_LAYERS = 5
TASKS = (
    Task("depth", "l1", ("nrmse",)),
    Task("normals", "cosine", ("angle",), outputs=3),
    Task("layers", "cross_entropy", ("accuracy",), outputs=_LAYERS),
)
_BLOCK, _MARGIN, _PATCH, _STRIDE = 96, 32, 32, 8  # px
_PATTERN = ("train", "test", "train", "meta", "train", "reward", "train")


def load() -> tuple[tuple[Task, ...], dict[str, Split], Pool]:
    """Returns the tasks, splits of patches of 32 x 32, and the pool.

    Inputs are the colors of both images and each pixel's row and column (8 channels, 0 to 1). Labels: inverse depth (disparity,
    standardised by *train*), the unit surface normal (from the slope of disparity), and the quintile of disparity on *train*.
    Pixels without ground truth have no labels. The image is divided into blocks of 96 px; patches of different blocks are at least
    32 px apart. The pool's groups are these blocks.
    """
    left, right, disparity = stereo_motorcycle()
    colors = np.concatenate([left, right], axis=2).transpose(2, 0, 1) / 255
    views = np.concatenate([colors, np.indices(disparity.shape) / np.reshape(disparity.shape, (2, 1, 1))])  # (8, H, W)
    depth = np.where(np.isfinite(disparity), disparity, np.nan)
    corners = _corners(depth.shape)
    train = np.concatenate([depth[row : row + _PATCH, column : column + _PATCH].ravel() for row, column in corners["train"]])
    known = train[np.isfinite(train)]
    layers = np.digitize(depth, np.quantile(known, np.linspace(0, 1, _LAYERS + 1)[1:-1])).astype(np.float32)
    others = [_normals(depth), np.where(np.isfinite(depth), layers, np.nan)[None]]
    labels = [((depth - known.mean()) / known.std())[None], *others]
    splits = {
        name: Split.of(_patches(views, places), [_patches(label, places) for label in labels]) for name, places in corners.items()
    }
    return TASKS, splits, _pool(views, [depth[None], *others], corners)


def _pool(views: npt.NDArray[Any], labels: list[npt.NDArray[Any]], corners: dict[str, list[tuple[int, int]]]) -> Pool:
    places = [place for own in corners.values() for place in own]
    ends = np.cumsum([len(own) for own in corners.values()])
    rows = dict(zip(corners, np.split(np.arange(ends[-1]), ends[:-1]), strict=True))
    blocks = np.array([row // _BLOCK * views.shape[2] + column // _BLOCK for row, column in places])
    samples = Split.of(_patches(views, places), [_patches(label, places) for label in labels])
    return Pool(samples, rows, groups=blocks, scaled_targets=(0,))


def _corners(shape: tuple[int, ...]) -> dict[str, list[tuple[int, int]]]:
    """Top left corners of the patches of each split; patches lie in the inner 64 x 64 px of a block."""
    places: dict[str, list[tuple[int, int]]] = {name: [] for name in ("train", "meta", "reward", "test")}
    offsets = range(0, _BLOCK - _MARGIN - _PATCH + 1, _STRIDE)
    for block, (row, column) in enumerate(np.ndindex(shape[0] // _BLOCK, shape[1] // _BLOCK)):
        name = _PATTERN[(block + row) % len(_PATTERN)]
        places[name] += [(row * _BLOCK + down, column * _BLOCK + across) for down in offsets for across in offsets]
    return places


def _normals(depth: npt.NDArray[Any]) -> npt.NDArray[Any]:
    slopes = np.gradient(depth)
    normals = np.stack([-slopes[1], -slopes[0], np.ones_like(depth)])  # (3, H, W)
    return normals / np.linalg.norm(normals, axis=0)


def _patches(image: npt.NDArray[Any], places: list[tuple[int, int]]) -> npt.NDArray[np.float32]:
    return np.stack([image[:, row : row + _PATCH, column : column + _PATCH] for row, column in places]).astype(np.float32)

"""The file ``shop.py`` of the README's commands."""

import numpy as np

import mtl_gym


def make():
    """A problem of two tasks."""
    x = np.random.default_rng(0).normal(size=(400, 5))
    return mtl_gym.Problem.from_arrays(x, {"price": x.sum(1), "dear": x.sum(1) > 0}, name="shop", train_steps=60)

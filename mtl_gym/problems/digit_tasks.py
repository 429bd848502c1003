"""``digit_tasks``: binary tasks on scikit-learn's digits: each digit against the rest, sums of them, complements, and chance."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

from mtl_gym.problems.base import Pool, Split, Task
from mtl_gym.problems.digits import WITH_LOOP
from mtl_gym.problems.sources import divide

_SIZES = {"train": 400, "meta": 300, "reward": 500, "test": -1}


def load() -> tuple[tuple[Task, ...], dict[str, Split], Pool]:
    """Returns 16 binary tasks, splits of 400, 300, 500 and 597 images, and the pool of all 1,797.

    Inputs are the 64 pixels, standardised: pixels in [0, 1], which are never negative, left almost every second hidden unit dead,
    and in some instances all. Tasks: ``is_0`` to ``is_9``; ``odd`` and its complement ``even``; ``loop`` (0, 6, 8, 9) and
    its complement ``not_loop``; ``large`` (5 and more); and ``random``, a label drawn once for each image, which can only be
    memorised. After the tasks on CIFAR-10 of Sherif, Abid, Elattar and ElHelw, "STG-MTL: Scalable Task Grouping for Multi-Task
    Learning Using Data Maps", MLST 2024, without their ``upside-down``, which changes the inputs.

    The default network has 8 hidden units, for which the tasks compete: with 64 all of them reach an AUC above .98 in any group.
    """
    data = load_digits()
    digit = data.target
    loop = np.isin(digit, WITH_LOOP)
    labels = {f"is_{number}": digit == number for number in range(10)}
    labels |= {"odd": digit % 2 == 1, "even": digit % 2 == 0, "loop": loop, "not_loop": ~loop, "large": digit >= 5}
    labels["random"] = np.random.default_rng(0).random(len(digit)) < 0.5
    rows = divide(len(digit), _SIZES, seed=0)
    tasks = tuple(Task(name, "bce", ("auc",)) for name in labels)
    pool = Pool(Split.of(data.data, list(labels.values())), rows, scaled_inputs=True)
    return tasks, pool.splits(rows), pool

"""``tox21``: whether molecules are active in 12 assays of toxicity, of the Tox21 challenge (Huang et al., "Tox21Challenge to Build
Predictive Models of Nuclear Receptor and Stress Response Pathways", Frontiers in Environmental Science 3:85, 2016).
"""

from __future__ import annotations

import numpy as np

from mtl_gym.problems.base import Pool, Split, Task
from mtl_gym.problems.sources import divide, shipped

_KEYS = 166
_SIZES = {"train": 3_000, "meta": 800, "reward": 1_600, "test": -1}


def load() -> tuple[tuple[Task, ...], dict[str, Split], Pool]:
    """Returns 12 binary tasks, splits of 3,000, 800, 1,600 and 1,579 molecules, and the pool of all 6,979.

    Inputs are the 166 MACCS keys: whether a molecule has some substructure, each 0 or 1. Not every molecule was measured in every
    assay: between 7 and 26 % of a task's labels are missing, and 3 to 16 % of those that are there say active. Splits are drawn at
    random, as MoleculeNet recommends for these data. Of molecules with the same keys only the first is kept.
    """
    data = shipped("tox21.npz")
    inputs = np.unpackbits(data["keys"], axis=1, count=_KEYS).astype(np.float32)
    labels = np.where(data["labels"] < 0, np.nan, data["labels"])
    rows = divide(len(inputs), _SIZES, seed=0)
    pool = Pool(Split.of(inputs, list(labels.T)), rows)
    return tuple(Task(assay, "bce", ("auc",)) for assay in data["assays"].tolist()), pool.splits(rows), pool

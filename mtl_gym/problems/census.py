"""``census``: three binary tasks of Census-Income (KDD), as in Ma et al., "Modeling Task Relationships in Multi-task Learning
with Multi-gate Mixture-of-Experts", KDD 2018.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_gym.problems.base import Pool, Split, Task
from mtl_gym.problems.pools import equal_inputs
from mtl_gym.problems.sources import divide, shipped

TASKS = (Task("income", "bce", ("auc",)), Task("never_married", "bce", ("auc",)), Task("college", "bce", ("auc",)))
_SIZES = {"train": 10_000, "meta": 3_000, "reward": -1}
_LABELS = ("income", "marital_stat", "education")
_NUMBERS = 7  # the first inputs; the others are categories
_DEGREES = ("Bachelors", "Masters", "Prof school", "Doctorate")


def load() -> tuple[tuple[Task, ...], dict[str, Split], Pool]:
    """Returns the tasks, splits of 10,000, 3,000, 3,227 and 7,679 persons, and the pool.

    Tasks: income above 50,000; never married; at least a bachelor's degree. Inputs are 7 numbers (money as log(1 + x),
    standardised by *train*) and the one-hot codes of the categories, without marital status, education, income and the survey's
    ``instance_weight``. The test split is drawn from the official test file. Other columns reveal the second task (household
    status identifies those who never married; many are children), so it is easy, with an AUC of .99.

    A fifth of the 30,000 persons have the same inputs as another one, mostly children. Of these only the first is kept, so that
    all inputs are different: 23,906 persons, 16,227 of them from the official training file.
    """
    data = shipped("census_kdd_30k.npz")
    meta = json.loads(str(data["meta"]))
    inputs = _inputs(data, meta)
    kept = _first_of_each(inputs)
    income, married, education = (_categories(data, meta, name) for name in _LABELS)
    labels = [np.char.find(income, "50000+") >= 0, married == "Never married", np.char.startswith(education, _DEGREES[0])]
    for degree in _DEGREES[1:]:
        labels[2] |= np.char.startswith(education, degree)
    count = int((kept < data["n_train"]).sum())
    rows = divide(count, _SIZES, seed=0) | {"test": np.arange(count, len(kept))}
    pool = Pool(Split.of(inputs[kept], [label[kept] for label in labels]), rows, scaled_inputs=tuple(range(_NUMBERS)))
    return TASKS, pool.splits(rows), pool


def _first_of_each(inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.intp]:
    """The samples whose inputs no earlier sample has, ascending."""
    groups = equal_inputs(inputs)
    return np.arange(len(inputs)) if groups is None else np.unique(groups, return_index=True)[1]


def _categories(data: dict[str, npt.NDArray[Any]], meta: dict[str, Any], name: str) -> npt.NDArray[np.str_]:
    codes = data["cat"][:, list(meta["cat"]).index(name)]
    return np.asarray([*meta["cat"][name], ""])[codes]


def _inputs(data: dict[str, npt.NDArray[Any]], meta: dict[str, Any]) -> npt.NDArray[np.float32]:
    numbers = data["num"][:, [name != "instance_weight" for name in meta["num"]]]
    columns = [np.where(numbers.max(0) > 1_000, np.log1p(numbers), numbers)]
    for column, name in enumerate(meta["cat"]):
        if name not in _LABELS:
            columns.append(data["cat"][:, [column]] == np.arange(len(meta["cat"][name])))
    return np.concatenate(columns, axis=1, dtype=np.float32)

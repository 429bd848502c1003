"""``census``: three binary tasks of Census-Income (KDD), as in Ma et al., "Modeling Task Relationships in Multi-task Learning
with Multi-gate Mixture-of-Experts", KDD 2018.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_gym.problems.base import Split, Task, divide, shipped, standardise

TASKS = (Task("income", "bce", ("auc",)), Task("never_married", "bce", ("auc",)), Task("college", "bce", ("auc",)))
_SIZES = {"train": 12_000, "meta": 4_000, "reward": -1}
_LABELS = ("income", "marital_stat", "education")
_DEGREES = ("Bachelors", "Masters", "Prof school", "Doctorate")


def load() -> tuple[tuple[Task, ...], dict[str, Split]]:
    """Returns the tasks and splits of 12,000, 4,000, 4,000 and 10,000 persons.

    Tasks: income above 50,000; never married; at least a bachelor's degree. Inputs are 7 numbers (money as log(1 + x),
    standardised) and the one-hot codes of the categories, without marital status, education, income and the survey's
    ``instance_weight``. The test split is drawn from the official test file. Other columns reveal the second task (household
    status identifies those who never married; a quarter are children), so it is easy, with an AUC of .99. Rows are not unique:
    children's records are repeated within and across training and test.
    """
    data = shipped("census_kdd_30k.npz")
    meta = json.loads(str(data["meta"]))
    inputs, count = _inputs(data, meta), int(data["n_train"])
    income, married, education = (_categories(data, meta, name) for name in _LABELS)
    labels = [np.char.find(income, "50000+") >= 0, married == "Never married", np.char.startswith(education, _DEGREES[0])]
    for degree in _DEGREES[1:]:
        labels[2] |= np.char.startswith(education, degree)
    rows = divide(count, _SIZES, seed=0) | {"test": np.arange(count, len(inputs))}
    return TASKS, {name: Split.of(inputs[index], [label[index] for label in labels]) for name, index in rows.items()}


def _categories(data: dict[str, npt.NDArray[Any]], meta: dict[str, Any], name: str) -> npt.NDArray[np.str_]:
    codes = data["cat"][:, list(meta["cat"]).index(name)]
    return np.asarray([*meta["cat"][name], ""])[codes]


def _inputs(data: dict[str, npt.NDArray[Any]], meta: dict[str, Any]) -> npt.NDArray[np.float32]:
    numbers = data["num"][:, [name != "instance_weight" for name in meta["num"]]]
    numbers = np.where(numbers.max(0) > 1_000, np.log1p(numbers), numbers)
    columns = [standardise(numbers, numbers[: int(data["n_train"])])]
    for column, name in enumerate(meta["cat"]):
        if name not in _LABELS:
            columns.append(data["cat"][:, [column]] == np.arange(len(meta["cat"][name])))
    return np.concatenate(columns, axis=1, dtype=np.float32)

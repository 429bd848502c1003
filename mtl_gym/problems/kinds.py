"""Kinds of tasks, inferred from the labels that a person has.

n is the number of samples, C the number of label columns of a task.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from mtl_gym.checks import LARGEST_FLOAT, choose, should
from mtl_gym.problems.inputs import unmasked
from mtl_gym.problems.tasks import Task

Values = npt.NDArray[Any]
MOST_CLASSES, FEWEST_SAMPLES = 20, 5
"""Whole numbers are classes if there are at most so many different ones, and on average at least so many samples of each."""
_DTYPES = "biuf"
_REMEDY = "Give its kind: kinds={{{name!r}: 'regression'}}, or 'classes' or 'binary'."


@dataclass(frozen=True, eq=False)
class Labels:
    """A task, its labels (n, C) as float64 with NaN where one is missing, and whether they are numbers to be standardised."""

    task: Task
    values: npt.NDArray[np.float64]
    scaled: bool = False


def labels_of(name: str, values: Any, kind: str | None = None) -> Labels:
    """Makes a task of a person's labels.

    | labels | kind | loss | metric |
    |---|---|---|---|
    | booleans; two different texts or whole numbers | ``binary`` | ``bce`` | ``auc`` |
    | (n, C) of 0 and 1: C binary labels | ``binary`` | ``bce`` | ``accuracy`` |
    | more different texts, or a few different whole numbers | ``classes`` | ``cross_entropy`` | ``accuracy`` |
    | other numbers | ``regression`` | ``mse`` | ``nrmse`` |

    Of several columns of numbers, some may have one value only, as the corners of images have; ``nrmse`` is over all of them.

    A few are at most ``MOST_CLASSES``, with ``FEWEST_SAMPLES`` samples of each on average.

    Whether whole numbers are stored as integers or floats makes no difference, since integers with missing values are floats. So
    counts and ratings of few values are taken for classes, and class indices of more than ``MOST_CLASSES`` values for numbers:
    ``kind`` overrides that. Missing labels are NaN or None.

    Args:
        name: The task's name, which errors contain.
        values: (n,) or, for numbers, (n, C).
        kind: ``"regression"``, ``"classes"`` or ``"binary"``; ``None`` infers it.

    Raises:
        TypeError: If labels are neither numbers nor texts nor booleans.
        ValueError: If all are missing or equal, or infinite, or do not suit the ``kind``.
    """
    table = _read(name, values)
    missing = _missing(table)
    known = table[~missing]
    if not known.size:
        raise ValueError(should(_of(name), "have at least one label", "missing labels only"))
    different = _different(name, known)
    chosen = _inferred(table, known, different) if kind is None else kind
    make = choose(f"kinds[{name!r}]", chosen, _MAKERS)
    if len(different) < 2:
        raise ValueError(should(_of(name), "have different labels", different, "There is nothing to learn: leave the task out."))
    return make(name, table, missing, different)


def _of(name: str) -> str:
    return f"targets[{name!r}]"


def _read(name: str, values: Any) -> Values:
    """Labels as an array (n,), or (n, C) with C > 1, of numbers, booleans, or objects."""
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    try:
        table = np.asarray(values := unmasked(values, "iuf"))
    except ValueError:
        raise ValueError(should(_of(name), "have labels of one shape", values)) from None
    if table.dtype.kind == "U" and not isinstance(values, np.ndarray):
        table = np.asarray(values, dtype=object)  # in which numbers and missing values have not become texts
    if table.ndim == 2 and table.shape[1] == 1:
        table = table[:, 0]
    if table.ndim not in (1, 2) or 0 in table.shape[1:]:
        remedy = "Build a `Problem` for labels of images."
        raise ValueError(should(_of(name), "have the shape (n,) or (n, channels)", f"shape {table.shape}", remedy))
    if table.dtype.kind in "mM":
        raise TypeError(
            should(_of(name), "be numbers, texts or booleans", "dates", "Make numbers of them, such as days since one.")
        )
    return table if table.dtype.kind in _DTYPES else _plain(name, table.astype(object))


def _plain(name: str, table: Values) -> Values:
    """An array of objects as one of numbers, where all that are known are numbers; otherwise of texts or booleans."""
    missing = _missing(table)
    known = table[~missing]
    if all(isinstance(value, (bool, np.bool_)) for value in known) or (table.ndim == 1 and all(isinstance(v, str) for v in known)):
        return table
    if wrong := {type(value).__name__ for value in known if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real)}:
        kinds = sorted({type(value).__name__ for value in known})
        condition = f"be all numbers, all texts or all booleans, not {', '.join(sorted(wrong))}"
        raise TypeError(should(_of(name), condition, f"values of type {', '.join(kinds)}"))
    numbers = np.full(table.shape, np.nan)
    numbers[~missing] = known.astype(np.float64)
    return numbers


def _missing(table: Values) -> npt.NDArray[np.bool_]:
    import pandas as pd  # late: it takes longer than to load a problem of the table

    missing: npt.NDArray[np.bool_] = pd.isna(table)
    return missing


def _different(name: str, known: Values) -> list[Any]:
    """The different labels in ascending order, as plain Python values; whole numbers as int."""
    if known.dtype.kind == "f" and (wrong := known[~(np.abs(known) <= LARGEST_FLOAT)]).size:
        raise ValueError(should(_of(name), "be finite, or NaN where missing", float(wrong[0])))
    values = np.unique(known).tolist() if known.dtype != object else sorted(map(_python, set(known.tolist())))
    return [int(value) if isinstance(value, float) and value.is_integer() else value for value in values]


def _python(value: Any) -> Any:
    """A boolean or text as Python's own."""
    return bool(value) if isinstance(value, np.bool_) else str(value) if isinstance(value, str) else value


def _inferred(table: Values, known: Values, different: list[Any]) -> str:
    if table.ndim == 2:
        return "binary" if different in ([0, 1], [False, True]) else "regression"
    if isinstance(different[0], (bool, str)):
        return "binary" if len(different) == 2 else "classes"
    whole = all(isinstance(value, int) for value in different)
    few = len(different) <= MOST_CLASSES and len(different) * FEWEST_SAMPLES <= len(known)
    return "regression" if not (whole and few) else "binary" if len(different) == 2 else "classes"


def _regression(name: str, table: Values, missing: Values, different: list[Any]) -> Labels:
    if isinstance(different[0], str):
        raise ValueError(should(f"kinds[{name!r}]", "not be 'regression' for texts", different[:5]))
    numbers = np.full(table.shape, np.nan)
    numbers[~missing] = table[~missing].astype(np.float64)
    columns = numbers.reshape(len(numbers), -1)
    if (np.fmin.reduce(columns) == np.fmax.reduce(columns)).all():
        raise ValueError(
            should(_of(name), "have different labels in some column; columns of one value", [*range(columns.shape[1])])
        )
    return Labels(Task(name, "mse", ("nrmse",), columns.shape[1]), columns, scaled=True)


def _binary(name: str, table: Values, missing: Values, different: list[Any]) -> Labels:
    if len(different) != 2:
        raise ValueError(should(f"kinds[{name!r}]", f"not be 'binary' for {len(different)} different labels", different[:5]))
    columns = _indices(table, missing, different).reshape(len(table), -1)
    count = columns.shape[1]
    return Labels(Task(name, "bce", ("auc",) if count == 1 else ("accuracy",), count, _classes(different)), columns)


def _multiclass(name: str, table: Values, missing: Values, different: list[Any]) -> Labels:
    if table.ndim == 2:
        raise ValueError(should(f"kinds[{name!r}]", "not be 'classes' for several columns", f"shape {table.shape}"))
    if 2 * len(different) > (~missing).sum():
        condition = f"have fewer classes than half its labels; most of its {len(different)} classes have one sample"
        remedy = "Merge rare classes, or leave the task out." if isinstance(different[0], str) else _REMEDY.format(name=name)
        raise ValueError(should(_of(name), condition, different[:5], remedy))
    columns = _indices(table, missing, different)[:, None]
    return Labels(Task(name, "cross_entropy", ("accuracy",), len(different), _classes(different)), columns)


def _indices(table: Values, missing: Values, different: list[Any]) -> npt.NDArray[np.float64]:
    """Labels as indices among the different ones; NaN where one is missing."""
    place = {value: index for index, value in enumerate(different)}
    indices = np.full(table.shape, np.nan)
    indices[~missing] = [place[value] for value in table[~missing].tolist()]
    return indices


def _classes(different: list[Any]) -> tuple[object, ...]:
    """What the indices stand for; nothing where that is the indices themselves."""
    plain = [*range(len(different))]
    return () if different == plain and not isinstance(different[0], bool) else tuple(different)


_MAKERS: dict[str, Callable[[str, Values, Values, list[Any]], Labels]] = {
    "regression": _regression,
    "classes": _multiclass,
    "binary": _binary,
}

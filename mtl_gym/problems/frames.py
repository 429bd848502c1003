"""Problems from tables: numbers, categories and missing values of a pandas frame as the inputs of a network."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mtl_gym.checks import sequence, should, unknown
from mtl_gym.problems.divisions import division

if TYPE_CHECKING:
    import pandas as pd

    from mtl_gym.problems.base import Problem

Numbers = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
_RARE, _RARE_FRACTION = 2, 0.005
"""A category is rare if *train* has fewer samples of it, or a smaller fraction: ours, so that there are at most 200 columns."""
OTHER = "other"


@dataclass(frozen=True, eq=False)
class Inputs:
    """A table as the inputs of a network.

    Attributes:
        values: (n, F) float64.
        names: What each of the F columns is: ``"age"``, ``"age missing"``, ``"town=Ulm"``, ``"town=other"``.
        numbers: The columns that are numbers, and are standardised; the others are 0 or 1.
    """

    values: Numbers
    names: tuple[str, ...]
    numbers: tuple[int, ...]


def from_frame(
    _cls: type[Problem],
    /,
    frame: pd.DataFrame,
    targets: Sequence[str],
    *,
    groups: str | None = None,
    time: str | None = None,
    seed: int = 0,
    **options: Any,
) -> Problem:
    """Makes a problem from a pandas frame: some columns are labels, all others inputs; see :meth:`Problem.from_arrays`.

    Everything that inputs need is taken from *train* alone: numbers are standardised, where they are missing the median is filled
    in, and a further column says so; booleans become 0 and 1; texts and categories one column for each value that *train* has (at
    least twice, and in .5 % of its samples), and ``other`` for the rest, if *train* has any: otherwise, a value that *train* lacks
    is 0 in all of these columns. :func:`encoded` says which column is which. Instances that draw their own splits standardise by
    their own *train*, but share medians and categories.

    Args:
        frame: A row per sample; the index is not used.
        targets: Names of the columns that are labels: numbers, booleans, texts or categories, perhaps missing.
        groups: A column whose equal values are never in two splits, such as patients; it is no input.
        time: A column of numbers or dates in whose order splits follow each other; it is no input.
        seed: Selects the random division.
        options: Further arguments of :meth:`Problem.from_arrays`: ``name``, ``kinds``, ``fractions``, ``lr`` ...

    Raises:
        TypeError: If ``frame`` is no frame, or an input column holds dates or objects.
        ValueError: If a column is not there or twice, is missing in *train*, or identifies samples; errors name the column. Those
            of :meth:`Problem.from_arrays` too.

    Example:
        >>> import pandas as pd, mtl_gym
        >>> columns = {"size": range(200), "town": ["Bonn", "Ulm"] * 100, "rent": range(0, 600, 3), "old": [True, False] * 100}
        >>> frame = pd.DataFrame(columns)
        >>> problem = mtl_gym.Problem.from_frame(frame, ["rent", "old"])
        >>> problem.tasks[0].loss, problem.tasks[1].loss, problem.input_shape
        ('mse', 'bce', (3,))
    """
    chosen = _chosen(frame, targets, {"groups": groups, "time": time})
    apart: dict[str, Any] = {name: None if own is None else frame[own] for name, own in {"groups": groups, "time": time}.items()}
    rows = division(len(frame), seed=seed, fractions=options.get("fractions"), **apart).rows
    inputs = encoded(frame[[name for name in frame.columns if name not in chosen]], rows["train"])
    labels = {name: frame[name] for name in _names("targets", targets)}
    if unwanted := {"standardise"} & options.keys():
        raise TypeError(should("standardise", "be left out: numbers are standardised, and other columns are not", [*unwanted]))
    return _cls.from_arrays(inputs.values, labels, seed=seed, standardise=inputs.numbers, **apart, **options)


def _chosen(frame: Any, targets: Any, apart: dict[str, str | None]) -> set[str]:
    """The columns that are no inputs, after all names are checked."""
    import pandas as pd  # late: it takes longer than to load a problem of the table

    if not isinstance(frame, pd.DataFrame):
        raise TypeError(should("frame", "be a pandas DataFrame", type(frame).__name__, "Problem.from_arrays takes arrays."))
    columns = frame.columns.tolist()
    if repeated := sorted({str(name) for name in columns if columns.count(name) > 1}):
        raise ValueError(should("frame", "have different names of columns", repeated))
    named = [("targets", name) for name in _names("targets", targets)]
    named += [(argument, name) for argument, name in apart.items() if name is not None]
    for argument, name in named:
        if name not in columns:
            raise ValueError(unknown(argument, name, map(str, columns)))
    if len({name for _, name in named}) < len(named):
        raise ValueError(should("targets", "not name a column twice, or one of `groups` or `time`", [name for _, name in named]))
    if len(named) == len(columns):
        raise ValueError(should("frame", "have a column besides these, for inputs", columns))
    return {name for _, name in named}


def _names(argument: str, names: Any) -> Sequence[str]:
    chosen = sequence(argument, names)
    if not chosen:
        raise ValueError(should(argument, "name at least one column", names))
    return chosen


def encoded(frame: pd.DataFrame, train: npt.NDArray[np.int64]) -> Inputs:
    """Columns of a frame as the inputs of a network; what this needs to know it learns from the rows ``train`` alone.

    Raises:
        TypeError, ValueError: As :func:`from_frame`.
    """
    parts = []
    for name in frame.columns:
        column = frame[name].reset_index(drop=True)
        known = column[column.notna()]
        if not column.iloc[train].notna().any():
            remedy = f"Leave it out: frame.drop(columns=[{name!r}])."
            raise ValueError(should(_of(name), "have values in *train*", "missing values only", remedy))
        parts.append(_encoder(name, known)(name, column, train))
    ends = np.cumsum([len(own.names) for own in parts]).tolist()
    numbers = [index + end - len(own.names) for own, end in zip(parts, ends, strict=True) for index in own.numbers]
    values = np.concatenate([own.values for own in parts], axis=1)
    return Inputs(values, tuple(name for own in parts for name in own.names), tuple(numbers))


def _of(name: object) -> str:
    return f"frame[{name!r}]"


def _encoder(name: object, known: pd.Series[Any]) -> Encoder:
    """What encodes a column with these known values."""
    import pandas as pd
    from pandas.api import types

    if types.is_bool_dtype(known.dtype) or all(isinstance(value, (bool, np.bool_)) for value in known):
        return _boolean
    if types.is_numeric_dtype(known.dtype) and not types.is_complex_dtype(known.dtype):
        return _number
    if known.dtype.kind in "mM" or isinstance(known.iloc[0], (datetime.date, datetime.timedelta)):
        remedy = f"Make numbers of it, such as frame[{name!r}].dt.year, or divide by it: time={name!r}."
        raise TypeError(should(_of(name), "be numbers, booleans, texts or categories", "dates", remedy))
    if isinstance(known.dtype, pd.CategoricalDtype) or all(isinstance(value, str) for value in known):
        return _category
    if all(isinstance(value, Real) for value in known):
        return _number
    kinds = sorted({type(value).__name__ for value in known})
    raise TypeError(should(_of(name), "be numbers, booleans, texts or categories", f"values of type {', '.join(kinds)}"))


def _boolean(name: object, column: pd.Series[Any], train: Rows) -> Inputs:
    missing = column.isna().to_numpy()
    values = column.where(~missing, False).astype(bool).to_numpy().astype(np.float64)
    return _with_missing(Inputs(values[:, None], (str(name),), ()), name, missing, train)


def _number(name: object, column: pd.Series[Any], train: Rows) -> Inputs:
    plain = column.astype("Float64" if column.dtype == object else column.dtype)
    values: Numbers = np.array(plain.to_numpy(dtype=np.float64, na_value=np.nan), dtype=np.float64)
    missing = np.isnan(values)
    if (wrong := np.flatnonzero(np.isinf(values))).size:
        raise ValueError(should(_of(name), "be finite; rows that are not", wrong[:20].tolist()))
    values[missing] = np.median(values[train][~missing[train]])
    return _with_missing(Inputs(values[:, None], (str(name),), (0,)), name, missing, train)


def _category(name: object, column: pd.Series[Any], train: Rows) -> Inputs:
    import pandas as pd  # late: it takes longer than to load a problem of the table

    missing = column.isna().to_numpy()
    texts = column.astype(object).where(~missing, "").map(str).to_numpy()
    levels, counts = np.unique(texts[train][~missing[train]], return_counts=True)
    kept = [str(level) for level, count in zip(levels, counts, strict=True) if _common(level, count, len(train))]
    if not kept:
        remedy = f"Leave it out, or divide by it: groups={name!r}."
        condition = f"have values that recur in *train*; its {len(levels)} values identify samples"
        raise ValueError(should(_of(name), condition, levels[:5].tolist(), remedy))
    place = np.where(missing, -1, pd.Index(kept).get_indexer(pd.Index(texts)))
    values = np.zeros((len(texts), len(kept)))
    values[np.flatnonzero(place >= 0), place[place >= 0]] = 1
    names = [f"{name}={level}" for level in kept]
    rest = (place < 0) & ~missing
    if rest[train].any():
        values, names = np.column_stack([values, rest]), [*names, f"{name}={OTHER}"]
    return _with_missing(Inputs(values, tuple(names), ()), name, missing, train)


def _common(level: str, count: int, total: int) -> bool:
    return level != OTHER and count >= max(_RARE, math.ceil(_RARE_FRACTION * total))


def _with_missing(made: Inputs, name: object, missing: npt.NDArray[np.bool_], train: Rows) -> Inputs:
    """A further column that is 1 where the value is missing, if any is in *train*."""
    if not missing[train].any():
        return made
    values = np.column_stack([made.values, missing]).astype(np.float64)
    return Inputs(values, (*made.names, f"{name} missing"), made.numbers)


Encoder = Callable[[object, "pd.Series[Any]", Rows], Inputs]

"""Columns of a table as inputs of a network: what each learns from *train*, and how it then reads any rows.

n is the number of rows, F the number of inputs, of one column or of all.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mtl_gym.checks import should

if TYPE_CHECKING:
    import pandas as pd

Numbers = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]
_RARE, _RARE_FRACTION = 2, 0.005
"""A category is rare if *train* has fewer samples of it, or a smaller fraction: ours, so that there are at most 200 columns."""
OTHER = "other"
BOOLEANS, NUMBERS, TEXTS = "booleans", "numbers", "texts or categories"
"""The kinds of columns, as errors call them."""


@dataclass(frozen=True)
class Column:
    """A column that has been learnt.

    Attributes:
        name: Its name in the frame.
        kind: ``BOOLEANS``, ``NUMBERS`` or ``TEXTS``.
        median: Of numbers, what is filled in where they are missing.
        levels: Of texts, the values that have an input of their own.
        other: Of texts, whether a further input is 1 for all other values.
        flagged: Whether a further input is 1 where the value is missing.
    """

    name: object
    kind: str
    median: float = 0.0
    levels: tuple[str, ...] = ()
    other: bool = False
    flagged: bool = False

    @classmethod
    def learnt(cls, name: object, column: pd.Series[Any], train: Rows) -> Column:
        """Learns from the rows ``train`` of a column (n,); raises a TypeError or ValueError that names it."""
        known = column[column.notna()]
        if not column.iloc[train].notna().any():
            remedy = f"Leave it out: frame.drop(columns=[{name!r}])."
            raise ValueError(should(_of(name), "have values in *train*", "missing values only", remedy))
        own = _LEARNT[kind_of(name, known)](name, column, train)
        return replace(own, flagged=bool(_READ[own.kind](own, column)[1][train].any()))

    @property
    def names(self) -> tuple[str, ...]:
        """What each of its inputs is: ``"age"``, ``"age missing"``, ``"town=Ulm"``, ``"town=other"``."""
        levels = [f"{self.name}={level}" for level in self.levels] + [f"{self.name}={OTHER}"] * self.other
        return (*(levels or [str(self.name)]), *[f"{self.name} missing"] * self.flagged)

    def read(self, column: pd.Series[Any]) -> Numbers:
        """The inputs (n, F) of a column (n,) of the same kind, or one without any value."""
        import pandas as pd  # late: it takes longer than to load a problem of the table

        known = column[column.notna()]
        if not len(known):
            column = pd.Series([None] * len(column), dtype=object)
        elif (found := kind_of(self.name, known)) != self.kind:
            raise TypeError(should(_of(self.name), f"hold {self.kind}, as in *train*", found, _converted(self.name, self.kind)))
        values, missing = _READ[self.kind](self, column)
        return np.column_stack([values, missing]).astype(np.float64) if self.flagged else values


@dataclass(frozen=True)
class Table:
    """All columns of a frame that are inputs, as learnt from *train*."""

    columns: tuple[Column, ...]

    @classmethod
    def learnt(cls, frame: pd.DataFrame, train: Rows) -> Table:
        """Learns all columns of a frame from the rows ``train``; raises a TypeError or ValueError that names a column."""
        return cls(tuple(Column.learnt(name, frame[name].reset_index(drop=True), train) for name in frame.columns))

    @property
    def names(self) -> tuple[str, ...]:
        """What each of the F inputs is."""
        return tuple(name for own in self.columns for name in own.names)

    @property
    def numbers(self) -> tuple[int, ...]:
        """The inputs that are numbers, and are standardised; the others are 0 or 1."""
        ends = np.cumsum([len(own.names) for own in self.columns]).tolist()
        return tuple(end - len(own.names) for own, end in zip(self.columns, ends, strict=True) if own.kind == NUMBERS)

    def read(self, frame: Any) -> Numbers:
        """The inputs (n, F), as float64, of a frame that has these columns; others are not read.

        Raises:
            TypeError: If ``frame`` is no frame, or a column is of another kind than in *train*.
            ValueError: If it has no rows, lacks a column or has it twice, or holds infinite numbers.
        """
        import pandas as pd

        if not isinstance(frame, pd.DataFrame):
            remedy = "Of a single row: frame.iloc[[0]]." if isinstance(frame, pd.Series) else ""
            raise TypeError(should("frame", "be a pandas DataFrame", type(frame).__name__, remedy))
        if not len(frame):
            raise ValueError(should("frame", "have at least one row", f"{len(frame)} rows"))
        there = [*frame.columns]
        if lacking := [own.name for own in self.columns if own.name not in there]:
            condition = f"have all columns that are inputs of the problem; not there: {', '.join(map(str, lacking))}"
            raise ValueError(should("frame", condition, there))
        if twice := [own.name for own in self.columns if there.count(own.name) > 1]:
            raise ValueError(should("frame", "have each column once", twice))
        return np.concatenate([own.read(frame[own.name].reset_index(drop=True)) for own in self.columns], axis=1)


def _of(name: object) -> str:
    return f"frame[{name!r}]"


def _converted(name: object, kind: str) -> str:
    """How a column becomes one of this kind."""
    text = {BOOLEANS: "astype('boolean')", NUMBERS: "astype(float)", TEXTS: "astype('category')"}[kind]
    return f"Convert it: frame[{name!r}].{text}."


def kind_of(name: object, known: pd.Series[Any]) -> str:
    """The kind of a column with these known values, at least one; raises a TypeError if it is none."""
    import pandas as pd
    from pandas.api import types

    if types.is_bool_dtype(known.dtype) or all(isinstance(value, (bool, np.bool_)) for value in known):
        return BOOLEANS
    if types.is_numeric_dtype(known.dtype) and not types.is_complex_dtype(known.dtype):
        return NUMBERS
    if known.dtype.kind in "mM" or isinstance(known.iloc[0], (datetime.date, datetime.timedelta)):
        remedy = f"Make numbers of it, such as frame[{name!r}].dt.year, or divide by it: time={name!r}."
        raise TypeError(should(_of(name), "be numbers, booleans, texts or categories", "dates", remedy))
    if isinstance(known.dtype, pd.CategoricalDtype) or all(isinstance(value, str) for value in known):
        return TEXTS
    if all(isinstance(value, Real) for value in known):
        return NUMBERS
    kinds = sorted({type(value).__name__ for value in known})
    raise TypeError(should(_of(name), "be numbers, booleans, texts or categories", f"values of type {', '.join(kinds)}"))


def _learnt_booleans(name: object, column: pd.Series[Any], train: Rows) -> Column:
    return Column(name, BOOLEANS)


def _learnt_numbers(name: object, column: pd.Series[Any], train: Rows) -> Column:
    values = _floats(name, column)[train]
    return Column(name, NUMBERS, median=float(np.median(values[~np.isnan(values)])))


def _learnt_texts(name: object, column: pd.Series[Any], train: Rows) -> Column:
    texts, missing = _texts(column)
    levels, counts = np.unique(texts[train][~missing[train]], return_counts=True)
    kept = [str(level) for level, count in zip(levels, counts, strict=True) if _common(level, count, len(train))]
    if not kept:
        remedy = f"Leave it out, or divide by it: groups={name!r}."
        condition = f"have values that recur in *train*; its {len(levels)} values identify samples"
        raise ValueError(should(_of(name), condition, levels[:5].tolist(), remedy))
    return Column(name, TEXTS, levels=tuple(kept), other=len(kept) < len(levels))


def _common(level: str, count: int, total: int) -> bool:
    return level != OTHER and count >= max(_RARE, math.ceil(_RARE_FRACTION * total))


def _read_booleans(own: Column, column: pd.Series[Any]) -> tuple[Numbers, Mask]:
    missing = column.isna().to_numpy()
    values = column.where(~missing, False).astype(bool).to_numpy().astype(np.float64)
    return values[:, None], missing


def _read_numbers(own: Column, column: pd.Series[Any]) -> tuple[Numbers, Mask]:
    values = _floats(own.name, column)
    missing = np.isnan(values)
    values[missing] = own.median
    return values[:, None], missing


def _read_texts(own: Column, column: pd.Series[Any]) -> tuple[Numbers, Mask]:
    import pandas as pd

    texts, missing = _texts(column)
    place = np.where(missing, -1, pd.Index(own.levels, dtype=object).get_indexer(pd.Index(texts, dtype=object)))
    values = np.zeros((len(texts), len(own.levels)))
    values[np.flatnonzero(place >= 0), place[place >= 0]] = 1
    return np.column_stack([values, (place < 0) & ~missing]) if own.other else values, missing


def _floats(name: object, column: pd.Series[Any]) -> Numbers:
    """Numbers (n,) as float64, NaN where they are missing."""
    plain = column.astype("Float64" if column.dtype == object else column.dtype)
    values: Numbers = np.array(plain.to_numpy(dtype=np.float64, na_value=np.nan), dtype=np.float64)
    if (wrong := np.flatnonzero(np.isinf(values))).size:
        raise ValueError(should(_of(name), "be finite; rows that are not", wrong[:20].tolist()))
    return values


def _texts(column: pd.Series[Any]) -> tuple[npt.NDArray[np.object_], Mask]:
    """Texts (n,), empty where they are missing."""
    missing = column.isna().to_numpy()
    return column.astype(object).where(~missing, "").map(str).to_numpy(), missing


_LEARNT: dict[str, Callable[[object, pd.Series[Any], Rows], Column]] = {
    BOOLEANS: _learnt_booleans,
    NUMBERS: _learnt_numbers,
    TEXTS: _learnt_texts,
}
_READ: dict[str, Callable[[Column, pd.Series[Any]], tuple[Numbers, Mask]]] = {
    BOOLEANS: _read_booleans,
    NUMBERS: _read_numbers,
    TEXTS: _read_texts,
}

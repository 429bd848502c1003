"""Problems from tables: numbers, categories and missing values of a pandas frame as the inputs of a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mtl_gym.checks import sequence, should, unknown
from mtl_gym.problems.columns import Table
from mtl_gym.problems.divisions import division

if TYPE_CHECKING:
    import pandas as pd

    from mtl_gym.problems.base import Problem


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
    is 0 in all of these columns. ``problem.encoding.names`` says which input is which, and :meth:`Problem.encode` applies the same
    to new rows. Instances that draw their own splits standardise by their own *train*, but share medians and categories.

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
    raw = frame[[name for name in frame.columns if name not in chosen]]
    learnt = Table.learnt(raw, rows["train"])
    labels = {name: frame[name] for name in _names("targets", targets)}
    if unwanted := {"standardise"} & options.keys():
        raise TypeError(should("standardise", "be left out: numbers are standardised, and other columns are not", [*unwanted]))
    problem = _cls.from_arrays(learnt.read(raw), labels, seed=seed, standardise=learnt.numbers, **apart, **options)
    problem.encoding = problem.encoding and replace(problem.encoding, source=learnt)
    return problem


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

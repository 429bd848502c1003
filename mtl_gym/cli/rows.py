"""Tables of texts in a terminal, narrow or wide."""

from __future__ import annotations

from rich.cells import cell_len
from rich.markup import escape
from rich.table import Table

from mtl_gym.cli.messages import console

Row = dict[str, str]
_FOLDED = 20
"""Characters into which a column is folded at most."""


def print_rows(title: str, rows: list[Row]) -> None:
    """Prints rows under a title, of as many columns as there is room for; nothing if there are none.

    Texts are folded, the first column's, which are names, only if there is no other way.
    """
    if not rows:
        return
    name, *others = rows[0]
    widths = {column: max(cell_len(text) for text in (column, *(row[column] for row in rows))) for column in rows[0]}
    widths |= {column: min(_FOLDED, widths[column]) for column in others}
    ends = [widths[name] + sum(2 + widths[column] for column in others[: count + 1]) for count in range(len(others))]
    shown = [name, *others[: max(1, sum(end <= console.width for end in ends))]]  # the last ones are left out if there is no room
    result = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in shown:
        result.add_column(column, overflow="fold", min_width=widths[column])
    for row in rows:
        result.add_row(*(escape(row[column]) for column in shown))
    console.print(result)
    console.print()

"""Two runs side by side, as texts for a terminal, as CSV and as a page."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from mtl_gym.cache import check_writable, write_whole
from mtl_gym.envs.looks import RULE
from mtl_gym.envs.spec import PageFigure
from mtl_gym.evaluation.figures import draw_each
from mtl_gym.evaluation.layout import NARROW, name_length, page_width
from mtl_gym.evaluation.report import listing, sections
from mtl_gym.evaluation.report_tables import estimate, html_head, html_row, html_table, marked
from mtl_gym.evaluation.styles import adjusted, interval, styles, wrapped
from mtl_gym.evaluation.suite_page import ends_of
from mtl_gym.evaluation.templates import filled

_FIGURES = {
    "change": PageFigure(
        "mtl_gym.evaluation.side_page:change",
        "Difference of each policy",
        "Mean difference of the second run from the first on the same instances, with its 95 % interval.",
    )
}
_FILES = ("side_by_side.html", "side_by_side.csv")


def check_sides(folder: Path) -> None:
    """Raises ValueError if the page cannot be written to a folder."""
    check_writable(folder, _FILES, [])


def write_sides(table: pd.DataFrame, folder: Path) -> list[Path]:
    """Writes ``side_by_side.html`` and ``.csv`` from the frame of :func:`mtl_gym.side_by_side`; returns their paths."""
    files = [folder / name for name in _FILES]
    for file, text in zip(files, (_page(table), table.to_csv()), strict=True):
        write_whole(file, text)
    return files


def side_rows(table: pd.DataFrame) -> list[dict[str, str]]:
    """The cells as texts."""
    return [
        {
            "policy": str(name),
            "first %": _text(row, "first"),
            "second %": _text(row, "second"),
            "second - first": f"{row['difference']:+z.2f} {interval(ends_of(row, ''))}",
            "verdict": row["verdict"],
            "same": f"{row['same']} of {row['instances']}",
            "passes": f"{row['passes']:.2f}",
        }
        for name, row in zip(table.index, table.to_dict("records"), strict=True)
    ]


def _text(row: Mapping[Any, Any], name: str) -> str:
    return f"{row[name]:z.2f} {interval(ends_of(row, name))}"


def _page(table: pd.DataFrame) -> str:
    title = table.attrs["title"]
    wide, narrow = draw_each(_FIGURES, (table,)), draw_each(_FIGURES, (table,), NARROW)
    runs = zip(("first", "second"), table.attrs["commands"], strict=True)
    return filled(
        "side_by_side.html",
        title=escape(title),
        headline=escape(side_headline(table)),
        table=_table(table),
        notes="".join(f"<li>{escape(line)}</li>" for line in table.attrs["notes"]),
        figures=sections(_FIGURES, wide, narrow, {}),
        studies=_studies(table),
        run=listing({name: "; ".join(filter(None, own)) or "from Python" for name, own in runs}, []),
    )


def side_headline(table: pd.DataFrame) -> str:
    """How many policies are better, worse, equal or not told apart in the second run."""
    counts = table["verdict"].replace("", "without a verdict, of fewer than five instances").value_counts()
    told = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    return f"Of {len(table)} policies that both runs have, in the second run: {told}."


def _table(table: pd.DataFrame) -> str:
    heads = {
        **{
            "first": ("first, %", "delta_m"),
            "second": ("second, %", "delta_m"),
            "difference": ("difference, points", "mean of pairs"),
        },
        **{
            "verdict": ("verdict", "Holm\u2019s adjusted p"),
            "same": ("same", "of shared instances"),
            "passes": ("passes", "ratio"),
        },
    }
    looks, rows = styles(table.index), []
    for name, row in zip(table.index, table.to_dict("records"), strict=True):
        cells = [
            *(estimate(row[run], ends_of(row, run)) for run in ("first", "second")),
            estimate(row["difference"], ends_of(row, ""), "+z.2f"),
            row["verdict"] and f"{row['verdict']} <small>{adjusted(row['p'])}</small>",
            f"{row['same']} <small>of {row['instances']}</small>",
            f"{row['passes']:.2f}",
        ]
        rows.append(html_row(marked(str(name), looks[name]), cells))
    return html_table(
        "Side by side, with 95 % intervals", [html_head("policy", ""), *(html_head(*own) for own in heads.values())], rows
    )


def _studies(table: pd.DataFrame) -> str:
    """The mean differences on each study of a suite."""
    names = table.attrs["studies"]
    if not names:
        return ""
    looks = styles(table.index)
    rows = [
        html_row(marked(str(name), looks[name]), [f"{table.attrs['by_study'][study][name]:+z.2f}" for study in names])
        for name in table.index
    ]
    heads = [html_head("policy", ""), *(html_head(study, "") for study in names)]
    own = html_table("Mean differences, second minus first, in points", heads, rows)
    return f'<section aria-labelledby="studies"><h2 id="studies">Each study</h2>{own}</section>'


def change(table: pd.DataFrame) -> Figure:
    """Each policy's mean difference with its interval."""
    figure, looks = Figure(figsize=(min(page_width(), 8.0), 0.6 + 0.27 * len(table)), layout="constrained"), styles(table.index)
    axes = figure.subplots()
    for place, (name, row) in enumerate(zip(table.index, table.to_dict("records"), strict=True)):
        axes.hlines(place, row["low"], row["high"], color=looks[name]["color"], linewidth=2.5)
        axes.plot(row["difference"], place, marker=looks[name]["marker"], markersize=6.5, color=looks[name]["color"])
    axes.axvline(0, color=RULE, linewidth=1, zorder=1.9)
    axes.set_yticks(range(len(table)), wrapped([*map(str, table.index)], name_length()))
    axes.set(ylim=(len(table) - 0.4, -0.6), xlabel="second - first, points of delta_m")
    axes.grid(visible=False, axis="y")
    axes.locator_params(axis="x", nbins=5)
    return figure

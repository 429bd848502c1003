"""The tables of a comparison's page: scores, and metrics on the test split."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from mtl_gym.envs.spec import Column
from mtl_gym.evaluation.columns import INVALID_ACTIONS, columns_of
from mtl_gym.evaluation.layout import MOST_DRAWN
from mtl_gym.evaluation.styles import adjusted, interval, parts, ranked, style, text

Summary = Mapping[str, Any]

_ABREAST = 8
"""Most metrics side by side."""
_GLYPHS = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼", "P": "✚", "X": "✖"}
"""Markers as characters."""
_QUANTILES = {"lowest": 0.0, "10 %": 0.1, "median": 0.5, "90 %": 0.9, "highest": 1.0}
_REFERENCE = "single-task learning, the reference"


def scores(summary: Summary, best: str) -> str:
    """Each policy's delta_m, difference from the ``best`` one with the verdict on it, and cost, best first.

    All of them are means; every heading says so. Medians stand below means that few instances carry.
    """
    policies, columns = summary["policies"], _columns(summary)
    others = _against(summary, best) if len(policies) > 1 else {}
    heads = [("policy", ""), ("delta_m, %", "mean"), *others, ("passes", "forward, backward")]
    heads += [(column.head, "mean") for column in columns]
    diverged = any(row["diverged"] for row in policies.values())
    heads += [("diverged", "instances")] if diverged else []
    rows, labels = [], [f"{head} ({below})" for head, below in heads[1:]]
    for name in ranked(summary):
        row = policies[name]
        cells = [estimate(row["delta_m"]["mean"], row["delta_m"]), *(cells[name] for cells in others.values())]
        cells.append(f"{row['cost']['forward']:.0f}&#8239;F <small>{row['cost']['backward']:.0f}&#8239;B</small>")
        cells += [_cell(column, row[column.name]) for column in columns]
        cells += [str(row["diverged"])] if diverged else []
        rows.append(html_row(_policy(summary, name), cells, "best" if name == best else "", labels))
    return html_table("Scores, best first, with 95 % intervals", [html_head(*head) for head in heads], rows, kind="cards")


def _against(summary: Summary, best: str) -> dict[tuple[str, str], dict[str, str]]:
    """Heads to cells, by policy, of the columns that compare each policy with the best one."""
    pairs = {name: row["paired"].get(best, {}) for name, row in summary["policies"].items()}
    found = {name: row.get(best) for name, row in summary["verdicts"].items()}
    chances = {name: row["probability_of_improvement"].get(best) for name, row in summary["policies"].items()}
    return {
        (f"difference from {best}, points", "mean of pairs"): {
            name: estimate(pair["difference"], pair, "+z.2f") if pair else "" for name, pair in pairs.items()
        },
        ("verdict", "Holm\u2019s adjusted p"): {
            name: f"{own['verdict']} <small>{adjusted(own['p'])}</small>" if own else "" for name, own in found.items()
        },
        (f"P(better than {best})", "fraction"): {name: text(chances[name]) if pair else "" for name, pair in pairs.items()},
    }


def metrics(summary: Summary) -> str:
    """Each policy's mean metrics on the test split, a few to a table; of many, quantiles over the tasks."""
    names, known = ranked(summary), summary["about"]["metrics"]
    of = {name: {metric: own["mean"] for metric, own in summary["policies"][name]["metrics"].items()} for name in names}
    references = {metric: own["reference"] for name in names for metric, own in summary["policies"][name]["metrics"].items()}
    if len(known) > MOST_DRAWN:
        return "".join(
            _quantiles(summary, kind, of, references) for kind in dict.fromkeys(name.rsplit("/", 1)[1] for name in known)
        )
    tables: list[str] = []
    for part in np.array_split(list(known), math.ceil(len(known) / _ABREAST)):
        heads = [html_head("policy", ""), *(_metric_head(name, summary["about"]) for name in part.tolist())]
        rows = [html_row(_policy(summary, name), [text(of[name].get(metric), ".3f") for metric in part.tolist()]) for name in names]
        rows.append(html_row(_REFERENCE, [text(references.get(metric), ".3f") for metric in part.tolist()], "reference"))
        tables.append(html_table("" if tables else "Metrics on the test split, means", heads, rows))
    return "".join(tables)


def _quantiles(summary: Summary, kind: str, of: Mapping[str, Mapping[str, float | None]], references: Mapping[str, float]) -> str:
    """The distribution of one kind of metric over the tasks, for each policy and the references."""
    arrow = _arrow(next(row for name, row in summary["about"]["metrics"].items() if name.rsplit("/", 1)[1] == kind))
    rows, count = [], 0
    for name, means in [*((_policy(summary, name), own) for name, own in of.items()), (_REFERENCE, references)]:
        own = [value for metric, value in means.items() if metric.rsplit("/", 1)[1] == kind and value is not None]
        count = max(count, len(own))
        cells = np.quantile(own, [*_QUANTILES.values()]).tolist() if own else [None] * len(_QUANTILES)
        rows.append(html_row(name, [text(value, ".3f") for value in cells], "reference" if means is references else ""))
    caption = f"{kind} {arrow} on the test split: quantiles over {count} tasks of the means over instances"
    return html_table(caption, [html_head("policy", ""), *(html_head(name, "") for name in _QUANTILES)], rows)


def _columns(summary: Summary) -> list[Column]:
    """The environment's columns to show; that of masked actions only if there are any."""
    policies = summary["policies"].values()
    known = [column for column in columns_of(summary["about"]["env"]) if all(column.name in row for row in policies)]
    idle = not any(row[INVALID_ACTIONS.name]["mean"] for row in policies if INVALID_ACTIONS.name in row)
    return [column for column in known if not (idle and column is INVALID_ACTIONS)]


def html_table(caption: str, heads: Sequence[str], rows: Sequence[str], kind: str = "") -> str:
    """A table that scrolls alone, by keys too, where a narrow screen has no room for it; ``cards`` become one card for each row."""
    label = escape(caption or "continued")
    opened = f'<table class="{kind}">' if kind else "<table>"
    head = f"<caption><span>{label}</span></caption><thead><tr>{''.join(heads)}</tr></thead>"
    table = f"{opened}{head}<tbody>{''.join(rows)}</tbody></table>"
    return f'<div class="scroll" role="region" aria-label="{label}" tabindex="0">{table}</div>'


def html_head(name: str, below: str) -> str:
    """The head of a column, with a line below."""
    return f'<th scope="col">{breakable(name)}{f" <small>{escape(below)}</small>" if below else ""}</th>'


def _metric_head(name: str, about: Mapping[str, Any]) -> str:
    task, metric = name.rsplit("/", 1)
    main = " (main)" if task == about["arguments"].get("main_task") else ""
    return f'<th scope="col">{escape(task)}{main} <small>{escape(metric)} {_arrow(about["metrics"][name])}</small></th>'


def _arrow(row: Mapping[str, Any]) -> str:
    return "↑" if row["higher_is_better"] else "↓"


def html_row(name: str, cells: Sequence[str], kind: str = "", heads: Sequence[str] = ()) -> str:
    """A row; with ``heads``, each cell holds its own, which cards show."""
    opened = f'<tr class="{kind}">' if kind else "<tr>"
    tags = [f'<td data-head="{escape(head)}">' for head in heads] or ["<td>"] * len(cells)
    return (
        f'{opened}<th scope="row">{name}</th>'
        + "".join(f"{tag}{cell}</td>" for tag, cell in zip(tags, cells, strict=True))
        + "</tr>"
    )


def _policy(summary: Summary, name: str) -> str:
    """A policy's name, with the marker that it has in all figures."""
    return marked(name, style(summary, name))


def marked(name: str, look: Mapping[str, Any]) -> str:
    """A policy's name with its marker."""
    return f'<span style="color: {look["color"]}" aria-hidden="true">{_GLYPHS[look["marker"]]}</span>&nbsp;<b>{breakable(name)}</b>'


def breakable(name: str) -> str:
    """A name as HTML that a narrow screen breaks where its parts end, not within them."""
    broken = "<wbr>".join(map(escape, parts(name)))
    return broken.replace(" <wbr>", " ")  # where it is broken anyway


def estimate(value: float | None, ends: Mapping[str, Any], form: str = "z.2f") -> str:
    """A number with its interval below, and with the median if few instances carry it."""
    median = f" <small>median {text(ends['median'], form)}</small>" if ends.get("few_carry") else ""
    return f"{text(value, form)} <small>{interval(ends)}</small>{median}"


def _cell(column: Column, known: Mapping[str, float | None]) -> str:
    scaled = {end: value and column.factor * value for end, value in known.items() if end != "few_carry"}
    return estimate(scaled["mean"], {**scaled, "few_carry": known["few_carry"]}, column.form)

"""One self-contained page that presents a comparison."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from mtl_gym.cache import write_whole
from mtl_gym.envs.spec import Column, PageFigure
from mtl_gym.evaluation.columns import INVALID_ACTIONS, columns_of
from mtl_gym.evaluation.figures import draw_figures, page_figures
from mtl_gym.evaluation.results import Result
from mtl_gym.evaluation.styles import interval, ranked, text
from mtl_gym.evaluation.weight_rules import constant_quantities

Summary = Mapping[str, Any]

_WIDTH = re.compile(r'<svg[^>]*? width="([\d.]+)')
_SCROLLED = 2000
"""Width in points above which a figure scrolls instead of shrinking to the page."""


def write_report(results: Sequence[Result], summary: Summary, folder: Path) -> Path:
    """Writes ``report.html`` and returns its path: headline, table, figures, how to read them, settings. It loads no other files.

    ``summary`` is that of :func:`mtl_gym.summarize`.
    """
    about = summary["about"]
    main_task = about["arguments"].get("main_task")
    notes = {
        "rules": f" {constant_quantities(results)}",
        "forest": f" Of the main task, {escape(main_task)}, alone." if main_task else "",
    }
    rows = page_figures(about["env"])
    drawn = draw_figures(rows, results, summary)
    page = Template(resources.files("mtl_gym").joinpath("data").joinpath("report.html").read_text()).substitute(
        title=escape(f"{about['problem']}: {len(summary['policies'])} policies"),
        problem=escape(about["problem"]),
        env=escape(about["env"]),
        headline=headline(summary),
        table=_table(summary),
        figures="\n".join(_figure(rows[name], svg, notes.get(name, "")) for name, svg in drawn.items()),
        settings=_settings(about),
    )
    path = folder / "report.html"
    write_whole(path, page)
    return path


def headline(summary: Summary) -> str:
    """A sentence on which policy is best, whether its lead is significant, and the minimum detectable difference."""
    names, policies = ranked(summary), summary["policies"]
    row = policies[names[0]]
    gain = row["delta_m"]["iqm"]
    against = f"{abs(gain):.1f} % {'above' if gain >= 0 else 'below'} single-task learning"
    start = f"<strong>{escape(names[0])}</strong> performs best on {row['instances']} instances: {against}."
    if len(names) == 1:
        return start
    runner_up = f"<strong>{escape(names[1])}</strong>"
    pair = row["paired"].get(names[1])
    if pair is None:
        return f"{start} It shares no instance with {runner_up}."
    if pair["low"] is None:
        return f"{start} One instance is too few to compare it with {runner_up}."
    verdict = "is significant" if pair["low"] > 0 or pair["high"] < 0 else "is not significant"
    lead = f"mean difference {pair['difference']:+.2f} points, 95 % interval {interval(pair)}"
    return (
        f"{start} Its lead over {runner_up} <strong>{verdict}</strong> ({lead}); "
        f"the minimum detectable difference is {pair['detectable']:.2f} points."
    )


def _columns(summary: Summary) -> list[Column]:
    """The environment's columns to show; that of masked actions only if there are any."""
    policies = summary["policies"].values()
    known = [column for column in columns_of(summary["about"]["env"]) if all(column.name in row for row in policies)]
    idle = not any(row[INVALID_ACTIONS.name]["mean"] for row in policies if INVALID_ACTIONS.name in row)
    return [column for column in known if not (idle and column is INVALID_ACTIONS)]


def _table(summary: Summary) -> str:
    names, policies, metrics = ranked(summary), summary["policies"], summary["about"]["metrics"]
    best, columns = names[0], _columns(summary)
    heads = ["", "policy", "delta_m, %", "over the best", "P(better)", "passes", *(column.head for column in columns)]
    if any(row["diverged"] for row in policies.values()):
        heads.append("diverged")
    rows = [
        _row(rank, name, best, policies[name], metrics, columns, "diverged" in heads) for rank, name in enumerate(names, start=1)
    ]
    rows.append(_reference_row(policies[best], metrics, len(heads)))
    cells = "".join(f"<th>{escape(head)}</th>" for head in heads) + "".join(_metric_head(name, metrics) for name in metrics)
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _row(
    rank: int, name: str, best: str, row: Mapping[str, Any], metrics: Mapping[str, Any], columns: Sequence[Column], diverged: bool
) -> str:
    pair, cost = row["paired"].get(best, {}), row["cost"]
    cells = [
        str(rank),
        escape(name),
        f"{text(row['delta_m']['iqm'])} <small>{interval(row['delta_m'])}</small>",
        f"{text(pair.get('difference'), '+.2f')} <small>{interval(pair)}</small>" if pair else "",
        text(row["probability_of_improvement"].get(best)) if pair else "",
        f"{cost['forward']:.0f}&#8239;F&#8239;{cost['backward']:.0f}&#8239;B",
    ]
    cells += [_cell(column, row[column.name]) for column in columns]
    cells += [str(row["diverged"])] if diverged else []
    cells += [text(row["metrics"].get(metric, {}).get("mean"), ".3f") for metric in metrics]
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _cell(column: Column, known: Mapping[str, float | None]) -> str:
    scaled = {end: None if value is None else column.factor * value for end, value in known.items()}
    return f"{text(scaled['mean'], column.form)} <small>{interval(scaled)}</small>"


def _reference_row(row: Mapping[str, Any], metrics: Mapping[str, Any], width: int) -> str:
    empty = f"<td></td><td>single-task</td><td>0</td>{'<td></td>' * (width - 3)}"
    cells = [text(row["metrics"].get(metric, {}).get("reference"), ".3f") for metric in metrics]
    return f'<tr class="reference">{empty}{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'


def _metric_head(name: str, metrics: Mapping[str, Any]) -> str:
    task, metric = name.rsplit("/", 1)
    arrow = "&#8593;" if metrics[name]["higher_is_better"] else "&#8595;"
    return f"<th>{escape(task)}<br><small>{escape(metric)} {arrow}</small></th>"


def _figure(row: PageFigure, svg: str, note: str) -> str:
    wide = float(_WIDTH.search(svg)[1]) > _SCROLLED  # type: ignore[index]
    shown = f'<div class="scroll">{svg}</div>' if wide else svg
    return f"<section><h2>{escape(row.title)}</h2><p>{row.caption}{note}</p>{shown}</section>"


def _settings(about: Mapping[str, Any]) -> str:
    ids = about["instances"]
    rows = {"instances": f"{len(ids)}: {ids[0]} to {ids[-1]}", **about["arguments"], **about["versions"]}
    plain = {str(name): value if isinstance(value, str) else json.dumps(value) for name, value in rows.items()}
    lines = [f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in plain.items()]
    command = f"<pre>{escape(about['command'])}</pre>" if about.get("command") else ""
    return f"{command}<dl>{''.join(lines)}</dl>"

"""The page of a suite: its leaderboard, figures, studies, and what was run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mtl_gym.evaluation.figures import draw_each
from mtl_gym.evaluation.kernels import listed
from mtl_gym.evaluation.layout import NARROW
from mtl_gym.evaluation.notes import ONE_SPLIT
from mtl_gym.evaluation.report import listing, sections
from mtl_gym.evaluation.report_tables import breakable, estimate, html_head, html_row, html_table, marked
from mtl_gym.evaluation.standing_texts import described, notes_of
from mtl_gym.evaluation.standings import Ranking
from mtl_gym.evaluation.styles import adjusted, interval, styles
from mtl_gym.evaluation.suite_figures import SUITE_FIGURES
from mtl_gym.evaluation.suites import installed
from mtl_gym.evaluation.templates import filled
from mtl_gym.evaluation.verdicts import EQUAL, UNDECIDED


def suite_page(ranking: Ranking, folder: Path) -> str:
    """The page of a suite as HTML; studies whose pages are in ``folder`` are linked."""
    table = ranking.table
    suite, given = table.attrs["suite"], (ranking,)
    return filled(
        "leaderboard.html",
        title=escape(described(suite, table)),
        suite=escape(f"{suite['name']} {suite['version']}"),
        size=escape(described(suite, table).partition(" of ")[2]),
        headline=headline(ranking),
        scores=_scores(ranking),
        notes="".join(f"<li>{escape(line)}</li>" for line in notes_of(table)),
        figures=sections(SUITE_FIGURES, draw_each(SUITE_FIGURES, given), draw_each(SUITE_FIGURES, given, NARROW), {}),
        studies=_studies(ranking, folder),
        baseline=breakable(ranking.baseline),
        run=_run(ranking),
    )


def headline(ranking: Ranking) -> str:
    """A sentence on which policy has the highest mean, and how it compares with the baseline."""
    table = ranking.table
    best, row, baseline = str(table.index[0]), table.iloc[0].to_dict(), f"<strong>{breakable(ranking.baseline)}</strong>"
    against = f"{abs(row['delta_m']):.1f} % {'above' if row['delta_m'] >= 0 else 'below'} single-task learning"
    place = f"has the highest mean of {len(table)} policies" if len(table) > 1 else "was run alone"
    start = f"<strong>{breakable(best)}</strong> {place}: {against}."
    if best == ranking.baseline:
        others = int((table["verdict"] == "worse").sum())
        return f"{start} It is the baseline; {others} of {len(table) - 1} others are significantly worse." if others else start
    lead = f"mean difference {row['difference']:+.2f} points, 95 % interval {interval(ends_of(row, 'difference'))}"
    if not row["verdict"]:
        return f"{start} It leads {baseline} (the baseline) by a {lead}."
    than = {UNDECIDED: "from", EQUAL: "to"}.get(row["verdict"], "than")
    told = f"{adjusted(row['p'])} with Holm's correction"
    return f"{start} It is <strong>{row['verdict']}</strong> {than} {baseline}, the baseline ({lead}, {told})."


def ends_of(row: Mapping[Any, Any], name: str) -> dict[str, float | None]:
    """The ends of an interval as pages show it."""
    ends = {end: row[f"{name}_{end}".strip("_")] for end in ("low", "high")}
    return {end: None if math.isnan(value) else value for end, value in ends.items()}


def _scores(ranking: Ranking) -> str:
    """The leaderboard: a row for each policy, best first; columns without any cell are omitted."""
    names, looks = [str(name) for name in ranking.table.index], styles(ranking.table.index)
    cells = [_cells(row, ranking.baseline) for row in ranking.table.to_dict("records")]
    shown = [head for head in cells[0] if any(own[head] for own in cells)]
    rows = [
        html_row(marked(name, looks[name]), [own[head] for head in shown], "best" if name == names[0] else "")
        for name, own in zip(names, cells, strict=True)
    ]
    return html_table("Best first, with 95 % intervals", [html_head("policy", ""), *(html_head(*head) for head in shown)], rows)


def _cells(row: Mapping[Any, Any], baseline: str) -> dict[tuple[str, str], str]:
    """The cells of a policy by their heads, each with a line below."""
    return {
        ("delta_m, %", "mean"): estimate(row["delta_m"], ends_of(row, "")),
        (f"difference from {baseline}, points", "mean of pairs"): _over(row, "difference", "+z.2f"),
        ("verdict", "Holm\u2019s adjusted p"): row["verdict"] and f"{row['verdict']} <small>{adjusted(row['p'])}</small>",
        ("score", "0: start, 1: best known"): _over(row, "score", "z.2f"),
        (f"P(better than {baseline})", "fraction"): _over(row, "probability", ".2f"),
        ("data sets redrawn", "of the difference"): "" if math.isnan(row["data_low"]) else interval(ends_of(row, "data")),
        ("regret, points", "mean; largest"): f"{row['regret']:z.2f} <small>{row['largest_regret']:z.1f} "
        f"{escape(row['worst_study'])}</small>",
        ("wins", "studies"): f"{row['wins']:.0f}",
        ("passes", f"over {baseline}\u2019s"): f"{row['passes']:.2f}",
        ("diverged", "instances"): f"{row['diverged']:.0f}" if row["diverged"] else "",
    }


def _over(row: Mapping[Any, Any], name: str, form: str) -> str:
    return "" if math.isnan(row[name]) else estimate(row[name], ends_of(row, name), form)


def _studies(ranking: Ranking, folder: Path) -> str:
    """A row for each study: its page, problem, instances, best policy, and whether intervals redraw splits."""
    rows, looks = [], styles(ranking.table.index)
    for name, scores in ranking.scores.items():
        about, best = ranking.studies[name][1], max(scores, key=lambda own: float(scores[own].mean()))
        page = Path(name) / "report.html"
        label = f'<a href="{quote(page.as_posix())}">{escape(name)}</a>' if (folder / page).is_file() else escape(name)
        lead = f"{marked(best, looks[best])} {scores[best].mean():z.2f}"
        cells = [escape(about["problem"]), str(len(scores[best])), lead, _DRAWN[ranking.table.attrs["draws"][name]]]
        rows.append(html_row(label, cells))
    heads = (("study", ""), ("problem", ""), ("instances", ""), ("best mean", "delta_m, %"), ("each instance draws", ""))
    return html_table("What the suite consists of", [html_head(*head) for head in heads], rows)


_DRAWN = {"own split": "its split", "own data": "all its data", ONE_SPLIT: "no split: intervals are of one"}


def _run(ranking: Ranking) -> str:
    """Commands, the suite with its checksum, instances, version and kernels, as HTML."""
    abouts, suite = [about for _, about in ranking.studies.values()], ranking.table.attrs["suite"]
    known = installed(suite)
    ids = sorted({id for about in abouts for id in about["instances"]})
    rows: dict[str, Any] = {
        "environment": suite["env"],
        "suite": f"{suite['name']} {suite['version']}",
        "checksum of the suite": known.checksum if known else "not installed here in this version",
        "instances": f"{sum(ranking.table.attrs['studies'].values())}, with ids from {ids[0]} to {ids[-1]}",
    }
    rows["mtl-gym"] = ", ".join(dict.fromkeys(about["versions"]["mtl-gym"] for about in abouts))
    rows["kernels"] = listed(ranking.table.attrs["kernels"])
    return listing(rows, [*dict.fromkeys(about["command"] for about in abouts if about.get("command"))])

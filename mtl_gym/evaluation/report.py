"""One self-contained page that presents a comparison."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from mtl_gym.cache import write_whole
from mtl_gym.envs.spec import PageFigure
from mtl_gym.evaluation import report_tables
from mtl_gym.evaluation.figures import accessible, draw_figures, page_figures
from mtl_gym.evaluation.kernels import listed
from mtl_gym.evaluation.layout import MOST_DRAWN, NARROW
from mtl_gym.evaluation.notes import notes
from mtl_gym.evaluation.results import Result
from mtl_gym.evaluation.statistics import FEWEST
from mtl_gym.evaluation.styles import adjusted, interval, ranked
from mtl_gym.evaluation.templates import filled
from mtl_gym.evaluation.verdicts import EQUAL, UNDECIDED
from mtl_gym.evaluation.weight_rules import constant_quantities
from mtl_gym.problems.axes import DISTRIBUTIONS

Summary = Mapping[str, Any]


def write_report(results: Sequence[Result], summary: Summary, folder: Path) -> Path:
    """Writes ``report.html`` and returns its path: headline, tables, figures, how to read them, settings. It loads no other files.

    Figures are drawn twice, for wide and for narrow screens. ``summary`` is that of :func:`mtl_gym.summarize`.
    """
    about = summary["about"]
    rows, captions = page_figures(about["env"]), notes_of(results, summary)
    wide, narrow = draw_figures(rows, results, summary), draw_figures(rows, results, summary, NARROW)
    page = filled(
        "report.html",
        title=escape(f"{about['problem']}: {len(summary['policies'])} policies"),
        problem=escape(about["problem"]),
        env=escape(about["env"]),
        headline=headline(summary),
        scores=report_tables.scores(summary, leader(summary)),
        notes="".join(f"<li>{escape(line)}</li>" for line in notes(summary)),
        metrics=report_tables.metrics(summary),
        figures=sections(rows, wide, narrow, captions),
        fewest=FEWEST,
        settings=settings(about),
    )
    path = folder / "report.html"
    write_whole(path, page)
    return path


def leader(summary: Summary) -> str:
    """The policy with the highest score; one that is the single-task reference itself only if there is no other."""
    names, policies = ranked(summary), summary["policies"]
    return next((name for name in names if not policies[name]["is_reference"]), names[0])


def headline(summary: Summary) -> str:
    """A sentence on which policy is best, the verdict on its lead, and the minimum detectable difference.

    The best is chosen by its scores, so the verdict is corrected over all pairs. There is none from fewer than five instances, and
    none on single-task learning, with which all others are compared.
    """
    best, policies = leader(summary), summary["policies"]
    row, others = policies[best], [name for name in ranked(summary) if name != best and not policies[name]["is_reference"]]
    if row["is_reference"]:
        return f"{_strong(best)} is single-task learning itself, the reference: its delta_m is 0 by definition."
    gain = row["delta_m"]["mean"]
    against = f"{abs(gain):.1f} % {'above' if gain >= 0 else 'below'} single-task learning"
    if not others:
        return f"{_strong(best)} was run on {_instances(row['instances'])}: {against}."
    start = f"{_strong(best)} performs best of {len(others) + 1} policies on {_instances(row['instances'])}: {against}."
    runner_up, pair, found = _strong(others[0]), row["paired"].get(others[0]), summary["verdicts"][best].get(others[0])
    if pair is None:
        return f"{start} It shares no instance with {runner_up}."
    lead = f"mean difference {pair['difference']:+.2f} points"
    if found is None:
        return f"{start} A verdict on its lead over {runner_up} ({lead}) takes at least {FEWEST} instances."
    than = {UNDECIDED: "from", EQUAL: "to"}.get(found["verdict"], "than")
    return (
        f"{start} On the same instances, it is <strong>{found['verdict']}</strong> {than} {runner_up} ({lead}, 95 % interval "
        f"{interval(pair)}, {_p_value(found)}); the minimum detectable difference is {found['detectable']:.2f} points."
    )


def _p_value(verdict: Mapping[str, Any]) -> str:
    """The adjusted p-value of a verdict and over how many comparisons it is corrected."""
    count, told = verdict["comparisons"], adjusted(verdict["p"])
    return told if count == 1 else f"{told} with Holm's correction over {count} pairs"


def _strong(name: str) -> str:
    return f"<strong>{report_tables.breakable(name)}</strong>"


def _instances(count: int) -> str:
    return "1 instance" if count == 1 else f"{count} instances"


def notes_of(results: Sequence[Result], summary: Summary) -> dict[str, str]:
    """Sentences that captions of figures add for this comparison, by the figures' names."""
    about = summary["about"]
    main_task = about["arguments"].get("main_task")
    references = [name for name, row in summary["policies"].items() if row["is_reference"]]
    tasks = {name.rsplit("/", 1)[0] for name in about["metrics"]}
    forest = f" Of the main task, {escape(main_task)}, alone." if main_task else ""
    forest += "".join(f" {escape(name)} is single-task learning itself." for name in references)
    notes = {"rules": f" {constant_quantities(results)}", "forest": forest}
    if len(tasks) > MOST_DRAWN:
        many = f" There are {len(tasks)} tasks:"
        notes["gains"] = (
            f"{many} above, quantiles over all of them; below, those with the lowest and highest mean over the policies."
        )
        notes["curves"] = notes["weights"] = f"{many} lines are quantiles over them, at each step."
    return notes


def sections(
    rows: Mapping[str, PageFigure], wide: Mapping[str, str], narrow: Mapping[str, str], captions: Mapping[str, str]
) -> str:
    """The sections of figures that are drawn twice; ``captions`` are what those of the ``rows`` add here."""
    return "\n".join(_figure(name, rows[name], svg, narrow.get(name, svg), captions.get(name, "")) for name, svg in wide.items())


def _figure(name: str, row: PageFigure, wide: str, narrow: str, note: str) -> str:
    """A section with a figure for wide screens and prints, and one for narrow screens, unless that is the same."""
    drawn = {"wide": wide, "narrow": narrow} if wide != narrow else {"every": wide}
    figures = [f'<div class="{kind}">{accessible(svg, f"figure-{name}-{kind}", row.title)}</div>' for kind, svg in drawn.items()]
    head = f'<h2 id="figure-{name}">{escape(row.title)}</h2><p>{row.caption}{note}</p>'
    return f'<section aria-labelledby="figure-{name}">{head}{"".join(figures)}</section>'


def settings(about: Mapping[str, Any]) -> str:
    """The command, seed and address of the problem where they are known, arguments, versions, the smallest difference that matters
    and the kernels, as HTML; a distribution with a name is shown by it.
    """
    ids = about["instances"]
    known = {"seed": about.get("seed"), "problem": about.get("address")}
    origin = {name: value for name, value in known.items() if value is not None}
    made = {"smallest difference": f"{about.get('smallest_difference', 0.0):g} points", "kernels": listed(about.get("kernels", {}))}
    instances = {"instances": f"{len(ids)}: {ids[0]} to {ids[-1]}"}
    rows = {**instances, **origin, **about["arguments"], **about["versions"], **made}
    if "distribution" in rows:
        rows["distribution"] = _distribution(rows["distribution"])
    return listing(rows, [about["command"]] if about.get("command") else [])


def listing(rows: Mapping[str, Any], commands: Sequence[str]) -> str:
    """Commands, and names with their values, as HTML."""
    plain = {str(name): value if isinstance(value, str) else json.dumps(value) for name, value in rows.items()}
    lines = [f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in plain.items()]
    return "".join(f"<pre>{escape(command)}</pre>" for command in commands) + f"<dl>{''.join(lines)}</dl>"


def _distribution(ranges: Any) -> Any:
    """The name of a distribution with these ranges (of axes that vary), if it has one; otherwise the ranges."""
    known = {json.dumps(own, sort_keys=True): name for name, own in DISTRIBUTIONS.items()}
    return known.get(json.dumps(ranges, sort_keys=True), ranges)

"""One self-contained page that shows a comparison to a person."""

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
from mtl_gym.evaluation.plots import figures, ranked
from mtl_gym.evaluation.results import Result
from mtl_gym.evaluation.weight_rules import constant_quantities

Summary = Mapping[str, Any]

_CAPTIONS = {
    "forest": (
        "Gain over single-task learning",
        "Interquartile mean over instances (dot) with its 95 % bootstrap interval (bar); small dots are single instances.",
    ),
    "gains": ("Which task pays", "Mean gain of each metric over single-task learning, in percent; blue is better, red is worse."),
    "curves": ("Learning curves", "Held-out loss (the reward split) of each task, median over instances."),
    "weights": (
        "What the policies did",
        "Each task's share of the weights, median over instances. Dividing by the loss gives large shares to small losses.",
    ),
    "samples": (
        "Right and wrong labels",
        "The weights of the main task's samples, median over instances: how often a right label weighs more than a wrong one (0.5 "
        "is chance), and the mean weights of the two kinds, over the mean weight of all samples of all tasks (1 is neutral).",
    ),
    "front": (
        "What sharing costs",
        "Parameters in use at the end, as a share of those of separate networks, against the gain over single-task learning on the "
        "test split, and on corrupted test inputs (8 kinds at 5 severities, 11 for images; references on clean inputs). Means over "
        "instances with 95 % intervals; up and to the left is better.",
    ),
    "structures": (
        "What was merged",
        "The networks at the end of the first instance: layers from left to right, a task's head at the end; larger dots are "
        "shared by more tasks. Beside them how often two tasks share each stage, over all instances.",
    ),
    "similarities": (
        "How similar the layers are",
        "Debiased linear CKA of the tasks' features at the end, mean over instances; 1 where a stage and all before it are shared.",
    ),
    "regret": (
        "What was missed",
        "What each policy's grouping returns less than the best of all, on the reward split, where a group table (or exhaustive "
        "search) tells: means with 95 % bootstrap intervals; small dots are single instances.",
    ),
    "groups": (
        "Who is with whom",
        "Share of the instances in which two tasks are trained together, of those in which both take part (grey: never both); of "
        "soft memberships the largest counts.",
    ),
    "memberships": (
        "Groups of the first instance",
        "The share of each task (rows) in each group (columns): yellow is 1, dark blue 0.",
    ),
    "data_maps": (
        "Data maps",
        "How sure the network becomes of the labels when all tasks are trained together: each task's confidence and variability, "
        "means over the training samples, from the first snapshot to the last (dot). Top left is easy, right ambiguous, bottom "
        "hard.",
    ),
    "rules": (
        "What did it learn?",
        "How a task's weight depends on what makes tasks differ. Further right are tasks whose loss is still high by their own "
        "standard (improvable gap), whose loss is multiplied by more (loss scale), or with more wrong labels (label noise). "
        "A level line pays no attention to that, a falling line gives such tasks less weight, a rising line more; along the dashed "
        "line the weight halves where the quantity doubles, which undoes a loss scale. <i>Relative</i> is to the geometric mean "
        "over the tasks of the same training; against gap and noise, weights are over those of the first batch, since loss scales "
        "would drown the rest. Points are medians over instances, tasks and steps, in bins that hold equally many.",
    ),
    "probability": (
        "Probability of improvement",
        "Share of the instances on which the policy of the row is better than that of the column; ties count half.",
    ),
}

_OF_STRUCTURES = {"parameter_fraction": ("parameters", ".2f", 1.0), "corrupted": ("corrupted inputs, %", ".1f", 1.0)}
_OF_STRUCTURES |= {"num_groups": ("groups", ".1f", 1.0), "regret": ("regret, %", ".2f", 100.0)}
_OF_STRUCTURES |= {"invalid_actions": ("masked actions, %", ".0f", 100.0)}
"""Columns of the table where layers are merged, and where tasks are grouped: head, format and factor."""
_WIDTH = re.compile(r'<svg[^>]*? width="([\d.]+)')
_SCROLLED = 2000
"""Width in points from which a figure is scrolled rather than made to fit the page."""


def write_report(results: Sequence[Result], summary: Summary, folder: Path) -> Path:
    """Writes ``report.html``: headline, table, figures, how to read them, settings. It loads nothing from elsewhere.

    Args:
        results: All results.
        summary: Of :func:`mtl_gym.summarize`.
        folder: Where the page is written.

    Returns:
        The page's path.
    """
    about = summary["about"]
    main_task = about["arguments"].get("main_task")
    notes = {
        "rules": f" {constant_quantities(results)}",
        "forest": f" Of the main task, {escape(main_task)}, alone." if main_task else "",
    }
    page = Template(resources.files("mtl_gym").joinpath("data").joinpath("report.html").read_text()).substitute(
        title=escape(f"{about['problem']}: {len(summary['policies'])} policies"),
        problem=escape(about["problem"]),
        env=escape(about["env"]),
        headline=headline(summary),
        table=_table(summary),
        figures="\n".join(_figure(name, svg, notes.get(name, "")) for name, svg in figures(results, summary).items()),
        settings=_settings(about),
    )
    path = folder / "report.html"
    write_whole(path, page)
    return path


def headline(summary: Summary) -> str:
    """In words: which policy is best, whether its lead can be told from noise, and what the run could have detected."""
    names, policies = ranked(summary), summary["policies"]
    best = f"<strong>{escape(names[0])}</strong>"
    row = policies[names[0]]
    gain = row["delta_m"]["iqm"]
    against = f"{abs(gain):.1f} % {'above' if gain >= 0 else 'below'} single-task learning"
    start = f"{best} serves best on {row['instances']} instances: {against}."
    if len(names) == 1:
        return start
    runner_up = f"<strong>{escape(names[1])}</strong>"
    pair = row["paired"].get(names[1])
    if pair is None:
        return f"{start} It shares no instance with {runner_up}."
    if pair["low"] is None:
        return f"{start} One instance cannot tell it from {runner_up}."
    told = "can" if pair["low"] > 0 or pair["high"] < 0 else "cannot"
    lead = f"mean difference {pair['difference']:+.2f} points, 95 % interval {_interval(pair)}"
    return (
        f"{start} Its lead over {runner_up} <strong>{told}</strong> be told from noise ({lead}); "
        f"this run could have detected {pair['detectable']:.2f} points."
    )


def _table(summary: Summary) -> str:
    names, policies, metrics = ranked(summary), summary["policies"], summary["about"]["metrics"]
    best = names[0]
    heads = ["", "policy", "delta_m, %", "over the best", "P(better)", "passes"]
    merged = [name for name in _OF_STRUCTURES if all(name in row for row in policies.values())]
    if not any(row["invalid_actions"]["mean"] for row in policies.values() if "invalid_actions" in row):
        merged = [name for name in merged if name != "invalid_actions"]
    heads += [_OF_STRUCTURES[name][0] for name in merged]
    if any(row["diverged"] for row in policies.values()):
        heads.append("diverged")
    rows = [
        _row(rank, name, best, policies[name], metrics, merged, "diverged" in heads) for rank, name in enumerate(names, start=1)
    ]
    rows.append(_reference_row(policies[best], metrics, len(heads)))
    cells = "".join(f"<th>{escape(head)}</th>" for head in heads) + "".join(_metric_head(name, metrics) for name in metrics)
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _row(
    rank: int, name: str, best: str, row: Mapping[str, Any], metrics: Mapping[str, Any], merged: Sequence[str], diverged: bool
) -> str:
    pair, cost = row["paired"].get(best, {}), row["cost"]
    cells = [
        str(rank),
        escape(name),
        f"{_text(row['delta_m']['iqm'])} <small>{_interval(row['delta_m'])}</small>",
        f"{_text(pair.get('difference'), '+.2f')} <small>{_interval(pair)}</small>" if pair else "",
        _text(row["probability_of_improvement"].get(best)) if pair else "",
        f"{cost['forward']:.0f}&#8239;F&#8239;{cost['backward']:.0f}&#8239;B",
    ]
    cells += [_structure_cell(name, row[name]) for name in merged]
    cells += [str(row["diverged"])] if diverged else []
    cells += [_text(row["metrics"].get(metric, {}).get("mean"), ".3f") for metric in metrics]
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _structure_cell(name: str, known: Mapping[str, float | None]) -> str:
    _, form, factor = _OF_STRUCTURES[name]
    scaled = {end: None if value is None else factor * value for end, value in known.items()}
    return f"{_text(scaled['mean'], form)} <small>{_interval(scaled)}</small>"


def _reference_row(row: Mapping[str, Any], metrics: Mapping[str, Any], width: int) -> str:
    empty = f"<td></td><td>single-task</td><td>0</td>{'<td></td>' * (width - 3)}"
    cells = [_text(row["metrics"].get(metric, {}).get("reference"), ".3f") for metric in metrics]
    return f'<tr class="reference">{empty}{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'


def _metric_head(name: str, metrics: Mapping[str, Any]) -> str:
    task, metric = name.rsplit("/", 1)
    arrow = "&#8593;" if metrics[name]["higher_is_better"] else "&#8595;"
    return f"<th>{escape(task)}<br><small>{escape(metric)} {arrow}</small></th>"


def _figure(name: str, svg: str, note: str) -> str:
    title, caption = _CAPTIONS[name]
    wide = float(_WIDTH.search(svg)[1]) > _SCROLLED  # type: ignore[index]
    shown = f'<div class="scroll">{svg}</div>' if wide else svg
    return f"<section><h2>{title}</h2><p>{caption}{note}</p>{shown}</section>"


def _settings(about: Mapping[str, Any]) -> str:
    ids = about["instances"]
    rows = {"instances": f"{len(ids)}: {ids[0]} to {ids[-1]}", **about["arguments"], **about["versions"]}
    lines = [f"<dt>{escape(str(name))}</dt><dd>{escape(_plain(value))}</dd>" for name, value in rows.items()]
    command = f"<pre>{escape(about['command'])}</pre>" if about.get("command") else ""
    return f"{command}<dl>{''.join(lines)}</dl>"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _text(value: float | None, form: str = ".2f") -> str:
    return "-" if value is None else format(value, form)


def _interval(row: Mapping[str, Any]) -> str:
    low, high = row.get("low"), row.get("high")
    return "-" if low is None or high is None else f"[{low:.2f}, {high:.2f}]"

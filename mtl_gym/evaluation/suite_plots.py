"""The figures of a suite's page, each drawn from its :class:`~mtl_gym.evaluation.standings.Ranking`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator
from matplotlib.transforms import ScaledTranslation

from mtl_gym.envs.looks import RULE
from mtl_gym.envs.panels import GAINS, log_axis
from mtl_gym.evaluation.layout import Block, grid, heat_map, legend, name_length, page_width
from mtl_gym.evaluation.medians import median_curves
from mtl_gym.evaluation.plots import heights, over_first
from mtl_gym.evaluation.resampling import profile
from mtl_gym.evaluation.results import Array, traced_tasks
from mtl_gym.evaluation.standings import Ranking
from mtl_gym.evaluation.statistics import stratified_difference
from mtl_gym.evaluation.styles import shortened, styles, wrapped

MOST_LINES = 9
"""Most policies with a line of their own in a panel; of more, the best and the baseline, and all others in grey."""
_MOST_BANDS = 4
"""Most lines with bands: more of them hide each other."""
_TAIL, _REACH = 0.03, 3
"""A profile leaves out this fraction of the scores at either end, and what is further from the quartiles than so many times their
distance.
"""
_ASIDE = 6
"""Points between policies that take as many passes."""
_OTHERS: dict[str, Any] = {"color": RULE, "linewidth": 0.7, "alpha": 0.6, "zorder": 1.5}


def standings(ranking: Ranking) -> Figure:
    """Policies, best on top: the mean and the difference from the baseline, with their intervals."""
    count = min(2, len(ranking.table))
    columns = count if page_width() > 6 else 1
    height = count // columns * (0.6 + 0.27 * len(ranking.table))
    figure = Figure(figsize=(page_width(), height), layout="constrained")
    panels = figure.subplots(count // columns, columns, sharey=columns > 1, squeeze=False).flat
    labels = {"delta_m": "delta_m, %", "difference": f"over {_baseline(ranking)}, points"}
    for axes, (column, label) in zip(panels, labels.items(), strict=False):
        _intervals(axes, ranking, column)
        axes.axvline(0, color=RULE, linewidth=1, zorder=1.9)
        axes.set_xlabel(label)
    return figure


def _intervals(axes: Axes, ranking: Ranking, column: str) -> None:
    """Draws a column of the table with its interval, a line for each policy; of differences, also with data sets redrawn."""
    names, looks = [*map(str, ranking.table.index)], styles(ranking.table.index)
    start = "" if column == "delta_m" else f"{column}_"
    for place, (name, row) in enumerate(zip(names, ranking.table.to_dict("records"), strict=True)):
        colour = looks[name]["color"]
        axes.hlines(place, row[f"{start}low"], row[f"{start}high"], color=colour, linewidth=2.5)
        axes.plot(row[column], place, marker=looks[name]["marker"], markersize=6.5, color=colour)
        if start:
            axes.hlines(place, row["data_low"], row["data_high"], color=colour, linewidth=0.9)
    axes.set_yticks(range(len(names)), wrapped(names, name_length()))
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.locator_params(axis="x", nbins=5)


def profiles(ranking: Ranking) -> Figure:
    """The fraction of instances on which a policy reaches each score, and each difference from the baseline; studies alike."""
    names = [str(name) for name in ranking.table.index]
    scores = {name: [own[name] for own in ranking.scores.values()] for name in names}
    apart = {name: ranking.differences(name) for name in names if name != ranking.baseline}
    panels = {"delta_m of at least, %": scores, f"better than {_baseline(ranking)} by at least, points": apart}
    panels = {label: values for label, values in panels.items() if values}
    figure, axes_of = grid(len(panels), least=3.2, height=2.6, shared="y")
    lines: dict[str, Line2D] = {}
    for axes, (label, values) in zip(axes_of, panels.items(), strict=True):
        lines = {**_profile_lines(axes, values, ranking), **lines}
        axes.axvline(0, color=RULE, linewidth=1, zorder=1.9)
        axes.set(ylim=(-0.02, 1.02), xlabel=label)
    figure.supylabel("fraction of instances", fontsize=9)
    _name_lines(figure, lines, ranking)
    return figure


def _profile_lines(axes: Axes, values: dict[str, list[Array]], ranking: Ranking) -> dict[str, Line2D]:
    """Draws the profiles of policies, with bands of few; returns the lines."""
    chosen, looks = _chosen(ranking), styles(ranking.table.index)
    levels, lines = _levels(np.concatenate([own for studies in values.values() for own in studies])), {}
    for name, studies in values.items():
        look = _line(looks[name], len(levels), name in chosen)
        means = np.mean([(own[:, None] >= levels).mean(0) for own in studies], axis=0)
        lines[name] = axes.plot(levels, means, **look)[0]
        if len(values) <= _MOST_BANDS:
            band = profile(studies, levels)
            axes.fill_between(levels, band.low, band.high, color=look["color"], alpha=0.13, linewidth=0)
    return lines


def _levels(scores: Array) -> Array:
    """The levels (T,) of a profile: where most of the scores are."""
    least, low, high, most = np.quantile(scores, [_TAIL, 0.25, 0.75, 1 - _TAIL])
    reach = _REACH * (high - low)
    return np.linspace(max(least, low - reach), min(most, high + reach), 101)


def studies(ranking: Ranking) -> Figure | None:
    """The mean difference from the baseline on each study; ``None`` without another policy."""
    names = [str(name) for name in ranking.table.index if name != ranking.baseline]
    if not names:
        return None
    values = np.array([[own.mean() for own in ranking.differences(name)] for name in names])
    reach = max(float(np.quantile(np.abs(values), 0.9)), 1e-9)  # so that one study does not fade all others
    return heat_map([Block("", [*ranking.scores], values)], names, form="+z.1f", cmap=GAINS, norm=Normalize(-reach, reach))


def shift(ranking: Ranking) -> Figure | None:
    """The difference from the baseline along the studies of one problem, a line for each policy.

    Lines join studies that are named by numbers, the values of an axis. ``None`` for a suite of several problems or one study.
    """
    problems = {about["problem"] for _, about in ranking.studies.values()}
    names = [str(name) for name in ranking.table.index if name != ranking.baseline]
    if len(problems) > 1 or len(ranking.scores) < 2 or not names:
        return None
    chosen, looks = _chosen(ranking), styles(ranking.table.index)
    figure = Figure(figsize=(min(page_width(), 7.5), 3.2), layout="constrained")
    axes, labels = figure.subplots(), [*ranking.scores]
    joined = all(map(_is_number, labels))
    drawn = [name for name in names if name in chosen]
    lines = {}
    for name in [*(name for name in names if joined and name not in chosen), *drawn]:
        rows = [stratified_difference([own]) for own in ranking.differences(name)]
        look = _line(looks[name], 1, name in chosen) | ({} if joined else {"linestyle": "none"})
        aside = 0.5 * (drawn.index(name) - (len(drawn) - 1) / 2) / max(len(drawn), 4) if name in drawn else 0.0
        places = np.arange(len(rows)) + aside
        lines[name] = axes.plot(places, [row["difference"] for row in rows], **look)[0]
        if name in chosen:
            axes.vlines(places, [row["low"] for row in rows], [row["high"] for row in rows], color=look["color"], linewidth=1)
    axes.axhline(0, color=RULE, linewidth=1, zorder=1.9)
    axes.set_xticks(range(len(labels)), shortened(labels))
    axes.set(
        xlim=(-0.5, len(labels) - 0.5), xlabel=ranking.table.attrs["suite"]["name"], ylabel=f"over {_baseline(ranking)}, points"
    )
    axes.grid(visible=False, axis="x")
    _name_lines(figure, lines, ranking)
    return figure


def cost(ranking: Ranking) -> Figure | None:
    """Passes against the mean, with its interval; the line joins the policies that no other one beats in both.

    ``None`` if all policies take as many passes.
    """
    table, looks = ranking.table, styles(ranking.table.index)
    if table["passes"].max() < 1.01 * table["passes"].min():
        return None
    figure = Figure(figsize=(min(page_width(), 7.5), 3.6), layout="constrained")
    axes = figure.subplots()
    best = front(table)
    axes.step(table.loc[best, "passes"], table.loc[best, "delta_m"], where="post", color=RULE, linewidth=1, zorder=1.8)
    lines = {}
    asides = table.groupby(table["passes"].round(2)).cumcount() * _ASIDE / 72  # inches; the best first
    for name, row in table.iterrows():
        look = {**looks[str(name)], "linestyle": "none", "markersize": 6}
        aside = axes.transData + ScaledTranslation(asides[str(name)], 0, figure.dpi_scale_trans)
        axes.plot([row["passes"]] * 2, [row["low"], row["high"]], color=look["color"], linewidth=0.9, transform=aside)
        lines[str(name)] = axes.plot(row["passes"], row["delta_m"], transform=aside, **look)[0]
    for name in best:  # above and left of the front, there is nothing
        place = (table.loc[name, "passes"], table.loc[name, "delta_m"])
        axes.annotate(shortened([name])[0], place, (-5, 4), textcoords="offset points", ha="right", parse_math=False)
    low, high = table["passes"].min(), table["passes"].max()
    log_axis(axes, low / (high / low) ** 0.25, high * (high / low) ** 0.08, name="x")
    if high < 8 * low:
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 6)))
    axes.set_ylim(*_padded(table["low"].min(), table["high"].max()))
    axes.set(xlabel=f"passes over those of {_baseline(ranking)}", ylabel="delta_m, %")
    legend(figure, [*lines.values()], [*lines])
    return figure


def _padded(low: float, high: float) -> tuple[float, float]:
    """The ends of an axis with 5 % on both sides."""
    return low - 0.05 * (high - low), high + 0.05 * (high - low)


def front(table: pd.DataFrame) -> list[str]:
    """The Pareto front of a leaderboard: policies than which no other one has a higher mean for as many passes or fewer."""
    ordered = table.sort_values(["passes", "delta_m"], ascending=[True, False], kind="stable")
    before = ordered["delta_m"].astype(np.float64).cummax().shift().fillna(-np.inf)
    return [str(name) for name in ordered.index[ordered["delta_m"] > before]]


def curves(ranking: Ranking) -> Figure | None:
    """Held-out loss over that before training: geometric mean over tasks of medians over instances, a panel for each study."""
    known = {name: results for name, (results, _) in ranking.studies.items() if traced_tasks(results)}
    if not known:
        return None
    names, looks, chosen = [str(name) for name in ranking.table.index], styles(ranking.table.index), _chosen(ranking)
    figure, axes_of = grid(len(known), least=2.3, height=1.9, shared="y")
    for axes, (title, results) in zip(axes_of, known.items(), strict=True):
        for name in names:
            steps, medians = median_curves(results, name, traced_tasks(results), "loss")
            relative = np.log(np.stack([over_first(own) for own in medians]))  # (K, S)
            axes.plot(steps, np.exp(np.nanmean(relative, axis=0)), **_line(looks[name], 12, name in chosen))
        axes.set_title(shortened([title])[0])
    values = heights(axes_of)
    log_axis(axes_of[0], values.min(initial=1.0) / 1.1, values.max(initial=1.0) * 1.1)
    figure.supxlabel("optimiser step", fontsize=9)
    figure.supylabel("loss / loss before training", fontsize=9)
    _name_lines(figure, dict(zip(names, axes_of[0].get_lines(), strict=True)), ranking)
    return figure


def _baseline(ranking: Ranking) -> str:
    """The baseline's name, as figures show it."""
    return shortened([ranking.baseline])[0]


def _chosen(ranking: Ranking) -> list[str]:
    """The policies that are drawn in their own colours: all, or the best and the baseline."""
    names = [str(name) for name in ranking.table.index]
    if len(names) <= MOST_LINES:
        return names
    return [*[name for name in names if name != ranking.baseline][: MOST_LINES - 1], ranking.baseline]


def _line(look: dict[str, Any], points: int, chosen: bool) -> dict[str, Any]:
    """The look of a line through so many points, with few markers; in grey if it is not a chosen one."""
    return {**look, "markevery": max(1, points // 6), "markersize": 3.5} if chosen else dict(_OTHERS)


def _name_lines(figure: Figure, lines: dict[str, Line2D], ranking: Ranking) -> None:
    """Adds a legend of the chosen policies' lines, best first, and of one of the others."""
    chosen = [name for name in _chosen(ranking) if name in lines]
    others: Sequence[str] = [name for name in lines if name not in chosen]
    own = {name: lines[name] for name in chosen} | ({f"{len(others)} others": lines[others[0]]} if others else {})
    legend(figure, [*own.values()], [*own])


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True

"""What a reader of scores has to know of them is said wherever they stand."""

from __future__ import annotations

from html import unescape
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from test_report import make_about, make_result, page_of, scored, summary_of

import mtl_gym
from mtl_gym.cli.report import show
from mtl_gym.evaluation.frames import to_frame
from mtl_gym.evaluation.notes import mean_notes, notes, split_note
from mtl_gym.evaluation.terminal import below, table

FIXED = "Intervals are conditional on one split: all instances share the test samples."
DRAWN = "Each instance draws its own splits from the same pool"


@pytest.mark.parametrize(
    ("distribution", "start"),
    [({}, FIXED), ({"noise": [0.0, 0.4]}, FIXED), ({"split": [0.0, 0.0]}, FIXED), ({"split": [1.0, 1.0]}, DRAWN)],
)
def test_intervals_say_of_which_split_they_are(distribution, start):
    assert split_note({"arguments": {"distribution": distribution}}).startswith(start)


@pytest.mark.parametrize(("problem", "redrawn"), [("digits", True), ("quadratic", False)])
def test_a_distribution_by_its_name_says_whether_it_redraws_the_split(problem, redrawn):
    short = {"train_steps": 4, "batch_size": 16}
    frame = mtl_gym.compare("ew,rlw", problem=problem, instances=1, distribution="varied", **short)
    assert mtl_gym.leaderboard(frame).attrs["notes"][0].startswith("Each" if redrawn else FIXED)


def test_of_a_setting_without_a_distribution_the_split_is_fixed():
    assert split_note({"arguments": {}}).startswith(FIXED)


CARRIED = {"ew": [1.0, 2.0, 3.0, 2.0, 1.5], "si": [2.0, 2.1, 1.9, 2.0, -100.0]}
LINES = (FIXED, "paired t-tests at 5 % with Holm's correction", "si (mean -18.4, median 2)")


def test_leaderboard_and_terminal_have_the_notes():
    results = scored(**CARRIED)
    board, lines = mtl_gym.leaderboard(to_frame(results, make_about(results))), below(summary_of(results))
    assert all(line in "\n".join(board.attrs["notes"]) for line in LINES)
    assert all(line in "\n".join(lines) for line in LINES)


@pytest.mark.slow
def test_the_page_has_the_notes(tmp_path):
    page = unescape(page_of(scored(**CARRIED), tmp_path))
    assert all(line in page for line in LINES)


def test_the_notes_are_printed(monkeypatch):
    printed = Console(width=80, file=StringIO())
    monkeypatch.setattr("mtl_gym.cli.report.console", printed)
    show(summary_of(scored(**CARRIED)), Path("folder"), as_json=False)
    text = " ".join(printed.file.getvalue().split())
    assert all(line in text for line in LINES)


def test_the_terminal_has_the_verdict_and_what_could_have_been_detected():
    results = scored(ew=[1.0, 2.0, 3.0, 4.0, 5.0], si=[3.0, 4.1, 5.0, 6.1, 7.0], rlw=[1.0, -2.0, 3.0, 9.0, 1.0])
    console = Console(width=80, file=StringIO())
    console.print(table(summary_of(results), 80))
    lines = {line.split()[0]: line for line in console.file.getvalue().splitlines() if line.strip()}
    assert "better" in lines["si"]
    assert "not told apart" in lines["rlw"]
    board = mtl_gym.leaderboard(to_frame(results, make_about(results)))
    low, high = sorted(board["detectable"].dropna())
    told = f"Minimum detectable difference (80 % power, after correction): {low:.2f} to {high:.2f} points."
    assert told in below(summary_of(results))


def test_an_environments_column_that_few_instances_carry_is_named():
    results = [
        make_result(
            "joint",
            instance,
            delta_m=float(instance),
            outcome={"regret": 0.005 if instance else 0.94, "groups": [["left", "right"]]},
        )
        for instance in range(6)
    ]
    [line] = mean_notes(summary_of(results, env=mtl_gym.TASK_GROUPING))
    told = "Few instances carry these means, which lie far outside their middle half"
    assert line == f"{told}: regret, % of joint (mean 16.1, median 0.5)."


def test_the_smallest_difference_that_matters_is_named():
    results = scored(ew=[1.0, 2.0, 3.0, 2.0, 1.5], si=[2.0, 2.1, 1.9, 2.0, 1.0])
    told = "Differences within 0.5 points are called equal"
    assert any(told in line for line in notes(summary_of(results, smallest_difference=0.5)))
    assert any("equal only if they are 0 on every instance" in line for line in notes(summary_of(results)))


def test_few_instances_have_no_verdict():
    assert "Fewer than 5 shared instances allow no verdict." in notes(summary_of(scored(ew=[1.0, 2.0], si=[2.0, 2.1])))

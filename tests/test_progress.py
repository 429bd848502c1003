"""Signs of life: bars that threads draw, lines in logs, and what is said before the first step of a training."""

import time

import pytest
from test_agent_training import train
from typer.testing import CliRunner

import mtl_gym
from mtl_gym import progress
from mtl_gym.cli import full_app
from mtl_gym.environments import LOSS_WEIGHTING, specification
from mtl_gym.envs.arguments import check_arguments
from mtl_gym.progress import progress_bar
from mtl_gym.training.references import train_average_references

PAUSE = 0.01
QUADRATIC = {"train_steps": 40, "batch_size": 16, "holdout_size": 16}


@pytest.fixture
def impatient(monkeypatch):
    """Phases are told after a hundredth of a second instead of a second."""
    monkeypatch.setattr(progress, "_PATIENCE", PAUSE)


@pytest.fixture
def terminal(monkeypatch):
    """Rich takes stderr for a terminal of 100 columns."""
    for name, value in {"FORCE_COLOR": "1", "COLUMNS": "100", "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)


def wait_for(text, capsys):
    """What is on stderr once it holds a text; all of it after ten seconds."""
    told, until = "", time.monotonic() + 10
    while text not in told and time.monotonic() < until:
        time.sleep(PAUSE)
        told += capsys.readouterr().err
    return told


def test_a_log_has_a_line_for_each_phase_that_lasts(impatient, capsys):
    with progress_bar(4, "first") as update:
        assert wait_for("first", capsys) == "first\n"
        for place in range(100):
            update(description=f"short {place}", advance=0)
        update(description="second")
        assert wait_for("second", capsys).endswith("second\n")
        with progress_bar(2, "before the rest"):
            assert wait_for("rest", capsys) == "before the rest\n"
        assert wait_for("second", capsys) == "second\n"
    time.sleep(5 * PAUSE)
    assert capsys.readouterr() == ("", "")


def test_what_takes_less_than_a_second_leaves_no_line(capsys):
    with progress_bar(4, "doing") as update, progress_bar(4, "more"):
        update(advance=4)
    assert capsys.readouterr() == ("", "")


def test_a_bar_is_drawn_while_nobody_calls(impatient, terminal, capsys):
    with progress_bar(4, "waiting for something"):
        assert "waiting for something" in wait_for("waiting for something", capsys)


def test_an_inner_bar_stands_below_the_outer_one_until_it_ends(terminal, capsys):
    with progress_bar(4, "outer", show=True) as update:
        with progress_bar(4, "inner"):
            assert "outer" in wait_for("inner", capsys)
        update(advance=4)
    last = capsys.readouterr().err.split("\x1b[2K")[-1]
    assert "outer" in last
    assert "inner" not in last


@pytest.mark.parametrize("show", [None, False])
def test_within_a_silent_bar_all_is_silent(show, impatient, capsys):
    with progress_bar(4, "outer", show=False), progress_bar(4, "inner", show=show):
        time.sleep(5 * PAUSE)
    assert capsys.readouterr() == ("", "")


def test_within_a_silent_bar_one_can_be_asked_for(capsys):
    with progress_bar(4, "outer", show=False), progress_bar(4, "inner", show=True) as update:
        update(advance=4)
    assert "inner" in capsys.readouterr().err


def test_after_an_error_the_next_bar_is_an_outer_one(capsys):
    with pytest.raises(ValueError, match="mine"), progress_bar(4, "doing", show=False):
        raise ValueError("mine")
    with progress_bar(4, "next", show=True) as update:
        update(advance=4)
    assert "next" in capsys.readouterr().err


# --- who says what ------------------------------------------------------------------------------------------------------


@pytest.fixture
def told(monkeypatch):
    """The totals, and the descriptions of all bars, with the steps that they were advanced."""
    found = {}

    def begin(self, total, description):
        found[description] = [total, 0]
        return [description]

    def update(self, key, *, description=None, completed=None, advance=None):
        if description is not None and description != key[0]:
            key[0] = description
            found.setdefault(description, [None, 0])
        found[key[0]][1] += advance or 0

    monkeypatch.setattr(progress._Lines, "begin", begin)
    monkeypatch.setattr(progress._Lines, "update", update)
    monkeypatch.setattr(progress._Lines, "end", lambda self, key: None)
    monkeypatch.setattr(progress._Lines, "_tell", lambda self: None)
    return found


def test_references_say_how_many_trainings_they_are(told):
    checked = check_arguments(specification(LOSS_WEIGHTING), problem="quadratic", **{**QUADRATIC, "train_steps": 20})
    train_average_references(checked.problem, checked.recipe)
    assert told == {"references of 32 instances: 96 trainings": [32 * 20, 32 * 20]}


@pytest.mark.slow
def test_a_training_says_what_it_does_before_its_first_decision(told, tmp_path):
    train(tmp_path, references=["ew"], lr=0.0371)
    texts = list(told)
    assert texts[0] == "before the first decision"
    assert {"single-task references", "ew on 2 instances", "agent on 2 instances"} <= set(texts)
    assert told["single-task references"][1] > 0
    assert texts.index("ew on 2 instances") < texts.index("agent on 2 instances")
    reached = [text for text in texts if text.startswith("delta_m ")]
    assert [text.split(" % ")[1] for text in reached] == ["untrained", "after 8 decisions"]


def test_a_fit_counts_its_decisions(told):
    mtl_gym.fit("quadratic", "ew", **QUADRATIC)
    assert told == {"ew on quadratic": [40, 40]}


@pytest.mark.parametrize(("show", "shown"), [(True, True), (False, False)])
def test_a_fit_shows_a_bar_if_it_is_asked_for(show, shown, capsys):
    mtl_gym.fit("quadratic", "ew", progress=show, **QUADRATIC)
    out, err = capsys.readouterr()
    assert not out
    assert ("ew on quadratic" in err and "100%" in err) == shown


def test_groups_are_counted_while_they_are_trained(told):
    given = {"tasks": ["digit", "parity", "loop"], "train_steps": 8, "batch_size": 16, "lr": 0.0123}
    groups = mtl_gym.suggest_groups("digits", "tag", **given)
    assert told["warm-up: 1 trainings of all tasks"] == [8, 8]
    count = len(groups)
    assert told[f"groups: trainings 1 to {count} of {count}"] == [8, 8]


@pytest.mark.slow
def test_a_group_table_says_how_many_groups_are_trained(told, tmp_path):
    words = ["groupings", "digits", "--out", str(tmp_path / "table.npz"), "--instances", "2", "--set", "tasks=digit,parity,loop"]
    more = ["--set", "train_steps=8", "--set", "batch_size=16", "--set", "lr=0.0321"]
    answer = CliRunner().invoke(full_app(), words + more)
    assert answer.exit_code == 0, answer.output
    assert told["group table of 2 instances"] == [2, 2]
    assert told["groups: trainings 1 to 6 of 6"] == [8, 8]  # twice: single tasks, whose layers are compared, and pairs

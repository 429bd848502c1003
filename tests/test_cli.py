"""The command line: what it prints, what it writes, and what it says to wrong input."""

from __future__ import annotations

import csv
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

import mtl_gym
from mtl_gym.baselines import BASELINES
from mtl_gym.cli import app, console, full_app
from mtl_gym.evaluation.comparison import perform
from mtl_gym.evaluation.frames import to_frame
from mtl_gym.evaluation.plans import plan
from mtl_gym.evaluation.terminal import table
from mtl_gym.problems import PROBLEMS

ROOT = Path(mtl_gym.__file__).parents[1]
SMALL = (
    "--problem",
    "quadratic",
    "--instances",
    "2",
    "--set",
    "train_steps=4",
    "--set",
    "batch_size=16",
    "--set",
    "holdout_size=16",
)
FILES = {"results.sqlite", "results.csv", "summary.json", "report.html", "tensorboard"}


@pytest.fixture(scope="module", autouse=True)
def wide():
    """A terminal in which nothing is folded."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(console, "_width", 200)
        yield


def invoke(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def compare(out, policies="ew,si", *more):
    answer = invoke("compare", "--policies", policies, "--out", out, *SMALL, *more)
    assert answer.exit_code == 0, answer.output
    return answer


def summary(out):
    return json.loads((out / "summary.json").read_text())


def count(out):
    with closing(sqlite3.connect(out / "results.sqlite")) as connection:
        return connection.execute("SELECT COUNT(*) FROM results").fetchone()[0]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with a comparison of three policies, and what the command printed."""
    out = tmp_path_factory.mktemp("results") / "nested" / "folder"
    return out, compare(out, "ew,si,constant:w=1,2,3").output


# --- list -----------------------------------------------------------------------------------------------------------------


def test_list_names_everything_in_the_tables():
    answer = invoke("list")
    assert answer.exit_code == 0
    for name in ("mtl_gym/LossWeighting-v0", *PROBLEMS, *BASELINES):
        assert name in answer.output


@pytest.mark.parametrize(
    ("what", "inside", "outside"),
    [
        ("problems", "river_flow", "mtl_gym.baselines.gls"),
        ("policies", "mtl_gym.baselines.gls", "river_flow"),
        ("environments", "LossW", "gls"),
    ],
)
def test_list_can_be_told_what(what, inside, outside):
    output = invoke("list", what).output
    assert inside in output
    assert outside not in output


def test_list_of_something_else_is_refused():
    assert invoke("list", "things").exit_code == 2


@pytest.mark.parametrize(
    ("words", "inside", "outside"),
    [
        (["--search", "FAMO"], ["famo"], ["igb", "digits"]),
        (["policies", "--env", "mtl_gym/TaskGrouping-v0"], ["stg-mtl", "single-task", "ppo"], ["famo", "mtsl"]),
        (["--env", "mtl_gym/TaskGrouping-v0", "--search", "which tasks"], ["mtl_gym/TaskGrouping-v0"], ["LossWeighting"]),
    ],
)
def test_list_is_filtered(words, inside, outside):
    output = invoke("list", *words).output
    assert all(f"{name} " in output for name in inside)
    assert not [name for name in outside if name in output]


@pytest.mark.parametrize(
    ("width", "heads"), [(40, ["name", "what"]), (60, ["name", "what", "for"]), (80, ["name", "what", "for", "home"])]
)
def test_a_list_in_a_narrow_terminal_keeps_names_whole(width, heads, monkeypatch):
    monkeypatch.setattr(console, "_width", width)
    lines = invoke("list", "policies").output.splitlines()
    assert lines[1].split() == heads
    assert max(map(len, lines)) <= width
    assert set(BASELINES) <= {line.split()[0] for line in lines if line.strip()}


@pytest.mark.parametrize("command", ["compare", "train"])
def test_defaults_in_brackets_are_not_lost_in_the_help(command):
    text = " ".join(CliRunner().invoke(full_app(), [command, "--help"]).output.replace("│", " ").split())
    assert "by default the environment's" in text


def test_list_of_nothing_says_so():
    answer = invoke("list", "--search", "nothing of the kind")
    assert answer.exit_code == 1
    assert not answer.stdout
    assert "Nothing of that kind" in answer.stderr
    assert "Did you mean 'mtl_gym/LossWeighting-v0'" in invoke("list", "--env", "LossWeighting-v0").stderr


def test_list_is_json_if_asked_for():
    assert [row["name"] for row in json.loads(invoke("list", "problems", "--json").stdout)["problems"]] == list(PROBLEMS)


def test_the_command_is_a_module_too_and_completes():
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "_MTL_GYM_COMPLETE": "complete_bash", "COMP_CWORD": "1"}
    command = [sys.executable, "-m", "mtl_gym"]
    words = {**environment, "COMP_WORDS": "mtl-gym comp"}
    answer = subprocess.run(command, capture_output=True, text=True, check=False, env=words, cwd="/")
    assert answer.stdout.split() == ["compare"], answer.stderr
    assert "--show-completion" in invoke("--help").output


def test_version():
    assert invoke("--version").output.strip() == mtl_gym.__version__


def test_without_a_command_the_help_is_shown():
    assert "compare" in invoke().output


@pytest.mark.parametrize(("what", "inside"), [("problems", "digits"), ("policies", "famo")])
def test_listing_loads_neither_torch_nor_stable_baselines3(what, inside):
    """The problems that an environment supports are asked of the problems, which needs torch and the data."""
    code = f"""
import sys
from typer.testing import CliRunner
from mtl_gym.cli import app
assert "{inside}" in CliRunner().invoke(app, ["list", "{what}"]).output
print(sorted({{"torch", "stable_baselines3", "matplotlib"}} & set(sys.modules)))
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert answer.stdout.strip() == "[]"


# --- compare --------------------------------------------------------------------------------------------------------------


def test_compare_writes_all_files(finished):
    out, _ = finished
    assert {path.name for path in out.iterdir()} == FILES
    assert count(out) == 6
    assert list((out / "tensorboard").rglob("events.out.tfevents.*"))


def test_the_summary_has_the_documented_shape(finished):
    policies = summary(finished[0])["policies"]
    assert list(policies) == ["ew", "si", "constant:w=1,2,3"]
    for name, row in policies.items():
        assert {"mean", "median", "low", "high"} <= set(row["delta_m"])
        assert row["delta_m"]["low"] <= row["delta_m"]["mean"] <= row["delta_m"]["high"]
        assert set(row["metrics"]) == {"objective_1/rmse", "objective_2/rmse", "objective_3/rmse"}
        assert row["instances"] == 2
        assert set(row["probability_of_improvement"]) == set(policies) - {name}
        assert row["cost"] == {"forward": 4.0, "backward": 4.0}


def test_the_csv_is_the_tidy_frame(finished):
    with (finished[0] / "results.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 3 * 2 * 3
    assert {"policy", "instance", "task", "metric", "value", "reference", "delta_m"} <= set(rows[0])


def test_what_is_printed_has_the_table_and_says_where_the_page_is(finished):
    out, output = finished
    for text in ("ew", "si", "constant:w=1,2,3", "delta_m", str(out / "report.html"), f"tensorboard --logdir {out}"):
        assert text in output
    assert "0:00" not in output


def test_what_is_asked_for_as_json_is_the_summary_and_nothing_else(finished):
    out, _ = finished
    answer = invoke("report", out, "--json")
    assert json.loads(answer.stdout) == summary(out)
    assert not answer.stderr


@pytest.mark.parametrize("width", [30, 40, 60, 80])
def test_a_narrow_terminal_keeps_the_policies(width, finished):
    summarized = summary(finished[0])
    narrow = Console(width=width, file=StringIO())
    narrow.print(table(summarized, width))
    lines = narrow.file.getvalue().splitlines()
    assert any(line.startswith("constant:") for line in lines)
    assert any(line.startswith("ew ") for line in lines)
    assert any("delta_m" in line for line in lines)
    assert ("F + B" in narrow.file.getvalue()) == (width > 60)


@pytest.mark.parametrize(("width", "heads", "broken"), [(200, 5, False), (80, 4, False), (60, 2, False), (40, 1, True)])
def test_columns_are_left_out_before_names_are_broken_where_their_parts_end(width, heads, broken, finished):
    renamed = json.loads(json.dumps(summary(finished[0])).replace("constant:w=1,2,3", "my.py:MyPolicy:decay=.8"))
    narrow = Console(width=width, file=StringIO())
    narrow.print(table(renamed, width))
    lines = [line.rstrip() for line in narrow.file.getvalue().splitlines()]
    names = [line.split("  ")[0].rstrip() for line in lines]
    assert ("my.py:MyPolicy:decay=.8" in names) != broken
    assert {"my.py:MyPolicy:", "decay=.8"} <= set(names) or not broken
    [head] = [line for line in lines if line.startswith("policy")]
    assert sum(word in head for word in ("delta_m %", "over ew", "verdict", "F + B", "P(> ew)")) == heads


@pytest.mark.parametrize("columns", [None, "60"])
def test_a_pipe_has_no_width_unless_it_is_given_one(columns):
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "FORCE_COLOR")}
    environment |= {"COLUMNS": columns} if columns else {}
    words = [sys.executable, "-m", "mtl_gym", "list", "policies"]
    answer = subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT, env=environment)
    widest = max(len(line.rstrip()) for line in answer.stdout.splitlines())
    assert widest <= 60 if columns else widest > 80


def test_compare_again_keeps_every_row(finished):
    out, _ = finished
    before, text = count(out), summary(out)["policies"]
    compare(out, "ew,si,constant:w=1,2,3")
    assert count(out) == before
    assert summary(out)["policies"] == text


def test_the_results_are_those_of_python(finished):
    frame = mtl_gym.compare(
        "ew,si,constant:w=1,2,3", problem="quadratic", instances=2, train_steps=4, batch_size=16, holdout_size=16
    )
    expected = mtl_gym.summarize(frame)["policies"]
    for name, row in summary(finished[0])["policies"].items():
        assert row["delta_m"] == pytest.approx(expected[name]["delta_m"], rel=1e-6, abs=1e-9)


def test_report_rebuilds_everything_from_the_database_alone(finished, tmp_path):
    out, _ = finished
    (tmp_path / "results.sqlite").write_bytes((out / "results.sqlite").read_bytes())
    answer = invoke("report", tmp_path)
    assert answer.exit_code == 0, answer.output
    assert {path.name for path in tmp_path.iterdir()} == FILES
    assert (tmp_path / "results.csv").read_text() == (out / "results.csv").read_text()
    assert summary(tmp_path) == summary(out)
    about = summary(tmp_path)["about"]
    assert about["seed"] == 0
    assert about["command"].split()[0] == "mtl-gym"


def python_compare(out, policies="ew", **others):
    arguments = {"problem": "quadratic", "instances": 2, "train_steps": 4, "batch_size": 16, "holdout_size": 16, **others}
    return mtl_gym.summarize(to_frame(*perform(plan(policies, **arguments), out=out)))  # no page: report draws it


def report(out):
    answer = invoke("report", out)
    assert answer.exit_code == 0, answer.output + repr(answer.exception)
    return summary(out)


@pytest.mark.slow
def test_the_smallest_difference_is_an_option_that_report_keeps(tmp_path):
    compare(tmp_path, "ew,si", "--smallest-difference", "0.5", "--instances", "5")
    assert "Differences within 0.5 points are called equal" in " ".join(invoke("report", tmp_path).output.split())
    assert summary(tmp_path)["about"]["smallest_difference"] == 0.5


@pytest.mark.slow
def test_report_holds_the_policies_of_several_runs_of_one_setting(tmp_path):
    python_compare(tmp_path, "ew")
    python_compare(tmp_path, "si")
    assert list(report(tmp_path)["policies"]) == ["ew", "si"]


def test_report_shows_the_setting_compared_last(tmp_path):
    for lr in (0.1, 0.2, 0.1):
        python_compare(tmp_path, lr=lr)
    assert report(tmp_path)["about"]["arguments"]["lr"] == 0.1


@pytest.mark.slow
def test_report_of_policies_without_a_shared_instance_does_not_compare_them(tmp_path):
    python_compare(tmp_path, "ew")
    python_compare(tmp_path, "si", seed=1)
    assert report(tmp_path)["policies"]["si"]["probability_of_improvement"] in ({}, {"ew": None})


@pytest.mark.slow
def test_report_of_a_function_shows_its_newest_code(tmp_path):
    python_compare(tmp_path, {"mine": mtl_gym.policy(lambda losses: losses * 0 + 1)}, optimizer="sgd")
    newest = python_compare(tmp_path, {"mine": mtl_gym.policy(lambda losses: losses * 0 + 2)}, optimizer="sgd")
    assert report(tmp_path)["policies"]["mine"]["delta_m"] == pytest.approx(newest["policies"]["mine"]["delta_m"])


# --- --set and options of policies -----------------------------------------------------------------------------------------


SETTINGS = {
    "lr=5e-2": ("lr", 0.05),
    "lr-schedule=cosine": ("lr_schedule", "cosine"),
    " num_tasks =2": ("num_tasks", 2),
    'distribution={"noise": [0, 0.2]}': ("distribution", {"noise": [0, 0.2]}),
    "hidden_sizes=8,4": ("hidden_sizes", [8, 4]),
    'reward="val_min"': ("reward", "val_min"),
}


@pytest.mark.slow
def test_set_takes_numbers_names_lists_and_json(tmp_path):
    compare(tmp_path, "ew", "--problem", "digits", *[word for text in SETTINGS for word in ("--set", text)])
    arguments = summary(tmp_path)["about"]["arguments"]
    assert {name: arguments[name] for name, _ in SETTINGS.values()} == dict(SETTINGS.values())


@pytest.mark.parametrize(
    ("text", "tasks"),
    [
        pytest.param("tasks=objective_3,objective_1", ["objective_1", "objective_3"], marks=pytest.mark.slow),
        pytest.param("tasks=objective_1, objective_2", ["objective_1", "objective_2"], marks=pytest.mark.slow),
        ('tasks=["objective_2"]', ["objective_2"]),
    ],
)
def test_set_takes_the_names_of_tasks(text, tasks, tmp_path):
    compare(tmp_path, "ew", "--set", text)
    assert summary(tmp_path)["about"]["arguments"]["tasks"] == tasks
    assert {metric.split("/")[0] for metric in summary(tmp_path)["policies"]["ew"]["metrics"]} == set(tasks)
    assert report(tmp_path)["about"]["arguments"]["tasks"] == tasks


@pytest.mark.slow
def test_report_shows_the_tasks_compared_last(tmp_path):
    for names in (["objective_1", "objective_2"], ["objective_3", "objective_2"]):
        python_compare(tmp_path, tasks=names)
    assert set(report(tmp_path)["policies"]["ew"]["metrics"]) == {"objective_2/rmse", "objective_3/rmse"}


@pytest.mark.slow
def test_a_comma_before_a_number_continues_the_value(tmp_path):
    texts = ["constant:w=1,2,3", "constant:w=[1,2,3]", "constant:w=1, +2, 0.5", "constant:w=1e0,2,3.5"]
    compare(tmp_path, ",".join(["ew", *texts, "si"]))
    assert list(summary(tmp_path)["policies"]) == ["ew", *texts, "si"]


# --- wrong input ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--policies", "ew,sy"], "Did you mean 'si'"),
        (["--policies", "igp"], "Did you mean 'igb'"),
        (["--policies", "r21c"], "Paths of agents may be given too; there is no file or folder 'r21c'."),
        (["--policies", ""], "policies"),
        (["--policies", "ew,ew"], "policies"),
        (["--policies", "ew:3"], "name:option=value"),
        (["--policies", "ew:speed=3"], "speed"),
        (["--policies", "constant:w=<script>alert(1)</script>"], "<script>"),
        (["--policies", "constant:w=[red]1[/red]"], "[red]1[/red]"),
        (["--policies", "[/]"], "[/]"),
        (["--policies", "constant:w=1,2"], "3 tasks"),
        (["--problem", "quadratik"], "Did you mean 'quadratic'"),
        (["--env", "mtl_gym/LossWeightin-v0"], "LossWeighting"),
        (["--instances", "0"], "instances"),
        (["--instances", "-3"], "instances"),
        (["--instances", "100000"], "instances"),
        (["--num-envs", "0"], "num_envs"),
        (["--smallest-difference", "-1"], "smallest_difference"),
        (["--seed", "-1"], "seed"),
        (["--seed", "99999999"], "`seed` should be at most 214747"),
        (["--set", "train_step=4"], "Did you mean 'train_steps'"),
        (["--set", "train_steps"], "key=value"),
        (["--set", "=4"], "key=value"),
        (["--set", "train_steps=0"], "train_steps"),
        (["--set", "lr=fast"], "lr"),
        (["--set", "lr=NaN"], "lr"),
        (["--set", "lr=-1"], "lr"),
        (["--set", "hidden_sizes=8,-4"], "hidden_sizes"),
        (["--set", "optimizer=adan"], "Did you mean 'adam'"),
        (["--set", "action=softmax"], "action"),
        (["--set", 'distribution={"noize": [0, 1]}'], "noise"),
        (["--set", 'distribution={"noise": [-1, 1]}'], "noise"),
        (["--set", "observe=[red]"], "observe"),
        (["--set", "tasks=objective_1,objektive_3"], "Did you mean 'objective_3'"),
        (["--set", "tasks=objective_1"], 'A list of one is ["objective_1"]'),
        (["--set", "tasks=objective_1,objective_1"], "each once"),
        (["--set", "tasks=objective_1,"], "tasks"),
        (["--set", "tasks=[]"], "at least one task"),
        (["--set", "tasks="], "tasks"),
        (["--set", "tasks=objective_1,objective_2", "--set", "num_tasks=3"], "num_tasks"),
        (["--set", "hidden_sizes=32"], "A list of one is [32]."),
        (["--set", "instance=2"], "use the option --instances"),
        (["--set", "id=x"], "`--set` should be one of action, rule"),
        (["--set", "self=1"], "Received --set='self'."),
        (["--set", "vectorization_mode=sync"], "Received --set='vectorization_mode'."),
        (["--set", "lr=0.1", "--set", "lr=0.2"], "`--set` should set lr once. Received --set='lr=0.2'."),
        (["--set", "distribution={'noize': [0, 1]}"], "Did you mean 'noise'"),
        (["--problem", ""], "`problem` should be one of"),
        (["--problem", "missing.py:make"], "missing.py"),
        (["--policies", "si", "--env", "mtl_gym/TaskGrouping-v0", "--set", "num_tasks=3"], "which si is for"),
        (["--policies", "igb+si"], "Received policies='igb+si'"),
        (["--policies", "mgda+cagrad"], "Received policies='mgda+cagrad'"),
        (["--set", "steps_per_action=5"], "which ew requires"),
    ],
)
def test_wrong_input_is_named_with_status_2_and_nothing_is_written(words, message, tmp_path):
    out = tmp_path / "out"
    given = {word.partition("=")[0] for word in words}
    small = [word for pair in zip(SMALL[::2], SMALL[1::2], strict=True) for word in pair if pair[1].partition("=")[0] not in given]
    answer = invoke("compare", "--out", out, *small, *(() if "--policies" in words else ("--policies", "ew")), *words)
    assert answer.exit_code == 2
    assert message in answer.stderr.replace("\n", " ")
    assert "Traceback" not in answer.output
    assert not out.exists()


@pytest.mark.parametrize("words", [["--policies", "ew"], ["--out", "x"], ["--policies", "ew", "--out", "x", "--instances", "many"]])
def test_missing_and_mistyped_options_are_refused(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert invoke("compare", *words).exit_code == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words",
    [
        ["compare", "--policies", "ew", "--problem", "quadratic", "--out", ""],
        ["groupings", "digit_tasks", "--out", " "],
        ["train", "--problem", "quadratic", "--out", ""],
        ["report", ""],
    ],
)
def test_an_empty_path_is_not_the_current_folder(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answer = CliRunner().invoke(full_app(), words)
    assert answer.exit_code == 2
    assert "`path` should be a path" in answer.stderr
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("kept")
    answer = invoke("compare", "--policies", "ew", "--out", tmp_path / "file" / "out", *SMALL)
    assert answer.exit_code == 2
    assert str(tmp_path / "file") in answer.stderr
    assert (tmp_path / "file").read_text() == "kept"


def test_report_of_a_folder_without_results_is_refused(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        answer = invoke("report", folder)
        assert answer.exit_code == 2
        assert "results.sqlite" in answer.stderr
    assert not list(tmp_path.iterdir())


def test_report_of_something_that_is_no_database_is_refused(tmp_path):
    (tmp_path / "results.sqlite").write_text("certainly no database, but long enough to look like something else" * 20)
    answer = invoke("report", tmp_path)
    assert answer.exit_code == 2
    assert "results.sqlite" in answer.stderr


@pytest.mark.parametrize("name", ["a [red]out", pytest.param("out[/b]", marks=pytest.mark.slow)])
def test_the_folders_name_is_printed_as_it_is(name, tmp_path):
    answer = compare(tmp_path / name, "ew")
    assert str(tmp_path / name / "report.html") in answer.output


# --- policies of others ---------------------------------------------------------------------------------------------------

PLUGIN = '''
import numpy as np
from mtl_gym import Requirements

TABLE = {"plugged": "plugin_of_a_third_party:Plugged"}

class Plugged:
    """Equal weights of somebody else; with a mode."""

    requires = Requirements(observe=("log_loss",), action="weights", steps_per_action=1)

    def __init__(self, mode="plain", stop=False):
        self.spec, self.stop = {"plugged": mode}, stop

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        if self.stop:
            raise KeyboardInterrupt
        return np.ones_like(observation["log_loss"]), state
'''


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """A package with policies of its own, installed for one test."""
    home = tmp_path / "site"
    (home / "plugin-1.dist-info").mkdir(parents=True)
    (home / "plugin-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1\n")
    (home / "plugin-1.dist-info" / "entry_points.txt").write_text("[mtl_gym.policies]\nplugin = plugin_of_a_third_party:TABLE\n")
    (home / "plugin_of_a_third_party.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(home)
    yield
    sys.modules.pop("plugin_of_a_third_party", None)


@pytest.mark.usefixtures("plugin")
def test_a_package_plugs_its_policies_in(tmp_path):
    assert "plugged" in invoke("list", "policies").output
    compare(tmp_path / "out", "ew,plugged")
    delta_m = {name: row["delta_m"] for name, row in summary(tmp_path / "out")["policies"].items()}
    assert delta_m["plugged"] == delta_m["ew"]


HOSTILE = [f"plugged:mode={mode}" for mode in ("<b>hi</b>", "a&b", "$x_1$", "_hidden", "%s{0}", "../../up", "[red]", "é")]


@pytest.mark.slow
@pytest.mark.usefixtures("plugin")
def test_labels_are_printed_and_written_as_they_are(tmp_path):
    out = tmp_path / "out"
    answer = compare(out, ",".join(HOSTILE))
    for label in HOSTILE:
        assert label in answer.output
    assert f"over {HOSTILE[0][:9]}" in answer.output
    assert list(summary(out)["policies"]) == HOSTILE
    assert "<b>hi</b>" not in (out / "report.html").read_text()
    assert {path.name for path in out.iterdir()} == FILES
    assert len(list((out / "tensorboard").iterdir())) == len(HOSTILE)


@pytest.mark.slow
@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize("label", ["plugged:mode=[/red]漢", f"plugged:mode={'long' * 20}"])
def test_any_label_can_be_the_first(label, tmp_path):
    answer = compare(tmp_path / "out", label)
    assert label[:30] in answer.output
    assert list(summary(tmp_path / "out")["policies"]) == [label]


@pytest.mark.usefixtures("plugin")
def test_an_interruption_says_what_is_kept(tmp_path):
    answer = invoke("compare", "--policies", "ew,plugged:stop=true", "--out", tmp_path / "[red]", *SMALL)
    assert answer.exit_code == 130
    assert str(tmp_path / "[red]") in answer.stderr
    assert "resume" in answer.stderr
    assert count(tmp_path / "[red]") == 2

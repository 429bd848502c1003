"""An environment, policies and commands of another package: compared, shown and reported like ours; broken ones are skipped."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mtl_gym
from mtl_gym.environments import find_environments

ROOT = Path(mtl_gym.__file__).parents[1]
ID = "acme/LearningRate-v0"
ENTRIES = f"""
[mtl_gym.environments]
{ID} = learning_rate:LearningRateEnv
acme/Broken-v0 = no_such_module:NothingEnv
mtl_gym/LossWeighting-v0 = learning_rate:LearningRateEnv

[mtl_gym.policies]
acme = learning_rate:POLICIES

[mtl_gym.commands]
acme-hello = acme_commands:hello
acme-missing = no_such_module:nothing
acme-wrong = acme_commands:wrong
compare = acme_commands:hello
train = acme_commands:hello
"""
COMMANDS = '''
def hello():
    """Greet."""
    import typer
    typer.echo("hello from acme")

def wrong(value: int | str):
    """Something that Typer cannot take."""
'''
SMALL = [f"--set={text}" for text in ("train_steps=8", "steps_per_action=4", "batch_size=16", "holdout_size=16")]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder that holds the package as pip would install it."""
    home = tmp_path_factory.mktemp("site")
    shutil.copy(ROOT / "tests" / "learning_rate.py", home)
    (home / "acme_commands.py").write_text(COMMANDS)
    (home / "acme-1.dist-info").mkdir()
    (home / "acme-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1\n")
    (home / "acme-1.dist-info" / "entry_points.txt").write_text(ENTRIES)
    return home


def mtl(*words, site=None):
    """Runs the command line in a process of its own, with the package or without it."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, filter(None, (ROOT, site)))), "COLUMNS": "200"}
    words = [sys.executable, "-m", "mtl_gym", *map(str, words)]
    return subprocess.run(words, capture_output=True, text=True, check=False, env=environment)


@pytest.fixture(scope="module")
def compared(site, tmp_path_factory):
    """A folder with a comparison in the package's environment."""
    out = tmp_path_factory.mktemp("compared")
    words = ("--env", ID, "--policies", "warm-up,flat", "--problem", "quadratic", "--instances", 2, "--out", out)
    answer = mtl("compare", *words, *SMALL, site=site)
    assert answer.returncode == 0, answer.stderr
    return out


def summary(out):
    return json.loads((out / "summary.json").read_text())


@pytest.mark.slow
def test_its_columns_and_figures_are_shown(compared):
    page, found = (compared / "report.html").read_text(), summary(compared)
    assert found["about"]["columns"] == ["factor"]
    assert found["policies"]["flat"]["factor"]["mean"] == 1
    assert "last rate over the first <small>mean</small></th>" in page
    assert ">Learning rates</h2>" in page
    assert ">Learning curves</h2>" in page
    assert ">Weights</h2>" not in page
    assert (compared / "results.csv").read_text().splitlines()[0].endswith(",factor,kernels")


@pytest.mark.slow
def test_a_page_is_written_without_the_package(compared, site, tmp_path):
    shutil.copy(compared / "results.sqlite", tmp_path)
    answer = mtl("report", tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert f"columns and figures of {ID} are left out" in answer.stderr
    page = (tmp_path / "report.html").read_text()
    assert "last rate over the first" not in page
    assert ">Learning rates</h2>" not in page
    assert "warm-up" in page
    assert summary(tmp_path)["policies"]["flat"]["delta_m"] == summary(compared)["policies"]["flat"]["delta_m"]


@pytest.mark.slow
def test_the_environments_are_listed_and_nobody_takes_an_id_of_ours(site, monkeypatch):
    answer = mtl("list", "environments", site=site)
    assert answer.returncode == 0, answer.stderr
    lines = {line.split()[0]: line for line in answer.stdout.splitlines() if "/" in line.partition(" ")[0]}
    assert next(iter(lines)) == "mtl_gym/LossWeighting-v0"
    assert "By how much is the learning rate multiplied?" in lines[ID]
    assert "cannot be loaded" in lines["acme/Broken-v0"]
    monkeypatch.syspath_prepend(site)
    found = find_environments()
    assert found[ID] == "learning_rate:LearningRateEnv"
    assert found["mtl_gym/LossWeighting-v0"] == "mtl_gym.envs.loss_weighting:LossWeightingEnv"


def test_a_broken_command_is_named_and_stops_nothing(site):
    answer = mtl("--version", site=site)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip() == mtl_gym.__version__
    for name in ("acme-missing", "acme-wrong"):
        assert f"'{name}' of mtl_gym.commands, from the package 'acme', is skipped" in answer.stderr


def test_commands_are_added_and_nobody_takes_a_name_of_ours(site):
    assert mtl("acme-hello", site=site).stdout.strip() == "hello from acme"
    assert "--policies" in mtl("compare", "--help", site=site).stdout
    assert "hello from acme" not in mtl("train", "--help", site=site).stdout

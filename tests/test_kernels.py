"""Results record the kernels with which they were computed, and results of several kernels are not mixed in silence."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest
import torch
from rollouts import small

import mtl_gym
from mtl_gym.evaluation.comparison import perform
from mtl_gym.evaluation.export import export
from mtl_gym.evaluation.frames import results_of, to_frame
from mtl_gym.evaluation.kernels import described, running_kernels
from mtl_gym.evaluation.notes import notes
from mtl_gym.evaluation.plans import plan
from mtl_gym.evaluation.report import settings
from mtl_gym.evaluation.summary import summarize

ROOT = Path(mtl_gym.__file__).parents[1]
OTHER = "json_set(result, '$.kernels.capability', 'OLD')"


def compare(out, instances=2, policies="ew"):
    arguments = {name: value for name, value in small("quadratic").items() if name != "steps_per_action"}
    return perform(plan(policies, instances=instances, **arguments), out=out)


def change(out, value):
    with closing(sqlite3.connect(out / "results.sqlite")) as connection, connection:
        connection.execute(f"UPDATE results SET result = {value}")


def test_the_capability_is_that_which_torch_reports():
    own = running_kernels("cpu")
    assert re.search(r"CPU capability usage: (\S+)", torch.__config__.show()).group(1) == own["capability"]
    assert (own["torch"], own["threads"], own["device"]) == (torch.__version__, torch.get_num_threads(), "cpu")


def test_the_threads_are_those_of_the_process():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert running_kernels("cpu")["threads"] == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
def test_variables_that_choose_other_kernels_are_recorded():
    code = "from mtl_gym.evaluation.kernels import *; print(described(running_kernels('cpu')))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ATEN_CPU_CAPABILITY": "default", "OMP_NUM_THREADS": "1"}
    answer = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert answer.stdout == f"DEFAULT, torch {torch.__version__}, 1 thread, cpu, ATEN_CPU_CAPABILITY=default\n"


def test_every_result_has_its_kernels(tmp_path):
    results, about = compare(tmp_path)
    own = running_kernels("cpu")
    assert [result.kernels for result in results] == [own, own]
    assert about["kernels"] == {described(own): 2}
    assert [result.kernels for result in results_of(tmp_path)[0]] == [own, own]


@pytest.mark.slow
def test_exports_and_the_page_have_the_kernels(tmp_path):
    results, about = compare(tmp_path)
    summary = export(results, about, tmp_path)
    own = described(running_kernels("cpu"))
    assert set(pd.read_csv(tmp_path / "results.csv")["kernels"]) == {own}
    assert summary["about"]["kernels"] == {own: 2}
    assert f"<dt>kernels</dt><dd>{own}</dd>" in (tmp_path / "report.html").read_text()


def test_missing_results_of_other_kernels_are_named(tmp_path):
    compare(tmp_path)
    change(tmp_path, OTHER)
    own = running_kernels("cpu")
    with pytest.warns(RuntimeWarning) as caught:
        results, about = compare(tmp_path, instances=5)
    [text] = [str(one.message) for one in caught]
    assert str(tmp_path / "results.sqlite") in text
    assert f"2 with {described({**own, 'capability': 'OLD'})}" in text
    assert f"the 3 that are missing are made with {described(own)}" in text
    assert about["kernels"] == {described(own): 3, described({**own, "capability": "OLD"}): 2}
    summary = summarize(to_frame(results, about))
    assert any("Results of several kernels are mixed (3 with " in line for line in notes(summary))
    assert "; 2 with OLD" in settings(about)


def test_another_policy_of_other_kernels_is_named(tmp_path):
    compare(tmp_path)
    change(tmp_path, OTHER)
    with pytest.warns(RuntimeWarning, match="2 with OLD"):
        compare(tmp_path, policies="ew,si")


def test_finished_results_are_read_without_a_warning(tmp_path):
    compare(tmp_path)
    change(tmp_path, OTHER)
    _, about = compare(tmp_path)  # warnings are errors
    assert [*about["kernels"]] == [described({**running_kernels("cpu"), "capability": "OLD"})]


def test_a_file_of_an_earlier_version_has_kernels_that_are_not_recorded(tmp_path):
    compare(tmp_path)
    change(tmp_path, "json_remove(result, '$.kernels')")
    _, about = compare(tmp_path)
    assert about["kernels"] == {"not recorded": 2}
    with pytest.warns(RuntimeWarning, match="2 with not recorded"):
        compare(tmp_path, instances=3)


def test_a_part_of_a_frame_has_the_kernels_of_its_results(tmp_path):
    compare(tmp_path)
    change(tmp_path, f"CASE instance WHEN 0 THEN {OTHER} ELSE result END")
    frame = to_frame(*compare(tmp_path))
    assert len(frame.attrs["about"]["kernels"]) == 2
    assert results_of(frame[frame["instance"] == 1])[1]["kernels"] == {described(running_kernels("cpu")): 1}


@pytest.mark.parametrize("wrong", ["'x'", "'[1]'", 'json(\'{"capability": "AVX2"}\')'])
def test_kernels_that_cannot_be_are_named_and_made_again(wrong, tmp_path):
    first, _ = compare(tmp_path)
    change(tmp_path, f"json_set(result, '$.kernels', {wrong})")
    with pytest.warns(RuntimeWarning, match="2 rows of .* cannot be read"):
        assert compare(tmp_path)[0] == first

"""The results file: shared by processes, whole after a kill, and clear about what it cannot be."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import mtl_gym
from mtl_gym.evaluation.results import Result, Results, spec_key

ROOT = Path(mtl_gym.__file__).parents[1]


def make_result(policy="ew", instance=0, delta_m=1.5):
    curves = {"step": [0, 10], "loss": {"a": [1.0, None]}, "weight": {"a": [1.0, 2.0]}}
    return Result(
        policy, instance, {"a/rmse": 0.5}, {"a/rmse": 0.4}, delta_m, {"forward": 1.0, "backward": 1.0}, False, 0.25, curves
    )


def spec(instance=0, policy="ew", **setting):
    return {"setting": setting, "label": policy, "instance": instance}


def test_what_is_written_is_read_back(tmp_path):
    store, result = Results(tmp_path / "folder" / "results.sqlite"), make_result()
    store.write([spec()], [result])
    assert Results(store.path).read([spec_key(spec()), "another"]) == {spec_key(spec()): result}


def test_a_diverged_result_is_read_back(tmp_path):
    store = Results(tmp_path / "results.sqlite")
    store.write([spec()], [replace(make_result(delta_m=-100.0), metrics={"a/rmse": np.nan}, diverged=True)])
    read = store.read([spec_key(spec())])[spec_key(spec())]
    assert read.diverged
    assert np.isnan(read.metrics["a/rmse"])


def test_a_result_written_before_planted_quantities_were_kept_is_read(tmp_path):
    store, result = Results(tmp_path / "results.sqlite"), make_result()
    store.write([spec()], [replace(result, planted={"scale": {"a": 2.0}})])
    with closing(sqlite3.connect(store.path)) as connection, connection:
        connection.execute("UPDATE results SET result = json_remove(result, '$.planted')")
    assert store.read([spec_key(spec())]) == {spec_key(spec()): result}


def test_the_first_result_of_a_key_stays(tmp_path):
    store = Results(tmp_path / "results.sqlite")
    for value in (1.0, 2.0):
        store.write([spec()], [make_result(delta_m=value)])
    assert store.read([spec_key(spec())])[spec_key(spec())].delta_m == 1.0


def test_a_batch_is_written_whole_or_not_at_all(tmp_path):
    store = Results(tmp_path / "results.sqlite")
    with pytest.raises(sqlite3.Error):
        store.write([spec(0), spec(1)], [make_result(), make_result(instance={})])
    with pytest.raises(ValueError, match="hold results"):
        store.latest()


def test_keys_depend_on_the_content_and_not_on_its_order():
    assert spec_key({"a": 1, "b": [1, 2]}) == spec_key({"b": (1, 2), "a": 1})
    assert spec_key({"a": 1}) != spec_key({"a": 2})
    with pytest.raises(ValueError, match="JSON"):
        spec_key({"a": float("nan")})


def test_latest_holds_the_setting_written_last_in_the_order_of_writing(tmp_path):
    store = Results(tmp_path / "results.sqlite")
    for lr, policy in ((1, "ew"), (2, "si"), (2, "ew")):
        store.write([spec(policy=policy, lr=lr)], [make_result(policy)])
    setting, _, results = store.latest()
    assert setting == {"lr": 2}
    assert [result.policy for result in results] == ["si", "ew"]


def test_latest_prefers_the_results_of_the_last_comparison_and_keeps_the_others(tmp_path):
    store = Results(tmp_path / "results.sqlite")
    specs = [{**spec(instance), "code": code} for code in (1, 2) for instance in (0, 1)]
    store.write(specs, [make_result("ew", own["instance"], float(own["code"])) for own in specs])
    store.write([spec(policy="si")], [make_result("si", delta_m=3.0)])
    store.begin({}, {}, [spec_key(specs[0])])
    chosen = [(result.policy, result.instance, result.delta_m) for result in store.latest()[2]]
    assert chosen == [("ew", 0, 1.0), ("ew", 1, 2.0), ("si", 0, 3.0)]


def test_latest_keeps_the_seed_and_the_command_also_in_a_file_of_an_earlier_version(tmp_path):
    path = tmp_path / "results.sqlite"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE comparisons (setting TEXT NOT NULL)")
        connection.execute("INSERT INTO comparisons VALUES ('{}')")
    store = Results(path)
    store.write([spec()], [make_result()])
    assert store.latest()[:2] == ({}, {})
    store.begin({}, {"seed": 3, "command": "mtl-gym compare"})
    assert Results(path).latest()[1] == {"seed": 3, "command": "mtl-gym compare"}


def test_threads_share_a_file(tmp_path):
    path = tmp_path / "results.sqlite"
    errors = []

    def work(name):
        try:
            store = Results(path)
            for instance in range(20):
                store.write(
                    [spec(instance, name), spec(instance, "shared")], [make_result(name, instance), make_result("shared", instance)]
                )
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(f"policy {number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(Results(path).latest()[2]) == 20 * 5


WRITER = """
import sys
from pathlib import Path
from mtl_gym.evaluation.results import Result, Results
store = Results(Path(sys.argv[1]))
first = int(sys.argv[2])
for instance in range(first, int(sys.argv[3])):
    store.write([{"instance": instance}], [Result("ew", instance, {}, {}, 0.0, {}, False, 0.0, {"text": "x" * 5000})])
    print(instance, flush=True)
"""


def start(path, first, stop):
    words = [sys.executable, "-c", WRITER, str(path), str(first), str(stop)]
    return subprocess.Popen(words, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_processes_share_a_file_and_a_kill_leaves_whole_rows(tmp_path):
    path = tmp_path / "results.sqlite"
    with start(path, 0, 50) as whole, start(path, 1000, 10**9) as killed:
        told = [int(killed.stdout.readline()) for _ in range(20)]
        killed.send_signal(signal.SIGKILL)
        whole.communicate()
        told += [int(line) for line in killed.communicate()[0].split() if line]
    assert (whole.returncode, killed.returncode) == (0, -signal.SIGKILL)
    instances = {result.instance for result in Results(path).latest()[2]}
    assert set(range(50)) | set(told[:-1]) <= instances
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def text_file(path):
    path.write_text("certainly no database\n" * 100)


def folder(path):
    path.mkdir()


def other_table(path):
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE results (name TEXT)")


def cut_short(path):
    store = Results(path)
    store.write([spec(number) for number in range(200)], [make_result()] * 200)
    path.write_bytes(path.read_bytes()[:100] + b"\xff" * 5000)


@pytest.mark.parametrize("make", [text_file, folder, other_table, cut_short])
def test_a_file_of_another_kind_is_named_and_left(make, tmp_path):
    path = tmp_path / "results.sqlite"
    make(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(ValueError, match=r"results\.sqlite"):
        Results(path)
    assert (path.read_bytes() if path.is_file() else None) == before


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(ValueError, match=r"file/below/results\.sqlite"):
        Results(tmp_path / "file" / "below" / "results.sqlite")
    assert (tmp_path / "file").read_text() == "kept"


def test_an_empty_file_has_no_results(tmp_path):
    with pytest.raises(ValueError, match="hold results"):
        Results(tmp_path / "results.sqlite").latest()

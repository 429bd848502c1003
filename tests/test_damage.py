"""Damaged files, folders that cannot be written, full disks, and other processes: the file is named, and nothing is lost."""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import sqlite3
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from rollouts import make, slow_unless, small

import mtl_gym
from mtl_gym.cache import check_writable, keep_cached, locked, read_cached, write_whole
from mtl_gym.environments import LOSS_WEIGHTING, specification
from mtl_gym.envs.arguments import check_arguments
from mtl_gym.evaluation import database, results as results_module
from mtl_gym.evaluation.frames import results_of
from mtl_gym.evaluation.results import Result, Results, spec_key
from mtl_gym.training import references
from mtl_gym.training.references import average_references, keep_metrics, read_metrics

SHORT = {"problem": "quadratic", "train_steps": 8, "batch_size": 16, "holdout_size": 16}
ROOT = Path(mtl_gym.__file__).parents[1]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of this test's own."""
    monkeypatch.setenv("MTL_GYM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(references, "_known", {})
    return tmp_path / "cache"


@contextlib.contextmanager
def full_disk(size=0):
    """No file grows beyond that many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def recorded():
    """The texts of the warnings."""
    texts = []
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        yield texts
    texts += [str(own.message) for own in said]


def compare(policies="ew,si", **others):
    return mtl_gym.compare(policies, **{**SHORT, "instances": 3, "num_envs": 2, **others})


# --- files ----------------------------------------------------------------------------------------------------------------


def test_a_file_that_cannot_be_written_is_named_and_stays(tmp_path):
    path = tmp_path / "page.html"
    write_whole(path, "before")
    with full_disk(), pytest.raises(OSError, match=r"page\.html"):
        write_whole(path, "after")
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_threads_that_write_the_same_file_do_not_disturb_each_other(tmp_path):
    path, errors = tmp_path / "file", []

    def work(letter):
        try:
            for _ in range(30):
                write_whole(path, letter * 100_000)
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(letter,)) for letter in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(set(path.read_text())) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_locked_by_one_at_a_time_and_leaves_no_file(tmp_path):
    with locked(tmp_path, wait=False):
        with pytest.raises(BlockingIOError), locked(tmp_path, wait=False):
            pass
        assert not list(tmp_path.iterdir())
    with locked(tmp_path, wait=False):
        pass


# --- the cache ------------------------------------------------------------------------------------------------------------


def averages(**others):
    arguments = check_arguments(specification(LOSS_WEIGHTING), **small("quadratic", **others))
    references._known.clear()
    return average_references(arguments.problem, arguments.recipe)


def spoil_each(change):
    """Applies a change to the metrics by name of each training in a JSON file."""

    def spoil(path):
        path.write_text(json.dumps({key: change(metrics) for key, metrics in json.loads(path.read_text()).items()}))

    return spoil


SPOILED = {
    "not finite": spoil_each(lambda metrics: dict.fromkeys(metrics, float("nan"))),
    "infinite": spoil_each(lambda metrics: {**metrics, next(iter(metrics)): float("inf")}),
    "other names": spoil_each(lambda metrics: {f"other_{name}": value for name, value in metrics.items()}),
    "too few": spoil_each(lambda metrics: dict([*metrics.items()][1:])),
    "too many": spoil_each(lambda metrics: {**metrics, "other/rmse": 1.0}),
    "texts": spoil_each(lambda metrics: {name: str(value) for name, value in metrics.items()}),
    "truths": spoil_each(lambda metrics: dict.fromkeys(metrics, True)),
    "a list": spoil_each(list),
    "zeros": spoil_each(lambda metrics: dict.fromkeys(metrics, 0.0)),
    "negative": spoil_each(lambda metrics: {name: -value for name, value in metrics.items()}),
    "huge": spoil_each(lambda metrics: dict.fromkeys(metrics, 1e300)),
    "another training": lambda path: path.write_text(json.dumps({"key": next(iter(json.loads(path.read_text()).values()))})),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "empty": lambda path: path.write_bytes(b""),
    "binary": lambda path: path.write_bytes(bytes(range(256))),
    "deep": lambda path: path.write_text("[" * 100_000),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}
QUICK = ("not finite", "other names", "truncated", "binary", "zeros", "negative", "huge")


@pytest.mark.parametrize("name", slow_unless(QUICK.__contains__, [name for name in SPOILED if name != "a folder"]))
def test_damaged_averages_are_named_and_made_again(name, cache):
    first = dict(averages())
    [path] = cache.glob("references-*.json")
    whole = path.read_bytes()
    SPOILED[name](path)
    with pytest.warns(RuntimeWarning, match=rf"{path.name} in the cache is damaged"):
        assert averages() == first
    assert path.read_bytes() == whole


def test_the_reward_does_not_depend_on_a_damaged_cache(cache):
    def final_reward():
        references._known.clear()
        env = make("quadratic", reward="terminal_delta_m")
        env.reset(seed=0)
        return [env.step([0, 0, 0])[1] for _ in range(2)][-1]

    first = final_reward()
    [path] = cache.glob("references-*.json")
    SPOILED["not finite"](path)
    with pytest.warns(RuntimeWarning, match="damaged"):
        assert final_reward() == first
    assert first > -100


@pytest.mark.parametrize("name", slow_unless(QUICK.__contains__, [*SPOILED]))
def test_damaged_references_of_instances_are_named_and_made_again(name, cache):
    first = compare(out=None)
    paths = sorted(path for path in cache.rglob("*.json"))
    assert len(paths) == 3
    SPOILED[name](paths[1])
    with recorded() as texts:
        assert compare(out=None).equals(first)
    assert any(str(paths[1]) in text and "damaged" in text for text in texts)


def test_an_exact_0_is_not_cached(cache):
    key = json.dumps({"training": 1})
    keep_metrics("own", key, {"a/accuracy": 0.0, "b/rmse": 0.5})
    assert read_metrics("own", key, ["a/accuracy", "b/rmse"]) is None
    keep_metrics("own", key, {"a/accuracy": 1.0, "b/rmse": 0.5})
    assert read_metrics("own", key, ["a/accuracy", "b/rmse"]) == {"a/accuracy": 1.0, "b/rmse": 0.5}


@pytest.mark.parametrize("kind", ["no folder", "full"])
def test_without_a_cache_all_goes_on_in_memory_with_one_warning(kind, tmp_path, monkeypatch):
    first = compare("ew", lr=0.0321, reward="terminal_delta_m")
    (tmp_path / "file").write_text("kept")
    monkeypatch.setenv("MTL_GYM_CACHE", str(tmp_path / ("file" if kind == "no folder" else "full") / "below"))
    monkeypatch.setattr(references, "_known", {})
    trained = []
    own = references.single_task_metrics
    monkeypatch.setattr("mtl_gym.evaluation.single_task.single_task_metrics", lambda *words: trained.append(1) or own(*words))
    with recorded() as texts, full_disk() if kind == "full" else contextlib.nullcontext():
        for _ in range(2):
            assert compare("ew", lr=0.0321, reward="terminal_delta_m").equals(first)
    assert len(trained) == 1
    [text] = texts
    assert "`MTL_GYM_CACHE` should name a writable folder" in text
    assert str(tmp_path) in text
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.slow
def test_processes_write_the_same_file_of_the_cache(cache):
    code = "import sys; from mtl_gym.cache import *\nfor _ in range(50): keep_cached('own/file.json', {'x': [1] * 9999})"
    processes = [subprocess.Popen([sys.executable, "-W", "error", "-c", code], cwd=ROOT) for _ in range(3)]
    read = []
    while any(process.poll() is None for process in processes):
        read.append(read_cached("own/file.json", lambda content: content["x"]))
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert read_cached("own/file.json", lambda content: len(content["x"])) == 9999
    assert all(own is None or len(own) == 9999 for own in read)
    assert [path.name for path in (cache / "own").iterdir()] == ["file.json"]


def test_what_the_cache_holds_is_read_back(cache):
    assert read_cached("missing.json", lambda content: content) is None
    keep_cached("new/file.json", {"number": 0.1})
    assert read_cached("new/file.json", lambda content: content["number"]) == 0.1
    with pytest.warns(RuntimeWarning, match=r"file\.json in the cache is damaged.*KeyError: 'other'"):
        assert read_cached("new/file.json", lambda content: content["other"]) is None


# --- the results database -------------------------------------------------------------------------------------------------


def make_result(instance):
    curves = {"step": [0, 10], "loss": {"a": [1.0, None]}, "weight": {"a": [1.0, 2.0]}}
    cost, planted = {"forward": 1.0, "backward": 1.0}, {"scale": {"a": 1.0}}
    return Result("ew", instance, {"a/rmse": 0.5}, {"a/rmse": 0.4}, 1.5, cost, False, 0.25, curves, planted, {"long": "x" * 3000})


def spec(instance):
    return {"setting": {"lr": 1}, "instance": instance}


@pytest.fixture
def stored(tmp_path):
    """A database of 40 results."""
    store = Results(tmp_path / "results.sqlite")
    store.write(map(spec, range(40)), map(make_result, range(40)))
    return store


def execute(path, command, *values):
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(command, values).fetchall()


def with_json(path, value):
    """A row whose JSON has that value at a path."""
    return f"json_set(result, '$.{path}', json('{json.dumps(value)}'))"


UNREADABLE = {
    "no JSON": "'{'",
    "a list": "'[]'",
    "a number": "3",
    "no text": "x'ff00'",
    "no UTF-8": "CAST(x'7bff' AS TEXT)",
    "a missing field": "json_remove(result, '$.delta_m')",
    "a field of others": with_json("other", 1),
    "a text for a number": with_json("delta_m", "1"),
    "nothing for a number": with_json("episode_return", None),
    "NaN": "replace(result, '1.5', 'NaN')",
    "a number for a truth": with_json("diverged", 1),
    "an infinite metric": "replace(result, '0.5', 'Infinity')",
    "a reference that is NaN": "replace(result, '0.4', 'NaN')",
    "no reference": with_json("references", {}),
    "a metric that is a text": with_json("metrics", {"a/rmse": "x"}),
    "a list for a mapping": with_json("cost", [1, 2]),
    "a short curve": with_json("curves.loss.a", [1.0]),
    "a curve of texts": with_json("curves.loss.a", ["1", "2"]),
    "steps that are none": with_json("curves.step", 3),
    "a planted text": with_json("planted.scale.a", "1"),
    "a negative error": with_json("metrics", {"a/rmse": -0.5}),
    "an accuracy above 1": with_json("metrics", {"a/accuracy": 1.5}).replace("result,", "replace(result, 'a/rmse', 'a/accuracy'),"),
    "a negative reference": with_json("references", {"a/rmse": -0.4}),
    "a score below the worst": with_json("delta_m", -101),
    "a score that nobody reaches": with_json("delta_m", 1e300),
    "less than no passes": with_json("cost", {"forward": 1.0, "backward": -1.0}),
    "a huge reference": with_json("references", {"a/rmse": 1e300}),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_row_that_cannot_be_read_is_named_and_replaced_in_its_place(name, stored):
    keys = [spec_key(spec(instance)) for instance in range(40)]
    whole = stored.read(keys)
    before = execute(stored.path, "SELECT rowid, key FROM results ORDER BY rowid")
    execute(stored.path, f"UPDATE results SET result = {UNREADABLE[name]} WHERE instance = 7")
    with pytest.warns(RuntimeWarning, match=r"1 rows of .*results\.sqlite cannot be read"):
        found = stored.read(keys)
    assert found == {key: own for key, own in whole.items() if own.instance != 7}
    with pytest.warns(RuntimeWarning, match=r"results\.sqlite cannot be read"):
        assert {result.instance for result in stored.latest()[2]} == {*range(40)} - {7}
    stored.write([spec(6), spec(7)], [make_result(0), make_result(7)])
    assert stored.read(keys) == whole  # without a warning
    assert execute(stored.path, "SELECT rowid, key FROM results ORDER BY rowid") == before


def test_a_setting_that_cannot_be_read_is_named(stored):
    execute(stored.path, "UPDATE results SET setting = '{'")
    with pytest.raises(ValueError, match=r"results\.sqlite"):
        stored.latest()


SETTING = {"env": LOSS_WEIGHTING, "problem": "digits", "arguments": {}, "version": "1"}


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("setting", "{}"),
        ("setting", json.dumps({**SETTING, "arguments": []})),
        ("origin", '{"x": 1}'),
        ("origin", '{"command": 5}'),
        ("origin", "null"),
        ("keys", "3"),
        ("keys", "[[]]"),
    ],
)
def test_a_comparison_that_cannot_be_read_is_named(column, value, tmp_path):
    store = Results(tmp_path / "results.sqlite")
    store.write([{"setting": SETTING}], [make_result(0)])
    store.begin(SETTING, {"seed": 0, "command": None, "address": "digits"})
    assert len(results_of(tmp_path)[0]) == 1
    execute(store.path, f"UPDATE comparisons SET {column} = ?", value)
    if column == "setting":
        execute(store.path, "UPDATE results SET setting = ?", value)
    with pytest.raises(ValueError, match=r"be a database of results, undamaged.*results\.sqlite"):
        results_of(tmp_path)


def test_metrics_of_a_training_that_diverged_may_be_nan(stored):
    execute(stored.path, "UPDATE results SET result = replace(replace(result, '0.5', 'NaN'), 'false', 'true') WHERE instance = 7")
    assert stored.read([spec_key(spec(7))])[spec_key(spec(7))].diverged


@pytest.mark.parametrize("place", [0.05, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 0.995])
@pytest.mark.parametrize("cut", [False, True])
def test_random_bytes_in_a_database_or_none_any_more_lose_nothing_else(place, cut, stored):
    keys = [spec_key(spec(instance)) for instance in range(40)]
    whole = stored.read(keys)
    content = bytearray(stored.path.read_bytes())
    start = int(len(content) * place)
    if cut:
        del content[start:]
    else:
        content[start : start + 500] = random.Random(start).randbytes(min(500, len(content) - start))
    stored.path.write_bytes(content)
    before = stored.path.read_bytes()
    with recorded() as texts:
        try:
            found = Results(stored.path, "out").read(keys)
        except ValueError as error:
            assert str(error).startswith("`out` should be a database of results")  # noqa: PT017
            assert str(stored.path) in str(error)  # noqa: PT017
            assert stored.path.read_bytes() == before
            return
    assert found == {key: whole[key] for key in found}
    assert len(found) >= 37
    assert len(found) == 40 or str(stored.path) in texts[0]


def test_a_page_of_zeros_is_named_and_left(stored):
    content = bytearray(stored.path.read_bytes())
    content[4096 * 3 : 4096 * 4] = bytes(4096)
    stored.path.write_bytes(content)
    with pytest.raises(ValueError, match=r"undamaged.*results\.sqlite.*Move it away") as caught:
        Results(stored.path)
    assert isinstance(caught.value.__cause__, sqlite3.DatabaseError)
    assert stored.path.read_bytes() == content


@pytest.mark.parametrize(
    "tables",
    [
        "CREATE TABLE results (name TEXT)",
        "CREATE TABLE results (key, setting, policy, instance, delta_m, spec, result)",  # keys need not be unique
        "CREATE TABLE comparisons (name TEXT)",
        "CREATE VIEW results AS SELECT 1 AS key",
    ],
)
def test_tables_of_others_are_named(tables, tmp_path):
    execute(tmp_path / "results.sqlite", tables)
    with pytest.raises(ValueError, match=r"`out` should be a database of results.*results\.sqlite"):
        Results(tmp_path / "results.sqlite", "out")


def test_a_database_that_is_damaged_while_it_is_used_is_named(stored):
    stored.path.write_bytes(b"certainly no database" * 10_000)
    for use in (
        lambda: stored.read(["key"]),
        lambda: stored.begin({}, {}),
        stored.latest,
        lambda: stored.write([{}], [make_result(0)]),
    ):
        with pytest.raises(ValueError, match=r"results\.sqlite"):
            use()


def test_a_full_disk_keeps_what_was_written_before(stored):
    keys = [spec_key(spec(instance)) for instance in range(400)]
    before = stored.read(keys)
    assert len(before) == 40
    with full_disk(stored.path.stat().st_size), pytest.raises(OSError, match=r"free space.*results\.sqlite.*run the command again"):
        stored.write(map(spec, range(40, 400)), map(make_result, range(40, 400)))
    assert stored.read(keys) == before
    stored.write(map(spec, range(40, 400)), map(make_result, range(40, 400)))
    assert len(stored.read(keys)) == 400


def test_a_file_that_stays_locked_is_named(stored, monkeypatch):
    monkeypatch.setattr(database, "PATIENCE", 0.05)
    with closing(sqlite3.connect(stored.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(OSError, match=r"another process.*results\.sqlite"):
            stored.begin({}, {})


def test_the_switch_to_wal_waits_for_another_writer(tmp_path):
    path = tmp_path / "results.sqlite"
    execute(path, results_module._RESULTS)
    with (
        closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other,
        closing(sqlite3.connect(path, timeout=60, isolation_level=None)) as own,
    ):
        other.execute("BEGIN IMMEDIATE")
        timer = threading.Timer(0.3, other.rollback)
        timer.start()
        with pytest.raises(sqlite3.OperationalError, match="locked"):  # SQLite does not wait here, in spite of the timeout
            own.execute("PRAGMA journal_mode=WAL")
        assert timer.is_alive()
        database.share(own)
        timer.join()
    assert execute(path, "PRAGMA journal_mode") == [("wal",)]


# --- comparisons ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_comparison_makes_unreadable_rows_again(tmp_path):
    first = compare(out=tmp_path)
    execute(tmp_path / "results.sqlite", "UPDATE results SET result = '{' WHERE policy = 'si' AND instance = 1")
    with pytest.warns(RuntimeWarning, match=r"results\.sqlite cannot be read"):
        again = compare(out=tmp_path)
    assert again.equals(first) or again.drop(columns="value").equals(first.drop(columns="value"))
    assert compare(out=tmp_path).equals(again)


@pytest.mark.slow
def test_a_comparison_on_a_full_disk_names_the_file_and_resumes(tmp_path):
    whole = compare("ew,si,rlw", num_envs=1)
    compare("ew", out=tmp_path, num_envs=1)
    size = (tmp_path / "results.sqlite").stat().st_size
    with full_disk(size + 4096), pytest.raises(OSError, match=r"results\.sqlite"):
        compare("ew,si,rlw", out=tmp_path, num_envs=1)
    kept = execute(tmp_path / "results.sqlite", "SELECT COUNT(*) FROM results")
    assert kept[0][0] >= 3
    assert compare("ew,si,rlw", out=tmp_path, num_envs=1).equals(whole)


COMMAND = [
    *(sys.executable, "-W", "error", "-m", "mtl_gym", "compare", "--problem", "quadratic", "--policies", "ew,si,rlw,dwa"),
    *("--instances", "6", "--num-envs", "2", "--set", "train_steps=100", "--out", "out"),
]


@pytest.mark.slow
def test_two_processes_in_one_folder_lose_nothing(tmp_path):
    def start(folder):
        folder.mkdir(exist_ok=True)
        variables = {"PYTHONPATH": str(ROOT), "MTL_GYM_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(COMMAND, cwd=folder, env={**os.environ, **variables}, stderr=subprocess.PIPE, text=True)

    alone, both = tmp_path / "alone", tmp_path / "both"
    for process in [start(alone), *(start(both) for _ in range(3))]:
        _, said = process.communicate()
        assert process.returncode == 0, said
    for name in ("results.csv", "summary.json"):
        assert (both / "out" / name).read_bytes() == (alone / "out" / name).read_bytes()
    assert execute(both / "out" / "results.sqlite", "SELECT COUNT(*) FROM results") == [(24,)]
    assert not list(both.rglob(".*"))


def test_threads_check_the_same_folder(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: [check_writable(tmp_path) for _ in range(50)], range(8)))
    assert not [*tmp_path.iterdir()]


def test_a_folder_with_an_impossible_name_is_refused_in_words(tmp_path):
    with pytest.raises(ValueError, match="`out` should be a folder that can be written"):
        check_writable(tmp_path / ("a" * 300), ["results.csv"], ["tensorboard"])

"""Every benchmark runs, on tiny sizes."""

import importlib
import inspect
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from rollouts import slow_unless

import benchmarks
from benchmarks.measuring import CASES
from mtl_gym.problems import PROBLEMS

FOLDER = Path(benchmarks.__file__).parent
ROOT = FOLDER.parent
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py") if '__name__ == "__main__"' in path.read_text())
WORDS = {"gpu": ["--device", "cpu"]}
ASKED = ("workloads",)
"""Run by others: it answers requests."""
QUICK = ("clipping", "references", "merging_speed")


@pytest.mark.parametrize("name", slow_unless(QUICK.__contains__, [name for name in SCRIPTS if name not in ASKED]))
@pytest.mark.filterwarnings("ignore")  # two instances have no sensible intervals
def test_every_benchmark_runs(name, tmp_path, capsys):
    try:
        module = importlib.import_module(f"benchmarks.{name}")
    except ModuleNotFoundError as error:
        pytest.skip(f"needs {error.name}")
    before = {path: path.stat().st_mtime_ns for path in kept()}
    module.main(["--smoke", "--out", str(tmp_path / "results.json"), *WORDS.get(name, [])])
    assert {path: path.stat().st_mtime_ns for path in kept()} == before  # what is published stays as it is


def kept():
    folders = ("benchmarks/results", "docs", "agents/pretrained", "mtl_gym/data")
    return [
        path
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".json", ".svg", ".safetensors", ".npz")
    ]


def test_scripts_are_modules():
    for folder in (FOLDER, ROOT / "docs"):
        for path in folder.glob("*.py"):
            assert not re.search(r"sys\.path\.\w+\(", path.read_text()), path
    for name in SCRIPTS:
        if name not in ASKED:
            text = (FOLDER / f"{name}.py").read_text()
            assert "command_line(" in text, name


def test_the_makefile_runs_what_there_is():
    named = set(re.findall(r"-m benchmarks\.(\w+)", (ROOT / "Makefile").read_text()))
    assert named <= set(SCRIPTS)


def test_a_ratio_is_the_median_of_the_rounds():
    measuring = importlib.import_module("benchmarks.measuring")

    row = measuring.ratio(np.array([2.0, 4.0, 9.0]), np.array([1.0, 1.0, 3.0]))
    assert row == {"ratio": 3.0, "lower quartile": 2.5, "upper quartile": 3.5, "best of each": 2.0}
    turns = []
    measuring.interleaved({name: lambda own=name: turns.append(own) or 1.0 for name in "ab"}, rounds=2)
    assert "".join(turns) == "abbaab"


def test_the_workloads_stand_alone():
    workloads = importlib.import_module("benchmarks.workloads")
    assert "benchmarks" not in {
        module.split(".")[0] for module in re.findall(r"^(?:from|import) (\S+)", inspect.getsource(workloads), re.M)
    }


# --- cases and the search of settings ---------------------------------------------------------------------------------------


def test_a_name_is_that_of_a_case_or_of_a_problem():
    assert not CASES.keys() & PROBLEMS.keys()


@pytest.mark.parametrize("case", ["quadratic", "digits_scales", *CASES])
def test_a_case_is_an_environment_and_draws_its_splits_where_it_can(case):
    from benchmarks.measuring import case_arguments, searched_in
    from benchmarks.methods import at_rate
    from mtl_gym.environments import LOSS_WEIGHTING, specification
    from mtl_gym.envs.arguments import check_arguments
    from mtl_gym.problems.axes import AXES

    row = CASES.get(case, {"problem": case})
    made = check_arguments(specification(LOSS_WEIGHTING), **case_arguments(case))
    own = {axis: bounds for axis, bounds in made.recipe.distribution.items() if bounds != AXES.get(axis)}
    drawn = {} if case == "quadratic" else {"split": (1.0, 1.0)}
    assert made.problem.name == row["problem"]
    assert own == {**drawn, **row.get("distribution", {})}
    assert {**row, "distribution": json.loads(json.dumps(own)), "problem": [row["problem"], made.problem.version]} == {
        name: tuple(value) if name == "hidden_sizes" else value for name, value in searched_in(case).items()
    }
    fast = check_arguments(specification(LOSS_WEIGHTING), **at_rate(case, 2.0, train_steps=20)).recipe
    assert (fast.lr, fast.train_steps, fast.distribution) == (2 * made.recipe.lr, 20, made.recipe.distribution)


@pytest.mark.parametrize("stale", [{}, {"problem": ["digits", 0]}, {"distribution": {}}], ids=str)
def test_constant_weights_of_another_version_or_distribution_are_not_played(stale, tmp_path, monkeypatch):
    from benchmarks import methods
    from benchmarks.measuring import searched_in

    found = {**searched_in("digits_few"), "best first": [{"w": [1, 2]}]}
    monkeypatch.setattr(methods, "SEARCHED", tmp_path / "constant_weights.json")
    methods.SEARCHED.write_text(json.dumps({"digits_few": {**found, **stale}}))
    assert methods.policies("digits_few").get("constant") == (None if stale else "constant:w=1,2")
    assert "constant" not in methods.policies("digits")


@pytest.mark.parametrize("case", ["relations_few", "digits_few"])
def test_a_search_trains_the_network_of_its_case(case):
    from benchmarks.constant_weights import trained
    from benchmarks.measuring import case_arguments
    from benchmarks.search import played
    from mtl_gym.environments import LOSS_WEIGHTING, specification
    from mtl_gym.envs.arguments import check_arguments
    from mtl_gym.problems.instances import TRAINING_IDS

    given, ids = {**case_arguments(case), "train_steps": 20}, [TRAINING_IDS[0], TRAINING_IDS[0] + 1]
    checked = check_arguments(specification(LOSS_WEIGHTING), **given)
    expected = trained(checked, ids, np.ones((2, checked.recipe.num_tasks)))
    for row, own in enumerate(played("ew", given, ids)):
        assert own == pytest.approx({name: float(values[row]) for name, values in expected.items()}, rel=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # two instances have no sensible intervals
def test_a_case_is_searched_and_played(tmp_path):
    for name, words in {"constant_weights": (), "search": ("--names", "gls"), "methods": ()}.items():
        out = tmp_path / f"{name}.json"
        importlib.import_module(f"benchmarks.{name}").main(["digits_few", "--smoke", "--out", str(out), *words])
        assert json.loads(out.read_text())["digits_few"]["distribution"] == {"split": [1.0, 1.0], "labels:digit": [0.08, 0.08]}


def test_every_parameter_of_a_method_for_tasks_is_searched():
    from benchmarks.search import OWN, candidates
    from mtl_gym.baselines import BASELINES
    from mtl_gym.environments import LOSS_WEIGHTING
    from mtl_gym.policies.finding import environment_of, policy_class
    from mtl_gym.policies.grammar import make_policy

    methods = [name for name in BASELINES if environment_of(name) == LOSS_WEIGHTING and name != "constant"]
    assert {name for name in methods if inspect.signature(policy_class(name)).parameters} == set(OWN)
    for name in [*methods, "igb+cagrad"]:
        own = candidates(name)
        assert len(own) == (3 if name.rsplit("+", 1)[-1] in OWN else 1)
        made = {repr(make_policy(text)) for text in own}
        assert len(made) == len(own)
        assert repr(make_policy(name)) in made  # the default is one of the values


@pytest.mark.parametrize(
    ("peak", "tried"),
    [(1, [0.5, 1, 2]), (2, [0.5, 1, 2, 4]), (0.25, [0.125, 0.25, 0.5, 1, 2]), (8, [0.5, 1, 2, 4, 8]), (100, [0.5, 1, 2, 4, 8])],
)
def test_a_search_goes_on_until_the_best_rate_lies_between_others_or_at_a_limit(peak, tried):
    from benchmarks.rates import climbed

    assert sorted(climbed(lambda factor: -abs(math.log2(factor / peak)))) == tried


@pytest.mark.slow
def test_a_search_that_is_interrupted_goes_on_where_it_stopped(tmp_path):
    from benchmarks import search
    from benchmarks.measuring import Run
    from benchmarks.rates import LIMITS

    run = Run(("quadratic",), True, tmp_path / "search.json", tmp_path / "kept")
    names = {"ew": "ew", "gls": "gls", "single-task": "single-task", "nothing": "nothing"}
    with pytest.raises(ValueError, match="nothing"):
        search.study("quadratic", names, run, lambda found: run.write({"quadratic": found}))
    kept, rows = tmp_path / "kept" / "quadratic.json", run.known()["quadratic"]["methods"]
    assert list(rows) == ["ew", "gls", "single-task"]
    for name, tasks in {"ew": 1, "gls": 1, "single-task": 3}.items():
        tried = {float(factor): score for factor, score in rows[name]["tried"][name].items()}
        assert rows[name]["trainings"] == len(tried) * tasks * 2  # two instances
        assert rows[name]["delta_m"] == max(tried.values()) == tried[rows[name]["factor"]]
        assert rows[name]["factor"] not in (min(tried), max(tried)) or rows[name]["factor"] in LIMITS
    before = kept.stat().st_mtime_ns
    search.study("quadratic", {"gls": "gls"}, run, lambda found: run.write({"quadratic": found}))
    assert kept.stat().st_mtime_ns == before  # nothing was trained again
    assert run.known()["quadratic"]["methods"] == rows


@pytest.mark.slow
def test_methods_are_played_with_the_settings_that_were_found(tmp_path, monkeypatch):
    import mtl_gym
    from benchmarks import methods
    from benchmarks.measuring import Run, case_arguments, searched_in

    found = {"gls": {"policy": "uw:lr=0.1", "factor": 2.0}, "single-task": {"policy": "single-task", "factor": 0.5}}
    monkeypatch.setattr(methods, "SETTINGS", tmp_path / "search.json")
    assert methods.found_settings("yeast") == {}
    methods.SETTINGS.write_text(json.dumps({"yeast": {**searched_in("yeast"), "problem": ["yeast", -1], "methods": found}}))
    assert methods.found_settings("yeast") == {}  # those of another version
    methods.SETTINGS.write_text(json.dumps({"yeast": {**searched_in("yeast"), "methods": found}}))
    settings, common = methods.found_settings("yeast"), {"instances": 2, "num_envs": 2, "train_steps": 20}
    common |= case_arguments("yeast")
    usual = mtl_gym.compare("ew", **common)
    rate = methods.at_rate("yeast", 2.0)["lr"]
    tuned = mtl_gym.compare("uw:lr=0.1", lr=rate, **common)
    run = Run((), False, None, None)
    frame = methods.played("yeast", {"ew": "ew", "gls": "gls"}, settings, run, instances=2, num_envs=2, train_steps=20)
    values = {policy: own["value"].tolist() for policy, own in frame.groupby("policy")}
    assert values == {"ew": usual["value"].tolist(), "gls": tuned["value"].tolist()}
    references = methods.single_task("yeast", settings, range(2), train_steps=20)
    slow = mtl_gym.compare("ew", lr=rate / 4, **common)
    assert methods.metrics_of(slow.assign(value=slow["reference"]), "ew") == references
    rescored = methods.rescored(frame, references)
    assert rescored["delta_m"].tolist() != frame["delta_m"].tolist()
    assert rescored["value"].tolist() == frame["value"].tolist()
    lost = methods.rescored(frame.assign(diverged=frame["instance"] == 1), references)
    assert (lost["delta_m"][lost["instance"] == 1] == -100).all()
    assert lost["delta_m"][lost["instance"] == 0].tolist() == rescored["delta_m"][rescored["instance"] == 0].tolist()


# --- tables of methods -----------------------------------------------------------------------------------------------------------


def studied(scores, factor=1.0):
    """A study of methods with these scores, as ``benchmarks/methods.py`` stores it."""
    return {"policies": {name: {"scores": own, "policy": name, "factor": factor} for name, own in scores.items()}}


def test_methods_are_correlated_where_their_settings_are_the_same():
    from docs import method_tables

    names = "abcdefghij"
    first = studied({name: [float(place), place + 1.0] for place, name in enumerate(names)})
    second = studied({name: [float(-place), 1.0 - place] for place, name in enumerate(names)})
    for name, other in {"a": 2.0, "b": 4.0}.items():
        second["policies"][name]["factor"] = other
    means = [method_tables._means(study) for study in (first, second)]
    assert method_tables._correlation(means[0], means[0]).startswith("1.00 (`a` 10 to 10")
    assert method_tables._correlation(*means).startswith("-1.00 (8 methods; ")
    second["policies"]["c"]["policy"] = "c:option=2"
    assert method_tables._correlation(means[0], method_tables._means(second)) == "not measured yet"


def test_a_median_stands_beside_a_mean_that_few_instances_carry():
    from docs.method_tables import _score

    row = {"delta_m": {"mean": -10.0, "low": -31.2, "high": 11.2}, "scores": [0.0] * 9 + [-100.0]}
    assert _score(row) == "-10.0 [-31.2, 11.2]; median 0.0"
    assert _score({**row, "scores": [-11.0, -10.0, -9.0]}) == "-10.0 [-31.2, 11.2]"

"""Suites: frozen, disjoint from whatever was chosen or trained on, run, resumed, and ranked from their rows."""

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from hashlib import sha256

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given, settings, strategies as st
from rollouts import slow_unless
from typer.testing import CliRunner

import mtl_gym
from mtl_gym.agents.settings import HELD_OUT
from mtl_gym.cli.program import app
from mtl_gym.environments import LAYER_MERGING, LOSS_WEIGHTING, SAMPLE_WEIGHTING, TASK_GROUPING, specification
from mtl_gym.envs.arguments import check_arguments
from mtl_gym.evaluation import suites as homes
from mtl_gym.evaluation.results import Results
from mtl_gym.evaluation.statistics import stratified_difference
from mtl_gym.evaluation.suite import Study, Suite
from mtl_gym.evaluation.suite_tables import FIRST, SUITES
from mtl_gym.evaluation.suites import find_suites, load_suite
from mtl_gym.problems.instances import EVALUATION_IDS
from mtl_gym.problems.scores import delta_m

FROZEN = {
    "quick mtl_gym/LossWeighting-v0": ("1.0", "1c7b4d1ad924"),
    "quick mtl_gym/SampleWeighting-v0": ("1.0", "89c478900b88"),
    "quick mtl_gym/LayerMerging-v0": ("1.0", "e7f8ac0d55b7"),
    "quick mtl_gym/TaskGrouping-v0": ("1.0", "a93149792fd0"),
    "standard mtl_gym/LossWeighting-v0": ("1.0", "e052ec5759ac"),
    "standard mtl_gym/SampleWeighting-v0": ("1.0", "2a40b38aa2a8"),
    "standard mtl_gym/LayerMerging-v0": ("1.0", "6415bf43fb99"),
    "standard mtl_gym/TaskGrouping-v0": ("1.0", "3a77834f348f"),
    "tasks mtl_gym/LossWeighting-v0": ("1.0", "6c967e353cd5"),
    "noise mtl_gym/LossWeighting-v0": ("1.0", "ddb0dae768bd"),
    "labels mtl_gym/LossWeighting-v0": ("1.0", "b1730a51689d"),
    "scale mtl_gym/LossWeighting-v0": ("1.0", "ac196eb6a7ca"),
    "conflict mtl_gym/LossWeighting-v0": ("1.0", "7f27da5d4ceb"),
    "size mtl_gym/LossWeighting-v0": ("1.0", "7fd9186f4d71"),
    "network mtl_gym/LossWeighting-v0": ("1.0", "22ba8c2c5cc5"),
    "optimizer mtl_gym/LossWeighting-v0": ("1.0", "968b6e8d9a7a"),
    "rate mtl_gym/LossWeighting-v0": ("1.0", "8814e19964ef"),
    "length mtl_gym/LossWeighting-v0": ("1.0", "813b62527359"),
    "data mtl_gym/LossWeighting-v0": ("1.0", "f7749926846b"),
}
"""By name and environment: the version, and the digest of the studies. A suite that changes needs a new version."""
SMALL = {"train_steps": 20, "batch_size": 16}
PAIR = Suite(
    "pair",
    LOSS_WEIGHTING,
    "1.0",
    "two small studies",
    (Study("points", "quadratic", 0, SMALL, FIRST, 6), Study("lines", "quadratic", 0, {**SMALL, "num_tasks": 2}, FIRST, 5)),
)


def digest(suite):
    rows = [[own.name, own.problem, own.problem_version, dict(own.arguments), own.ids, own.data] for own in suite.studies]
    return sha256(json.dumps([suite.env, rows], sort_keys=True).encode()).hexdigest()[:12]


def test_suites_are_frozen():
    assert {f"{name} {env}": (own.version, digest(own)) for (name, env), own in SUITES.items()} == FROZEN


@pytest.mark.parametrize("key", SUITES, ids=lambda key: f"{key[0]}-{key[1].partition('/')[2]}")
def test_suites_are_valid_and_no_agent_or_rule_has_met_their_instances(key):
    suite = load_suite(*key)
    assert (suite.name, suite.env) == key
    for study in suite.studies:
        check_arguments(specification(suite.env), problem=study.problem, **study.arguments)
        assert study.problem_version == mtl_gym.load_problem(study.problem).version
        assert FIRST <= min(study.ids) <= max(study.ids) < min(HELD_OUT, EVALUATION_IDS[1])


def test_every_environment_has_a_quick_and_a_standard_suite():
    assert {(name, env) for name in ("quick", "standard") for env in mtl_gym.find_environments()} <= {*find_suites()}


def test_studies_need_names_of_their_own():
    with pytest.raises(ValueError, match="`studies` should be at least one, each with a name of its own"):
        replace(PAIR, studies=(PAIR.studies[0], PAIR.studies[0]))
    with pytest.raises(ValueError, match="`studies`"):
        replace(PAIR, studies=())


@pytest.mark.parametrize(
    ("name", "env", "message"),
    [
        ("quik", LOSS_WEIGHTING, "`suite` should be one of quick, standard.*Did you mean 'quick'"),
        ("noise", TASK_GROUPING, "`suite` should be one of quick, standard"),
        (3, LOSS_WEIGHTING, "`suite`"),
        ("quick", "mtl_gym/Loss-v0", "`env` should be one of"),
    ],
)
def test_unknown_suites_are_named(name, env, message):
    with pytest.raises(ValueError, match=message):
        load_suite(name, env)


# --- statistics ---------------------------------------------------------------------------------------------------------------

NUMBERS = st.lists(st.floats(-50, 50), min_size=3, max_size=12).filter(lambda own: np.std(own) > 1e-3)


@given(first=NUMBERS, second=NUMBERS)
@settings(max_examples=25, deadline=None)
def test_two_studies_are_welchs_test(first, second):
    """The mean of two means is half the difference of one and the negative of the other."""
    found = stratified_difference([np.array(first), -np.array(second)])
    oracle = scipy.stats.ttest_ind(first, second, equal_var=False)
    assert found["difference"] == pytest.approx((np.mean(first) - np.mean(second)) / 2, abs=1e-9)
    assert found["difference"] / found["error"] == pytest.approx(oracle.statistic, abs=1e-9)
    freedom = found["instances"] - 1
    assert oracle.df - 1 - 1e-6 < freedom < oracle.df + 1e-6  # rounded down, which leaves either integer where it is nearly one
    assert found["p"] >= oracle.pvalue - 1e-6


def test_one_study_is_students_test():
    values = np.array([0.3, -0.1, 0.8, 0.4, 0.2])
    found, oracle = stratified_difference([values], smallest=1.0), scipy.stats.ttest_1samp(values, 0)
    assert found["p"] == pytest.approx(oracle.pvalue)
    assert (found["low"], found["high"]) == pytest.approx(tuple(oracle.confidence_interval()))
    assert found["p_equal"] == pytest.approx(2 * scipy.stats.ttest_1samp(values, 1.0, alternative="less").pvalue)
    assert stratified_difference([np.zeros(4), np.zeros(3)])["p"] == 1.0


# --- running ------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def known():
    """The suite `pair` is among the known ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SUITES, ("pair", LOSS_WEIGHTING), PAIR)
        yield PAIR


@pytest.fixture(scope="module")
def whole(known, tmp_path_factory):
    """The suite, run with three policies into a folder."""
    out = tmp_path_factory.mktemp("suite")
    return out, mtl_gym.compare_suite("ew,init,rlw", "pair", out=out, num_envs=4)


def test_a_suite_is_its_studies_one_below_the_other(whole):
    frame = whole[1]
    assert frame.attrs["suite"] == {"name": "pair", "version": "1.0", "env": LOSS_WEIGHTING}
    for study in PAIR.studies:
        own = frame[frame["study"] == study.name].drop(columns="study").dropna(axis=1, how="all").reset_index(drop=True)
        alone = mtl_gym.compare("ew,init,rlw", problem=study.problem, instances=study.ids, num_envs=3, **study.arguments)
        pd.testing.assert_frame_equal(own[[*alone]], alone, check_categorical=False)


def test_standings_are_those_of_the_rows(whole):
    out, frame = whole
    table = mtl_gym.standings(frame)
    runs = frame.drop_duplicates(["study", "policy", "instance"])
    means = runs.groupby(["policy", "study"])["delta_m"].mean().unstack()
    assert table["delta_m"].to_dict() == pytest.approx(means.mean(axis=1).to_dict())
    assert [*table["delta_m"]] == sorted(table["delta_m"], reverse=True)
    assert table["difference"].dropna().to_dict() == pytest.approx(
        {name: value for name, value in (means - means.loc["ew"]).mean(axis=1).items() if name != "ew"}
    )
    assert table["wins"].sum() == 2
    assert (table["passes"] == 1).all()
    assert table.loc["ew", "verdict"] == ""
    assert {*table["verdict"]} - {""} <= {"better", "worse", "not told apart", "equal"}
    pd.testing.assert_frame_equal(mtl_gym.standings(out), table)
    pd.testing.assert_frame_equal(mtl_gym.standings(out / "results.sqlite"), table)
    assert mtl_gym.standings(frame, baseline="rlw").loc["ew", "difference"] == pytest.approx(-table.loc["rlw", "difference"])


def test_a_policy_without_all_rows_is_left_out_until_they_are_made(whole, tmp_path):
    out, _ = whole
    part = Results(tmp_path / "results.sqlite")
    with closing(sqlite3.connect(out / "results.sqlite")) as source, closing(sqlite3.connect(part.path)) as target:
        source.backup(target)
        target.execute("DELETE FROM results WHERE policy != 'ew' AND instance = ?", (FIRST,))
        target.commit()
    table = mtl_gym.standings(tmp_path)
    assert [*table.index] == ["ew"]
    assert sorted(table.attrs["left_out"]) == ["init", "rlw"]
    mtl_gym.compare_suite("ew,init,rlw", "pair", out=tmp_path, num_envs=4)
    pd.testing.assert_frame_equal(mtl_gym.standings(tmp_path), mtl_gym.standings(out))


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (3, TypeError, "`source` should be the frame of mtl_gym.compare_suite, or a path"),
        (pd.DataFrame({"policy": ["ew"]}), ValueError, "`source` should be the frame of mtl_gym.compare_suite"),
        ("nowhere", ValueError, "`source` should be a folder with results.sqlite"),
    ],
)
def test_what_is_no_suite_is_refused(source, error, message):
    with pytest.raises(error, match=message):
        mtl_gym.standings(source)


def test_another_version_of_a_problem_is_refused_before_anything_runs(monkeypatch, tmp_path):
    studies = (PAIR.studies[1], replace(PAIR.studies[0], problem_version=7))
    monkeypatch.setitem(SUITES, ("later", LOSS_WEIGHTING), replace(PAIR, name="later", studies=studies))
    with pytest.raises(ValueError, match=r"points means version 7 of quadratic.*Version 0 is installed"):
        mtl_gym.compare_suite("ew", "later", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_policy_that_does_not_fit_a_study_is_refused_with_its_name(known, tmp_path):
    with pytest.raises(ValueError, match=r"In the study 'lines' of the suite pair 1\.0"):
        mtl_gym.compare_suite("ew,constant:w=1,2,3", "pair", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- replays ------------------------------------------------------------------------------------------------------------------

OTHERS = {"capability": "OTHER", "torch": "1.0", "threads": 64, "device": "cpu"}


def changed(out, to, change, study="points"):
    """A copy of a file of results with other rows of one study."""
    to.mkdir(exist_ok=True)
    store, other = Results(out / "results.sqlite"), Results(to / "results.sqlite")
    for setting, origin, results in store.studies():
        own = [change(result) if origin["suite"]["study"] == study else result for result in results]
        other.begin(setting, origin)
        other.write([{"setting": setting, "policy": one.policy, "instance": one.instance} for one in own], own)
    return to / "results.sqlite"


def test_rows_are_made_again_bit_for_bit(whole):
    out, _ = whole
    table = mtl_gym.verify(out, 5)
    assert table["exact"].all()
    assert table.attrs["sound"]
    assert table.attrs["verdict"] == "5 of 5 rows on the same kernels are the same, bit for bit."
    assert {*mtl_gym.verify(out, 5, seed=1).index} != {*table.index}
    found = mtl_gym.reproduce(out / "results.sqlite", f"lines/rlw/{FIRST + 4}")
    assert found.exact
    assert found.comparable
    assert found.known.batch == [FIRST + 4]  # the last of five, four at once


@pytest.mark.parametrize("env", [pytest.param(env, marks=pytest.mark.slow) for env in mtl_gym.find_environments()])
def test_rows_of_every_environment_are_made_again(env, tmp_path):
    policies = {LOSS_WEIGHTING: "ew", SAMPLE_WEIGHTING: "uniform", LAYER_MERGING: "shared", TASK_GROUPING: "joint"}
    mtl_gym.compare_suite(policies[env], "quick", env, out=tmp_path)
    table = mtl_gym.verify(tmp_path, 3)
    assert table.attrs["sound"], table.attrs
    assert not table.attrs["unknown"]


def test_groups_are_made_again(tmp_path):
    given = {"problem": "yeast", "num_tasks": 2, "instances": 2, "train_steps": 20}
    mtl_gym.compare("joint", TASK_GROUPING, out=tmp_path, **given)
    assert mtl_gym.reproduce(tmp_path, "joint/1").exact


CHANGES = {
    "metrics": lambda own: replace(own, metrics={name: 0.9 * value for name, value in own.metrics.items()}),
    "references": lambda own: replace(own, references={name: 1.1 * value for name, value in own.references.items()}),
    "delta_m": lambda own: replace(own, delta_m=own.delta_m + 1),
    "cost": lambda own: replace(own, cost={**own.cost, "backward": 1.0}),
}


@pytest.mark.parametrize("change", slow_unless("metrics".__eq__, CHANGES))
def test_what_does_not_come_out_again_is_found(change, whole, tmp_path):
    table = mtl_gym.verify(changed(whole[0], tmp_path, CHANGES[change]), 33)
    assert not table.attrs["sound"]
    assert table["exact"].sum() == 15
    assert "15 of 33 rows on the same kernels" in table.attrs["verdict"]


def better(own, shift):
    """A row of quadratic, whose metrics are the better the lower, with ``delta_m`` as many points higher."""
    metrics = {name: value - shift / 100 * own.references[name] for name, value in own.metrics.items()}
    return replace(own, kernels=OTHERS, metrics=metrics, delta_m=delta_m(metrics, own.references))


@pytest.mark.parametrize(("shift", "sound"), [(0.0, True), (5.0, False)])
def test_on_other_kernels_the_mean_of_the_sample_decides(shift, sound, whole, tmp_path):
    table = mtl_gym.verify(changed(whole[0], tmp_path, lambda own: better(own, shift)), 33)
    assert table.attrs["sound"] is sound
    assert not table.attrs["wrong"]
    assert "18 of 18 rows on other kernels have begun alike" in table.attrs["verdict"]


def test_few_rows_of_other_kernels_and_cheaper_passes_do_not_pass(whole, tmp_path):
    few = [("ew", FIRST), ("ew", FIRST + 1)]
    file = changed(whole[0], tmp_path / "few", lambda own: better(own, 0.0) if (own.policy, own.instance) in few else own)
    table = mtl_gym.verify(file, 33)
    assert not table.attrs["sound"]
    assert "2 of 2 rows on other kernels have begun alike" in table.attrs["verdict"]
    assert "too few to say more: sample until there are 5" in table.attrs["verdict"]
    cheap = changed(whole[0], tmp_path / "cheap", lambda own: replace(better(own, 0.0), cost={**own.cost, "backward": 1.0}))
    assert "0 of 18 rows on other kernels have begun alike" in mtl_gym.verify(cheap, 33).attrs["verdict"]


def test_a_score_that_metrics_do_not_give_is_found_in_rows_that_were_not_drawn(whole, tmp_path):
    file = changed(whole[0], tmp_path, lambda own: replace(own, delta_m=own.delta_m + 1) if own.policy == "rlw" else own)
    seed = next(seed for seed in range(99) if not any("rlw" in row for row in mtl_gym.verify(whole[0], 1, seed=seed).index))
    table = mtl_gym.verify(file, 1, seed=seed)
    assert table["exact"].all()
    assert not table.attrs["sound"]
    assert {*table.attrs["wrong"]} == {f"points/rlw/{FIRST + place}" for place in range(6)}
    assert "of 6 rows of the file, delta_m is not what their metrics give" in table.attrs["verdict"]


def test_a_row_beside_instances_that_are_not_there_does_not_pass(whole, tmp_path):
    table = mtl_gym.verify(changed(whole[0], tmp_path, lambda own: replace(own, batch=[*own.batch, 999])), 33)
    assert not table.attrs["sound"]
    assert "18 rows could not be made again" in table.attrs["verdict"]


def test_verifying_never_loads_the_problem_that_a_file_names(whole, tmp_path):
    (tmp_path / "theirs.py").write_text("raise SystemExit('loaded')\n")
    store, file = Results(whole[0] / "results.sqlite"), Results(tmp_path / "results.sqlite")
    for setting, origin, results in store.studies():
        file.begin(setting, {**origin, "address": f"{tmp_path / 'theirs.py'}:make"})
        file.write([{"setting": setting, "policy": own.policy, "instance": own.instance} for own in results], results)
    assert mtl_gym.verify(tmp_path, 3).attrs["sound"]


def test_losses_that_begin_in_another_way_are_found_on_other_kernels(whole, tmp_path):
    def later(own):
        losses = {task: [values[0], 1.001 * values[1], *values[2:]] for task, values in own.curves["loss"].items()}
        return replace(own, kernels=OTHERS, curves={**own.curves, "loss": losses})

    table = mtl_gym.verify(changed(whole[0], tmp_path, later), 33)
    assert not table.attrs["sound"]
    assert "0 of 18 rows on other kernels have begun alike" in table.attrs["verdict"]


def test_an_easier_setting_does_not_pass(whole, tmp_path):
    """Rows of a longer training under the suite's name."""
    store, file = Results(whole[0] / "results.sqlite"), Results(tmp_path / "results.sqlite")
    setting, origin, results = store.studies()[0]
    easier = {**setting, "arguments": {**setting["arguments"], "train_steps": 4000}}
    file.begin(easier, origin)
    file.write([{"setting": easier, "policy": own.policy, "instance": own.instance} for own in results], results)
    for refused in (mtl_gym.verify, mtl_gym.standings):
        with pytest.raises(ValueError, match=r"have the settings of pair 1\.0; points differs in arguments"):
            refused(tmp_path)
    file.begin(setting, {**origin, "suite": {**origin["suite"], "version": "0.9"}})
    file.write([{"setting": setting, "policy": own.policy, "instance": own.instance} for own in results], results)
    with pytest.raises(ValueError, match=r"be of studies of pair 1\.0, which is installed|settings of pair"):
        mtl_gym.verify(tmp_path)


def test_rows_that_are_not_there_and_policies_that_are_unknown_are_named(whole, tmp_path):
    out, _ = whole
    with pytest.raises(ValueError, match=f"`row` should be one of points/ew/{FIRST}"):
        mtl_gym.reproduce(out, "points/ew/7")
    file = changed(out, tmp_path / "other", lambda own: replace(own, policy="of-somebody") if own.policy == "rlw" else own)
    table = mtl_gym.verify(file, 33)
    assert len(table.attrs["unknown"]) == 6
    assert len(table) == 27
    assert not table.attrs["sound"]
    mtl_gym.compare("ew", problem="quadratic", instances=2, out=tmp_path / "plain", **SMALL)
    assert mtl_gym.reproduce(tmp_path / "plain", "ew/1").exact
    for refused in (mtl_gym.verify, mtl_gym.standings):
        with pytest.raises(ValueError, match=r"hold results of a suite.*mtl-gym compare --suite writes them"):
            refused(tmp_path / "plain")


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".", "..", "/root", "a\\b", 5, None])
def test_names_that_could_leave_a_folder_are_refused(name, whole, tmp_path):
    with pytest.raises(ValueError, match="`name` should be letters, digits"):
        Study(name, "quadratic")
    store, file = Results(whole[0] / "results.sqlite"), Results(tmp_path / "results.sqlite")
    setting, origin, results = store.studies()[0]
    for wrong in ({"study": name}, {"name": name}):
        file.begin(setting, {**origin, "suite": {**origin["suite"], **wrong}})
        file.write([{"setting": setting, "policy": own.policy, "instance": own.instance} for own in results], results)
        for refused in (mtl_gym.verify, mtl_gym.standings):
            with pytest.raises(ValueError, match="wrong fields of the last comparison: suite"):
                refused(tmp_path)


@pytest.mark.parametrize("missing", ["name", "version", "study", "data"])
def test_a_file_that_does_not_say_what_suite_it_is_of_is_refused(missing, whole, tmp_path):
    store, file = Results(whole[0] / "results.sqlite"), Results(tmp_path / "results.sqlite")
    setting, origin, results = store.studies()[0]
    file.begin(setting, {**origin, "suite": {name: own for name, own in origin["suite"].items() if name != missing}})
    file.write([{"setting": setting, "policy": own.policy, "instance": own.instance} for own in results], results)
    for refused in (mtl_gym.verify, mtl_gym.standings):
        with pytest.raises(ValueError, match="wrong fields of the last comparison: suite"):
            refused(tmp_path)


# --- other packages and the command line ---------------------------------------------------------------------------------------


def test_other_packages_add_suites_but_take_no_name_of_ours(monkeypatch):
    theirs = {"theirs": f"{__name__}:theirs", f"quick {LOSS_WEIGHTING}": f"{__name__}:theirs", "broken": f"{__name__}:PAIR"}
    monkeypatch.setattr(homes, "entries", lambda group: ["entry"])
    monkeypatch.setattr(homes, "load_table", lambda entry: theirs)
    homes._resolved.cache_clear()
    assert load_suite("theirs").studies == PAIR.studies
    assert load_suite("quick").summary.startswith("a minute")
    with pytest.raises(ImportError, match="should be a Suite of this name"):
        load_suite("broken")
    homes._resolved.cache_clear()


def theirs():
    return replace(PAIR, name="theirs")


@pytest.mark.slow
def test_the_commands_run_and_rank_a_suite(known, tmp_path):
    runner, out = CliRunner(), tmp_path / "out"
    words = ["compare", "--suite", "pair", "--policies", "ew,init", "--out", str(out), "--quiet"]
    answer = runner.invoke(app, words)
    assert answer.exit_code == 0, answer.output
    assert "pair 1.0 of mtl_gym/LossWeighting-v0: 2 studies, 11 instances" in answer.output
    assert {path.name for path in out.iterdir()} >= {"results.sqlite", "points", "lines", *(f"leaderboard.{end}" for end in ENDS)}
    assert (out / "points" / "report.html").is_file()
    answer = runner.invoke(app, ["leaderboard", str(out / "results.sqlite"), "--json", "--baseline", "init"])
    found = json.loads(answer.stdout)
    assert found["suite"]["name"] == "pair"
    assert found["policies"]["init"]["verdict"] == ""
    answer = runner.invoke(app, ["verify", str(out), "--sample", "3", "--quiet"])
    assert answer.exit_code == 0, answer.output
    assert "3 of 3 rows on the same kernels are the same, bit for bit." in answer.output
    answer = runner.invoke(app, ["reproduce", str(out), f"points/init/{FIRST}", "--quiet"])
    assert "The same, bit for bit." in answer.output
    for words, message in (
        (["compare", "--suite", "pair", "--policies", "ew", "--out", str(out), "--problem", "digits"], "without --problem"),
        (["compare", "--suite", "nope", "--policies", "ew", "--out", str(out)], "`suite` should be one of"),
        (["leaderboard", str(tmp_path)], "results.sqlite"),
        (["leaderboard", str(out), "--baseline", "si"], "`baseline` should be one of"),
    ):
        answer = runner.invoke(app, words)
        assert answer.exit_code != 0
        assert message in " ".join(answer.output.split()), answer.output


ENDS = ("csv", "md", "tex", "html")


def test_leaderboards_are_written_as_people_show_them(whole, tmp_path):
    from mtl_gym.evaluation.standing_files import write_standings
    from mtl_gym.evaluation.standings import ranking

    found = ranking(whole[1])
    table, files = found.table, {path.suffix[1:]: path.read_text() for path in write_standings(found, tmp_path)}
    assert {*files} == {*ENDS}
    read = pd.read_csv(tmp_path / "leaderboard.csv", index_col="policy", keep_default_na=False)
    assert read["delta_m"].astype(float).to_dict() == pytest.approx(table["delta_m"].to_dict())
    assert files["md"].count("\n| ") == len(table) + 2
    assert "begin{tabular}" in files["tex"]
    assert files["html"].count('<th scope="row">') == len(table) + len(PAIR.studies)
    assert "prefers-color-scheme: dark" in files["html"]


def test_suites_are_listed():
    answer = CliRunner().invoke(app, ["list", "suites", "--env", TASK_GROUPING, "--json"])
    rows = json.loads(answer.stdout)["suites"]
    assert [row["name"] for row in rows] == ["quick", "standard"]
    assert {row["for"] for row in rows} == {"TaskGrouping-v0"}

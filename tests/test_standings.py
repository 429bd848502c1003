"""A suite's statistics, figures and page, and two runs side by side; of results made by hand, as quick as they are many."""

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given, settings, strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from test_report import make_about, make_result, make_results
from test_suites import digest
from typer.testing import CliRunner

import mtl_gym
from mtl_gym import plots
from mtl_gym.cli.program import app
from mtl_gym.environments import LOSS_WEIGHTING, specification
from mtl_gym.envs.arguments import check_arguments
from mtl_gym.evaluation.frames import to_frame
from mtl_gym.evaluation.layout import NARROW
from mtl_gym.evaluation.notes import ONE_SPLIT, OWN_DATA, OWN_SPLIT, drawn
from mtl_gym.evaluation.plans import setting_of
from mtl_gym.evaluation.resampling import improvement, profile, stratified_mean
from mtl_gym.evaluation.results import opened, plain
from mtl_gym.evaluation.standing_files import write_standings
from mtl_gym.evaluation.standing_texts import notes_of
from mtl_gym.evaluation.standings import ranking
from mtl_gym.evaluation.suite import Study, Suite
from mtl_gym.evaluation.suite_figures import SUITE_FIGURES
from mtl_gym.evaluation.suite_frames import joined
from mtl_gym.evaluation.suite_plots import MOST_LINES, front
from mtl_gym.evaluation.suite_tables import SUITES

THREE = ("ew", "si", "rlw")
SHIFTS = [name for name, env in SUITES if env == LOSS_WEIGHTING and name not in ("quick", "standard", "data")]


def studies_of(suite, policies=THREE, instances=None, seed=0, **changes):
    """Results and their origin for each study of a suite, without any training: later policies are better, and take more passes."""
    found = {}
    for number, study in enumerate(suite.studies):
        rng = np.random.default_rng([seed, number])
        results = [
            make_result(
                policy,
                study.first + place,
                delta_m=float(rank + number + rng.normal()),
                cost={"forward": 1.0, "backward": rank + 1.0},
            )
            for rank, policy in enumerate(policies)
            for place in range(instances or study.count)
        ]
        own = {"problem": study.problem, "arguments": dict(study.arguments), "suite": suite.origin(study)}
        found[study.name] = (results, make_about(results, **own, kernels={"AVX2": len(results)}, identity=None, **changes))
    for _, about in found.values():
        about["versions"]["mtl-gym"] = "0.1.0"
    return found


def frame_of(suite, *args, **changes):
    suite_of = {"name": suite.name, "version": suite.version, "env": suite.env}
    return joined(suite_of, studies_of(suite, *args, **changes))


STANDARD = SUITES["standard", LOSS_WEIGHTING]


# --- statistics -----------------------------------------------------------------------------------------------------------------

VALUES = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=9).map(np.array)


@given(st.lists(VALUES, min_size=1, max_size=3), st.lists(st.floats(-4, 4), min_size=1, max_size=5).map(sorted))
@settings(max_examples=25, deadline=None)
def test_profiles_are_fractions_of_instances_studies_alike(studies, levels):
    found = profile(studies, np.array(levels))
    for level, fraction in zip(levels, found.mean, strict=True):
        assert fraction == pytest.approx(sum(sum(v >= level for v in own) / len(own) for own in studies) / len(studies))
    assert (np.diff(found.mean) <= 1e-12).all()
    assert ((found.low >= 0) & (found.low <= found.high) & (found.high <= 1 + 1e-12)).all()


@given(st.lists(VALUES, min_size=1, max_size=3))
@settings(max_examples=25, deadline=None)
def test_improvement_is_that_of_the_other_one_reversed(studies):
    found, other = improvement(studies), improvement([-own for own in studies])
    pairs = [[(v > 0) + 0.5 * (v == 0) for v in own] for own in studies]
    assert found.mean == pytest.approx(np.mean([np.mean(own) for own in pairs]))
    assert found.mean + other.mean == pytest.approx(1)
    assert found.low + other.high == pytest.approx(1)


def test_one_study_has_the_bootstrap_of_scipy_and_several_are_redrawn_apart():
    rng = np.random.default_rng(0)
    values = rng.normal(1, 2, 40)
    found = stratified_mean([values])
    oracle = scipy.stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=rng).confidence_interval
    assert (found.low, found.high) == pytest.approx((oracle.low, oracle.high), abs=0.05)
    both = stratified_mean([values, np.full(7, 100.0)])  # what differs between studies is in no interval
    assert (both.high - both.low) == pytest.approx((found.high - found.low) / 2, rel=0.05)


def test_data_sets_are_redrawn_where_there_are_five():
    table = ranking(frame_of(STANDARD)).table
    assert table.drop("ew")["data_low"].notna().all()
    wider = (table["data_high"] - table["data_low"]) > 0.5 * (table["difference_high"] - table["difference_low"])
    assert wider.drop("ew").all()
    few = ranking(frame_of(SUITES["noise", LOSS_WEIGHTING])).table  # one family
    assert few["data_low"].isna().all()
    assert few.drop("ew")["probability"].between(0, 1).all()


def test_standings_say_where_intervals_do_not_redraw_splits():
    assert drawn({"arguments": {"distribution": {"split": [1.0, 1.0]}}}) == OWN_SPLIT
    assert drawn({"arguments": {"distribution": {"conflict": [0.0, 1.0]}}}) == OWN_DATA
    assert drawn({"arguments": {"distribution": {"noise:left": [0.0, 1.0]}}}) == ONE_SPLIT
    suite = Suite(
        "two", LOSS_WEIGHTING, "1.0", "", (Study("a", "x", arguments={"distribution": {"split": [1.0, 1.0]}}), Study("b", "y"))
    )
    table = mtl_gym.standings(frame_of(suite))
    assert table.attrs["draws"] == {"a": OWN_SPLIT, "b": ONE_SPLIT}


OURS, OTHERS = SUITES["noise", LOSS_WEIGHTING], replace(SUITES["noise", LOSS_WEIGHTING], version="0.9")


@pytest.mark.parametrize("suite", [OURS, OTHERS])  # of which this version is installed, and not
def test_as_many_instances_are_not_the_same_ones(suite):
    frame = frame_of(suite)
    early = frame["instance"] < suite.studies[0].first + 6
    table = mtl_gym.standings(frame[(frame["policy"] == "ew") | (early == (frame["policy"] == "si"))])
    assert ([*table.index], table.attrs["left_out"]) == (["ew"], ["si", "rlw"])
    with pytest.raises(ValueError, match=r"one policy with results on all instances of all studies.*'si', 'rlw'"):
        mtl_gym.standings(frame[(frame["policy"] != "ew") & (early == (frame["policy"] == "si"))])


def test_instances_that_the_suite_does_not_have_do_not_count():
    more = frame_of(OURS, instances=OURS.studies[0].count + 1)
    own = more[more["instance"].isin(OURS.studies[0].ids)]
    pd.testing.assert_frame_equal(
        mtl_gym.standings(more[(more["policy"] != "si") | more.index.isin(own.index)]), mtl_gym.standings(own)
    )


@pytest.mark.parametrize("suite", [OURS, OTHERS])
def test_studies_without_results_are_named(suite, tmp_path):
    whole = frame_of(suite)
    found = ranking(whole[whole["study"] != "0.2"])
    assert found.table.attrs["missing"] == ["0.2"]
    write_standings(found, tmp_path)
    for kind in ("md", "html"):
        text = (tmp_path / f"leaderboard.{kind}").read_text()
        assert "Not the whole suite: there are no results of 0.2." in text
        assert "2 of 3 studies, 24 instances" in text
        assert "--policies ew,si,rlw --out FOLDER" in text or "--policies rlw,si,ew --out FOLDER" in text
    assert "2 of 3 studies" in (tmp_path / "leaderboard.tex").read_text()
    assert "Not the whole suite" not in " ".join(notes_of(mtl_gym.standings(whole)))


def test_the_smallest_difference_that_matters_is_that_of_the_run():
    suite = SUITES["noise", LOSS_WEIGHTING]
    told = [mtl_gym.standings(frame_of(suite, smallest_difference=own)).loc["si", "verdict"] for own in (0.0, 9.0)]
    assert told == ["better", "equal"]


def test_a_checksum_is_that_of_the_frozen_list():
    assert {key: own.checksum for key, own in SUITES.items()} == {key: digest(own) for key, own in SUITES.items()}


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(-3, 3)), min_size=1, max_size=8))
@settings(max_examples=50, deadline=None)
def test_nothing_is_both_cheaper_and_better_than_the_front(rows):
    table = pd.DataFrame(rows, columns=["passes", "delta_m"], index=[f"p{place}" for place in range(len(rows))])
    found = {tuple(table.loc[name]) for name in front(table)}
    beaten = {own for own in rows for other in rows if other != own and other[0] <= own[0] and other[1] >= own[1]}
    assert found == {*rows} - beaten


# --- figures and the page -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SUITE_FIGURES)
def test_every_figure_is_drawn_from_a_frame(name):
    frame = frame_of(SUITES["noise", LOSS_WEIGHTING])
    figure = getattr(plots, name)(frame)
    assert plots.names(frame) == [*SUITE_FIGURES]
    assert name in dir(plots)
    FigureCanvasAgg(figure).draw()
    assert figure.axes


@pytest.mark.parametrize("name", SHIFTS)
def test_every_shift_suite_has_its_line(name):
    suite = SUITES[name, LOSS_WEIGHTING]
    axes = plots.shift(frame_of(suite)).axes[0]
    assert [text.get_text() for text in axes.get_xticklabels()] == [study.name for study in suite.studies]
    lines = [
        line for line in axes.get_lines() if len(line.get_xdata()) == len(suite.studies) and line.get_marker() not in ("", "None")
    ]
    assert len(lines) == 2
    numbers = all(study.name.replace(".", "").isdigit() for study in suite.studies)
    assert all((line.get_linestyle() == "None") != numbers for line in lines)  # only values are joined


def test_a_line_of_the_shift_is_the_mean_difference():
    frame = frame_of(SUITES["noise", LOSS_WEIGHTING])
    means = (
        frame.drop_duplicates(["study", "policy", "instance"]).groupby(["study", "policy"], sort=False)["delta_m"].mean().unstack()
    )
    drawn = [line.get_ydata() for line in plots.shift(frame).axes[0].get_lines()]
    for name in ("si", "rlw"):
        assert any(np.allclose(own, means[name] - means["ew"]) for own in drawn if len(own) == 3)


def test_figures_without_data_and_wrong_baselines_are_named():
    frame = frame_of(STANDARD)
    with pytest.raises(ValueError, match=r"`name` should be a figure for which this run of the suite standard has data"):
        plots.shift(frame)
    with pytest.raises(ValueError, match=r"`baseline` should be one of ew, si, rlw"):
        plots.standings(frame, baseline="sy")
    with pytest.raises(ValueError, match=r"`name` should be one of standings.*Did you mean 'profiles'"):
        plots.draw(frame, "profile")
    results = make_results()
    with pytest.raises(ValueError, match=r"`baseline` should be left out for a comparison"):
        plots.forest(to_frame(results, make_about(results)), baseline="ew")


CROWD = [f"policy-{number}" for number in range(25)]


def test_of_many_policies_the_best_and_the_baseline_have_lines_of_their_own():
    figure = plots.curves(frame_of(SUITES["noise", LOSS_WEIGHTING], CROWD))
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == [*CROWD[:-MOST_LINES:-1], CROWD[0], "16 others"]


def page_of(frame, folder):
    found = ranking(frame)
    return {path.suffix[1:]: path.read_text() for path in write_standings(found, folder)}["html"], found


def test_the_page_shows_everything_and_loads_nothing(tmp_path):
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "report.html").write_text("")
    page, found = page_of(frame_of(STANDARD, ("ew", "<b>", "rlw"), command="mtl-gym compare --suite standard"), tmp_path)
    assert page.count("<a ") == 1
    assert '<a href="digits/report.html">' in page
    assert STANDARD.checksum in page
    assert "mtl-gym compare --suite standard</pre>" in page
    assert "&lt;b&gt;" in page
    assert "<b></b>" not in page
    assert "<b><b>" not in page
    assert "<script" not in page
    assert not re.search(r'(src|href)="(?!#|data:|digits/)', page)  # only parts of figures, and the study
    drawn = [name for name in SUITE_FIGURES if f'id="figure-{name}"' in page]
    assert drawn == [name for name in SUITE_FIGURES if name != "shift"]
    assert page.count("<table") == page.count('class="scroll"')  # narrow screens scroll a table alone
    assert f"<strong>{found.table.index[0]}</strong> has the highest mean of 3 policies" in page


@pytest.mark.parametrize("width", [NARROW, pytest.param(10.0, marks=pytest.mark.slow)])
def test_figures_keep_to_the_page(width):
    from mtl_gym.evaluation.figures import draw_each

    drawn = draw_each(SUITE_FIGURES, (ranking(frame_of(SUITES["noise", LOSS_WEIGHTING], CROWD)),), width)
    assert {*drawn} == {*SUITE_FIGURES}
    for svg in drawn.values():
        assert float(svg.split('width="')[1].split("pt")[0]) <= 72 * width + 1


def test_one_policy_has_a_page_too(tmp_path):
    page, _ = page_of(frame_of(SUITES["noise", LOSS_WEIGHTING], ("ew",)), tmp_path)
    assert "<strong>ew</strong> was run alone" in page


# --- side by side ---------------------------------------------------------------------------------------------------------------


def plain_frame(seed=0, policies=THREE, instances=8, **changes):
    results = make_results(policies, instances, seed=seed)
    results = [replace(own, delta_m=own.delta_m + seed * own.instance) for own in results]
    return to_frame(results, make_about(results, versions={"mtl-gym": "0.1.0"}, kernels={"AVX2": 3}, **changes))


def test_policies_of_the_same_name_are_paired():
    first, second = plain_frame(), plain_frame(1, ("si", "ew", "igb"), 6)
    table = mtl_gym.side_by_side(first, second)
    assert {*table.index} == {"ew", "si"}
    own = {name: frame.drop_duplicates(["policy", "instance"]) for name, frame in (("first", first), ("second", second))}
    for name in table.index:
        pair = {run: rows[(rows["policy"] == name) & (rows["instance"] < 6)]["delta_m"].to_numpy() for run, rows in own.items()}
        oracle = scipy.stats.ttest_rel(pair["second"], pair["first"])
        assert table.loc[name, "difference"] == pytest.approx(pair["second"].mean() - pair["first"].mean())
        assert (table.loc[name, "low"], table.loc[name, "high"]) == pytest.approx(tuple(oracle.confidence_interval()))
        assert oracle.pvalue - 1e-9 <= table.loc[name, "p"] <= 2 * oracle.pvalue + 1e-9
    assert (table["instances"] == 6).all()
    assert table.attrs["notes"] == ["Only in the first: rlw.", "Only in the second: igb."]
    back = mtl_gym.side_by_side(second, first)
    assert back["difference"].to_dict() == pytest.approx((-table["difference"]).to_dict())
    same = mtl_gym.side_by_side(first, first)
    assert (same["same"] == 8).all()
    assert {*same["verdict"]} == {"equal"}


def test_other_references_and_batches_are_noted():
    results = [replace(own, batch=[*range(8)]) for own in make_results(("ew", "si"), 8)]
    changed = [
        replace(own, references=dict.fromkeys(own.references, 0.6), batch=[0, 1]) if own.instance < 3 else own for own in results
    ]
    about = {"versions": {"mtl-gym": "0.1.0"}, "kernels": {"AVX2": 3}}
    first, second = (to_frame(own, make_about(own, **about)) for own in (results, changed))
    assert mtl_gym.side_by_side(first, second).attrs["notes"] == [
        "Single-task references differ on 3 of 8 instances, where a part of the difference is that of the references.",
        "Batches (the instances trained side by side) differ on 3 of 8 instances, which may change the last bits of scores.",
    ]
    older = [replace(own, batch=[]) for own in results]
    assert mtl_gym.side_by_side(first, to_frame(older, make_about(older, **about))).attrs["notes"] == []


def test_studies_of_a_suite_count_alike():
    suite = SUITES["noise", LOSS_WEIGHTING]
    first, second = frame_of(suite), frame_of(suite, instances=4, seed=1)
    table = mtl_gym.side_by_side(first, second)
    means = table.attrs["by_study"]
    assert [*means] == [study.name for study in suite.studies]
    assert table["difference"].to_dict() == pytest.approx({name: np.mean([own[name] for own in means.values()]) for name in THREE})
    assert (table["instances"] == 12).all()


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: plain_frame(arguments={"lr": 0.02, "hidden_sizes": [8]}), r"lr differ \(first, second\).*0\.01, 0\.02"),
        (lambda: plain_frame(problem="yeast"), r"a run of the same as the first, digits of"),
        (lambda: plain_frame(identity=["digits", 7]), r"identity differ"),
        (lambda: frame_of(SUITES["noise", LOSS_WEIGHTING]), r"a run of the same as the first, digits of"),
        (lambda: plain_frame(policies=("igb",)), r"share a policy's name and two instances"),
        (lambda: plain_frame(instances=1), r"share a policy's name and two instances"),
    ],
)
def test_what_is_not_comparable_is_refused(other, message):
    with pytest.raises(ValueError, match=f"`second` should .*{message}"):
        mtl_gym.side_by_side(plain_frame(), other())


def test_another_version_of_a_suite_is_refused_and_kernels_are_noted():
    suite = SUITES["noise", LOSS_WEIGHTING]
    with pytest.raises(ValueError, match=r"the first, noise 1\.0 of .*noise 2\.0"):
        mtl_gym.side_by_side(frame_of(suite), frame_of(replace(suite, version="2.0")))
    other = plain_frame()
    other.attrs["about"] = {**other.attrs["about"], "versions": {"mtl-gym": "0.2.0"}}
    assert (
        "Versions differ: mtl-gym 0.1.0 in the first, mtl-gym 0.2.0 in the second."
        in mtl_gym.side_by_side(plain_frame(), other).attrs["notes"]
    )


def stored(folder, suite, **changes):
    """A folder with results of a suite."""
    folder.mkdir()
    store = opened(folder)
    for results, about in studies_of(suite, **changes).values():
        given = {"problem": about["problem"], **about["arguments"]}
        setting = plain(setting_of(suite.env, check_arguments(specification(suite.env), **given), given))
        specs = [{"setting": setting, "policy": own.policy, "instance": own.instance} for own in results]
        store.begin(setting, {"seed": 0, "suite": about["suite"]})
        store.write(specs, results)
    return folder


def test_the_command_shows_two_folders(tmp_path):
    runner, suite = CliRunner(), SUITES["noise", LOSS_WEIGHTING]
    words = [str(stored(tmp_path / f"run{seed}", suite, seed=seed)) for seed in (0, 1)]
    answer = runner.invoke(app, ["report", *words, "--out", str(tmp_path / "sides")])
    assert answer.exit_code == 0, answer.output
    assert "noise 1.0 of mtl_gym/LossWeighting-v0" in answer.output
    assert "Of 3 policies that both runs have, in the second run:" in answer.output
    page = (tmp_path / "sides" / "side_by_side.html").read_text()
    assert "Mean differences, second minus first" in page
    assert page.count("<table") == page.count('class="scroll"') == 2
    answer = runner.invoke(app, ["report", *words, "--json"])
    assert {*json.loads(answer.stdout)["policies"]} == {*THREE}
    assert plots.names(words[0]) == [*SUITE_FIGURES]
    answer = runner.invoke(app, ["report", words[0], str(tmp_path / "none")])
    assert answer.exit_code == 2
    assert "results.sqlite" in answer.output


@pytest.mark.slow
def test_the_command_rewrites_the_pages_of_a_suite(tmp_path):
    one = Suite("one", LOSS_WEIGHTING, "1.0", "", (Study("points", "quadratic"),))
    answer = CliRunner().invoke(app, ["report", str(stored(tmp_path / "run", one)), "--out", str(tmp_path / "again")])
    assert answer.exit_code == 0, answer.output
    assert '<a href="points/report.html">' in (tmp_path / "again" / "leaderboard.html").read_text()
    assert not (tmp_path / "run" / "leaderboard.html").exists()

"""The page, its figures and the TensorBoard curves, of results made by hand: hostile names, gaps, few and many of everything."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from rollouts import slow_unless

from mtl_gym.agents import PRETRAINED
from mtl_gym.baselines import BASELINES
from mtl_gym.environments import LOSS_WEIGHTING, TASK_GROUPING
from mtl_gym.envs.looks import ON_DARK
from mtl_gym.evaluation import report_tables
from mtl_gym.evaluation.comparison import to_frame
from mtl_gym.evaluation.export import export, finite
from mtl_gym.evaluation.figures import draw_figures, page_figures
from mtl_gym.evaluation.grouping_plots import groups, regret, together
from mtl_gym.evaluation.layout import NARROW, WIDE
from mtl_gym.evaluation.plots import forest, learning_curves, probability_of_improvement, task_gains, weight_trajectories
from mtl_gym.evaluation.report import headline, notes_of, settings, write_report
from mtl_gym.evaluation.results import Result
from mtl_gym.evaluation.structure_plots import merged_layers, similarities
from mtl_gym.evaluation.styles import SETTINGS, folded, style
from mtl_gym.evaluation.summary import summarize
from mtl_gym.evaluation.tensorboard import write_events
from mtl_gym.evaluation.weight_rules import weight_rules
from mtl_gym.problems.axes import DISTRIBUTIONS

STEPS = [0, 10, 20]


def make_result(policy="ew", instance=0, tasks=("left", "right"), delta_m=None, seed=0, **changes):
    rng = np.random.default_rng([seed, instance, len(policy)])
    metrics = {f"{task}/accuracy": float(rng.uniform(0.5, 0.9)) for task in tasks}
    curves = {
        "step": STEPS,
        "loss": {task: rng.uniform(0.1, 2, 3).tolist() for task in tasks},
        "weight": {task: rng.uniform(0.1, 2, 3).tolist() for task in tasks},
        "gap": {task: rng.uniform(0.1, 2, 3).tolist() for task in tasks},
    }
    planted = {axis: {task: float(rng.uniform(0.1, 1)) for task in tasks} for axis in ("scale", "noise")}
    gain = float(rng.normal()) if delta_m is None else delta_m
    fields = {"metrics": metrics, "references": dict.fromkeys(metrics, 0.7), "cost": {"forward": 20.0, "backward": 20.0}}
    return Result(policy, instance, delta_m=gain, **{"diverged": False, "curves": curves, "planted": planted, **fields, **changes})


def make_results(policies=("ew", "si"), instances=3, tasks=("left", "right"), **changes):
    return [make_result(policy, instance, tasks, **changes) for policy in policies for instance in range(instances)]


def make_about(results, **changes):
    metrics = {name: {"higher_is_better": True} for result in results for name in result.metrics}
    return {
        "env": LOSS_WEIGHTING,
        "problem": "digits",
        "instances": sorted({result.instance for result in results}),
        "seed": 0,
        "arguments": {"lr": 0.01, "hidden_sizes": [8]},
        "command": "mtl-gym compare",
        "versions": {"python": "3.11"},
        "metrics": metrics,
        **changes,
    }


def summary_of(results, **changes):
    return finite(summarize(to_frame(results, make_about(results, **changes))))


def page_of(results, folder, **changes):
    return write_report(results, summary_of(results, **changes), folder).read_text()


def figures(results, env=LOSS_WEIGHTING):
    """The figures of a page as SVG texts, by name."""
    return draw_figures(page_figures(env), results, summary_of(results, env=env))


class Elements(HTMLParser):
    """Tags with their attributes, and the text between them."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.texts = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)


HOSTILE = ["<script>alert(1)</script>", "$x_1$", "_hidden", "a&b", '" onload="alert(1)', "${env}", "[red]", "constant:w=1,2"]


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory):
    results = make_results(HOSTILE, tasks=("<img src=x>", "$t_1$", "_task"))
    return page_of(results, tmp_path_factory.mktemp("page"), problem="<i>problem</i>", command="mtl-gym <u>x</u>")


def test_the_page_loads_nothing_from_elsewhere(hostile_page):
    elements = Elements(hostile_page)
    assert not {tag for tag, _ in elements.tags} & {"script", "link", "img", "iframe", "object", "embed", "base"}
    for _, attributes in elements.tags:
        assert "src" not in attributes
        for name in ("href", "xlink:href"):
            assert attributes.get(name, "#").startswith(("#", "data:image/png;base64,"))
        assert not [name for name in attributes if name.startswith("on")]
    assert "@import" not in hostile_page
    assert not re.search(r"url\((?!['\"]?#)", hostile_page)


def test_hostile_names_are_shown_as_they_are(hostile_page):
    texts = Elements(hostile_page).texts
    for name in [*HOSTILE, "<img src=x>", "$t_1$", "_task", "mtl-gym <u>x</u>"]:
        assert name in texts
    for markup in ("<script", "<img", "<i>problem", "<u>"):
        assert markup not in hostile_page


def images(page, kind):
    """The figures of a page for "wide" or "narrow" screens."""
    return re.findall(rf'<div class="{kind}">(<svg.*?</svg>)', page, flags=re.DOTALL)


@pytest.mark.parametrize("name", HOSTILE)
def test_every_figure_of_policies_names_each_of_them(name, hostile_page):
    wide, narrow = images(hostile_page, "wide"), images(hostile_page, "narrow")
    assert len(wide) == len(narrow) == 6
    for svg in wide:
        assert name in [text.strip() for text in Elements(svg).texts]
    for svg in narrow:  # in several lines
        assert "".join(name.split()) in "".join("".join(Elements(svg).texts).split())


def test_what_a_figure_refers_to_is_the_same_wherever_it_is_defined(hostile_page):
    targets = set(re.findall(r'(?:url\(#|href="#)([^")]+)', hostile_page))
    assert targets
    for target in targets:
        definitions = re.findall(rf'<(\w+) id="{target}"(.*?)</\1>|<path id="{target}"(.*?)/>', hostile_page, flags=re.DOTALL)
        assert len(set(definitions)) == 1, target


SHAPES = {
    "one of everything": {"policies": ["ew"], "instances": 1, "tasks": ["only"]},
    "one policy": {"policies": ["ew"]},
    "fourteen tasks": {"tasks": [f"task {number}" for number in range(14)]},
    "sixteen policies": {"policies": [f"constant:w={number},2,3,4,5,6" for number in range(16)]},
    "long names": {"policies": ["long " * 20, "ew"], "tasks": ["task " * 12, "right"]},
}


@pytest.mark.parametrize(
    "shape",
    [pytest.param(name, marks=pytest.mark.slow if name not in ("one of everything", "one policy") else ()) for name in SHAPES],
)
def test_the_page_holds_every_policy_and_task(shape, tmp_path):
    results = make_results(**SHAPES[shape])
    page = unescape(page_of(results, tmp_path))
    for name in {result.policy for result in results} | {task for result in results for task in result.curves["loss"]}:
        assert name in page
    assert "nan" not in page.lower()


def changed_curves(**changes):
    return {**make_result().curves, **changes}


GAPS = {
    "losses end": changed_curves(loss={"left": [1.0, None, None], "right": [1.0, 0.5, None]}),
    "no loss": changed_curves(loss={"left": [None] * 3, "right": [None] * 3}),
    "zero losses": changed_curves(loss={"left": [0.0] * 3, "right": [0.0] * 3}),
    "negative losses": changed_curves(loss={"left": [-1.0] * 3, "right": [1.0] * 3}),
    "zero weights": changed_curves(weight={"left": [0.0] * 3, "right": [0.0] * 3}),
    "no weight": changed_curves(weight={"left": [None] * 3, "right": [None] * 3}),
    "negative weights": changed_curves(weight={"left": [-1.0] * 3, "right": [1.0] * 3}),
    "huge": changed_curves(loss={"left": [1e30] * 3, "right": [1e-30] * 3}, weight={"left": [1e30] * 3, "right": [1e-30] * 3}),
    "no gap": changed_curves(gap={"left": [None] * 3, "right": [None] * 3}),
    "zero gaps": changed_curves(gap={"left": [0.0] * 3, "right": [0.0] * 3}),
    "stopped at once": {
        "step": [0],
        "loss": {"left": [1.0], "right": [None]},
        "weight": {"left": [1.0], "right": [1.0]},
        "gap": {"left": [1.0], "right": [None]},
    },
    "other tasks": {"step": STEPS, "loss": {"third": [1.0] * 3}, "weight": {"third": [1.0] * 3}, "gap": {"third": [1.0] * 3}},
}


@pytest.mark.slow
def test_gaps_in_curves_are_survived(tmp_path):
    results = [make_result(name, curves=curves) for name, curves in GAPS.items()]
    summary = summary_of(results)
    page = write_report(results, summary, tmp_path).read_text()
    assert all(name in page for name in GAPS)
    write_events(results, summary, tmp_path / "tensorboard")
    assert len(read_events(tmp_path / "tensorboard")) == len(GAPS)


@pytest.mark.parametrize("gap", GAPS)
def test_rules_of_one_result_with_gaps_are_drawn(gap):
    results = [make_result(), make_result("other", curves=GAPS[gap])]
    whole = weight_rules(results, summary_of(results)).axes[2].get_lines()[0].get_xydata()
    assert len(whole) == 2
    assert np.isfinite(whole).all()


@pytest.mark.slow
def test_results_without_the_traces_of_the_rules_still_make_a_page(tmp_path):
    new = make_results()
    old = [replace(result, curves={kind: result.curves[kind] for kind in ("step", "loss", "weight")}, planted={}) for result in new]
    for results in (old, [*old[:1], *new[1:]]):
        page = page_of(results, tmp_path)
        assert "What did it learn?" not in page
        assert len(re.findall('<h2 id="figure-', page)) == 5


@pytest.mark.parametrize("gap", GAPS)
def test_curves_of_one_result_with_gaps_are_drawn(gap):
    results = [make_result(curves=GAPS[gap])]
    for draw in (learning_curves, weight_trajectories):
        lines = [line for axes in draw(results, summary_of(results)).axes for line in axes.get_lines()]
        assert len(lines) == len(GAPS[gap]["loss"])


@pytest.mark.slow
def test_a_diverged_policy_is_shown(tmp_path):
    wild = [
        make_result("wild", instance, delta_m=-100.0, diverged=True, metrics={"left/accuracy": np.nan, "right/accuracy": np.nan})
        for instance in range(3)
    ]
    for results in ([*make_results(), *wild], wild):
        page = page_of(results, tmp_path)
        assert '<th scope="col">diverged' in page
        assert "nan" not in page.lower()


@pytest.mark.slow
def test_the_same_results_make_the_same_page(tmp_path):
    first, second = (page_of(make_results(), tmp_path / name) for name in ("one", "two"))
    assert first == second
    assert "$" not in first
    assert '<th scope="col">diverged' not in first


def test_figures_leave_matplotlib_as_it_was():
    from matplotlib import pyplot

    before = dict(mpl.rcParams)
    figures(make_results())
    assert dict(mpl.rcParams) == before
    assert not pyplot.get_fignums()


# --- headline -------------------------------------------------------------------------------------------------------------


def scored(**scores):
    return [make_result(name, instance, delta_m=value) for name, own in scores.items() for instance, value in enumerate(own)]


def test_the_headline_says_that_the_best_is_better():
    text = headline(summary_of(scored(ew=[1.0, 2.0, 3.0, 4.0, 5.0], si=[3.0, 4.1, 5.0, 6.1, 7.0])))
    assert "<strong>si</strong> performs best of 2 policies on 5 instances: 5.0 % above" in text
    assert "it is <strong>better</strong> than <strong>ew</strong>" in text
    assert "+2.04 points" in text
    assert "p &lt; 0.001)" in text
    assert "minimum detectable difference is" in text


SCATTERED = {"ew": [1.0, -2.0, 3.0, -4.0, 1.0], "si": [-3.0, 4.1, -2.0, 4.0, 1.0]}


def test_the_headline_says_that_the_best_is_not_told_apart():
    text = headline(summary_of(scored(**SCATTERED)))
    assert "it is <strong>not told apart</strong> from <strong>ew</strong>" in text


def test_the_headline_says_that_the_best_is_equal():
    close = scored(ew=[1.0, 2.0, 3.0, 4.0, 5.0], si=[1.1, 2.2, 3.1, 4.2, 5.1])
    assert "it is <strong>equal</strong> to <strong>ew</strong>" in headline(summary_of(close, smallest_difference=0.3))
    assert "it is <strong>better</strong> than <strong>ew</strong>" in headline(summary_of(close, smallest_difference=0.1))


def test_the_headline_corrects_for_all_pairs_since_it_chooses_the_best():
    own = {"ew": [0.0, 0.1, 0.2, 0.3, 0.4], "si": [1.0, 0.2, 1.9, 0.4, 2.0]}
    others = {f"other{number}": [-90.0 + number, -80, -70, -60, -50] for number in range(6)}
    assert "it is <strong>better</strong>" not in headline(summary_of(scored(**own, **others)))
    assert "with Holm's correction over 28 pairs" in headline(summary_of(scored(**own, **others)))


@pytest.mark.parametrize("count", [1, 2, 4])
def test_fewer_than_five_instances_give_no_verdict(count):
    text = headline(summary_of(scored(ew=[1.0, 2.0, 3.0, 4.0][:count], si=[11.0, 12.5, 13.0, 14.5][:count])))
    assert "significant" not in text
    assert "takes at least 5 instances" in text


def test_scores_and_differences_are_of_one_estimator():
    summary = summary_of(scored(ew=[1.1] * 12 + [-10.0] * 4, si=[1.0] * 16))
    policies = summary["policies"]
    assert policies["ew"]["delta_m"]["mean"] == pytest.approx(-1.675)
    difference = policies["si"]["delta_m"]["mean"] - policies["ew"]["delta_m"]["mean"]
    assert policies["si"]["paired"]["ew"]["difference"] == pytest.approx(difference)
    assert "<strong>si</strong> performs best" in headline(summary)


def test_single_task_learning_is_not_compared_with_itself():
    own = [make_result("separate", instance, metrics={"left/accuracy": 0.7}, delta_m=0.0) for instance in range(6)]
    others = [make_result("ew", instance, metrics={"left/accuracy": 0.6}, delta_m=-5.0 - instance) for instance in range(6)]
    assert headline(summary_of(own)) == (
        "<strong>separate</strong> is single-task learning itself, the reference: its delta_m is 0 by definition."
    )
    text = headline(summary_of([*own, *others]))
    assert text == "<strong>ew</strong> was run on 6 instances: 7.5 % below single-task learning."
    assert "separate is single-task learning itself." in notes_of([*own, *others], summary_of([*own, *others]))["forest"]


def test_the_headline_says_when_the_best_is_below_single_task_learning():
    assert "5.0 % below single-task learning" in headline(summary_of(scored(ew=[-5.0, -5.0], si=[-6.0, -7.0])))


def test_one_policy_leads_nobody():
    assert "lead" not in headline(summary_of(scored(ew=[1.0, 2.0])))


def test_the_table_is_sorted_best_first(tmp_path):
    page = page_of(scored(worst=[1.0, 1.0], best=[3.0, 3.0], middle=[2.0, 2.0]), tmp_path)
    body = page[page.index("<tbody>") : page.index("</tbody>")]
    assert re.findall(r"<b>([\w-]+)</b>", body) == ["best", "middle", "worst"]


# --- TensorBoard and files --------------------------------------------------------------------------------------------------


def read_events(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    runs = {}
    for run in sorted(folder.iterdir()):
        events = EventAccumulator(str(run))
        events.Reload()
        runs[run.name] = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    return runs


def test_events_hold_medians_and_are_not_doubled_when_written_again(tmp_path):
    results = make_results()
    summary = summary_of(results)
    for _ in range(2):
        write_events(results, summary, tmp_path / "runs")
    runs = read_events(tmp_path / "runs")
    assert list(runs) == ["00-ew", "01-si"]
    own = [result for result in results if result.policy == "si"]
    for kind in ("loss", "weight"):
        median = np.median([result.curves[kind]["left"] for result in own], axis=0)
        assert [step for step, _ in runs["01-si"][f"{kind}/left"]] == STEPS
        np.testing.assert_allclose([value for _, value in runs["01-si"][f"{kind}/left"]], median, rtol=1e-6)
    assert [step for step, _ in runs["01-si"]["delta_m"]] == [1, 2, 3]
    assert runs["01-si"]["delta_m"][-1][1] == pytest.approx(summary["policies"]["si"]["delta_m"]["mean"], rel=1e-6)


def test_the_hparams_tab_shows_policies_and_scores_alone(tmp_path):
    from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer
    from tensorboard.plugins.hparams import metadata

    results = make_results()
    write_events(results, summary_of(results), tmp_path)
    runs = EventMultiplexer().AddRunsFromDirectory(str(tmp_path)).Reload()
    found = {run: dict(runs.GetAccumulator(run).PluginTagToContent("hparams").items()) for run in runs.Runs()}
    assert set(found) == {"00-ew", "01-si"}
    for run, content in found.items():
        experiment = metadata.parse_experiment_plugin_data(content[metadata.EXPERIMENT_TAG])
        assert [(info.name, info.differs) for info in experiment.hparam_infos] == [("policy", True)]
        assert [value.string_value for value in experiment.hparam_infos[0].domain_discrete.values] == ["ew", "si"]
        assert [info.name.tag for info in experiment.metric_infos] == ["delta_m"]
        session = metadata.parse_session_start_info_plugin_data(content[metadata.SESSION_START_INFO_TAG])
        assert {name: value.string_value for name, value in session.hparams.items()} == {"policy": run[3:]}


def test_no_curve_has_one_point(tmp_path):
    results = [make_result(name, instance, curves=GAPS["stopped at once"]) for name in ("ew", "si") for instance in range(2)]
    write_events(results, summary_of(results), tmp_path)
    assert {tag for run in read_events(tmp_path).values() for tag in run} == {"delta_m"}
    assert all(len(points) > 1 for run in read_events(tmp_path).values() for points in run.values())


def test_events_of_hostile_names_stay_in_the_folder(tmp_path):
    results = make_results([*HOSTILE, "../../up", "/etc"])
    write_events(results, summary_of(results), tmp_path / "runs")
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    assert len(read_events(tmp_path / "runs")) == len(HOSTILE) + 2


@pytest.mark.slow
def test_export_replaces_what_was_there(tmp_path):
    export(make_results(["ew", "si", "rlw"]), make_about(make_results()), tmp_path)
    results = make_results(["gls"])
    summary = export(results, make_about(results), tmp_path)
    assert list(summary["policies"]) == ["gls"]
    assert {path.name for path in tmp_path.iterdir()} == {"results.csv", "summary.json", "report.html", "tensorboard"}
    assert [path.name for path in (tmp_path / "tensorboard").iterdir()] == ["00-gls"]
    assert "rlw" not in (tmp_path / "report.html").read_text()


def test_numbers_that_are_not_finite_become_null():
    assert finite({"a": [1.0, float("nan")], "b": (float("inf"), "text", 3)}) == {"a": [1.0, None], "b": [None, "text", 3]}


def test_the_headline_escapes_names():
    assert "<strong>a&amp;&lt;b&gt;</strong>" in headline(summary_of(scored(**{"a&<b>": [1.0, 2.0]})))


# --- groups of tasks ------------------------------------------------------------------------------------------------------


def grouped(policy, instance, tasks, labels, **others):
    """A result whose tasks were grouped."""
    memberships = np.eye(len(tasks))[labels].tolist()
    outcome = {"tasks": list(tasks), "groups": labels, "memberships": memberships, "num_groups": len(set(labels))}
    return make_result(policy, instance, tuple(tasks), outcome={**outcome, "gains": [0.0] * len(tasks), **others})


def test_groups_are_drawn_with_regret_memberships_and_data_maps(tmp_path):
    maps = {"confidence": [[0.5, 0.9], [0.4, 0.6]], "variability": [[0.1, 0.2], [0.2, 0.1]]}
    results = [grouped(name, id, ("a", "_b$"), [0, id % 2], regret=0.01 * id, **maps) for name in ("x", "y") for id in range(3)]
    drawn = figures(results, TASK_GROUPING)
    assert {"regret", "groups", "memberships", "data_maps"} <= set(drawn)
    assert not {"curves", "weights", "rules", "front"} & set(drawn)
    page = unescape(page_of(results, tmp_path, env=TASK_GROUPING))
    assert all(title in page for title in ("Regret", "Co-grouping frequency", "Groups of the first instance", "Data maps"))


def labels_of(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


@pytest.mark.parametrize(("policies", "width"), [("xy", WIDE), ("xyz", NARROW)])
def test_columns_of_pairs_of_tasks_are_named_in_the_last_line(policies, width):
    tasks = ("a", "_b$", "long name")
    results = [grouped(name, id, tasks, [0, id % 2, 1]) for name in policies for id in range(2)]
    with mpl.rc_context({"figure.figsize": (width, width), **SETTINGS}):
        figure = groups(results, summary_of(results))
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    panels, columns = figure.axes[: len(policies)], 1 if width == NARROW else 2
    assert [labels_of(axes.xaxis) for axes in panels[-columns:]] == [list(tasks)] * columns
    assert not any(labels_of(axes.xaxis) for axes in panels[:-columns])
    heights = [axes.get_window_extent().height for axes in panels]
    assert max(heights) - min(heights) < 2
    for axes in panels:
        assert not overlaps(axes.get_xticklabels(), canvas.get_renderer())


def test_columns_of_stages_are_named_where_the_tasks_are_the_same():
    tasks = ["a", "b", "c"]
    outcome = {"tasks": tasks, "assign": [[0, 0, 1], [0, 1, 2]], "cka": [np.eye(3).tolist()] * 2}
    results = [make_result(name, id, tuple(tasks), outcome=outcome) for name in "xy" for id in range(2)]
    summary = summary_of(results)
    with mpl.rc_context({"figure.figsize": (WIDE, WIDE), **SETTINGS}):
        merged, similar = merged_layers(results, summary), similarities(results, summary)
    named = [labels_of(axes.xaxis) for axes in merged.axes]
    assert named[4:6] == [tasks] * 2  # of the second policy, beside its tree
    assert named[1:3] == [[], []]
    assert [labels_of(axes.xaxis) for axes in similar.axes[:4]] == [tasks] * 4


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_the_label_of_regret_fits_the_page(width):
    results = [grouped("x", id, ("a", "b"), [0, 0], regret=0.01 * id) for id in range(2)]
    with mpl.rc_context({"figure.figsize": (width, width), **SETTINGS}):
        figure = regret(results, summary_of(results, env=TASK_GROUPING))
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    box = figure.axes[0].xaxis.label.get_window_extent(canvas.get_renderer())
    assert 0 <= box.x0
    assert box.x1 <= figure.bbox.width


def test_figures_of_what_is_not_known_are_left_out():
    results = [grouped("x", id, ("a", "b"), [0, 0]) for id in range(2)]
    drawn = figures(results, TASK_GROUPING)
    assert {"groups", "memberships"} <= set(drawn)
    assert not {"regret", "data_maps", "front"} & set(drawn)
    assert not {"groups", "memberships", "regret", "data_maps"} & set(figures(make_results(), TASK_GROUPING))


def test_regret_of_some_policies_alone_is_drawn():
    results = [grouped("x", id, ("a", "b"), [0, 0], regret=0.01) for id in range(2)] + [grouped("y", 0, ("a", "b"), [0, 1])]
    drawn = figures(results, TASK_GROUPING)
    assert ">x</text>" in drawn["regret"]
    assert ">y</text>" not in drawn["regret"]


def test_pairs_count_the_instances_in_which_both_take_part():
    own = [
        {"tasks": ["a", "b"], "groups": [0, 0]},
        {"tasks": ["b", "a"], "groups": [0, 1]},
        {"tasks": ["c", "b"], "groups": [0, 0]},
    ]
    shares = together(own, ["a", "b", "c"])
    np.testing.assert_array_equal(shares, [[1, 0.5, np.nan], [0.5, 1, 1], [np.nan, 1, 1]])


@pytest.mark.parametrize("count", slow_unless((1, 40).__contains__, [1, 2, 40]))
def test_any_number_of_tasks_and_policies_is_drawn(count):
    tasks = [f"c{number % 3}_{number}" for number in range(count)]
    maps = {"confidence": [[0.5, 0.9]] * count, "variability": [[0.1, 0.2]] * count}
    results = [grouped(name, id, tasks, [0] * count, **maps) for name in "vwxyz" for id in range(2)]
    drawn = figures(results, TASK_GROUPING)
    named = re.findall(r">(c\d_\d+)</text>", drawn["groups"])
    assert named[0] == "c0_0"
    assert (len(set(named)) == count) == (count <= 24)  # of more, some are named, evenly spaced
    assert "data_maps" in drawn


# --- one look, everywhere --------------------------------------------------------------------------------------------------


def looks(*names):
    return {name: {key: repr(value) for key, value in style({"policies": names}, name).items()} for name in names}


def test_a_policy_has_the_same_look_in_every_comparison():
    alone = {**looks("si"), **looks("mine"), **looks("igb+cagrad")}
    together = looks("ew", "mine", "igb", "igb+cagrad", "si")
    assert {name: together[name] for name in alone} == alone
    assert set(alone["si"]) == {"color", "marker", "linestyle"}


def test_a_policy_of_ones_own_has_a_colour_that_no_other_one_has():
    turned = ["cagrad", "ew", "igb", "my.py:MyPolicy:decay=.8", "my.py:average", "my.py:inverse:power=0.3"]
    assert len({own["color"] for own in looks(*turned).values()}) == 6
    for place in range(20):
        found = looks("ew", *(f"own {place} {number}" for number in range(10)))
        assert len({own["color"] for own in found.values()}) == 11


def test_no_two_of_the_built_in_policies_look_alike():
    names = [*BASELINES, *PRETRAINED]
    assert len(names) > 50
    assert len({tuple(look.values()) for look in looks(*names).values()}) == len(names)
    for name in names:
        assert looks(name)[name] == looks(*names)[name]


def test_no_two_policies_of_one_comparison_look_alike():
    names = [*BASELINES, *(f"constant:w={number}" for number in range(150))]
    assert len({tuple(look.values()) for look in looks(*names).values()}) == len(names)
    assert looks(*names) == looks(*names[::-1])


def test_figures_and_tables_show_a_policy_in_its_look():
    for policies in (["si"], ["ew", "gls", "si"]):
        results = make_results(policies)
        line = learning_curves(results, summary_of(results)).axes[0].get_lines()[-1]
        assert {"color": repr(line.get_color()), "marker": repr(line.get_marker())}.items() <= looks("si")["si"].items()
        assert f'<span style="color: {line.get_color()}"' in report_tables.scores(summary_of(results), "si")


# --- every width, light and dark, on paper and read aloud --------------------------------------------------------------------

CROWDS = {
    "a hundred tasks": {"policies": ["ew", "si"], "instances": 2, "tasks": [f"cluster_{n % 3}_{n}" for n in range(100)]},
    "thirty policies": {"policies": [f"constant:w=1,2,{number}" for number in range(30)], "instances": 2},
}


@pytest.mark.parametrize(
    ("shape", "width"),
    [
        *(("one policy", width) for width in (WIDE, NARROW)),
        *(pytest.param(shape, width, marks=pytest.mark.slow) for shape in [*SHAPES, *CROWDS] for width in (WIDE, NARROW)),
    ],
)
def test_figures_fill_the_page_with_texts_of_full_size(shape, width):
    results = make_results(**{**SHAPES, **CROWDS}[shape])
    drawn = draw_figures(page_figures(LOSS_WEIGHTING), results, summary_of(results), width)
    assert {"forest", "gains", "curves", "weights", "probability"} <= set(drawn)
    for svg in drawn.values():
        assert float(re.search(r'<svg [^>]*width="([\d.]+)pt"', svg)[1]) <= 72 * width + 1
        sizes = [float(size) for size in re.findall(r"font(?:-size)?: ([\d.]+)px", svg)]
        assert min(sizes) >= 8


def overlaps(texts, renderer):
    boxes = [text.get_window_extent(renderer) for text in texts if text.get_text().strip() and text.get_visible()]
    return [(a, b) for place, a in enumerate(boxes) for b in boxes[:place] if a.shrunk(0.98, 0.9).overlaps(b.shrunk(0.98, 0.9))]


@pytest.mark.parametrize(
    ("draw", "width"),
    slow_unless(
        lambda row: row[1] == NARROW or row[0] is forest,
        [(draw, width) for draw in (probability_of_improvement, task_gains, forest, learning_curves) for width in (WIDE, NARROW)],
    ),
)
def test_long_names_do_not_run_into_each_other(draw, width):
    results = make_results(
        [f"constant:w=1,2,4,16,{number},16" for number in range(9)], 2, [f"a long name of a task {n}" for n in range(9)]
    )
    with mpl.rc_context({"figure.figsize": (width, width), **SETTINGS}):
        figure = draw(results, summary_of(results))
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    renderer = canvas.get_renderer()
    for axes in figure.axes:
        assert not overlaps(axes.get_yticklabels(), renderer)
        assert not overlaps(axes.get_xticklabels(), renderer)
    for legend in figure.legends:
        assert not overlaps(legend.get_texts(), renderer)
        assert legend.get_window_extent(renderer).x1 <= figure.bbox.x1 + 2


def test_all_panels_of_a_figure_have_the_same_scale():
    results = make_results(["ew", "si", "gls"], tasks=("small", "large", "third"))
    for result in results:
        result.curves["loss"] = {task: [5.0, 2.0, 0.001 if task == "small" else 1.0] for task in result.curves["loss"]}
    for draw in (learning_curves, weight_trajectories):
        axes = draw(results, summary_of(results)).axes
        assert len(axes) == 3
        assert len({own.get_ylim() for own in axes}) == len({own.get_xlim() for own in axes}) == 1


def test_a_hundred_tasks_are_summarised():
    results = make_results(["ew", "si"], 2, [f"t{number}" for number in range(100)])
    summary = summary_of(results)
    assert len(learning_curves(results, summary).axes) == 3
    with mpl.rc_context({"figure.figsize": (WIDE, WIDE)}):
        whole, lowest, highest = task_gains(results, summary).axes
    assert [text.get_text() for text in whole.get_xticklabels()][::3] == ["worst", "median", "best"]
    gains = {name: np.mean([relative(result, name) for result in results]) for name in results[0].metrics}
    ordered = sorted(gains, key=gains.get)
    for axes, ends in ((lowest, ordered[:10]), (highest, ordered[::-1][:10])):
        assert [text.get_text().replace("\n", "/") for text in axes.get_xticklabels()] == ends


def relative(result, name):
    return result.metrics[name] / result.references[name]


def test_the_metrics_of_a_hundred_tasks_are_quantiles():
    table = report_tables.metrics(summary_of(make_results(["ew", "si"], 2, [f"t{number}" for number in range(100)])))
    assert "quantiles over 100 tasks" in table
    heads = re.findall(r'<th scope="col">([^<]*)', table)
    assert heads == ["policy", "lowest", "10 %", "median", "90 %", "highest"]


def test_a_page_suits_screen_readers(hostile_page):
    elements = Elements(hostile_page)
    ids = [attributes.get("id") for _, attributes in elements.tags]
    drawn = [attributes for tag, attributes in elements.tags if tag == "svg"]
    assert len(drawn) == 12
    for attributes in drawn:
        assert attributes["role"] == "img"
        assert ids.count(attributes["aria-labelledby"]) == 1
    titles = re.findall(r'<title id="([^"]*)">([^<]+)</title>', hostile_page)
    assert {id for id, _ in titles} == {attributes["aria-labelledby"] for attributes in drawn}
    heads = [attributes.get("scope") for tag, attributes in elements.tags if tag == "th"]
    assert set(heads) == {"col", "row"}
    assert hostile_page.count("<caption>") == len(re.findall("<table[ >]", hostile_page))


def test_in_the_dark_texts_and_lines_follow_the_page(hostile_page):
    for svg in re.findall(r"<svg.*?</svg>", hostile_page, flags=re.DOTALL):
        assert "var(--c1c1c1c, #1c1c1c)" in svg
        assert not re.search(r"(?<!, )#(?:1c1c1c|ffffff|000000)", svg)  # neither black texts nor white boxes
        assert all("fill: " in style for style in re.findall(r'<text style="([^"]*)"', svg))
    dark = hostile_page[hostile_page.index("prefers-color-scheme: dark") :]
    for colour in ON_DARK:
        assert f"--c{colour[1:].lower()}: " in dark


def test_every_estimator_is_named_where_it_stands():
    table = report_tables.scores(summary_of(make_results(instances=6)), "si")
    heads = dict(re.findall(r'<th scope="col">([^<]*) <small>([^<]*)</small>', table))
    assert heads["delta_m, %"] == "mean"
    assert next(below for head, below in heads.items() if head.startswith("difference from")) == "mean of pairs"
    assert heads["verdict"] == "Holm\u2019s adjusted p"


def test_on_a_phone_each_cell_of_the_scores_has_its_heading():
    table = report_tables.scores(summary_of(make_results(instances=6)), "si")
    heads = [f"{head} ({below})" for head, below in re.findall(r'<th scope="col">([^<]*) <small>([^<]*)<', table)]
    assert '<table class="cards">' in table
    for row in table.split("<tr")[2:]:
        assert re.findall('<td data-head="([^"]*)">', row) == heads
        assert row.count("<td") == len(heads)


def test_the_table_has_the_verdict_on_each_policy():
    close = scored(ew=[1.0, 2.0, 3.0, 4.0, 5.0], si=[1.1, 2.2, 3.1, 4.2, 5.1], bad=[-9.0, -8.0, -9.0, -8.0, -9.0])
    table = report_tables.scores(summary_of(close, smallest_difference=0.3), "si")
    rows = re.findall(r"<b>(\w+)</b>.*?</tr>", table)
    assert rows == ["si", "ew", "bad"]
    assert [re.findall(r"<td[^>]*>(better|worse|equal|not told apart) <small>", row) for row in table.split("<tr")[2:]] == [
        [],
        ["equal"],
        ["worse"],
    ]


def test_the_p_value_of_a_verdict_says_what_it_is():
    alike = scored(ew=[1.0, 2.0, 3.0, 4.0, 5.0], si=[1.0, 2.1, 2.9, 4.1, 4.9], bad=[-9.0, -8.0, -9.0, -8.0, -9.0])
    table = report_tables.scores(summary_of(alike), "ew")
    cells = re.findall(r"<td[^>]*>(?:better|worse|not told apart) <small>([^<]*)</small>", table)
    assert cells == ["p = 1.000", "p &lt; 0.001"]


def test_names_break_where_their_parts_end():
    assert report_tables.breakable("my.py:inverse:power=0.3") == "my.py:<wbr>inverse:<wbr>power=0.3"
    assert report_tables.breakable("igb+cagrad:c=<1>") == "igb+<wbr>cagrad:<wbr>c=&lt;1&gt;"
    assert report_tables.breakable("delta_m, %") == "delta_m, %"
    name = "my.py:inverse:power=0.3"
    summary = summary_of(make_results(["ew", name], instances=6))
    assert report_tables.breakable(name) in report_tables.scores(summary, name)
    assert report_tables.breakable(name) in report_tables.metrics(summary)


@pytest.mark.parametrize(
    ("name", "length", "lines"),
    [
        ("fairgrad:alpha=2", 14, ["fairgrad:", "alpha=2"]),
        ("my.py:MyPolicy:decay=.8", 15, ["my.py:MyPolicy:", "decay=.8"]),
        ("igb+cagrad:c=0.5", 40, ["igb+cagrad:c=0.5"]),
        ("constant:w=1,2,4,16", 14, ["constant:w=1,", "2,4,16"]),
        ("runs/mine/comparison", 12, ["runs/mine/", "comparison"]),
        ("a_name_without_parts:x", 8, ["a_name_w", "ithout_p", "arts:x"]),
    ],
)
def test_names_are_folded_where_their_parts_end(name, length, lines):
    assert folded(name, length).split("\n") == lines


def test_the_page_says_why_the_terminal_may_find_more(tmp_path):
    page = " ".join(page_of(make_results(instances=6), tmp_path).split())
    assert "corrects over fewer pairs: it may call a pair <i>better</i> that is <i>not told apart</i> here" in page


def test_medians_stand_below_means_that_few_instances_carry():
    table = report_tables.scores(summary_of(scored(ew=[1.0, 2.0, 3.0, 2.0, 1.5], si=[2.0, 2.1, 1.9, 2.0, -100.0])), "ew")
    [of_ew, of_si] = table.split("<tr")[2:]
    assert "median" not in of_ew
    assert "-18.40 <small>" in of_si
    assert "<small>median 2.00</small>" in of_si


@pytest.mark.parametrize(
    ("ranges", "shown"), [({}, "clean"), (DISTRIBUTIONS["varied"], "varied"), ({"noise": [0, 0.5]}, '{"noise": [0, 0.5]}')]
)
def test_a_distribution_is_shown_by_its_name(ranges, shown):
    about = make_about(make_results(), arguments={"distribution": ranges})
    assert f"<dt>distribution</dt><dd>{shown}</dd>" in unescape(settings(about))


def test_the_seed_and_the_address_of_the_problem_are_shown_where_they_are_known():
    known = settings(make_about(make_results(), seed=3, address="shop.py:make"))
    assert "<dt>instances</dt><dd>3: 0 to 2</dd><dt>seed</dt><dd>3</dd><dt>problem</dt><dd>shop.py:make</dd>" in known
    unknown = settings(make_about(make_results(), seed=None, address=None))
    assert "<dt>seed</dt>" not in unknown
    assert "<dt>problem</dt>" not in unknown

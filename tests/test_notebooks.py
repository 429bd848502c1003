"""Python and notebooks: leaderboard, figures, page, progress bars and representations."""

from __future__ import annotations

import copy
import json
import pickle
import sys
import types

import gymnasium
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot
from rollouts import LOSS_WEIGHTING, small
from test_report import make_about, make_results

import mtl_gym
from mtl_gym import plots
from mtl_gym.baselines import BASELINES
from mtl_gym.environments import TASK_GROUPING
from mtl_gym.evaluation.comparison import run
from mtl_gym.evaluation.frames import to_frame
from mtl_gym.evaluation.plans import plan
from mtl_gym.evaluation.summary import summarize
from mtl_gym.policies.finding import policy_class
from mtl_gym.policies.grammar import make_policy
from mtl_gym.progress import progress_bar


@pytest.fixture
def frame():
    results = make_results(("ew", "si", "rlw"))
    return to_frame(results, make_about(results))


# --- leaderboard ------------------------------------------------------------------------------------------------------


def test_the_leaderboard_is_the_summary_best_first(frame):
    board, summary = mtl_gym.leaderboard(frame), summarize(frame)["policies"]
    assert board.index.name == "policy"
    assert list(board["delta_m"]) == sorted((row["delta_m"]["mean"] for row in summary.values()), reverse=True)
    for name, row in summary.items():
        ends = ("mean", "low", "high", "median")
        assert tuple(board.loc[name, ["delta_m", *ends[1:]]]) == tuple(row["delta_m"][key] for key in ends)
        if name != "ew":
            pair = row["paired"]["ew"]
            own = board.loc[name, ["difference", "difference_low", "difference_high"]]
            assert tuple(own) == (pair["difference"], pair["low"], pair["high"])
    assert board.loc["ew", ["difference", "probability"]].isna().all()
    assert (board.drop(columns="verdict").dtypes.map(lambda kind: kind.kind).isin(["f", "i"])).all()
    assert set(board["verdict"]) == {""}  # of fewer than five instances
    assert any("conditional on one split" in line for line in board.attrs["notes"])


def test_the_leaderboard_is_written_as_latex_and_html(frame):
    board = mtl_gym.leaderboard(frame, baseline="si")
    assert pd.isna(board.loc["si", "difference"])
    assert r"delta\_m" in board.to_latex(float_format="%.1f", escape=True)
    assert "<table" in board._repr_html_()
    with pytest.raises(ValueError, match=r"`baseline` should be one of ew, si, rlw\. Received baseline='sy'\. Did you mean 'si'"):
        mtl_gym.leaderboard(frame, baseline="sy")


def test_a_part_of_a_frame_has_a_leaderboard_of_its_own(frame):
    part = frame[(frame["policy"] != "ew") & (frame["instance"] < 2)]
    board = mtl_gym.leaderboard(part)
    assert set(board.index) == {"si", "rlw"}
    assert (board["instances"] == 2).all()


# --- figures and pages ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["forest", "gains", "curves", "weights", "rules", "probability"])
def test_the_figures_of_the_page_are_drawn_from_a_frame(name, frame):
    settings = dict(pyplot.rcParams)
    figure = getattr(plots, name)(frame)
    assert figure.axes
    assert name in plots.names(frame)
    assert name in dir(plots)
    assert dict(pyplot.rcParams) == settings
    assert not pyplot.get_fignums()


def test_a_figure_is_a_picture_in_a_notebook(frame, tmp_path):
    figure = plots.forest(frame)
    assert figure._repr_png_()[:8] == b"\x89PNG\r\n\x1a\n"
    figure.savefig(tmp_path / "forest.pdf")


def test_a_figure_shows_what_is_left_of_a_frame(frame):
    labels = [text.get_text() for text in plots.forest(frame[frame["policy"] != "rlw"]).axes[0].get_yticklabels()]
    assert set(labels) == {"ew", "si"}


def test_figures_that_are_not_there_are_named(frame):
    with pytest.raises(AttributeError, match="no figure 'forrest'"):
        plots.forrest  # noqa: B018
    with pytest.raises(ValueError, match="Did you mean 'forest'"):
        plots.draw(frame, "forrest")
    results = make_results()
    with pytest.raises(ValueError, match="has data"):
        plots.regret(to_frame(results, make_about(results, env=TASK_GROUPING)))


def test_frames_without_their_results_are_refused_with_a_remedy(frame):
    frame.attrs.clear()
    with pytest.raises(ValueError, match="Pass the output folder"):
        plots.forest(frame)
    with pytest.raises(TypeError, match=r"be the frame of mtl_gym\.compare"):
        plots.forest(frame.to_dict())


def of(*policies):
    results = make_results(policies)
    return to_frame(results, make_about(results))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pd.concat([of("ew"), of("si")]), r"one comparison only.*\['si'\].*in one call"),
        (lambda: pd.concat([of("ew"), of("ew")]), r"each once.*\['ew'\].*in one call"),
        (lambda: of("ew").assign(policy="mine"), r"one comparison only.*\['mine'\]"),
        (lambda: of("ew").iloc[:0], r"`source` should have rows"),
        (lambda: of("ew")[["delta_m"]], r"`source` should have the columns policy and instance"),
    ],
)
def test_frames_whose_rows_are_not_of_their_results_are_refused(make, message, tmp_path):
    for use in (mtl_gym.leaderboard, plots.forest, lambda source: mtl_gym.report(source, tmp_path / "out")):
        with pytest.raises(ValueError, match=message):
            use(make())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["task", "delta_m", "diverged"])
def test_a_frame_without_a_column_that_statistics_read_is_refused_in_words(name):
    with pytest.raises(ValueError, match=rf"`frame` should have the columns .*{name}.* Missing: {name}\."):
        mtl_gym.leaderboard(of("ew").drop(columns=name))


def test_parts_of_one_comparison_may_be_put_together_again():
    frame = of("ew", "si")
    parts = pd.concat([frame[frame["policy"] == "si"], frame[frame["policy"] == "ew"]])
    assert set(mtl_gym.leaderboard(parts).index) == {"ew", "si"}
    assert plots.forest(parts).axes


def test_the_results_of_a_frame_weigh_nothing_and_survive(frame, tmp_path):
    attached = frame.attrs["results"]
    assert frame.copy().attrs["results"] is attached
    assert copy.deepcopy(attached) is attached
    assert json.loads(json.dumps(frame.attrs["results"])) == "9 results"
    assert len(pickle.loads(pickle.dumps(frame)).attrs["results"].results) == 9
    assert frame.groupby("policy")["delta_m"].mean().attrs.get("results", attached) is attached


@pytest.mark.slow
def test_the_page_is_written_from_a_frame_and_from_a_folder(tmp_path):
    arguments = {"problem": "quadratic", "instances": 2, "train_steps": 4, "batch_size": 16, "holdout_size": 16}
    frame = mtl_gym.compare("ew,si", out=tmp_path / "out", seed=1, **arguments)
    page = (tmp_path / "out" / "report.html").read_text()
    assert mtl_gym.report(frame, tmp_path / "again").read_text() == page
    assert mtl_gym.report(tmp_path / "out") == tmp_path / "out" / "report.html"
    assert (tmp_path / "out" / "report.html").read_text() == page
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["about"]["seed"] == 1
    assert mtl_gym.leaderboard(tmp_path / "out").equals(mtl_gym.leaderboard(frame))
    with pytest.raises(ValueError, match="`out` should be a folder to write to"):
        mtl_gym.report(frame)
    with pytest.raises(ValueError, match=r"`folder` should contain results\.sqlite"):
        mtl_gym.report(tmp_path)


# --- progress ---------------------------------------------------------------------------------------------------------


def test_a_bar_is_on_stderr_and_never_on_stdout(capsys):
    with progress_bar(4, "doing", show=True) as update:
        update(description="something", advance=4)
    out, err = capsys.readouterr()
    assert not out
    assert "something" in err
    assert "100%" in err


@pytest.mark.parametrize("show", [None, False])
def test_nobody_is_shown_a_bar_in_a_script(show, capsys):
    with progress_bar(4, "doing", show=show) as update:
        update(advance=4)
    assert capsys.readouterr() == ("", "")


def test_an_error_leaves_nothing_of_a_bar(capsys):
    with pytest.raises(ValueError, match="mine"), progress_bar(4, "doing", show=True):
        raise ValueError("mine")
    assert "0%" not in capsys.readouterr().err


def test_references_move_the_bar():
    told = []
    arguments = {"problem": "quadratic", "instances": 2, "train_steps": 4, "batch_size": 16, "holdout_size": 16, "lr": 0.0123}
    checked = plan("ew", **arguments)
    run(checked, on_progress=lambda label, steps: told.append((label, steps)))
    own = [steps for label, steps in told if label == "single-task references"]
    assert own == [0, 2, 2, 2, 2]
    assert sum(steps for _, steps in told) == checked.steps


class FakeCell:
    """What IPython's ``display`` returns."""

    shown: list = []

    def update(self, thing):
        self.shown.append(thing)


@pytest.fixture
def notebook(monkeypatch):
    """A kernel, as far as rich and IPython's ``display`` are concerned."""
    FakeCell.shown = []
    display = types.ModuleType("IPython.display")
    display.display = lambda thing, display_id: FakeCell.shown.append(thing) or FakeCell()
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    return FakeCell.shown


def test_a_notebook_shows_a_bar_below_the_cell(notebook, capsys):
    with progress_bar(4, "doing", show=True) as update:
        update(advance=4)
    assert "100%" in notebook[-1]._repr_mimebundle_((), ())["text/html"]
    assert capsys.readouterr() == ("", "")


# --- representations --------------------------------------------------------------------------------------------------

NEEDED = {"constant": ":w=1,2,3", "single-task": f":env={TASK_GROUPING}"}


@pytest.mark.parametrize("name", BASELINES)
def test_heuristics_are_represented_by_what_makes_them(name):
    policy = make_policy(name + NEEDED.get(name, ""))
    text = repr(policy)
    assert "\n" not in text
    assert " at 0x" not in text
    names = {cls.__name__: cls for cls in [type(policy), policy_class(name)] if isinstance(cls, type)}
    assert eval(text, names).spec == policy.spec


def test_compositions_and_functions_are_represented_by_their_parts():
    assert repr(make_policy("igb+cagrad:c=0.5")) == "Composition(IGB(), CAGrad(c=0.5))"

    def mine(losses):
        return 1 / losses

    assert repr(mtl_gym.policy(mine)).endswith("mine)")
    assert " at 0x" not in repr(mtl_gym.policy(lambda losses: losses))


def test_environments_are_represented_by_their_arguments():
    arguments = small("quadratic")
    env = gymnasium.make(LOSS_WEIGHTING, **arguments).unwrapped
    given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    assert repr(env) == f"LossWeightingEnv({given})"
    again = eval(repr(env), {"LossWeightingEnv": type(env)})
    np.testing.assert_array_equal(again.reset(seed=0)[0]["progress"], env.reset(seed=0)[0]["progress"])
    several = gymnasium.make_vec(LOSS_WEIGHTING, num_envs=2, vectorization_mode="vector_entry_point", **arguments)
    assert repr(several) == f"LossWeightingVectorEnv(num_envs=2, {given})"


def test_data_are_represented_by_their_sizes():
    problem = mtl_gym.load_problem("quadratic")
    sizes = {name: len(split) for name, split in problem.splits.items()}
    assert repr(problem.splits["test"]) == f"Split(inputs ({sizes['test']}, 12), targets ({sizes['test']}, 12))"
    pool = mtl_gym.load_problem("digits").pool
    for text in map(repr, (pool, pool.moments(pool.rows["train"]), problem.splits)):
        assert len(text) < 500
        assert "tensor" not in text
    assert "'train': 800" in repr(pool)
    several = gymnasium.make_vec(LOSS_WEIGHTING, num_envs=2, vectorization_mode="vector_entry_point", **small("quadratic"))
    several.reset(seed=0)
    assert repr(several.view).startswith("View(")
    assert "tensor" not in repr(several.view)


def test_notebooks_show_a_problem_as_a_table():
    problem = mtl_gym.load_problem("digits")
    html = problem._repr_html_()
    assert "digits: 800 train, 250 meta, 250 reward, 497 test; inputs 64, network mlp" in html
    assert html.count("<tr>") == 1 + problem.num_tasks
    assert "<td>digit</td><td>cross_entropy</td><td>accuracy</td><td>10</td>" in html
    many = tuple(mtl_gym.Task(f"<{number}>", "mse", ("rmse",)) for number in range(30))
    split = mtl_gym.Split(np.zeros((4, 1)), np.zeros((4, 30)))
    shown = mtl_gym.Problem("a & b", many, dict.fromkeys(problem.splits, split))._repr_html_()
    assert "a &amp; b: 4 train, 4 meta, 4 reward, 4 test; inputs 1, network mlp" in shown
    assert "<td>&lt;23&gt;</td>" in shown
    assert "<td>&lt;24&gt;</td>" not in shown
    assert "<td>6 more tasks</td>" in shown


def test_agents_say_what_they_are():
    text = repr(make_policy("ppo"))
    assert text.startswith("<Agent: ppo for mtl_gym/LossWeighting-v0, trained on digits for ")
    assert "\n" not in text

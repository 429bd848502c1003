"""Comparisons: the same instances for all, nothing done twice, nothing lost, and what the scores mean."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import gymnasium
import numpy as np
import pandas as pd
import pytest
from rollouts import LOSS_WEIGHTING, small

import mtl_gym
from mtl_gym.cache import cache_folder
from mtl_gym.evaluation.comparison import perform, run
from mtl_gym.evaluation.frames import results_of, to_frame
from mtl_gym.evaluation.plans import plan

ROOT = Path(mtl_gym.__file__).parents[1]
HEADS = ["policy", "instance", "task", "metric"]
NUMBERS = ["value", "reference", "gain", "delta_m", "forward", "backward", "return"]


def setting(problem="quadratic", **others):
    """Arguments of a comparison that takes a moment; each policy has its own number of steps per action."""
    arguments = small(problem, **others)
    del arguments["steps_per_action"]
    return {"instances": 3, **arguments, **others}


def compare(policies="ew,si", problem="quadratic", out=None, **others):
    """As ``mtl_gym.compare``, but of what it writes only the database: a page takes longer than all that is tested here."""
    checked = plan(policies, **setting(problem, **others))
    return to_frame(*perform(checked, out=None if out is None else Path(out)))


def rows(out):
    """The keys in a folder's database, and when they were written."""
    with sqlite3.connect(f"file:{Path(out) / 'results.sqlite'}?mode=ro", uri=True) as connection:
        found = connection.execute("SELECT key, written, rowid FROM results ORDER BY rowid").fetchall()
    connection.close()
    return found


def assert_close(first, second, rtol=1e-4):
    assert first[HEADS].values.tolist() == second[HEADS].values.tolist()
    np.testing.assert_allclose(first[NUMBERS], second[NUMBERS], rtol=rtol, atol=1e-3)


def test_a_folder_shows_the_results_of_its_last_comparison_also_if_they_were_reused(tmp_path):
    codes = {number: mtl_gym.policy(lambda losses, number=number: losses * 0 + number) for number in (1, 9)}
    frames = [compare({"mine": codes[number]}, out=tmp_path, optimizer="sgd", instances=1) for number in (1, 9, 1)]
    first, second, again = (frame["delta_m"][0] for frame in frames)
    assert first == again != second
    assert [result.delta_m for result in results_of(tmp_path)[0]] == [first]


class Counted:
    """Equal weights that count their calls, and stop everything at one of them."""

    requires = mtl_gym.Requirements(observe=("log_loss",), action="weights", steps_per_action=1)
    spec = {"name": "counted"}

    def __init__(self, stop=None):
        self.calls, self.stop = 0, stop

    def __getstate__(self):
        raise TypeError("this object counts all calls")  # no copy does

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        self.calls += 1
        if self.calls == self.stop:
            raise KeyboardInterrupt
        return np.ones_like(observation["log_loss"]), state


class Unidentified:
    requires = Counted.requires

    def __init__(self):
        self.calls = 0

    def __getstate__(self):
        raise TypeError("this object counts all calls")  # no copy does

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        self.calls += 1
        return np.ones_like(observation["log_loss"]), state


# --- the frame ------------------------------------------------------------------------------------------------------------


def test_the_frame_has_a_row_for_each_policy_instance_task_and_metric():
    frame = compare("ew,si,rlw", "digits")
    assert list(frame.columns) == [*HEADS, *NUMBERS, "diverged", "classification", "regression"]
    assert not frame.duplicated(HEADS).any()
    assert list(dict.fromkeys(frame["policy"])) == ["ew", "si", "rlw"]
    sizes = frame.groupby("policy").size()
    assert (sizes == sizes.iloc[0]).all()
    assert np.isfinite(frame[NUMBERS].to_numpy(dtype=float)).all()


def test_every_policy_meets_the_same_instances_and_references():
    frame = compare("ew,si,rlw")
    own = [group.drop(columns="policy").reset_index(drop=True) for _, group in frame.groupby("policy")]
    for other in own[1:]:
        assert other[["instance", "task", "reference"]].equals(own[0][["instance", "task", "reference"]])


def test_the_same_policy_under_two_labels_gets_the_same_results():
    frame = compare({"one": "rlw", "two": "rlw"})
    one, two = (frame[frame["policy"] == name].drop(columns="policy").reset_index(drop=True) for name in ("one", "two"))
    assert one.equals(two)


def test_about_says_how_it_was_made():
    about = compare("ew", lr=0.01, seed=2).attrs["about"]
    assert (about["env"], about["problem"], about["seed"]) == (LOSS_WEIGHTING, "quadratic", 2)
    assert about["instances"] == [20_000, 20_001, 20_002]
    assert (about["arguments"]["lr"], about["arguments"]["train_steps"]) == (0.01, 8)
    assert about["metrics"]["objective_1/rmse"] == {"higher_is_better": False}
    assert {"python", "torch", "numpy", "mtl-gym"} <= set(about["versions"])


@pytest.mark.parametrize(("instances", "seed", "ids"), [(2, 0, [0, 1]), (2, 3, [30_000, 30_001]), ([7, 5], 0, [7, 5])])
def test_instances_are_those_of_the_seed_or_those_given(instances, seed, ids):
    assert list(dict.fromkeys(compare("ew", instances=instances, seed=seed)["instance"])) == ids


def test_gains_and_delta_m_follow_from_values_and_references():
    frame = compare("ew,si", "digits", train_steps=20)
    sign = np.where(frame["metric"].isin(["nrmse", "rmse", "angle"]), -1, 1)
    floor = np.where(frame["metric"] == "nrmse", 0.01, 0.1)
    expected = 100 * sign * (frame["value"] - frame["reference"]) / np.maximum(frame["reference"], floor)
    np.testing.assert_allclose(frame["gain"], expected, rtol=1e-9)
    by_task = frame.groupby(["policy", "instance", "task"])["gain"].mean().groupby(["policy", "instance"]).mean()
    np.testing.assert_allclose(frame.groupby(["policy", "instance"])["delta_m"].first(), by_task, rtol=1e-9)


def test_evaluate_is_compare_with_one_policy():
    frame = mtl_gym.evaluate("si", **setting())
    assert frame.equals(compare(["si"]))


def test_returns_appear_when_a_reward_is_given():
    assert (compare("ew")["return"] == 0).all()
    assert (compare("ew", reward="val_mean", lr=0.1)["return"] > 0).all()


def test_equal_weights_cost_one_forward_and_one_backward_pass_at_each_step():
    frame = compare("ew,si,dwa")
    assert (frame["forward"] == 8).all()
    assert (frame["backward"] == 8).all()


def test_a_reward_is_paid_for_in_forward_passes():
    frame = compare("ew", reward="val_mean")
    assert (frame["forward"] > 8).all()
    assert (frame["backward"] == 8).all()


# --- what the scores mean -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("problem", ["digits", "quadratic"])
def test_one_task_alone_is_its_single_task_reference(problem):
    frame = compare("ew", problem, num_tasks=1)
    np.testing.assert_allclose(frame["value"], frame["reference"], rtol=1e-5)
    np.testing.assert_allclose(frame["delta_m"], 0, atol=1e-3)


def test_weight_on_one_task_only_reaches_that_tasks_reference():
    tasks = list(dict.fromkeys(compare("ew", "digits")["task"]))
    frame = compare({task: f"constant:w={np.eye(5)[place].tolist()}" for place, task in enumerate(tasks)}, "digits", train_steps=20)
    own = frame[frame["policy"] == frame["task"]]
    assert len(own) == 3 * len(frame[frame["policy"] == tasks[0]].groupby(["task", "metric"]))
    np.testing.assert_allclose(own["value"], own["reference"], rtol=1e-5)


def test_a_task_subset_differs_between_instances():
    frame = compare("ew", "digits", num_tasks=2, instances=6)
    subsets = frame.groupby("instance")["task"].apply(lambda tasks: frozenset(tasks))
    assert set(subsets.map(len)) == {2}
    assert subsets.nunique() > 1
    assert np.isfinite(frame[NUMBERS].to_numpy(dtype=float)).all()


def test_a_comparison_holds_the_tasks_that_are_named():
    frame = compare("ew,si", "digits", tasks=["loop", "digit", "angle"], num_tasks=2, instances=6)
    assert set(frame["task"]) == {"digit", "angle", "loop"}
    assert set(frame.groupby("instance")["task"].nunique()) == {2}
    assert np.isfinite(frame[NUMBERS].to_numpy(dtype=float)).all()
    assert frame.attrs["about"]["arguments"]["tasks"] == ["digit", "loop", "angle"]  # in the order of the problem


def test_one_named_task_is_its_single_task_reference():
    frame = compare("ew", "digits", tasks=["angle"])
    assert set(frame["task"]) == {"angle"}
    np.testing.assert_allclose(frame["value"], frame["reference"], rtol=1e-5)


def test_a_diverged_training_counts_as_minus_100_and_stops_nobody_else():
    diverging = {"optimizer": "sgd", "lr": 0.01, "train_steps": 20}
    frame = compare({"ew": "ew", "wild": "constant:w=1e6,1e6,1e6"}, **diverging)
    wild, tame = frame[frame["policy"] == "wild"], frame[frame["policy"] == "ew"]
    assert wild["diverged"].all()
    assert (wild["delta_m"] == -100).all()
    assert not tame["diverged"].any()
    assert tame.reset_index(drop=True).equals(compare({"ew": "ew"}, **diverging))


class WildRow(Counted):
    """Equal weights, but huge ones in the second row."""

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        weights, state = super().predict(observation, state)
        weights[1] = 1e6
        return weights, state


def test_an_instance_that_diverges_leaves_those_beside_it():
    arguments = {"optimizer": "sgd", "lr": 0.01, "train_steps": 20}
    frame, plain = compare({"own": WildRow()}, **arguments), compare({"own": Counted()}, **arguments)
    assert frame.groupby("instance")["diverged"].first().tolist() == [False, True, False]
    others = frame["instance"] != 1
    assert frame[others].equals(plain[others])


# --- curves ---------------------------------------------------------------------------------------------------------------


def test_curves_have_a_point_for_each_checkpoint_and_begin_with_the_initial_losses():
    for result in run(plan("ew,si", **setting(train_steps=60))):
        steps = result.curves["step"]
        assert steps == sorted(set(steps))
        assert (steps[0], steps[-1]) == (0, 60)
        assert len(steps) <= 31
        assert set(result.curves["loss"]) == set(result.curves["weight"]) == {"objective_1", "objective_2", "objective_3"}
        assert {len(curve) for kind in ("loss", "weight") for curve in result.curves[kind].values()} == {len(steps)}


def test_curves_of_all_policies_begin_at_the_same_losses():
    first, second = (
        {result.instance: {task: curve[0] for task, curve in result.curves["loss"].items()} for result in results}
        for results in (run(plan(name, **setting("digits"))) for name in ("ew", "si"))
    )
    assert first == second


def test_curves_begin_at_the_holdout_loss_of_the_untrained_network():
    result = run(plan("ew", **setting("digits", instances=1)))[0]
    env = gymnasium.make(LOSS_WEIGHTING, observe=["log_loss"], **small("digits"))
    env.reset(options={"instance": 0})
    losses = env.unwrapped.vector.decision.trainer.losses.held_out(["reward"])["reward"][0].numpy()
    np.testing.assert_allclose([curve[0] for curve in result.curves["loss"].values()], losses, rtol=1e-5)


def test_weight_curves_are_the_weights_applied():
    result = run(plan("constant:w=1,2,3", **setting()))[0]
    assert [set(curve) for curve in result.curves["weight"].values()] == [{1.0}, {2.0}, {3.0}]


# --- on disk: nothing is done twice ---------------------------------------------------------------------------------------


def test_the_same_call_finds_its_results_again(tmp_path):
    first = compare("ew,si,rlw", out=tmp_path)
    written = rows(tmp_path)
    assert compare("ew,si,rlw", out=tmp_path).equals(first)
    assert rows(tmp_path) == written
    assert len(written) == 9


def test_a_policy_is_not_asked_again(tmp_path):
    policy = Counted()
    first = compare({"own": policy}, out=tmp_path)
    assert policy.calls == 8
    again = Counted(stop=1)
    assert compare({"own": again}, out=str(tmp_path)).equals(first)
    assert again.calls == 0


@pytest.mark.slow
def test_out_is_the_folder_of_the_command_line(tmp_path):
    frame = mtl_gym.compare("ew,si", out=tmp_path / "new", seed=4, **setting())
    assert "<dt>seed</dt><dd>4</dd><dt>problem</dt><dd>quadratic</dd>" in (tmp_path / "new" / "report.html").read_text()
    names = {path.name for path in (tmp_path / "new").iterdir()}
    assert names == {"results.sqlite", "results.csv", "summary.json", "report.html", "tensorboard"}
    assert list((tmp_path / "new" / "tensorboard").rglob("events.out.tfevents.*"))
    written = pd.read_csv(tmp_path / "new" / "results.csv")
    assert written["kernels"].nunique() == 1
    assert written.drop(columns="kernels").to_csv(index=False) == frame.to_csv(index=False)


@pytest.mark.parametrize("name", ["summary.json", "report.html", "results.csv", "results.sqlite"])
def test_a_folder_in_the_place_of_a_file_is_named_before_anything_is_run(name, tmp_path):
    (tmp_path / name).mkdir()
    policy = Counted()
    with pytest.raises(ValueError, match=f"`out` should not contain a folder called {name}"):
        mtl_gym.compare({"own": policy}, out=tmp_path, **setting(lr=0.0432))
    assert policy.calls == 0
    assert {path.name for path in tmp_path.iterdir()} == {name}


def test_without_out_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    compare("ew")
    assert not list(tmp_path.iterdir())


def test_more_instances_do_only_those_that_are_missing(tmp_path):
    compare({"own": Counted()}, instances=2, num_envs=1, out=tmp_path)
    policy = Counted()
    compare({"own": policy}, instances=4, num_envs=1, out=tmp_path)
    assert policy.calls == 2 * 8
    assert len(rows(tmp_path)) == 4


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr", 0.5),
        ("train_steps", 16),
        ("batch_size", 8),
        ("optimizer", "sgd"),
        ("distribution", "varied"),
        ("reward", "val_mean"),
        ("num_tasks", 2),
        ("tasks", ["objective_1", "objective_3"]),
        ("lr_schedule", "step"),
        ("problem", "digits"),
    ],
)
def test_another_argument_makes_new_rows_and_keeps_the_old(name, value, tmp_path):
    compare("ew", out=tmp_path, instances=1)
    before = rows(tmp_path)
    compare("ew", out=tmp_path, **{"instances": 1, name: value})
    after = rows(tmp_path)
    assert after[: len(before)] == before
    assert len(after) == len(before) + 1


def test_results_of_other_tasks_are_not_mixed_up(tmp_path):
    def ask(*tasks):
        return compare("ew", out=tmp_path, num_tasks=1, tasks=tasks)

    first, second = ask("objective_1", "objective_2"), ask("objective_1", "objective_3")
    assert len(rows(tmp_path)) == 6
    assert set(first["task"]) <= {"objective_1", "objective_2"}
    assert set(second["task"]) <= {"objective_1", "objective_3"}
    assert ask("objective_2", "objective_1").equals(first)  # another order is the same setting
    assert len(rows(tmp_path)) == 6


def test_naming_all_tasks_finds_the_results_of_naming_none(tmp_path):
    first = compare("ew", out=tmp_path)
    assert compare("ew", out=tmp_path, tasks=["objective_3", "objective_1", "objective_2"]).equals(first)
    assert compare("ew", out=tmp_path, tasks=None).equals(first)
    assert len(rows(tmp_path)) == 3


def test_options_of_a_policy_make_new_rows(tmp_path):
    compare({"own": "constant:w=1,2,3"}, out=tmp_path)
    compare({"own": "constant:w=1,2,4"}, out=tmp_path)
    assert len(rows(tmp_path)) == 6


def test_a_policy_without_spec_is_never_found_again(tmp_path):
    compare({"own": Unidentified()}, out=tmp_path)
    again = Unidentified()
    compare({"own": again}, out=tmp_path)
    assert again.calls == 8


def test_a_function_is_found_again_by_its_code(tmp_path):
    def make():
        return mtl_gym.policy(lambda losses: 1 / losses)

    compare({"own": make()}, out=tmp_path)
    compare({"own": make()}, out=tmp_path)
    assert len(rows(tmp_path)) == 3


def made_with(constant):
    return lambda losses: losses * 0 + constant


def with_default(constant):
    return lambda losses, constant=constant: losses * 0 + constant


class Scaled:
    def __init__(self, constant):
        self.constant = constant

    def weights(self, losses):
        return losses * 0 + self.constant


FUNCTIONS = {
    "code": lambda constant: {1: lambda losses: losses * 0 + 1, 2: lambda losses: losses * 0 + 2}[constant],
    "closure": made_with,
    "default": with_default,
    "bound method": lambda constant: Scaled(constant).weights,
}


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_a_function_with_another_constant_is_another_policy(kind, tmp_path):
    first = compare({"own": mtl_gym.policy(FUNCTIONS[kind](1))}, out=tmp_path, optimizer="sgd")
    second = compare({"own": mtl_gym.policy(FUNCTIONS[kind](2))}, out=tmp_path, optimizer="sgd")
    assert not np.allclose(first["value"], second["value"], rtol=1e-6)


GLOBAL = 1.0


def test_a_function_with_another_global_is_another_policy(tmp_path, monkeypatch):
    mine = mtl_gym.policy(lambda losses: losses * 0 + GLOBAL)
    first = compare({"own": mine}, out=tmp_path, optimizer="sgd")
    monkeypatch.setitem(globals(), "GLOBAL", 2.0)
    second = compare({"own": mine}, out=tmp_path, optimizer="sgd")
    assert not np.allclose(first["value"], second["value"], rtol=1e-6)


def test_references_are_trained_once(tmp_path):
    def files():
        return {path: path.stat().st_mtime_ns for path in cache_folder().glob("instances/*")}

    compare("ew", lr=0.0123)
    before = files()
    compare("si,rlw", lr=0.0123, out=tmp_path)
    assert files() == before
    compare("ew", lr=0.0124)
    assert len(files()) == len(before) + 3


# --- interruptions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [1, 12, 24])
def test_an_interrupted_run_goes_on_from_there(stop, tmp_path):
    whole = compare({"ew": "ew", "own": Counted()}, num_envs=1)
    with pytest.raises(KeyboardInterrupt):
        compare({"ew": "ew", "own": Counted(stop)}, num_envs=1, out=tmp_path)
    done = (stop - 1) // 8
    kept = rows(tmp_path)
    assert len(kept) == 3 + done
    policy = Counted()
    assert_close(compare({"ew": "ew", "own": policy}, num_envs=1, out=tmp_path), whole)
    assert policy.calls == (3 - done) * 8
    assert rows(tmp_path)[: len(kept)] == kept
    assert len(rows(tmp_path)) == 6


KILLED = """
import sys, time
import numpy as np
import pandas as pd
import mtl_gym

class Slow:
    requires = mtl_gym.Requirements(observe=("log_loss",), action="weights", steps_per_action=1)
    spec = {"name": "counted"}

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        time.sleep(0.1)
        return np.ones_like(observation["log_loss"]), state

mtl_gym.compare({"rlw": "rlw", "own": Slow()}, problem="quadratic", instances=3, num_envs=1, train_steps=8, hidden_sizes=[],
                batch_size=16, holdout_size=16, out=sys.argv[1])
"""


@pytest.mark.slow
def test_a_killed_process_leaves_whole_rows_and_the_same_call_goes_on(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], env=environment)
    try:
        patience = time.monotonic() + 100
        while process.poll() is None and _count(tmp_path) < 4 and time.monotonic() < patience:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        assert process.wait() == -signal.SIGKILL
    kept = rows(tmp_path)
    assert 4 <= len(kept) < 6
    policies = {"rlw": "rlw", "own": Counted()}
    frame = compare(policies, num_envs=1, out=tmp_path)
    assert policies["own"].calls == (6 - len(kept)) * 8
    assert rows(tmp_path)[: len(kept)] == kept
    assert len(rows(tmp_path)) == 6
    assert_close(frame, compare({"rlw": "rlw", "own": Counted()}, num_envs=1))


def _count(folder):
    try:
        return len(rows(folder))
    except sqlite3.OperationalError:  # neither file nor table is there yet
        return 0


@pytest.mark.parametrize("policy", ["ew", "rlw", "igb", "uw"])
def test_results_do_not_depend_on_num_envs(policy):
    assert_close(compare(policy, "digits", num_envs=1), compare(policy, "digits", num_envs=16))


# --- policies of all kinds ------------------------------------------------------------------------------------------------


def test_a_stable_baselines3_model_is_compared():
    from stable_baselines3 import PPO

    env = gymnasium.make(LOSS_WEIGHTING, **small("quadratic", train_steps=20, steps_per_action=10))
    model = PPO("MultiInputPolicy", env, n_steps=2, batch_size=2, device="cpu", policy_kwargs={"net_arch": [4]}, seed=0)
    frame = mtl_gym.compare({"ppo": model, "ew": "ew"}, **setting(train_steps=20))
    assert list(dict.fromkeys(frame["policy"])) == ["ppo", "ew"]
    assert np.isfinite(frame["delta_m"]).all()
    assert not frame["diverged"].any()


def test_a_function_sees_the_losses_and_its_weights_are_applied():
    frame = compare({"mine": mtl_gym.policy(lambda losses: 1 / losses), "si": "si"})
    mine, si = (frame[frame["policy"] == name]["value"].to_numpy() for name in ("mine", "si"))
    np.testing.assert_allclose(mine, si, rtol=1e-6)


@pytest.mark.parametrize(("name", "value"), [("action", "softmax"), ("steps_per_action", 4), ("observe", ["progress"])])
def test_an_argument_that_contradicts_a_policy_is_named(name, value):
    with pytest.raises(ValueError, match=f"`{name}`"):
        compare("ew", **{name: value})


@pytest.mark.parametrize(
    ("arguments", "error", "name"),
    [
        ({"instances": 0}, ValueError, "instances"),
        ({"instances": []}, ValueError, "`instances` should have at least one id"),
        ({"instances": range(10**9)}, ValueError, "`instances` should have at most 10000 items"),
        ({"instances": range(10**30)}, ValueError, "`instances` should have at most 10000 items"),
        ({"instances": b"ab"}, TypeError, "`instances` should be a whole number"),
        ({"instances": [1, 1]}, ValueError, "instances"),
        ({"instances": [2**31]}, ValueError, "instances"),
        ({"instances": 10_001}, ValueError, "instances"),
        ({"instances": 2.5}, TypeError, "instances"),
        ({"instances": "3"}, TypeError, "instances"),
        ({"seed": -1}, ValueError, "seed"),
        ({"seed": 10**6}, ValueError, "seed"),
        ({"num_envs": 0}, ValueError, "num_envs"),
        ({"num_envs": True}, TypeError, "num_envs"),
        ({"smallest_difference": -0.1}, ValueError, "smallest_difference"),
        ({"smallest_difference": float("nan")}, ValueError, "smallest_difference"),
        ({"smallest_difference": "1"}, TypeError, "smallest_difference"),
        ({"policies": ""}, ValueError, "policies"),
        ({"policies": []}, ValueError, "policies"),
        ({"policies": "ew,ew"}, ValueError, "policies"),
        ({"policies": [3]}, TypeError, "policies"),
        ({"policies": None}, TypeError, "policies"),
        ({"policies": mtl_gym.policy(lambda losses: losses)}, TypeError, "policies"),
        ({"policies": "constant:w=1,2"}, ValueError, "w"),
        ({"problem": "quadratik"}, ValueError, "quadratic"),
        ({"lr": -1.0}, ValueError, "lr"),
        ({"train_step": 8}, (TypeError, ValueError), "train_steps"),
        ({"env": "mtl_gym/LossWeightin-v0"}, ValueError, "LossWeighting-v0"),
    ],
)
def test_wrong_arguments_are_named_before_anything_is_written(arguments, error, name, tmp_path):
    chosen = {"policies": "ew", **arguments}
    with pytest.raises(error, match=name):
        compare(out=tmp_path / "out", **chosen)
    assert not (tmp_path / "out").exists()


def test_the_smallest_difference_is_stored_with_the_results(tmp_path):
    frame = compare(out=tmp_path, smallest_difference=0.5)
    assert frame.attrs["about"]["smallest_difference"] == results_of(tmp_path)[1]["smallest_difference"] == 0.5
    keys = rows(tmp_path)
    assert compare(out=tmp_path).attrs["about"]["smallest_difference"] == results_of(tmp_path)[1]["smallest_difference"] == 0
    assert rows(tmp_path) == keys  # what is called equal changes no result


def test_a_comparison_of_an_earlier_version_has_no_smallest_difference(tmp_path):
    compare(out=tmp_path, smallest_difference=0.5)
    with sqlite3.connect(tmp_path / "results.sqlite") as connection:
        connection.execute("UPDATE comparisons SET origin = json_remove(origin, '$.smallest_difference')")
    connection.close()
    assert results_of(tmp_path)[1]["smallest_difference"] == 0


def test_an_unwritable_folder_is_named_before_anything_is_trained(tmp_path):
    (tmp_path / "file").write_text("")
    policy = Counted()
    with pytest.raises(ValueError, match="file"):
        compare({"own": policy}, out=tmp_path / "file" / "out", lr=0.0321)
    assert policy.calls == 0


@pytest.mark.parametrize(("out", "error"), [("", ValueError), (" ", ValueError), (3, TypeError), (b"out", TypeError)])
def test_a_folder_without_a_name_is_refused(out, error, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    policy = Counted()
    with pytest.raises(error, match=r"`out` should be a path\. Received out="):
        mtl_gym.compare({"own": policy}, out=out, **setting(instances=1))
    frame = compare("ew", instances=1)
    with pytest.raises(error, match=r"`out` should be a path\. Received out="):
        mtl_gym.report(frame, out)
    with pytest.raises((ValueError, TypeError), match="`source` should be"):
        mtl_gym.leaderboard(out)
    assert policy.calls == 0
    assert not list(tmp_path.iterdir())


def test_a_seed_may_be_a_number_of_numpys(tmp_path):
    settings = {"problem": "quadratic", "train_steps": 20, "instances": 1}
    frame = mtl_gym.compare("ew", seed=np.int64(1), out=tmp_path, **settings)
    assert frame["instance"].unique().tolist() == [10_000]
    with pytest.raises(ValueError, match="`seed` should be at least 0"):
        mtl_gym.compare("ew", seed=-1, **settings)

"""Policies that were trained elsewhere, and their answers: what they see, and what is refused or warned of."""

from __future__ import annotations

import io
import warnings

import gymnasium
import numpy as np
import pytest
import torch
from rollouts import LOSS_WEIGHTING, SAMPLE_WEIGHTING, TASK_GROUPING, make_vec, small
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecNormalize

import mtl_gym
from mtl_gym.agents.vec_env import VectorEnvAdapter
from mtl_gym.evaluation.plans import plan
from mtl_gym.evaluation.player import Player

SETTINGS = small("quadratic", train_steps=8, steps_per_action=4)
STEPWISE = {name: value for name, value in SETTINGS.items() if name != "steps_per_action"}


class Answer:
    """A policy of weights whose answer a function makes of equal ones."""

    requires = mtl_gym.Requirements(observe=("log_loss",), action="weights", steps_per_action=1)

    def __init__(self, change):
        self.change = change

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return self.change(np.ones_like(observation["log_loss"]))


class Shown:
    """A model whose observations somebody else has changed."""

    def __init__(self, model, change):
        self.model, self.change = model, change

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return self.model.predict(self.change(observation), state, episode_start, deterministic)


def compare(policies, **others):
    return mtl_gym.compare(policies, **{"instances": 2, **STEPWISE, **others})


def weights_of(change, **others):
    return compare({"mine": Answer(lambda ones: (change(ones), None))}, **others)


# --- models ---------------------------------------------------------------------------------------------------------------


def model_in(env, **options):
    return PPO("MultiInputPolicy", env, n_steps=2, batch_size=2, device="cpu", policy_kwargs={"net_arch": [4]}, seed=0, **options)


@pytest.fixture(scope="module")
def normalized():
    """A model that was trained under ``VecNormalize``, whose policy depends on what it sees."""
    vector = gymnasium.make_vec(LOSS_WEIGHTING, num_envs=2, vectorization_mode="vector_entry_point", **SETTINGS)
    model = model_in(VecNormalize(VectorEnvAdapter(vector)))
    model.learn(16)
    for parameter in model.policy.parameters():
        parameter.data *= 10
    return model


def test_a_model_trained_under_vec_normalize_sees_what_it_was_trained_on(normalized):
    statistics = normalized.get_vec_normalize_env()
    policies = {
        "model": normalized,
        "by hand": Shown(normalized, statistics.normalize_obs),
        "raw": Shown(normalized, lambda observation: observation),
    }
    frame = mtl_gym.compare(policies, **{"instances": 2, **SETTINGS})
    values = {label: frame[frame["policy"] == label]["value"].to_numpy() for label in policies}
    assert np.array_equal(values["model"], values["by hand"])
    assert not np.allclose(values["model"], values["raw"])


def test_a_loaded_model_is_normalized_once_it_has_its_environment_again(normalized):
    file = io.BytesIO()
    normalized.save(file)
    statistics = normalized.get_vec_normalize_env()
    policies = {"kept": normalized, "loaded": PPO.load(file, env=statistics)}
    frame = mtl_gym.compare(policies, **{"instances": 1, **SETTINGS})
    assert frame[frame["policy"] == "kept"]["value"].tolist() == frame[frame["policy"] == "loaded"]["value"].tolist()


def reloaded(model):
    file = io.BytesIO()
    model.save(file)
    return type(model).load(file, device="cpu")


def test_a_loaded_model_without_its_statistics_is_warned_of_once(normalized):
    with pytest.warns(RuntimeWarning, match="the policy 'mine' was trained on normalised observations.*VecNormalize.load") as found:
        mtl_gym.compare({"mine": reloaded(normalized)}, **{"instances": 2, "num_envs": 1, **SETTINGS})
    assert len(found) == 1


@pytest.mark.parametrize("wrap", [lambda envs: envs, lambda envs: VecNormalize(envs, norm_obs=False)], ids=["plain", "rewards"])
def test_a_loaded_model_of_plain_observations_is_no_reason_to_warn(wrap):
    vector = gymnasium.make_vec(LOSS_WEIGHTING, num_envs=2, vectorization_mode="vector_entry_point", **SETTINGS)
    model = model_in(wrap(VectorEnvAdapter(vector))).learn(16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mtl_gym.compare({"mine": reloaded(model)}, **{"instances": 1, **SETTINGS})


@pytest.mark.parametrize(
    ("trained", "message"),
    [
        ({"observe": ["progress"]}, r"`observe` should be \['progress'\], on which 'mine' was trained\. Received observe=\['gap',"),
        ({"tasks": ["objective_1", "objective_2"]}, r"`observations` should have 'gap' as Box\(0\.0, 100\.0, \(2,\).*Received"),
        ({"action": "weights"}, r"`actions` should be Box\(-1[0e+.]*6?, 1[0e+.]*6?, \(3,\).*in the training of 'mine'\. Received"),
    ],
)
def test_a_model_of_other_observations_or_actions_is_refused_before_anything_is_run(trained, message, tmp_path):
    model = model_in(gymnasium.make(LOSS_WEIGHTING, **{**SETTINGS, **trained}))
    with pytest.raises(ValueError, match=message):
        mtl_gym.compare({"mine": model}, out=tmp_path / "out", **SETTINGS)
    assert not (tmp_path / "out").exists()


def test_a_model_of_flat_observations_is_refused():
    env = gymnasium.wrappers.FlattenObservation(gymnasium.make(LOSS_WEIGHTING, **SETTINGS))
    model = PPO("MlpPolicy", env, n_steps=2, batch_size=2, device="cpu")
    with pytest.raises(
        ValueError,
        match=r"`observations` should be a Box of shape \(19,\), as in the training of 'mine'\. Received observations=Dict",
    ):
        mtl_gym.compare({"mine": model}, **SETTINGS)


# --- answers --------------------------------------------------------------------------------------------------------------

REFUSED = {
    "2 K weights": (lambda ones: np.tile(ones, 2), ValueError, r"`actions` should have the shape \(2, 3\).*need scope=\"shared\""),
    "K weights for all": (lambda ones: ones[0], ValueError, r"`actions` should have the shape \(2, 3\)\. Received actions=\(3,\)"),
    "NaN": (lambda ones: ones * np.nan, ValueError, r"`actions` should be finite and within .*See row 0"),
    "infinite": (lambda ones: ones * [[1], [np.inf]], ValueError, r"`actions` should be finite and within .*See row 1"),
    "text": (lambda ones: "abc", TypeError, r"`actions` should be an array of numbers\. Received actions='abc'"),
    "nothing": (lambda ones: None, TypeError, r"`actions` should be an array of numbers\. Received actions=None"),
    "complex": (lambda ones: ones * 1j, TypeError, r"`actions` should be an array of numbers"),
    "ragged": (lambda ones: [[1.0, 1.0, 1.0], [1.0]], TypeError, r"`actions` should be an array of numbers"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_weights_of_a_policy_are_named(name):
    change, error, message = REFUSED[name]
    with pytest.raises(error, match=f"(?s){message}.*They are those of the policy 'mine'"):
        weights_of(change)


@pytest.mark.parametrize("answer", [lambda ones: ones, lambda ones: (ones,), lambda ones: [ones, None], lambda ones: None])
def test_a_policy_returns_actions_and_a_memory(answer):
    with pytest.raises(TypeError, match=r"`predict` should return two values, actions and a memory, in the policy 'mine'"):
        compare({"mine": Answer(answer)})


ACCEPTED = {
    "float64": lambda ones: ones.astype(np.float64),
    "whole numbers": lambda ones: ones.astype(np.int64),
    "lists": lambda ones: ones.tolist(),
    "a tensor with a gradient": lambda ones: torch.tensor(ones, requires_grad=True) * 1,
    "tensors with gradients": lambda ones: [torch.tensor(own, requires_grad=True) for own in ones],
}


class Reader:
    """A policy that names no observations."""

    asked = 0

    def __init__(self, name):
        self.name = name

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        Reader.asked, self.last = Reader.asked + 1, observation
        return np.zeros_like(observation[self.name]), state


def test_an_observation_that_is_not_there_is_named_before_anything_is_trained(tmp_path):
    message = "is given, .*meta_log_loss.* Received predict='losses'. This environment also has log_loss"
    with pytest.raises(ValueError, match=message):
        mtl_gym.compare({"mine": Reader("losses")}, instances=1, out=tmp_path, **SETTINGS)
    assert not list(tmp_path.iterdir())


def test_a_rehearsal_changes_nothing_of_a_policy():
    policy, asked = Reader("slope"), Reader.asked
    plan({"mine": policy}, instances=1, **SETTINGS)
    assert Reader.asked == asked + 1
    assert not hasattr(policy, "last")


@pytest.mark.parametrize("name", ACCEPTED)
def test_any_array_of_numbers_is_an_answer(name):
    mine, equal = weights_of(ACCEPTED[name]), compare({"mine": "ew"})
    assert mine["value"].tolist() == equal["value"].tolist()


def test_answers_for_rows_that_have_ended_do_not_matter():
    envs = make_vec("quadratic", autoreset_mode="Disabled", action="weights", observe=["log_loss"])
    observations, _ = envs.reset(seed=0)
    envs.finished[1] = True
    answer = np.ones((3, 3)) * [[1], [np.nan], [2]]
    player = Player("mine", Answer(lambda ones: (answer, None)), envs)
    assert player.act(observations)[[0, 2]].tolist() == [[1, 1, 1], [2, 2, 2]]
    envs.step(player.act(observations))


def test_discrete_actions_are_whole_numbers_in_their_range():
    envs = make_vec(env_id=TASK_GROUPING, autoreset_mode="Disabled")
    observations, _ = envs.reset(seed=0)
    for wrong in (0.5, 2, -1, np.nan):
        player = Player("mine", Shown(None, None), envs)
        player.policy.predict = lambda *_, wrong=wrong, **__: (np.full(3, wrong), None)
        with pytest.raises(ValueError, match=r"`actions` should be whole numbers from 0 to 1\..*policy 'mine'"):
            player.act(observations)


# --- warnings -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_weights_that_are_never_above_zero_are_warned_of(value):
    with pytest.warns(
        RuntimeWarning, match=r"`weights` should be above 0 for some task .*the policy 'mine'.*Nothing was learned"
    ) as found:
        weights_of(lambda ones: ones * value)
    assert len(found) == 1


def test_a_task_whose_weights_are_negative_is_named():
    message = r"`weights` should be above 0 for the task 'objective_2' .*the policy 'mine'\. Received weights=\[-1\.0, -1\.0\]"
    with pytest.warns(RuntimeWarning, match=message):
        weights_of(lambda ones: ones * [1, -1, 1], train_steps=20, lr_schedule="constant")


@pytest.mark.parametrize("weights", [[1, 0, 0], [0, 0, 1e-3]])
def test_tasks_may_be_left_out(weights):
    assert not weights_of(lambda ones: ones * weights)["diverged"].any()


def test_a_weight_that_is_negative_at_times_is_no_fault():
    signs = iter([-1.0, *[1.0] * 100])
    with warnings.catch_warnings(record=True) as found:
        weights_of(lambda ones: ones * [[1, 1, next(signs)]], instances=1)
    assert not found


def test_actions_outside_the_space_are_clipped_with_a_warning():
    negative = small("digits", SAMPLE_WEIGHTING, tasks=["digit", "angle"], steps_per_action=1, train_steps=4)
    settings = {"env": SAMPLE_WEIGHTING, "instances": 2, "action": "weights", **negative}
    with pytest.warns(
        RuntimeWarning, match=r"`actions` should be within \[0, 1e\+06\]; those of the policy 'mine' are clipped"
    ) as found:
        mtl_gym.compare({"mine": Rising()}, **settings)
    assert len(found) == 1  # once, not at every step


class Rising:
    """Weights of samples from -.1 to 1."""

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        rows = len(observation["progress"])
        return np.linspace(-0.1, 1, 16 * 2)[None].repeat(rows, axis=0), state


# --- functions with a memory ----------------------------------------------------------------------------------------------


def moving():
    """A function that weights by the inverse of a moving average of the losses."""
    mean = None

    def weights(losses):
        nonlocal mean
        mean = losses if mean is None else 0.9 * mean + 0.1 * losses
        return 1 / mean

    return weights


def test_one_function_for_each_training_does_not_mix_them(tmp_path):
    frames = [
        compare({"mine": mtl_gym.policy(moving, per_training=True)}, instances=3, num_envs=count, optimizer="sgd")["value"]
        for count in (1, 2, 3)
    ]
    for frame in frames[1:]:
        np.testing.assert_allclose(frame, frames[0], rtol=1e-5)


@pytest.mark.parametrize("num_envs", [1, 3])
def test_a_function_with_a_memory_is_warned_of(num_envs):
    mine = mtl_gym.policy(moving())
    with pytest.warns(RuntimeWarning, match=r"`function` should keep no values .*policy\(make, per_training=True\)") as found:
        compare({"mine": mine}, instances=3, num_envs=num_envs)
    assert len({str(one.message) for one in found}) == 1  # of every batch, which begins with a fresh copy of the policy


@pytest.mark.slow
def test_results_of_a_factory_are_found_again(tmp_path):
    for _ in range(2):
        compare({"mine": mtl_gym.policy(moving, per_training=True)}, out=tmp_path)
    from test_evaluation import rows

    assert len(rows(tmp_path)) == 2


def test_functions_without_a_memory_are_not_warned_of():
    def make():
        rng = np.random.default_rng(0)
        return lambda losses: rng.uniform(size=3)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compare({"random": mtl_gym.policy(make, per_training=True), "torch": mtl_gym.policy(lambda x: torch.tensor(1 / x))})

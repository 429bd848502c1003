import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor, load_results
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor, VecNormalize

import mtl_gym
from mtl_gym.agents.vec_env import VectorEnvAdapter
from mtl_gym.policies.grammar import make_policy

STEPS = 120


def ours(num_envs=3, **arguments):
    given = {"problem": "quadratic", "train_steps": 40, **arguments}
    return gymnasium.make_vec("mtl_gym/LossWeighting-v0", num_envs=num_envs, vectorization_mode="vector_entry_point", **given)


def cartpoles(mode=AutoresetMode.SAME_STEP):
    """Episodes of at most 30 steps, so that some are truncated and some fall."""
    return gymnasium.make_vec(
        "CartPole-v1", num_envs=4, vectorization_mode="sync", vector_kwargs={"autoreset_mode": mode}, max_episode_steps=30
    )


def test_it_is_what_stable_baselines_makes_of_single_environments():
    def single():
        return Monitor(gymnasium.make("CartPole-v1", max_episode_steps=30))

    oracle, adapter = DummyVecEnv([single] * 4), VectorEnvAdapter(cartpoles())
    for envs in (oracle, adapter):
        envs.seed(7)
    np.testing.assert_array_equal(oracle.reset(), adapter.reset())
    rng, truncated, terminated = np.random.default_rng(0), 0, 0
    for _ in range(STEPS):
        actions = rng.integers(2, size=4)
        wanted, got = oracle.step(actions), adapter.step(actions)
        for one, other in zip(wanted[:3], got[:3], strict=True):
            np.testing.assert_array_equal(one, other)
            assert one.dtype == other.dtype
        for done, one, other in zip(wanted[2], wanted[3], got[3], strict=True):
            assert one["TimeLimit.truncated"] is other["TimeLimit.truncated"]
            truncated += one["TimeLimit.truncated"]
            terminated += bool(done) and not one["TimeLimit.truncated"]
            assert ("episode" in one) == ("episode" in other) == ("terminal_observation" in other) == done
            if done:
                np.testing.assert_array_equal(one["terminal_observation"], other["terminal_observation"])
                assert [one["episode"][key] for key in "rl"] == [other["episode"][key] for key in "rl"]
    assert truncated
    assert terminated


def test_our_own_environment_beside_its_scalar_form():
    adapter = VectorEnvAdapter(ours())
    singles = [gymnasium.make("mtl_gym/LossWeighting-v0", problem="quadratic", train_steps=40) for _ in range(3)]
    adapter.seed(3)
    adapter.reset()
    for row, single in enumerate(singles):
        single.reset(seed=3 + row)
    for step in range(4):
        actions = np.full((3, 3), 0.1 * step, dtype=np.float32)
        actions[:, 0] = -0.2
        _, rewards, dones, infos = adapter.step(actions)
        for row, single in enumerate(singles):
            observation, reward, terminated, _, info = single.step(actions[row])
            assert rewards[row] == pytest.approx(reward, abs=1e-5)
            assert dones[row] == terminated
            assert infos[row]["instance"] == info["instance"]
            if terminated:
                assert set(infos[row]["test"]) == set(info["test"])
                for name, value in observation.items():
                    np.testing.assert_allclose(infos[row]["terminal_observation"][name], value, atol=1e-4)
    assert dones.all()
    assert adapter.reset_infos[0]["instance"] != infos[0]["instance"]


def test_a_row_that_diverges_ends_alone():
    adapter = VectorEnvAdapter(ours(action="weights", optimizer="sgd", lr=1.0))
    adapter.reset()
    actions = np.full((3, 3), 1e-3, dtype=np.float32)
    actions[1] = 1e6
    _, rewards, dones, infos = adapter.step(actions)
    assert dones.tolist() == [False, True, False]
    assert infos[1]["diverged"]
    assert not infos[1]["TimeLimit.truncated"]
    assert infos[1]["episode"]["r"] == rewards[1]
    assert infos[1]["episode"]["l"] == 1
    assert "episode" not in infos[0]
    _, _, _, infos = adapter.step(np.zeros((3, 3), dtype=np.float32))
    assert not infos[1]["diverged"]


def test_an_episode_that_is_cut_is_truncated():
    adapter = VectorEnvAdapter(ours(max_episode_steps=2))
    adapter.reset()
    adapter.step(np.zeros((3, 3), dtype=np.float32))
    _, _, dones, infos = adapter.step(np.zeros((3, 3), dtype=np.float32))
    assert dones.all()
    assert all(info["TimeLimit.truncated"] for info in infos)


def test_seeds_and_options_hold_for_one_reset():
    adapter = VectorEnvAdapter(ours())
    adapter.seed(11)
    adapter.reset()
    first = [info["instance"] for info in adapter.reset_infos]
    adapter.reset()
    second = [info["instance"] for info in adapter.reset_infos]
    assert not set(first) & set(second)
    adapter.seed(12)
    adapter.reset()
    assert [info["instance"] for info in adapter.reset_infos][:2] == first[1:]
    adapter.set_options({"instance": 4})
    adapter.reset()
    assert [info["instance"] for info in adapter.reset_infos] == [4, 4, 4]
    adapter.reset()
    assert 4 not in [info["instance"] for info in adapter.reset_infos]


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED])
def test_other_ways_to_reset_are_refused(mode):
    with pytest.raises(ValueError, match="SAME_STEP"):
        VectorEnvAdapter(cartpoles(mode))


def test_what_is_no_vector_environment_is_refused():
    with pytest.raises(TypeError, match="make_vec"):
        VectorEnvAdapter(gymnasium.make("CartPole-v1"))


def test_attributes_are_of_all_rows_together():
    adapter = VectorEnvAdapter(ours(render_mode="rgb_array"))
    assert adapter.render_mode == "rgb_array"
    assert adapter.get_attr("num_envs", indices=[0, 2]) == [3, 3]
    assert adapter.has_attr("decision")
    assert not adapter.has_attr("action_masks")
    with pytest.raises(ValueError, match="`indices`"):
        adapter.set_attr("colour", 1, indices=0)
    adapter.set_attr("colour", 1)
    assert adapter.get_attr("colour") == [1, 1, 1]
    with pytest.raises(TypeError, match="`options`"):
        adapter.set_options([{}, {}, {}])
    adapter.reset()
    assert [image.shape[2] for image in adapter.get_images()] == [3, 3, 3]


class Corridor(VectorEnv):
    """N walks of six steps in which a step back is not allowed at the start, and moving on pays."""

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(self, num_envs):
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = Box(0, 6, (1,), np.float32), Discrete(2)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.forbidden = 0

    def reset(self, *, seed=None, options=None):
        self.place, self.time = np.zeros(self.num_envs, dtype=int), 0
        return self.observe(), {}

    def observe(self):
        return self.place[:, None].astype(np.float32)

    def action_masks(self):
        return np.stack([self.place > 0, np.ones(self.num_envs, dtype=bool)], axis=1)

    def step(self, actions):
        self.forbidden += int((~self.action_masks()[np.arange(self.num_envs), actions]).sum())
        self.place, self.time = self.place + 2 * np.asarray(actions) - 1, self.time + 1
        rewards, over = (2.0 * np.asarray(actions) - 1), np.full(self.num_envs, self.time == 6)
        observations, infos = self.observe(), {}
        if over.all():
            infos = {"final_obs": observations, "_final_obs": over}
            observations, _ = self.reset()
        return observations, rewards, over, np.zeros(self.num_envs, dtype=bool), infos


def test_masks_reach_maskable_ppo():
    vector = Corridor(8)
    adapter = VectorEnvAdapter(vector)
    assert is_masking_supported(adapter)
    adapter.reset()
    assert get_action_masks(adapter).shape == (8, 2)
    assert not get_action_masks(adapter)[:, 0].any()
    model = MaskablePPO("MlpPolicy", adapter, n_steps=12, batch_size=48, learning_rate=1e-2, n_epochs=10, seed=0, device="cpu")
    model.learn(8 * 12 * 6)
    assert vector.forbidden == 0
    assert np.mean([episode["r"] for episode in model.ep_info_buffer][-8:]) > 3


def test_wrappers_and_algorithms_of_stable_baselines_take_it():
    normalised = VecNormalize(VectorEnvAdapter(ours()), norm_obs_keys=["gap"])
    model = PPO("MultiInputPolicy", normalised, n_steps=4, batch_size=12, device="cpu")
    model.learn(24)
    assert len(model.ep_info_buffer) == 6


def test_vec_monitor_takes_it_without_a_warning_and_records_the_same(tmp_path):
    adapter = VectorEnvAdapter(ours())
    envs = VecMonitor(adapter, str(tmp_path / "log"))
    envs.seed(0)
    envs.reset()
    totals = np.zeros(3)
    for _ in range(4):
        _, rewards, dones, infos = envs.step(np.zeros((3, 3), dtype=np.float32))
        totals += rewards
    assert dones.all()
    envs.close()
    records = load_results(str(tmp_path))
    np.testing.assert_allclose(records["r"], totals, atol=1e-5)
    assert records["l"].tolist() == [info["episode"]["l"] for info in infos] == [4, 4, 4]


def test_the_infos_of_resets_are_handed_on():
    adapter = VectorEnvAdapter(ours())
    adapter.reset()
    assert adapter.reset_infos is adapter.unwrapped.reset_infos
    assert len({info["instance"] for info in adapter.reset_infos}) == 3


@pytest.mark.parametrize("name", ["ew", "init", "dwa"])
def test_evaluate_policy_runs_heuristics(name):
    heuristic = make_policy(name)
    arguments = {**heuristic.requires.arguments(), "reward": "val_mean"}
    returns, lengths = evaluate_policy(
        heuristic, VectorEnvAdapter(ours(**arguments)), n_eval_episodes=3, return_episode_rewards=True
    )
    assert lengths == [40, 40, 40]
    assert all(np.isfinite(returns))
    scalar = Monitor(gymnasium.make("mtl_gym/LossWeighting-v0", problem="quadratic", train_steps=40, **arguments))
    assert np.isfinite(evaluate_policy(heuristic, scalar, n_eval_episodes=1)[0])


def test_evaluate_policy_agrees_with_evaluate():
    heuristic, arguments = make_policy("init"), {"reward": "val_mean", "distribution": "varied"}
    adapter = VectorEnvAdapter(ours(1, **heuristic.requires.arguments(), **arguments))
    adapter.set_options({"instance": 5})
    own = mtl_gym.evaluate(heuristic, instances=[5], problem="quadratic", train_steps=40, **arguments)["return"]
    assert evaluate_policy(heuristic, adapter, n_eval_episodes=1)[0] == pytest.approx(own.iloc[0], abs=1e-5)

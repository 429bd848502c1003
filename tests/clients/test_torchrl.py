"""TorchRL: `GymEnv` and `GymWrapper` over both forms, and a training on what they collect."""

import gymnasium
import minari
import numpy as np
import pytest
import torch
from recipes import ENV_ID, replay, run
from tensordict.nn import NormalParamExtractor, TensorDictModule
from torch import nn
from torchrl.data import Unbounded
from torchrl.data.datasets.minari_data import MinariExperienceReplay
from torchrl.envs import CatTensors, Compose, GymEnv, GymWrapper, TransformedEnv, check_env_specs, default_info_dict_reader
from torchrl.modules import ProbabilisticActor, TanhNormal, ValueOperator
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE

import mtl_gym

SMALL = {"problem": "quadratic", "train_steps": 60}
DECISIONS = 6
IDS = [f"mtl_gym/{name}-v0" for name in ("LossWeighting", "SampleWeighting", "LayerMerging", "TaskGrouping")]
PROBLEMS = {"LayerMerging": {"problem": "digits", "num_tasks": 3}, "TaskGrouping": {"problem": "digit_tasks", "num_tasks": 3}}


def vector(mode="Disabled", num_envs=3, **arguments):
    return gymnasium.make_vec(
        ENV_ID, num_envs=num_envs, vectorization_mode="vector_entry_point", autoreset_mode=mode, **{**SMALL, **arguments}
    )


def small(env_id):
    name = env_id.partition("/")[2].removesuffix("-v0")
    return {"train_steps": 40} | PROBLEMS.get(name, {"problem": "quadratic"})


def test_the_recipe_runs(empty_folder):
    names = run("TorchRL", empty_folder)
    assert names["rollout"].shape == (DECISIONS,)
    assert names["rollouts"]["next", "done"].sum(1).flatten().tolist() == [3] * 4


@pytest.mark.parametrize("env_id", IDS)
def test_every_environment_has_the_specs_that_it_says(env_id):
    check_env_specs(GymEnv(f"mtl_gym:{env_id}", **small(env_id)))
    check_env_specs(GymWrapper(gymnasium.make(env_id, **small(env_id))))
    envs = gymnasium.make_vec(
        env_id, num_envs=2, vectorization_mode="vector_entry_point", autoreset_mode="Disabled", **small(env_id)
    )
    check_env_specs(GymWrapper(envs, categorical_action_encoding=True))


def test_a_rollout_is_a_plain_loop():
    env = GymWrapper(gymnasium.make(ENV_ID, **SMALL))
    rollout = env.rollout(100, auto_reset=False, tensordict=env.reset(options={"instance": 7}))
    rewards, last = replay(7, rollout["action"].numpy(), **SMALL)
    assert rollout["next", "reward"].flatten().numpy() == pytest.approx(rewards, abs=1e-5)
    for name, value in last.items():
        assert rollout["next", name][-1].numpy() == pytest.approx(value, abs=1e-4)


def test_rows_of_a_vector_environment_are_plain_loops():
    envs = GymWrapper(vector())
    envs.set_info_dict_reader(default_info_dict_reader(["instance"], spec=[Unbounded((3,), dtype=torch.int64)]))
    rollout = envs.rollout(3 * DECISIONS, break_when_any_done=False)
    assert rollout.shape == (3, 3 * DECISIONS)
    for row in rollout:
        assert row["next", "done"].flatten().nonzero().flatten().tolist() == [5, 11, 17]
        for episode in row.split(DECISIONS):
            instance = episode["instance"][0].item()
            rewards, last = replay(instance, episode["action"].numpy(), **SMALL)
            assert episode["next", "reward"].flatten().numpy() == pytest.approx(rewards, abs=1e-4)
            for name, value in last.items():
                assert episode["next", name][-1].numpy() == pytest.approx(value, abs=1e-3)


@pytest.mark.parametrize(("mode", "words"), [("NextStep", "NEXT_STEP"), ("SameStep", "specs")])
def test_other_modes_are_refused(mode, words):
    with pytest.raises(RuntimeError, match=words):
        GymWrapper(vector(mode))


def test_ppo_trains_on_it():
    torch.manual_seed(0)
    names = list(vector().single_observation_space)
    env = TransformedEnv(GymWrapper(vector(num_envs=4)), Compose(CatTensors(names, "observation", del_keys=False)))
    size, num_actions = env.observation_spec["observation"].shape[-1], env.action_spec.shape[-1]
    net = nn.Sequential(nn.Linear(size, 2 * num_actions), NormalParamExtractor())
    actor = ProbabilisticActor(
        TensorDictModule(net, ["observation"], ["loc", "scale"]),
        in_keys=["loc", "scale"],
        distribution_class=TanhNormal,
        distribution_kwargs={"low": -1.0, "high": 1.0},
        return_log_prob=True,
    )
    critic = ValueOperator(nn.Linear(size, 1), in_keys=["observation"])
    loss, advantage = ClipPPOLoss(actor, critic), GAE(gamma=1.0, lmbda=0.95, value_network=critic)
    optimizer = torch.optim.Adam([*net.parameters(), *critic.parameters()], lr=1e-2)
    before = [parameter.clone() for parameter in net.parameters()]
    for _ in range(3):
        with torch.no_grad():
            data = env.rollout(2 * DECISIONS, actor, break_when_any_done=False)
        advantage(data)
        found = loss(data.reshape(-1))
        total = found["loss_objective"] + found["loss_critic"] + found["loss_entropy"]
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        assert torch.isfinite(total)
    assert all((parameter != old).any() for parameter, old in zip(net.parameters(), before, strict=True))


@pytest.fixture
def datasets(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))


@pytest.mark.usefixtures("datasets")
def test_recorded_episodes_fill_a_buffer(empty_folder):
    names = run("TorchRL", empty_folder, page="offline")
    episodes, data = list(minari.load_dataset("digits/ppo-v0")), names["data"]
    assert len(names["buffer"]) == len(data) == sum(map(len, episodes)) == 8 * 3
    np.testing.assert_array_equal(data["action"], np.concatenate([own.actions for own in episodes]))
    np.testing.assert_array_equal(data["next", "observation"], np.concatenate([own.observations[1:] for own in episodes]))
    assert data["next", "done"].sum() == 8
    sample = names["buffer"].sample()
    rows = (data["observation"][None] == sample["observation"][:, None]).all(-1)
    assert rows.any(1).all()


@pytest.mark.usefixtures("datasets")
def test_the_reader_of_torchrl_still_returns_nothing_but_zeros(tmp_path):
    """torchrl 0.14.1 maps new files over what it has read. When this fails, docs/offline.md may use its reader."""
    mtl_gym.record("ew", dataset="tests/ew-v0", instances=2, flat=True, **SMALL)
    read = MinariExperienceReplay("tests/ew-v0", 1, root=tmp_path, download=False, load_from_local_minari=True)[:]
    assert read["action"].shape == (2 * SMALL["train_steps"], 3)
    assert (read["action"] == 0).all()

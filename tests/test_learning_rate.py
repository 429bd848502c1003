"""A fifth environment, in one file outside the packages, found through an entry point: nothing else is changed for it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import gymnasium
import learning_rate
import learning_rate_steps
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from rollouts import differing, play, random_actions, same
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import mtl_gym
from mtl_gym import agents

ROOT = Path(mtl_gym.__file__).parents[1]
ID, STEPS = "acme/LearningRate-v0", "acme/RateSteps-v0"
SMALL = {"train_steps": 20, "hidden_sizes": [8], "batch_size": 16, "holdout_size": 16}
SETTINGS = [f"--set={name}={json.dumps(value)}" for name, value in SMALL.items()]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder like site-packages, in which another package is installed: its one file, and its entry points."""
    folder = tmp_path_factory.mktemp("site")
    for module in (learning_rate, learning_rate_steps):
        shutil.copy(module.__file__, folder)
    info = folder / "acme-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    environments = f"[mtl_gym.environments]\n{ID} = learning_rate:LearningRateEnv\n{STEPS} = learning_rate_steps:RateStepsEnv\n"
    (info / "entry_points.txt").write_text(f"{environments}[mtl_gym.policies]\nacme = learning_rate:POLICIES\n")
    return folder


@pytest.fixture
def installed(site, monkeypatch):
    """The package is installed for this process."""
    monkeypatch.syspath_prepend(site)


def make(id=ID, **others):
    return gymnasium.make(id, disable_env_checker=True, **SMALL, **others)


def make_vec(id=ID, num_envs=3, **others):
    return gymnasium.make_vec(id, num_envs=num_envs, vectorization_mode="vector_entry_point", **SMALL, **others)


def run(site, *arguments, cwd):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(site), str(ROOT)]), "OMP_NUM_THREADS": "1"}
    answer = subprocess.run([sys.executable, *arguments], env=environment, cwd=cwd, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def command(site, words, cwd):
    """The output of a command of ``mtl-gym`` on two small instances."""
    return run(site, "-m", "mtl_gym", *words.split(), "--instances", "2", *SETTINGS, cwd=cwd)


class TestEnvironment:
    def test_both_checkers_accept_it(self):
        env = make(render_mode="rgb_array").unwrapped
        check_env(env)
        sb3_check_env(env)

    def test_each_row_has_a_learning_rate_of_its_own(self):
        envs = make_vec(lr=0.01)
        envs.reset(options={"instance": 0})
        _, _, _, _, infos = envs.step(np.array([[1.0], [0.0], [-1.0]]))
        assert infos["rate"].tolist() == [0.02, 0.01, 0.005]
        weights = envs.unwrapped.decision.trainer.replicas.flat
        assert not (weights[0] == weights[1]).all()

    def test_no_change_is_a_training_without_decisions(self):
        results = []
        for env, action in ((make_vec(num_envs=1), [[0.0]]), (make_vec(mtl_gym.LOSS_WEIGHTING, 1), np.zeros((1, 5)))):
            env.reset(options={"instance": 3})
            env.step(action)
            results.append(env.step(action)[4]["final_info"]["test"])
        assert not differing(*results)


@pytest.mark.parametrize("id", [ID, STEPS])
class TestContract:
    """The contract of every environment; ``test_envs.py`` and ``test_decisions.py`` test ours."""

    @pytest.mark.parametrize("maker", [make, make_vec])
    def test_replaying_a_seed_is_bitwise(self, id, maker):
        envs = [maker(id, distribution="varied") for _ in range(2)]
        actions = random_actions(envs[0].action_space, 2)
        first, second = (play(env, actions, seed=5) for env in envs)
        assert same(first, second)
        assert same(first, play(envs[0], actions, seed=5))

    @pytest.mark.parametrize("maker", [make, make_vec])
    def test_a_restored_environment_continues_bitwise(self, id, maker):
        env = maker(id, distribution="varied", steps_per_action=5)
        actions = random_actions(env.action_space, 4)
        play(env, actions[:2], seed=1)
        kept = env.unwrapped.state()
        first = [env.step(action) for action in actions[2:]]
        env.unwrapped.restore(kept)
        assert not differing(first, [env.step(action) for action in actions[2:]])

    def test_the_scalar_form_equals_the_vectors_row(self, id):
        vector = make_vec(id, num_envs=2)
        actions = random_actions(vector.action_space, 2)
        rows = play(vector, actions, seed=11)
        for row in range(2):
            answers = play(make(id), [action[row] for action in actions], seed=11 + row)
            assert answers[0][1]["instance"] == rows[0][1]["instance"][row]
            for own, other in zip(answers[:2], rows[:2], strict=True):
                for name, values in own[0].items():
                    np.testing.assert_allclose(values, other[0][name][row], rtol=1e-4, atol=1e-4)
            for own, other in zip(answers[1:], rows[1:], strict=True):
                assert own[1] == pytest.approx(other[1][row], rel=1e-4, abs=1e-5)


@pytest.mark.slow
def test_gymnasium_makes_it_by_its_module(site, tmp_path):
    code = f"import gymnasium; env = gymnasium.make('learning_rate:{ID}', train_steps=20); print(env.reset(seed=0)[1]['rate'])"
    assert float(run(site, "-c", code, cwd=tmp_path)) == 0.003


@pytest.mark.slow
def test_it_is_listed(site, tmp_path):
    assert "acme/LearningRate-v0" in run(site, "-m", "mtl_gym", "list", "environments", cwd=tmp_path)


@pytest.mark.slow
def test_compare_plays_policies_on_it_and_the_page_shows_its_column_and_figure(site, tmp_path):
    assert "warm-up" in command(site, f"compare --env {ID} --policies flat,warm-up,random-rates,lowest --out out", tmp_path)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "last rate over the first" in page
    assert ">Learning rates</h2>" in page
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["policies"]["warm-up"]["factor"]["mean"] == pytest.approx(1)
    assert summary["policies"]["flat"]["factor"]["mean"] == 1
    assert summary["policies"]["lowest"]["factor"]["mean"] == 0.25
    assert 0.25 < summary["policies"]["random-rates"]["factor"]["mean"] < 4


@pytest.mark.usefixtures("installed")
def test_a_function_and_a_random_policy_play_it():
    factors = mtl_gym.compare(["lowest", "random-rates", "flat"], ID, instances=2, **SMALL).groupby("policy")["factor"].mean()
    assert (factors["lowest"], factors["flat"]) == (0.25, 1)  # two decisions
    assert 0.25 < factors["random-rates"] < 4


def test_a_size_beyond_the_memory_is_refused():
    with pytest.raises(ValueError, match=r"`num_envs` should be smaller: .* GB of memory would be taken"):
        make_vec(num_envs=10**6)


@pytest.mark.usefixtures("installed")
def test_a_function_of_losses_belongs_to_another_environment():
    with pytest.raises(ValueError, match="LossWeighting"):
        mtl_gym.compare({"mine": mtl_gym.policy(lambda losses: 1 / losses)}, ID, instances=1, **SMALL)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("algorithm", [None, "dqn"])
def test_an_agent_is_trained_on_numbered_actions_with_the_generic_policy(algorithm, tmp_path):
    options = {"options": {"learning_starts": 2}} if algorithm else {}
    settings = {"env": STEPS, "num_envs": 2, "evaluations": 1, "instances": 1, **SMALL}
    agent = agents.train(out=tmp_path, algorithm=algorithm, time_steps=8, **settings, **options)
    assert agent.about["algorithm"] == (algorithm or "ppo")
    assert agent.spec == agents.load(tmp_path).spec
    frame = mtl_gym.evaluate(agents.load(tmp_path), STEPS, instances=2, **SMALL)
    assert set(np.log2(frame["factor"])) <= {-2, -1, 0, 1, 2}


@pytest.mark.slow
def test_train_trains_an_agent_on_it(site, tmp_path):
    trained = command(site, f"train --env {ID} --time-steps 16 --num-envs 4 --evaluations 1 --out mine", tmp_path)
    assert "best agent" in trained
    assert "mine" in command(site, f"compare --env {ID} --policies flat,./mine --out out", tmp_path)

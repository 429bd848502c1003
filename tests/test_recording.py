"""Recorded episodes, as arrays; tests/clients/test_minari.py reads them back from data sets."""

import importlib.util

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import flatten
from rollouts import IDS, small
from typer.testing import CliRunner

import mtl_gym
from mtl_gym.cli import app
from mtl_gym.environments import LAYER_MERGING, LOSS_WEIGHTING, SAMPLE_WEIGHTING, TASK_GROUPING
from mtl_gym.evaluation.minari_files import flattened
from mtl_gym.evaluation.recording import episodes
from mtl_gym.evaluation.recording_plans import plan_recording
from mtl_gym.problems.instances import TRAINING_IDS

POLICIES = {LOSS_WEIGHTING: "ew,igb", SAMPLE_WEIGHTING: "uniform", LAYER_MERGING: "random-merge", TASK_GROUPING: "random-groups"}
QUICK = {"problem": "quadratic", "train_steps": 8, "batch_size": 16, "holdout_size": 16}


def arguments_of(env_id):
    excluded = {"steps_per_action"} if env_id in (LOSS_WEIGHTING, SAMPLE_WEIGHTING) else set()
    return {name: value for name, value in small(env_id=env_id).items() if name not in excluded}


def recorded(policies="ew", env=LOSS_WEIGHTING, *, instances=3, num_envs=2, noise=0.0, seed=0, **arguments):
    plan = plan_recording(policies, env, instances=instances, seed=seed, num_envs=num_envs, noise=noise, **(arguments or QUICK))
    return plan, [own for batch in episodes(plan) for own in batch]


def same(one, other, close):
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            same(one[name], other[name], close)
    else:
        assert one.dtype == other.dtype
        close(one, other)


def replayed(env, episode):
    """The observations, rewards, ends and infos of a plain loop that takes the same actions."""
    observation, info = env.reset(options={"instance": episode.instance})
    observations, infos, steps = [observation], [info], []
    for action in episode.actions:
        assert not steps or not (steps[-1][1] or steps[-1][2])
        observation, *step, info = env.step(action)
        observations.append(observation)
        infos.append(info)
        steps.append(step)
    return observations, [list(own) for own in zip(*steps, strict=True)], infos


def entry(values, step):
    return {name: entry(own, step) if isinstance(own, dict) else own[step].item() for name, own in values.items()}


def close_numbers(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        close_numbers(value, other[name]) if isinstance(value, dict) else np.testing.assert_allclose(value, other[name], atol=1e-4)


@pytest.mark.parametrize("noise", [0.0, 0.3])
@pytest.mark.parametrize("env_id", IDS)
def test_episodes_are_plain_loops(env_id, noise):
    plan, found = recorded(POLICIES[env_id], env_id, noise=noise, **arguments_of(env_id))
    assert [(own.policy, own.instance) for own in found] == [(label, id) for label in plan.policies for id in plan.ids]
    env = plan.make()
    for episode in found:
        observations, (rewards, terminated, truncated), infos = replayed(env, episode)
        assert env.action_space.contains(episode.actions[0])
        assert episode.actions.dtype == env.action_space.dtype
        np.testing.assert_allclose(episode.rewards, rewards, rtol=1e-3, atol=1e-4)
        assert episode.terminations.tolist() == terminated == [False] * (len(episode) - 1) + [True]
        assert episode.truncations.tolist() == truncated
        for step, (observation, info) in enumerate(zip(observations, infos, strict=True)):
            assert env.observation_space.contains({name: own[step] for name, own in episode.observations.items()})
            for name, value in observation.items():
                np.testing.assert_allclose(episode.observations[name][step], value, rtol=1e-3, atol=1e-3)
            close_numbers(entry(episode.infos, step), info)


def test_the_same_recording_twice_is_the_same_bit_for_bit():
    (_, first), (_, second) = (recorded("ew,rlw", noise=0.1, instances=4, num_envs=3) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        same(
            vars(one) | {"policy": {}, "instance": {}}, vars(other) | {"policy": {}, "instance": {}}, np.testing.assert_array_equal
        )


def test_noise_does_not_depend_on_what_runs_beside_it():
    (_, wide), (_, narrow) = (recorded("ew", noise=0.1, num_envs=own) for own in (3, 1))
    for one, other in zip(wide, narrow, strict=True):
        np.testing.assert_array_equal(one.actions, other.actions)  # equal weights, whatever is observed
    assert not np.array_equal(wide[0].actions, wide[1].actions)


def test_noise_has_the_deviation_that_was_asked_for_and_no_action_is_invalid():
    _, found = recorded("ew", noise=0.1, instances=20, num_envs=20)
    actions = np.stack([own.actions for own in found])
    assert actions.std() == pytest.approx(0.1, rel=0.1)
    assert actions.mean() == pytest.approx(1, abs=0.02)
    _, found = recorded("random-merge", LAYER_MERGING, noise=1.0, instances=8, num_envs=8, **arguments_of(LAYER_MERGING))
    taken = np.concatenate([own.actions for own in found])
    assert len(set(taken.tolist())) > 1
    assert not np.concatenate([own.infos["invalid_action"] for own in found]).any()


def test_a_batch_is_in_memory_at_once_and_every_step_is_counted():
    plan, steps = plan_recording("ew,si", LOSS_WEIGHTING, instances=5, seed=0, num_envs=2, noise=0.0, **QUICK), []
    sizes = [len(batch) for batch in episodes(plan, lambda label, done: steps.append((label, done)))]
    assert sizes == [2, 2, 1] * 2
    assert sum(done for _, done in steps) == plan.steps == 2 * 5 * 8
    assert {label for label, _ in steps} == {"ew", "si"}


def test_instances_are_for_training_unless_they_are_named():
    plan, _ = recorded(instances=2, seed=3)
    assert plan.ids == [TRAINING_IDS[0] + 30_000, TRAINING_IDS[0] + 30_001]
    plan, found = recorded(instances=[7, 5])
    assert [own.instance for own in found] == plan.ids == [7, 5]


class Curious:
    """Notes what it sees, and answers with equal weights."""

    def __init__(self, *observe):
        self.requires = mtl_gym.Requirements(observe=observe or None, action="weights", steps_per_action=1)
        self.seen = set()

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        self.seen.add(tuple(observation))
        return np.ones((len(next(iter(observation.values()))), 3), np.float32), state


def test_a_data_set_has_what_any_policy_observes_and_each_sees_its_own():
    first, second, third = Curious("epoch"), Curious("log_loss", "lr"), Curious()
    policies = {"a": first, "b": second, "c": third}
    plan, found = recorded(policies, observe=["progress"], **QUICK)
    assert plan.arguments["observe"] == ["progress", "epoch", "log_loss", "lr"]
    assert (first.seen, second.seen, third.seen) == ({("epoch",)}, {("log_loss", "lr")}, {("progress",)})
    assert all(set(own.observations) == set(plan.arguments["observe"]) for own in found)
    plan, _ = recorded({"a": first, "c": third})
    assert set(plan.observed["c"]) == set(mtl_gym.specification(LOSS_WEIGHTING).observe)


def test_a_policy_trained_on_a_space_is_given_that_space():
    one, own = Curious("epoch"), gymnasium.make(LOSS_WEIGHTING, observe=["epoch"], steps_per_action=1, **QUICK).observation_space
    one.observation_space = own
    recorded({"one": one, "igb": "igb"})
    assert one.seen == {("epoch",)}
    one.observation_space = gymnasium.spaces.Dict({"lr": own["epoch"]})
    with pytest.raises(ValueError, match=r"`observe` should be \['lr'\]"):
        recorded({"one": one, "igb": "igb"})


def test_an_episode_that_diverges_ends_early():
    _, found = recorded("ew", problem="quadratic", train_steps=200, lr=1e4, optimizer="sgd", lr_schedule="constant")
    for own in found:
        assert len(own) < 200
        assert own.infos["diverged"].tolist() == [False] * len(own) + [True]
        assert own.terminations.tolist() == [False] * (len(own) - 1) + [True]
        assert all(len(values) == len(own) + 1 for values in own.observations.values())
    assert all(np.isfinite(own.rewards).all() for own in found)


def test_a_recording_says_how_it_was_made_and_what_a_policy_needs():
    plan, _ = recorded("ppo", problem="quadratic", train_steps=40, noise=0.1)
    agent = mtl_gym.names_and_policies("ppo", LOSS_WEIGHTING)["ppo"]
    assert plan.about["requires"].items() >= mtl_gym.plain(agent.requires.arguments()).items()
    assert plan.about["policies"] == {"ppo": mtl_gym.plain(agent.spec)}
    assert (plan.about["noise"], plan.about["problem"]) == (0.1, "quadratic")
    assert plan.make().spec.kwargs["problem"] == "quadratic"
    assert "ppo" in plan.description


def test_flat_observations_are_those_of_gymnasium():
    plan, found = recorded("igb")
    space = plan.make().observation_space
    flat = flattened(found[0].observations)
    for step, row in enumerate(flat):
        np.testing.assert_array_equal(row, flatten(space, {name: own[step] for name, own in found[0].observations.items()}))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"policies": "ew,ppo"}, "'ew' needs action='weights', 'ppo' action='residual'"),
        ({"policies": "ew,cagrad"}, "Record each into a data set of its own"),
        ({"policies": "ew", "steps_per_action": 4}, "`steps_per_action` should be 1, which ew requires"),
        ({"policies": "shared"}, "`env` should be"),
        ({"noise": -1.0}, "`noise` should be"),
        ({"env": LAYER_MERGING, "policies": "random-merge", "noise": 1.5, "problem": "digits"}, "`noise` should be at most 1"),
        ({"instances": 0}, "`instances` should be"),
        ({"seed": -1}, "`seed` should be"),
        ({"num_envs": 0}, "`num_envs` should be"),
        ({"observe": ["nothing"]}, "`observe` should be one of"),
    ],
)
def test_what_cannot_be_recorded_is_refused(given, words):
    common = {
        "policies": "ew",
        "env": LOSS_WEIGHTING,
        "instances": 2,
        "seed": 0,
        "num_envs": 2,
        "noise": 0.0,
        "problem": "quadratic",
    }
    with pytest.raises(ValueError, match=words.replace("[", r"\[")):
        plan_recording(**{**common, **given})


def test_a_problem_that_cannot_be_found_again_is_refused():
    known = mtl_gym.load_problem("quadratic")
    problem = mtl_gym.Problem("mine", known.tasks, known.splits)
    with pytest.raises(TypeError, match="`problem` should be one that can be found again"):
        plan_recording("ew", LOSS_WEIGHTING, instances=1, seed=0, num_envs=1, noise=0.0, problem=problem)


@pytest.mark.parametrize("missing", ["minari", "h5py"])
def test_a_missing_package_is_named_with_its_extra(missing, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else find("numpy"))
    words = f'`record` needs the package {missing!r}, which is not installed. Install it with: pip install "mtl-gym[minari]"'
    with pytest.raises(ModuleNotFoundError) as caught:
        mtl_gym.record("no policy", dataset="no id")
    assert str(caught.value) == words
    answer = CliRunner().invoke(app, ["record", "--policies", "ew", "--dataset", "some/id-v0"])
    assert answer.exit_code == 2
    assert words in " ".join(answer.stderr.split())

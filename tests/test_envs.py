import copy
import inspect
import json
import pickle
import warnings

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import FlattenObservation, TimeLimit
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from packaging.version import Version
from rollouts import (
    IDS,
    LAYER_MERGING,
    LOSS_WEIGHTING,
    SAMPLE_WEIGHTING,
    TASK_GROUPING,
    blind,
    differing,
    extreme_actions,
    flat,
    make,
    make_vec,
    play,
    poison,
    random_actions,
    rows_of,
    same,
    slow_unless,
    small,
)
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env as check_env_of_sb3

from mtl_gym.decisions.grouping.modes import GROUPINGS
from mtl_gym.decisions.merging.structures import MERGE_ACTIONS
from mtl_gym.decisions.sample_rules import SAMPLE_ACTIONS
from mtl_gym.decisions.task_rules import ACTIONS, RULES
from mtl_gym.environments import find_environments, specification
from mtl_gym.envs.arguments import argument_names, supported_problems
from mtl_gym.envs.loss_weighting import LossWeightingVectorEnv
from mtl_gym.envs.task_grouping import TaskGroupingVectorEnv
from mtl_gym.envs.vector import MTLVectorEnv
from mtl_gym.problems import PROBLEMS, load_problem
from mtl_gym.problems.axes import DISTRIBUTIONS
from mtl_gym.problems.instances import EVALUATION_IDS, TRAINING_IDS
from mtl_gym.training.measurements import last_batch, qualities

ENVIRONMENTS = sorted(IDS)
PAIRS = [(env_id, name) for name in PROBLEMS for env_id in IDS if name in supported_problems(specification(env_id))]
DEAR = {(LOSS_WEIGHTING, "stereo"), (SAMPLE_WEIGHTING, "multimnist"), (TASK_GROUPING, "digit_tasks")}
"""Dear problems that are of another kind than the small ones; the others are slow tests."""
EACH_PAIR = slow_unless(lambda pair: pair[1] in ("yeast", "quadratic") or pair in DEAR, PAIRS)
EACH_SMALL_PAIR = slow_unless(lambda pair: pair[1] in ("yeast", "quadratic"), PAIRS)
OBSERVED = {env_id: list(specification(env_id).observations) for env_id in ENVIRONMENTS}
OBSERVATIONS = OBSERVED[LOSS_WEIGHTING]
SEEN = [(env_id, name) for env_id in ENVIRONMENTS for name in OBSERVED[env_id]]
PAID = [(env_id, name) for env_id in ENVIRONMENTS for name in specification(env_id).rewards]
MODES = [
    *((LOSS_WEIGHTING, {"action": action}) for action in ACTIONS),
    *(
        (SAMPLE_WEIGHTING, {"action": action} | ({"steps_per_action": 1} if action == "weights" else {}))
        for action in SAMPLE_ACTIONS
    ),
    *((LAYER_MERGING, {"action": action}) for action in MERGE_ACTIONS),
    *((TASK_GROUPING, {"action": action}) for action in GROUPINGS),
]
QUICK = ("digits", "yeast", "quadratic")
SMALLEST = {LOSS_WEIGHTING: "quadratic", SAMPLE_WEIGHTING: "quadratic", LAYER_MERGING: "yeast", TASK_GROUPING: "yeast"}
SAME_STEP, NEXT_STEP, DISABLED = "SameStep", "NextStep", "Disabled"
MANY = 12
"""Of problems with as many tasks or more, four take part: the tests stay short."""


def pair(env_id, problem):
    """What is given to an environment and a problem that it supports: its name, and which tasks take part where not all can."""
    tasks = load_problem(problem).tasks
    if env_id == TASK_GROUPING and not all(task.classifies for task in tasks) and any(task.classifies for task in tasks):
        return {"tasks": [task.name for task in tasks if task.classifies]}
    if len(tasks) < MANY or env_id == TASK_GROUPING:
        return {}
    # A reference is trained for each task that may take part, and LayerMerging's reward needs them.
    return {"tasks": [task.name for task in tasks[:4]]} if env_id == LAYER_MERGING else {"num_tasks": 4}


def trainings(env):
    """What the environment's decision acts on."""
    own = env.unwrapped
    return getattr(own, "vector", own).decision.trainings


def spoil(env, row, value):
    """Puts a value in place of what a row has learned."""
    if env.specification.id != TASK_GROUPING:
        return poison(trainings(env), row, value)
    state = trainings(env).clone()
    state["results"][row] = torch.nan
    return trainings(env).load(state)


def telling_actions(env, decisions):
    """Random actions; where tasks are placed, each beside the one before the last."""
    if isinstance(env, TaskGroupingVectorEnv) and env.single_action_space.shape == ():
        return [np.full(env.num_envs, decision % 2) for decision in range(decisions)]
    return random_actions(env.action_space, decisions)


def conforms(env, answer):
    """Asserts what every answer of a vector environment promises; returns it."""
    observations, infos = answer[0], answer[-1]
    assert observations in env.observation_space
    assert all(values.dtype == np.float32 and np.isfinite(values).all() for values in observations.values())
    if len(answer) == 5:
        rewards, terminated, truncated = answer[1:4]
        assert rewards.dtype == np.float64
        assert np.isfinite(rewards).all()
        assert terminated.dtype == truncated.dtype == np.bool_
        assert rewards.shape == terminated.shape == truncated.shape == (env.num_envs,)
    for name in infos:
        assert name.startswith("_") or infos[f"_{name}"].shape == (env.num_envs,)
    return answer


# --- the checkers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("checker", [check_env, check_env_of_sb3], ids=["gymnasium", "sb3"])
@pytest.mark.parametrize(("env_id", "problem"), EACH_SMALL_PAIR)
def test_the_checkers_pass_without_warnings(env_id, problem, checker):
    checker(make(problem, env_id, **pair(env_id, problem)).unwrapped, skip_render_check=True)


@pytest.mark.parametrize("checker", [check_env, check_env_of_sb3], ids=["gymnasium", "sb3"])
@pytest.mark.parametrize("env_id", ENVIRONMENTS)
def test_the_checkers_pass_with_rendering_and_default_problem(env_id, checker):
    settings = {name: value for name, value in small(env_id=env_id).items() if name not in ("problem", "hidden_sizes")}
    checker(gymnasium.make(env_id, disable_env_checker=True, render_mode="rgb_array", **settings).unwrapped)


@pytest.mark.parametrize("checker", [check_env, check_env_of_sb3], ids=["gymnasium", "sb3"])
@pytest.mark.parametrize(("env_id", "mode"), MODES)
def test_the_checkers_warn_at_most_of_the_box_of_weights(env_id, mode, checker):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        checker(make(SMALLEST[env_id], env_id, **mode).unwrapped, skip_render_check=True)
    messages = [str(warning.message) for warning in caught]
    assert all("symmetric and normalized" in message for message in messages)
    assert mode["action"] == "weights" or not messages


# --- the vector contract ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("actions", [random_actions, extreme_actions], ids=["random", "extreme"])
@pytest.mark.parametrize(("env_id", "problem"), EACH_PAIR)
def test_whole_episodes_conform(env_id, problem, actions):
    env = make_vec(problem, env_id=env_id, num_envs=2, train_steps=4, steps_per_action=2, **pair(env_id, problem))
    for answer in play(env, actions(env.action_space, 5)):
        conforms(env, answer)


@pytest.mark.parametrize("mode", [SAME_STEP, NEXT_STEP, DISABLED])
@pytest.mark.parametrize(("env_id", "action"), MODES)
@pytest.mark.parametrize(
    "actions", [random_actions, pytest.param(extreme_actions, marks=pytest.mark.slow)], ids=["random", "extreme"]
)
def test_whole_episodes_conform_in_every_mode(env_id, action, actions, mode):
    env = make_vec(SMALLEST[env_id], env_id=env_id, **action, autoreset_mode=mode, optimizer="sgd")
    for answer in play(env, actions(env.action_space, 6)):
        conforms(env, answer)


@pytest.mark.parametrize(
    ("env_id", "reward", "problem"),
    slow_unless(
        lambda row: row[2] == SMALLEST[row[0]], [(*pair, name) for pair in PAID for name in QUICK if (pair[0], name) in PAIRS]
    ),
)
def test_each_reward_works_by_itself(env_id, reward, problem):
    of_main = {"main_task": "angle"} if env_id == SAMPLE_WEIGHTING and problem == "digits" else {}  # no step function
    env = make_vec(problem, env_id=env_id, num_envs=2, reward=reward, train_steps=4, steps_per_action=2, **of_main)
    returns = sum(conforms(env, answer)[1] for answer in play(env, telling_actions(env, 2))[1:])
    assert (returns != 0).all() == (reward != "none")


@pytest.mark.parametrize(
    ("env_id", "name", "problem"),
    slow_unless(
        lambda row: row[2] == SMALLEST[row[0]], [(*pair, name) for pair in SEEN for name in QUICK if (pair[0], name) in PAIRS]
    ),
)
def test_each_observation_works_by_itself(env_id, name, problem):
    env = make_vec(
        problem, env_id=env_id, num_envs=2, observe=[name], reward="none", train_steps=4, steps_per_action=2, num_tasks=3
    )
    answers = [conforms(env, answer) for answer in play(env, random_actions(env.action_space, 3))]
    assert list(answers[0][0]) == [name]


@pytest.mark.parametrize("num_tasks", [1, 2])
def test_every_observation_and_reward_works_with_few_tasks(num_tasks):
    for env_id, reward in [pair for pair in PAID if num_tasks > 1 or pair[0] not in (LAYER_MERGING, TASK_GROUPING)]:
        env = make_vec(
            env_id=env_id, observe=OBSERVED[env_id], reward=reward, num_tasks=num_tasks, train_steps=4, steps_per_action=2
        )
        for answer in play(env, random_actions(env.action_space, 3)):
            conforms(env, answer)


@pytest.mark.parametrize(
    ("env_id", "name"),
    slow_unless(
        lambda pair: pair[0] == LOSS_WEIGHTING or pair[1] not in OBSERVATIONS,
        [pair for pair in SEEN if pair[0] != LAYER_MERGING and pair[1] != "layer_cka"],
    ),
)
def test_each_observation_works_without_hidden_layers(env_id, name):
    env = make_vec(env_id=env_id, observe=[name], hidden_sizes=[])
    for answer in play(env, random_actions(env.action_space, 2)):
        conforms(env, answer)


@pytest.mark.parametrize("env_id", ENVIRONMENTS)
def test_answers_are_fresh_arrays(env_id):
    env = make_vec(env_id=env_id)
    first = play(env, random_actions(env.action_space, 1))
    kept = copy.deepcopy(first)
    for values in env.step(random_actions(env.action_space, 1)[0])[0].values():
        values[:] = 0
    assert same(first, kept)


@pytest.mark.parametrize("env_id", ENVIRONMENTS)
def test_writing_into_an_answer_does_not_reach_the_environment(env_id):
    env, twin = make_vec(env_id=env_id), make_vec(env_id=env_id)
    actions = random_actions(env.action_space, 2)
    twin_answers = play(twin, actions)
    for values in env.reset(seed=0)[0].values():
        values[:] = 9
    answer = env.step(actions[0])
    for leaf in [*answer[0].values(), *answer[1:4]]:
        leaf[:] = 0
    answer[-1]["instance"][:] = 0
    assert same(env.step(actions[1]), twin_answers[-1])


# --- episodes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("env_id", ENVIRONMENTS)
def test_an_episode_terminates_after_its_train_steps(env_id):
    env = make_vec(env_id=env_id, autoreset_mode=DISABLED)
    answers = play(env, random_actions(env.action_space, 2))
    assert [answer[2].tolist() for answer in answers[1:]] == [[False] * 3, [True] * 3]
    assert not any(answer[3].any() for answer in answers[1:])
    assert trainings(env).ledger.step.tolist() == [8] * 3


@pytest.mark.parametrize("env_id", ENVIRONMENTS)
def test_the_test_metrics_are_known_in_the_last_info_alone(env_id):
    env = make_vec(env_id=env_id, autoreset_mode=DISABLED)
    answers = play(env, random_actions(env.action_space, 2))
    tests = [{name: values for name, values in answer[-1]["test"].items() if not name.startswith("_")} for answer in answers]
    names = {f"{task.name}/{metric}" for task in env.arguments.problem.tasks for metric in task.metrics}
    assert all(set(test) == names for test in tests)
    assert all((values == -1).all() for test in tests[:-1] for values in test.values())
    for row in range(3):
        own = set(trainings(env).ledger.metric_names(row))
        assert {name for name, values in tests[-1].items() if values[row] != -1} == own


def structure(infos):
    """The keys of infos, with those within, and the shape and type of each value."""
    return {path: (leaf.shape, leaf.dtype) for path, leaf in flat(infos).items()}


def plain(infos):
    """Infos without what Gymnasium adds to them where an episode has ended."""
    return {name: values for name, values in infos.items() if name.lstrip("_") not in ("final_obs", "final_info")}


@pytest.mark.parametrize("mode", [SAME_STEP, NEXT_STEP, DISABLED])
@pytest.mark.parametrize("env_id", ENVIRONMENTS)
def test_infos_have_one_structure_throughout(env_id, mode):
    env = make_vec(env_id=env_id, autoreset_mode=mode, distribution="varied")
    answers = play(env, random_actions(env.action_space, 6))
    assert any(answer[2].any() for answer in answers[1:])
    infos = [answer[-1] for answer in answers]
    infos += [own["final_info"] for own in infos if "final_info" in own]
    infos.append(env.reset(options={"reset_mask": np.array([False, True, False])})[1])
    assert all(structure(plain(own)) == structure(infos[0]) for own in infos[1:])
    assert all(("final_info" in answer[-1]) == (mode == SAME_STEP and answer[2].any()) for answer in answers[1:])


@pytest.mark.parametrize(("env_id", "mode"), MODES)
def test_infos_of_the_scalar_form_have_one_structure_throughout(env_id, mode):
    env = make(SMALLEST[env_id], env_id, **mode)
    answers = play(env, random_actions(env.action_space, 1))
    while not answers[-1][2]:
        answers.append(env.step(random_actions(env.action_space, 1)[0]))
    answers.append(env.reset())
    assert len({str(structure(answer[-1])) for answer in answers}) == 1


@pytest.mark.parametrize("maker", [make, make_vec])
@pytest.mark.parametrize(("env_id", "mode"), MODES)
def test_no_key_stands_in_both_observation_and_info(env_id, mode, maker):
    unsuited = specification(env_id).unsuited({**specification(env_id).own_arguments, **mode})
    seen = [name for name in OBSERVED[env_id] if name not in unsuited]
    env = maker(SMALLEST[env_id], env_id=env_id, observe=seen, num_tasks=3, **mode)
    answers = play(env, random_actions(env.action_space, 1))
    assert set(answers[-1][0]) == set(seen)
    assert not any(set(answer[0]) & {name.lstrip("_") for name in answer[-1]} for answer in answers)


def test_same_step_hands_over_the_last_observation_and_info():
    env, disabled = make_vec(), make_vec(autoreset_mode=DISABLED)
    actions = random_actions(env.action_space, 2)
    ended, last = play(env, actions)[-1], play(disabled, actions)[-1]
    infos = ended[-1]
    assert ended[2].all()
    assert infos["_final_obs"].all()
    assert infos["_final_info"].all()
    for row in range(3):
        assert same(infos["final_obs"][row], {name: values[row] for name, values in last[0].items()})
    assert same(infos["final_info"], last[-1])
    assert all((values == -1).all() for name, values in infos["test"].items() if not name.startswith("_"))
    assert ended[0]["progress"].tolist() == [[0.0]] * 3


@pytest.mark.parametrize("env_id", ENVIRONMENTS)
def test_an_autoreset_draws_new_training_ids(env_id):
    env = make_vec(env_id=env_id, num_envs=4)
    answers = play(env, random_actions(env.action_space, 4))
    ids = np.concatenate([answers[0][-1]["instance"], answers[2][-1]["instance"], answers[4][-1]["instance"]])
    assert len(set(ids.tolist())) == 12
    assert ((ids >= TRAINING_IDS[0]) & (ids < TRAINING_IDS[1])).all()


@pytest.mark.parametrize("env_id", ENVIRONMENTS)
def test_an_autoreset_equals_a_reset_to_that_instance(env_id):
    env = make_vec(env_id=env_id)
    last = play(env, random_actions(env.action_space, 2))[-1]
    fresh = make_vec(env_id=env_id)
    observations, _ = fresh.reset(options={"instance": last[-1]["instance"]})
    assert same(last[0], observations)


@pytest.mark.parametrize("env_id", ENVIRONMENTS)
def test_next_step_restarts_with_the_next_action(env_id):
    env = make_vec(env_id=env_id, autoreset_mode=NEXT_STEP)
    answers = play(env, random_actions(env.action_space, 4))
    assert answers[2][2].all()
    assert answers[2][0]["progress"].tolist() == [[1.0]] * 3
    assert answers[3][0]["progress"].tolist() == [[0.0]] * 3
    assert answers[3][1].tolist() == [0.0] * 3
    assert not answers[3][2].any()
    assert answers[3][-1]["_instance"].all()
    assert answers[4][0]["progress"].tolist() == [[0.5]] * 3


@pytest.mark.parametrize("env_id", ENVIRONMENTS)
def test_disabled_rows_ignore_actions_until_they_are_reset(env_id):
    env = make_vec(env_id=env_id, autoreset_mode=DISABLED)
    actions = random_actions(env.action_space, 4)
    play(env, actions[:2])
    before = trainings(env).clone()
    _, rewards, terminated, truncated, infos = env.step(actions[2])
    assert same(before, trainings(env).clone())
    assert rewards.tolist() == [0.0] * 3
    assert not terminated.any()
    assert not truncated.any()
    assert not any(mask.any() for name, mask in infos.items() if name.startswith("_"))
    env.reset(options={"reset_mask": np.array([False, True, False])})
    rewarded = env_id != TASK_GROUPING  # which gives its reward after the last decision
    assert env.step(actions[3])[1].astype(bool).tolist() == [False, rewarded, False]


@pytest.mark.parametrize("env_id", ENVIRONMENTS)
def test_a_partial_reset_leaves_the_other_rows_bitwise(env_id):
    env = make_vec(env_id=env_id, autoreset_mode=DISABLED)
    before_obs = play(env, random_actions(env.action_space, 1))[-1][0]
    before = env.state()
    observations, infos = env.reset(options={"reset_mask": np.array([False, True, False])})
    after = env.state()
    assert infos["_instance"].tolist() == [False, True, False]
    assert same(rows_of(before["trainings"], [0, 2]), rows_of(after["trainings"], [0, 2]))
    assert all(same(before_obs[name][[0, 2]], observations[name][[0, 2]]) for name in observations)
    assert [differing(before["_streams"][row], after["_streams"][row]) == [] for row in range(3)] == [True, False, True]


@pytest.mark.parametrize("env_id", ENVIRONMENTS)
def test_rows_out_of_step_equal_rows_in_step(env_id):
    env, steady = make_vec(env_id=env_id, autoreset_mode=DISABLED), make_vec(env_id=env_id, autoreset_mode=DISABLED)
    actions = random_actions(env.action_space, 2)
    options = {"instance": np.array([5, 6, 7])}
    play(env, actions[:1], options=options)
    env.reset(options=options | {"reset_mask": np.array([False, True, False])})
    second = [env.step(action)[0] for action in actions]
    first = [answer[0] for answer in play(steady, actions, options=options)[1:]]
    for early, late in zip(first, second, strict=True):
        for name in early:
            np.testing.assert_allclose(early[name][1], late[name][1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("ids", [7, [1, 2, 3], np.array([9, 9, 2**62 - 1])])
def test_reset_starts_the_instances_that_are_asked_for(ids):
    env = make_vec()
    infos = env.reset(options={"instance": ids})[1]
    assert infos["instance"].tolist() == np.broadcast_to(ids, 3).tolist()
    assert [instance.id for instance in trainings(env).ledger.instances] == infos["instance"].tolist()


@pytest.mark.parametrize("env_id", ENVIRONMENTS)
def test_asking_for_instances_draws_none(env_id):
    env, twin = make_vec(env_id=env_id), make_vec(env_id=env_id)
    env.reset(seed=3, options={"instance": 4})
    assert same(env.reset()[1], twin.reset(seed=3)[1])


def test_the_same_instance_gives_the_same_rows():
    env = make_vec(distribution="varied")
    observations, _ = env.reset(options={"instance": EVALUATION_IDS[0]})
    assert all((values == values[0]).all() for values in observations.values())


@pytest.mark.parametrize("seeds", [[4, 5, 6], (4, 5, 6), np.array([4, 5, 6]), [np.int64(4), np.int64(5), np.int32(6)]], ids=repr)
def test_seeds_of_each_row_may_be_given(seeds):
    env, twin = make_vec(), make_vec()
    assert same(env.reset(seed=4), twin.reset(seed=seeds))


@pytest.mark.parametrize("maker", [make, make_vec])
def test_a_seed_may_be_a_number_of_numpys(maker):
    assert same(maker().reset(seed=np.int64(4)), maker().reset(seed=4))


def test_a_seed_of_none_keeps_a_rows_stream():
    env, twin = make_vec(), make_vec()
    answers = [own.reset(seed=4) and own.reset(seed=seed)[1]["instance"] for own, seed in ((env, None), (twin, [9, None, None]))]
    assert (answers[0] == answers[1]).tolist() == [False, True, True]


def test_a_reset_without_a_seed_goes_on_in_the_stream():
    env = make_vec()
    first, second = env.reset(seed=1)[1], env.reset()[1]
    assert not set(first["instance"].tolist()) & set(second["instance"].tolist())


# --- wrappers and forms -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("env_id", ENVIRONMENTS)
def test_time_limit_truncates(env_id):
    env = TimeLimit(make(env_id=env_id), max_episode_steps=1)
    _, _, terminated, truncated, _ = play(env, random_actions(env.action_space, 1))[-1]
    assert (terminated, truncated) == (False, True)


@pytest.mark.parametrize("env_id", ENVIRONMENTS)
def test_make_vec_hands_over_max_episode_steps(env_id):
    env = make_vec(env_id=env_id, max_episode_steps=2, steps_per_action=2, num_tasks=3)
    answers = play(env, random_actions(env.action_space, 2))
    assert answers[-1][3].all()
    assert not answers[-1][2].any()
    values = answers[-1][-1]["final_info"]["test"].items()
    assert all(sum(np.isfinite(own[row]) for name, own in values if not name.startswith("_")) >= 3 for row in range(3))


@pytest.mark.skipif(
    Version(gymnasium.__version__) < Version("1.4"), reason="the wrapper of earlier versions miscounts under SAME_STEP"
)
@pytest.mark.parametrize("env_id", ENVIRONMENTS)
def test_statistics_of_whole_episodes_are_recorded(env_id):
    env = RecordEpisodeStatistics(make_vec(env_id=env_id))
    answers = play(env, random_actions(env.action_space, 4))
    for end in (2, 4):
        episode = answers[end][-1]["episode"]
        np.testing.assert_allclose(episode["r"], answers[end - 1][1] + answers[end][1], rtol=1e-6)
        assert episode["l"].tolist() == [2] * 3


def test_flatten_observation_gives_one_array():
    env = FlattenObservation(make())
    answers = play(env, random_actions(env.action_space, 2))
    assert all(answer[0] in env.observation_space for answer in answers)


@pytest.mark.parametrize("env_id", ENVIRONMENTS)
def test_the_scalar_form_answers_with_python_numbers(env_id):
    env = make(env_id=env_id)
    _, reward, terminated, truncated, info = play(env, random_actions(env.action_space, 2))[-1]
    assert (type(reward), type(terminated), type(truncated)) == (float, bool, bool)
    assert (terminated, truncated) == (True, False)
    assert all(type(leaf.item()) in (int, float, bool) for leaf in flat(info).values())


RANKED = {"rank_feature": "sample_loss", "mean_feature": "sample_mean"}


def up_to_ties(observation, name):
    """An observation; instead of ranks what they put in order: equal samples have equal losses, and may swap their ranks."""
    if name not in RANKED:
        return observation[name]
    ranks, losses = (observation[name].reshape(-1, len(observation["gap"])) for name in (name, RANKED[name]))
    return np.take_along_axis(losses, ranks.argsort(0), axis=0)


@pytest.mark.parametrize(("env_id", "problem"), EACH_PAIR)
def test_the_scalar_form_equals_the_vectors_row(env_id, problem):
    settings = {"train_steps": 4, "steps_per_action": 2, "distribution": "varied", **pair(env_id, problem)}
    vector, steps = make_vec(problem, env_id=env_id, num_envs=2, **settings), 2
    actions = random_actions(vector.action_space, steps)
    rows = play(vector, actions, seed=11)
    for row in range(2):
        env = make(problem, env_id, **settings)
        answers = play(env, [action[row] for action in actions], seed=11 + row)
        assert answers[0][-1]["instance"] == rows[0][-1]["instance"][row]
        observed = [{name: values[row] for name, values in other[0].items()} for other in rows[:-1]]
        for own, other in zip(answers, [*observed, rows[-1][-1]["final_obs"][row]], strict=True):
            for name in own[0]:
                np.testing.assert_allclose(up_to_ties(own[0], name), up_to_ties(other, name), rtol=1e-4, atol=1e-4)
        for own, others in zip(answers[1:], rows[1:], strict=True):
            assert own[1] == pytest.approx(others[1][row], rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("num_envs", slow_unless(lambda count: count == 3, [1, 3]))
@pytest.mark.parametrize(("env_id", "problem"), EACH_PAIR)
def test_replaying_a_seed_is_bitwise(env_id, problem, num_envs):
    settings = {"train_steps": 4, "steps_per_action": 2, "distribution": "varied", **pair(env_id, problem)}
    envs = [make_vec(problem, env_id=env_id, num_envs=num_envs, **settings) for _ in range(2)]
    actions = random_actions(envs[0].action_space, 3)
    first, second = (play(env, actions, seed=5) for env in envs)
    assert same(first, second)
    assert same(first, play(envs[0], actions, seed=5))


def test_another_seed_plays_other_instances():
    env = make()
    actions = random_actions(env.action_space, 2)
    assert not same(play(env, actions, seed=1), play(env, actions, seed=2))


def pickled(env):
    return pickle.loads(pickle.dumps(env))


@pytest.mark.parametrize(
    ("all_seen", "maker", "clone"),
    slow_unless(
        lambda row: not row[0] or row[1:] == (make_vec, pickled),
        [
            (all_seen, maker, clone)
            for all_seen in (False, True)
            for maker in (make, make_vec)
            for clone in (copy.deepcopy, pickled)
        ],
    ),
)
@pytest.mark.parametrize("env_id", slow_unless(TASK_GROUPING.__ne__, ENVIRONMENTS))
def test_a_copy_in_the_middle_of_an_episode_continues_bitwise(maker, clone, env_id, all_seen):
    settings = {"observe": OBSERVED[env_id] if all_seen else None, "distribution": "varied", "steps_per_action": 2}
    env = maker(env_id=env_id, **settings, **({"num_tasks": 4} if env_id == TASK_GROUPING else {}))
    actions = random_actions(env.action_space, 8)
    play(env, actions[:2], seed=1)
    other = clone(env)
    rest = 2 if maker is make else 6
    assert same([env.step(action) for action in actions[2 : 2 + rest]], [other.step(action) for action in actions[2 : 2 + rest]])


@pytest.mark.parametrize("maker", [make, make_vec])
@pytest.mark.parametrize("all_seen", [False, True], ids=["default", "all"])
@pytest.mark.parametrize("env_id", ENVIRONMENTS)
def test_a_restored_environment_continues_bitwise(maker, env_id, all_seen):
    settings = {"observe": OBSERVED[env_id] if all_seen else None, "distribution": "varied", "steps_per_action": 2}
    env = maker(env_id=env_id, **settings, **({"num_tasks": 4} if env_id == TASK_GROUPING else {}))
    actions = random_actions(env.action_space, 4)
    play(env, actions[:2], seed=1)
    kept = env.unwrapped.state()
    first = [env.step(action) for action in actions[2:]]
    env.unwrapped.restore(kept)
    assert same(first, [env.step(action) for action in actions[2:]])


@pytest.mark.parametrize("all_seen", [False, True], ids=["default", "all"])
@pytest.mark.parametrize("env_id", ENVIRONMENTS)
def test_forked_rows_go_on_like_their_source_and_the_others_as_if_nothing_was(env_id, all_seen):
    settings = {"observe": OBSERVED[env_id] if all_seen else None, "distribution": "varied", "steps_per_action": 2}
    settings |= {"num_tasks": 4} if env_id == TASK_GROUPING else {}
    env, other = (make_vec(env_id=env_id, num_envs=4, **settings) for _ in range(2))
    actions = random_actions(env.action_space, 3)
    for own in (env, other):
        play(own, actions[:2], seed=1)
    env.fork([2, 2], [0, 3])
    after = actions[2].copy()
    after[[0, 3]] = after[2]
    seen, reward, *ends, infos = env.step(after)
    seen_alone, reward_alone, *_, infos_alone = other.step(actions[2])
    for found, alone in ((seen, seen_alone), ({"reward": reward}, {"reward": reward_alone})):
        for name, values in found.items():
            np.testing.assert_array_equal(values[1:3], alone[name][1:3])
            np.testing.assert_allclose(values[[0, 3]], values[[2, 2]], rtol=1e-5, atol=1e-6)
    assert (infos["instance"][[0, 3]] == infos_alone["instance"][2]).all()
    assert all((own[[0, 3]] == own[2]).all() for own in ends)


def test_rows_that_cannot_be_forked_are_refused_before_anything_changes():
    env = make_vec(num_envs=3)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.fork([0], [1])
    env.reset(seed=1)
    kept = env.state()
    for source, target in (([0], [3]), ([0, 1], [2]), ([0, 1], [2, 2]), ([-1], [0])):
        with pytest.raises(ValueError, match=r"`(source|target)` should be"):
            env.fork(source, target)
    assert same(kept["trainings"], env.state()["trainings"])


def test_a_restored_scalar_environment_draws_the_same_ids_again():
    env = make()
    env.reset(seed=1)
    kept = env.unwrapped.state()
    first = env.reset()
    env.unwrapped.restore(kept)
    assert same(first, env.reset())


@pytest.mark.parametrize("env_id", ENVIRONMENTS)
def test_another_environment_continues_from_a_state_bitwise(env_id):
    env, other = make_vec(env_id=env_id, steps_per_action=2), make_vec(env_id=env_id, steps_per_action=2)
    actions = random_actions(env.action_space, 6)
    play(env, actions[:1], seed=1)
    other.restore(env.state())
    assert same([env.step(action) for action in actions[1:]], [other.step(action) for action in actions[1:]])


def test_the_specification_is_written_as_json():
    env = make(observe=["progress"], distribution={"scale": [0.5, 2.0]})
    spec = gymnasium.envs.registration.EnvSpec.from_json(env.spec.to_json())
    actions = random_actions(env.action_space, 2)
    assert same(play(env, actions), play(gymnasium.make(spec, disable_env_checker=True), actions))


def test_numpys_numbers_are_written_as_json():
    given = {
        "lr": np.float32(0.25),
        "train_steps": np.int64(8),
        "hidden_sizes": [np.int64(4)],
        "distribution": {"noise": (0, np.int8(1))},
    }
    for maker in (make, make_vec):
        kwargs = json.loads(maker(**given).spec.to_json())["kwargs"]
        assert {name: kwargs[name] for name in given} == {
            **{"lr": 0.25, "train_steps": 8, "hidden_sizes": [4], "distribution": {"noise": [0, 1]}}
        }


def test_a_problem_of_ones_own_plays_as_its_name_does():
    envs = make_vec("digits"), make_vec(load_problem("digits"))
    actions = random_actions(envs[0].action_space, 3)
    assert same(*(play(env, actions) for env in envs))


def test_a_problem_that_is_found_by_its_name_is_written_as_json():
    for env, again in ((make, gymnasium.make), (make_vec, gymnasium.make_vec)):
        made = env(load_problem("quadratic"))
        spec = gymnasium.envs.registration.EnvSpec.from_json(made.spec.to_json())
        assert spec.kwargs["problem"] == "quadratic"
        actions = random_actions(made.action_space, 2)
        assert same(play(made, actions), play(again(spec), actions))


def test_a_problem_that_cannot_be_found_is_not_written_as_json():
    with pytest.raises(TypeError, match=r"`problem` should be one that can be found again.*Pass file\.py:function"):
        make(blind("quadratic")).spec.to_json()


def test_ppo_trains_on_the_scalar_form_without_a_wrapper():
    agent = PPO("MultiInputPolicy", make("quadratic").unwrapped, n_steps=8, batch_size=8, n_epochs=1, device="cpu", seed=0)
    assert agent.learn(16).num_timesteps == 16


# --- honesty ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env_id", "reward", "problem"),
    slow_unless(
        lambda row: row[2] == SMALLEST[row[0]], [(*pair, name) for pair in PAID for name in QUICK if (pair[0], name) in PAIRS]
    ),
)
def test_the_test_split_cannot_be_seen(problem, env_id, reward):
    settings = {"env_id": env_id, "observe": OBSERVED[env_id], "reward": reward, "num_tasks": 3, "num_envs": 2, "train_steps": 4}
    # Instances with splits of their own: test_axes.py.
    settings |= {"distribution": {**DISTRIBUTIONS["varied"], "split": (0, 0)}, "steps_per_action": 2}
    settings |= {"num_tasks": 2} if env_id == TASK_GROUPING else {}
    settings |= pair(env_id, problem)
    env, unseeing = make_vec(problem, **settings), make_vec(blind(problem), **settings)
    actions = random_actions(env.action_space, 4)
    sighted, blinded = play(env, actions, seed=2), play(unseeing, actions, seed=2)
    assert same([answer[:-1] for answer in sighted], [answer[:-1] for answer in blinded])
    finals = sighted[2][-1]["final_info"], blinded[2][-1]["final_info"]
    assert all("/test/" in name for name in differing(*finals))
    assert same(sighted[2][-1]["final_obs"][0], blinded[2][-1]["final_obs"][0])


@pytest.mark.parametrize(
    ("env_id", "name"), slow_unless(lambda pair: pair[0] == LOSS_WEIGHTING or pair[1] not in OBSERVATIONS, SEEN)
)
def test_observing_changes_neither_training_nor_reward(env_id, name):
    plain, curious = make_vec(env_id=env_id, observe=["progress"]), make_vec(env_id=env_id, observe=[name])
    actions = random_actions(plain.action_space, 2)
    first, second = play(plain, actions), play(curious, actions)
    assert same([answer[1] for answer in first[1:]], [answer[1] for answer in second[1:]])
    assert same(first[-1][-1]["final_info"]["test"], second[-1][-1]["final_info"]["test"])


@pytest.mark.parametrize(("env_id", "reward"), PAID)
def test_rewarding_does_not_change_the_training(env_id, reward):
    plain, paid = make_vec(env_id=env_id, reward="none"), make_vec(env_id=env_id, reward=reward)
    actions = random_actions(plain.action_space, 2)
    first, second = play(plain, actions), play(paid, actions)
    assert same(first[-1][-1]["final_info"]["test"], second[-1][-1]["final_info"]["test"])


@pytest.mark.parametrize("rule", RULES)
def test_the_default_observations_do_not_reveal_planted_scales(rule):
    envs = [make_vec(distribution={"scale": (scale, scale)}, action="residual", rule=rule) for scale in (1.0, 8.0)]
    actions = random_actions(envs[0].action_space, 1)
    plain, scaled = (play(env, actions, options={"instance": 5}) for env in envs)
    for own, others in zip(plain, scaled, strict=True):
        for name in own[0]:
            np.testing.assert_allclose(own[0][name], others[0][name], rtol=1e-3, atol=1e-3, err_msg=name)


def test_global_generators_are_neither_read_nor_written():
    before = torch.get_rng_state().clone(), np.random.get_state()[1].copy()  # noqa: NPY002
    env = make_vec(distribution="varied", observe=OBSERVATIONS)
    play(env, random_actions(env.action_space, 3))
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002


def test_the_number_of_threads_is_left_alone():
    before = torch.get_num_threads()
    env = make_vec()
    play(env, random_actions(env.action_space, 1))
    assert torch.get_num_threads() == before


# --- every argument changes something ---------------------------------------------------------------------------------

CHANGES = {
    "problem": ({}, "census"),
    "distribution": ({}, "varied"),
    "num_tasks": ({}, 3),
    "tasks": ({"num_tasks": 3}, ["digit", "parity", "angle"]),
    "observe": ({}, ["progress", "gap"]),
    "reward": ({}, "val_min"),
    "steps_per_action": ({}, 2),
    "decisions": ({"train_steps": 40, "steps_per_action": None}, 8),
    "train_steps": ({}, 16),
    "optimizer": ({}, "sgd"),
    "lr": ({}, 0.1),
    "lr_schedule": ({}, "constant"),
    "checkpoint": ({"lr": 0.5}, "best_meta"),
    "momentum": ({}, 0.1),
    "weight_decay": ({}, 0.5),
    "batch_size": ({}, 8),
    "hidden_sizes": ({}, [4, 4]),
    "holdout_size": ({}, 8),
    "action": ({}, "weights"),
    "rule": ({"action": "residual"}, "si"),
    "weight_range": ({}, 10.0),
    "scope": ({}, "shared"),
    "gradient_ema": ({}, 0.5),
    "gradient_ema_decay": ({"gradient_ema": 0.5}, 1.0),
    "features": ({"action": "rule"}, ["loss"]),
    "residual_reach": ({"action": "rule"}, 0.5),
    "autoreset_mode": ({}, "NextStep"),
    "max_episode_steps": ({}, 1),
    "reward_every": ({}, 8),
}
SAMPLE_CHANGES = {name: row for name, row in CHANGES.items() if name not in specification(LOSS_WEIGHTING).own_arguments} | {
    "main_task": ({}, "loop"),
    "reward": ({}, "terminal_delta_m"),
    "action": ({}, "quantiles"),
    "features": ({}, ["rank"]),
    "sharpness": ({}, 1.0),
    "num_quantiles": ({"action": "quantiles"}, 2),
}
MERGING = {"action": "threshold", "train_steps": 12, "steps_per_action": 2}
MERGE_CHANGES = {name: row for name, row in CHANGES.items() if name not in specification(LOSS_WEIGHTING).own_arguments} | {
    "action": ({"train_steps": 12, "steps_per_action": 2}, "threshold"),
    "similarity": (MERGING | {"tasks": ["digit", "parity"], "lr": 1e-4}, "gradient"),
    "transfer": (MERGING, "none"),
    "transfer_steps": (MERGING, 1),
    "average_moments": (MERGING, True),
    "alignment": (MERGING, 10.0),
    "parameter_price": (MERGING, 1.0),
    "rule": (MERGING, "paper"),
    "adapters": (MERGING, "gate"),
}
_NOT_OF_GROUPS = (*specification(TASK_GROUPING).excluded, *specification(LOSS_WEIGHTING).own_arguments)
GROUP_CHANGES = {name: row for name, row in CHANGES.items() if name not in _NOT_OF_GROUPS} | {
    "problem": ({}, "yeast"),
    "num_tasks": ({}, 3),
    "tasks": ({"problem": "digit_tasks"}, ["is_0", "is_1"]),
    "observe": ({}, ["progress"]),
    "reward": ({}, "none"),
    "train_steps": ({}, 16),
    "hidden_sizes": ({}, [4]),
    "action": ({}, "merge"),
    "max_groups": ({"num_tasks": 3}, 2),
    "sharpness": ({"action": "memberships"}, 1.0),
    "group_price": ({}, 0.5),
    "snapshots": ({"train_steps": 100}, 2),
    "affinity_every": ({}, 2),
}
TABLES = {LOSS_WEIGHTING: CHANGES, SAMPLE_WEIGHTING: SAMPLE_CHANGES, LAYER_MERGING: MERGE_CHANGES, TASK_GROUPING: GROUP_CHANGES}
UNSEEN = {"num_envs", "device", "render_mode", "arguments", "self", "group_table"}  # group tables are tested with them


@pytest.mark.parametrize("env_id", ENVIRONMENTS)
def test_the_table_of_changes_knows_every_argument(env_id):
    known = {*argument_names(specification(env_id)), *inspect.signature(MTLVectorEnv.__init__).parameters}
    assert known - UNSEEN == set(TABLES[env_id])


@pytest.mark.parametrize(
    ("env_id", "name"),
    slow_unless(  # in two environments, what LossWeighting does with the same change is not repeated
        lambda row: row[0] in (LOSS_WEIGHTING, TASK_GROUPING) or TABLES[row[0]][row[1]] is not CHANGES.get(row[1]),
        [(env_id, name) for env_id, changes in TABLES.items() for name in changes],
    ),
)
def test_every_argument_changes_something(env_id, name):
    settings, value = TABLES[env_id][name]
    rollouts = []
    for arguments in (settings, settings | {name: value}):
        env = make_vec(env_id=env_id, **arguments)
        rollouts.append(play(env, telling_actions(env, 4 if env_id == LAYER_MERGING else 3), seed=4))
    assert differing(*rollouts)


@pytest.mark.parametrize("distribution", ["clean", "varied"])
@pytest.mark.parametrize("num_tasks", [None, 2])
def test_naming_all_tasks_in_any_order_is_naming_none(num_tasks, distribution):
    names = [task.name for task in load_problem("digits").tasks]
    envs = [make_vec(num_tasks=num_tasks, distribution=distribution, tasks=tasks) for tasks in (None, names, names[::-1])]
    first, *others = (play(env, random_actions(env.action_space, 3), seed=4) for env in envs)
    assert all(same(first, other) for other in others)


def test_num_tasks_is_the_number_of_tasks_unless_it_is_given():
    tasks = ("angle", "digit", "loop")
    assert make_vec(tasks=tasks).single_action_space.shape == (3,)
    assert make_vec(tasks=tasks, num_tasks=2).single_action_space.shape == (2,)
    assert make(tasks=["angle"]).action_space.shape == (1,)


def test_tasks_that_are_not_named_do_not_take_part():
    env = make_vec(num_envs=8, tasks=["angle", "digit", "loop"], num_tasks=2, observe=OBSERVATIONS)
    answers = [conforms(env, answer) for answer in play(env, random_actions(env.action_space, 6))]
    tests = [answer[-1]["final_info"]["test"] for answer in answers if "final_info" in answer[-1]]
    tests = [(name, values) for test in tests for name, values in test.items() if not name.startswith("_")]
    taken = {name.split("/")[0] for name, values in tests if (values != -1).any()}
    assert taken == {"angle", "digit", "loop"}


def test_terminal_delta_m_is_paid_with_a_subset_of_tasks():
    env = make_vec(tasks=["angle", "digit", "loop"], num_tasks=2, reward="terminal_delta_m", autoreset_mode=DISABLED)
    answers = [conforms(env, answer) for answer in play(env, random_actions(env.action_space, 2))]
    assert answers[1][1].tolist() == [0.0] * 3
    assert ((answers[2][1] != 0) & (answers[2][1] > specification(LOSS_WEIGHTING).rewards["terminal_delta_m"].penalty)).all()


@pytest.mark.parametrize("name", ["lr", "momentum", "weight_decay", "lr_schedule"])
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_every_optimizer_heeds_its_arguments(name, optimizer):
    envs = [make_vec(optimizer=optimizer), make_vec(optimizer=optimizer, **{name: CHANGES[name][1]})]
    first, second = (play(env, random_actions(env.action_space, 2), seed=4) for env in envs)
    assert not same([answer[1] for answer in first[1:]], [answer[1] for answer in second[1:]])


# --- divergence -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("env_id", "reward"), PAID)
def test_a_diverging_training_ends_its_own_episode_with_the_penalty(env_id, reward):
    settings = {"env_id": env_id, "reward": reward, "observe": OBSERVED[env_id], "autoreset_mode": DISABLED}
    env, healthy = make_vec(**settings), make_vec(**settings)
    actions = random_actions(env.action_space, 2)
    play(env, [], seed=3)
    spoil(env, 1, 1e30)
    expected = play(healthy, actions, seed=3)
    answer = conforms(env, env.step(actions[0]))
    assert answer[2].tolist() == [False, True, False]
    assert answer[1][1] == specification(env_id).rewards[reward].penalty
    assert answer[-1]["diverged"].tolist() == [False, True, False]
    assert same(answer[1][[0, 2]], expected[1][1][[0, 2]])
    answer = conforms(env, env.step(actions[1]))
    assert answer[1][1] == 0
    assert same(answer[1][[0, 2]], expected[2][1][[0, 2]])
    assert all(same(answer[0][name][[0, 2]], expected[2][0][name][[0, 2]]) for name in answer[0])


@pytest.mark.parametrize(
    ("mode", "env_id", "problem"),
    [
        *((NEXT_STEP, env_id, "digits") for env_id in ENVIRONMENTS),
        *slow_unless(lambda row: row[2] in ("yeast", "quadratic"), [(SAME_STEP, *pair) for pair in PAIRS]),
    ],
)
def test_a_diverged_row_starts_anew(mode, env_id, problem):
    settings = {"train_steps": 4, "steps_per_action": 2, **pair(env_id, problem)}
    env = make_vec(problem, env_id=env_id, num_envs=2, autoreset_mode=mode, **settings)
    actions = random_actions(env.action_space, 2)
    env.reset(seed=3)
    spoil(env, 1, torch.nan)
    answers = [conforms(env, env.step(action)) for action in actions]
    assert answers[0][2].tolist() == [False, True]
    assert not answers[-1][-1]["diverged"][answers[-1][-1]["_diverged"]].any()
    assert trainings(env).finite().all()


@pytest.mark.filterwarnings("ignore:`lr` should be smaller. single-task training:RuntimeWarning")
@pytest.mark.parametrize(
    ("env_id", "reward", "observe", "lr"),
    slow_unless(
        lambda row: row[3] == 1e35 or row[::3] == (LOSS_WEIGHTING, 1e4),
        [
            (*row, lr)
            for row in (
                *((env_id, reward, ["progress"]) for env_id, reward in PAID),
                *((env_id, "none", OBSERVED[env_id]) for env_id in ENVIRONMENTS),
            )
            for lr in (1e2, 1e4, 1e6, 1e10, 1e20, 1e35)
        ],
    ),
)
def test_a_huge_learning_rate_keeps_answers_finite(env_id, reward, observe, lr):
    settings = {
        "env_id": env_id,
        "lr": lr,
        "optimizer": "sgd",
        "reward": reward,
        "train_steps": 2,
        "steps_per_action": 1,
        "num_envs": 2,
    }
    env = make_vec(observe=observe, **settings)
    for answer in play(env, random_actions(env.action_space, 5)):
        conforms(env, answer)


def test_diverged_is_false_otherwise():
    env = make_vec(autoreset_mode=DISABLED)
    answers = play(env, random_actions(env.action_space, 2))
    assert not any(answer[-1]["diverged"].any() for answer in answers[1:])


# --- what actions and rewards mean ------------------------------------------------------------------------------------


def test_softmax_actions_become_k_softmax():
    env = make_vec(weight_range=100.0)
    action = random_actions(env.action_space, 1)[0]
    play(env, [action])
    logits = np.log(100) / 2 * action.astype(np.float64)
    expected = 5 * np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    env = make_vec(weight_range=100.0, autoreset_mode=DISABLED)
    play(env, [action])
    for step in range(4):
        np.testing.assert_allclose(trainings(env).weights[:, step], expected, rtol=1e-4)


def test_the_extremes_of_softmax_reach_the_weight_range():
    env = make_vec(weight_range=50.0)
    action = np.full((3, 5), -1, dtype=np.float32)
    action[:, 2] = 1
    play(env, [action])
    weights = trainings(env).weights[0, 0]
    assert (weights[2] / weights[0]).item() == pytest.approx(50, rel=1e-4)


def test_weights_are_applied_as_they_are():
    env = make_vec(action="weights")
    action = random_actions(env.action_space, 1)[0]
    play(env, [action])
    assert same(trainings(env).weights[:, 0], torch.from_numpy(action))


@pytest.mark.parametrize("rule", RULES)
def test_residual_multiplies_the_rules_weights(rule):
    env, plain = make_vec(action="residual", rule=rule), make_vec()
    action = random_actions(env.action_space, 1)[0]
    play(env, [action])
    play(plain, [action])
    factors, losses = trainings(plain).weights, trainings(env).losses.history
    for step in range(4):
        divisor = {"init": losses[:, 0], "si": losses[:, step]}[rule]
        torch.testing.assert_close(trainings(env).weights[:, step], factors[:, step] / divisor)


def test_scale_invariant_weights_follow_the_gradient_of_the_sum_of_logs():
    env = make_vec(action="residual", rule="si", optimizer="sgd", momentum=0.0, lr=0.1, steps_per_action=1, num_envs=1)
    env.reset(seed=0)
    before = trainings(env).clone()["parameters"]
    total = trainings(env).losses.graph().log().sum()
    parts = torch.autograd.grad(total, [*trainings(env).replicas.parameters.values()], retain_graph=True)
    env.step(np.zeros((1, 5), dtype=np.float32))
    expected = before - 0.1 * torch.cat([part.flatten(1) for part in parts], dim=1)
    torch.testing.assert_close(trainings(env).replicas.flat, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("action", ACTIONS)
def test_clipped_counts_the_entries_on_a_bound(action):
    env = make_vec("quadratic", action=action)
    chosen = np.zeros(env.action_space.shape, dtype=np.float32)
    chosen[1, 0], chosen[2, :2] = env.single_action_space.high[0], env.single_action_space.low[0]
    assert play(env, [chosen])[-1][-1]["clipped"].tolist() == [0, 1, 2]


def holdout(env, split="reward"):
    return trainings(env).losses.held_out([split])[split].double().numpy()


@pytest.mark.parametrize("distribution", ["clean", "varied"])
def test_returns_of_val_mean_are_the_total_decline_of_the_log_losses(distribution):
    env = make_vec(autoreset_mode=DISABLED, distribution=distribution)
    env.reset(seed=1)
    before = holdout(env)
    returns = sum(env.step(action)[1] for action in random_actions(env.action_space, 2))
    np.testing.assert_allclose(returns, (np.log(before) - np.log(holdout(env))).mean(1), rtol=1e-4, atol=1e-5)


def test_val_min_pays_the_worst_tasks_decline():
    env = make_vec(autoreset_mode=DISABLED, reward="val_min")
    env.reset(seed=1)
    before = holdout(env)
    reward = env.step(random_actions(env.action_space, 1)[0])[1]
    np.testing.assert_allclose(reward, (np.log(before) - np.log(holdout(env))).min(1), rtol=1e-4, atol=1e-5)


def test_same_batch_pays_the_decline_by_the_last_step():
    env = make_vec(autoreset_mode=DISABLED, reward="same_batch")
    reward = play(env, random_actions(env.action_space, 1))[-1][1]
    last = trainings(env).losses.history[:, 3].double().log()
    after = last_batch(trainings(env)).double().log()
    np.testing.assert_allclose(reward, (last - after).mean(1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("lr_schedule", ["constant", "step"])
def test_igb_pays_the_least_improved_task(lr_schedule):
    settings = {"reward": "igb", "batch_size": 400, "train_steps": 8, "steps_per_action": 1, "lr_schedule": lr_schedule}
    env = make_vec(autoreset_mode=DISABLED, **settings)
    rewards = [answer[1] for answer in play(env, random_actions(env.action_space, 7))[1:]]
    losses = trainings(env).losses.history.double()  # (N, 8, K), two batches an epoch
    for step in range(6):
        base = losses[:, 2:4].mean(1) if step >= 3 else losses[:, 0]
        factor = 10 if lr_schedule == "step" and 4 <= step < 6 else 1
        factor = 100 if lr_schedule == "step" and step >= 6 else factor
        expected = factor * ((losses[:, step] - losses[:, step + 1]) / base).amin(1)
        np.testing.assert_allclose(rewards[step], expected, rtol=1e-3, atol=1e-5)


def test_quality_pays_the_change_of_what_is_reached_on_reward():
    """Whenever it is measured: the sum over an episode is the quality at its end less that at its beginning."""
    sums = []
    for every in (4, 8):
        env = make_vec("quadratic", reward="quality", reward_every=every, autoreset_mode=DISABLED)
        env.reset(options={"instance": [3, 4, 5]})
        trainer = env.unwrapped.decision.trainer
        before = qualities(trainer).mean(1)
        paid = sum(env.step(action)[1] for action in random_actions(env.action_space, 2))
        np.testing.assert_allclose(paid, (qualities(trainer).mean(1) - before).numpy(), rtol=1e-6)
        sums.append(paid)
    np.testing.assert_allclose(*sums, rtol=1e-12)


def test_a_training_that_is_finite_is_paid_no_less_than_one_that_diverged():
    given = {"tasks": ["number_0", "number_1"], "action": "weights", "reward": "quality", "autoreset_mode": DISABLED}
    paid = {}
    for rate in (1e3, 1e8):
        env = make_vec("teachers", num_envs=1, train_steps=100, steps_per_action=50, hidden_sizes=[64, 32], lr=rate, **given)
        env.reset(options={"instance": [0]})
        rewards = [env.step(np.ones((1, 2), np.float32)) for _ in range(2)]
        paid[rate] = sum(float(answer[1][0]) for answer in rewards), bool(env.unwrapped.decision.trainer.finite().all())
    assert (paid[1e3][1], paid[1e8][1]) == (True, False)
    assert -10 < paid[1e3][0] < -0.5
    assert paid[1e8][0] < paid[1e3][0]


def test_terminal_delta_m_pays_at_the_end_alone():
    env = make_vec("quadratic", reward="terminal_delta_m", autoreset_mode=DISABLED)
    answers = play(env, random_actions(env.action_space, 2))
    assert answers[1][1].tolist() == [0.0] * 3
    assert (answers[2][1] != 0).all()


def test_the_cost_of_a_plain_episode_is_its_steps():
    env = make_vec(observe=["progress"], reward="none", autoreset_mode=DISABLED)
    infos = play(env, random_actions(env.action_space, 2))[-1][-1]
    assert infos["forward"].tolist() == infos["backward"].tolist() == [8.0] * 3


# --- what observations mean -------------------------------------------------------------------------------------------


def observed(names, decisions=2, **others):
    env = make_vec(observe=names, autoreset_mode=DISABLED, **others)
    answers = play(env, random_actions(env.action_space, decisions))
    return env, [answer[0] for answer in answers]


def test_mean_losses_and_slopes_are_relative_to_the_first_batch():
    env, answers = observed(["log_loss_mean", "slope"])
    losses = trainings(env).losses.history
    first, second, initial = losses[:, :4].mean(1), losses[:, 4:].mean(1), losses[:, 0]
    assert (answers[0]["log_loss_mean"] == 0).all()
    np.testing.assert_allclose(answers[1]["log_loss_mean"], (first / initial).log(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(answers[2]["log_loss_mean"], (second / initial).log(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(answers[2]["slope"], (second / first).log(), rtol=1e-4, atol=1e-5)


def test_raw_losses_are_those_of_the_batch_about_to_be_trained_on():
    env, answers = observed(["log_loss"])
    losses = trainings(env).losses.history.log()
    np.testing.assert_allclose(answers[0]["log_loss"], losses[:, 0], rtol=1e-6)
    np.testing.assert_allclose(answers[1]["log_loss"], losses[:, 4], rtol=1e-6)


def test_the_gap_is_relative_to_the_second_epoch():
    env, answers = observed(["gap"], decisions=6, batch_size=400, train_steps=6, steps_per_action=1)
    losses = trainings(env).losses.history
    for decision in (1, 2, 3):
        np.testing.assert_allclose(answers[decision]["gap"], losses[:, decision - 1] / losses[:, 0], rtol=1e-4)
    for decision in (4, 5, 6):
        np.testing.assert_allclose(answers[decision]["gap"], losses[:, decision - 1] / losses[:, 2:4].mean(1), rtol=1e-4)


def test_meta_losses_are_relative_to_the_first_batch():
    env, answers = observed(["meta_log_loss", "meta_slope"])
    expected = np.log(holdout(env, "meta") / trainings(env).losses.history[:, 0].numpy())
    np.testing.assert_allclose(answers[2]["meta_log_loss"], expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(
        answers[2]["meta_slope"], answers[2]["meta_log_loss"] - answers[1]["meta_log_loss"], rtol=1e-3, atol=1e-4
    )


def test_last_weights_are_shares_of_what_the_action_said():
    env, answers = observed(["last_weights"], action="weights")
    action = random_actions(env.action_space, 2)[-1]
    np.testing.assert_allclose(answers[0]["last_weights"], 1 / 5, rtol=1e-6)
    np.testing.assert_allclose(answers[2]["last_weights"], action / np.abs(action).sum(1, keepdims=True), rtol=1e-5)


def test_gram_matrices_come_back_from_cosines_and_norms():
    env, answers = observed(["cosines", "log_norms"], decisions=1, num_tasks=3)
    shared = trainings(env).task_gradients()[0][:, :, : trainings(env).model.num_shared]
    gramian = shared @ shared.mT
    norms, first, second = np.exp(answers[1]["log_norms"]), *np.triu_indices(3, 1)
    np.testing.assert_allclose(norms**2, gramian.diagonal(dim1=1, dim2=2), rtol=1e-4)
    products = answers[1]["cosines"] * norms[:, first] * norms[:, second]
    np.testing.assert_allclose(products, gramian[:, first, second], rtol=1e-3, atol=1e-6)


def test_progress_epoch_and_rate_tell_where_the_training_is():
    _, answers = observed(["progress", "epoch", "lr"], decisions=4, batch_size=400, lr_schedule="step", steps_per_action=2, lr=0.5)
    assert [answer["progress"][0, 0] for answer in answers] == [0, 0.25, 0.5, 0.75, 1]
    assert [answer["epoch"][0, 0] for answer in answers] == [0, 1, 2, 3, 4]
    np.testing.assert_allclose([answer["lr"][0, 0] for answer in answers[:4]], [0.5, 0.5, 0.05, 0.005], rtol=1e-5)


@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("env_id", ENVIRONMENTS)
def test_the_autoreset_mode_is_the_instances_own(env_id, mode):
    for given in (mode, mode.value):
        env = make_vec(env_id=env_id, autoreset_mode=given)
        assert env.autoreset_mode is env.metadata["autoreset_mode"] is mode
    assert LossWeightingVectorEnv.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP


def test_every_environment_is_registered_in_both_forms():
    for env_id in find_environments():
        spec = gymnasium.spec(env_id)
        assert spec.entry_point
        assert spec.vector_entry_point
    assert {*IDS} <= {*find_environments()} == {name for name in gymnasium.registry if name.startswith("mtl_gym/")}


# --- masks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("env_id", "mode"), MODES)
def test_there_are_masks_exactly_where_actions_are_masked(env_id, mode):
    env, scalar = make_vec(SMALLEST[env_id], env_id=env_id, **mode), make(SMALLEST[env_id], env_id, **mode)
    assert hasattr(env, "action_masks") == hasattr(scalar.unwrapped, "action_masks") == env.decision.masked
    assert env.decision.masked == (env_id in (LAYER_MERGING, TASK_GROUPING))
    if env.decision.masked:
        env.reset(seed=0)
        scalar.reset(seed=0)
        masks = env.action_masks()
        assert masks.dtype == np.bool_
        assert masks.any(1).all()
        assert same(masks[0], scalar.unwrapped.action_masks())


def test_where_there_are_no_masks_the_error_says_why():
    with pytest.raises(AttributeError, match="mtl_gym/LossWeighting-v0 has no masks: all of its actions are valid"):
        _ = make_vec().action_masks

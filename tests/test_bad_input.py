import gymnasium
import numpy as np
import pytest
from rollouts import IDS, LOSS_WEIGHTING, TASK_GROUPING, differing, make, make_vec, random_actions

from mtl_gym.decisions.task_rules import ACTIONS, RULES, SCOPES
from mtl_gym.environments import specification
from mtl_gym.envs.arguments import argument_names
from mtl_gym.problems import PROBLEMS
from mtl_gym.problems.axes import AXES, DISTRIBUTIONS
from mtl_gym.training.optim import LR_SCHEDULES, OPTIMIZERS

REFUSED = (ValueError, TypeError, gymnasium.error.Error)

NAMES = {
    "problem": ("digit", "digits", PROBLEMS),
    "distribution": ("cleen", "clean", DISTRIBUTIONS),
    "reward": ("val_men", "val_mean", specification(LOSS_WEIGHTING).rewards),
    "action": ("softmx", "softmax", ACTIONS),
    "rule": ("inet", "init", RULES),
    "scope": ("shard", "shared", SCOPES),
    "optimizer": ("adm", "adam", OPTIMIZERS),
    "lr_schedule": ("cosin", "cosine", LR_SCHEDULES),
}


@pytest.mark.parametrize("maker", [make, make_vec])
@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_name_lists_the_known_ones_and_the_nearest(name, maker):
    wrong, nearest, table = NAMES[name]
    with pytest.raises(REFUSED) as caught:
        maker(**{name: wrong})
    message = str(caught.value)
    assert f"`{name}`" in message
    assert f"{name}={wrong!r}" in message
    assert f"Did you mean {nearest!r}?" in message
    assert all(known in message for known in table)


@pytest.mark.parametrize("maker", [make, make_vec])
def test_an_unknown_observation_lists_the_known_ones_and_the_nearest(maker):
    with pytest.raises(REFUSED, match=r"`observe`.*Received observe='gapp'.*Did you mean 'gap'") as caught:
        maker(observe=["gapp"])
    assert all(known in str(caught.value) for known in specification(LOSS_WEIGHTING).observations)


@pytest.mark.parametrize("maker", [make, make_vec])
def test_an_unknown_task_lists_those_of_the_problem_and_the_nearest(maker):
    with pytest.raises(REFUSED, match=r"`tasks`.*digit, parity, loop.*Received tasks='pairity'.*Did you mean 'parity'"):
        maker(tasks=["digit", "pairity"])


@pytest.mark.parametrize("maker", [make, make_vec])
def test_more_tasks_than_are_named_are_refused(maker):
    with pytest.raises(ValueError, match=r"`num_tasks` should be at most 2, .*: digit, angle\. Received num_tasks=3"):
        maker(tasks=["angle", "digit"], num_tasks=3)


@pytest.mark.parametrize(("name", "value"), [("tasks", "angle"), ("observe", "gap")])
def test_a_bare_name_is_refused_with_the_list_to_write(name, value):
    with pytest.raises(TypeError, match=rf'`{name}` should be a list. Received {name}=\'{value}\'. A list of one is \["{value}"\]'):
        make(**{name: value})


def test_an_unknown_axis_lists_the_known_ones_and_the_nearest():
    with pytest.raises(REFUSED, match=r"Did you mean 'noise'\?") as caught:
        make(distribution={"nose": (0.0, 0.1)})
    assert all(axis in str(caught.value) for axis in AXES)


@pytest.mark.parametrize("mode", ["samestep", "Never", 3, None])
def test_an_unknown_autoreset_mode_lists_the_known_ones(mode):
    with pytest.raises(REFUSED, match=r"`autoreset_mode`.*NextStep.*SameStep.*Disabled"):
        make_vec(autoreset_mode=mode)


@pytest.mark.parametrize("maker", [make, make_vec])
@pytest.mark.parametrize("env_id", IDS)
def test_an_unknown_argument_is_refused_in_our_words_and_in_pythons(env_id, maker):
    """Clients such as TorchRL try arguments, and look for Python's words."""
    with pytest.raises(TypeError) as caught:
        maker(env_id=env_id, frameskip=1)
    message = str(caught.value)
    assert "got an unexpected keyword argument 'frameskip'" in message
    assert message.startswith("`argument` should be one of ")
    assert "Received argument='frameskip'." in message
    assert all(name in message for name in argument_names(specification(env_id)))


@pytest.mark.parametrize("maker", [make, make_vec])
def test_an_unknown_argument_names_the_nearest(maker):
    with pytest.raises(TypeError, match=r"Received argument='lr_shedule'\. Did you mean 'lr_schedule'\?"):
        maker(lr_shedule="constant")


@pytest.mark.parametrize("name", specification(TASK_GROUPING).excluded)
def test_a_common_argument_that_an_environment_does_not_have_is_refused(name):
    assert name not in argument_names(specification(TASK_GROUPING))
    with pytest.raises(ValueError, match=f"`{name}` should be left out: {TASK_GROUPING} has no .*Received {name}="):
        gymnasium.make(TASK_GROUPING, **{name: "is_0" if name == "main_task" else 2})


@pytest.mark.parametrize(("name", "value"), [("num_envs", 1), ("autoreset_mode", "SameStep")])
def test_arguments_of_the_vector_form_are_refused_by_the_scalar_one(name, value):
    with pytest.raises(TypeError, match=rf"`{name}` should be given to gymnasium\.make_vec"):
        make(**{name: value})


ARGUMENTS = [
    ("problem", 3),
    ("problem", ["digits"]),
    ("distribution", 3),
    ("distribution", {"noise": (-0.1, 0.1)}),
    ("distribution", {"noise": (0.0, 1.1)}),
    ("distribution", {"noise": (0.3, 0.1)}),
    ("distribution", {"noise": 0.3}),
    ("distribution", {"noise": (0.1, float("nan"))}),
    ("distribution", {"scale": (0.0, 1.0)}),
    ("distribution", {"scale": (1.0, float("inf"))}),
    ("distribution", {"size": (0.0, 1.0)}),
    ("distribution", {"size": (0.5, 1.5)}),
    ("distribution", {"size": ("a", "b")}),
    ("num_tasks", 0),
    ("num_tasks", -1),
    ("num_tasks", 7),
    ("num_tasks", 1.5),
    ("num_tasks", True),
    ("num_tasks", "2"),
    ("tasks", []),
    ("tasks", "angle"),
    ("tasks", ["angle", "angle"]),
    ("tasks", [3]),
    ("tasks", [["angle"]]),
    ("tasks", 3),
    ("tasks", frozenset({"angle"})),  # of one: the order of more would differ from process to process
    ("observe", []),
    ("observe", "gap"),
    ("observe", ["gap", "gap"]),
    ("observe", [3]),
    ("observe", [["gap"]]),
    ("reward", True),
    ("reward", ["val_mean"]),
    ("steps_per_action", 0),
    ("steps_per_action", -4),
    ("steps_per_action", 2.5),
    ("steps_per_action", 3),
    ("decisions", 1),
    ("decisions", 2.5),
    ("decisions", "15"),
    ("decisions", True),
    ("decisions", 10**7),
    ("train_steps", 0),
    ("train_steps", 9),
    ("train_steps", 4),
    ("train_steps", 8.0),
    ("optimizer", None),
    ("lr", 0),
    ("lr", -0.1),
    ("lr", float("nan")),
    ("lr", float("inf")),
    ("lr", "fast"),
    ("lr", "0.1"),
    ("lr_schedule", 1),
    ("momentum", -0.1),
    ("momentum", 1.0),
    ("momentum", 1.1),
    ("momentum", float("nan")),
    ("weight_decay", -0.1),
    ("weight_decay", float("nan")),
    ("weight_decay", [0.1]),
    ("batch_size", 0),
    ("batch_size", 801),
    ("batch_size", 16.0),
    ("hidden_sizes", 8),
    ("hidden_sizes", "8"),
    ("hidden_sizes", [0]),
    ("hidden_sizes", [-8]),
    ("hidden_sizes", [8.5]),
    ("holdout_size", 0),
    ("holdout_size", -1),
    ("device", "gpu"),
    ("device", "cuda:99"),
    ("device", 3.5),
    ("action", None),
    ("rule", 1),
    ("features", ["loss"]),  # without the action rule
    ("weight_range", 1.0),
    ("weight_range", 0.1),
    ("weight_range", float("inf")),
    ("weight_range", float("nan")),
]


@pytest.mark.parametrize("maker", [make, make_vec])
@pytest.mark.parametrize(("name", "value"), ARGUMENTS, ids=[f"{name}={value}" for name, value in ARGUMENTS])
def test_a_wrong_argument_is_named_with_its_value(name, value, maker):
    with pytest.raises((ValueError, TypeError)) as caught:
        maker(**{name: value})
    message = str(caught.value)
    named = ("steps_per_action", "train_steps") if name in ("steps_per_action", "train_steps") else (name,)
    assert any(f"`{one}" in message for one in named)
    assert "Received" in message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_envs", 0),
        ("num_envs", -1),
        ("num_envs", 2.5),
        ("max_episode_steps", 0),
        ("max_episode_steps", -1),
        ("max_episode_steps", 1.5),
        ("render_mode", "human"),
    ],
)
def test_a_wrong_argument_of_the_vector_form_is_named_with_its_value(name, value):
    from mtl_gym.envs.loss_weighting import LossWeightingVectorEnv

    with pytest.raises((ValueError, TypeError), match=f"`{name}` should.*Received"):
        LossWeightingVectorEnv(**{"num_envs": 2, "problem": "quadratic", name: value})


@pytest.mark.parametrize(
    ("problem", "hidden_sizes"),
    [("multimnist", [8]), ("multimnist", []), ("multimnist", [2] * 6), ("stereo", [8]), ("stereo", []), ("quadratic", [8])],
)
def test_widths_that_the_network_cannot_have_are_refused(problem, hidden_sizes):
    with pytest.raises(ValueError, match=r"`hidden_sizes` should.*Received hidden_sizes="):
        make(problem, hidden_sizes=hidden_sizes)


def test_a_batch_larger_than_the_smallest_training_set_is_refused():
    with pytest.raises(ValueError, match="`batch_size` should be at most 80"):
        make(distribution={"size": (0.1, 1.0)}, batch_size=100)


# --- actions ----------------------------------------------------------------------------------------------------------

ACTION = np.zeros(5)


def wrong(entry):
    action = ACTION.copy()
    action[2] = entry
    return action


WRONG_ACTIONS = {
    "too short": ACTION[:4],
    "too long": np.zeros(7),
    "one number": 0.0,
    "two dimensions": np.zeros((2, 5)),
    "NaN": wrong(np.nan),
    "inf": wrong(np.inf),
    "-inf": wrong(-np.inf),
    "above": wrong(1.1),
    "below": wrong(-1.1),
    "far above": wrong(1e300),
    "None": None,
    "text": "abc",
    "ragged": [[0.0], [0.0, 0.0]],
}


@pytest.mark.parametrize("name", WRONG_ACTIONS)
def test_a_wrong_action_is_refused_and_changes_nothing(name):
    env = make()
    action = random_actions(env.action_space, 1)[0]
    env.reset(seed=1)
    env.step(action)
    before = env.unwrapped.state()
    with pytest.raises(REFUSED, match="`action"):
        env.unwrapped.step(WRONG_ACTIONS[name])
    assert not differing(before, env.unwrapped.state())


@pytest.mark.parametrize("name", WRONG_ACTIONS)
def test_wrong_actions_are_refused_and_change_nothing(name):
    env = make_vec()
    env.reset(seed=1)
    before = env.state()
    with pytest.raises(REFUSED, match="`actions`"):
        env.step(WRONG_ACTIONS[name])
    with pytest.raises(REFUSED, match="`actions`"):
        env.step([ACTION, WRONG_ACTIONS[name], ACTION])
    assert not differing(before, env.state())


def test_the_row_of_a_wrong_action_is_named():
    env = make_vec()
    env.reset(seed=1)
    with pytest.raises(ValueError, match=r"Received actions=\[.*1\.5.*\]\. See row 1"):
        env.step([ACTION, wrong(1.5), ACTION])


@pytest.mark.parametrize("mode", ["SameStep", "NextStep", "Disabled"])
def test_step_before_reset_is_refused(mode):
    env = make_vec(autoreset_mode=mode)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.zeros((3, 5)))


def test_scalar_step_before_reset_and_after_the_end_is_refused():
    env = make().unwrapped
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(ACTION)
    env.reset(seed=0)
    env.step(ACTION)
    env.step(ACTION)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(ACTION)


def test_render_before_reset_is_refused():
    with pytest.raises(gymnasium.error.ResetNeeded):
        make_vec(render_mode="rgb_array").render()


# --- resets -----------------------------------------------------------------------------------------------------------

WRONG_OPTIONS = [
    {"instance": -1},
    {"instance": 2**62},
    {"instance": 1.5},
    {"instance": "1"},
    {"instance": None},
    {"instance": True},
    {"instance": [1, 2]},
    {"instance": [1, 2, 3, 4]},
    {"instance": [[1, 2, 3]]},
    {"instance": []},
    {"instance": 2**70},
    {"reset_mask": [True, False, True]},
    {"reset_mask": np.array([True, False])},
    {"reset_mask": np.array([1, 0, 1])},
    {"reset_mask": np.zeros(3, dtype=bool)},
    {"reset_mask": None},
    {"instnce": 3},
]


@pytest.mark.parametrize("options", WRONG_OPTIONS, ids=str)
def test_wrong_options_are_refused_and_change_nothing(options):
    env = make_vec()
    env.reset(seed=1)
    env.step(random_actions(env.action_space, 1)[0])
    before = env.state()
    with pytest.raises(REFUSED, match=r"`options"):
        env.reset(seed=9, options=options)
    assert not differing(before, env.state())


@pytest.mark.parametrize("options", WRONG_OPTIONS[:6] + WRONG_OPTIONS[-1:], ids=str)
def test_wrong_options_of_the_scalar_form_are_refused_and_change_nothing(options):
    env = make().unwrapped
    env.reset(seed=1)
    before, stream = env.state(), env.np_random.bit_generator.state
    with pytest.raises(REFUSED, match=r"`options"):
        env.reset(seed=9, options=options)
    assert not differing(before, env.state())
    assert stream == env.np_random.bit_generator.state


@pytest.mark.parametrize("seed", [-1, "abc", 1.5, True])
def test_wrong_seeds_are_refused_by_the_scalar_form_too(seed):
    env = make()
    env.reset(seed=1)
    before, stream = env.unwrapped.vector.state(), env.unwrapped.np_random.bit_generator.state
    with pytest.raises(REFUSED, match=f"`seed` should be .*Received seed={seed!r}"):
        env.reset(seed=seed)
    assert not differing(before, env.unwrapped.vector.state())
    assert stream == env.unwrapped.np_random.bit_generator.state


@pytest.mark.parametrize("seed", [[1, 2], [1, 2, 3, 4], -1, [5, 6, -1], [5, 6, 1.5], "abc", 1.5])
def test_wrong_seeds_are_refused_and_change_nothing(seed):
    env = make_vec()
    env.reset(seed=1)
    before = env.state()
    with pytest.raises(REFUSED, match="`seed` should be "):
        env.reset(seed=seed)
    assert not differing(before, env.state())


def test_a_partial_reset_before_the_first_is_refused():
    with pytest.raises(gymnasium.error.ResetNeeded):
        make_vec().reset(options={"reset_mask": np.array([True, False, True])})

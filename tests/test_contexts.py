"""The caller's modes and defaults of torch, and threads: the bits of every environment stay the same."""

import contextlib
import copy
import functools
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from rollouts import (
    IDS,
    LOSS_WEIGHTING,
    SAMPLE_WEIGHTING,
    TASK_GROUPING,
    TRAINING,
    make,
    make_vec,
    play,
    random_actions,
    same,
    slow_unless,
)
from torch.autograd import forward_ad

import mtl_gym
from mtl_gym import agents
from mtl_gym.agents.igbv2 import IGBv2
from mtl_gym.context import own_mode
from mtl_gym.decisions.grouping.known_groups import _remembered
from mtl_gym.environments import specification
from mtl_gym.problems import _load
from mtl_gym.problems.base import SPLITS
from mtl_gym.training.references import _known

OBSERVED = {env_id: list(specification(env_id).observations) for env_id in IDS}


@contextlib.contextmanager
def default(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


CONTEXTS = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu"),
    "device": lambda: torch.device("meta"),
    **{str(dtype)[6:]: functools.partial(default, dtype) for dtype in (torch.float64, torch.bfloat16, torch.float16)},
}


@pytest.mark.parametrize("maker", [make, pytest.param(make_vec, marks=pytest.mark.slow)])
@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("env_id", IDS)
def test_the_callers_modes_change_nothing(env_id, context, maker):
    settings = {"observe": OBSERVED[env_id], "train_steps": 12, "num_tasks": 3}
    if env_id == TASK_GROUPING:  # what was trained before is remembered: an instance for each context
        settings["affinity_every"] = 2 + 2 * [*CONTEXTS].index(context) + (maker is make)
    twin = maker(env_id=env_id, **settings)
    actions = random_actions(twin.action_space, 3)
    with CONTEXTS[context]():
        env = maker(env_id=env_id, **settings)
        answers = play(env, actions[:1], seed=1)
        kept = env.unwrapped.state()
        answers += [env.step(action) for action in actions[1:2]]
        env.unwrapped.restore(kept)
        again = env.step(actions[1])
        answers += [env.step(actions[2])]
    if env_id == TASK_GROUPING:
        _remembered.clear()
    expected = play(twin, actions, seed=1)
    assert same(answers, expected)
    assert same(again, expected[2])
    assert torch.get_default_dtype() is torch.float32


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))], ids=["deepcopy", "pickle"])
@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("env_id", IDS)
def test_an_environment_copied_in_the_callers_modes_continues(env_id, context, copied):
    env = make(env_id=env_id, train_steps=12, num_tasks=3).unwrapped
    actions = random_actions(env.action_space, 3)
    play(env, actions[:1], seed=1)
    with CONTEXTS[context]():
        own = copied(env)
    assert same([own.step(action) for action in actions[1:]], [env.step(action) for action in actions[1:]])


@pytest.mark.parametrize("context", CONTEXTS)
def test_references_are_trained_as_ever_in_the_callers_modes(context, tmp_path):
    answers, settings = [], {"reward": "terminal_delta_m", "lr": 0.01 + 0.001 * [*CONTEXTS].index(context), "num_envs": 1}
    for number, own in enumerate((CONTEXTS[context], contextlib.nullcontext)):
        _known.clear()
        env = make_vec("quadratic", **settings)
        with own(), pytest.MonkeyPatch.context() as patch:
            patch.setenv("MTL_GYM_CACHE", str(tmp_path / str(number)))
            answers.append(play(env, random_actions(env.action_space, 2)))
    assert same(*answers)


@pytest.mark.parametrize("context", slow_unless(lambda context: context == "float64", CONTEXTS))
def test_compare_is_the_same_in_the_callers_modes(context, monkeypatch, tmp_path):
    frames = []
    for number, own in enumerate((CONTEXTS[context], contextlib.nullcontext)):
        monkeypatch.setenv("MTL_GYM_CACHE", str(tmp_path / str(number)))  # references are trained anew
        with own():
            frames.append(mtl_gym.compare("ew,si,cagrad,ppo", problem="digits", instances=2, train_steps=40))
    assert frames[0].equals(frames[1])


@pytest.mark.parametrize("context", slow_unless(lambda context: context == "float64", CONTEXTS))
def test_agents_are_the_same_in_the_callers_modes(context, tmp_path):
    found = []
    for number, own in enumerate((CONTEXTS[context], contextlib.nullcontext)):
        with own():
            agents.train(out=tmp_path / str(number), time_steps=8, options={"batch_size": 4, "n_epochs": 1}, **TRAINING)
            agent = agents.load(tmp_path / str(number))
            env = make(**{name: TRAINING[name] for name in ("problem", "train_steps")})
            found.append((agent.parameters, agent.predict(env.reset(options={"instance": 3})[0], deterministic=True)[0]))
    for name, values in found[1][0].items():
        assert torch.equal(found[0][0][name], values), name
    assert np.array_equal(found[0][1], found[1][1])


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("name", ["quadratic", "digits"])
def test_a_problem_loaded_in_the_callers_modes_has_the_same_data(name, context):
    with CONTEXTS[context]():
        loaded = _load.__wrapped__(name)
    expected = _load(name)
    for split in SPLITS:
        own, other = loaded.splits[split], expected.splits[split]
        assert torch.equal(own.inputs, other.inputs)
        assert torch.equal(own.targets.nan_to_num(-1), other.targets.nan_to_num(-1))
        assert not own.inputs.is_inference()


def test_what_is_set_for_the_process_is_left_alone():
    with default(torch.float64), own_mode():
        assert torch.get_default_dtype() is torch.float64  # as other threads see it
        assert torch.zeros(1).dtype is torch.tensor([0.5]).dtype is torch.full((1,), 0.5).dtype is torch.float32
        assert (
            (torch.tensor([1]) / 2).dtype
            is (1 / torch.tensor([2])).dtype
            is (torch.ones(1) / torch.tensor([3])).dtype
            is torch.float32
        )
        assert torch.tensor([1]).div(3).dtype is torch.div(torch.tensor([1]), 3).dtype is torch.float32
        assert torch.tensor([1]).dtype is torch.arange(2).dtype is torch.int64
        assert torch.zeros(1, dtype=torch.float64).dtype is torch.float64


def episode(env_id, seed):
    env = make(env_id=env_id, observe=OBSERVED[env_id], train_steps=12, num_tasks=3)
    return play(env, random_actions(env.action_space, 3), seed=seed)


@pytest.mark.parametrize("ids", [IDS, (SAMPLE_WEIGHTING,) * 2, (LOSS_WEIGHTING,) * 2, (TASK_GROUPING,) * 2])
def test_environments_in_threads_do_not_disturb_each_other(ids):
    alone = [episode(own, seed) for seed, own in enumerate(ids)]
    _remembered.clear()
    with ThreadPoolExecutor(len(ids)) as pool:
        together = list(pool.map(episode, ids, range(len(ids))))
    assert same(alone, together)


def test_a_thread_does_not_see_the_modes_of_another():
    with torch.no_grad(), ThreadPoolExecutor(1) as pool:
        env = pool.submit(make).result()
        answers = play(env, random_actions(env.action_space, 2))
    assert all(np.isfinite(value).all() for value in answers[-1][0].values())


@pytest.mark.parametrize("context", CONTEXTS)
def test_an_agent_that_learns_while_it_plays_is_the_same_in_the_callers_modes(context):
    answers = []
    for own in (CONTEXTS[context], contextlib.nullcontext):
        agent, memory = IGBv2(), IGBv2().initial_state(np.array([3]), 2)
        with own():
            for step in range(40):
                losses = np.log([[1 / (step + 1), 0.5 + 0.01 * step]]).astype(np.float32)
                seen = {"log_loss": losses, "epoch": np.array([[step // 4]]), "lr": np.array([[1e-3]], dtype=np.float32)}
                actions, memory = agent.predict(seen, memory, np.zeros(1, dtype=bool))
        answers.append(actions)
    assert np.array_equal(*answers)


def test_the_level_of_forward_mode_of_somebody_else_is_named():
    env = make(env_id=SAMPLE_WEIGHTING)
    with forward_ad.dual_level(), pytest.raises(RuntimeError, match="dual_level` should be left before"):
        env.reset(seed=0)
    answers = play(env, random_actions(env.action_space, 2), seed=0)
    assert same(answers, play(make(env_id=SAMPLE_WEIGHTING), random_actions(env.action_space, 2), seed=0))


def test_an_action_may_be_a_tensor_with_a_gradient():
    for env, rows in ((make(), 1), (make_vec(num_envs=2), 2)):
        shape = env.action_space.shape
        env.reset(seed=0)
        one = env.step(torch.zeros(shape, requires_grad=True))[1]
        env.reset(seed=0)
        assert np.array_equal(one, env.step(np.zeros(shape))[1])
        assert rows == np.size(one)

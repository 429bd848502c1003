"""Agents trained on several problems side by side."""

import json

import gymnasium
import numpy as np
import pytest
from rollouts import TRAINING
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from typer.testing import CliRunner

import mtl_gym
from mtl_gym import agents
from mtl_gym.agents.leave_one_out import LeaveOneOut
from mtl_gym.agents.mixture import Mixture, Standardised
from mtl_gym.agents.settings import Settings, check_settings
from mtl_gym.agents.sources import sources_of
from mtl_gym.agents.vec_env import VectorEnvAdapter
from mtl_gym.cli import full_app
from mtl_gym.environments import LOSS_WEIGHTING
from mtl_gym.problems import load_problem

SHORT = {"train_steps": 40, "steps_per_action": 10, "action": "softmax"}
SOURCES = {
    "quadratic": {"problem": "quadratic", **SHORT},
    "relations": {"problem": "relations", "tasks": ["b0_t0", "b1_t0", "b2_t0"], "optimizer": "sgd", "lr": 0.1, **SHORT},
}
MIXED = {name: value for name, value in TRAINING.items() if name not in ("problem", "train_steps")} | {
    "problem": list(SOURCES.values()),
    "num_envs": 8,
    "time_steps": 32,
    "options": {"n_epochs": 1, "batch_size": 32},
}


def adapter(rows=4, env="mtl_gym/LossWeighting-v0", **arguments):
    return VectorEnvAdapter(gymnasium.make_vec(env, num_envs=rows, vectorization_mode="vector_entry_point", **arguments))


def mixture():
    return Mixture({name: LeaveOneOut(adapter(**own), 2) for name, own in SOURCES.items()})


def actions(envs, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (envs.num_envs, *envs.action_space.shape)).astype(np.float32)


def test_a_mixture_is_its_sources_side_by_side():
    envs, alone = mixture(), [LeaveOneOut(adapter(**own), 2) for own in SOURCES.values()]
    envs.seed(5)
    for own, seed in zip(alone, (5, 9), strict=True):
        own.seed(seed)
    observations, others = envs.reset(), [own.reset() for own in alone]
    for step in range(9):
        for name, values in observations.items():
            np.testing.assert_array_equal(values, np.concatenate([own[name] for own in others]))
        chosen = actions(envs, step)
        observations, rewards, dones, infos = envs.step(chosen)
        answers = [own.step(part) for own, part in zip(alone, np.split(chosen, 2), strict=True)]
        others = [answer[0] for answer in answers]
        np.testing.assert_array_equal(rewards, np.concatenate([answer[1] for answer in answers]))
        np.testing.assert_array_equal(dones, np.concatenate([answer[2] for answer in answers]))
        assert [info["instance"] for info in infos] == [info["instance"] for answer in answers for info in answer[3]]
    assert len({info["instance"] for info in envs.reset_infos}) == 4  # two families in each source
    assert envs.get_attr("arguments", [0, 7])[1].problem is load_problem("relations")
    assert not envs.has_attr("action_masks")
    envs.close()


def test_rewards_are_divided_by_their_deviation_but_no_less_than_the_floor():
    plain, tight, wide = (LeaveOneOut(adapter(**SOURCES["quadratic"]), 2) for _ in range(3))
    tight, wide = Standardised(tight, 1e-9), Standardised(wide, 1e9)
    for envs in (plain, tight, wide):
        envs.seed(5)
        envs.reset()
    for step in range(4):
        own, scaled, floored = (envs.step(actions(envs, step))[1] for envs in (plain, tight, wide))
        np.testing.assert_allclose(scaled, own / np.sqrt(np.mean(own.astype(np.float64) ** 2)), rtol=1e-5)
        np.testing.assert_allclose(floored, own / 1e9, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"problem": "yeast", "tasks": None}, "have the same actions everywhere; 'quadratic' has Box.*action=.rule."),
        ({"observe": ["gap"]}, "`problem` should have the same observations everywhere; 'last_weights' is Box"),
    ],
)
def test_sources_that_differ_in_what_is_seen_or_done_are_refused(changes, message):
    other = {**SOURCES["relations"], **changes}
    with pytest.raises(ValueError, match=message):
        Mixture({"quadratic": adapter(**SOURCES["quadratic"]), "other": adapter(**other)})


def test_sources_are_named_in_lists_and_texts_with_arguments_of_their_own():
    def found(problem):
        return [(own["problem"], own["lr"]) for own in sources_of(problem, LOSS_WEIGHTING, {"lr": 0.1})]

    both = [("digits", 0.1), ("yeast", 0.1)]
    assert found(["digits", "yeast"]) == found("digits, yeast") == both
    assert found([load_problem("digits"), {"problem": "yeast"}]) == both
    assert found('[{"problem": "digits", "lr": 0.2}, "yeast"]') == [("digits", 0.2), both[1]]
    [lasting] = sources_of([{"problem": "digits", "decisions": 15}], LOSS_WEIGHTING, {})
    assert "steps_per_action" not in lasting  # the default of agents


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        ([], "at least one problem"),
        ("[1,", "be a list in JSON"),
        ([{"lr": 1e-3}], "be named in the arguments of each source"),
        ("digits,nothing", "nothing"),
        ([{"problem": "digits", "lrr": 1}], "lrr"),
    ],
)
def test_wrong_sources_are_refused(problem, message, tmp_path):
    with pytest.raises((ValueError, TypeError), match=message):
        agents.train(problem, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_envs": 6}, "num_envs=6 over 2 sources"),
        (
            {"problem": [SOURCES["quadratic"], {**SOURCES["relations"], "steps_per_action": 5}]},
            "steps_per_action.*same for all problems",
        ),
        ({"num_envs": 7, "rollouts_per_instance": None}, "`num_envs` should be a multiple of 2, the number of problems.*Take 8"),
        (
            {"problem": [SOURCES["quadratic"], {**SOURCES["relations"], "train_steps": 30}]},
            "as many decisions in an episode everywhere",
        ),
        (
            {"problem": [{**SOURCES["quadratic"], "reward": "quality"}, SOURCES["relations"]]},
            "`quality` for all problems or for none",
        ),
        ({"problem": 3}, "`problem` should be a name, a Problem"),
        (
            {"observe": ["pooled_slope", "cosines"], "problem": [{**own, "action": "rule"} for own in SOURCES.values()]},
            "not hold cosines where all else is pooled.*pooled_cosine",
        ),
        ({"observe": ["pooled_slope", "progress"]}, "hold at least one observation of each task"),
        ({"reward_floor": 0.0}, "reward_floor"),
        ({"reward_floor": 0.1, "rollouts_per_instance": 1}, "without rollouts of the same instance"),
        ({"problem": [SOURCES["relations"], {**SOURCES["relations"], "autoreset_mode": "NextStep"}]}, "autoreset_mode"),
    ],
)
def test_what_does_not_fit_a_mixture_is_refused(changes, message, tmp_path):
    with pytest.raises((ValueError, TypeError), match=message):
        agents.train(out=tmp_path / "out", **(MIXED | changes))
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("mixed")
    return out, agents.train(out=out, reward_floor=0.01, references=["ew"], **{k: v for k, v in MIXED.items() if k != "references"})


def test_an_agent_of_a_mixture_says_what_it_was_trained_on(trained):
    about = trained[1].about
    assert about["environment"]["arguments"]["problem"] == "quadratic,relations"
    assert about["environment"]["arguments"]["train_steps"] == 40
    assert "optimizer" not in about["environment"]["arguments"]  # in which its sources differ
    assert about["environment"]["problem"] == [load_problem(name).identity for name in SOURCES]
    scores = about["scores"][-1]
    assert scores["reward"] == pytest.approx((scores["reward/quadratic"] + scores["reward/relations"]) / 2)


def test_every_source_has_curves_of_its_own(trained):
    events = EventAccumulator(str(trained[0] / "events" / "ew"))
    events.Reload()
    assert {f"heldout/{kind}/{name}" for kind in ("delta_m", "return") for name in SOURCES} <= set(events.Tags()["scalars"])


@pytest.mark.slow
def test_an_interrupted_mixture_ends_as_if_it_had_not_been(tmp_path):
    def stop(steps, known):
        raise KeyboardInterrupt

    settings = MIXED | {"time_steps": 64, "evaluations": 2, "instances": 1, "reward_floor": 0.01}
    with pytest.raises(KeyboardInterrupt):
        agents.train(out=tmp_path / "a", on_progress=stop, **settings)
    for name in "ab":
        agents.train(out=tmp_path / name, **settings)
    for name in ("last", "best", "checkpoint"):
        assert (tmp_path / "a" / f"{name}.safetensors").read_bytes() == (tmp_path / "b" / f"{name}.safetensors").read_bytes()


def test_another_source_in_the_same_folder_is_refused_and_named(trained):
    others = [SOURCES["quadratic"], {**SOURCES["relations"], "lr": 0.2}]
    with pytest.raises(ValueError, match="`others` should be"):
        agents.train(out=trained[0], **(MIXED | {"problem": others, "reward_floor": 0.01, "references": ["ew"]}))


@pytest.mark.slow
def test_the_command_trains_on_a_mixture(tmp_path):
    words = ["train", "--problem", json.dumps(MIXED["problem"]), "--out", str(tmp_path / "out"), "--num-envs", "8", "--quiet"]
    words += ["--time-steps", "32", "--evaluations", "1", "--instances", "1", "--rollouts-per-instance", "2", "--references", "ew"]
    answer = CliRunner().invoke(full_app(), words)
    assert answer.exit_code == 0, answer.output
    assert [line.split()[5] for line in answer.stdout.splitlines() if line.startswith("compare it")] == ["quadratic", "relations"]


# --- any number of tasks ----------------------------------------------------------------------------------------------

POOLED = ["pooled_log_loss", "pooled_slope", "pooled_overfit", "log_num_tasks", "progress"]
ANY_K = {"action": "rule", "features": ["first", "loss"], "observe": POOLED, "decisions": 4, "reward": "quality"}


@pytest.fixture(scope="module")
def transferring(tmp_path_factory):
    """An agent that was trained on 2, 3 and 5 tasks side by side, with other lengths, rates and optimisers."""
    sources = [
        {"problem": "teachers", "num_tasks": 2, "train_steps": 40, "reward_every": 40},
        {"problem": "quadratic", "train_steps": 20, "reward_every": 20, "optimizer": "sgd", "lr": 0.05},
        {"problem": "tox21", "num_tasks": 5, "train_steps": 40, "reward_every": 40, "hidden_sizes": [4], "batch_size": 64},
    ]
    given = MIXED | {"problem": sources, "num_envs": 12, "time_steps": 96, "reward_floor": 0.01, "distribution": "varied"}
    given["options"] = {"n_epochs": 1, "batch_size": 48}
    out = tmp_path_factory.mktemp("any")
    return out, agents.train(out=out, **given, **ANY_K)


@pytest.mark.parametrize(("problem", "num_tasks", "train_steps"), [("teachers", 2, 40), ("teachers", 6, 60), ("yeast", 14, 12)])
def test_an_agent_of_coefficients_plays_with_any_number_of_tasks_and_any_length(problem, num_tasks, train_steps, transferring):
    given = {"problem": problem, "num_tasks": num_tasks, "train_steps": train_steps, "instances": 2, "batch_size": 32}
    frame = mtl_gym.compare({"agent": transferring[1], "ew": "ew"}, LOSS_WEIGHTING, **given)
    assert frame.groupby("policy", observed=True)["delta_m"].first().notna().all()


def test_what_an_agent_of_coefficients_does_depends_on_what_it_sees(transferring):
    agent = transferring[1]
    rng = np.random.default_rng(0)
    lengths = {name: 4 if name.startswith("pooled") else 1 for name in POOLED}
    seen = {name: rng.normal(size=(3, length)).astype(np.float32) for name, length in lengths.items()}
    chosen, _ = agent.predict(seen, deterministic=True)
    assert chosen.shape == (3, 3)
    for name in POOLED:
        others = agent.predict({**seen, name: seen[name] + 1}, deterministic=True)[0]
        assert not np.array_equal(chosen, others), name


def test_an_agent_with_residuals_plays_with_any_number_of_tasks_and_needs_the_same_one_to_train_on(tmp_path):
    seen = {"observe": ["progress", "log_loss_mean", "pooled_log_loss"], "residual_reach": 0.5}
    given = {**MIXED, **ANY_K, **seen, "num_envs": 8, "time_steps": 32, "options": {"n_epochs": 1, "batch_size": 16}}
    sources = [{"problem": "quadratic", "train_steps": 20, "reward_every": 20, "num_tasks": count} for count in (3, 2)]
    with pytest.raises(ValueError, match="same actions everywhere"):
        agents.train(out=tmp_path / "two", **given | {"problem": sources})
    agent = agents.train(out=tmp_path / "one", **given | {"problem": sources[:1]})
    arguments = {"problem": "teachers", "num_tasks": 5, "train_steps": 40, "instances": 2, "batch_size": 32}
    frame = mtl_gym.compare({"agent": agent, "ew": "ew"}, LOSS_WEIGHTING, **arguments)
    assert frame.groupby("policy", observed=True)["delta_m"].first().notna().all()


def test_a_default_of_the_environment_is_the_same_given_or_not(tmp_path):
    given = check_settings_of([{**SOURCES["quadratic"], "gradient_ema": 0.0}, SOURCES["relations"]])
    assert len(given.sources) == 2


def check_settings_of(problem):
    given = sources_of(problem, LOSS_WEIGHTING, {})
    sizes = {"time_steps": 8, "seed": 0, "num_envs": 8, "rollouts_per_instance": 2, "evaluations": 1, "instances": 1}
    fixed = {"env": LOSS_WEIGHTING, "algorithm": "ppo", "options": {}, "references": []}
    return check_settings(Settings(arguments=given[0], others=given[1:], **fixed, **sizes))


def test_the_files_agent_is_the_trained_one(transferring):
    out, agent = transferring
    assert agents.load(out).spec == agent.spec
    assert agents.load(out).requires.arguments()["decisions"] == 4

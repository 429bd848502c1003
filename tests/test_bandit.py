"""The bandit of ``benchmarks/bandit.py`` finds what is planted in a logged set, and leaves `init` only where that helps."""

import io

import numpy as np
import pytest
import torch

from benchmarks.bandit import INIT, PLAIN, RUN, Logs, Regression, finals, learned
from benchmarks.folds import training_sources
from benchmarks.logged import DECISIONS, LENGTHS, OBSERVED, OTHERS, RATES, SWITCHES, chunk_file, collected, drawn, drawn_settings
from benchmarks.rules import COLUMNS, REACH
from mtl_gym import agents
from mtl_gym.decisions.task_features import DEFAULT_FEATURES
from mtl_gym.envs.observations import OBSERVATIONS, SIZES

SOURCE = {"problem": "teachers", "num_tasks": 2}
LOSS = 2  # the place of the coefficient of `loss`


def logged_set(folder, worth, instances=1200, siblings=4, seed=0):
    """A logged set in which ``worth(actions, progress)`` is what siblings gain, with noise."""
    rng = np.random.default_rng(seed)
    seen = {name: rng.normal(size=(instances, SIZES[OBSERVATIONS[name].size][1](2, 8))).astype(np.float32) for name in OBSERVED}
    seen["progress"] = rng.random((instances, 1)).astype(np.float32)
    actions = np.float32(drawn(rng, instances * siblings) / REACH).reshape(instances, siblings, -1)
    actions[:, 0] = INIT
    quality = worth(actions, seen["progress"]) + 0.2 * rng.normal(size=(instances, siblings)) + 50 * rng.normal(size=(instances, 1))
    chunk = {**{f"x_{name}": own for name, own in seen.items()}, "actions": actions, "quality": quality}
    chunk["diverged"] = np.zeros_like(quality, bool)
    for number, rows in enumerate(np.split(np.arange(instances), instances // 50)):
        file = chunk_file(SOURCE, number, folder)
        file.parent.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()
        np.savez(content, **{name: own[rows] for name, own in chunk.items()}, switch=np.array(1))
        file.write_bytes(content.getvalue())


def said(agent, progress):
    observation = {name: np.zeros((1, SIZES[OBSERVATIONS[name].size][1](2, 8)), np.float32) for name in agent.about["observations"]}
    observation["progress"][:] = progress
    actions = agent.predict(observation, deterministic=True)[0][0]
    return actions * REACH[[0, *(1 + DEFAULT_FEATURES.index(name) for name in agent.about["environment"]["arguments"]["features"])]]


def test_a_planted_optimum_is_found_and_survives_the_file(tmp_path):
    logged_set(tmp_path, lambda actions, progress: -40 * (actions[..., LOSS] - 0.1) ** 2)  # of the action; 0.2 of the coefficient
    agent = learned([SOURCE], 0, features=PLAIN, inputs="nothing", steps=500, folder=tmp_path)
    found = said(agents.load(agent.save(tmp_path / "agent")), 0.5)
    assert found[LOSS] == pytest.approx(0.2, abs=0.1)
    assert found[1] == pytest.approx(1, abs=0.3)  # the coefficient of `first`, which is worth nothing, stays that of `init`


def test_coefficients_follow_what_is_observed(tmp_path):
    logged_set(tmp_path, lambda actions, progress: 20 * (progress - 0.5) * actions[..., LOSS])
    agent = learned([SOURCE], 0, features=PLAIN, steps=150, folder=tmp_path)
    early, late = said(agent, 0.05)[LOSS], said(agent, 0.95)[LOSS]
    assert early < -0.15 < 0.15 < late


def test_with_caution_it_stays_at_init_where_nothing_is_worth_anything(tmp_path):
    logged_set(tmp_path, lambda actions, progress: 0 * actions[..., LOSS])
    found = said(learned([SOURCE], 0, features=PLAIN, caution=4.0, steps=150, folder=tmp_path), 0.5)
    assert found == pytest.approx([0, 1, 0, 0, 0], abs=0.3)


def test_without_held_out_losses_none_are_observed_or_used(tmp_path):
    logged_set(tmp_path, lambda actions, progress: 5 * actions[..., 1 + DEFAULT_FEATURES.index("overfit")])
    agent = learned([SOURCE], 0, features=PLAIN, inputs="no held-out losses", steps=5, folder=tmp_path)
    assert not {name for name in agent.about["observations"] if "overfit" in name or "meta" in name}
    assert agent.about["environment"]["arguments"]["features"] == ["first", "loss", "base", "gap"]


def test_a_training_that_diverged_is_the_worst(tmp_path):
    logged_set(tmp_path, lambda actions, progress: actions[..., LOSS])
    file = chunk_file(SOURCE, 0, tmp_path)
    chunk = dict(np.load(file))
    chunk["diverged"][3, 2], chunk["diverged"][5, 0] = True, True
    chunk["quality"][7, 3] = np.nan
    np.savez(file, **chunk)
    gains = Logs([SOURCE], tmp_path).gains
    assert gains[3, 2] == gains[7, 3] == gains.min() == -3
    assert (gains[5] == 0).all()  # there is nothing to compare with
    assert torch.isfinite(gains).all()


def test_a_source_without_a_logged_set_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no logged set of teachers.*benchmarks\.logged"):
        Logs([SOURCE], tmp_path)


def test_regressions_agree_with_an_oracle_on_exact_gains(tmp_path):
    logged_set(tmp_path, lambda actions, progress: 0 * actions[..., 0])
    logs, used = Logs([SOURCE], tmp_path), torch.ones(len(REACH), dtype=torch.bool)
    logs.gains = 6 * (logs.actions - INIT)[..., LOSS] + (logs.actions - INIT)[..., 0] * (logs.actions - INIT)[..., 1]
    found = Regression(logs, torch.arange(len(logs.gains)), (), used)
    expected = found(logs.seen, torch.arange(4), logs.actions[:4])[0]
    assert np.corrcoef(expected.flatten(), logs.gains[:4].flatten())[0, 1] > 0.98
    assert (expected[:, 0].abs() < 1e-7).all()  # `init`


def test_siblings_share_what_they_observe_and_differ_in_what_they_do():
    chunk = collected(SOURCE, 1, 2, train_steps=30)
    assert chunk["switch"] == SWITCHES[1]
    assert chunk["x_progress"].shape == (2, 1)
    assert chunk["actions"].shape == (2, 4, len(REACH))
    assert (chunk["actions"][:, 0] == INIT.numpy().astype(np.float32)).all()
    assert len(np.unique(chunk["quality"])) == 8
    again = collected(SOURCE, 1, 2, train_steps=30)
    assert all((again[name] == own).all() for name, own in chunk.items())
    others = [place for place, name in enumerate(COLUMNS) if name in ("slope", "overfit", "overfit_slope")]
    assert (np.abs(chunk["actions"][..., others]) <= OTHERS + 1e-6).all()


def test_chunks_differ_in_what_would_tell_their_source():
    for source in training_sources(None):
        found = [drawn_settings(source, number) for number in range(16)]
        assert found == [drawn_settings(source, number) for number in range(16)]
        assert len({own["train_steps"] for own in found}) == len(LENGTHS)
        assert len({own["num_tasks"] for own in found}) > 1
        assert all(own["train_steps"] % DECISIONS == 0 and own["distribution"]["lr"] == RATES for own in found)
        whole = [own["distribution"].get("labels", (1.0, 1.0)) == (1.0, 1.0) for own in found]
        assert source["problem"] == "teachers" or whole == [False, True] * 8


def test_an_agent_that_observes_no_task_plays_with_any_number_of_them(tmp_path):
    logged_set(tmp_path, lambda actions, progress: 20 * (progress - 0.5) * actions[..., LOSS])
    learned([SOURCE], 0, features=PLAIN, inputs="run", steps=20, folder=tmp_path).save(tmp_path / "agent")
    agent = agents.load(tmp_path / "agent.safetensors")
    assert [*agent.about["observations"]] == [*RUN]
    for count in (1, 3):
        assert np.isfinite(finals(agent, {"problem": "quadratic", "num_tasks": count, "train_steps": 30}, range(2))).all()

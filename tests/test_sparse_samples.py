"""Heuristics over samples where 60 % of the labels are missing and 40 % of the others are wrong, checked against the labels."""

import functools

import gymnasium
import numpy as np
import pytest
import torch
from rollouts import SAMPLE_WEIGHTING, with_splits

from mtl_gym.policies.grammar import make_policy
from mtl_gym.problems import load_problem
from mtl_gym.problems.base import Split

TASKS, BATCH = ["digit", "parity", "loop"], 64
LABELLED, WRONG = 0.4, 0.4


@functools.cache
def sparse():
    """The digits with 60 % of each task's training labels missing, at random."""
    split, rng = load_problem("digits_scales").splits["train"], np.random.default_rng(0)
    targets = split.targets.clone()
    for own in load_problem("digits_scales").target_slices:
        targets[torch.from_numpy(rng.random(len(split)) > LABELLED), own] = torch.nan
    return with_splits("digits_scales", train=Split(split.inputs, targets))


@functools.cache
def played(text, steps=90, last=30):
    """A policy's weights in the last batches (batches, N, B, K), and which samples were labelled and right there."""
    policy = make_policy(text)
    seen_by_it = policy.requires.observe
    env = gymnasium.make_vec(
        SAMPLE_WEIGHTING,
        num_envs=2,
        vectorization_mode="vector_entry_point",
        **{"problem": sparse(), "tasks": TASKS, "main_task": "digit", "distribution": {"noise": (WRONG, WRONG)}, "reward": "none"},
        **{"action": "weights", "steps_per_action": 1, "train_steps": steps, "batch_size": BATCH, "hidden_sizes": [32], "lr": 1e-2},
        lr_schedule="constant",
        observe=[*dict.fromkeys((*seen_by_it, "sample_labelled", "label_right"))],
    )
    seen, _ = env.reset(options={"instance": [0, 1]})
    memory, kept = None, []
    for step in range(steps):
        shown = {name: seen[name] for name in seen_by_it}
        actions, memory = policy.predict(shown, memory)
        if step >= steps - last:
            kept.append([own.reshape(2, BATCH, len(TASKS)) for own in (actions, seen["sample_labelled"], seen["label_right"])])
        seen = env.step(actions)[0]
    env.close()
    weights, labelled, right = (np.stack(own) for own in zip(*kept, strict=True))
    return weights, labelled > 0, right > 0


def precision(text, task=slice(None)):
    """The fraction of right labels, weighted by the weights of labelled samples, and unweighted."""
    weights, labelled, right = (own[..., task] for own in played(text))
    weights = weights * labelled
    return float((weights * right).sum() / weights.sum()), float(right.sum() / labelled.sum())


def test_labels_are_missing_and_wrong_as_planted():
    _, labelled, right = played("small-loss:ramp=1")
    assert labelled.mean() == pytest.approx(LABELLED, abs=0.03)
    assert not (right & ~labelled).any()
    chance = np.mean([1 / 10, 1 / 2, 1 / 2])  # of digit, parity and loop, that another's label is right
    assert right.sum() / labelled.sum() == pytest.approx(1 - WRONG * (1 - chance), abs=0.03)


EASY = "self-paced:growth=1"  # with the default, all samples are easy enough by then
SELECTING = ("small-loss:ramp=1", EASY, "ohem", "oracle", "slgrad", "l2rw")


@pytest.mark.parametrize("text", SELECTING)
def test_unlabelled_samples_have_no_weight(text):
    weights, labelled, _ = played(text)
    assert not weights[~labelled].any()
    assert weights[labelled].any()


@pytest.mark.parametrize("text", ["small-loss:ramp=1", EASY, "slgrad", "l2rw"])
def test_what_is_selected_is_right_more_often_than_by_chance(text):
    chosen, chance = precision(text, task=0)  # of the main task, which has the most classes
    assert chosen > chance + 0.02


def test_the_oracle_selects_all_right_labels_and_nothing_else():
    weights, labelled, right = played("oracle")
    assert ((weights > 0) == (right & labelled)).all()
    assert precision("oracle")[0] == 1


@pytest.mark.parametrize("text", ["ohem", "focal"])
def test_hard_examples_are_wrong_more_often_than_by_chance(text):
    chosen, chance = precision(text, task=0)
    assert chosen < chance - 0.05


def test_small_loss_and_ohem_keep_their_fractions_of_the_labelled_samples():
    for text, fraction in (("small-loss:ramp=1", 0.6), ("ohem", 0.25)):
        weights, labelled, _ = played(text)
        counts = labelled.sum(2)
        np.testing.assert_array_equal((weights > 0).sum(2), np.ceil(np.float32(fraction) * counts - 1e-4))
        np.testing.assert_allclose(weights.sum(2), counts, rtol=1e-5)  # weights average 1 over the labelled samples


@pytest.mark.parametrize("text", ["slgrad", "oracle"])
def test_weights_average_one_over_the_labelled_samples_of_all_tasks(text):
    weights, labelled, _ = played(text)
    np.testing.assert_allclose(weights.sum((2, 3)), labelled.sum((2, 3)), rtol=1e-4)


def test_gcs_and_ol_aux_weigh_all_samples_of_a_task_alike():
    for text in ("gcs", "ol-aux"):
        weights = played(text)[0]
        assert (weights == weights[:, :, :1]).all()
        assert (weights >= 0).all()


@pytest.mark.slow
def test_the_weights_of_ol_aux_move_at_its_defaults():
    moved = {}
    for text in ("ol-aux", "ol-aux:of=loss:beta=1"):
        policy, memory = make_policy(text), None
        env = gymnasium.make_vec(
            SAMPLE_WEIGHTING,
            num_envs=2,
            vectorization_mode="vector_entry_point",
            **{"problem": "digits_scales", "distribution": "noisy", "reward": "none", "action": "weights"},
            **{"steps_per_action": 1, "train_steps": 200, "lr_schedule": "constant"},
            observe=list(policy.requires.observe),
        )
        seen, _ = env.reset(options={"instance": [0, 2]})
        for _ in range(200):
            actions, memory = policy.predict(seen, memory)
            seen = env.step(actions)[0]
        env.close()
        moved[text] = abs(memory["weights"] - 1).max(1)
    assert (moved["ol-aux"] > 0.3).all()
    assert (moved["ol-aux:of=loss:beta=1"] < 0.1).all()

"""Schedules that are found by searching over forked trainings."""

import gymnasium
import numpy as np
import pytest
from rollouts import IDS, small

import mtl_gym
from mtl_gym.environments import LAYER_MERGING, LOSS_WEIGHTING, TASK_GROUPING, specification
from mtl_gym.evaluation.best_known import best_known, constants, trainings
from mtl_gym.evaluation.single_task import reference_metrics
from mtl_gym.problems.scores import delta_m

SMALL = {"problem": "quadratic", "train_steps": 48, "batch_size": 16}


def own(env_id):
    given = {name: value for name, value in small(env_id=env_id).items() if name != "steps_per_action"}
    return given | ({"num_tasks": 3} if env_id == TASK_GROUPING else {"train_steps": 40})


def replayed(env_id, found, split, **arguments):
    """``delta_m`` of a schedule that is played alone."""
    envs = trainings(env_id, 1, arguments)
    envs.reset(options={"instance": [found.instance]})
    for action in found.schedule:
        if not envs.finished.all():
            envs.step(np.asarray([action], dtype=envs.single_action_space.dtype))
    assert envs.finished.all()
    metrics = envs.decision.trainings.metrics(split)
    main = envs.arguments.recipe.main_task
    names = [name for name in envs.decision.trainings.ledger.metric_names(0) if main is None or name.startswith(f"{main}/")]
    return delta_m(
        {name: float(metrics[name][0]) for name in names}, reference_metrics(envs.arguments, [found.instance])[found.instance]
    )


@pytest.mark.parametrize("env_id", IDS)
def test_a_found_schedule_can_be_played_again(env_id):
    arguments = own(env_id)
    found = best_known(env_id, 200_000, rows=8, **arguments)
    assert (found.instance, found.trainings) == (200_000, 8)
    assert replayed(env_id, found, "test", **arguments) == pytest.approx(found.delta_m, rel=1e-3, abs=1e-3)
    assert replayed(env_id, found, "reward", **arguments) == pytest.approx(found.chosen_by, rel=1e-3, abs=1e-3)


def test_a_search_finds_more_than_its_anchors_on_reward_and_is_the_same_again():
    first = best_known(LOSS_WEIGHTING, 200_001, rows=32, **SMALL)
    assert first == best_known(LOSS_WEIGHTING, 200_001, rows=32, **SMALL)
    held = constants(LOSS_WEIGHTING, [200_001], rows=4, **SMALL)
    assert first.chosen_by > held["reward"].max()
    assert first.first == pytest.approx(held["test"][0, 0], rel=1e-4, abs=1e-4)  # equal weights are an anchor


def test_the_first_anchor_is_equal_weights():
    held = constants(LOSS_WEIGHTING, [200_000, 200_001], rows=2, **SMALL)
    rows = mtl_gym.compare("ew", LOSS_WEIGHTING, instances=[200_000, 200_001], **SMALL).drop_duplicates("instance")
    np.testing.assert_allclose(held["test"][0], rows["delta_m"], rtol=1e-3, atol=1e-3)


def test_masked_actions_are_never_chosen():
    found = best_known(TASK_GROUPING, 200_000, rows=6, problem="yeast", num_tasks=4, train_steps=30)
    env = gymnasium.make(TASK_GROUPING, problem="yeast", num_tasks=4, train_steps=30)
    env.reset(options={"instance": 200_000})
    for action in found.schedule:
        assert env.unwrapped.action_masks()[action]
        env.step(action)


def test_every_environment_says_how_it_is_searched():
    for env_id in IDS:
        envs = trainings(env_id, 2, own(env_id))
        size = np.prod(envs.single_action_space.shape, dtype=int)
        assert all(len(anchor) == size for anchor in specification(env_id).search.anchors)
    assert specification(LAYER_MERGING).search.forks

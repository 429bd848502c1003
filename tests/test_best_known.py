"""Schedules that are found by searching over forked trainings."""

import gymnasium
import numpy as np
import pytest
from rollouts import IDS, small

import mtl_gym
from mtl_gym.environments import LAYER_MERGING, LOSS_WEIGHTING, TASK_GROUPING, specification
from mtl_gym.evaluation.best_known import anchors_of, best_constant, best_known, trainings
from mtl_gym.evaluation.single_task import reference_metrics
from mtl_gym.problems.scores import delta_m

SMALL = {"problem": "quadratic", "train_steps": 48, "batch_size": 16}


def own(env_id):
    given = {name: value for name, value in small(env_id=env_id).items() if name != "steps_per_action"}
    return given | ({"num_tasks": 3} if env_id == TASK_GROUPING else {"train_steps": 40})


def replayed(env_id, id, schedule, split, **arguments):
    """``delta_m`` of a schedule that is played alone."""
    envs = trainings(env_id, 1, arguments)
    envs.reset(options={"instance": [id]})
    for action in schedule:
        if not envs.finished.all():
            envs.step(action[None])
    assert envs.finished.all()
    metrics, main = envs.decision.trainings.metrics(split), envs.arguments.recipe.main_task
    names = [name for name in envs.decision.trainings.ledger.metric_names(0) if main is None or name.startswith(f"{main}/")]
    return delta_m({name: float(metrics[name][0]) for name in names}, reference_metrics(envs.arguments, [id])[id])


@pytest.mark.parametrize("env_id", IDS)
def test_a_found_schedule_can_be_played_again(env_id):
    arguments, ids = own(env_id), [200_000] if env_id == TASK_GROUPING else [200_000, 200_001]
    found = best_known(env_id, ids, candidates=8, **arguments)
    for place, id in enumerate(ids):
        for split in ("test", "reward"):
            expected = getattr(found, split)[place]
            assert replayed(env_id, id, found.schedule, split, **arguments) == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_a_search_finds_more_than_its_anchors_on_reward_and_is_the_same_again():
    ids = [200_000, 200_001]
    first = best_known(LOSS_WEIGHTING, ids, candidates=32, **SMALL)
    again = best_known(LOSS_WEIGHTING, ids, candidates=32, **SMALL)
    np.testing.assert_array_equal(first.schedule, again.schedule)
    np.testing.assert_array_equal(first.test, again.test)
    anchors = best_constant(LOSS_WEIGHTING, ids, candidates=4, **SMALL)
    assert first.reward.mean() > anchors.reward.mean()


def test_a_schedule_is_no_worse_on_reward_than_the_action_that_it_was_given():
    ids = [200_000, 200_001, 200_002]
    constant = best_constant(LOSS_WEIGHTING, ids, candidates=16, **SMALL)
    found = best_known(LOSS_WEIGHTING, ids, candidates=16, held=constant.schedule[0], **SMALL)
    assert found.reward.mean() > constant.reward.mean() - 1e-3


def test_the_first_anchor_is_equal_weights():
    held = best_constant(LOSS_WEIGHTING, [200_000, 200_001], candidates=1, **SMALL)
    rows = mtl_gym.compare("ew", LOSS_WEIGHTING, instances=[200_000, 200_001], **SMALL).drop_duplicates("instance")
    np.testing.assert_allclose(held.test, rows["delta_m"], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("ids", "candidates", "message"), [([], 8, "`ids` should have at least one"), ([1], 4, "`candidates` should be .*at least 5")]
)
def test_searches_without_instances_or_room_are_refused(ids, candidates, message):
    with pytest.raises(ValueError, match=message):
        best_known(LOSS_WEIGHTING, ids, candidates=candidates, **SMALL)


def test_anchors_are_those_of_the_searchs_own_actions():
    search = specification(LOSS_WEIGHTING).search
    assert [*anchors_of(search, {"problem": "digits"})] == [*search.anchors]
    assert [*anchors_of(search, {"features": ["loss", "gap"]})] == []
    assert best_known(LOSS_WEIGHTING, [1], candidates=4, features=["loss", "gap"], **SMALL).schedule.shape[1:] == (3,)


def test_masked_actions_are_never_chosen():
    found = best_known(TASK_GROUPING, [200_000], candidates=6, problem="yeast", num_tasks=4, train_steps=30)
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

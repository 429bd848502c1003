"""The planted relations: blocks of tasks, whose best groups are neither all tasks nor each alone."""

import numpy as np
import pytest
import torch

import mtl_gym
from mtl_gym.environments import TASK_GROUPING
from mtl_gym.problems import load_problem
from mtl_gym.problems.relations import NUM_BLOCKS, PER_BLOCK, planted_blocks


def test_labels_are_balanced_and_agree_within_blocks_and_not_across():
    problem = load_problem("relations")
    labels = problem.pool.samples.targets
    assert not torch.isnan(labels).any()
    np.testing.assert_allclose(labels.mean(0), 0.5, atol=0.01)
    blocks = planted_blocks([task.name for task in problem.tasks])
    assert [blocks.count(block) for block in range(NUM_BLOCKS)] == [PER_BLOCK] * NUM_BLOCKS
    agreeing = np.corrcoef(labels.T)
    same = np.equal.outer(blocks, blocks)
    assert agreeing[same].min() > 0.5
    assert abs(agreeing[~same]).max() < 0.2


class Blocks:
    """Puts the tasks of each planted block together; it is told how many of each block there are."""

    def __init__(self, labels):
        self.labels = np.array(labels)

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return self.labels[observation["next_task"].argmax(1)], state


@pytest.mark.slow
def test_the_planted_blocks_are_better_than_all_together_and_each_alone():
    tasks = ["b0_t0", "b0_t1", "b1_t0", "b1_t1", "b2_t0", "b2_t1"]
    policies = {"blocks": Blocks([0, 0, 1, 1, 2, 2]), "joint": "joint", "single-task": "single-task"}
    arguments = {"problem": "relations", "tasks": tasks, "distribution": {"labels": [0.25, 0.25]}, "reward": "gain_over_joint"}
    frame = mtl_gym.compare(policies, TASK_GROUPING, instances=4, **arguments)
    runs = frame.drop_duplicates(["policy", "instance"]).pivot(index="policy", columns="instance", values="return")
    assert runs.loc["blocks"].mean() > 0.03 + max(0, runs.loc["single-task"].mean())

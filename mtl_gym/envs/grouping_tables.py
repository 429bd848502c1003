"""Observations and rewards of task grouping, where no training is observed step by step."""

from __future__ import annotations

from mtl_gym.decisions.base import ACTION_MASK
from mtl_gym.decisions.grouping.known_groups import LAYER_CKA, OUTCOMES, PAIR_GAINS
from mtl_gym.decisions.grouping.modes import next_task
from mtl_gym.decisions.grouping.trainings import GROUP_GAINS, MEMBERS
from mtl_gym.decisions.grouping.warm_up import COSINES, LOOKAHEAD, MAP_DISTANCES, MAP_FEATURES
from mtl_gym.envs.observations import OBSERVATIONS, Observation, measured
from mtl_gym.envs.rewards import REWARDS, Reward

_FEATURES = (
    "of each task's data map at each snapshot: mean confidence, mean variability, the deviations of both over the samples, and the "
    "fractions of easy, ambiguous and hard samples; by tasks, then snapshots"
)
_LOOKAHEAD = "TAG's affinity of task i to task j, `1 - L_j(theta - lr g_i) / L_j(theta)`, mean over the warm-up; by rows i"
_PAIR_GAINS = "fractional *meta* gain over all together of task i (row) trained with task j alone; diagonal: trained alone"
_OUTCOMES = (
    "unavailable in practice, for exhaustive search: fractional *reward* gain over all together of each task in each group, by the "
    "groups' bit masks from 1 on (bit t: task t); 0 for tasks outside a group; at most 6 tasks"
)
GROUPING_OBSERVATIONS = {
    "map_features": measured("map", 0, 1, MAP_FEATURES, _FEATURES),
    "map_distances": measured(
        "pair", 0, 1, MAP_DISTANCES, "Euclidean distance of two tasks' maps at all snapshots / `sqrt(E n 2)`, over n common samples"
    ),
    "gradient_cosines": measured("pair", -1, 1, COSINES, "cosine of two tasks' shared-parameter gradients, mean over the warm-up"),
    "lookahead": measured("square", -10, 10, LOOKAHEAD, _LOOKAHEAD),
    "layer_cka": measured("pair", -1, 1, LAYER_CKA, "debiased linear CKA of the last hidden layers of two single-task networks"),
    "pair_gains": measured("square", -10, 10, PAIR_GAINS, _PAIR_GAINS),
    "outcomes": measured("group", -10, 10, OUTCOMES, _OUTCOMES),
    "groups": measured("member", 0, 1, MEMBERS, "membership of each task in each group so far"),
    "next_task": Observation("task", 0, 1, lambda v: next_task(v[MEMBERS]), "1 for the task to place next, else 0", (MEMBERS,)),
    "action_mask": measured("choice", 0, 1, ACTION_MASK, "1 for valid actions, else 0"),
    "progress": OBSERVATIONS["progress"],
}

GROUPING_REWARDS = {
    "gain_over_joint": Reward(
        lambda v: v[GROUP_GAINS].clamp(min=-1).mean(1),
        "at the end: mean over tasks of the relative gain on the *reward* split over training all tasks together, as a fraction "
        "(each gain is at least -100 %). A return of 0: as good as all together, of 1: 100 % better",
        (GROUP_GAINS,),
        penalty=-2.0,
    ),
    "none": REWARDS["none"],
}

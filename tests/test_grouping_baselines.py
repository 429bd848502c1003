"""Heuristics that divide tasks into groups: against scikit-learn, brute force and formulas written anew, and their properties."""

from __future__ import annotations

from itertools import product

import gymnasium
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from sklearn.cluster import AgglomerativeClustering, KMeans
from sklearn.metrics import adjusted_rand_score, pairwise_distances

import mtl_gym
from mtl_gym.baselines import BASELINES
from mtl_gym.baselines.group_heuristic import by_first_use
from mtl_gym.baselines.partition_search import best_partition, clusters_found, different, pairwise, points_of, square_of
from mtl_gym.baselines.stg_mtl import STGMTL
from mtl_gym.environments import TASK_GROUPING
from mtl_gym.evaluation.comparison import run
from mtl_gym.evaluation.plans import plan
from mtl_gym.policies.grammar import make_policy

GROUPERS = [
    name
    for name in BASELINES
    if make_policy(f"{name}:w=1,2" if name == "constant" else name, TASK_GROUPING).requires.env == TASK_GROUPING
]
SMALL = {"problem": "census", "train_steps": 10, "hidden_sizes": [4]}


def upper(table):
    return table[np.triu_indices(len(table), 1)]


def seen(num_tasks, *, rows=2, placed=0, most=None, seed=0, **known):
    """Observations of the decision at which ``placed`` tasks have their groups."""
    rng = np.random.default_rng(seed)
    pairs = num_tasks * (num_tasks - 1) // 2
    drawn = {
        "next_task": np.tile(np.eye(num_tasks)[placed], (rows, 1)),
        "groups": np.zeros((rows, num_tasks * (most or num_tasks))),
        "map_distances": np.stack([upper(pairwise_distances(rng.uniform(size=(num_tasks, 40)))) / 10 for _ in range(rows)]),
        "gradient_cosines": rng.uniform(-0.3, 0.6, (rows, pairs)),
        "lookahead": rng.normal(size=(rows, num_tasks**2)) / 100,
        "pair_gains": rng.normal(size=(rows, num_tasks**2)) / 20,
    }
    if num_tasks <= 6:
        drawn["outcomes"] = rng.normal(size=(rows, (2**num_tasks - 1) * num_tasks)) / 20
        inside = [[mask >> task & 1 for task in range(num_tasks)] for mask in range(1, 2**num_tasks)]
        drawn["outcomes"] *= np.ravel(inside)
    return {name: np.asarray(values, dtype=np.float32) for name, values in (drawn | known).items()}


def groups_of(name, num_tasks, **options):
    """The labels (N, K) that a policy says, task by task."""
    policy, memory, found = make_policy(name, TASK_GROUPING) if isinstance(name, str) else name, None, []
    for placed in range(num_tasks):
        actions, memory = policy.predict(seen(num_tasks, placed=placed, **options), memory)
        found.append(actions)
    return np.stack(found, axis=1)


def every_partition(num_tasks):
    """All partitions, by brute force."""
    return {tuple(by_first_use(labels).tolist()) for labels in product(range(num_tasks), repeat=num_tasks)}


# --- contracts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GROUPERS)
@pytest.mark.parametrize(("num_tasks", "most"), [(2, None), (3, None), (6, None), (6, 2), (6, 1)])
def test_groups_are_numbered_by_first_use_and_never_too_many(name, num_tasks, most):
    labels = groups_of(name, num_tasks, most=most)
    assert labels.dtype == np.int64
    for row in labels:
        np.testing.assert_array_equal(row, by_first_use(row))
        assert row.max() < (most or num_tasks)


@pytest.mark.parametrize("name", [name for name in GROUPERS if name != "exhaustive"])
def test_many_tasks_are_grouped(name):
    labels = groups_of(name, 20, rows=1)
    assert labels.shape == (1, 20)


@pytest.mark.parametrize("name", GROUPERS)
def test_a_grouping_is_decided_at_the_first_decision(name):
    policy = make_policy(name, TASK_GROUPING)
    _, memory = policy.predict(seen(4))
    labels = memory["labels"]
    for placed in range(4):
        actions, memory = policy.predict(seen(4, placed=placed, seed=9), memory)  # what is seen later changes nothing
        np.testing.assert_array_equal(actions, labels[:, placed])


@pytest.mark.parametrize("name", [name for name in GROUPERS if name not in ("random-groups", "stg-mtl")])
def test_groups_follow_a_permutation_of_the_tasks(name):
    order = np.array([2, 0, 3, 1])
    known = seen(4, rows=1)
    table = {name: square_of(known[name][0].astype(float), 4, 0.0) for name in ("map_distances", "gradient_cosines")}
    moved = {name: upper(values[order][:, order])[None] for name, values in table.items()}
    for square in ("lookahead", "pair_gains"):
        moved[square] = known[square].reshape(4, 4)[order][:, order].reshape(1, -1)
    outcomes = known["outcomes"].reshape(15, 4)
    masks = [sum(1 << int(order[task]) for task in range(4) if mask >> task & 1) for mask in range(1, 16)]
    moved["outcomes"] = outcomes[np.array(masks) - 1][:, order].reshape(1, -1)
    expected = groups_of(name, 4, rows=1)[0][order]
    np.testing.assert_array_equal(groups_of(name, 4, rows=1, **moved)[0], by_first_use(expected))


def test_random_groups_depend_on_the_seed_alone():
    policy = make_policy("random-groups")
    together, alone = policy.initial_state(np.array([5, 9]), 8), policy.initial_state(np.array([9]), 8)
    _, together = policy.predict(seen(8), together)
    _, alone = policy.predict(seen(8, rows=1), alone)
    np.testing.assert_array_equal(together["labels"][1:], alone["labels"])
    assert (together["labels"][0] != together["labels"][1]).any()


@pytest.mark.parametrize("name", [*GROUPERS, "stg-mtl:soft=true", "stg-mtl:soft=true:groups=2", "random-groups:groups=2"])
def test_groupers_play_the_environment_and_take_nothing_forbidden(name):
    envs = gymnasium.make_vec(
        TASK_GROUPING,
        num_envs=2,
        vectorization_mode="vector_entry_point",
        autoreset_mode="Disabled",
        **SMALL,
        **make_policy(name, TASK_GROUPING).requires.arguments(),
    )
    observations, _ = envs.reset(options={"instance": np.arange(2)})
    policy, memory = make_policy(name, TASK_GROUPING), None
    while not envs.unwrapped.finished.all():
        actions, memory = policy.predict(observations, memory)
        observations, _, _, _, infos = envs.step(actions)
        assert not infos["invalid_action"].any()


def test_nothing_beats_exhaustive_search_and_all_together_is_what_others_are_held_against():
    results = run(plan(GROUPERS, TASK_GROUPING, instances=3, reward="gain_over_joint", **SMALL))
    returns = {name: np.array([own.episode_return for own in results if own.policy == name]) for name in GROUPERS}
    assert not returns["joint"].any()
    assert all((returns["exhaustive"] >= own - 1e-6).all() for own in returns.values())
    assert [own.outcome["num_groups"] for own in results if own.policy == "single-task"] == [3, 3, 3]


# --- the search -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_tasks", [2, 3, 5])
@given(seed=st.integers(0, 2**16), price=st.sampled_from([0.0, 0.02, 0.3]))
@settings(max_examples=15, deadline=None)
def test_the_best_partition_is_that_of_brute_force(num_tasks, seed, price):
    table = np.random.default_rng(seed).normal(size=(num_tasks, num_tasks))

    def total(labels):
        """By the definition, task by task."""
        parts = []
        for task, own in enumerate(labels):
            others = [other for other in range(num_tasks) if labels[other] == own and other != task]
            parts.append(np.mean([table[task, other] for other in others]) if others else table[task, task])
        return np.mean(parts) - price * (max(labels) + 1)

    for most in (1, 2, num_tasks):
        allowed = [labels for labels in every_partition(num_tasks) if max(labels) < most]
        best = max(allowed, key=total)
        assert tuple(by_first_use(best_partition(pairwise(table), num_tasks, most, price)).tolist()) == best


def test_beyond_eight_tasks_joining_finds_planted_groups():
    planted = np.arange(30) % 3
    noise = np.random.default_rng(0).normal(size=(30, 30)) / 50
    table = np.where(planted[:, None] == planted, 0.1, -0.1) + noise
    np.fill_diagonal(table, 0.0)
    for most in (3, 30):
        labels = best_partition(pairwise(table), 30, most, 0.01)
        assert adjusted_rand_score(planted, labels) == 1
    assert len(set(best_partition(pairwise(table), 30, 2, 0.01).tolist())) == 2


def test_exhaustive_search_reads_the_bit_masks():
    outcomes = np.zeros((15, 4))
    outcomes[0b0101 - 1, [0, 2]] = 0.2
    outcomes[0b1010 - 1, [1, 3]] = 0.2
    outcomes[0b0011 - 1, [0, 1]] = 0.3
    known = {"outcomes": outcomes.reshape(1, -1)}
    assert groups_of("exhaustive", 4, rows=1, **known).tolist() == [[0, 1, 0, 1]]
    assert groups_of("exhaustive:group_price=0.5", 4, rows=1, **known).tolist() == [[0, 0, 0, 0]]


def test_hoa_takes_a_group_to_be_worth_the_mean_of_its_pairs():
    table = np.full((3, 3), -0.5)
    np.fill_diagonal(table, 0.0)
    table[0, 1], table[1, 0] = 0.4, 0.1  # task 0 gains more than task 1
    assert groups_of("hoa", 3, rows=1, pair_gains=table.reshape(1, -1)).tolist() == [[0, 0, 1]]
    table[1, 0] = -0.45
    assert groups_of("hoa", 3, rows=1, pair_gains=table.reshape(1, -1)).tolist() == [[0, 1, 2]]


def test_tag_goes_by_what_others_do_to_a_task_and_not_by_what_it_does_to_itself():
    affinity = np.full((4, 4), -0.1)
    np.fill_diagonal(affinity, 5.0)
    affinity[0, 3] = affinity[3, 0] = 0.2
    affinity[1, 2] = 0.5  # 1 helps 2, which harms 1 less
    assert groups_of("tag", 4, rows=1, lookahead=affinity.reshape(1, -1)).tolist() == [[0, 1, 1, 0]]
    assert groups_of("tag:budget=1", 4, rows=1, lookahead=affinity.reshape(1, -1)).tolist() == [[0, 0, 0, 0]]


def test_tag_leaves_no_task_alone_even_if_all_others_harm_it():
    affinity = np.full((5, 5), -0.5)  # in the authors' code a task alone has the value -1e6
    affinity[0, 1] = affinity[1, 0] = affinity[2, 3] = affinity[3, 2] = 0.3
    affinity[0, 4] = affinity[1, 4] = -0.1
    affinity[4, 0] = affinity[4, 1] = -0.2
    assert groups_of("tag", 5, rows=1, lookahead=affinity.reshape(1, -1)).tolist() == [[0, 0, 1, 1, 0]]


# --- clusters -------------------------------------------------------------------------------------------------------------


@given(count=st.integers(2, 12), seed=st.integers(0, 2**16))
@settings(max_examples=20, deadline=None)
def test_points_have_the_distances_that_they_are_made_of(count, seed):
    points = np.random.default_rng(seed).normal(size=(count, 30))
    distances = pairwise_distances(points)
    found = points_of(distances)
    assert found.shape == (count, count - 1)
    np.testing.assert_allclose(pairwise_distances(found), distances, atol=1e-6)


@pytest.mark.parametrize("clusters", [2, 3, 4])
def test_stg_mtl_is_k_means_and_the_fuzzy_membership_of_the_maps_themselves(clusters):
    maps = np.random.default_rng(1).uniform(size=(12, 600)) + np.repeat(np.arange(4), 3)[:, None] / 4
    scale = 600**0.5
    policy = STGMTL(groups=clusters, m=3.0)
    ours = policy.memberships(upper(pairwise_distances(maps)) / scale, 12, 12, seed=3)
    theirs = KMeans(clusters, n_init=20, random_state=0).fit(maps)
    apart = np.linalg.norm(maps[:, None] - theirs.cluster_centers_, axis=2)
    powers = apart ** (-2 / (3.0 - 1))
    expected = powers / powers.sum(1, keepdims=True)
    order = [int(ours[theirs.labels_.tolist().index(cluster)].argmax()) for cluster in range(clusters)]
    np.testing.assert_allclose(ours[:, order], expected, rtol=1e-4)
    assert adjusted_rand_score(ours.argmax(1), theirs.labels_) == 1


def test_soft_memberships_are_what_the_environment_makes_of_the_actions():
    policy = STGMTL(soft=True)
    known = seen(5)
    actions, _ = policy.predict({"map_distances": known["map_distances"]})
    logits = 10.0 * actions.reshape(2, 5, 5).astype(np.float64)
    shares = np.exp(logits) / np.exp(logits).sum(2, keepdims=True)
    for row in range(2):
        expected = policy.memberships(known["map_distances"][row].astype(np.float64), 5, 5, seed=row)
        np.testing.assert_allclose(shares[row, :, : expected.shape[1]], expected, atol=1e-6)


def test_the_same_map_has_the_same_membership():
    maps = np.random.default_rng(0).uniform(size=(6, 50))
    maps[4] = maps[1]
    memberships = STGMTL().memberships(upper(pairwise_distances(maps)), 6, 6, seed=0)
    np.testing.assert_allclose(memberships[4], memberships[1], atol=1e-6)


@pytest.mark.parametrize("name", ["stg-mtl", "cosine-groups"])
def test_tasks_that_are_all_the_same_are_one_group(name):
    known = {"map_distances": np.zeros((1, 10)), "gradient_cosines": np.ones((1, 10))}
    assert groups_of(name, 5, rows=1, **known).tolist() == [[0] * 5]
    assert groups_of(f"{name}:groups=3", 5, rows=1, **known).shape == (1, 5)


def test_cosine_groups_are_average_linkage():
    known = seen(9, rows=1)
    distances = 1 - square_of(known["gradient_cosines"][0].astype(float), 9, 1.0)
    for count in (2, 3, 4):
        theirs = AgglomerativeClustering(count, metric="precomputed", linkage="average").fit_predict(distances)
        assert adjusted_rand_score(theirs, groups_of(f"cosine-groups:groups={count}", 9, rows=1)[0]) == 1


@pytest.mark.parametrize("clusters", [2, 4])
def test_the_silhouette_finds_clusters_that_are_there(clusters):
    rng = np.random.default_rng(0)
    points = rng.normal(size=(clusters, 20))[np.arange(24) % clusters] * 5 + rng.normal(size=(24, 20))
    distances = pairwise_distances(points)
    assert clusters_found(lambda count: KMeans(count, n_init=5, random_state=0).fit_predict(points), distances, 24) == clusters


def test_equal_points_are_counted_once():
    points = np.array([[0.0], [1.0], [0.0], [2.0], [1.0]])
    assert different(pairwise_distances(points)) == 3


# --- bad input ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("stg-mtl:m=1", ValueError, "`m`"),
        ("stg-mtl:groups=0", ValueError, "`groups`"),
        ("stg-mtl:groups=two", TypeError, "`groups`"),
        ("stg-mtl:soft=3", TypeError, "`soft`"),
        ("cosine-groups:groups=0", ValueError, "`groups`"),
        ("random-groups:groups=1.5", TypeError, "`groups`"),
        ("hoa:group_price=-1", ValueError, "`group_price`"),
        ("tag:budget=0", ValueError, "`budget`"),
        ("exhaustive:group_price=a", TypeError, "`group_price`"),
    ],
)
def test_wrong_options_are_named(text, error, message):
    with pytest.raises(error, match=message):
        make_policy(text)


@pytest.mark.parametrize("name", ["stg-mtl", "cosine-groups", "random-groups"])
def test_more_groups_than_tasks_are_refused_before_anything_is_run(name):
    with pytest.raises(ValueError, match="`groups` should be at most 3"):
        mtl_gym.compare(f"{name}:groups=4", TASK_GROUPING, instances=1, **SMALL)


def test_another_price_than_the_environments_is_refused():
    with pytest.raises(ValueError, match=r"`group_price` should be 0\.01"):
        mtl_gym.compare("exhaustive", TASK_GROUPING, instances=1, group_price=0.02, **SMALL)

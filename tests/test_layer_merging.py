"""LayerMerging: structures, similarities, merging, what is legal, and the environment that decides it."""

import itertools
import math
import pickle

import gymnasium
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from rollouts import LAYER_MERGING, make, make_trainer, make_vec, same, small, train
from torch.nn import functional

import mtl_gym
from mtl_gym.baselines import BASELINES
from mtl_gym.decisions.merging.decision import Merging, branched_model
from mtl_gym.decisions.merging.structures import STRUCTURE, StructureActions, choices, valid_merges
from mtl_gym.decisions.merging.transfer import Transfer
from mtl_gym.decisions.partitions import coarsest, labels, partitions, refines, together
from mtl_gym.evaluation.comparison import run
from mtl_gym.evaluation.plans import plan
from mtl_gym.models import NETWORKS
from mtl_gym.policies.finding import environment_of
from mtl_gym.policies.grammar import make_policy
from mtl_gym.problems import load_problem
from mtl_gym.problems.corruptions import CORRUPTIONS, SEVERITIES, corrupted, kinds
from mtl_gym.training.formulas import linear_cka, pooled
from mtl_gym.training.measurements import gains

TASKS = ["digit", "parity", "angle", "clean"]
MERGERS = [name for name in BASELINES if environment_of(name) == LAYER_MERGING]


def merging_of(problem="digits", ids=(0, 1, 2), steps=0, alignment=0.0, **others):
    """A decision on trainings that have begun, and have gone on for some steps."""
    trainer = make_trainer(
        problem, ids, LAYER_MERGING, options={"model": branched_model}, begin=False, **{"train_steps": 40} | others
    )
    actions = StructureActions(action="merge", similarity="cka", num_tasks=trainer.recipe.num_tasks)
    transfer = Transfer(trainer, kind="average", steps=4, average_moments=False)
    decision = Merging(trainer, 1, actions, transfer, alignment=alignment)
    trainer.begin(range(len(ids)), ids)
    decision.begin(range(len(ids)))
    return trained(decision, steps)


def trained(decision, steps):
    """The same after some steps with the alignment term."""
    trainer = decision.trainer
    ones, active = torch.ones(trainer.num_replicas, trainer.recipe.num_tasks), torch.ones(trainer.num_replicas, dtype=torch.bool)
    for _ in range(steps):
        trainer.update(ones, active, penalty=(decision.dissimilarity(), decision.alignment) if decision.alignment else None)
    return decision


def merge(decision, table, transfer="average", steps=4, average_moments=False):
    """Gives the stages the labels ``table`` (N, S, K), or some stages (S, K) of every replica."""
    moved = Transfer(decision.trainer, kind=transfer, steps=steps, average_moments=average_moments)
    moved.merge(torch.as_tensor(table).expand_as(decision.assign))
    return decision


def outputs(decision, row=0):
    trainer = decision.trainer
    inputs = trainer.problem.splits["test"].inputs[:50]
    with torch.no_grad():
        return trainer.replicas.outputs(inputs.expand(trainer.num_replicas, *inputs.shape))[row]


def copies(decision, stage=0):
    """The copies (N, K, size) of a stage."""
    return decision.trainer.replicas.parameters[f"stage{stage}"].detach()


# --- partitions ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "bell"), [(1, 1), (2, 2), (3, 5), (4, 15), (5, 52), (6, 203)])
def test_all_partitions_are_listed_once_from_the_finest_to_the_coarsest(count, bell):
    listed = partitions(count)
    assert len(listed) == len({tuple(row) for row in listed.tolist()}) == bell
    assert listed[0].tolist() == list(range(count))
    assert listed[-1].tolist() == [0] * count
    blocks = [len(set(row)) for row in listed.tolist()]
    assert blocks == sorted(blocks, reverse=True)
    assert all(row[label] == label <= place for row in listed.tolist() for place, label in enumerate(row))
    torch.testing.assert_close(labels(together(listed)), listed)


def test_one_partition_refines_another_if_its_blocks_lie_within_the_others():
    for finer, coarser in itertools.product(partitions(4).tolist(), repeat=2):
        blocks = [{task for task in range(4) if coarser[task] == label} for label in set(coarser)]
        own = [{task for task in range(4) if finer[task] == label} for label in set(finer)]
        expected = all(any(block <= large for large in blocks) for block in own)
        assert bool(refines(torch.tensor(finer), torch.tensor(coarser))) == expected


def by_brute_force(similarity, threshold):
    """MTSL's rule over all partitions, written out."""
    best, count = (math.inf, 0.0, None), len(similarity)
    for row in partitions(count).tolist():
        affinity = 0.0
        for task in range(count):
            others = [other for other in range(count) if other != task and row[other] == row[task]]
            affinity += sum(max(0.0, float(similarity[task, other])) for other in others) / max(1, len(others)) / count
        if affinity >= threshold:
            best = min(best, (len(set(row)), -affinity, row), key=lambda own: own[:2])
    return best


@given(count=st.integers(2, 5), threshold=st.floats(0.05, 0.95), seed=st.integers(0, 2**16))
@settings(max_examples=60, deadline=None)
def test_the_coarsest_grouping_is_that_of_a_search_by_hand(count, threshold, seed):
    own = torch.from_numpy(np.random.default_rng(seed).uniform(-0.2, 1, (count, count)))
    similarity = (own + own.T) / 2
    row = by_brute_force(similarity, threshold)[2]
    chosen = coarsest(similarity, threshold).tolist()
    assert chosen == (list(range(count)) if row is None else row)


def test_a_threshold_of_one_merges_nothing_and_of_zero_everything():
    alike, unlike = torch.ones(4, 4), -torch.ones(4, 4)
    assert coarsest(alike, 1.0).tolist() == [0, 1, 2, 3]
    assert coarsest(unlike, 0.0).tolist() == [0, 0, 0, 0]


def test_many_tasks_are_grouped_by_their_linkage():
    groups = torch.arange(12) % 3
    similarity = torch.where(together(groups), 0.9, 0.1) + 0.01 * torch.eye(12)
    assert coarsest(similarity, 0.8).tolist() == groups.tolist()


# --- similarities ----------------------------------------------------------------------------------------------


def textbook_cka(one, other):
    """Debiased CKA from Gram matrices, by the formula of Song et al."""

    def hsic(first, second):
        first, second = first - torch.diag(first.diag()), second - torch.diag(second.diag())
        n, ones = len(first), torch.ones(len(first), dtype=first.dtype)
        crossed = ones @ first @ ones * (ones @ second @ ones) / ((n - 1) * (n - 2))
        return (torch.trace(first @ second) + crossed - 2 / (n - 2) * ones @ first @ second @ ones) / (n * (n - 3))

    first, second = one @ one.T, other @ other.T
    return hsic(first, second) / torch.sqrt(hsic(first, first) * hsic(second, second))


def test_cka_is_the_textbook_formula():
    features = torch.randn(2, 3, 40, 7, dtype=torch.float64) + torch.randn(2, 1, 40, 7, dtype=torch.float64)
    found = linear_cka(features + 3)
    for row, first, second in itertools.product(range(2), range(3), range(3)):
        torch.testing.assert_close(found[row, first, second], textbook_cka(features[row, first] + 3, features[row, second] + 3))


def test_cka_does_not_change_under_rotation_scale_and_shift_and_is_one_with_itself():
    features = torch.randn(1, 2, 50, 6, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))[0]
    moved = torch.stack([features[0, 0] @ rotation * 3 + 1, features[0, 1]])[None]
    torch.testing.assert_close(linear_cka(moved), linear_cka(features))
    turned = torch.stack([features[0, 0], features[0, 0] @ rotation * 0.1])[None]
    torch.testing.assert_close(linear_cka(turned)[0, 0, 1], torch.tensor(1.0, dtype=torch.float64))


def test_constant_features_have_no_similarity():
    features = torch.stack([torch.ones(20, 3), torch.randn(20, 3)])[None]
    assert linear_cka(features)[0, 0].tolist() == [0, 0]


def test_pixels_are_averaged_before_they_are_compared():
    images = torch.randn(1, 2, 5, 3, 4, 4)
    torch.testing.assert_close(pooled(images), images.mean((4, 5)))


@pytest.mark.parametrize("problem", ["digits", "multimnist"])
def test_similarities_are_those_of_each_tasks_own_network(problem):
    merging = merging_of(problem, steps=5)
    assert (merging.similarities() <= 1 + 1e-5).all()
    before = merging_of(problem)
    torch.testing.assert_close(before.similarities(), torch.ones_like(before.similarities()))


# --- networks and training ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("problem", ["digits", "multimnist", "yeast"])
def test_when_all_share_all_stages_it_is_the_plain_network(problem):
    merging = merging_of(problem, ids=(3, 4))
    merge(merging, [[0] * merging.trainer.recipe.num_tasks] * merging.model.num_stages)
    plain = make_trainer(problem, ids=(3, 4), env_id=LAYER_MERGING, train_steps=40)
    for _ in range(6):
        torch.testing.assert_close(merging.trainer.losses.forward(), plain.losses.forward(), atol=1e-4, rtol=1e-3)
        trained(merging, 1)
        train(plain, 1)


def test_when_nothing_is_shared_each_task_is_trained_alone():
    merging = merging_of(ids=(3,), tasks=TASKS, steps=8)
    for task in range(4):
        plain = train(make_trainer(ids=(3,), env_id=LAYER_MERGING, tasks=TASKS, train_steps=40), 8, torch.eye(4)[task : task + 1])
        own = merging.trainer.losses.forward()[0, task]
        torch.testing.assert_close(own, plain.losses.forward()[0, task], atol=1e-4, rtol=1e-3)


def test_replicas_with_different_structures_train_side_by_side_as_alone():
    rows = [[[0, 0, 2, 2], [0, 1, 2, 2]], [[0, 0, 0, 0], [0, 1, 1, 0]], [[0, 1, 2, 3], [0, 1, 2, 3]]]
    side_by_side, alone = merging_of(tasks=TASKS, hidden_sizes=[8, 8], steps=3), []
    merge(side_by_side, rows, transfer="imitate", steps=3, average_moments=True)
    trained(side_by_side, 5)
    for id, table in enumerate(rows):
        own = merging_of(ids=(id,), tasks=TASKS, hidden_sizes=[8, 8], steps=3)
        merge(own, [table], transfer="imitate", steps=3, average_moments=True)
        alone.append(trained(own, 5).trainer.losses.forward()[0])
    torch.testing.assert_close(
        side_by_side.trainer.losses.forward(), torch.stack(alone), atol=0, rtol=0
    )  # imitation would amplify what is rounded


@pytest.mark.parametrize("transfer", ["average", "imitate"])
@pytest.mark.parametrize("problem", ["digits", "multimnist"])
def test_merging_equal_stages_leaves_the_outputs_as_they_are(problem, transfer):
    merging = merging_of(problem)
    before = outputs(merging)
    merge(merging, [[0] * merging.trainer.recipe.num_tasks] * merging.model.num_stages, transfer=transfer)
    torch.testing.assert_close(outputs(merging), before, atol=1e-6, rtol=0)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_parameters_that_nobody_uses_are_zero_and_stay_so(optimizer):
    merging = merge(merging_of(tasks=TASKS, steps=3, optimizer=optimizer, weight_decay=0.1), [[0, 0, 2, 2]])
    trained(merging, 4)
    moments = merging.trainer.replicas.moments
    assert not copies(merging)[:, [1, 3]].any()
    assert copies(merging)[:, [0, 2]].any()
    size = merging.model.copy_sizes[0]
    assert not moments[:, :, size : 2 * size].any()
    assert merging.trainer.replicas.updates[0].tolist() == [4, 0, 4, 0, 7]


def test_parameters_are_counted_exactly():
    merging = merging_of(tasks=TASKS, hidden_sizes=[8, 6])
    stages, heads = [64 * 8 + 8, 8 * 6 + 6], (6 + 1) * (10 + 1 + 1 + 64)
    count = merging.model.parameter_count
    assert count(merging.assign, merging.trainer.ledger.tasks).tolist() == [4 * sum(stages) + heads] * 3
    merge(merging, [[0, 0, 0, 3], [0, 0, 2, 3]])
    fewer = 2 * stages[0] + 3 * stages[1] + heads
    assert count(merging.assign, merging.trainer.ledger.tasks).tolist() == [fewer] * 3
    torch.testing.assert_close(merging.used(), torch.full((3,), fewer / (4 * sum(stages) + heads)))


def test_a_new_copy_is_the_mean_and_takes_the_mean_moments_if_asked():
    for average in (False, True):
        merging = merging_of(tasks=TASKS, steps=3)
        size = merging.model.copy_sizes[0]
        own = merging.trainer.replicas.flat[:, : 4 * size].unflatten(1, (4, size)).clone()
        moments = merging.trainer.replicas.moments[:, :, : 4 * size].unflatten(2, (4, size)).clone()
        merge(merging, [[0, 1, 1, 0]], average_moments=average)
        torch.testing.assert_close(copies(merging)[:, 1], own[:, 1:3].mean(1))
        expected = moments[:, :, 1:3].mean(2) if average else torch.zeros_like(moments[:, :, 0])
        torch.testing.assert_close(merging.trainer.replicas.moments[:, :, size : 2 * size], expected)
        assert merging.trainer.replicas.updates[0].tolist() == [3 * average, 3 * average, 0, 0, 3]


def test_without_a_transfer_a_new_copy_has_the_initial_values():
    first = copies(merging_of(tasks=TASKS)).clone()
    merging = merge(merging_of(tasks=TASKS, steps=3), [[0, 0, 2, 3]], transfer="none")
    assert torch.equal(copies(merging)[:, 0], first[:, 0])
    assert not torch.equal(copies(merging)[:, 2], first[:, 2])


@pytest.mark.parametrize("problem", ["digits", "multimnist"])
def test_imitation_comes_closer_to_what_the_tasks_had_than_the_mean(problem):
    distances = {}
    for transfer in ("average", "imitate"):
        merging = merging_of(problem, steps=20, hidden_sizes=[16, 16] if problem == "digits" else [4, 8], lr=1e-2)
        inputs = merging.trainer.losses.data.fixed_inputs("train", torch.arange(100))
        wanted = merging._trace(inputs).features[0].detach()
        rows = [
            [0] * merging.trainer.recipe.num_tasks,
            *[list(range(merging.trainer.recipe.num_tasks))] * (merging.model.num_stages - 1),
        ]
        merge(merging, rows, transfer=transfer, steps=20)
        distances[transfer] = functional.mse_loss(merging._trace(inputs).features[0], wanted)
    assert distances["imitate"] < distances["average"]


def test_gradients_of_every_task_come_of_one_backward_pass():
    merging = merging_of(tasks=TASKS, steps=2)
    found, losses = merging.gradient_cosines(), merging.trainer.losses.graph()
    parts = [
        torch.autograd.grad(own.sum(), merging.trainer.replicas.parameters["stage0"], retain_graph=True)[0]
        for own in losses.unbind(1)
    ]
    own = torch.stack([part[:, task] for task, part in enumerate(parts)], dim=1)
    for first, second in itertools.combinations(range(4), 2):
        torch.testing.assert_close(found[:, 0, first, second], functional.cosine_similarity(own[:, first], own[:, second], dim=1))


def test_the_alignment_term_draws_the_layers_of_a_group_together():
    similar = []
    for alignment in (0.0, 1.0):
        merging = merging_of(tasks=TASKS, batch_size=64, alignment=alignment)
        similar.append(trained(merging, 30).similarities()[:, 0].mean())
    assert similar[1] > similar[0] + 0.05


def test_a_task_whose_features_are_constant_does_not_spoil_the_alignment_term():
    merging = merging_of(tasks=TASKS, hidden_sizes=[8, 8], alignment=1.0)
    copies(merging)[0, 1] = -1.0  # all its units are dead
    trained(merging, 3)
    assert merging.trainer.finite().all()
    assert (merging.similarities()[0, 0, 1, [0, 2, 3]] == 0).all()


def test_batches_that_are_too_small_for_the_alignment_term_are_refused():
    with pytest.raises(ValueError, match="`batch_size` should be at least 4 with `alignment`"):
        merging_of(tasks=TASKS, batch_size=3, alignment=0.5)


@pytest.mark.parametrize("count", [4, 9])
def test_similarities_that_are_not_finite_merge_nothing(count):
    assert coarsest(torch.full((count, count), torch.nan), 0.5).tolist() == list(range(count))
    similarity = torch.ones(count, count)
    similarity[0] = similarity[:, 0] = torch.inf
    assert coarsest(similarity, 0.98 - 1 / count).tolist() == [0, *[1] * (count - 1)]


def test_what_is_seen_of_gradients_and_learned_of_features_is_paid():
    merging = merging_of(tasks=TASKS, steps=3)
    passes = merging.trainer.ledger.passes
    before = passes.clone()
    _, forward, backward = merging.observe({"gradient"})
    assert (forward, backward) == (0, 1)
    _, forward, backward = merging.observe({"cka", "used"})
    assert (forward, backward) == (128 / 16, 0)
    merging.trainer.ledger.charge(torch.tensor([True, False, True]), 0.0, 1.0)
    assert (passes - before).tolist() == [[0, 1], [0, 0], [0, 1]]
    table = merging.assign.clone()
    table[1, 0] = 0
    merge(merging, table, transfer="imitate", steps=5)
    assert (passes - before).tolist() == [[0, 1], [20, 5], [0, 1]]


def test_planted_pairs_are_more_alike_than_others_at_every_stage():
    merging = merging_of(ids=range(4), tasks=TASKS, hidden_sizes=[32, 32], batch_size=64, lr=5e-3, train_steps=80, steps=60)
    similar = merging.similarities().mean(0)
    within, across = similar[:, 0, 1], similar[:, [0, 1], [2, 3]].mean(1)  # digit and parity; digit with angle, parity with clean
    assert (within > across).all()


def test_a_decision_is_kept_whole_with_its_trainings():
    merging = merge(merging_of(tasks=TASKS, steps=3, alignment=0.5), [[0, 0, 2, 3]])
    state, copy = merging.trainer.clone(), pickle.loads(pickle.dumps(merging))
    after = trained(merging, 3).trainer.clone()
    assert same(trained(copy, 3).trainer.clone(), after)
    merging.trainer.load(state)
    assert same(trained(merging, 3).trainer.clone(), after)


@pytest.mark.parametrize("network", [name for name in NETWORKS if name in ("dense", "point")])
def test_a_network_that_is_no_chain_of_layers_is_refused(network):
    problem = {"dense": "stereo", "point": "quadratic"}[network]
    with pytest.raises(ValueError, match="problem"):
        make(problem, env_id=LAYER_MERGING)
    with pytest.raises(ValueError, match="chain of layers"):
        make(load_problem(problem), env_id=LAYER_MERGING)


# --- what is legal ----------------------------------------------------------------------------------------------


def known(env):
    return env.decision.observe(STRUCTURE).values


@given(seed=st.integers(0, 2**16))
@settings(max_examples=15, deadline=None)
def test_random_play_makes_trees_and_never_parts_what_was_merged(seed):
    env = make_vec(env_id=LAYER_MERGING, tasks=TASKS, hidden_sizes=[4, 4, 4], train_steps=20, steps_per_action=2, reward="none")
    rng = np.random.default_rng(seed)
    env.reset(seed=seed)
    before = env.decision.assign.clone()
    groups = env.decision.groups.clone()
    for _ in range(9):
        masks = env.unwrapped.action_masks()
        assert masks.any(1).all()
        infos = env.step(np.array([rng.choice(np.flatnonzero(row)) for row in masks]))[-1]
        assert not infos["invalid_action"].any()
        after, now = env.decision.assign.clone(), env.decision.groups.clone()
        assert refines(before, after).all()  # what was together stays together
        assert refines(now, groups).all()  # what was put apart never rejoins
        assert refines(after[:, 1:], after[:, :-1]).all()  # a tree
        before, groups = after, now


def test_every_legal_partition_changes_something_else():
    env = make_vec(env_id=LAYER_MERGING, num_envs=1, tasks=TASKS, hidden_sizes=[4, 4], train_steps=20, steps_per_action=2)
    env.reset(seed=0)
    actions = StructureActions(action="merge", similarity="cka", num_tasks=4)
    for action in (0, 9, 0):
        env.step(np.array([action]))
        now = known(env)
        allowed = np.flatnonzero(valid_merges(now)[0].numpy())
        made = [actions.structure(torch.tensor([own]), now) for own in allowed]
        tables = {str((own.assign.tolist(), own.groups.tolist())) for own in made}
        assert len(tables) == len(allowed)


def test_before_the_first_step_only_waiting_is_allowed():
    for problem, waits in (("digits", 0), ("yeast", 0)):
        env = make(problem, env_id=LAYER_MERGING, steps_per_action=2)
        env.reset(seed=0)
        assert np.flatnonzero(env.unwrapped.action_masks()).tolist() == [waits]


def test_a_masked_action_is_replaced_by_the_first_legal_one_and_said():
    env, other = (make(env_id=LAYER_MERGING, tasks=TASKS, steps_per_action=2) for _ in range(2))
    answers = [env.reset(seed=3), other.reset(seed=3)]
    answers = [env.step(14), other.step(0)]
    assert [answer[-1].pop("invalid_action") for answer in answers] == [True, False]
    assert same(*answers)


def test_more_than_six_tasks_are_merged_in_pairs_by_the_least_of_their_blocks():
    env = make("yeast", env_id=LAYER_MERGING, train_steps=20, steps_per_action=2, hidden_sizes=[4, 4])
    assert env.action_space.n == choices(14) == 1 + 14 * 13 // 2
    env.reset(seed=0)
    env.step(0)
    first, second = np.triu_indices(14, 1)
    pair = {(one, other): place + 1 for place, (one, other) in enumerate(zip(first.tolist(), second.tolist(), strict=True))}
    env.step(pair[2, 5])
    assign, masks = env.unwrapped.vector.decision.assign[0], env.unwrapped.action_masks()
    assert assign[0].tolist() == [2 if task == 5 else task for task in range(14)]
    assert assign[1].tolist() == list(range(14))
    assert masks[pair[2, 5]]  # now at the second stage
    assert not masks[pair[5, 7]]  # 5's block is named by 2
    env.step(pair[2, 7])
    assert env.unwrapped.vector.decision.assign[0, 0].tolist() == [2 if task in (5, 7) else task for task in range(14)]


# --- the environment ----------------------------------------------------------------------------------------------


def test_the_reward_is_the_change_of_the_mean_gain_less_the_price_of_the_parameters():
    returns = {}
    for price in (0.0, 0.5):
        env = make(env_id=LAYER_MERGING, tasks=TASKS, train_steps=8, steps_per_action=2, parameter_price=price)
        env.reset(options={"instance": 5})
        returns[price] = sum(env.step(action)[1] for action in (0, 14, 14, 14))
    share = float(env.unwrapped.vector.decision.used()[0])
    assert share < 1
    assert returns[0.5] - returns[0.0] == pytest.approx(0.5 * (1 - share), abs=1e-5)


def test_the_score_is_the_mean_relative_gain_on_reward():
    env = make(env_id=LAYER_MERGING, tasks=TASKS, train_steps=8, steps_per_action=4, parameter_price=0)
    env.reset(options={"instance": 5})
    trainer = env.unwrapped.vector.decision.trainer
    first = gains(trainer).clamp(min=-100).mean()
    total = sum(env.step(0)[1] for _ in range(2))
    assert total == pytest.approx(float(gains(trainer).clamp(min=-100).mean() - first) / 100, abs=1e-5)


def test_thresholds_merge_by_the_rule_at_each_groups_frontier():
    env = make_vec(
        env_id=LAYER_MERGING,
        tasks=TASKS,
        hidden_sizes=[8, 8],
        train_steps=40,
        steps_per_action=10,
        action="threshold",
        rule="paper",
        reward="none",
    )
    env.reset(seed=0)
    env.step(np.ones((3, 1)))
    similar = env.view["cka"][:, 0]
    env.step(np.full((3, 1), 0.4))
    expected = torch.stack([coarsest(own, 0.7) for own in similar])
    assert torch.equal(env.decision.assign[:, 0], expected)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"action": "partition"}, "action"),
        ({"similarity": "cosine"}, "similarity"),
        ({"transfer": "copy"}, "transfer"),
        ({"transfer_steps": 0}, "transfer_steps"),
        ({"alignment": -0.1}, "alignment"),
        ({"alignment": math.nan}, "alignment"),
        ({"parameter_price": -1}, "parameter_price"),
        ({"num_tasks": 1}, "num_tasks"),
        ({"hidden_sizes": []}, "hidden_sizes"),
        ({"main_task": "digit"}, "main_task"),
    ],
    ids=lambda value: str(value),
)
def test_a_wrong_argument_is_named(arguments, error):
    with pytest.raises(ValueError, match=f"`{error}`"):
        make(env_id=LAYER_MERGING, **arguments)


def test_average_moments_is_a_truth_value():
    with pytest.raises(TypeError, match="`average_moments`"):
        make(env_id=LAYER_MERGING, average_moments=1)


@pytest.mark.parametrize(
    ("mode", "action"),
    [("merge", 15), ("merge", -1), ("merge", 0.5), ("merge", math.nan), ("threshold", [1.2]), ("threshold", [math.nan])],
)
def test_an_action_outside_the_space_changes_nothing(mode, action):
    env = make(env_id=LAYER_MERGING, tasks=TASKS, action=mode)
    env.reset(seed=0)
    before = env.unwrapped.state()
    with pytest.raises(ValueError, match="actions"):
        env.step(action)
    with pytest.raises(ValueError, match="shape"):
        env.step([[0, 0]])
    assert same(before, env.unwrapped.state())


@pytest.mark.parametrize("option", ["mtsl:threshold=1.5", "mtsl:threshold=-1", "conflict:threshold=2", "branch:stage=0"])
def test_a_wrong_option_of_a_heuristic_is_named(option):
    with pytest.raises(ValueError, match=r"threshold|stage"):
        make_policy(option)


@pytest.mark.parametrize("name", MERGERS)
def test_every_heuristic_plays_every_kind_of_problem(name):
    for problem in ("digits", "yeast"):
        results = run(plan([name], LAYER_MERGING, instances=2, num_envs=2, **small(problem, LAYER_MERGING)))
        for result in results:
            assert np.isfinite(result.delta_m)
            assert 0 < result.outcome["parameter_fraction"] <= 1
            assert len(result.outcome["tasks"]) == len(result.outcome["assign"][0])


def test_the_simple_heuristics_do_what_their_names_say():
    arguments = small(tasks=TASKS, hidden_sizes=[6, 6], train_steps=16, steps_per_action=2)
    results = run(plan(["single-task", "shared", "branch"], LAYER_MERGING, instances=2, num_envs=2, **arguments))
    tables = {result.policy: result.outcome["assign"] for result in results}
    apart, joined = [0, 1, 2, 3], [0, 0, 0, 0]
    assert tables == {"single-task": [apart, apart], "shared": [joined, joined], "branch": [joined, apart]}


def test_a_comparison_has_parameters_and_robustness_in_frame_and_summary():
    frame = mtl_gym.compare("single-task,shared", LAYER_MERGING, instances=3, **small(tasks=TASKS))
    assert {"parameter_fraction", "corrupted"} <= set(frame.columns)
    summary = mtl_gym.summarize(frame)["policies"]
    assert summary["single-task"]["parameter_fraction"]["mean"] == 1
    assert summary["shared"]["parameter_fraction"]["mean"] < 1
    assert summary["shared"]["corrupted"]["low"] <= summary["shared"]["corrupted"]["mean"]


def test_rendering_shows_the_structure():
    env = make(env_id=LAYER_MERGING, tasks=TASKS, render_mode="rgb_array", steps_per_action=2)
    env.reset(seed=0)
    first = env.render()
    env.step(0)
    env.step(14)
    assert first.shape == env.render().shape
    assert not np.array_equal(first, env.render())


# --- corruptions ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_corruptions_grow_with_their_severity_and_are_the_same_every_time(kind):
    problem = load_problem("multimnist" if CORRUPTIONS[kind].images else "digits")
    own = problem.splits["test"]
    sizes = []
    for severity in SEVERITIES:
        other = corrupted(problem, "test", kind, severity)
        assert torch.equal(other.inputs, corrupted(problem, "test", kind, severity).inputs)
        assert other.inputs.shape == own.inputs.shape
        assert torch.isfinite(other.inputs).all()
        assert other.targets is own.targets
        sizes.append(float((other.inputs - own.inputs).square().mean()))
    assert 0 < sizes[0] < sizes[-1]
    assert sizes == sorted(sizes)


def test_there_are_at_least_eight_kinds_for_every_problem_and_five_severities():
    assert len(kinds(load_problem("census"))) >= 8
    assert len(kinds(load_problem("multimnist"))) == len(CORRUPTIONS)
    assert len(SEVERITIES) == 5


def test_a_corruption_that_does_not_exist_or_does_not_fit_is_named():
    problem = load_problem("digits")
    for kind, severity in (("fog", 1), ("blurred", 1), ("gaussian", 6), ("gaussian", 0)):
        with pytest.raises(ValueError, match=r"kind|severity"):
            corrupted(problem, "test", kind, severity)


def test_the_environment_is_registered_with_masks():
    env = gymnasium.make(LAYER_MERGING, disable_env_checker=True, **small(tasks=TASKS))
    env.reset(seed=0)
    assert env.unwrapped.action_masks().shape == (15,)
    assert env.unwrapped.action_masks().dtype == np.bool_


def test_groups_are_restored_with_the_structure():
    envs = make_vec(
        env_id=LAYER_MERGING, tasks=TASKS, hidden_sizes=[8, 8], train_steps=40, checkpoint="best_meta", autoreset_mode="Disabled"
    )
    decision, trainer = envs.decision, envs.decision.trainer
    envs.reset(options={"instance": np.arange(3)})
    envs.step(np.array([np.flatnonzero(row)[0] for row in envs.action_masks()]))
    early = decision.groups.clone(), decision.assign.clone()
    trainer.replicas.flat *= 100  # from here on, nothing is better
    trainer.restructured()
    for _ in range(decision.length - 1):
        before = decision.groups.clone()
        envs.step(np.array([np.flatnonzero(row)[min(1, row.sum() - 1)] for row in envs.action_masks()]))
    # The last decision began with other groups.
    assert not (before == early[0]).all(1).any()
    assert same((decision.groups, decision.assign), early)
    state = envs.state()
    envs.reset(options={"instance": np.arange(3)})
    envs.restore(state)
    assert same(decision.groups, early[0])

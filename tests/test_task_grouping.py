"""TaskGrouping: data maps, affinities, groups, what is legal, group tables, and the environment that decides it."""

import copy
import itertools
import json
import math
import pickle
import warnings

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings, strategies as st
from rollouts import play, random_actions, same, train
from stable_baselines3.common.env_checker import check_env as check_env_of_sb3
from torch.nn import functional
from typer.testing import CliRunner

import mtl_gym
from mtl_gym.cli import full_app
from mtl_gym.decisions.grouping import known_groups as store
from mtl_gym.decisions.grouping.data_maps import DataMaps, squared_distances, summaries
from mtl_gym.decisions.grouping.group_tables import read_group_table, write_group_table
from mtl_gym.decisions.grouping.group_training import (
    ensemble_metrics,
    group_metrics,
    last_features,
    mask_of,
    masks_of,
    members,
    train_groups,
)
from mtl_gym.decisions.grouping.modes import GROUPINGS, NEGLIGIBLE, Merge, Place, next_task
from mtl_gym.decisions.grouping.trainings import GroupTrainings
from mtl_gym.decisions.grouping.warm_up import COSINES, LOOKAHEAD, MAP_DISTANCES, MAP_FEATURES, MAPS, WarmUp, Watching
from mtl_gym.decisions.partitions import partitions
from mtl_gym.environments import TASK_GROUPING, specification
from mtl_gym.envs.arguments import check_arguments
from mtl_gym.evaluation.group_table_maker import make_table
from mtl_gym.problems import load_problem
from mtl_gym.problems.base import Pool, Problem, Split, Task
from mtl_gym.problems.instances import TRAINING_IDS
from mtl_gym.problems.metrics import METRICS
from mtl_gym.training.formulas import linear_cka
from mtl_gym.training.measurements import steps_per_epoch
from mtl_gym.training.trainer import Trainer

SMALL = {"problem": "yeast", "num_tasks": 4, "hidden_sizes": [8], "train_steps": 12, "batch_size": 64, "lr": 5e-3}
ALL = list(specification(TASK_GROUPING).observations)


def classes(missing=0.0, seed=0, count=60):
    """A small problem: two binary tasks, one of three classes and one with two binary outputs; some labels may be missing."""
    rng = np.random.default_rng(seed)
    tasks = (
        Task("sign", "bce", ("accuracy",)),
        Task("sum", "bce", ("auc",)),
        Task("third", "cross_entropy", ("accuracy",), outputs=3),
    )

    def split():
        inputs = rng.normal(size=(count, 5))
        labels = [inputs[:, 0] > 0, inputs.sum(1) > 0, np.digitize(inputs[:, 1], [-0.5, 0.5])]
        labels = [label.astype(np.float32) for label in labels]
        for label in labels:
            label[rng.random(count) < missing] = np.nan
        return Split.of(inputs, labels)

    return Problem("classes", tasks, {name: split() for name in ("train", "meta", "reward", "test")})


def small(**others):
    settings = {**SMALL, **others}
    return (
        settings if isinstance(settings["problem"], str) else {**settings, "num_tasks": others.get("num_tasks"), "batch_size": 16}
    )


def make(**others):
    return gymnasium.make(TASK_GROUPING, disable_env_checker=True, **small(**others))


def make_vec(num_envs=3, **others):
    return gymnasium.make_vec(TASK_GROUPING, num_envs=num_envs, vectorization_mode="vector_entry_point", **small(**others))


def arguments(**others):
    return check_arguments(specification(TASK_GROUPING), **small(**others))


def warm_up(ids=(0, 1), **others):
    checked = arguments(**others)
    return WarmUp(checked.problem, checked.recipe, ids)


def begun(checked, ids):
    """A trainer of these instances."""
    trainer = Trainer(checked.problem, checked.recipe, len(ids))
    trainer.begin(range(len(ids)), ids)
    return trainer


def placed(env, labels):
    """The last answer of an episode that places the tasks so, in all rows."""
    env.reset(options={"instance": 7})
    for label in labels:
        answer = env.step(np.full(env.num_envs, label))
    return answer


# --- data maps -------------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**16), steps=st.integers(1, 14), length=st.integers(1, 5))
@settings(max_examples=25, deadline=None)
def test_running_means_and_deviations_are_numpys(seed, steps, length):
    rng, rows, batch, samples = np.random.default_rng(seed), 3, 2, 11
    epochs = math.ceil(steps / length)
    order = np.stack([[rng.permutation(samples)[: length * batch] for _ in range(epochs)] for _ in range(rows)])
    order = order.reshape(rows, -1, batch)[:, :steps]
    values = rng.random((steps, rows, batch, 2)).astype(np.float32)
    maps = DataMaps(torch.from_numpy(order), length, samples, 2)
    for epoch in range(epochs):
        maps.add(torch.from_numpy(values[epoch * length : (epoch + 1) * length]))
    visits, deviations = maps.visits, maps.variability()
    for row, sample in itertools.product(range(rows), range(samples)):
        own = values[:, row][order[row] == sample]
        assert visits[row, sample] == len(own)
        np.testing.assert_allclose(maps.confidence[row, sample], own.mean(0) if len(own) else 0, atol=1e-6)
        np.testing.assert_allclose(deviations[row, sample], own.std(0, ddof=1) if len(own) > 1 else 0, atol=1e-6)


def test_a_training_that_diverges_leaves_the_maps_of_the_others_alone():
    values = torch.rand(1, 3, 2, 4)
    values[0, 0] = torch.nan
    maps = DataMaps(torch.tensor([[[0, 1]], [[2, 3]], [[1, 0]]]), 1, 5, 4)
    maps.add(values)
    assert torch.equal(maps.confidence[1, 2:4], values[0, 1])
    assert torch.isfinite(maps.confidence[1:]).all()


def hand_maps(checked, id, snapshots):
    """Data maps of an instance, by hand: an epoch's losses of a plain training, one sample after another."""
    problem, recipe = checked.problem, checked.recipe
    plain = Trainer(problem, recipe, 1, by_samples=True)
    plain.begin([0], [id])
    length, tasks = int(steps_per_epoch(plain)[0]), plain.ledger.tasks[0].tolist()
    epochs = math.ceil(recipe.train_steps / length)
    times = [round(time) for time in np.linspace(min(2, epochs), epochs, snapshots)]
    seen = [[] for _ in range(len(problem.splits["train"]))]
    taken = []
    for step in range(recipe.train_steps):
        samples, losses = plain.losses.drawn.batches.order[0, step].tolist(), plain.losses.sample_graph()[0].detach()
        labels = problem.splits["train"].targets[samples]
        for place, sample in enumerate(samples):
            known = [not bool(labels[place, problem.target_slices[task]].isnan().any()) for task in tasks]
            seen[sample].append([math.exp(-loss) * own for loss, own in zip(losses[place].tolist(), known, strict=True)])
        plain.update(torch.ones(1, recipe.num_tasks), torch.ones(1, dtype=torch.bool))
        if (step + 1) % length == 0 or step + 1 == recipe.train_steps:
            epoch = step // length + 1
            means = np.array([np.mean(own, axis=0) if own else np.zeros(len(tasks)) for own in seen])
            spread = np.array([np.std(own, axis=0, ddof=1) if len(own) > 1 else np.zeros(len(tasks)) for own in seen])
            taken += [(means, spread, np.array([len(own) for own in seen]))] * times.count(epoch)
    return np.array([own[:2] for own in taken]), [own[2] for own in taken]  # (E, 2, n, K), (E, n)


@pytest.mark.parametrize(
    "others",
    [
        {"train_steps": 70, "batch_size": 256},
        {"problem": classes(), "train_steps": 17},
        {"problem": classes(missing=0.2), "train_steps": 17},
        {"problem": classes(), "train_steps": 2},
        {"problem": classes(), "train_steps": 17, "distribution": {"size": [0.5, 1.0]}},
        {"problem": classes(), "train_steps": 17, "num_tasks": 2},
    ],
    ids=["yeast", "classes", "missing", "short", "sizes", "subset"],
)
def test_the_data_maps_of_a_warm_up_are_those_of_a_loop_by_hand(others):
    warmed = warm_up(ids=(3, 1, 2), **others)
    found = warmed.run(Watching(3, 10), [MAP_FEATURES, MAP_DISTANCES, MAPS])
    maps, visits = hand_maps(arguments(**others), 3, 3)
    trainer = warmed.trainer
    targets, tasks = trainer.problem.splits["train"].targets, trainer.ledger.tasks[0].tolist()
    known = ~torch.stack(
        [targets[:, trainer.problem.target_slices[task]].isnan().any(1) for task in tasks], dim=1
    ).numpy()  # (n, K)
    count = len(trainer.ledger.instances[0].rows)
    shown = np.where(known, maps[-1], np.nan) if not known.all() else maps[-1]
    np.testing.assert_allclose(found[MAPS][0].movedim(2, 0).mT, shown, atol=2e-5)
    expected = []
    for one, two in itertools.combinations(range(maps.shape[3]), 2):
        both = known[:, one] & known[:, two]
        apart = np.linalg.norm(maps[:, :, both, one] - maps[:, :, both, two])
        expected.append(apart / math.sqrt(3 * (count if both.all() else both.sum()) * 2))
    np.testing.assert_allclose(found[MAP_DISTANCES][0], expected, atol=1e-5)
    for place, (means, spread) in enumerate(maps):
        for task in range(maps.shape[3]):
            counting = (visits[place] > 0) & known[:, task]
            confidence, variability = means[counting, task], spread[counting, task]
            features = found[MAP_FEATURES][0, task, place]
            np.testing.assert_allclose(features[0], confidence.mean(), atol=2e-5)
            np.testing.assert_allclose(features[1], variability.mean(), atol=2e-5)
            np.testing.assert_allclose(features[2], confidence.std(), atol=2e-5)
            np.testing.assert_allclose(features[3], variability.std(), atol=2e-5)
            np.testing.assert_allclose(features[4:].sum(), 1, atol=1e-5)


def halved(split_labels, tasks=2, count=60, seed=0):
    """A problem of tasks with the same labels, of which ``split_labels(labels, task)`` removes some in *train*."""
    rng = np.random.default_rng(seed)

    def split(change):
        inputs = rng.normal(size=(count, 5))
        return Split.of(inputs, [change((inputs[:, 0] > 0).astype(np.float32), task) for task in range(tasks)])

    splits = {
        name: split(split_labels if name == "train" else lambda labels, task: labels)
        for name in ("train", "meta", "reward", "test")
    }
    return Problem("halved", [Task(f"task {task}", "bce", ("accuracy",)) for task in range(tasks)], splits)


def signals(problem):
    return warm_up(ids=(0,), problem=problem, train_steps=60, lr=0.05).run(
        Watching(2, 3), [MAP_FEATURES, MAP_DISTANCES, COSINES, LOOKAHEAD]
    )


def test_missing_labels_do_not_make_a_task_less_confident():
    """60 % missing moved a task from a confidence of .64 to .24."""

    def remove(labels, task):
        return np.where((np.arange(60) % 5 < 3) & (task == 1), np.nan, labels)

    full, sparse = (signals(halved(change)) for change in (lambda labels, task: labels, remove))
    confident = [float(found[MAP_FEATURES][0, 1, -1, 0]) for found in (full, sparse)]
    assert confident[0] > 0.6
    assert abs(confident[1] - confident[0]) < 0.1
    assert sparse[MAP_DISTANCES][0, 0] < 0.1  # of the common samples
    assert sparse[MAP_FEATURES][0, 1, -1, 4:].sum() == pytest.approx(1)


def test_tasks_without_a_common_sample_are_compared_by_their_means():
    found = signals(halved(lambda labels, task: np.where(np.arange(60) % 2 == task, labels, np.nan)))
    means = found[MAP_FEATURES][0, :, :, :2]  # (K, E, 2)
    expected = ((means[0] - means[1]) ** 2).sum(1).mean().div(2).sqrt()
    assert found[MAP_DISTANCES][0, 0] == pytest.approx(float(expected), abs=1e-6)
    assert 0 <= found[MAP_DISTANCES][0, 0] < 0.2


def test_affinities_are_means_over_the_batches_with_labels_of_both_tasks():
    order = warm_up(ids=(0,), problem=halved(lambda labels, task: labels)).trainer.losses.drawn.batches.order[0]
    first = order[0].long().numpy()  # in the first batch, the second task has no label
    problem = halved(lambda labels, task: np.where(np.isin(np.arange(60), first) & (task == 1), np.nan, labels))
    steps = 5
    step_by_step, at_once = (warm_up(ids=(0,), problem=problem, train_steps=steps) for _ in range(2))
    for own in (step_by_step, at_once):
        own.trainer.losses.drawn.batches.order[0, 0] = order[0]  # which would have been completed
    found = []
    for step in range(steps):
        absent = bool(np.isin(order[step].numpy(), first).all())
        found += [] if absent else [step_by_step.affinities([COSINES, LOOKAHEAD])]
        step_by_step.trainer.update(torch.ones(1, 2), torch.ones(1, dtype=torch.bool))
    assert len(found) == steps - 1
    means = at_once.run(Watching(2, 1), [COSINES, LOOKAHEAD])
    torch.testing.assert_close(means[COSINES], sum(own[COSINES] for own in found) / 4)
    pairs = [own[LOOKAHEAD][0, [0, 1], [1, 0]] for own in found]
    torch.testing.assert_close(means[LOOKAHEAD][0, [0, 1], [1, 0]], sum(pairs) / 4)


def test_groups_are_found_where_labels_are_missing():
    problem = halved(lambda labels, task: np.where(np.arange(60) % 4 == task, np.nan, labels), tasks=4)
    frame = mtl_gym.compare("stg-mtl,cosine-groups,tag", TASK_GROUPING, instances=1, **small(problem=problem))
    assert np.isfinite(frame["delta_m"]).all()


def test_the_regions_of_a_map_are_shares():
    confidence = torch.tensor([0.9, 0.9, 0.1, 0.1, 0.5, 0.0])[None, :, None]
    variability = torch.tensor([0.0, 0.3, 0.3, 0.1, 0.2, 0.0])[None, :, None]
    visited = torch.tensor([[True] * 5 + [False]])
    assert summaries(confidence, variability, visited[:, :, None])[0, 0, 4:].tolist() == pytest.approx([0.4, 0.4, 0.2])


def test_distances_are_euclidean():
    confidence, variability = torch.rand(2, 9, 3), torch.rand(2, 9, 3)
    found = squared_distances(confidence, variability)
    maps = torch.cat([confidence, variability], dim=1).mT
    torch.testing.assert_close(found.sqrt().float(), torch.cdist(maps, maps), atol=1e-5, rtol=1e-5)


def test_watching_a_warm_up_does_not_change_it():
    plain, watched = warm_up(), warm_up()
    plain.run(Watching(1, 5), [])
    watched.run(Watching(3, 1), [MAP_FEATURES, MAP_DISTANCES, COSINES, LOOKAHEAD])
    assert torch.equal(plain.trainer.replicas.flat, watched.trainer.replicas.flat)


# --- affinities ------------------------------------------------------------------------------------------------------


def test_cosines_and_looks_ahead_are_autograds():
    problem = classes()
    found = warm_up(ids=(5,), problem=problem, train_steps=6).run(Watching(1, 2), [COSINES, LOOKAHEAD])
    plain = begun(arguments(problem=problem, train_steps=6), (5,))
    cosines, ahead = [], []
    for step in range(6):
        if step % 2 == 0:
            losses, named = plain.losses.graph(), plain.replicas.parameters
            shared = list(named)[: plain.model.shared]
            assert len(shared) == len(named) - 2  # the heads' are the last two
            parts = [torch.autograd.grad(own, [named[name] for name in shared], retain_graph=True) for own in losses[0]]
            flat = [torch.cat([part.flatten() for part in own]) for own in parts]
            pairs = itertools.combinations(range(3), 2)
            cosines.append([functional.cosine_similarity(flat[one], flat[two], dim=0) for one, two in pairs])
            table, rate = [], plain.replicas.rates(plain.ledger.step)[0]
            for own in parts:
                moved = {name: named[name] - rate * part for name, part in zip(shared, own, strict=True)}
                after = plain.losses.at({**named, **moved}, plain.ledger.step)
                table.append((1 - after / losses)[0].tolist())
            ahead.append(table)
        train(plain, 1)
    np.testing.assert_allclose(found[COSINES][0], np.mean(cosines, axis=0), atol=1e-5)
    np.testing.assert_allclose(found[LOOKAHEAD][0], np.mean(ahead, axis=0), atol=1e-6)


def test_a_step_along_its_own_gradient_helps_a_task():
    found = warm_up(ids=(5,), problem=classes(), train_steps=20).run(Watching(1, 1), [LOOKAHEAD])[LOOKAHEAD]
    assert (found.diagonal(dim1=1, dim2=2) > 0).all()


def test_layers_are_compared_of_networks_that_were_trained_alone():
    checked = arguments()
    groupings = store.KnownGroups(checked.problem, checked.recipe, Watching(2, 5))
    known = groupings.known([11, 12], [store.LAYER_CKA])
    for id, own in zip((11, 12), known, strict=True):
        alone = [next(train_groups(checked.problem, checked.recipe, [id], torch.eye(4)[task : task + 1])) for task in range(4)]
        similar = linear_cka(torch.stack([last_features(trainer)[0] for trainer in alone])[None])[0]
        first, second = np.triu_indices(4, 1)
        np.testing.assert_allclose(own.signals[store.LAYER_CKA], similar[first, second], atol=1e-4)


# --- groups ----------------------------------------------------------------------------------------------------------


def test_groups_are_bit_masks():
    assert mask_of([0, 2]) == 5
    assert masks_of([0, 1, 0, 2]) == [5, 2, 8]
    assert members([5, 2], 3).tolist() == [[1, 0, 1], [0, 1, 0]]


def test_a_batch_of_groups_equals_each_trained_by_itself():
    checked = arguments()
    masks = [mask for mask in range(1, 16) for _ in range(2)]
    ids = [3, 9] * 15
    found = group_metrics(checked.problem, checked.recipe, ids, masks)
    for place in range(0, 30, 7):
        own = train(begun(checked, [ids[place]]), checked.recipe.train_steps, members([masks[place]], 4))
        for split, name in enumerate(("meta", "reward", "test")):
            values = list(own.metrics(name).values())
            np.testing.assert_allclose(found[place, split], torch.stack(values)[:, 0], atol=1e-6)


def test_an_ensemble_is_the_weighted_mean_of_the_groups_logits():
    problem = classes()
    checked = arguments(problem=problem)
    memberships = torch.tensor([[[0.3, 0.7], [1.0, 0.0], [0.5, 0.5]], [[0.0, 1.0], [0.25, 0.75], [1.0, 0.0]]])
    found = ensemble_metrics(problem, checked.recipe, [4, 5], memberships)
    for row, id in enumerate((4, 5)):
        outputs = 0
        for group in range(2):
            own = train(begun(checked, [id]), checked.recipe.train_steps, memberships[row, :, group][None])
            shares = memberships[row, :, group][torch.tensor([0, 1, 2, 2, 2])]
            outputs = outputs + shares * own.outputs("reward")[0]
        targets = problem.splits["reward"].targets
        right = [(outputs[:, 0] > 0) == (targets[:, 0] > 0), outputs[:, 2:].argmax(1) == targets[:, 2]]
        assert found[row, 1, [0, 2]].tolist() == pytest.approx([own.double().mean().item() for own in right])


def test_hard_memberships_make_an_ensemble_of_the_groups_own_predictions():
    env = make_vec(num_envs=1, problem=classes(), autoreset_mode="Disabled")
    placed(env, [0, 1, 0])
    trainings = env.decision.trainings
    soft = ensemble_metrics(trainings.problem, trainings.recipe, [7], trainings.memberships)
    np.testing.assert_allclose(trainings.state["results"], soft, atol=1e-9)


# --- what is legal ---------------------------------------------------------------------------------------------------


@given(num_tasks=st.integers(2, 7), share=st.floats(0, 1), seed=st.integers(0, 2**16), action=st.sampled_from(["place", "merge"]))
@settings(max_examples=60, deadline=None)
def test_random_play_ends_in_groups_numbered_by_first_use(num_tasks, share, seed, action):
    most = 1 + round(share * (num_tasks - 1))
    grouping = GROUPINGS[action](num_tasks, most, 1.0)
    rng, memberships, done = np.random.default_rng(seed), grouping.start()[None], torch.zeros(1)
    for decision in range(num_tasks):
        if done >= 1:
            break
        legal = grouping.valid(memberships)[0].numpy()
        assert legal.any()
        own = torch.tensor([rng.choice(np.flatnonzero(legal))])
        taken, masked = grouping.checked(own, memberships)
        assert not masked
        assert taken == own
        wrong = np.flatnonzero(~legal)
        if len(wrong):
            taken, masked = grouping.checked(torch.tensor([rng.choice(wrong)]), memberships)
            assert masked
            assert taken == np.flatnonzero(legal)[0]
        before = done
        memberships, done = grouping.act(own, memberships)
        assert done > before
        assert decision < num_tasks
    labels = memberships[0].argmax(1).tolist()
    assert done == 1
    assert memberships.sum(2).eq(1).all()
    assert labels == [list(dict.fromkeys(labels)).index(label) for label in labels]
    assert len(set(labels)) <= most


def test_every_partition_can_be_placed_and_merged():
    for action, made in (("place", Place), ("merge", Merge)):
        for wanted in partitions(4).tolist():
            grouping = made(4, 4, 1.0)
            memberships = grouping.start()[None]
            labels = [list(dict.fromkeys(wanted)).index(label) for label in wanted]
            pairs = list(itertools.combinations(range(4), 2))
            joins = [1 + pairs.index((label, task)) for task, label in enumerate(wanted) if label != task]
            for number in labels if action == "place" else [*joins, 0]:
                if action == "place" or number or len(set(labels)) > 1:
                    assert grouping.valid(memberships)[0, number]
                    memberships, done = grouping.act(torch.tensor([number]), memberships)
            assert memberships[0].argmax(1).tolist() == labels
            assert done == 1


def test_the_next_task_is_the_first_that_is_not_placed():
    memberships = torch.zeros(2, 3, 3)
    memberships[1, :, 0] = 1
    assert next_task(memberships).tolist() == [[1, 0, 0], [0, 0, 0]]


def test_memberships_are_a_softmax_without_what_is_negligible():
    grouping = GROUPINGS["memberships"](2, 2, 2.0)
    actions = torch.tensor([[0.5, -0.5, 1.0, 1.0]])
    found, done = grouping.act(actions, grouping.start()[None])
    torch.testing.assert_close(found[0, 0], torch.softmax(torch.tensor([1.0, -1.0]), 0))
    assert found[0, 1].tolist() == [0.5, 0.5]
    assert done == 1
    sharp = GROUPINGS["memberships"](2, 2, 10.0)
    assert sharp.act(actions, sharp.start()[None])[0][0, 0].tolist() == [1, 0]
    assert math.exp(-10) < NEGLIGIBLE


# --- the environment -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", GROUPINGS)
def test_one_group_has_a_reward_of_exactly_zero(action):
    env = make_vec(action=action, max_groups=1, autoreset_mode="Disabled")
    env.reset(seed=0)
    total = np.zeros(3)
    while not env.finished.all():
        masks = env.action_masks()
        actions = np.ones((3, 4), np.float32) if action == "memberships" else np.array([np.flatnonzero(row)[0] for row in masks])
        _, rewards, _, _, infos = env.step(actions)
        total += rewards
    assert total.tolist() == [0.0] * 3
    assert infos["num_groups"].tolist() == [1] * 3
    assert infos["forward"].tolist() == [12.0] * 3


def test_the_reward_is_the_mean_gain_over_all_together_minus_the_price():
    problem = classes()
    env = make_vec(num_envs=1, problem=problem, autoreset_mode="Disabled", group_price=0.05, observe=["progress"])
    answer = placed(env, [0, 1, 0])
    metrics = group_metrics(problem, env.arguments.recipe, [7] * 3, [5, 2, 7])[:, 1]
    own, together = torch.stack([metrics[0, 0], metrics[1, 1], metrics[0, 2]]), metrics[2]
    assert answer[1][0] == pytest.approx(float(((own - together) / together).mean()) - 0.05)
    assert (answer[4]["forward"][0], answer[4]["backward"][0]) == (36, 36)


def test_groupings_in_any_mode_come_to_the_same():
    env = make_vec(num_envs=1, autoreset_mode="Disabled")
    expected = placed(env, [0, 1, 1, 0])
    merge = make_vec(num_envs=1, action="merge", autoreset_mode="Disabled")
    merge.reset(options={"instance": 7})
    pairs = list(itertools.combinations(range(4), 2))
    for action in (1 + pairs.index((0, 3)), 1 + pairs.index((1, 2)), 0):
        merged = merge.step([action])
    soft = make_vec(num_envs=1, action="memberships", max_groups=2, autoreset_mode="Disabled")
    soft.reset(options={"instance": 7})
    together = soft.step(np.array([[1, -1, -1, 1, -1, 1, 1, -1]], np.float32))
    for answer in (merged, together):
        assert answer[1] == expected[1]
        assert same(answer[4]["test"], expected[4]["test"])


def test_cached_instances_cost_what_training_them_costs():
    costs = []
    for _ in range(2):
        env = make_vec(num_envs=1, observe=ALL, autoreset_mode="Disabled", snapshots=2)
        costs.append(placed(env, [0, 1, 1, 2])[4]["forward"].tolist())
    assert costs[0] == costs[1]
    probes, compared = 2 * 4, 4 * 256 / 64
    assert costs[0] == [15 * 12 + probes + compared]


def test_what_is_asked_for_is_paid_for():
    def cost(*observe):
        env = make_vec(num_envs=1, observe=["progress", *observe], autoreset_mode="Disabled")
        _, _, _, _, infos = placed(env, [0, 0, 0, 0])
        return infos["forward"][0], infos["backward"][0]

    assert cost() == (12, 12)
    assert cost("map_features", "map_distances") == (12, 12)
    assert cost("gradient_cosines") == (12, 12 + 8)
    assert cost("lookahead") == cost("lookahead", "gradient_cosines") == (12 + 8, 12 + 8)
    assert cost("layer_cka") == (12 + 48 + 16, 12 + 48)
    assert cost("pair_gains") == cost("pair_gains", "action_mask") == (12 + 120, 12 + 120)
    assert cost("outcomes") == (15 * 12, 15 * 12)


@pytest.mark.parametrize("steps", [12, 4])
def test_looks_for_the_best_checkpoint_are_paid_for_as_in_any_training(steps):
    own = {"checkpoint": "best_meta", "train_steps": steps, "num_envs": 1, "autoreset_mode": "Disabled"}

    def cost(answer):
        return answer[4]["forward"][0], answer[4]["backward"][0]

    env = make_vec(observe=["progress"], **own)
    trainer = next(train_groups(env.arguments.problem, env.arguments.recipe, [7], torch.ones(1, 4)))
    forward, backward = trainer.ledger.passes[0].tolist()
    assert (forward, backward) == (steps + min(10, steps) * 128 / 64, steps)
    assert cost(placed(env, [0, 0, 0, 0])) == (forward, backward)
    assert cost(placed(env, [0, 1, 1, 0])) == (3 * forward, 3 * backward)
    assert cost(placed(make_vec(observe=["pair_gains"], **own), [0, 0, 0, 0])) == (11 * forward, 11 * backward)
    soft = make_vec(observe=["progress"], action="memberships", max_groups=2, sharpness=1.0, **own)
    soft.reset(options={"instance": 7})
    assert cost(soft.step(np.array([[0.2, 0, 0, 0.3, 0.1, 0, 0, 0]], np.float32))) == (3 * forward, 3 * backward)


def test_of_several_visits_in_an_epoch_the_last_counts():
    order = torch.tensor([[[0, 1], [2, 0], [0, 3], [3, 0]]])  # two epochs of two steps
    values = torch.rand(4, 1, 2, 1)
    maps = DataMaps(order, 2, 4, 1)
    maps.add(values[:2])
    expected = [values[1, 0, 1], values[0, 0, 1], values[1, 0, 0], torch.zeros(1)]
    assert torch.equal(maps.confidence[0], torch.stack(expected))
    maps.add(values[2:])
    torch.testing.assert_close(maps.confidence[0, 0], (values[1, 0, 1] + values[3, 0, 1]) / 2)
    torch.testing.assert_close(maps.confidence[0, 3], values[3, 0, 0])
    assert maps.visits.tolist() == [[2, 1, 1, 1]]


@pytest.mark.parametrize("axes", [{"split": [1, 1]}, {}])
def test_a_soft_grouping_of_one_group_is_measured_as_a_hard_one(axes):
    checked = arguments(distribution=axes, num_tasks=14)
    hard = group_metrics(checked.problem, checked.recipe, [3, 4], [2**14 - 1] * 2)
    found = ensemble_metrics(checked.problem, checked.recipe, [3, 4], torch.ones(2, 14, 1))
    torch.testing.assert_close(found, hard, rtol=1e-6, atol=1e-6)


def test_targets_of_soft_groups_are_not_normalised_again(monkeypatch):
    checked, calls = arguments(distribution={"split": [1, 1]}), []
    plain = Pool.splits
    monkeypatch.setattr(Pool, "splits", lambda pool, rows: (calls.append(rows), plain(pool, rows))[1])
    ensemble_metrics(checked.problem, checked.recipe, [3, 4, 5], torch.full((3, 4, 2), 0.5))
    assert calls == []


def test_pair_gains_and_outcomes_are_those_of_the_groups():
    env = make_vec(num_envs=2, observe=["pair_gains", "outcomes"], autoreset_mode="Disabled")
    observation, _ = env.reset(options={"instance": [5, 6]})
    trainings = env.decision.trainings
    names = [task.name for task in trainings.problem.tasks]
    for row in range(2):
        tasks = trainings.ledger.tasks[row].tolist()
        known = group_metrics(trainings.problem, trainings.recipe, [5 + row] * 15, list(range(1, 16)))
        assert len(names) == known.shape[2]
        for split, split_name in ((0, "pair_gains"), (1, "outcomes")):
            gains = ((known[:, split] - known[14, split]) / known[14, split].clamp(min=METRICS["accuracy"].floor))[:, tasks]
            if split_name == "outcomes":
                expected = [[gains[mask - 1, task] if mask >> task & 1 else 0 for task in range(4)] for mask in range(1, 16)]
            else:
                expected = [[gains[mask_of({one, two}) - 1, one] for two in range(4)] for one in range(4)]
            np.testing.assert_allclose(observation[split_name][row], np.ravel(expected), atol=1e-5)


def test_exhaustive_search_over_outcomes_finds_the_largest_return():
    env = make_vec(num_envs=1, observe=["outcomes"], autoreset_mode="Disabled")
    observation, _ = env.reset(options={"instance": 7})
    table = observation["outcomes"].reshape(15, 4)
    returns = {}
    for labels in partitions(4).tolist():
        masks = masks_of(labels)
        returns[tuple(labels)] = sum(table[mask - 1].sum() for mask in masks) / 4 - 0.01 * (len(masks) - 1)
    for labels, expected in list(returns.items())[::4]:
        numbers = [list(dict.fromkeys(labels)).index(label) for label in labels]
        assert placed(env, numbers)[1][0] == pytest.approx(expected, abs=1e-6)


def test_masked_actions_are_replaced_and_flagged():
    env = make_vec(num_envs=2, autoreset_mode="Disabled")
    env.reset(seed=0)
    _, _, _, _, infos = env.step([3, 0])
    assert infos["invalid_action"].tolist() == [True, False]
    assert env.decision.trainings.memberships[:, 0].argmax(1).tolist() == [0, 0]


def test_other_tasks_orders_are_other_groupings_of_the_same_tasks():
    env = make_vec(num_envs=1, autoreset_mode="Disabled")
    first, second = placed(env, [0, 1, 1, 0]), placed(env, [0, 0, 1, 1])
    assert not same(first[4]["test"], second[4]["test"])


@pytest.mark.parametrize(
    "problem",
    [pytest.param("yeast", marks=pytest.mark.slow), pytest.param(classes(), marks=pytest.mark.slow), classes(missing=0.2)],
    ids=["yeast", "classes", "missing"],
)
@pytest.mark.parametrize("action", GROUPINGS)
@pytest.mark.parametrize("checker", [check_env, check_env_of_sb3], ids=["gymnasium", "sb3"])
def test_the_checkers_pass_without_warnings(checker, action, problem):
    env = make(problem=problem, action=action, render_mode="rgb_array")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        checker(env.unwrapped)
    assert not [str(warning.message) for warning in caught]


def test_rows_do_not_depend_on_how_many_there_are():
    many = make_vec(num_envs=16, observe=ALL, autoreset_mode="Disabled")
    actions = random_actions(many.action_space, 4)
    options = {"instance": np.arange(16)}
    first = play(many, actions, options=options)
    for row in (0, 5, 15):
        store._remembered.clear()
        alone = make_vec(num_envs=1, observe=ALL, autoreset_mode="Disabled")
        second = play(alone, [action[row : row + 1] for action in actions], options={"instance": [row]})
        for own, other in zip(first, second, strict=True):
            for name in own[0]:
                np.testing.assert_allclose(own[0][name][row], other[0][name][0], atol=2e-4)
        for own, other in zip(first[1:], second[1:], strict=True):
            assert own[1][row] == pytest.approx(other[1][0], abs=1e-6)
            assert own[4]["forward"][row] == other[4]["forward"][0]


def test_a_warm_up_that_diverges_ends_its_own_episode_with_the_penalty(monkeypatch):
    store._remembered.clear()
    original = WarmUp.run

    def poisoned(warmed, *given):
        warmed.trainer.replicas.flat[1] = torch.nan
        return original(warmed, *given)

    healthy = make_vec(observe=ALL, autoreset_mode="Disabled")
    expected = play(healthy, random_actions(healthy.action_space, 4), options={"instance": np.arange(3)})
    store._remembered.clear()
    monkeypatch.setattr(WarmUp, "run", poisoned)
    env = make_vec(observe=ALL, autoreset_mode="Disabled")
    answers = play(env, random_actions(env.action_space, 4), options={"instance": np.arange(3)})
    store._remembered.clear()
    assert answers[1][2].tolist() == [False, True, False]
    assert answers[1][1].tolist() == [0, -2, 0]
    assert answers[1][4]["diverged"].tolist() == [False, True, False]
    for own, other in zip(answers, expected, strict=True):
        assert all(np.isfinite(values).all() for values in own[0].values())
        for name in own[0]:
            np.testing.assert_allclose(own[0][name][[0, 2]], other[0][name][[0, 2]], atol=1e-5)
    np.testing.assert_allclose(answers[-1][1][[0, 2]], expected[-1][1][[0, 2]], atol=1e-6)


def test_a_rate_that_is_far_too_large_ends_the_episode():
    env = make_vec(lr=1e25, optimizer="sgd", observe=ALL)
    env.reset(seed=0)
    _, rewards, terminated, _, infos = env.step([0, 0, 0])
    assert terminated.all()
    assert rewards.tolist() == [-2.0] * 3
    assert infos["final_info"]["diverged"].all()


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))], ids=["deepcopy", "pickle"])
@pytest.mark.parametrize("action", GROUPINGS)
def test_copies_and_restored_environments_go_on_in_the_same_way(clone, action):
    env = make_vec(action=action, problem=classes())
    actions = random_actions(env.action_space, 6)
    play(env, actions[:1], seed=3)
    other, kept = clone(env), env.state()
    rest = [env.step(action) for action in actions[1:]]
    assert same(rest, [other.step(action) for action in actions[1:]])
    env.restore(kept)
    assert same(rest, [env.step(action) for action in actions[1:]])


def test_a_partial_reset_leaves_the_others():
    env = make_vec(autoreset_mode="Disabled")
    play(env, random_actions(env.action_space, 2), seed=1)
    before = env.decision.trainings.memberships.clone()
    observation, infos = env.reset(options={"reset_mask": np.array([False, True, False])})
    assert infos["_instance"].tolist() == [False, True, False]
    assert torch.equal(before[[0, 2]], env.decision.trainings.memberships[[0, 2]])
    assert observation["progress"][:, 0].tolist() == [0.5, 0.0, 0.5]
    assert observation["next_task"].argmax(1).tolist() == [2, 0, 2]


def test_rendering_draws_maps_and_groups():
    env = make_vec(num_envs=2, render_mode="rgb_array", problem=classes())
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.render()
    frames = [env.reset(seed=0) and env.render()[0]]
    for action in random_actions(env.action_space, 2):
        env.step(action)
        frames.append(env.render()[0])
    assert frames[0].shape == (400, 1200, 3)
    assert not same(frames[0], frames[2])


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("others", "error", "words"),
    [
        (
            {"problem": "river_flow"},
            ValueError,
            "be one that mtl_gym/TaskGrouping-v0 supports: it has fewer than two classification tasks",
        ),
        ({"problem": "digits"}, ValueError, 'Leave out angle, clean: tasks=["digit", "parity", "loop"].'),
        ({"problem": load_problem("digits"), "tasks": ["digit", "angle"]}, ValueError, "Fewer than two of the tasks are"),
        ({"num_tasks": 1}, ValueError, "`num_tasks` should be at least 2"),
        ({"max_groups": 5}, ValueError, "`max_groups` should be at most 4, the number of tasks"),
        ({"max_groups": 0}, ValueError, "`max_groups` should be at least 1"),
        ({"action": "plce"}, ValueError, "Did you mean 'place'"),
        ({"sharpness": 0}, ValueError, "`sharpness`"),
        ({"group_price": -1}, ValueError, "`group_price`"),
        ({"snapshots": 0}, ValueError, "`snapshots`"),
        ({"affinity_every": 0}, ValueError, "`affinity_every`"),
        ({"group_table": 3}, TypeError, "`group_table`"),
        ({"group_table": "nowhere.npz"}, ValueError, "`group_table` should be 'auto', 'train' or the path of an existing table"),
        ({"steps_per_action": 2}, ValueError, "`steps_per_action` should be left out"),
        ({"reward_every": 2}, ValueError, "`reward_every` should be left out"),
        ({"holdout_size": 2}, ValueError, "`holdout_size` should be left out"),
        ({"main_task": "class_1"}, ValueError, "`main_task` should be left out"),
        ({"reward": "val_mean"}, ValueError, "`reward` should be one of"),
        ({"observe": ["slope"]}, ValueError, "`observe` should be one of"),
        (
            {"action": "memberships", "observe": ["action_mask"]},
            ValueError,
            "`observe` should not contain action_mask with action='memberships'",
        ),
        ({"action": "merge", "observe": ["next_task"]}, ValueError, "`observe` should not contain next_task with action='merge'"),
        ({"num_tasks": 7, "observe": ["outcomes"]}, ValueError, "`num_tasks` should be at most 6 for 'outcomes'"),
        ({"hidden_sizes": [], "observe": ["layer_cka"]}, ValueError, "`hidden_sizes` should give mlp[] hidden layers"),
        ({"features": ["rank"]}, TypeError, "`argument` should be one of"),
    ],
)
def test_wrong_arguments_are_refused(others, error, words):
    with pytest.raises(error, match=None) as caught:
        make_vec(**others)
    assert words in str(caught.value)


# --- group tables -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("tables") / "yeast.npz"
    make_table(path, [0, 1, TRAINING_IDS[0], TRAINING_IDS[0] + 1], command="by hand", **SMALL)
    return path


def test_a_look_up_is_the_same_as_training(table):
    store._remembered.clear()
    looked_up = make_vec(num_envs=2, group_table=str(table), observe=ALL, autoreset_mode="Disabled")
    trained = make_vec(num_envs=2, group_table="train", observe=ALL, autoreset_mode="Disabled")
    options = {"instance": np.array([0, 1])}
    for seed in range(3):
        actions = random_actions(trained.action_space, 4, seed=seed)
        for own, other in zip(play(looked_up, actions, options=options), play(trained, actions, options=options), strict=True):
            for name in own[0]:
                np.testing.assert_allclose(own[0][name], other[0][name], atol=1e-4)
            if len(own) == 5:
                np.testing.assert_allclose(own[1], other[1], atol=1e-6)
        for name, values in own[4]["test"].items():
            np.testing.assert_allclose(values, other[4]["test"][name], atol=1e-6)
        assert same(own[4]["forward"], other[4]["forward"])


def test_looking_up_trains_nothing(table, monkeypatch):
    store._remembered.clear()
    monkeypatch.setattr(Trainer, "update", lambda *given: pytest.fail("something was trained"))
    env = make_vec(num_envs=2, group_table=str(table), observe=ALL)
    ids = np.concatenate([play(env, random_actions(env.action_space, 8), seed=seed)[0][1]["instance"] for seed in range(4)])
    assert set(ids.tolist()) == {TRAINING_IDS[0], TRAINING_IDS[0] + 1}
    scalar = make(group_table=str(table))
    assert scalar.reset(seed=3)[1]["instance"] in ids


def test_instances_that_a_table_does_not_hold_are_trained(table):
    with_table = make_vec(num_envs=1, group_table=str(table), autoreset_mode="Disabled")
    without = make_vec(num_envs=1, group_table="train", autoreset_mode="Disabled")
    assert placed(with_table, [0, 1, 1, 0])[1] == pytest.approx(placed(without, [0, 1, 1, 0])[1], abs=1e-9)


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ({"lr": 1e-3}, "lr=0.005 (here 0.001)"),
        ({"train_steps": 10}, "train_steps=12 (here 10)"),
        ({"num_tasks": 3}, "num_tasks=4 (here 3)"),
        ({"snapshots": 2}, "snapshots=4 (here 2)"),
        ({"problem": "census", "num_tasks": 3}, "problem=['yeast', 0]"),
    ],
)
def test_a_table_of_something_else_is_refused(table, others, words):
    with pytest.raises(ValueError, match="`group_table` should be a table of the same problem, version and arguments") as caught:
        make_vec(group_table=str(table), **others)
    assert words in str(caught.value)


def test_a_table_of_another_version_is_refused(table, tmp_path):
    with np.load(table) as arrays:
        own = {name: arrays[name] for name in arrays.files if name != "header"}
        header = json.loads(str(arrays["header"]))
    header["training"]["problem"] = ["yeast", 1]
    write_group_table(tmp_path / "newer.npz", header, own)
    with pytest.raises(ValueError, match=r"problem=\['yeast', 1\]"):
        make_vec(group_table=str(tmp_path / "newer.npz"))


@pytest.mark.parametrize(
    ("name", "spoil", "words"),
    [
        ("outcomes", lambda values: values[:, :-1], "outcomes have shape (4, 14, 3, 14) instead of (4, 15, 3, 14)"),
        ("outcomes", lambda values: values.astype(str), "outcomes does not have 4 rows of numbers"),
        ("map_distances", lambda values: values[:-1], "map_distances does not have 4 rows of numbers"),
        ("ids", lambda values: values[:-1], "outcomes have shape (4, 15, 3, 14) instead of (3, 15, 3, 14)"),
        ("map_features", lambda values: values[:, :, :-1], "map_features has shape (4, 3, 7) instead of (4, 4, 7)"),
        ("map_distances", lambda values: values[:, :-1], "map_distances has shape (5,) instead of (6,)"),
        ("lookahead", lambda values: values[:, :-1], "lookahead has shape (3, 4) instead of (4, 4)"),
        ("outcomes", lambda values: -values, "/auc are not between 0 and 1"),
        ("outcomes", lambda values: 1 + values, "/auc are not between 0 and 1"),
    ],
)
def test_a_damaged_table_is_refused(table, tmp_path, name, spoil, words):
    with np.load(table) as arrays:
        content = dict(arrays)
    header = json.loads(str(content.pop("header")))
    write_group_table(tmp_path / "damaged.npz", header, content | {name: spoil(content[name])})
    with pytest.raises(ValueError, match="`group_table` should be a group table") as caught:
        make_vec(group_table=str(tmp_path / "damaged.npz"))
    assert words in str(caught.value)


@pytest.mark.parametrize("place", [0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
@pytest.mark.parametrize("cut", [False, True])
def test_a_table_with_random_bytes_or_cut_short_is_refused(table, tmp_path, place, cut):
    content = bytearray(table.read_bytes())
    start = int(len(content) * place)
    if cut:
        del content[start:]
    else:
        content[start : start + 500] = np.random.default_rng(0).bytes(len(content[start : start + 500]))
    (tmp_path / "damaged.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"`group_table` should be a group table.*damaged\.npz"):
        make_vec(group_table=str(tmp_path / "damaged.npz"))


def test_a_table_of_other_metrics_is_refused(table, tmp_path):
    with np.load(table) as arrays:
        content = dict(arrays)
    header = json.loads(str(content.pop("header")))
    write_group_table(tmp_path / "other.npz", {**header, "metrics": header["metrics"][::-1]}, content)
    with pytest.raises(ValueError, match=r"`group_table` should be a table of the same problem.*metrics="):
        make_vec(group_table=str(tmp_path / "other.npz"))


@pytest.mark.parametrize("content", [b"", b"nothing of this kind", None])
def test_a_file_that_is_no_table_is_refused(tmp_path, content):
    path = tmp_path / "table.npz"
    if content is None:
        np.savez(path, header=np.array([{}], dtype=object))
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match="`group_table` should be a group table"):
        make_vec(group_table=str(path))


def test_a_shipped_table_is_used_where_its_arguments_are_the_environments(table, monkeypatch, tmp_path):
    folder = tmp_path / "data" / "grouping"
    folder.mkdir(parents=True)
    (folder / "yeast.npz").write_bytes(table.read_bytes())
    monkeypatch.setattr("mtl_gym.envs.task_grouping.resources.files", lambda package: tmp_path)
    assert make_vec().decision.trainings.groups.path == str(folder / "yeast.npz")
    assert make_vec(lr=0.1).decision.trainings.groups.path is None
    assert make_vec(group_table="train").decision.trainings.groups.path is None


def test_a_shipped_table_that_is_damaged_is_named_and_groups_are_trained(monkeypatch, tmp_path):
    (tmp_path / "data" / "grouping").mkdir(parents=True)
    (tmp_path / "data" / "grouping" / "yeast.npz").write_bytes(b"damaged")
    monkeypatch.setattr("mtl_gym.envs.task_grouping.resources.files", lambda package: tmp_path)
    with pytest.warns(RuntimeWarning, match=r"Groups are trained: `group_table` should be .*yeast\.npz"):
        assert make_vec().decision.trainings.groups.path is None


def test_processes_add_to_the_same_table(table, tmp_path):
    path = tmp_path / "both.npz"
    path.write_bytes(table.read_bytes())

    make_table(path, [4], advance=lambda count: count or make_table(path, [5], **SMALL), **SMALL)
    assert set(read_group_table(str(path)).places) == {*read_group_table(str(table)).places, 4, 5}


def test_a_table_says_how_it_was_made_and_goes_on_where_it_was(table, tmp_path):
    header = read_group_table(str(table)).header
    assert header["command"] == "by hand"
    assert header["training"]["lr"] == 5e-3
    assert header["training"]["problem"] == ["yeast", 0]
    assert {"mtl-gym", "torch", "python"} <= header["versions"].keys()
    assert len(header["metrics"]) == 14
    path, done = tmp_path / "more.npz", []
    path.write_bytes(table.read_bytes())
    make_table(path, [0, 1, 2], advance=done.append, **SMALL)
    assert done == [2, 1]
    assert sorted(read_group_table(str(path)).places) == [0, 1, 2, TRAINING_IDS[0], TRAINING_IDS[0] + 1]
    with pytest.raises(ValueError, match="lr="):
        make_table(path, [0], **{**SMALL, "lr": 1e-3})
    with pytest.raises(ValueError, match="`num_tasks` should be at most 6"):
        make_table(tmp_path / "large.npz", [0], **{**SMALL, "num_tasks": 7})


# --- evaluation ------------------------------------------------------------------------------------------------------


class Apart:
    """Puts every task in a group of its own."""

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return observation["next_task"].argmax(1), state


class Blurred:
    """Puts all tasks in two groups at once, softly."""

    requires = mtl_gym.Requirements(action="memberships", env_kwargs={"max_groups": 2})

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        rows = len(observation["progress"])
        return np.tile(np.array([0.05, -0.05, -1, 1, 1, -1, 1, -1], np.float32), (rows, 1)), state


def test_evaluation_tells_groups_and_regret(table):
    frame = mtl_gym.compare({"apart": Apart(), "blurred": Blurred()}, TASK_GROUPING, instances=3, group_table=str(table), **SMALL)
    runs = frame.drop_duplicates(["policy", "instance"]).set_index(["policy", "instance"])
    assert runs.loc["apart", "num_groups"].tolist() == [4] * 3
    assert runs.loc["blurred", "num_groups"].tolist() == [2] * 3
    assert (runs["regret"] >= 0).all()  # also of instance 2, which is not in the table
    summary = mtl_gym.summarize(frame)["policies"]
    assert summary["apart"]["num_groups"]["mean"] == 4
    assert summary["apart"]["regret"]["mean"] == pytest.approx(runs.loc["apart", "regret"].mean())
    assert runs.loc["apart", "delta_m"].tolist() == pytest.approx([0] * 3, abs=1e-3)  # each as in single-task learning
    assert (runs["forward"] == [60] * 3 + [36] * 3).all()


def test_the_regret_of_the_best_grouping_is_zero(table):
    env = make_vec(num_envs=1, observe=["outcomes"], group_table=str(table), autoreset_mode="Disabled")
    regrets, returns = [], []
    for labels in partitions(4).tolist():
        env.reset(options={"instance": 0})
        for label in labels:
            answer = env.step([list(dict.fromkeys(labels)).index(label)])
        regrets.append(env.decision.outcome(0)["regret"])
        returns.append(answer[1][0])
    np.testing.assert_allclose(regrets, max(returns) - np.array(returns), atol=1e-6)
    assert min(regrets) == 0


def test_the_regret_of_instances_without_a_table_is_that_of_all_their_groups():
    arguments = {"instances": 2, "group_table": "train", "reward": "gain_over_joint", **SMALL}
    frame = mtl_gym.compare({"apart": Apart(), "best": "exhaustive", "joint": "joint"}, TASK_GROUPING, seed=7, **arguments)
    runs = frame.drop_duplicates(["policy", "instance"]).set_index(["policy", "instance"])
    assert runs["regret"].notna().all()
    np.testing.assert_allclose(runs.loc["best", "regret"], 0, atol=1e-6)
    for name in ("apart", "joint"):
        missed = runs.loc["best", "return"].to_numpy() - runs.loc[name, "return"].to_numpy()
        np.testing.assert_allclose(runs.loc[name, "regret"], missed, atol=1e-6)
    assert (runs.loc["joint", "forward"] == SMALL["train_steps"]).all()  # what only regret needs is not charged


def test_more_than_six_tasks_have_no_regret():
    frame = mtl_gym.compare("joint", TASK_GROUPING, instances=1, **SMALL | {"num_tasks": 7, "problem": "digit_tasks"})
    assert "regret" not in frame or frame["regret"].isna().all()


def test_trainings_show_what_they_were_made_for():
    env = make_vec(observe=["progress"])
    assert isinstance(env.decision.trainings, GroupTrainings)
    assert env.decision.trainings.needs == ()
    assert make_vec(observe=["map_distances"]).decision.trainings.needs == ("map_features", "map_distances")


def test_the_command_line_makes_tables_and_compares_with_them(tmp_path):
    path, out = tmp_path / "tables" / "yeast.npz", tmp_path / "results"
    given = [item for name, value in SMALL.items() if name != "problem" for item in ("--set", f"{name}={json.dumps(value)}")]
    made = CliRunner().invoke(full_app(), ["groupings", "yeast", "--out", str(path), "--instances", "2", "--training", "1", *given])
    assert made.exit_code == 0, made.output
    assert sorted(read_group_table(str(path)).places) == [0, 1, TRAINING_IDS[0]]
    words = ["compare", "--env", TASK_GROUPING, "--problem", "yeast", "--policies", "joint,single-task", "--instances", "2"]
    compared = CliRunner().invoke(full_app(), [*words, "--out", str(out), "--set", f"group_table={path}", *given])
    assert compared.exit_code == 0, compared.output
    page, summary = (out / "report.html").read_text(), json.loads((out / "summary.json").read_text())
    assert "regret, % <small>mean</small></th>" in page
    assert summary["policies"]["joint"]["num_groups"]["mean"] == 1
    assert summary["policies"]["single-task"]["regret"]["mean"] >= 0
    wrong = CliRunner().invoke(full_app(), [*words, "--out", str(out), "--set", f"group_table={path}"])
    assert wrong.exit_code == 2
    large = CliRunner().invoke(full_app(), ["groupings", "yeast", "--out", str(tmp_path / "large.npz"), "--instances", "1"])
    assert large.exit_code == 2


def test_no_hidden_units_of_digit_tasks_die():
    common = check_arguments(specification(TASK_GROUPING), problem="digit_tasks", num_tasks=6, train_steps=100)
    ids, inputs = range(8, 12), load_problem("digit_tasks").splits["reward"].inputs  # with pixels in [0, 1], all units of 9 died
    for trainer in train_groups(common.problem, common.recipe, ids, torch.ones(4, 6)):
        features = trainer.model.features(trainer.replicas.parameters, inputs.expand(4, *inputs.shape))[-1]
        assert (features > 0).any(-2).float().mean() > 0.9


def test_losses_of_ones_own_over_classes_are_grouped():
    def smooth(outputs, targets):
        return functional.cross_entropy(outputs, targets[:, 0].long(), reduction="none", label_smoothing=0.1).unsqueeze(1)

    loss = mtl_gym.Loss(smooth, joint=True, target_channels=lambda outputs: 1, labels="classes")
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(240, 4))
    labels = [inputs[:, place] > 0 for place in range(3)]
    rows = dict(zip(["train", "meta", "reward", "test"], np.split(np.arange(240), [120, 160, 200]), strict=True))
    splits = {name: mtl_gym.Split.of(inputs[own], [label[own] for label in labels]) for name, own in rows.items()}
    tasks = [mtl_gym.Task(name, loss, ("accuracy",), outputs=2) for name in "abc"]
    problem = mtl_gym.Problem("smooth", tasks, splits)
    assert specification(TASK_GROUPING).supports(problem) is None
    groups = mtl_gym.suggest_groups(problem, "random-groups", train_steps=20, batch_size=16)
    assert sorted(task for group in groups for task in group) == ["a", "b", "c"]
    real = mtl_gym.Problem("real", [mtl_gym.Task(name, "mse", ("rmse",)) for name in "abc"], splits)
    assert "Loss whose labels are binary or classes" in specification(TASK_GROUPING).supports(real)

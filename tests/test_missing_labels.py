"""Problems whose pool lacks labels: the splits that instances draw, the fixed samples, and completed batches."""

import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from rollouts import LAYER_MERGING, LOSS_WEIGHTING, SAMPLE_WEIGHTING, make_trainer, make_vec, random_actions, rows_of, same, train

from mtl_gym.problems.axes import resolve
from mtl_gym.problems.base import SPLITS, Pool, Problem, Split, Task
from mtl_gym.problems.instances import draw
from mtl_gym.problems.labels import complete_batches, labelled_samples, with_labels

SIZES = {"train": 80, "meta": 40, "reward": 40, "test": 40}
TASKS = (Task("value", "mse", ("rmse",)), Task("pair", "mse", ("rmse",), outputs=2), Task("sign", "bce", ("auc",)))
OWN = {"split": (1.0, 1.0)}


def sparse(counts, tasks=TASKS, sizes=SIZES, seed=0, apart=()):
    """A problem with a pool of 200 samples, of which each task has so many labels; those of tasks ``apart`` of one channel each."""
    rng = np.random.default_rng(seed)
    total = sum(sizes.values())
    inputs, labels = rng.normal(size=(total, 4)), []
    for task, count in zip(tasks, counts, strict=True):
        values = np.abs(inputs[:, : task.target_channels]) if task.loss == "mse" else np.arange(total)[:, None] % 2.0
        gone = rng.permutation(total)[count:]
        values[gone] = np.nan
        if task.name in apart:
            values[np.arange(total), np.arange(total) % task.target_channels] = np.nan
        labels.append(values)
    pool = Pool.in_order(Split.of(inputs, labels), sizes)
    return Problem("sparse", tasks, pool.splits(pool.rows), pool=pool)


def drawn(problem, id, **axes):
    return draw(problem, distribution=resolve(OWN | axes, problem), num_tasks=problem.num_tasks, network="mlp[8]", id=id)


# --- drawn splits ----------------------------------------------------------------------------------------------------------------


def test_every_drawn_split_has_labels_of_every_task():
    problem = sparse((200, 200, 12))
    for id in range(50):
        for name, own in drawn(problem, id).members.items():
            known = labelled_samples(problem, problem.pool.samples.targets[own])
            assert known.any(0).all(), name


def test_where_metrics_are_measured_some_samples_have_all_channels():
    plain = sparse((200, 200, 200))
    targets = plain.pool.samples.targets.clone()
    targets[np.random.default_rng(1).permutation(200)[12:], 1] = torch.nan  # most samples have one of the two channels of `pair`
    pool = Pool.in_order(Split(plain.pool.samples.inputs, targets), SIZES)
    problem = Problem("sparse", TASKS, pool.splits(pool.rows), pool=pool)
    for id in range(50):
        members = drawn(problem, id).members
        for name in ("reward", "test"):
            assert (~targets[members[name], 1:3].isnan()).all(1).any()


def test_a_metric_that_divides_by_the_deviation_gets_labels_that_differ():
    tasks = (Task("value", "mse", ("nrmse",)), *TASKS[1:])
    problem = sparse((9, 200, 200), tasks)
    for id in range(30):
        for name in ("reward", "test"):
            own = problem.pool.samples.targets[drawn(problem, id).members[name], 0]
            assert len(set(own[~own.isnan()].tolist())) > 1


@pytest.mark.parametrize(
    ("problem", "what"),
    [
        (sparse((200, 200, 3)), "lacked a label of the task 'sign' in"),
        (sparse((200, 200, 200), apart=("pair",)), "lacked a label of the task 'pair' with all of its channels in"),
        (
            sparse((4, 200, 200), (Task("value", "mse", ("nrmse",)), *TASKS[1:])),
            "lacked (different labels|a label) of the task 'value'",
        ),
    ],
)
@pytest.mark.parametrize("env_id", [LOSS_WEIGHTING, SAMPLE_WEIGHTING, LAYER_MERGING])
def test_a_pool_whose_splits_hardly_ever_have_all_labels_is_refused(problem, what, env_id):
    with pytest.raises(ValueError, match=rf"`distribution\['split'\]` should be \(0, 0\): of 100 splits .* had.*{what}"):
        make_vec(problem, env_id=env_id, distribution=OWN)


def test_what_is_accepted_can_be_reset_at_any_id():
    problem = sparse((200, 200, 7))
    envs = make_vec(problem, num_envs=64, distribution=OWN, observe=["progress"], reward="none", autoreset_mode="Disabled")
    _, infos = envs.reset(options={"instance": np.arange(1000, 1064)})  # about one of six splits has labels of every task
    assert infos["instance"].tolist() == list(range(1000, 1064))
    for own in envs.unwrapped.decision.trainings.ledger.instances:
        for name, members in own.members.items():
            assert not problem.lacking(name, problem.pool.samples.targets[members])


# --- fixed samples ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("holdout_size", [3, 5, 16])
def test_the_fixed_samples_have_a_label_of_every_task(holdout_size):
    problem = sparse((20, 20, 20))
    trainer = make_trainer(problem, ids=range(24), distribution=OWN, holdout_size=holdout_size)
    for name in ("meta", "reward"):
        assert trainer.losses.data.known(trainer.losses.data.holdout_labels(name), trainer.ledger.tasks).any(1).all()
    assert (trainer.losses.held_out(["meta", "reward"])["reward"] > 1e-6).all()


def test_fixed_samples_are_exchanged_within_their_split():
    problem = sparse((20, 20, 20))
    trainer = make_trainer(problem, ids=range(8), distribution=OWN, holdout_size=4)
    for row, own in enumerate(trainer.ledger.instances):
        for name, members in trainer.losses.drawn.members.items():
            assert sorted(members[row].tolist()) == own.members[name].tolist()
    again = make_trainer(problem, ids=[5], distribution=OWN, holdout_size=4)
    assert same(again.losses.drawn.members["meta"][0], trainer.losses.drawn.members["meta"][5])


def test_too_few_fixed_samples_for_the_tasks_are_refused():
    with pytest.raises(ValueError, match="`holdout_size` should be at least 3, so that the fixed samples can"):
        make_vec(sparse((20, 20, 20)), distribution=OWN, holdout_size=2)
    make_trainer(sparse((200, 200, 200)), distribution=OWN, holdout_size=2)  # no label is missing
    make_trainer(sparse((20, 20, 20)), distribution=OWN, holdout_size=2, num_tasks=2)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(0, 6))
def test_an_order_with_labels_at_some_places(seed, num_tasks, more):
    rng = np.random.default_rng(seed)
    known = rng.random((30, num_tasks)) < rng.choice([0.03, 0.1, 0.4])
    places = np.sort(rng.permutation(30)[: num_tasks + more])
    order = with_labels(places, known, rng)
    assert sorted(order) == list(range(30))
    assert (known[order[places]].any(0) == known.any(0)).all()
    if known[places].any(0).all():
        assert (order == np.arange(30)).all()


def test_a_problem_with_all_labels_keeps_the_order_of_its_members():
    trainer = make_trainer("yeast", distribution=OWN, holdout_size=8)
    for row, own in enumerate(trainer.ledger.instances):
        assert all((trainer.losses.drawn.members[name][row].numpy() == own.members[name]).all() for name in SPLITS)


# --- wrong labels ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", [{}, OWN], ids=["own", "drawn"])
@pytest.mark.parametrize(
    "axes", [{"noise": (1, 1), "holdout_noise": (1, 1)}, {"constant_label": (1, 1)}, {"nearest_flip": (1, 1)}], ids=str
)
def test_wrong_labels_are_those_of_labelled_samples_and_stand_where_a_label_is(split, axes):
    problem = sparse((30, 40, 25))
    right = make_trainer(problem, ids=range(12), distribution=split, holdout_size=20)
    wrong = make_trainer(problem, ids=range(12), distribution=split | axes, holdout_size=20)
    samples = torch.arange(SIZES["train"])
    own = right.losses.data.own_labels("train", samples.expand(12, -1))
    borne = wrong.losses.data.labels("train", samples.expand(12, -1), samples.expand(12, -1))
    assert (own.isnan() == borne.isnan()).all()
    assert (own.nan_to_num() != borne.nan_to_num()).any()
    for name in ("meta", "reward"):
        fixed = [trainer.losses.data.holdout_labels(name) for trainer in (right, wrong)]
        assert (fixed[0].isnan() == fixed[1].isnan()).all()
        assert (fixed[0].nan_to_num() != fixed[1].nan_to_num()).any() == ("holdout_noise" in axes)


# --- labels of one task ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("problem", [sparse((60, 60, 60)), "digits"])
def test_labels_of_a_tasks_columns_are_those_of_all(problem):
    trainer = make_trainer(problem, distribution=OWN | {"noise": (0.3, 0.3), "labels": (0.5, 0.5)})
    data, samples = trainer.losses.data, trainer.losses.batch().samples
    whole = data.own_labels("train", samples)
    sources = trainer.losses.drawn.sources["train"][torch.arange(3)[:, None], samples.long()]
    labels = data.labels("train", samples, samples.long())
    for task, columns in enumerate(trainer.problem.target_slices):
        assert same(data.own_labels("train", samples, columns), whole[:, :, columns].contiguous())
        borne = data.own_labels("train", sources[:, :, task].clamp(min=0))[:, :, columns]
        assert same(labels[:, :, columns].contiguous(), borne.masked_fill((sources[:, :, task] < 0)[:, :, None], torch.nan))
    assert (sources[:, :, 0] != samples).any()  # labels of others are borne


def test_only_a_tasks_own_columns_are_gathered(monkeypatch):
    trainer = make_trainer("digits", distribution=OWN | {"noise": (0.3, 0.3)})
    widths, module = [], pytest.importorskip("mtl_gym.training.data")
    plain = module.take
    monkeypatch.setattr(module, "take", lambda table, rows: (widths.append(table.shape[1]), plain(table, rows))[1])
    samples = trainer.losses.batch().samples
    widths.clear()
    trainer.losses.data.labels("train", samples, samples.long())
    assert widths == [task.target_channels for task in trainer.problem.tasks]


# --- batches ---------------------------------------------------------------------------------------------------------------------


def one_by_one(order, known, rng):
    """Completes batches one after the other: first the donor is drawn, then the place that it takes."""
    order = order.copy()
    for task in range(known.shape[1]):
        donors = np.flatnonzero(known[:, task])
        for step in np.flatnonzero(~known[order, task].any(1)) if len(donors) else ():
            batch = known[order[step]]
            spare = np.flatnonzero(~(batch & (batch.sum(0) == 1)).any(1))
            if len(spare):
                donor = rng.choice(donors)
                order[step, rng.choice(spare)] = donor
    return order


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 10**6), st.integers(1, 20), st.integers(1, 12))
def test_batches_are_completed_as_one_by_one_and_repeat_no_sample(seed, num_tasks, batch_size):
    rng = np.random.default_rng(seed)
    known = rng.random((40, num_tasks)) < rng.choice([0.0, 0.03, 0.1, 0.5])
    order = np.stack([rng.permutation(40)[:batch_size] for _ in range(20)]).astype(np.int32)
    streams = [np.random.default_rng(seed) for _ in range(2)]
    found, expected = complete_batches(order, known, streams[0]), one_by_one(order, known, streams[1])
    assert found.dtype == np.int32
    assert (found == expected).all()
    assert streams[0].bit_generator.state == streams[1].bit_generator.state
    assert all(len(set(batch)) == batch_size for batch in found.tolist())


# --- rows ------------------------------------------------------------------------------------------------------------------------

ROWS = pytest.mark.parametrize(
    ("problem", "axes"),
    [
        ("digits", {"split": [1, 1]}),
        ("digits", {"labels": [0.1, 0.5]}),
        (sparse((60, 60, 60)), {"split": [1, 1], "labels": [0.5, 1.0], "lr": [0.5, 2.0]}),
    ],
)


@ROWS
def test_what_was_drawn_moves_with_its_rows(problem, axes):
    copied, fresh = (make_trainer(problem, ids=ids, distribution=axes) for ids in ((4, 5, 6), (6, 5, 6)))
    copied.copy_rows([2], [0])
    assert same(copied.clone(), fresh.clone())
    assert same(rows_of(train(copied, 6).clone(), [0]), rows_of(copied.clone(), [2]))
    assert same(copied.clone(), train(fresh, 6).clone())
    for split in SPLITS:
        assert same(copied.metrics(split), fresh.metrics(split))


@ROWS
@pytest.mark.parametrize("keep", [copy.deepcopy, lambda trainer: pickle.loads(pickle.dumps(trainer))])
def test_a_copy_goes_on_as_the_original(problem, axes, keep):
    trainer = train(make_trainer(problem, ids=(4, 5), distribution=axes), 3)
    other = keep(trainer)
    assert same(train(trainer, 4).clone(), train(other, 4).clone())
    assert same(trainer.losses.held_out(["meta", "reward"]), other.losses.held_out(["meta", "reward"]))
    assert same(trainer.metrics("test"), other.metrics("test"))


def episode(envs, mask=None, ids=(4, 5, 6)):
    """What an episode returns after a reset of some rows."""
    options = {"instance": np.array(ids)} | ({} if mask is None else {"reset_mask": np.array(mask)})
    return [envs.reset(options=options), *[envs.step(action) for action in random_actions(envs.action_space, 2)]]


@ROWS
@pytest.mark.parametrize("env_id", [LOSS_WEIGHTING, SAMPLE_WEIGHTING])
def test_a_partial_reset_is_a_fresh_run(problem, axes, env_id):
    envs, fresh = (make_vec(problem, env_id=env_id, distribution=axes, autoreset_mode="Disabled") for _ in range(2))
    episode(envs, ids=(7, 8, 9))
    before = rows_of(envs.decision.trainer.clone(), [1])
    envs.reset(options={"instance": np.array([4, 5, 6]), "reset_mask": np.array([True, False, True])})
    assert same(rows_of(envs.decision.trainer.clone(), [1]), before)
    fresh.reset(options={"instance": np.array([4, 5, 6])})
    for name in ("members train", "order", "source train", "moments input_mean"):
        if name in envs.decision.trainer.state:
            own, other = (rows_of(env.decision.trainer.clone(), [0, 2])[name] for env in (envs, fresh))
            assert same(own, other)
    for action in random_actions(envs.action_space, 2):
        own, other = envs.step(action), fresh.step(action)
        assert all(same(values[[0, 2]], other[0][name][[0, 2]]) for name, values in own[0].items())
        assert same(own[1][[0, 2]], other[1][[0, 2]])


@ROWS
def test_a_pickled_environment_goes_on_as_the_original(problem, axes):
    envs = make_vec(problem, distribution=axes, autoreset_mode="Disabled")
    envs.reset(options={"instance": np.array([4, 5, 6])})
    first, second = random_actions(envs.action_space, 2)
    envs.step(first)
    other = pickle.loads(pickle.dumps(envs))
    assert same(envs.step(second), other.step(second))

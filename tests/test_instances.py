import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from mtl_gym.problems import PROBLEMS, load_problem
from mtl_gym.problems.axes import AXES, DISTRIBUTIONS, WRONG_LABELS, resolve
from mtl_gym.problems.base import Split
from mtl_gym.problems.instances import EVALUATION_IDS, TRAINING_IDS, draw
from mtl_gym.problems.labels import labelled_samples
from mtl_gym.problems.opposites import opposites

RANGES = {
    "size": (0.3, 0.9),
    "noise": (0.1, 0.4),
    "constant_label": (0.1, 0.4),
    "unrelated": (0.2, 0.9),
    "nearest_flip": (0.2, 0.9),
    "scale": (0.1, 10.0),
    "holdout_noise": (0.2, 0.8),
    "labels": (0.1, 0.9),
    "split": (1.0, 1.0),
    "lr": (0.5, 2.0),
}
IDS = st.integers(0, TRAINING_IDS[1] - 1)


NAMES = [task.name for task in load_problem("digits").tasks]


def instance(id=0, distribution="clean", num_tasks=None, network="mlp[8]", problem="digits", tasks=None, main_task=None):
    loaded = load_problem(problem)
    count = loaded.num_tasks if num_tasks is None else num_tasks
    return draw(
        loaded, distribution=resolve(distribution), num_tasks=count, tasks=tasks, main_task=main_task, network=network, id=id
    )


def contents(drawn):
    """What each axis gives, by the axis; order and planted labels follow from the rows that are used too."""
    return {
        "size": drawn.rows.tolist(),
        "noise": np.where(drawn.noise == 1, 0, drawn.noise).tolist(),
        "constant_label": drawn.constant_label.tolist(),
        "unrelated": (drawn.noise == 1).tolist(),
        "nearest_flip": drawn.nearest_flip.tolist(),
        "scale": drawn.scales.tolist(),
        "holdout_noise": drawn.holdout_noise,
        "labels": drawn.labels.tolist(),
        "split": None if drawn.members is None else {name: own.tolist() for name, own in drawn.members.items()},
        "lr": drawn.lr,
        "subset": drawn.tasks.tolist(),
        "parameters": drawn.stream("parameters").random(5).tolist(),
        "order": drawn.order(16, 3).tolist(),
        "sources": drawn.label_source(load_problem("digits")).tolist(),
    }


FOLLOWS = {
    "size": {"order"},
    "noise": {"sources"},
    "constant_label": {"sources"},
    "unrelated": {"sources"},
    "nearest_flip": {"sources"},
    "scale": set(),
    "holdout_noise": set(),
    "labels": {"sources"},
    "split": set(),
    "lr": set(),
}


# --- purity -----------------------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(id=IDS, distribution=st.sampled_from(list(DISTRIBUTIONS)), num_tasks=st.integers(1, 5))
def test_the_same_arguments_give_the_same_instance(id, distribution, num_tasks):
    first, second = (instance(id, distribution, num_tasks) for _ in range(2))
    assert contents(first) == contents(second)
    assert first.id == id


@pytest.mark.parametrize(
    "others",
    [{"id": 2}, {"id": 1 + 2**32}, {"id": 1 + 2**33}, {"num_tasks": 4}, {"network": "mlp[9]"}],
    ids=["id", "beyond 32 bits", "beyond 33 bits", "num_tasks", "network"],
)
def test_other_arguments_give_another_instance(others):
    first, second = contents(instance(1)), contents(instance(**({"id": 1} | others)))
    assert first["parameters"] != second["parameters"]
    assert first["order"] != second["order"]


def test_another_version_of_a_problem_gives_another_instance():
    from rollouts import with_splits

    problem = with_splits("digits")
    problem.version += 1
    first = draw(problem, distribution=resolve("clean"), num_tasks=5, network="mlp[8]", id=1)
    assert contents(first)["order"] != contents(instance(1))["order"]


@pytest.mark.parametrize("axis", AXES)
def test_widening_one_axis_leaves_the_others(axis):
    narrow, wide = contents(instance(3, {})), contents(instance(3, {axis: RANGES[axis]}))
    assert {name for name in narrow if narrow[name] != wide[name]} == {axis, *FOLLOWS[axis]}


@pytest.mark.parametrize("axis", AXES)
def test_the_table_of_ranges_moves_every_axis(axis):
    drawn = [contents(instance(id, {axis: RANGES[axis]}))[axis] for id in (1, 2)]
    assert drawn[0] != drawn[1]


def test_streams_differ_from_each_other():
    drawn = instance(5)
    starts = [drawn.stream(name).random() for name in ("parameters", "order", "labels", "meta", "reward", "noise", "scale")]
    assert len(set(starts)) == len(starts)


def test_a_stream_starts_anew_each_time():
    drawn = instance(5)
    assert drawn.stream("order").random() == drawn.stream("order").random()


def test_evaluation_and_training_ids_are_disjoint():
    assert EVALUATION_IDS == (0, 2**31)
    assert TRAINING_IDS == (2**31, 2**62)


def test_clean_instances_use_everything_as_it_is():
    drawn = instance(7)
    assert drawn.rows.tolist() == list(range(800))
    assert drawn.tasks.tolist() == list(range(5))
    assert drawn.scales.tolist() == [1.0] * 5
    assert not drawn.noise.any()
    assert (drawn.label_source(load_problem("digits")) == np.arange(800)[:, None]).all()


# --- order ------------------------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(id=IDS, batch_size=st.integers(1, 200), epochs=st.integers(1, 3))
def test_each_epoch_sees_each_used_sample_at_most_once(id, batch_size, epochs):
    drawn = instance(id, "varied")
    per_epoch = len(drawn.rows) // batch_size
    order = drawn.order(batch_size, epochs * per_epoch)
    assert order.shape == (epochs * per_epoch, batch_size)
    for epoch in order.reshape(epochs, -1):
        assert len(set(epoch.tolist())) == per_epoch * batch_size
        assert set(epoch.tolist()) <= set(drawn.rows.tolist())


def test_an_epoch_covers_the_training_set_exactly_once():
    epochs = instance(3).order(16, 150).reshape(3, -1)
    assert all(sorted(epoch) == list(range(800)) for epoch in epochs.tolist())
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == 3


@settings(max_examples=20, deadline=None)
@given(id=IDS, batches=st.integers(1, 120), more=st.integers(0, 120))
def test_a_longer_order_begins_with_the_shorter(id, batches, more):
    drawn = instance(id, "varied")
    assert (drawn.order(16, batches + more)[:batches] == drawn.order(16, batches)).all()


# --- axes -------------------------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(id=IDS)
def test_every_axis_lies_within_its_range(id):
    drawn = instance(id, RANGES)
    assert 0.3 * 800 - 1 <= len(drawn.rows) <= 0.9 * 800 + 1
    assert ((drawn.noise >= 0.1) & (drawn.noise <= 0.4) | (drawn.noise == 1)).all()
    assert ((drawn.constant_label >= 0.1) & (drawn.constant_label <= 0.4)).all()
    assert ((drawn.scales >= 0.0999) & (drawn.scales <= 10.001)).all()
    assert 0.2 <= drawn.holdout_noise <= 0.8


def test_scales_are_log_uniform():
    scales = np.concatenate([instance(id, {"scale": (0.01, 100.0)}).scales for id in range(100)])
    assert abs(np.log10(scales).mean()) < 0.15
    assert abs((np.abs(np.log10(scales)) < 1).mean() - 0.5) < 0.08


@settings(max_examples=20, deadline=None)
@given(id=IDS, num_tasks=st.integers(1, 14))
def test_a_subset_holds_that_many_tasks_in_order(id, num_tasks):
    tasks = instance(id, num_tasks=num_tasks, problem="yeast").tasks.tolist()
    assert len(tasks) == num_tasks
    assert tasks == sorted(set(tasks))
    assert set(tasks) <= set(range(14))


def test_every_task_is_in_some_subset():
    assert {task for id in range(30) for task in instance(id, num_tasks=2).tasks.tolist()} == set(range(5))


@pytest.mark.parametrize("absent", NAMES)
def test_tasks_that_are_not_allowed_never_appear(absent):
    allowed = [name for name in NAMES if name != absent]
    ids = [*range(EVALUATION_IDS[0], EVALUATION_IDS[0] + 200), *range(TRAINING_IDS[0], TRAINING_IDS[0] + 200)]
    drawn = [instance(id, num_tasks=3, tasks=allowed).tasks.tolist() for id in ids]
    assert {NAMES[task] for tasks in drawn for task in tasks} == set(allowed)
    assert len({tuple(tasks) for tasks in drawn}) == 4  # all subsets of three of the four


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("num_tasks", [1, 2, 5])
def test_naming_all_tasks_changes_nothing(num_tasks, distribution):
    for id in range(20):
        drawn = [contents(instance(id, distribution, num_tasks, tasks=tasks)) for tasks in (None, NAMES, NAMES[::-1])]
        assert drawn[0] == drawn[1] == drawn[2]


@settings(max_examples=20, deadline=None)
@given(id=IDS, data=st.data(), num_tasks=st.integers(1, 4))
def test_the_tasks_that_are_allowed_change_the_subset_alone(id, data, num_tasks):
    allowed = data.draw(st.permutations(NAMES).map(lambda names: names[:4]))
    free, bound, again = (instance(id, "varied", num_tasks, tasks=tasks) for tasks in (None, allowed, allowed[::-1]))
    assert contents(bound) == contents(again)
    for name in ("size", "noise", "scale", "parameters", "order"):
        assert contents(free)[name] == contents(bound)[name]
    kept = {task for task in free.tasks.tolist() if NAMES[task] in allowed}
    assert kept <= set(bound.tasks.tolist()) <= {NAMES.index(name) for name in allowed}
    assert len(bound.tasks) == num_tasks


@settings(max_examples=10, deadline=None)
@given(id=IDS, rate=st.floats(0.05, 0.5))
def test_the_share_of_planted_labels_is_the_noise(id, rate):
    drawn = instance(id, {"noise": (rate, rate)}, problem="census")
    wrong = drawn.label_source(load_problem("census")) != np.arange(10_000)[:, None]
    np.testing.assert_allclose(wrong.mean(0), rate, atol=0.03)


def test_planted_labels_are_those_of_used_samples_and_drawn_for_each_task():
    drawn = instance(3, {"noise": (0.4, 0.4), "size": (0.5, 0.5)})
    source = drawn.label_source(load_problem("digits"))
    wrong = source != np.arange(800)[:, None]
    assert set(source[wrong].tolist()) <= set(drawn.rows.tolist())
    assert len({tuple(column) for column in wrong.T.tolist()}) == 5


def test_tasks_that_do_not_take_part_keep_their_labels():
    drawn = instance(3, {"noise": (0.4, 0.4)}, num_tasks=2)
    source = drawn.label_source(load_problem("digits"))
    others = [task for task in range(5) if task not in drawn.tasks]
    assert (source[:, others] == np.arange(800)[:, None]).all()
    assert all((source[:, task] != np.arange(800)).any() for task in drawn.tasks)


@pytest.mark.parametrize("split", ["meta", "reward"])
def test_holdout_labels_are_wrong_at_their_own_rate(split):
    drawn = instance(3, {"noise": (0.4, 0.4), "holdout_noise": (0.5, 0.5)}, problem="census")
    rows = np.arange(4000)
    wrong = drawn.holdout_source(split, 3, rows) != rows[:, None]
    np.testing.assert_allclose(wrong.mean(0), 0.2, atol=0.03)


# --- wrong labels -----------------------------------------------------------------------------------------------------


@settings(max_examples=10, deadline=None)
@given(id=IDS, share=st.floats(0.1, 0.9))
def test_the_labels_of_one_class_are_those_of_one_sample(id, share):
    source = instance(id, {"constant_label": (share, share), "size": (0.5, 0.5)}).label_source(load_problem("digits"))
    wrong = source != np.arange(800)[:, None]
    np.testing.assert_allclose(wrong.mean(0), share, atol=0.08)
    donors = [set(source[wrong[:, task], task].tolist()) for task in range(5)]
    assert [len(own) for own in donors] == [1] * 5
    assert set.union(*donors) <= set(instance(id, {"size": (0.5, 0.5)}).rows.tolist())


def test_uniform_flips_and_one_class_are_drawn_apart():
    both = instance(3, {"noise": (0.4, 0.4), "constant_label": (0.3, 0.3)}, problem="census").label_source(load_problem("census"))
    flips = instance(3, {"noise": (0.4, 0.4)}, problem="census").label_source(load_problem("census"))
    stuck = instance(3, {"constant_label": (0.3, 0.3)}, problem="census").label_source(load_problem("census"))
    own = np.arange(10_000)[:, None]
    assert (both == np.where(stuck != own, stuck, flips)).all()
    np.testing.assert_allclose((both != own).mean(0), 1 - 0.6 * 0.7, atol=0.02)


HARM = [(0.0, 0.0), (0.4, 0.0), (0.0, 0.6), (0.4, 0.6), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)]


@pytest.mark.parametrize(("unrelated", "nearest_flip"), HARM)
@pytest.mark.parametrize("main_task", [None, "loop"])
def test_harmful_tasks_are_these_shares_of_the_auxiliary_ones(unrelated, nearest_flip, main_task):
    shares = {"unrelated": (unrelated, unrelated), "nearest_flip": (nearest_flip, nearest_flip)}
    drawn = [instance(id, shares, main_task=main_task) for id in range(30)]
    auxiliary = 5 if main_task is None else 4
    for own in drawn:
        assert (own.noise == 1).sum() == round(unrelated * auxiliary)
        assert own.nearest_flip.sum() == min(round(nearest_flip * auxiliary), auxiliary - round(unrelated * auxiliary))
        assert not ((own.noise == 1) & own.nearest_flip).any()
        if main_task is not None:
            assert own.tasks[0] == NAMES.index(main_task)
            assert own.noise[0] == 0
            assert not own.nearest_flip[0]
    harmed = {place for own in drawn for place in np.flatnonzero((own.noise == 1) | own.nearest_flip).tolist()}
    assert harmed == (set(range(5 - auxiliary, 5)) if unrelated + nearest_flip else set())


def test_all_labels_of_an_unrelated_task_are_of_random_samples():
    drawn = instance(3, {"unrelated": (1.0, 1.0), "noise": (0.2, 0.2)}, problem="census", main_task="college")
    wrong = drawn.label_source(load_problem("census")) != np.arange(10_000)[:, None]
    np.testing.assert_allclose(wrong.mean(0), [0.9999, 0.9999, 0.2], atol=0.02)  # college, the main task, is the last


def test_adversarial_labels_are_the_opposites_whatever_else_is_planted():
    shares = {"nearest_flip": (1.0, 1.0), "noise": (0.5, 0.5), "constant_label": (0.5, 0.5)}
    source = instance(3, shares, main_task="angle").label_source(load_problem("digits"))
    for task, name in enumerate(NAMES):
        assert (source[:, task] == opposites(load_problem("digits"), task)).all() == (name != "angle")


@pytest.mark.parametrize("axis", WRONG_LABELS)
def test_wrong_labels_are_in_train_alone(axis):
    from rollouts import SAMPLE_WEIGHTING, differing, make_trainer, same

    from mtl_gym.training.alignments import align
    clean, noisy = (
        make_trainer(env_id=SAMPLE_WEIGHTING, ids=(3, 4), main_task="loop", distribution=own) for own in ({}, {axis: (0.9, 0.9)})
    )
    assert same(*(own.losses.held_out(["meta", "reward"]) for own in (clean, noisy)))
    assert same([clean.metrics(split) for split in ("reward", "test")], [noisy.metrics(split) for split in ("reward", "test")])
    assert same(*(align(own).main for own in (clean, noisy)))
    assert differing(*(own.losses.sample_graph() for own in (clean, noisy)))


# --- opposites --------------------------------------------------------------------------------------------------------


def tiny(name="digits"):
    """Forty samples, of which some lack labels."""
    from rollouts import with_splits

    split = load_problem(name).splits["train"]
    targets = split.targets[:40].clone()
    targets[[3, 17], 0] = torch.nan
    if name == "digits":
        targets[5, 4] = torch.nan  # one of the pixels of the clean image
    return with_splits(name, train=Split(split.inputs[:40], targets))


@pytest.mark.parametrize(("name", "task"), [*(("digits", task) for task in range(5)), *(("stereo", task) for task in range(3))])
def test_opposites_are_the_nearest_samples_with_another_label(name, task):
    problem = tiny(name)
    split = problem.splits["train"]
    inputs, labels = (
        values.double().flatten(1).numpy() for values in (split.inputs, split.targets[:, problem.target_slices[task]])
    )
    single = labels.shape[1] == 1 and problem.tasks[task].loss != "mse"
    deviations = [own[~np.isnan(own)].std(ddof=1) for own in labels.T if (~np.isnan(own)).sum() > 1]
    least = 1e-9 if single else np.sqrt((np.square(deviations)).sum() / labels.shape[1])
    for row, found in enumerate(opposites(problem, task).tolist()):
        squares = [(own - labels[row])[~np.isnan(own - labels[row])] ** 2 for own in labels]
        distances = np.sqrt(((inputs - inputs[row]) ** 2).sum(1))
        partners = [other for other in range(40) if len(squares[other]) and np.sqrt(squares[other].mean()) >= least]
        assert found in partners or (not partners and found == row)
        assert not partners or distances[found] == pytest.approx(min(distances[partners]), rel=1e-4)
        assert bool(partners) == bool(len(squares[row]))


def test_a_sample_without_a_partner_keeps_its_label():
    from rollouts import with_splits

    split = load_problem("digits").splits["train"]
    targets = split.targets[:40].clone()
    targets[:, 0] = 7
    problem = with_splits("digits", train=Split(split.inputs[:40], targets))
    assert opposites(problem, 0).tolist() == list(range(40))


def test_opposites_are_computed_once_for_each_problem():
    problem = tiny()
    assert opposites(problem, 0) is opposites(problem, 0)
    assert opposites(tiny(), 0) is not opposites(problem, 0)
    assert len(opposites(load_problem("digits"), 0)) == 800


@pytest.mark.parametrize("name", [name for name in PROBLEMS if name != "census"])  # whose pairs take five seconds
def test_nearly_every_sample_has_an_opposite_even_where_pixels_lack_labels(name):
    problem = load_problem(name)
    for task in (0, problem.num_tasks - 1):
        source = opposites(problem, task)
        known = labelled_samples(problem, problem.splits["train"].targets)[:, task]
        assert (source != np.arange(len(source)))[known].mean() > 0.99


# --- the tables -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROBLEMS)
def test_varied_instances_of_every_problem_can_fill_a_batch(name):
    problem = load_problem(name)
    low = min(ranges.get("size", (1.0, 1.0))[0] for ranges in DISTRIBUTIONS.values())
    assert len(problem.splits["train"]) * low >= problem.defaults.batch_size


def test_drawing_leaves_the_global_generator_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    instance(3, "varied").order(16, 10)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


# --- resolve ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_a_name_and_its_ranges_resolve_to_the_same(name):
    assert resolve(name) == resolve(DISTRIBUTIONS[name]) == resolve(resolve(name))
    assert set(resolve(name)) == set(AXES)


def test_lists_resolve_as_pairs_do():
    assert resolve({"noise": [0, 0.2]}) == resolve({"noise": (0.0, 0.2)})


@pytest.mark.parametrize("distribution", [3, None, ["clean"], {"noise": 0.1}, {"noise": (0.1,)}, {"noise": ("a", 0.2)}])
def test_what_is_no_distribution_is_a_type_error(distribution):
    with pytest.raises(TypeError, match=r"`distribution.*Received"):
        resolve(distribution)


@pytest.mark.parametrize(
    "distribution",
    [
        {"noise": (-0.1, 0.2)},
        {"noise": (0.2, 0.1)},
        {"noise": (0.0, 1.01)},
        {"noise": (0.0, float("nan"))},
        {"scale": (-1.0, 1.0)},
        {"scale": (0.0, 1.0)},
        {"scale": (1.0, float("inf"))},
        {"size": (0.0, 1.0)},
        {"size": (0.5, 1.1)},
        {"holdout_noise": (0.0, 2.0)},
        {"noises": (0.0, 0.1)},
        "vared",
    ],
)
def test_an_impossible_distribution_is_a_value_error(distribution):
    with pytest.raises(ValueError, match=r"`distribution.*Received distribution"):
        resolve(distribution)

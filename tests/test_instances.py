import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl_gym.problems import PROBLEMS, load_problem
from mtl_gym.problems.instances import AXES, DISTRIBUTIONS, EVALUATION_IDS, TRAINING_IDS, draw, resolve

RANGES = {
    "size": (0.3, 0.9),
    "noise": (0.1, 0.4),
    "one_class": (0.1, 0.4),
    "unrelated": (0.2, 0.9),
    "adversarial": (0.2, 0.9),
    "scale": (0.1, 10.0),
    "holdout_noise": (0.2, 0.8),
}
IDS = st.integers(0, TRAINING_IDS[1] - 1)


NAMES = [task.name for task in load_problem("digits").tasks]


def instance(id=0, distribution="clean", num_tasks=None, network="mlp[8]", problem="digits", tasks=None, main=None):
    loaded = load_problem(problem)
    count = loaded.num_tasks if num_tasks is None else num_tasks
    return draw(loaded, distribution=resolve(distribution), num_tasks=count, tasks=tasks, main=main, network=network, id=id)


def contents(drawn):
    """What each axis gives, by the axis; order and planted labels follow from the rows that are used too."""
    return {
        "size": drawn.rows.tolist(),
        "noise": np.where(drawn.noise == 1, 0, drawn.noise).tolist(),
        "one_class": drawn.one_class.tolist(),
        "unrelated": (drawn.noise == 1).tolist(),
        "adversarial": drawn.adversarial.tolist(),
        "scale": drawn.scales.tolist(),
        "holdout_noise": drawn.holdout_noise,
        "subset": drawn.tasks.tolist(),
        "parameters": drawn.stream("parameters").random(5).tolist(),
        "order": drawn.order(16, 3).tolist(),
        "labels": drawn.label_source(load_problem("digits")).tolist(),
    }


FOLLOWS = {
    "size": {"order"},
    "noise": {"labels"},
    "one_class": {"labels"},
    "unrelated": {"labels"},
    "adversarial": {"labels"},
    "scale": set(),
    "holdout_noise": set(),
}


# --- purity -----------------------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(id=IDS, distribution=st.sampled_from(list(DISTRIBUTIONS)), num_tasks=st.integers(1, 6))
def test_the_same_arguments_give_the_same_instance(id, distribution, num_tasks):
    first, second = (instance(id, distribution, num_tasks) for _ in range(2))
    assert contents(first) == contents(second)
    assert first.id == id


@pytest.mark.parametrize(
    "others",
    [{"id": 2}, {"id": 1 + 2**32}, {"id": 1 + 2**33}, {"num_tasks": 5}, {"network": "mlp[9]"}],
    ids=["id", "beyond 32 bits", "beyond 33 bits", "num_tasks", "network"],
)
def test_other_arguments_give_another_instance(others):
    first, second = contents(instance(1)), contents(instance(**({"id": 1} | others)))
    assert first["parameters"] != second["parameters"]
    assert first["order"] != second["order"]


def test_another_version_of_a_problem_gives_another_instance():
    from rollouts import with_splits

    problem = with_splits("digits")
    problem.version = 1
    first = draw(problem, distribution=resolve("clean"), num_tasks=6, network="mlp[8]", id=1)
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
    assert drawn.tasks.tolist() == list(range(6))
    assert drawn.scales.tolist() == [1.0] * 6
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
    assert ((drawn.one_class >= 0.1) & (drawn.one_class <= 0.4)).all()
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
    assert {task for id in range(30) for task in instance(id, num_tasks=2).tasks.tolist()} == set(range(6))


@pytest.mark.parametrize("absent", NAMES)
def test_tasks_that_are_not_allowed_never_appear(absent):
    allowed = [name for name in NAMES if name != absent]
    ids = [*range(EVALUATION_IDS[0], EVALUATION_IDS[0] + 200), *range(TRAINING_IDS[0], TRAINING_IDS[0] + 200)]
    drawn = [instance(id, num_tasks=3, tasks=allowed).tasks.tolist() for id in ids]
    assert {NAMES[task] for tasks in drawn for task in tasks} == set(allowed)
    assert len({tuple(tasks) for tasks in drawn}) == 10  # all subsets of three of the five


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("num_tasks", [1, 2, 6])
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
    wrong = drawn.label_source(load_problem("census")) != np.arange(12_000)[:, None]
    np.testing.assert_allclose(wrong.mean(0), rate, atol=0.03)


def test_planted_labels_are_those_of_used_samples_and_drawn_for_each_task():
    drawn = instance(3, {"noise": (0.4, 0.4), "size": (0.5, 0.5)})
    source = drawn.label_source(load_problem("digits"))
    wrong = source != np.arange(800)[:, None]
    assert set(source[wrong].tolist()) <= set(drawn.rows.tolist())
    assert len({tuple(column) for column in wrong.T.tolist()}) == 6


def test_tasks_that_do_not_take_part_keep_their_labels():
    drawn = instance(3, {"noise": (0.4, 0.4)}, num_tasks=2)
    source = drawn.label_source(load_problem("digits"))
    others = [task for task in range(6) if task not in drawn.tasks]
    assert (source[:, others] == np.arange(800)[:, None]).all()
    assert all((source[:, task] != np.arange(800)).any() for task in drawn.tasks)


@pytest.mark.parametrize("split", ["meta", "reward"])
def test_holdout_labels_are_wrong_at_their_own_rate(split):
    drawn = instance(3, {"noise": (0.4, 0.4), "holdout_noise": (0.5, 0.5)}, problem="census")
    rows = np.arange(4000)
    wrong = drawn.holdout_source(split, 3, rows) != rows[:, None]
    np.testing.assert_allclose(wrong.mean(0), 0.2, atol=0.03)


@pytest.mark.parametrize("name", PROBLEMS)
def test_varied_instances_of_every_problem_can_fill_a_batch(name):
    problem = load_problem(name)
    low = DISTRIBUTIONS["varied"]["size"][0]
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

"""Problems from a person's arrays, frames and data sets: kinds of tasks, splits, what is standardised, and every error."""

from __future__ import annotations

import datetime
import itertools
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings, strategies as st

import mtl_gym
from mtl_gym.problems.columns import Table
from mtl_gym.problems.divisions import FRACTIONS, division
from mtl_gym.problems.kinds import labels_of
from mtl_gym.problems.splits import SPLITS, Split

RNG = np.random.default_rng(0)
X = RNG.normal(3.0, 2.0, (400, 5)) * [1, 10, 100, 1e-3, 1]
PRICE = X[:, 0] * 7 + 1000
KIND = np.array(["cat", "dog", "owl"])[np.digitize(X[:, 4], [2, 4])]


def arrays(**options):
    return mtl_gym.Problem.from_arrays(X, {"price": PRICE, "kind": KIND}, **options)


def rows_of(problem, inputs=X):
    """The rows of each split, found by the first input, which is different in all samples."""
    pool = np.asarray(problem.pool.samples.inputs)[:, 0]
    return {
        name: np.array([int(np.argmin(np.abs(pool - value))) for value in split.inputs[:, 0]])
        for name, split in problem.splits.items()
    }


# --- kinds of tasks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "loss", "outputs", "classes"),
    [
        (np.linspace(0, 1, 60), "mse", 1, ()),
        (np.arange(60), "mse", 1, ()),  # too many values for classes
        (np.arange(60) % 20, "mse", 1, ()),  # three samples of each
        (np.arange(60) % 12, "cross_entropy", 12, ()),
        (np.arange(60.0) % 3, "cross_entropy", 3, ()),
        (np.arange(60) % 3 - 1, "cross_entropy", 3, (-1, 0, 1)),
        (np.arange(60) % 2, "bce", 1, ()),
        (np.arange(60) % 2 + 1, "bce", 1, (1, 2)),
        (np.arange(60) % 2 == 0, "bce", 1, (False, True)),
        ([None, True, False] * 20, "bce", 1, (False, True)),
        ([1, None, 0] * 20, "bce", 1, ()),
        ([1.5, None, 2] * 20, "mse", 1, ()),
        (["b", "a", None] * 20, "bce", 1, ("a", "b")),
        (["b", "a", "c"] * 20, "cross_entropy", 3, ("a", "b", "c")),
        (pd.Series(["b", "a", None] * 20, dtype="category"), "bce", 1, ("a", "b")),
        (pd.Series(["b", "a", None] * 20, dtype="string"), "bce", 1, ("a", "b")),
        (pd.Series([1, 2, None] * 20, dtype="Int64"), "bce", 1, (1, 2)),
        (pd.Series([True, False, None] * 20, dtype="boolean"), "bce", 1, (False, True)),
        (torch.arange(60) % 3, "cross_entropy", 3, ()),
        (np.arange(60)[:, None] % 3, "cross_entropy", 3, ()),
        (10**17 + np.arange(60) % 2, "bce", 1, (10**17, 10**17 + 1)),
        (np.arange(120).reshape(60, 2) * 0.5, "mse", 2, ()),
        (np.arange(120).reshape(60, 2) % 3 % 2, "bce", 2, ()),
    ],
)
def test_kinds_are_inferred_from_labels(labels, loss, outputs, classes):
    made = labels_of("own", labels)
    assert (made.task.loss, made.task.outputs, made.task.classes) == (loss, outputs, classes)
    assert made.scaled == (loss == "mse")
    assert made.values.shape == (60, 1 if loss == "cross_entropy" else outputs)


def test_classes_are_numbered_in_their_order_and_missing_labels_stay_missing():
    made = labels_of("own", ["owl", None, "cat", "dog", float("nan")] * 4)
    np.testing.assert_array_equal(made.values[:5, 0], [2, np.nan, 0, 1, np.nan])
    assert repr(made.task) == (
        "Task(name='own', loss='cross_entropy', metrics=('accuracy',), outputs=3, classes=('cat', 'dog', 'owl'))"
    )


def test_a_task_without_names_of_classes_shows_none():
    assert repr(mtl_gym.Task("a", "mse", ("rmse",))) == "Task(name='a', loss='mse', metrics=('rmse',), outputs=1)"


def test_masked_labels_are_missing_and_masked_inputs_are_not_finite():
    mask = np.arange(60) % 3 == 1
    for values in (np.arange(60.0), np.arange(60) % 2, np.arange(60) % 2 == 0, np.array(["yes", "no"] * 30)):
        masked = np.ma.masked_array(values, mask)
        np.testing.assert_array_equal(np.isnan(labels_of("own", masked).values[:, 0]), mask)
        assert labels_of("own", masked).task == labels_of("own", values).task
    masked = np.ma.masked_array(np.arange(60), mask)
    assert Split(np.zeros(60), masked).targets[:, 0].isnan().tolist() == mask.tolist()
    assert Split(np.zeros(60), np.ma.masked_array(np.arange(60))).targets[:, 0].tolist() == [*range(60)]
    with pytest.raises(ValueError, match="`inputs` should be finite"):
        mtl_gym.Problem.from_arrays(masked, {"own": np.arange(60.0)})


def test_a_given_kind_overrides_what_would_be_inferred():
    ratings = np.arange(60) % 5
    assert labels_of("own", ratings).task.loss == "cross_entropy"
    assert labels_of("own", ratings, "regression").task.loss == "mse"
    assert labels_of("own", np.arange(60) % 30, "classes").task.outputs == 30
    assert labels_of("own", [0.5, 1.5] * 30, "binary").task.classes == (0.5, 1.5)


@pytest.mark.parametrize(
    ("labels", "kind", "error", "message"),
    [
        ([None, np.nan], None, ValueError, "at least one label"),
        ([3, 3, None], None, ValueError, "have different labels.*leave the task out"),
        ([1.0, np.inf, 2.0], None, ValueError, "be finite, or NaN where missing"),
        ([1.0, 1e39, 2.0], None, ValueError, "be finite"),
        (["a", 3], None, TypeError, "all numbers, all texts or all booleans.*int, str"),
        ([True, 3.5, None] * 9, None, TypeError, "all numbers, all texts or all booleans.*bool, float"),
        ([[1], [2, 3]], None, ValueError, "labels of one shape"),
        (3.0, None, ValueError, r"shape \(n,\) or \(n, channels\)"),
        (np.zeros((4, 2, 2)), None, ValueError, "Build a `Problem` for labels of images"),
        (np.array(["2020-01-01", "2021-01-01"], dtype="datetime64[D]"), None, TypeError, "dates.*days since"),
        ([1j, 2j], None, TypeError, "complex"),
        ([f"id {own}" for own in range(30)], None, ValueError, "fewer classes than half its labels.*leave the task out"),
        (["a", "b"] * 9, "regression", ValueError, "not be 'regression' for texts"),
        ([0, 1, 2] * 9, "binary", ValueError, "not be 'binary' for 3 different labels"),
        (np.arange(40).reshape(20, 2), "classes", ValueError, "not be 'classes' for several columns"),
        (np.arange(9) / 3, "classes", ValueError, "fewer classes than half its labels.*'regression'"),
        (np.ones((9, 2)) * [1, 2], None, ValueError, r"different labels in some column.*\[0, 1\]"),
        ([0, 1] * 9, "number", ValueError, "be one of regression, classes, binary"),
    ],
)
def test_labels_that_make_no_task_are_named(labels, kind, error, message):
    with pytest.raises(error, match=rf"(?s)`(targets|kinds)\['own'\]` should .*{message}"):
        labels_of("own", labels, kind)


# --- divisions -------------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(st.integers(12, 400), st.integers(0, 10))
def test_every_sample_is_in_exactly_one_split(count, seed):
    made = division(count, seed=seed)
    assert made.drawable
    np.testing.assert_array_equal(np.sort(np.concatenate([*made.rows.values()])), np.arange(count))
    for name, own in made.rows.items():
        assert abs(len(own) - FRACTIONS[name] * count) <= 1
        np.testing.assert_array_equal(own, division(count, seed=seed).rows[name])


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(1, 9), min_size=4, max_size=60), st.integers(0, 10), st.randoms(use_true_random=False))
def test_no_group_is_divided(sizes, seed, random):
    labels = [f"patient {group}" for group, size in enumerate(sizes) for _ in range(size)]
    random.shuffle(labels)
    made = division(len(labels), seed=seed, groups=labels)
    held = {name: {labels[row] for row in own} for name, own in made.rows.items()}
    assert sum(map(len, held.values())) == len(set.union(*held.values()))
    assert all(held.values())
    used = np.concatenate([*made.rows.values()])
    assert len(set(used.tolist())) == len(used)
    if len(set(sizes)) == 1 or not made.drawable:
        assert len(used) == len(labels)
    else:
        assert len(used) >= 0.9 * len(labels) - len(SPLITS)
    if made.drawable:  # then a pool can always draw others
        mtl_gym.Pool(mtl_gym.Split.of(np.arange(len(labels)), [np.arange(len(labels))]), made.rows, made.groups)


def test_groups_hold_the_fractions_as_closely_as_their_sizes_allow():
    sizes = np.random.default_rng(0).integers(1, 12, 300)
    made = division(int(sizes.sum()), groups=np.repeat(np.arange(300), sizes))
    for name, own in made.rows.items():
        assert len(own) / sizes.sum() == pytest.approx(FRACTIONS[name], abs=0.02)


def test_large_groups_use_all_samples_and_give_no_pool():
    problem = arrays(groups=np.repeat([1, 2, 3, 4, 5], [100, 90, 80, 70, 60]))
    assert problem.pool is None
    assert sum(map(len, problem.splits.values())) == 400


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(0, 39), max_size=40))
def test_later_samples_are_in_later_splits(times):
    times = np.array([*times, *range(40)] * 2)  # each time twice, at least
    made = division(len(times), time=times)
    assert not made.drawable
    np.testing.assert_array_equal(np.sort(np.concatenate([*made.rows.values()])), np.arange(len(times)))
    for before, after in itertools.pairwise(SPLITS):
        assert times[made.rows[before]].max() < times[made.rows[after]].min()


@pytest.mark.parametrize(
    "times",
    [
        np.arange(100)[::-1] / 7,
        np.datetime64("2020-01-01") + np.arange(100)[::-1],
        pd.Series(pd.date_range("2020-01-01", periods=100, tz="Europe/Berlin"))[::-1],
        [datetime.datetime(2020, 1, 1) + datetime.timedelta(hours=100 - hour) for hour in range(100)],
        torch.arange(100).flip(0),
    ],
)
def test_times_are_numbers_or_dates(times):
    made = division(100, time=times)
    assert {name: own.tolist() for name, own in made.rows.items()} == {
        "train": [*range(45, 100)],
        "meta": [*range(35, 45)],
        "reward": [*range(20, 35)],
        "test": [*range(20)],
    }


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"groups": [1] * 100, "time": [1] * 100}, ValueError, "`time` should be left out with `groups`"),
        ({"groups": [1] * 99}, ValueError, "`groups` should have one value for each of the 100 samples"),
        ({"groups": [1, 2, 3, None] * 25}, ValueError, r"`groups` should have no missing values.*\[3, 7"),
        ({"groups": [1, 2, 3, 3] * 25}, ValueError, r"`groups` should have enough different values.*\w+ would be empty"),
        ({"time": [1, 2, 3, 4, np.nan] * 20}, ValueError, r"`time` should have no missing values.*\[4, 9"),
        ({"time": ["2020"] * 100}, TypeError, "`time` should be numbers or dates.*pandas.to_datetime"),
        ({"time": [1, 2] * 50}, ValueError, "`time` should have enough different values"),
        ({"fractions": {"train": 1.0}}, ValueError, "be a mapping with train, meta, reward, test"),
        ({"fractions": dict.fromkeys(SPLITS, 0.3)}, ValueError, "have the sum 1.*It is 1.2"),
        ({"fractions": {**FRACTIONS, "meta": 0.0}}, ValueError, r"`fractions\['meta'\]`"),
        ({"fractions": {"train": 0.997, "meta": 0.001, "reward": 0.001, "test": 0.001}}, ValueError, "have more samples"),
        ({"seed": -1}, ValueError, "`seed` should be at least 0"),
    ],
)
def test_divisions_that_cannot_be_are_named(options, error, message):
    with pytest.raises(error, match=f"(?s){message}"):
        division(100, **options)


# --- arrays ----------------------------------------------------------------------------------------------------------------


def test_inputs_and_numbers_are_standardised_by_train_alone():
    problem, rows = arrays(seed=3), division(400, seed=3).rows
    mean, deviation = X[rows["train"]].mean(0), X[rows["train"]].std(0)
    of_price = (PRICE - PRICE[rows["train"]].mean()) / PRICE[rows["train"]].std()
    for name, split in problem.splits.items():
        np.testing.assert_allclose(split.inputs, (X[rows[name]] - mean) / deviation, atol=1e-5)
        np.testing.assert_allclose(split.targets[:, 0], of_price[rows[name]], atol=1e-5)
        assert [problem.tasks[1].classes[int(index)] for index in split.targets[:, 1]] == KIND[rows[name]].tolist()


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 5), st.floats(-1e6, 1e6), st.sampled_from([{}, {"time": X[:, 1]}, {"groups": np.arange(400) // 4}]))
def test_nothing_of_the_other_splits_changes_what_train_is(seed, value, options):
    rows = division(400, seed=seed, **options).rows["train"]
    others = np.setdiff1d(np.arange(400), rows)
    inputs, price = X.copy(), PRICE.copy()
    inputs[others] += np.linspace(value, 2 * value + 1, len(others))[:, None]
    price[others] = np.linspace(value, value + 9, len(others))
    before = mtl_gym.Problem.from_arrays(X, {"price": PRICE, "kind": KIND}, seed=seed, **options).splits["train"]
    after = mtl_gym.Problem.from_arrays(inputs, {"price": price, "kind": KIND}, seed=seed, **options).splits["train"]
    assert torch.equal(before.inputs, after.inputs)
    assert torch.equal(before.targets, after.targets)


def test_constants_are_centred_and_large_numbers_keep_their_digits():
    moments = 1.7e9 + np.arange(400.0)  # seconds, which float32 cannot tell apart
    problem = mtl_gym.Problem.from_arrays(np.stack([moments, np.full(400, 0.1)], 1), {"time": moments, "kind": KIND})
    rows = division(400).rows
    expected = (moments - moments[rows["train"]].mean()) / moments[rows["train"]].std()
    np.testing.assert_allclose(problem.splits["test"].inputs[:, 0], expected[rows["test"]], atol=1e-5)
    np.testing.assert_allclose(problem.splits["test"].targets[:, 0], expected[rows["test"]], atol=1e-5)
    assert not problem.splits["test"].inputs[:, 1].any()


def test_what_is_standardised_can_be_chosen():
    rows = division(400).rows
    for given_, chosen in ((False, []), ([1], [1]), (True, [*range(5)])):
        found = np.asarray(arrays(standardise=given_).splits["train"].inputs)
        for column in range(5):
            own = X[rows["train"], column]
            np.testing.assert_allclose(
                found[:, column], (own - own.mean()) / own.std() if column in chosen else own, rtol=1e-4, atol=1e-5
            )


def test_a_drawn_split_is_standardised_by_its_own_train():
    pool = arrays().pool
    rows = pool.drawn(np.random.default_rng(5))
    drawn = pool.splits(rows)
    expected = (X - X[rows["train"]].mean(0)) / X[rows["train"]].std(0)
    np.testing.assert_allclose(drawn["test"].inputs, expected[rows["test"]], atol=1e-4)
    assert pool.scaled_targets == (0,)


def test_groups_belong_to_the_pool_and_time_has_none():
    patients = np.arange(400) // 4
    pool = arrays(groups=patients).pool
    drawn = pool.drawn(np.random.default_rng(1))
    held = [set(patients[own]) for own in drawn.values()]
    assert sum(map(len, held)) == len(set.union(*held)) == 100
    assert arrays(time=np.arange(400)).pool is None


def test_images_and_several_columns_of_labels():
    images = RNG.random((80, 1, 4, 4))
    problem = mtl_gym.Problem.from_arrays(images, {"both": RNG.random((80, 2)), "any": RNG.integers(0, 2, 80)}, standardise=False)
    assert (problem.input_shape, problem.outputs) == ((1, 4, 4), 3)
    np.testing.assert_array_equal(problem.splits["meta"].inputs, images[division(80).rows["meta"]].astype(np.float32))
    assert problem.pool.scaled_targets == (0, 1)


@pytest.mark.parametrize("missing", [False, True])
def test_columns_of_one_value_are_only_centred(missing):
    pixels = RNG.random((400, 3)) * [1, 0, 5] + [0, 7, 0]
    pixels[np.ix_(RNG.random(400) < 0.3 * missing, [1])] = np.nan
    problem = mtl_gym.Problem.from_arrays(X, {"clean": pixels, "price": PRICE})
    for split in problem.splits.values():
        known = split.targets[~split.targets[:, 1].isnan(), 1]
        assert len(known)
        assert not known.any()
        assert 0.5 < split.targets[:, 2].std() < 2
    done = mtl_gym.fit(problem, "ew", train_steps=4)
    assert 0.1 < done.metrics["clean/nrmse"] < 10


def test_a_problem_of_arrays_has_defaults_that_can_be_set():
    assert arrays().defaults == mtl_gym.Defaults(lr=2e-3, batch_size=16, train_steps=300, hidden_sizes=(64, 64))
    large = mtl_gym.Problem.from_arrays(np.zeros((40_000, 1)) + np.arange(40_000)[:, None], {"a": np.arange(40_000)}).defaults
    assert (large.batch_size, large.train_steps) == (256, 540)
    assert large.train_steps >= 6 * 22_000 / 256
    own = arrays(hidden_sizes=[8], batch_size=32, train_steps=40, lr=0.1, name="own", network="mlp")
    assert own.defaults == mtl_gym.Defaults(lr=0.1, batch_size=32, train_steps=40, hidden_sizes=(8,))
    assert own.name == "own"


class Images(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3), torch.nn.BatchNorm2d(3), torch.nn.ReLU(), torch.nn.Flatten())
        self.heads = torch.nn.ModuleDict({"place": torch.nn.Linear(108, 1), "kind": torch.nn.Linear(108, 3)})

    def forward(self, inputs):
        features = self.trunk(inputs)
        return {name: head(features) for name, head in self.heads.items()}


def problem_of_images():
    images = np.random.default_rng(0).normal(size=(400, 1, 8, 8))
    labels = {"place": images.sum((1, 2, 3)), "kind": np.arange(400) % 3}
    return mtl_gym.Problem.from_arrays(images, labels, model=Images, standardise=False)


def test_arrays_take_a_module_of_your_own():
    problem = problem_of_images()
    assert (problem.defaults.hidden_sizes, problem.network_name.rpartition(":")[2]) == ((), "Images")
    assert problem.network.shared == ("trunk",)


@pytest.mark.slow
def test_a_module_of_your_own_is_trained_on_arrays_with_drawn_splits():
    done = mtl_gym.fit(problem_of_images(), "ew", train_steps=20, distribution={"split": [1, 1]})
    assert isinstance(done.module, Images)
    assert np.isfinite(done.history.loss).all()


def test_the_same_data_are_the_same_problem_also_after_pickling():
    assert arrays().identity == arrays().identity
    assert arrays(seed=1).identity != arrays().identity
    again = pickle.loads(pickle.dumps(arrays()))
    assert again.identity == arrays().identity
    assert again.tasks[1].classes == ("cat", "dog", "owl")


@pytest.mark.parametrize(
    ("inputs", "targets", "options", "error", "message"),
    [
        ("text", {"a": PRICE}, {}, TypeError, "`inputs` should be an array of real numbers.*from_frame"),
        ([[1, 2], [3]], {"a": PRICE}, {}, TypeError, "`inputs` should be an array of real numbers"),
        (X * 1j, {"a": PRICE}, {}, TypeError, "`inputs` should be an array of real numbers"),
        (3.0, {"a": PRICE}, {}, ValueError, "have one row per sample"),
        (X[:0], {"a": PRICE[:0]}, {}, ValueError, "have one row per sample"),
        (X[:, :0], {"a": PRICE}, {}, ValueError, "at least one feature"),
        (np.where(np.arange(5) == 3, np.nan, X), {"a": PRICE}, {}, ValueError, r"be finite; features.*\[3\].*from_frame fills"),
        (X * 1e40, {"a": PRICE}, {}, ValueError, "be finite"),
        (X, PRICE, {}, TypeError, "`targets` should be a mapping from names"),
        (X, {}, {}, TypeError, "`targets` should be a mapping from names"),
        (X, {"a": PRICE[:9]}, {}, ValueError, r"`targets\['a'\]` should have one label for each of the 400 inputs.*9 labels"),
        (X, {"a": PRICE}, {"kinds": {"b": "classes"}}, ValueError, r"`kinds` should name tasks: a\..*\['b'\]"),
        (
            X,
            {"a": np.where(np.arange(400) < 300, np.nan, PRICE)},
            {"time": np.arange(400)},
            ValueError,
            "'a'.*label in \\*train\\*",
        ),
        (X, {"a": PRICE}, {"batch_size": 500}, ValueError, "`batch_size` should be at most 220"),
        (X, {"a": PRICE}, {"standardise": [5]}, ValueError, "`standardise` should be at most 4"),
        (X, {"a": PRICE}, {"hidden_sizes": 64}, TypeError, "`hidden_sizes` should be a list"),
        (X, {"a": PRICE}, {"lr": 0}, ValueError, "`lr`"),
        (X, {"a": PRICE}, {"train_steps": 0}, ValueError, "`train_steps`"),
        (X, {"a": PRICE}, {"network": "tree"}, ValueError, "`network` should be one of"),
        (X[:3], {"a": [1.5, 2.5, 3]}, {}, ValueError, "`inputs` should have more samples"),
        (X, {"": PRICE}, {}, ValueError, "`name` should be"),
    ],
)
def test_arrays_that_make_no_problem_are_named(inputs, targets, options, error, message):
    with pytest.raises(error, match=f"(?s){message}"):
        mtl_gym.Problem.from_arrays(inputs, targets, **options)


@pytest.mark.slow
def test_policies_are_compared_on_arrays_with_missing_labels(tmp_path):
    sparse = np.where(RNG.random(400) < 0.6, np.nan, PRICE)
    kind = [None if missing else own for own, missing in zip(KIND, RNG.random(400) < 0.3, strict=True)]
    problem = mtl_gym.Problem.from_arrays(X, {"price": sparse, "kind": kind}, train_steps=60)
    found = {}
    for distribution in ("clean", {"split": (1.0, 1.0)}):
        frame = mtl_gym.compare("ew,si", problem=problem, instances=2, distribution=distribution)
        assert np.isfinite(frame["value"]).all()
        assert set(frame["task"]) == {"price", "kind"}
        found[str(distribution)] = frame["value"].tolist()
    assert found["clean"] != found[str({"split": (1.0, 1.0)})]


# --- frames ----------------------------------------------------------------------------------------------------------------


def frame():
    rng = np.random.default_rng(1)
    size = rng.normal(80, 20, 300)
    return pd.DataFrame(
        {
            "size": np.where(rng.random(300) < 0.2, np.nan, size),
            "floor": pd.array(rng.integers(0, 9, 300), dtype="Int64"),
            "garden": rng.random(300) < 0.5,
            "town": rng.choice(["Bonn", "Ulm", "Jena"], 300),
            "energy": pd.Categorical(rng.choice(["A", "B"], 300)),
            "rent": size * 9 + rng.normal(0, 9, 300),
            "let": rng.choice(["yes", "no"], 300),
            "house": np.arange(300) // 3,
            "listed": pd.date_range("2020-01-01", periods=300),
        },
        index=np.arange(300)[::-1],
    )


def test_a_frame_becomes_inputs_by_what_train_has():
    table = frame().drop(columns=["house", "listed"])
    problem = mtl_gym.Problem.from_frame(table, ["rent", "let"], seed=2)
    rows = division(300, seed=2).rows
    made = Table.learnt(table.drop(columns=["rent", "let"]), rows["train"])
    assert made.names == (
        *("size", "size missing", "floor", "garden", "town=Bonn", "town=Jena", "town=Ulm", "energy=A", "energy=B"),
    )
    assert made.numbers == (0, 2)
    size = table["size"].to_numpy()
    filled = np.where(np.isnan(size), np.nanmedian(size[rows["train"]]), size)
    expected = (filled - filled[rows["train"]].mean()) / filled[rows["train"]].std()
    inputs = {name: np.asarray(split.inputs) for name, split in problem.splits.items()}
    for name, own in rows.items():
        np.testing.assert_allclose(inputs[name][:, 0], expected[own], atol=1e-5)
        np.testing.assert_array_equal(inputs[name][:, 1], np.isnan(size[own]))
        np.testing.assert_array_equal(inputs[name][:, 3], table["garden"].to_numpy()[own])
        np.testing.assert_array_equal(inputs[name][:, 5], table["town"].to_numpy()[own] == "Jena")
        np.testing.assert_array_equal(inputs[name][:, 8], table["energy"].to_numpy()[own] == "B")
    assert [(task.name, task.loss, task.classes) for task in problem.tasks] == [("rent", "mse", ()), ("let", "bce", ("no", "yes"))]


def test_rare_and_unseen_categories_are_other():
    towns = np.array(["Ulm"] * 60 + ["Bonn"] * 38 + ["Jena", "Kiel"], dtype=object)
    table = pd.DataFrame({"town": towns})
    made = Table.learnt(table, np.arange(99))  # Jena is there once, Kiel not at all
    assert made.names == ("town=Bonn", "town=Ulm", "town=other")
    np.testing.assert_array_equal(made.read(table)[-2:], [[0, 0, 1], [0, 0, 1]])
    without = Table.learnt(table, np.arange(98))
    assert without.names == ("town=Bonn", "town=Ulm")
    assert not without.read(table)[-2:].any()


def test_missing_categories_and_booleans_have_a_column():
    table = pd.DataFrame({"town": ["Ulm", "Bonn", None] * 10, "garden": [True, None, False] * 10, "floor": [3, None, 1] * 10})
    made = Table.learnt(table, np.arange(30))
    assert made.names == ("town=Bonn", "town=Ulm", "town missing", "garden", "garden missing", "floor", "floor missing")
    np.testing.assert_array_equal(made.read(table)[:3], [[0, 1, 0, 1, 0, 3, 0], [1, 0, 0, 0, 1, 2, 1], [0, 0, 1, 0, 0, 1, 0]])
    assert made.numbers == (5,)
    assert Table.learnt(table, np.arange(30)[::3]).names == ("town=Ulm", "garden", "floor")  # none is missing there


def test_groups_and_time_of_a_frame_are_columns_that_are_no_inputs():
    table = frame()
    by_house = mtl_gym.Problem.from_frame(table.drop(columns=["listed"]), ["rent", "let"], groups="house")
    assert by_house.input_shape == (9,)
    assert len(set(by_house.pool.groups)) == 100
    in_time = mtl_gym.Problem.from_frame(table.drop(columns=["house"]), ["rent"], time="listed", kinds={"rent": "regression"})
    assert in_time.pool is None
    expected = division(300, time=table["listed"]).rows["test"]
    assert expected.tolist() == [*range(240, 300)]
    np.testing.assert_array_equal(in_time.splits["test"].inputs[:, 3], table["garden"].to_numpy()[240:])


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 9), st.sampled_from(["Kiel", "Ulm", None]), st.floats(-1e5, 1e5))
def test_nothing_of_the_other_splits_changes_what_train_is_in_a_frame(seed, town, size):
    table = frame().drop(columns=["house", "listed"]).reset_index(drop=True)
    others = np.setdiff1d(np.arange(300), division(300, seed=seed).rows["train"])
    changed = table.copy()
    changed.loc[others, "town"] = town
    changed.loc[others, "size"] = size
    before, after = (mtl_gym.Problem.from_frame(own, ["rent"], seed=seed).splits["train"] for own in (table, changed))
    assert torch.equal(before.inputs, after.inputs)


def without(*names):
    return frame().drop(columns=[*names])


@pytest.mark.parametrize(
    ("table", "targets", "options", "error", "message"),
    [
        ([1, 2], ["rent"], {}, TypeError, "`frame` should be a pandas DataFrame.*from_arrays"),
        (without("listed"), "rent", {}, TypeError, r"`targets` should be a list.*\[\"rent\"\]"),
        (without("listed"), [], {}, ValueError, "name at least one column"),
        (without("listed"), ["rant"], {}, ValueError, "`targets` should be one of .*Did you mean 'rent'"),
        (without("listed"), ["rent"], {"groups": "hose"}, ValueError, "`groups` should be one of .*Did you mean 'house'"),
        (without("listed"), ["rent"], {"groups": "rent"}, ValueError, "not name a column twice"),
        (frame()[["rent", "let"]], ["rent", "let"], {}, ValueError, "have a column besides these"),
        (frame()[["rent", "rent", "let"]], ["let"], {}, ValueError, r"different names of columns.*\['rent'\]"),
        (frame(), ["rent"], {}, TypeError, r"`frame\['listed'\]` should be numbers.*dates.*\.dt\.year.*time='listed'"),
        (frame().assign(listed=datetime.date(2020, 1, 1)), ["rent"], {}, TypeError, r"frame\['listed'\].*dates"),
        (frame().assign(listed=pd.Timedelta("1h")), ["rent"], {}, TypeError, r"frame\['listed'\].*dates"),
        (frame().assign(listed=[[1]] * 300), ["rent"], {}, TypeError, r"frame\['listed'\].*values of type list"),
        (frame().assign(listed=1j), ["rent"], {}, TypeError, r"frame\['listed'\].*values of type complex"),
        (frame().assign(listed=np.nan), ["rent"], {}, ValueError, r"frame\['listed'\].*missing values only.*drop"),
        (frame().assign(listed=np.inf), ["rent"], {}, ValueError, r"frame\['listed'\]` should be finite"),
        (
            frame().assign(listed=[f"id {own}" for own in range(300)]),
            ["rent"],
            {},
            ValueError,
            r"frame\['listed'\].*identify samples.*groups='listed'",
        ),
        (without("listed"), ["rent"], {"standardise": True}, TypeError, "`standardise` should be left out"),
    ],
)
def test_frames_that_make_no_problem_are_named(table, targets, options, error, message):
    with pytest.raises(error, match=f"(?s){message}"):
        mtl_gym.Problem.from_frame(table, targets, **options)


# --- data sets -------------------------------------------------------------------------------------------------------------


class Pairs(torch.utils.data.Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        if index >= len(self.items):
            raise IndexError(index)
        return self.items[index]


def items(target):
    return Pairs([(torch.full((2, 3), float(index)), target(index)) for index in range(4)])


@pytest.mark.parametrize(
    ("target", "tasks", "expected"),
    [
        (lambda i: i, None, [[0], [1], [2], [3]]),
        (lambda i: None if i == 2 else i, None, [[0], [1], [np.nan], [3]]),
        (lambda i: torch.tensor([i, i + 0.5]), None, [[0, 0.5], [1, 1.5], [2, 2.5], [3, 3.5]]),
        (lambda i: {"a": i, "b": np.float64(2 * i)}, None, [[0, 0], [1, 2], [2, 4], [3, 6]]),
        (lambda i: {"a": i, "b": 2 * i}, ["b", "a"], [[0, 0], [2, 1], [4, 2], [6, 3]]),
        (lambda i: {"a": i, "b": 2 * i}, ["b"], [[0], [2], [4], [6]]),
        (lambda i: (i, torch.tensor([1.0, i])), ["x", "y"], [[0, 1, 0], [1, 1, 1], [2, 1, 2], [3, 1, 3]]),
        (
            lambda i: [None if i % 2 else i, None if i < 3 else np.array([1, 2])],
            None,
            [[0, *[np.nan] * 2], [np.nan] * 3, [2, *[np.nan] * 2], [np.nan, 1, 2]],
        ),
        (lambda i: {"a": i, "b": None}, None, [[0, np.nan], [1, np.nan], [2, np.nan], [3, np.nan]]),
    ],
)
def test_a_data_set_becomes_a_split(target, tasks, expected):
    split = mtl_gym.Split.from_dataset(items(target), tasks)
    np.testing.assert_array_equal(split.inputs, np.arange(4.0)[:, None, None] * np.ones((4, 2, 3)))
    np.testing.assert_array_equal(split.targets, np.array(expected, dtype=np.float32))


def test_subsets_tensor_data_sets_and_dense_labels_too():
    whole = torch.utils.data.TensorDataset(torch.arange(6.0)[:, None], torch.arange(6))
    split = mtl_gym.Split.from_dataset(torch.utils.data.Subset(whole, [4, 1]))
    assert (split.inputs.tolist(), split.targets.tolist()) == ([[4], [1]], [[4], [1]])
    dense = mtl_gym.Split.from_dataset([(torch.zeros(3, 2, 2), {"depth": torch.ones(1, 2, 2), "normal": torch.zeros(3, 2, 2)})])
    assert dense.targets.shape == (1, 4, 2, 2)


def test_splits_of_data_sets_make_a_problem():
    data = [(torch.tensor([float(i), 1.0]), (i % 2, i / 3)) for i in range(40)]
    splits = {name: mtl_gym.Split.from_dataset(data[start::4]) for start, name in enumerate(SPLITS)}
    splits["reward"] = mtl_gym.Split.from_dataset(data[1::2])
    tasks = [mtl_gym.Task("odd", "bce", ("auc",)), mtl_gym.Task("third", "mse", ("nrmse",))]
    assert mtl_gym.Problem("own", tasks, splits).input_shape == (2,)


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        yield torch.zeros(2), 1


@pytest.mark.parametrize(
    ("dataset", "tasks", "error", "message"),
    [
        (Stream(), None, TypeError, "have a length and items by index.*Stream.*islice"),
        (torch.utils.data.DataLoader(Pairs([])), None, TypeError, "DataLoader.*Pass its `dataset`"),
        (iter([]), None, TypeError, "have a length and items by index"),
        (Pairs([]), None, ValueError, "at least one item.*Pairs of 0 items"),
        (Pairs([torch.zeros(3)]), None, TypeError, r"`dataset\[0\]` should be a pair \(inputs, targets\).*Tensor"),
        (Pairs([(torch.zeros(3), 1, 2)]), None, TypeError, r"be a pair.*a tuple of 3.*Several tasks are a mapping"),
        (
            Pairs([(torch.zeros(3), 1), (torch.zeros(4), 1)]),
            None,
            ValueError,
            r"`dataset\[1\] inputs` should have the shape \(3,\).*\(4,\)",
        ),
        (Pairs([(torch.zeros(3), "a")]), None, TypeError, r"`dataset\[0\] targets` should be real numbers"),
        (Pairs([("text", 1)]), None, TypeError, r"`dataset\[0\] inputs` should be real numbers"),
        (Pairs([(torch.zeros(3) * 1j, 1)]), None, TypeError, "be real numbers"),
        (Pairs([([[1], [2, 3]], 1)]), None, TypeError, "be real numbers"),
        (
            Pairs([(torch.zeros(3), {"a": 1}), (torch.zeros(3), {"b": 1})]),
            None,
            ValueError,
            r"dataset\[1\] targets` should be a mapping with 'a'",
        ),
        (Pairs([(torch.zeros(3), {"a": 1})]), ["b"], ValueError, r"dataset\[0\] targets` should be a mapping with 'b'"),
        (
            Pairs([(torch.zeros(3), (1, 2)), (torch.zeros(3), (1,))]),
            None,
            ValueError,
            r"dataset\[1\] targets` should have 2 entries",
        ),
        (Pairs([(torch.zeros(3), (1, 2))]), ["a"], ValueError, "have an entry for each of 1 tasks.*2 entries"),
        (Pairs([(torch.zeros(3), 1)]), ["a", "b"], ValueError, "have an entry for each of 2 tasks"),
        (Pairs([(torch.zeros(3), {})]), None, ValueError, "have an entry"),
        (
            Pairs([(torch.zeros(3), 1), (torch.zeros(3), {"a": 1})]),
            None,
            ValueError,
            r"dataset\[1\] targets` should be a number or tensor",
        ),
        (
            Pairs([(torch.zeros(3), torch.zeros(2)), (torch.zeros(3), torch.zeros(3))]),
            None,
            ValueError,
            r"dataset\[1\] targets` should have the shape \(2,\)",
        ),
        (Pairs([(torch.zeros(3), (torch.zeros(1, 2, 2), 1))]), None, ValueError, "for the same pixels"),
    ],
)
def test_data_sets_that_make_no_split_are_named(dataset, tasks, error, message):
    with pytest.raises(error, match=f"(?s){message}"):
        mtl_gym.Split.from_dataset(dataset, tasks)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.bool])
def test_tokens_of_a_data_set_keep_their_dtype(dtype):
    tokens = torch.tensor([[16_777_217, 2], [0, 1]]).to(dtype)
    assert torch.equal(mtl_gym.Split.from_dataset([(own, 1.0) for own in tokens]).inputs, tokens)
    assert mtl_gym.Split.from_dataset([(own.double(), 1.0) for own in tokens]).inputs.dtype is torch.float32


def test_inputs_of_a_data_set_may_be_tensors_by_name():
    data = [({"tokens": torch.tensor([number, 2]), "pad": np.array([False, number > 0])}, number / 2) for number in range(3)]
    split = mtl_gym.Split.from_dataset(data)
    assert split.inputs["tokens"].tolist() == [[0, 2], [1, 2], [2, 2]]
    assert split.inputs["tokens"].dtype is torch.int64
    assert split.inputs["pad"].tolist() == [[False, False], [False, True], [False, True]]
    assert split.inputs["pad"].dtype is torch.bool
    with pytest.raises(ValueError, match=r"dataset\[1\] inputs` should be a mapping with tokens, pad, as in dataset\[0\]"):
        mtl_gym.Split.from_dataset([data[0], ({"tokens": data[1][0]["tokens"]}, 1.0)])
    with pytest.raises(ValueError, match=r"dataset\[1\] inputs\['tokens'\]` should have the shape \(2,\)"):
        mtl_gym.Split.from_dataset([data[0], ({**data[1][0], "tokens": torch.tensor([1])}, 1.0)])


def test_whole_and_real_inputs_of_a_data_set_are_real_ones():
    split = mtl_gym.Split.from_dataset([(torch.tensor([1, 2]), 1.0), (torch.tensor([1.5, 2.0]), 1.0)])
    assert split.inputs.tolist() == [[1.0, 2.0], [1.5, 2.0]]


def test_a_data_set_that_is_shorter_than_it_says_is_named():
    class Long(Pairs):
        def __len__(self):
            return len(self.items) + 1

    with pytest.raises(ValueError, match=r"`dataset` should have the 3 items of its length.*2 items"):
        mtl_gym.Split.from_dataset(Long([(torch.zeros(2), 1.0)] * 2))

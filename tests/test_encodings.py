"""New data through a problem: encoded as those of its splits, and the network's outputs in the labels' own units and names."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import mtl_gym
from mtl_gym.environments import TASK_GROUPING
from mtl_gym.models import make_model
from mtl_gym.problems import load_problem
from mtl_gym.problems.axes import resolve
from mtl_gym.problems.divisions import division
from mtl_gym.problems.instances import draw

RNG = np.random.default_rng(0)
X = RNG.normal(3.0, 2.0, (400, 5)) * [1, 10, 100, 1e-3, 1]
LABELS = {
    "price": np.where(RNG.random(400) < 0.2, np.nan, X[:, 0] * 7 + 1000),
    "sizes": X[:, :2] * 3,
    "kind": np.array(["cat", "dog", "owl"])[np.digitize(X[:, 4], [2, 4])],
    "stars": np.digitize(X[:, 4], [2, 4]) - 1,
    "sold": X[:, 1] > 30,
    "any": (X[:, :3] > [3, 30, 300]).astype(int),
}
DRAWN = {"split": [1, 1]}


def rents():
    size = RNG.normal(80, 20, 300)
    table = {
        "size": np.where(RNG.random(300) < 0.2, np.nan, size),
        "garden": RNG.random(300) < 0.5,
        "town": RNG.choice(["Bonn", "Ulm", "Jena", None], 300),
        "rent": size * 9 + RNG.normal(0, 9, 300),
        "let": RNG.choice(["yes", "no"], 300),
        "house": np.arange(300) // 3,
    }
    return pd.DataFrame(table, index=np.arange(300)[::-1])


RENTS = rents()


def of_frame(**options):
    return mtl_gym.Problem.from_frame(RENTS, ["rent", "let"], **{"groups": "house"} | options)


# --- inputs ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 3])
@pytest.mark.parametrize("apart", ["groups", "time"])
def test_rows_of_a_frame_are_encoded_as_those_of_the_splits(apart, seed):
    problem = of_frame(**{"groups": None, apart: "house"}, seed=seed)
    rows = division(300, seed=seed, **{apart: RENTS["house"]}).rows
    assert (problem.pool is None) == (apart == "time")
    for name, own in rows.items():
        some = RENTS.iloc[own][["town", "size", "house", "garden"]]  # in another order, without labels
        assert torch.equal(problem.encode(some), problem.splits[name].inputs)
        assert torch.equal(problem.encode(RENTS.iloc[own[:1]]), problem.splits[name].inputs[:1])


@pytest.mark.parametrize("standardise", [True, False, [1, 3]])
def test_arrays_are_encoded_as_those_of_the_splits(standardise):
    problem = mtl_gym.Problem.from_arrays(X, LABELS, standardise=standardise)
    for name, own in division(400).rows.items():
        assert torch.equal(problem.encode(X[own]), problem.splits[name].inputs)


def test_images_are_encoded_as_those_of_the_splits():
    images = RNG.random((80, 1, 4, 4)) * 300 + 1e6
    problem = mtl_gym.Problem.from_arrays(images, {"sum": images.sum((1, 2, 3))}, time=np.arange(80))
    assert torch.equal(problem.encode(torch.tensor(images[64:])), problem.splits["test"].inputs)


def test_columns_of_a_frame_that_was_given_as_an_array_are_found_by_their_names():
    table = pd.DataFrame(X, columns=[*"abcde"])
    problem = mtl_gym.Problem.from_arrays(table, {"price": LABELS["price"]})
    assert problem.encoding.names == (*"abcde",)
    assert torch.equal(problem.encode(table[[*"edcba"]].assign(f=1)), problem.encode(X))
    with pytest.raises(ValueError, match=r"`inputs` should have the columns a, b, c, d, e; not there.*\['b'\]"):
        problem.encode(table.drop(columns="b"))


def test_unseen_categories_and_missing_values_are_read_as_in_train():
    problem, train = of_frame(), division(300, groups=RENTS["house"]).rows["train"]
    new = pd.DataFrame({"size": [np.nan, 100], "garden": [None, True], "town": ["Kiel", None]})
    inputs = dict(zip(problem.encoding.names, problem.encode(new).T.tolist(), strict=True))
    size = RENTS["size"].to_numpy()[train]
    filled = np.where(np.isnan(size), np.nanmedian(size), size)
    expected = (np.array([np.nanmedian(size), 100]) - filled.mean()) / filled.std()
    assert inputs.pop("size") == pytest.approx(expected, abs=1e-5)
    assert inputs == {
        **{"size missing": [1, 0], "garden": [0, 1], "town=Bonn": [0, 0], "town=Jena": [0, 0], "town=Ulm": [0, 0]},
        "town missing": [0, 1],
    }


def test_a_category_that_train_lacks_is_other_where_train_has_some():
    towns = [*["Ulm"] * 150, *["Bonn"] * 148, "Jena", "Kiel"]
    for seed in range(20):
        rows = division(300, seed=seed).rows["train"]
        problem = mtl_gym.Problem.from_frame(pd.DataFrame({"town": towns, "y": np.arange(300.0)}), ["y"], seed=seed)
        found = problem.encode(pd.DataFrame({"town": ["Ulm", "Rome"]})).tolist()
        assert found == ([[0, 1, 0], [0, 0, 1]] if (rows > 297).any() else [[0, 1], [0, 0]])


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (RENTS.drop(columns=["town", "garden"]), ValueError, "`frame` should have all columns.*not there: garden, town"),
        (RENTS.assign(size="large"), TypeError, r"`frame\['size'\]` should hold numbers.*'texts or categories'.*astype\(float\)"),
        (RENTS.assign(town=3), TypeError, r"`frame\['town'\]` should hold texts or categories.*'numbers'.*astype\('category'\)"),
        (RENTS.assign(garden=1), TypeError, r"`frame\['garden'\]` should hold booleans, as in \*train\*.*'numbers'"),
        (RENTS.assign(size=pd.Timestamp("2020-01-01")), TypeError, r"`frame\['size'\]` should be numbers.*dates"),
        (RENTS.assign(size=np.inf), ValueError, r"`frame\['size'\]` should be finite; rows"),
        (RENTS.assign(size=1e300), ValueError, r"`data` should be finite when standardised; samples.*\[0, 1"),
        (RENTS.iloc[:0], ValueError, "`frame` should have at least one row"),
        (RENTS.iloc[0], TypeError, r"`frame` should be a pandas DataFrame.*Series.*frame\.iloc\[\[0\]\]"),
        (RENTS[["size", "size", "garden", "town"]], ValueError, r"`frame` should have each column once.*\['size'\]"),
        (X, TypeError, "`frame` should be a pandas DataFrame.*ndarray"),
    ],
)
def test_rows_that_are_no_inputs_are_named(data, error, message):
    with pytest.raises(error, match=f"(?s){message}"):
        of_frame().encode(data)


@pytest.mark.parametrize("value", [np.nan, None, pd.NaT])
def test_a_column_without_any_value_may_be_of_any_type(value):
    problem = of_frame()
    for name in ("size", "garden", "town"):
        found = problem.encode(RENTS.iloc[:2].assign(**{name: [value] * 2}))
        expected = RENTS.iloc[:2].assign(**{name: pd.Series([None] * 2, dtype=object, index=RENTS.index[:2])})
        assert torch.equal(found, problem.encode(expected))
        flags = [problem.encoding.names.index(own) for own in ("size missing", "town missing") if own.startswith(name)]
        assert found[:, flags].all()
        assert torch.isfinite(found).all()


def test_arrays_of_another_shape_are_named():
    problem = mtl_gym.Problem.from_arrays(X, LABELS)
    with pytest.raises(ValueError, match=r"`inputs` should have samples of the shape \(5,\).*\(2, 4\)"):
        problem.encode(X[:2, :4])
    with pytest.raises(ValueError, match=r"`inputs` should be finite; features"):
        problem.encode(np.full((2, 5), np.nan))


def test_a_problem_of_splits_does_not_know_how_they_were_made():
    problem = load_problem("quadratic")
    for call in (problem.encode, problem.decode):
        with pytest.raises(ValueError, match=r"made by Problem\.from_arrays or Problem\.from_frame.*as you did"):
            call(torch.zeros(1, 64))
    with pytest.raises(ValueError, match=r"from_arrays or from_frame.*'quadratic'.*Call `module`"):
        mtl_gym.fit("quadratic", train_steps=4).predict(X)


# --- outputs ---------------------------------------------------------------------------------------------------------------


def as_outputs(problem, split):
    """Outputs of a network that is always right and sure."""
    made = {}
    for task, own in zip(problem.tasks, problem.target_slices, strict=True):
        labels = problem.splits[split].targets[:, own]
        classes = task.loss == "cross_entropy"
        hot = nn.functional.one_hot(labels[:, 0].nan_to_num().long(), task.outputs) if classes else labels
        made[task.name] = labels if task.loss == "mse" else (hot.float() - 0.5) * 80
    return made


@pytest.mark.parametrize("time", [None, np.arange(400)])
def test_labels_come_back_in_their_own_units_and_names(time):
    problem = mtl_gym.Problem.from_arrays(X, LABELS, time=time)
    rows = division(400, time=time).rows
    for split in ("train", "test"):
        outputs = as_outputs(problem, split)
        found, own = problem.decode(outputs), rows[split]
        np.testing.assert_allclose(found["price"], LABELS["price"][own], rtol=1e-6)  # NaN where a label is missing
        np.testing.assert_allclose(found["sizes"], LABELS["sizes"][own], rtol=1e-5, atol=1e-4)
        np.testing.assert_array_equal(found["kind"], LABELS["kind"][own])
        np.testing.assert_array_equal(found["stars"], LABELS["stars"][own])
        np.testing.assert_array_equal(found["sold"].round(6), LABELS["sold"][own])
        np.testing.assert_array_equal(found["any"].round(6), LABELS["any"][own])
        beside = problem.decode(torch.cat([*outputs.values()], dim=1))
        in_order = problem.decode([*outputs.values()])
        for task in found:
            np.testing.assert_array_equal(found[task], beside[task])
            np.testing.assert_array_equal(found[task], in_order[task])


def test_outputs_of_binary_tasks_are_probabilities_of_the_second_class():
    problem = of_frame()
    assert problem.tasks[1].classes == ("no", "yes")
    found = problem.decode({"let": torch.tensor([-1.0, 0, 2], requires_grad=True)})
    assert [*found] == ["let"]
    np.testing.assert_allclose(found["let"], 1 / (1 + np.exp([1, 0, -2])))


@pytest.mark.parametrize(
    ("outputs", "error", "message"),
    [
        ({"rant": torch.zeros(2, 1)}, ValueError, "`outputs` should be one of rent, let.*'rent'"),
        ({"rent": torch.zeros(2, 3)}, ValueError, r"`outputs\['rent'\]` should have the shape \(n, 1\)"),
        ({"rent": np.zeros((2, 1))}, TypeError, r"`outputs\['rent'\]` should be a tensor.*ndarray"),
        ([torch.zeros(2, 1)], TypeError, "tensors of rent, let.*a list of 1"),
        (torch.zeros(2, 3), ValueError, r"`outputs` should have the shape \(n, 2\), the outputs of rent, let side by side"),
        (3.0, TypeError, "be what the module returns"),
    ],
)
def test_what_a_module_does_not_return_is_named(outputs, error, message):
    with pytest.raises(error, match=f"(?s){message}"):
        of_frame().decode(outputs)


# --- trained networks ------------------------------------------------------------------------------------------------------


def nrmse(found, labels):
    known = ~np.isnan(labels)
    return np.sqrt(np.mean((found - labels)[known] ** 2)) / np.std(labels[known])


@pytest.mark.parametrize("distribution", ["clean", DRAWN])
def test_predictions_have_the_metrics_of_the_training(distribution):
    problem = mtl_gym.Problem.from_arrays(X, {name: LABELS[name] for name in ("price", "kind")})
    done = mtl_gym.fit(problem, "ew", seed=3, train_steps=40, distribution=distribution)
    identity = make_model(problem, problem.defaults.hidden_sizes).identity
    instance = draw(problem, distribution=resolve(distribution), num_tasks=2, network=identity, id=3)
    rows = instance.members or problem.pool.rows
    found = done.predict(X[rows["test"]])
    assert nrmse(found["price"], LABELS["price"][rows["test"]]) == pytest.approx(done.metrics["price/nrmse"], rel=1e-4)
    accuracy = np.mean(found["kind"] == LABELS["kind"][rows["test"]])
    assert accuracy == pytest.approx(done.metrics["kind/accuracy"])
    means = done.encoding.encode(X[rows["train"]]).mean(0)
    assert means.abs().max() < 1e-5
    own = problem.decode(done.module(problem.encode(X)))["price"]
    assert np.array_equal(own, done.predict(X)["price"]) == (distribution == "clean")


class Shop(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Linear(5, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, inputs):
        return self.head(torch.relu(self.trunk(inputs)))


def test_networks_of_ones_own_and_groups_predict():
    problem = mtl_gym.Problem.from_arrays(X, {"price": LABELS["price"], "sold": LABELS["sold"]}, model=Shop)
    found = mtl_gym.fit(problem, "si", train_steps=10).predict(X[:3])
    assert {name: own.shape for name, own in found.items()} == {"price": (3,), "sold": (3,)}
    classes = mtl_gym.Problem.from_arrays(X, {name: LABELS[name] for name in ("kind", "sold", "stars")})
    found = mtl_gym.fit(classes, "random-groups", TASK_GROUPING, train_steps=12, batch_size=16).predict(X[:3])
    assert set(found) == {"kind", "sold", "stars"}
    assert set(found["kind"]) <= {"cat", "dog", "owl"}


def test_an_encoding_survives_copies():
    problem = of_frame()
    again = pickle.loads(pickle.dumps(problem))
    assert torch.equal(again.encode(RENTS), problem.encode(RENTS))
    assert again.encoding.names == problem.encoding.names
    assert copy.deepcopy(problem).encoding is problem.encoding
    assert again.identity == problem.identity
    done = mtl_gym.fit(problem, "ew", train_steps=4, distribution=DRAWN)
    kept = pickle.loads(pickle.dumps(done.encoding))
    assert torch.equal(kept.encode(RENTS), done.encoding.encode(RENTS))


SHOP = """
import numpy as np
import pandas as pd
import mtl_gym


def make():
    size = np.random.default_rng(0).normal(80, 20, 300)
    table = pd.DataFrame({"size": size, "town": np.where(size > 80, "Ulm", "Bonn"), "rent": size * 9})
    return mtl_gym.Problem.from_frame(table, ["rent"])


def small():
    return make()


def named():
    return mtl_gym.Problem.from_arrays(np.arange(90.0), {"y": np.arange(90)}, name="own")


ready = make()
"""


@pytest.fixture
def shop(tmp_path):
    (tmp_path / "shop.py").write_text(SHOP)
    return f"{tmp_path}/shop.py:make"


def test_a_network_from_a_file_predicts_with_the_problem_at_its_address(shop, tmp_path):
    new = pd.DataFrame({"town": ["Kiel"], "size": [90]})
    done = mtl_gym.fit(shop, "ew", train_steps=20)
    module, problem = mtl_gym.load_module(done.save(tmp_path / "model")), load_problem(shop)
    assert problem.decode(module(problem.encode(new))) == done.predict(new)
    for copied in (pickle.loads(pickle.dumps(problem)), problem):
        assert copied.encoding is problem.encoding


def test_a_network_of_a_drawn_split_warns_that_the_problem_encodes_otherwise(shop, tmp_path):
    done = mtl_gym.fit(shop, "ew", train_steps=4, distribution=DRAWN)
    with pytest.warns(RuntimeWarning, match=r"not those of `problem\.encode`.*`Fit\.encoding`"):
        mtl_gym.load_module(done.save(tmp_path / "model"))


def test_a_problem_without_a_name_gets_that_of_its_address(shop, tmp_path, monkeypatch):
    names = {own: load_problem(shop.replace("make", own)).name for own in ("make", "small", "named", "ready")}
    assert names == {"make": "shop", "small": "small", "named": "own", "ready": "mine"}
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "store.py").write_text(SHOP)
    assert load_problem("store:make").name == "store"
    assert mtl_gym.Problem.from_arrays(X, {"price": LABELS["price"]}).name == "mine"

import copy
import dataclasses
import importlib.util
import math
import pickle
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from rollouts import make, play

import mtl_gym.problems
from mtl_gym.environments import LAYER_MERGING, LOSS_WEIGHTING, SAMPLE_WEIGHTING, TASK_GROUPING, specification
from mtl_gym.models.native import mlp
from mtl_gym.problems import PROBLEMS, load_problem
from mtl_gym.problems.base import SPLITS, Problem, Split, Task
from mtl_gym.problems.clusters import planted_clusters
from mtl_gym.problems.losses import LOSSES
from mtl_gym.problems.quadratic import CENTRES, objectives, optimum
from mtl_gym.problems.sources import divide, shipped

EACH = pytest.mark.parametrize("name", PROBLEMS)
UNIQUE = [name for name in PROBLEMS if name != "quadratic"]  # whose inputs are the same for every sample


def rows(split):
    return {row.tobytes() for row in split.inputs.flatten(1).numpy()}


# --- every row of the table -------------------------------------------------------------------------------------------


@EACH
def test_a_problem_is_read_once(name):
    assert load_problem(name) is load_problem(name)
    assert load_problem(load_problem(name)) is load_problem(name)


@EACH
def test_a_problem_is_what_its_row_says(name):
    problem, row = load_problem(name), PROBLEMS[name]
    assert (problem.name, problem.network, problem.version) == (name, row.network, row.version)
    assert problem.defaults == row.defaults
    assert row.summary


@pytest.mark.parametrize(
    ("env_id", "without"),
    [
        (LOSS_WEIGHTING, []),
        (SAMPLE_WEIGHTING, []),
        (LAYER_MERGING, ["stereo", "quadratic"]),  # an hourglass is no chain of layers, and a point has none
        (TASK_GROUPING, ["river_flow", "stereo", "quadratic"]),  # fewer than two of their tasks have classes
    ],
)
def test_an_environment_supports_all_problems_but_those_that_it_has_a_reason_against(env_id, without):
    supports = specification(env_id).supports
    reasons = {name: supports(load_problem(name)) for name in PROBLEMS}
    assert [name for name, reason in reasons.items() if reason is not None] == without
    assert all(reasons[name] for name in without)


@EACH
def test_inputs_are_finite_float32(name):
    for split in load_problem(name).splits.values():
        assert split.inputs.dtype == split.targets.dtype == torch.float32
        assert torch.isfinite(split.inputs).all()


@EACH
def test_targets_are_finite_or_missing(name):
    for split in load_problem(name).splits.values():
        assert not torch.isinf(split.targets).any()
        assert not torch.isnan(split.targets).all()


@EACH
def test_targets_fit_their_losses(name):
    problem = load_problem(name)
    for split in problem.splits.values():
        for task, columns in zip(problem.tasks, problem.target_slices, strict=True):
            values = split.targets[:, columns]
            known = values[~torch.isnan(values)]
            if task.loss == "cross_entropy":
                assert set(known.unique().tolist()) <= set(range(task.outputs))
            if task.loss == "bce":
                assert set(known.unique().tolist()) <= {0.0, 1.0}
            if task.loss == "cosine":
                lengths = values.norm(dim=1)
                torch.testing.assert_close(lengths[~torch.isnan(lengths)].mean(), torch.tensor(1.0))


@EACH
def test_every_class_and_both_labels_occur_in_training_and_test(name):
    problem = load_problem(name)
    for split in (problem.splits["train"], problem.splits["test"]):
        for task, columns in zip(problem.tasks, problem.target_slices, strict=True):
            values = split.targets[:, columns]
            classes = {"cross_entropy": task.outputs, "bce": 2}.get(task.loss, 2)
            assert len(values[~torch.isnan(values)].unique()) >= classes or name == "quadratic"


@EACH
def test_the_slices_cover_all_channels_in_order(name):
    problem = load_problem(name)
    for slices, total in [
        (problem.output_slices, problem.outputs),
        (problem.target_slices, problem.splits["train"].targets.shape[1]),
    ]:
        assert [index for part in slices for index in range(part.start, part.stop)] == list(range(total))
    assert problem.num_tasks == len(problem.tasks) >= 2


@EACH
def test_an_episode_holds_at_least_six_epochs(name):
    problem = load_problem(name)
    per_epoch = len(problem.splits["train"]) // problem.defaults.batch_size
    assert problem.defaults.train_steps >= 6 * per_epoch


@EACH
def test_defaults_divide_into_decisions(name):
    assert load_problem(name).defaults.train_steps % 10 == 0


@pytest.mark.parametrize("name", UNIQUE)
def test_no_input_is_in_two_splits(name):
    splits = load_problem(name).splits
    for first in SPLITS:
        for second in SPLITS[: SPLITS.index(first)]:
            assert not rows(splits[first]) & rows(splits[second])


def test_no_measurement_of_river_flow_is_in_two_splits():
    from mtl_gym.problems.river_flow import BLOCK, PATTERN

    data, problem, cycle = shipped("rf1_series.npz"), load_problem("river_flow"), 120 + 60 + 48
    series, lags, horizon = data["S"], data["lags"].tolist(), int(data["horizon"])
    measured = np.isfinite(series).all(1)
    spans, blocks = {}, dict.fromkeys(SPLITS, 0)
    first = range(max(lags), len(series) - horizon)
    for begin in first[::cycle]:
        hours = [[*(hour - lag for lag in lags), hour + horizon] for hour in range(begin, min(begin + BLOCK, first[-1] + 1))]
        if len(hours) == BLOCK and measured[np.concatenate(hours)].all():
            blocks[PATTERN[(begin - first[0]) // cycle % len(PATTERN)]] += 1
            spans[begin] = set(np.concatenate(hours).tolist())
    assert {name: BLOCK * count for name, count in blocks.items()} == {name: len(own) for name, own in problem.splits.items()}
    assert sum(map(len, spans.values())) == len(set().union(*spans.values()))  # of no two blocks, so of no two splits
    assert np.unique(problem.pool.groups, return_counts=True)[1].tolist() == [BLOCK] * len(spans)


def test_a_faulty_reading_of_a_gauge_is_limited():
    data, problem = shipped("rf1_series.npz"), load_problem("river_flow")
    series = data["S"].astype(np.float64)
    highest = np.nanmean(series, 0) + 6 * np.nanstd(series, 0)
    found = problem.pool.samples.targets.amax(0).numpy()
    assert (np.nanmax(series, 0) > highest).any()
    assert (found <= highest.astype(np.float32)).all()


def test_the_labels_of_tox21_are_missing_as_its_manual_says():
    problem = load_problem("tox21")
    assert [len(problem.splits[name]) for name in SPLITS] == [3_000, 800, 1_600, 1_579]
    targets = problem.pool.samples.targets
    missing, active = targets.isnan().float().mean(0), targets.nanmean(0)
    assert not problem.complete
    assert (0.065 < missing).all()
    assert (missing < 0.265).all()
    assert (0.025 < active).all()
    assert (active < 0.165).all()
    assert set(problem.pool.samples.inputs.unique().tolist()) == {0, 1}


@pytest.mark.slow
def test_no_digit_of_multimnist_is_in_two_splits(monkeypatch):
    from mtl_gym.problems import multimnist

    pixels, digit = multimnist.mnist_data()
    marked = np.repeat(np.arange(len(pixels), dtype=np.float64)[:, None] + 1, pixels.shape[1], axis=1)  # its number, as an image
    monkeypatch.setattr(multimnist, "mnist_data", lambda: (marked * 255, digit))
    _, splits = multimnist.load()
    seen = {name: set(split.inputs[:, 0, [0, -1], [0, -1]].unique().tolist()) for name, split in splits.items()}
    assert all(len(numbers) > 400 for numbers in seen.values())
    assert sum(map(len, seen.values())) == len(set().union(*seen.values()))


@EACH
def test_pickles_name_the_problem(name):
    problem = load_problem(name)
    data = pickle.dumps(problem)
    assert len(data) < 1000
    assert pickle.loads(data) is problem


@EACH
def test_a_deepcopy_is_the_problem_itself(name):
    assert copy.deepcopy(load_problem(name)) is load_problem(name)


@pytest.mark.parametrize("name", [name for name, row in PROBLEMS.items() if row.package])
def test_a_missing_package_gives_the_install_line(name, monkeypatch):
    find = importlib.util.find_spec
    package = PROBLEMS[name].package
    monkeypatch.setattr(importlib.util, "find_spec", lambda wanted, *rest: None if wanted == package else find(wanted, *rest))
    with pytest.raises(ModuleNotFoundError, match=rf'{package}.*pip install "mtl-gym\[data\]"'):
        mtl_gym.problems._load.__wrapped__(name)  # what is read once stays for the other tests


def test_every_file_that_loads_has_a_row():
    folder = Path(mtl_gym.problems.__file__).parent
    files = {path.stem for path in folder.glob("*.py") if "\ndef load(" in path.read_text()}
    assert files == {row.load.split(":")[0].rsplit(".", 1)[1] for row in PROBLEMS.values()}


# --- one's own --------------------------------------------------------------------------------------------------------


def split(count=8, channels=2):
    return Split(torch.zeros(count, 3), torch.zeros(count, channels))


TASKS = (Task("a", "mse", ("rmse",)), Task("b", "bce", ("auc",)))


def test_a_problem_of_ones_own_is_kept_by_pickle():
    problem = Problem("own", TASKS, {name: split() for name in SPLITS}, version=3)
    other = pickle.loads(pickle.dumps(problem))
    assert (other.name, other.tasks, other.version) == ("own", TASKS, 3)
    assert torch.equal(other.splits["test"].inputs, problem.splits["test"].inputs)


def test_a_problem_that_bears_a_tables_name_is_not_mistaken_for_it():
    problem = Problem("digits", TASKS, {name: split() for name in SPLITS})
    assert pickle.loads(pickle.dumps(problem)).tasks == TASKS


@pytest.mark.parametrize(
    ("tasks", "splits", "message"),
    [
        ((), {name: split() for name in SPLITS}, "`tasks` should contain at least one task"),
        ((TASKS[0], TASKS[0]), {name: split() for name in SPLITS}, "`tasks` should have different names"),
        (TASKS, {name: split() for name in SPLITS[:3]}, "`splits` should be train, meta, reward, test"),
        (TASKS, {name: split() for name in (*SPLITS, "more")}, "`splits` should be train, meta, reward, test"),
        (TASKS, {name: split(0 if name == "meta" else 8) for name in SPLITS}, r"`splits\['meta'\]` should contain at least one"),
        (TASKS, {name: split(channels=3) for name in SPLITS}, r"`splits\['train'\].targets` should.*\(8, 2\).*\(8, 3\)"),
        (TASKS, {name: Split(torch.zeros(8, 3), torch.zeros(7, 2)) for name in SPLITS}, r"targets` should.*\(8, 2\).*\(7, 2\)"),
    ],
)
def test_what_is_no_problem_is_refused(tasks, splits, message):
    with pytest.raises(ValueError, match=message):
        Problem("own", tasks, splits)


@pytest.mark.parametrize("value", [-1.0, 3.0, 0.5])
def test_class_numbers_outside_the_range_are_refused(value):
    tasks = (Task("a", "cross_entropy", ("accuracy",), outputs=3),)
    with pytest.raises(ValueError, match="targets"):
        Problem("own", tasks, {name: Split(torch.zeros(8, 3), torch.full((8, 1), value)) for name in SPLITS})


@pytest.mark.parametrize("value", [-1.0, 7.0, 0.5, math.inf])
def test_labels_of_two_classes_that_are_neither_are_refused(value):
    targets = torch.zeros(8, 2)
    targets[:, 1] = value
    splits = {name: split() for name in SPLITS[:3]} | {"test": Split(torch.zeros(8, 3), targets)}
    with pytest.raises(ValueError, match=r"`splits\['test'\].targets` should be 0 or 1, or NaN where missing, for the task 'b'"):
        Problem("own", TASKS, splits)


@pytest.mark.parametrize("name", SPLITS)
@pytest.mark.parametrize("value", [math.inf, -math.inf, 1e300, -1e30])
def test_labels_that_are_infinite_or_whose_squares_are_are_refused(name, value):
    targets = np.zeros((8, 2))
    targets[3, 0] = value
    splits = {own: split() for own in SPLITS} | {name: Split(torch.zeros(8, 3), targets)}
    with pytest.raises(
        ValueError, match=rf"`splits\['{name}'\].targets` should be finite, or NaN where missing, .* for the task 'a'"
    ):
        Problem("own", TASKS, splits)


@pytest.mark.parametrize("name", ["reward", "test"])
def test_a_constant_label_is_refused_where_a_metric_divides_by_its_deviation(name):
    tasks, varied = (Task("a", "mse", ("rmse", "nrmse")),), Split(torch.zeros(8, 3), torch.arange(8.0))
    splits = dict.fromkeys(SPLITS, varied) | {name: Split(torch.zeros(8, 3), torch.full((8,), 2.5))}
    with pytest.raises(ValueError, match=rf"`splits\['{name}'\].targets` should vary for the task 'a', whose metric 'nrmse'.*2.5"):
        Problem("own", tasks, splits)
    Problem("own", (Task("a", "mse", ("rmse",)),), splits)
    Problem("own", tasks, {**splits, name: varied, "train": splits[name], "meta": splits[name]})


@pytest.mark.parametrize(
    ("loss", "metric", "outputs"),
    [
        *(("mse", "auc", 1), ("l1", "accuracy", 1), ("cross_entropy", "auc", 3), ("bce", "nrmse", 1), ("cross_entropy", "rmse", 3)),
        ("bce", "auc", 2),
    ],
)
def test_a_metric_of_other_labels_is_refused(loss, metric, outputs):
    with pytest.raises(ValueError, match=f"`metrics` should not include '{metric}' for {outputs} output.*'{loss}'"):
        Task("a", loss, (metric,), outputs=outputs)


FORMS = {
    "float64": lambda values: values.double(),
    "int64": lambda values: values.long(),
    "uint8": lambda values: values.to(torch.uint8),
    "bool": lambda values: values.bool(),
    "half": lambda values: values.half(),
    "numpy": lambda values: values.numpy().astype(float),
    "list": lambda values: values.tolist(),
    "read-only": lambda values: np.broadcast_to(values.numpy(), values.shape),
    "gradient": lambda values: values.clone().requires_grad_(),
    "transposed": lambda values: values.T.contiguous().T,
}


@pytest.mark.parametrize("form", FORMS)
def test_arrays_of_any_real_type_become_float32_tensors(form):
    inputs, targets = (torch.randint(0, 2, (8, columns)).float() for columns in (3, 2))
    own = Split(FORMS[form](inputs), FORMS[form](targets))
    problem = Problem("own", [Task("a", "mse", ("rmse",), outputs=2)], dict.fromkeys(SPLITS, own))
    for found, expected in ((problem.splits["train"].inputs, inputs), (own.targets, targets)):
        assert found.dtype is torch.float32
        assert not found.requires_grad
        assert torch.equal(found, expected)


def test_one_column_needs_no_second_axis():
    own = Split(np.arange(4), [0, 1, 0, 1])
    assert own.inputs.shape == own.targets.shape == (4, 1)


@pytest.mark.parametrize("values", ["words", ["a", "b"], [[1], [1, 2]], np.ones(2, complex), torch.ones(2).to_sparse(), {"a": 1}])
def test_what_are_no_real_numbers_are_refused(values):
    with pytest.raises(TypeError, match="`targets` should be an array of real numbers"):
        Split(torch.zeros(2, 3), values)


def test_what_is_no_split_is_refused():
    splits = {name: split() for name in SPLITS} | {"meta": (torch.zeros(8, 3), torch.zeros(8, 2))}
    with pytest.raises(TypeError, match=r"`splits\['meta'\]` should be a Split. Received .*'tuple'"):
        Problem("own", TASKS, splits)


@pytest.mark.parametrize("name", SPLITS)
def test_a_task_without_labels_in_a_split_is_named(name):
    generator = torch.Generator().manual_seed(0)

    def own(missing):
        targets = torch.randn(64, 2, generator=generator)
        targets[:, 1] = torch.nan if missing else (targets[:, 1] > 0).float()
        return Split(torch.randn(64, 3, generator=generator), targets)

    problem = Problem("own", TASKS, {split: own(split == name) for split in SPLITS})
    with pytest.raises(ValueError, match=rf"`splits\['{name}'\].targets` should contain a label of the task 'b'"):
        mtl_gym.compare("ew", problem=problem, instances=1, train_steps=20, batch_size=8)
    mtl_gym.compare("ew", problem=problem, tasks=["a"], instances=1, train_steps=20, batch_size=8)


def partly(task, split, *, whole):
    """A problem with this task, two numbers; each sample of a split has one of them, and the first ``whole`` have both."""
    generator = torch.Generator().manual_seed(0)

    def own(missing):
        targets = torch.randn(64, task.outputs, generator=generator)
        if missing:
            targets[whole::2, 0], targets[whole + 1 :: 2, 1] = torch.nan, torch.nan
        return Split(torch.randn(64, 3, generator=generator), targets)

    return Problem("partly", [task], {name: own(name == split) for name in SPLITS})


PAIRS = [Task("a", "mse", ("rmse",), outputs=2), Task("a", "cosine", ("angle",), outputs=2)]


@pytest.mark.parametrize("task", PAIRS, ids=lambda task: task.loss)
@pytest.mark.parametrize("name", SPLITS)
def test_samples_without_a_value_of_a_task_are_no_labelled_ones(name, task):
    short = {"instances": 1, "train_steps": 20, "batch_size": 8, "reward": "gain"}
    mtl_gym.compare("ew", problem=partly(task, name, whole=32), **short)
    without = partly(task, name, whole=0)
    if task.loss == "mse" and name in ("train", "meta"):  # the loss is the mean over those that are known
        assert np.isfinite(mtl_gym.compare("ew", problem=without, **short)["value"]).all()
        return
    with pytest.raises(ValueError, match=rf"`splits\['{name}'\].targets` should contain a label of the task 'a' with all"):
        mtl_gym.compare("ew", problem=without, **short)


def test_a_batch_without_a_value_of_a_joint_loss_keeps_the_last_one():
    problem = partly(PAIRS[1], "train", whole=16)
    arguments = {"problem": problem, "batch_size": 12, "train_steps": 40, "steps_per_action": 1, "observe": ["log_loss"]}
    env = gymnasium.make_vec(LOSS_WEIGHTING, num_envs=8, vectorization_mode="vector_entry_point", **arguments)
    seen = [env.reset(seed=0)[0]["log_loss"]]
    seen += [env.step(np.zeros((8, 1), np.float32))[0]["log_loss"] for _ in range(39)]
    assert min(own.min() for own in seen) > -15  # a batch of unlabelled samples would have log(1e-12)


def shifted(outputs, targets):
    return (outputs - targets).square() - 1


@pytest.mark.parametrize("scale", [1e-4, 1])
@pytest.mark.parametrize("observe", [["log_loss"], ["meta_log_loss"]])
def test_a_negative_loss_is_refused_instead_of_clamped(monkeypatch, observe, scale):
    monkeypatch.setitem(LOSSES, "shifted", dataclasses.replace(LOSSES["mse"], function=shifted))
    problem = load_problem("quadratic")
    tasks = (dataclasses.replace(problem.tasks[0], loss="shifted"), *problem.tasks[1:])
    splits = {name: Split(own.inputs, own.targets * 1e-3) for name, own in problem.splits.items()}
    small = Problem("own", tasks, splits, network="point", defaults=problem.defaults)
    env = gymnasium.make("mtl_gym/LossWeighting-v0", problem=small, observe=observe, distribution={"scale": [scale] * 2})
    with pytest.raises(ValueError, match=rf"`loss` should be at least 0.*task '{tasks[0].name}'.*Add a constant"):
        play(env, [np.zeros(env.action_space.shape)] * 20)


def two_regressions(inputs=1.0, loss="mse", network="mlp"):
    tasks, rng = (Task("a", loss, ("rmse",)), Task("b", "mse", ("rmse",))), np.random.default_rng(0)
    splits = {name: Split(inputs * rng.normal(size=(64, 3)), rng.normal(size=(64, 2))) for name in SPLITS}
    return Problem("own", tasks, splits, network=network)


SMALL = {"instances": 1, "train_steps": 4, "batch_size": 16}
BAD_LOSSES = {
    "root": (
        lambda outputs, targets: (outputs - targets).sqrt(),
        "`problem` should have finite losses.*'root' of the task 'a' is nan",
    ),
    "scalar": (
        lambda outputs, targets: (outputs - targets).square().mean(),
        r"`LOSSES\['scalar'\]` should return a value for each",
    ),
    "joint": (lambda outputs, targets: (outputs - targets).square().sum(1), r"`LOSSES\['joint'\]` should return.*, 1\)"),
    "number": (lambda outputs, targets: 1.0, r"`LOSSES\['number'\]` should return.*Received .*=1.0"),
}


@pytest.mark.parametrize("name", BAD_LOSSES)
def test_a_loss_of_other_values_is_named(name, monkeypatch):
    function, message = BAD_LOSSES[name]
    monkeypatch.setitem(LOSSES, name, dataclasses.replace(LOSSES["mse"], function=function))
    problem = two_regressions(loss=name)
    with pytest.raises(ValueError, match=message):
        mtl_gym.compare("ew", problem=problem, **SMALL)
    with pytest.raises(ValueError, match=message):
        gymnasium.make("mtl_gym/LossWeighting-v0", problem=problem).reset(seed=0)


def test_losses_that_are_infinite_at_first_are_not_blamed_on_the_learning_rate():
    problem, message = (
        two_regressions(inputs=1e25),
        r"`problem` should have finite losses.*task '[ab]' is inf.*at most [2-5]\.\d+e\+25",
    )
    with pytest.raises(ValueError, match=message):
        mtl_gym.compare("ew", problem=problem, **SMALL)
    with pytest.raises(ValueError, match=message):
        gymnasium.make("mtl_gym/LossWeighting-v0", problem=problem).reset(seed=0)
    with pytest.raises(ValueError, match="`lr` should be smaller: single-task training diverged"):
        mtl_gym.compare("ew", problem=two_regressions(), optimizer="sgd", lr=1e30, **SMALL)


def test_outliers_in_test_alone_are_not_blamed_on_the_learning_rate():
    usual = two_regressions()
    test = usual.splits["test"]
    splits = {**usual.splits, "test": Split(3e38 * test.inputs.sign(), test.targets)}
    with pytest.raises(ValueError, match=r"`splits\['test'\].inputs` should have the size of train's.*outliers"):
        mtl_gym.compare("ew", problem=Problem("own", usual.tasks, splits), **SMALL)


@pytest.mark.parametrize(("network", "shape"), [("mlp", r"\(64, 2\)"), ("dense", r"\(64, 2, 4, 4\)"), ("conv", r"\(64, 2\)")])
def test_labels_of_another_shape_than_the_networks_outputs_are_refused(network, shape):
    inputs = {name: np.ones((64, *((3,) if network == "mlp" else (1, 4, 4)))) for name in SPLITS}
    targets = np.ones((64, 2) if network == "dense" else (64, 2, 1))
    tasks = (Task("a", "mse", ("rmse",)), Task("b", "mse", ("rmse",)))
    problem = Problem("own", tasks, {name: Split(own, targets) for name, own in inputs.items()}, network=network)
    with pytest.raises(ValueError, match=rf"`problem` should have labels of shape {shape} for the network '{network}'"):
        gymnasium.make("mtl_gym/LossWeighting-v0", problem=problem, hidden_sizes=[4, 4])


RANDOM = np.random.default_rng(0).normal(size=(40, 5))


def problem_of_columns(labels, tasks):
    return Problem("own", tasks, {name: Split.of(np.ones((40, 3)), labels) for name in SPLITS})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: problem_of_columns([RANDOM[:, 0], RANDOM[:, :4], RANDOM[:, :2]], [*TASKS, Task("c", "mse", ("rmse",))]),
            r"begins with \(40, 3\)\. Received .*\(40, 7\)\. 'b' has 4 columns instead of 1, 'c' has 2 columns instead of 1\. "
            r"Say so in the task: Task\('b', \.\.\., outputs=4\)\.$",
        ),
        (
            lambda: problem_of_columns([RANDOM[:, 0], RANDOM], [TASKS[0], Task("b", "cross_entropy", ("accuracy",), 5)]),
            r"'b' has 5 columns instead of 1\. Give the indices of classes, one for each sample\.$",
        ),
        (
            lambda: problem_of_columns([RANDOM[:, 0]], TASKS),
            r"There are labels of 1 tasks\. Columns by task, side by side: a 1, b 1; of",
        ),
        (
            lambda: Problem("own", TASKS, {name: Split(np.ones((40, 3)), RANDOM) for name in SPLITS}),
            r"\(40, 5\)\. Columns by task, side by side: a 1, b 1; of several columns, Task\(\.\.\., outputs=C\) says how many\.$",
        ),
        (
            lambda: Problem("own", TASKS, {name: Split.from_dataset([(np.ones(3), (1.0, RANDOM[0]))] * 9) for name in SPLITS}),
            r"'b' has 5 columns instead of 1",
        ),
        (
            lambda: Problem("own", TASKS, {name: Split(np.ones((40, 3)), RANDOM[:9, :2]) for name in SPLITS}),
            r"Received .*\(9, 2\)\.$",
        ),
    ],
)
def test_labels_of_more_columns_than_their_tasks_are_told_task_by_task(make, message):
    with pytest.raises(ValueError, match=rf"`splits\['train'\]\.targets` should have a shape that .*{message}"):
        make()


@pytest.mark.parametrize("outputs", [1, 3])
def test_outputs_of_a_model_that_do_not_fit_the_labels_are_named(outputs):
    own = two_regressions(network=lambda problem, hidden_sizes: mlp(Shaped(outputs), hidden_sizes))
    env = gymnasium.make("mtl_gym/LossWeighting-v0", problem=own)
    with pytest.raises(ValueError, match=rf"`network` should have outputs of shape \('N', 'B', 2\).*\(1, \d+, {outputs}\)"):
        env.reset(seed=0)


class Shaped:
    """What the network ``mlp`` asks of a problem, with another number of outputs."""

    input_shape = (3,)

    def __init__(self, outputs):
        self.outputs, self.splits = outputs, {"train": Split(np.ones((4, 3)), np.ones((4, outputs)))}


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (print, r"`network` should be a function that returns a mtl_gym.Model.*returned None"),
        (lambda problem, hidden_sizes: torch.nn.Linear(4, 2), r"`network` should be a function that returns.*Linear"),
        (lambda problem: None, r"`network` should take the problem and `hidden_sizes`.*too many positional"),
        (lambda: 1, r"`network` should take the problem and `hidden_sizes`"),
    ],
)
def test_a_network_that_is_no_model_is_refused_when_the_environment_is_made(network, message):
    with pytest.raises(TypeError, match=message):
        gymnasium.make("mtl_gym/LossWeighting-v0", problem=two_regressions(network=network))


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"lr": 0}, ValueError, r"`defaults\.lr` should be a finite number in \(0"),
        ({"lr": "1e-3"}, TypeError, r"`defaults\.lr` should be a number"),
        ({"batch_size": 0}, ValueError, r"`defaults\.batch_size` should be at least 1"),
        ({"train_steps": 10.5}, TypeError, r"`defaults\.train_steps` should be a whole number"),
        ({"hidden_sizes": 64}, TypeError, r"`defaults\.hidden_sizes` should be a list"),
        ({"hidden_sizes": [0]}, ValueError, r"`defaults\.hidden_sizes` should be at least 1"),
    ],
)
def test_defaults_that_no_training_has_are_refused(given, error, message):
    with pytest.raises(error, match=message):
        mtl_gym.Defaults(**given)


def test_defaults_are_those_of_every_training_of_the_problem():
    own = mtl_gym.Defaults(lr=0.02, batch_size=30, train_steps=7, hidden_sizes=[5, 4])
    assert own.hidden_sizes == (5, 4)
    splits = {name: Split(RANDOM[:, :2], RANDOM[:, 2:4]) for name in SPLITS}
    done = mtl_gym.fit(Problem("own", [Task(name, "mse", ("rmse",)) for name in "ab"], splits, defaults=own), "ew")
    assert (len(done.history), done.about["hidden_sizes"]) == (7 * 2, [5, 4])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("defaults", 3, "`defaults` should be a Defaults. Received defaults='int'"),
        ("tasks", ("a", "b"), "`tasks` should be a Task. Received tasks='str'"),
        ("tasks", "ab", "`tasks` should be a list"),
        ("tasks", 3, "`tasks` should be a list"),
        ("version", object(), "`version` should be a whole number"),
        ("version", "1", "`version` should be a whole number"),
        ("splits", [1], "`splits` should be a mapping from names to splits"),
    ],
)
def test_arguments_of_another_type_are_refused(name, value, message):
    given = {"tasks": TASKS, "splits": {own: split() for own in SPLITS}} | {name: value}
    with pytest.raises(TypeError, match=message):
        Problem("own", given.pop("tasks"), given.pop("splits"), **given)


def test_samples_without_numbers_are_refused():
    splits = {name: Split(np.ones((8, 0)), np.ones((8, 2))) for name in SPLITS}
    with pytest.raises(ValueError, match=r"`splits\['train'\].inputs` should have at least one number for each sample.*\(8, 0\)"):
        Problem("own", TASKS, splits)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_inputs_that_are_not_finite_are_refused(value):
    inputs = torch.zeros(8, 3)
    inputs[5, 1] = value
    splits = {name: split() for name in SPLITS[:3]} | {"test": Split(inputs, torch.zeros(8, 2))}
    with pytest.raises(ValueError, match=r"`splits\['test'\].inputs` should be finite; samples that are not.*\[5\]"):
        Problem("own", TASKS, splits)


def test_splits_of_different_input_shapes_are_refused():
    splits = {name: split() for name in SPLITS[:3]} | {"test": Split(torch.zeros(8, 4), torch.zeros(8, 2))}
    with pytest.raises(ValueError, match="inputs"):
        Problem("own", TASKS, splits)


def test_an_unknown_network_is_refused():
    with pytest.raises(ValueError, match=r"`network` should be one of.*Did you mean 'mlp'"):
        make(Problem("own", TASKS, {name: split(32) for name in SPLITS}, network="mpl"))


@pytest.mark.parametrize(
    ("loss", "metrics", "message"),
    [("msee", ("rmse",), "`loss` should.*Did you mean 'mse'"), ("mse", ("rms",), "`metrics` should.*Did you mean 'rmse'")],
)
def test_an_unknown_loss_or_metric_of_a_task_is_refused(loss, metrics, message):
    with pytest.raises(ValueError, match=message):
        Task("a", loss, metrics)


def test_a_split_is_made_of_arrays():
    own = Split.of(np.arange(6).reshape(3, 2), [np.array([0, 1, np.nan]), np.ones((3, 2))])
    assert own.inputs.dtype == torch.int64  # until a problem with a native network converts it
    assert own.targets.dtype == torch.float32
    assert own.targets.shape == (3, 3)
    assert torch.isnan(own.targets[2, 0])


@settings(max_examples=30, deadline=None)
@given(count=st.integers(4, 200), seed=st.integers(0, 10), part=st.integers(1, 4))
def test_divided_rows_are_disjoint_and_complete(count, seed, part):
    parts = divide(count, {"a": part, "b": -1}, seed=seed)
    assert sorted([*parts["a"], *parts["b"]]) == list(range(count))
    assert len(parts["a"]) == part


# --- quadratic --------------------------------------------------------------------------------------------------------

WEIGHTS = st.lists(st.floats(0.05, 20), min_size=3, max_size=3)


@settings(max_examples=30, deadline=None)
@given(weights=WEIGHTS)
def test_the_optimum_is_a_stationary_point(weights):
    point = torch.tensor(optimum(weights), requires_grad=True)
    problem = load_problem("quadratic")
    scales = problem.splits["train"].inputs[0].double().unflatten(0, (3, 4))
    values = ((scales * point - scales * torch.from_numpy(CENTRES)) ** 2).mean(1)
    np.testing.assert_allclose(values.detach(), objectives(optimum(weights)), rtol=1e-5)
    (gradient,) = torch.autograd.grad((values * torch.tensor(weights)).sum(), point)
    assert gradient.norm() < 1e-5 * sum(weights)


@settings(max_examples=30, deadline=None)
@given(weights=WEIGHTS, seed=st.integers(0, 1000))
def test_no_point_dominates_an_optimum(weights, seed):
    best = optimum(weights)
    rng = np.random.default_rng(seed)
    others = best + rng.normal(size=(500, 4)) * 10.0 ** rng.uniform(-4, 1, size=(500, 1))
    values = objectives(others)
    assert not (values < objectives(best) - 1e-12).all(1).any()


@pytest.mark.parametrize("task", range(3))
def test_the_optimum_of_one_objective_is_its_centre(task):
    np.testing.assert_allclose(optimum(np.eye(3)[task]), CENTRES[task])
    assert objectives(CENTRES[task])[task] == 0


# --- many tasks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["clusters", "clusters_equal"])
def test_the_names_of_tasks_tell_their_clusters(name):
    clusters = planted_clusters([task.name for task in load_problem(name).tasks])
    assert np.bincount(clusters).tolist() == [34, 33, 33]


@pytest.mark.parametrize("name", ["clusters", "clusters_equal"])
def test_planted_tasks_are_balanced_and_agree_more_within_their_cluster(name):
    problem = load_problem(name)
    labels = torch.cat([problem.splits[split].targets for split in SPLITS]).numpy()
    np.testing.assert_allclose(labels.mean(0), 0.5, atol=1e-3)
    agreement = np.corrcoef(labels.T)
    clusters = np.array(planted_clusters([task.name for task in problem.tasks]))
    same = (clusters[:, None] == clusters) & ~np.eye(len(clusters), dtype=bool)
    assert agreement[same].mean() > 0.1
    assert abs(agreement[clusters[:, None] != clusters].mean()) < 0.01


def test_a_planted_task_depends_on_the_inputs_of_its_cluster_alone():
    from mtl_gym.problems import clusters

    count = sum(clusters._SIZES.values())
    tasks, splits, _ = clusters.load()
    inputs = torch.cat([splits[name].inputs for name in SPLITS]).double().numpy()
    for number in (0, 1, 2):
        own = slice(6 * number, 6 * number + 6)
        labels = torch.cat([splits[name].targets for name in SPLITS])[:, number].numpy()
        shares = [abs(np.corrcoef(inputs[:, column], labels)[0, 1]) for column in range(18)]
        assert max(np.delete(shares, np.arange(18)[own])) < 5 / count**0.5
    assert tasks[1].name == "c1_t00"


def test_complements_of_digit_tasks_are_complements_and_chance_is_chance():
    problem = load_problem("digit_tasks")
    labels = dict(zip([task.name for task in problem.tasks], problem.splits["train"].targets.T, strict=True))
    for task, other in (("odd", "even"), ("loop", "not_loop")):
        assert torch.equal(labels[task], 1 - labels[other])
    assert torch.stack([labels[f"is_{number}"] for number in range(10)]).sum(0).eq(1).all()
    others = torch.stack([own for name, own in labels.items() if name != "random"])
    assert max(abs(np.corrcoef(labels["random"], own)[0, 1]) for own in others.numpy()) < 0.2

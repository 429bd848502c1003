import math
from types import SimpleNamespace

import numpy as np
import pytest
import sklearn.metrics
import torch
from hypothesis import given, settings, strategies as st
from rollouts import make_trainer, own_parameters, train
from torch.nn import functional

from mtl_gym.problems.base import SPLITS, Problem, Split, Task
from mtl_gym.problems.losses import LOSSES
from mtl_gym.problems.metrics import METRICS, impossible
from mtl_gym.problems.scores import delta_m, log_qualities
from mtl_gym.training.objectives import Objectives

OUTPUTS = {"cross_entropy": 4, "bce": 2, "mse": 3, "l1": 3, "cosine": 3}
BY_HAND = {
    "cross_entropy": lambda outputs, targets: functional.cross_entropy(outputs, targets[:, 0].long()),
    "bce": functional.binary_cross_entropy_with_logits,
    "mse": functional.mse_loss,
    "l1": functional.l1_loss,
    "cosine": lambda outputs, targets: (1 - functional.cosine_similarity(outputs, targets, dim=1)).mean(),
}
EACH_LOSS = pytest.mark.parametrize("loss", LOSSES)
SHAPES = pytest.mark.parametrize("shape", [(), (2, 3)], ids=["flat", "dense"])


def labels(loss, count, shape, rng):
    """Random labels (count, T, *S)."""
    channels = LOSSES[loss].target_channels(OUTPUTS[loss])
    if loss == "cross_entropy":
        return torch.tensor(rng.integers(0, OUTPUTS[loss], (count, channels, *shape)), dtype=torch.float32)
    if loss == "bce":
        return torch.tensor(rng.integers(0, 2, (count, channels, *shape)), dtype=torch.float32)
    return torch.tensor(rng.normal(size=(count, channels, *shape)), dtype=torch.float32)


def objectives(losses, targets):
    """Objectives of a problem with these losses, masked where targets are missing."""
    suited = {loss: "rmse" if LOSSES[loss].labels == "real" else "accuracy" for loss in losses}
    tasks = [Task(f"{index}", loss, (suited[loss],), OUTPUTS[loss]) for index, loss in enumerate(losses)]
    full = torch.nan_to_num(targets)
    splits = {name: Split(torch.zeros(len(targets), 1), targets if name == "train" else full) for name in SPLITS}
    missing = bool(targets.isnan().any())
    made = Objectives(Problem("own", tasks, splits), [task.name for task in tasks], torch.device("cpu"), missing=missing)
    return lambda outputs, targets: (made.samples(outputs, targets), made.parts(outputs, targets, [outputs.shape[1]])[0])


def drawn(losses, count=6, shape=(), replicas=2, seed=0):
    """Outputs (N, B, O, *S) and targets (N, B, T, *S)."""
    rng = np.random.default_rng(seed)
    width = sum(OUTPUTS[loss] for loss in losses)
    outputs = torch.tensor(rng.normal(size=(replicas, count, width, *shape)), dtype=torch.float32)
    targets = [torch.cat([labels(loss, count, shape, rng) for loss in losses], dim=1) for _ in range(replicas)]
    return outputs, torch.stack(targets)


def parts(losses, outputs, targets):
    """The outputs and targets of each task."""
    widths = [OUTPUTS[loss] for loss in losses]
    columns = [LOSSES[loss].target_channels(OUTPUTS[loss]) for loss in losses]
    return zip(losses, outputs.split(widths, dim=2), targets.split(columns, dim=2), strict=True)


# --- losses -----------------------------------------------------------------------------------------------------------


@SHAPES
@EACH_LOSS
def test_a_loss_equals_torchs(loss, shape):
    outputs, targets = drawn([loss], shape=shape)
    own, batch = objectives([loss], targets[0])(outputs, targets)
    for row in range(2):
        torch.testing.assert_close(batch[row, 0], BY_HAND[loss](outputs[row], targets[row]))
        for sample in range(6):
            expected = BY_HAND[loss](outputs[row, [sample]], targets[row, [sample]])
            torch.testing.assert_close(own[row, sample, 0], expected)


@SHAPES
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("order", [list(LOSSES), ["bce", "bce", "mse", "bce", "cross_entropy", "cross_entropy", "l1", "l1"]])
def test_tasks_side_by_side_equal_tasks_by_themselves(order, masked, shape):
    outputs, targets = drawn(order, shape=shape)
    if masked:
        targets[0, 0] = torch.nan
    _, batch = objectives(order, targets[0])(outputs, targets)
    first = 1 if masked else 0
    for task, (loss, out, target) in enumerate(parts(order, outputs, targets)):
        torch.testing.assert_close(batch[0, task], BY_HAND[loss](out[0, first:], target[0, first:]))
        torch.testing.assert_close(batch[1, task], BY_HAND[loss](out[1], target[1]))


@SHAPES
@EACH_LOSS
def test_samples_without_a_label_are_left_out(loss, shape):
    outputs, targets = drawn([loss], shape=shape)
    targets[:, [1, 4]] = torch.nan
    outputs.requires_grad_()
    own, batch = objectives([loss], targets[0])(outputs, targets)
    kept = [0, 2, 3, 5]
    for row in range(2):
        torch.testing.assert_close(batch[row, 0], BY_HAND[loss](outputs[row, kept], targets[row, kept]))
    assert (own[:, [1, 4]] == 0).all()
    (gradient,) = torch.autograd.grad(batch.sum(), outputs)
    assert torch.isfinite(gradient).all()
    assert (gradient[:, [1, 4]] == 0).all()
    assert (gradient[:, kept] != 0).any()


@EACH_LOSS
def test_pixels_without_a_label_are_left_out(loss):
    outputs, targets = drawn([loss], count=1, shape=(2, 3))
    targets[..., 0] = torch.nan
    _, batch = objectives([loss], targets[0])(outputs, targets)
    torch.testing.assert_close(batch[0, 0], BY_HAND[loss](outputs[0, ..., 1:], targets[0, ..., 1:]))


@SHAPES
@EACH_LOSS
def test_a_batch_without_any_label_has_loss_and_gradient_zero(loss, shape):
    outputs, targets = drawn([loss], shape=shape)
    targets[:] = torch.nan
    outputs.requires_grad_()
    _, batch = objectives([loss], targets[0])(outputs, targets)
    assert (batch == 0).all()
    assert (torch.autograd.grad(batch.sum(), outputs)[0] == 0).all()


@EACH_LOSS
def test_the_mask_changes_nothing_where_no_label_is_missing(loss):
    outputs, targets = drawn([loss])
    marked = targets[0].clone()
    marked[0] = torch.nan
    plain, masked = (objectives([loss], train_targets)(outputs, targets) for train_targets in (targets[0], marked))
    torch.testing.assert_close(plain, masked)


def test_a_trainer_trains_on_missing_labels_as_on_the_rest():
    rng = np.random.default_rng(0)
    inputs, targets = torch.tensor(rng.normal(size=(16, 3)), dtype=torch.float32), torch.ones(16, 2)
    targets[4:, 1] = torch.nan
    problem = Problem(
        "own", [Task("a", "mse", ("rmse",)), Task("b", "mse", ("rmse",))], {name: Split(inputs, targets) for name in SPLITS}
    )
    trainer = make_trainer(problem, ids=[0], hidden_sizes=[4])
    weight, bias, head, head_bias = own_parameters(trainer).values()
    outputs = torch.relu(inputs @ weight + bias) @ head + head_bias
    expected = torch.stack([(outputs[:, 0] - 1).square().mean(), (outputs[:4, 1] - 1).square().mean()])
    torch.testing.assert_close(trainer.losses.forward()[0], expected)
    train(trainer, 8)
    assert torch.isfinite(trainer.replicas.flat).all()


# --- metrics ----------------------------------------------------------------------------------------------------------

LOGITS = st.lists(st.sampled_from([-2.0, -1.0, -0.5, 0.5, 1.0, 2.0]), min_size=12, max_size=12)
BITS = st.lists(st.sampled_from([0.0, 1.0]), min_size=12, max_size=12)


@settings(max_examples=40, deadline=None)
@given(logits=LOGITS, others=LOGITS, bits=BITS)
def test_auc_equals_that_of_scikit_learn_with_ties(logits, others, bits):
    values = METRICS["auc"].function(torch.tensor([[logits], [others]]), torch.tensor([bits]))
    if len(set(bits)) == 1:
        assert values.tolist() == [0.5, 0.5]
        return
    expected = [sklearn.metrics.roc_auc_score(bits, scores) for scores in (logits, others)]
    np.testing.assert_allclose(values, expected, rtol=1e-12)


@settings(max_examples=20, deadline=None)
@given(logits=LOGITS, bits=BITS)
def test_accuracy_of_a_logit_equals_that_of_scikit_learn(logits, bits):
    value = METRICS["accuracy"].function(torch.tensor([[logits]]), torch.tensor([bits]))
    assert value.item() == pytest.approx(sklearn.metrics.accuracy_score(bits, np.array(logits) > 0))


def test_accuracy_of_classes_equals_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    outputs, classes = rng.normal(size=(3, 4, 50)), rng.integers(0, 4, 50)
    values = METRICS["accuracy"].function(torch.tensor(outputs), torch.tensor(classes[None], dtype=torch.float32))
    np.testing.assert_allclose(values, [sklearn.metrics.accuracy_score(classes, row.argmax(0)) for row in outputs])


def test_accuracy_of_several_labels_is_that_of_each_on_average():
    outputs = torch.tensor([[[1.0, -1.0, 2.0], [-1.0, -1.0, 3.0]]])
    targets = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]])
    assert METRICS["accuracy"].function(outputs, targets).item() == pytest.approx(4 / 6)


def test_errors_equal_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    outputs, targets = rng.normal(size=(3, 2, 50)), rng.normal(size=(2, 50)) * 3 + 1
    expected = np.array([math.sqrt(sklearn.metrics.mean_squared_error(targets, row)) for row in outputs])
    arguments = torch.tensor(outputs), torch.tensor(targets)
    np.testing.assert_allclose(METRICS["rmse"].function(*arguments), expected, rtol=1e-6)
    np.testing.assert_allclose(METRICS["nrmse"].function(*arguments), expected / math.sqrt(targets.var(1).mean()), rtol=1e-6)


def test_nrmse_of_the_mean_is_one():
    targets = torch.tensor([[1.0, 2.0, 3.0, 6.0]])
    assert METRICS["nrmse"].function(torch.full((1, 1, 4), 3.0), targets).item() == pytest.approx(1)


def test_angles_are_in_degrees():
    targets = torch.tensor([[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    outputs = torch.tensor([[[0.0, 2.0], [3.0, 0.0], [0.0, 0.0]]])
    assert METRICS["angle"].function(outputs, targets).item() == pytest.approx(45)


@pytest.mark.parametrize("name", METRICS)
def test_the_best_outputs_get_the_best_value(name):
    targets = torch.tensor([[0.0, 1.0, 1.0, 0.0]])
    good, bad = (2 * targets - 1)[None], (1 - 2 * targets)[None]
    if not METRICS[name].higher_is_better:
        good, bad = targets[None] + 1e-9, -targets[None] - 1
    best, worst = METRICS[name].function(torch.cat([good, bad]), targets).tolist()
    assert (best > worst) == METRICS[name].higher_is_better
    assert METRICS[name].floor > 0
    assert not impossible({f"a/{name}": best, f"b/{name}": worst})


@pytest.mark.parametrize(
    ("name", "value"),
    [*((name, -1e-9) for name in METRICS), ("accuracy", 1.01), ("auc", 1.01), ("angle", 180.1), ("rmse", 1e39), ("nrmse", 1e39)],
)
def test_a_value_out_of_range_is_impossible(name, value):
    assert impossible({f"a/{name}": value, f"b/{name}": 0.0, f"c/{name}": float("nan")}) == {f"a/{name}": value}


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_is_finite_or_nan_without_a_warning_where_nothing_is_labelled(name):
    assert METRICS[name].function(torch.zeros(2, 1, 0), torch.zeros(1, 0)).shape == (2,)


@pytest.mark.parametrize("name", METRICS)
def test_a_diverged_replica_does_not_change_the_others_metric(name):
    rng = np.random.default_rng(0)
    outputs, targets = torch.tensor(rng.normal(size=(2, 1, 9))), torch.tensor([[0.0, 1.0, 1.0] * 3])
    poisoned = torch.cat([outputs, torch.full((1, 1, 9), torch.nan, dtype=torch.float64)])
    assert METRICS[name].function(outputs, targets).tolist() == METRICS[name].function(poisoned, targets)[:2].tolist()


# --- delta_m ----------------------------------------------------------------------------------------------------------


def tensors(**values):
    return {name.replace("_", "/"): torch.tensor(value, dtype=torch.float64) for name, value in values.items()}


def test_delta_m_is_zero_at_the_references():
    values = tensors(a_accuracy=0.8, b_nrmse=0.5)
    assert delta_m(values, values).item() == 0


def test_delta_m_is_the_mean_relative_gain_in_percent():
    values, references = tensors(a_accuracy=0.88, b_nrmse=0.4), tensors(a_accuracy=0.8, b_nrmse=0.5)
    assert delta_m(values, references).item() == pytest.approx((10 + 20) / 2)


def test_delta_m_falls_where_an_error_rises():
    assert delta_m(tensors(a_rmse=0.6), tensors(a_rmse=0.5)).item() == pytest.approx(-20)
    assert delta_m(tensors(a_auc=0.6), tensors(a_auc=0.5)).item() == pytest.approx(20)


def test_delta_m_averages_a_tasks_metrics_first():
    values = tensors(a_accuracy=0.88, a_auc=0.8, b_nrmse=0.5)
    references = tensors(a_accuracy=0.8, a_auc=0.8, b_nrmse=0.5)
    assert delta_m(values, references).item() == pytest.approx((10 + 0) / 2 / 2)


@pytest.mark.parametrize("name", METRICS)
def test_delta_m_never_divides_by_less_than_the_floor(name):
    floor = METRICS[name].floor
    values = {f"a/{name}": torch.tensor(floor, dtype=torch.float64)}
    gain = delta_m(values, {f"a/{name}": torch.tensor(0.0, dtype=torch.float64)}).item()
    assert gain == pytest.approx(100 if METRICS[name].higher_is_better else -100)


def test_delta_m_is_at_least_minus_100():
    assert delta_m({"a/rmse": 1e9}, {"a/rmse": 1.0}) == -100
    assert delta_m({"a/rmse": float("nan")}, {"a/rmse": 1.0}) == -100


# --- qualities --------------------------------------------------------------------------------------------------------


def quality_of(**values):
    tasks = {name.rpartition("_")[0]: [] for name in values}
    for name in values:
        tasks[name.rpartition("_")[0]].append(name.rpartition("_")[2])
    problem = SimpleNamespace(tasks=[SimpleNamespace(name=name, metrics=metrics) for name, metrics in tasks.items()])
    return log_qualities(problem, {name: value[None] for name, value in tensors(**values).items()})[0].tolist()


def test_a_quality_is_the_log_of_a_metric_of_which_more_is_better():
    assert quality_of(a_accuracy=0.8, b_nrmse=0.5, c_rmse=2.0) == pytest.approx([math.log(0.8), -math.log(0.5), -math.log(2)])
    assert quality_of(a_accuracy=0.8, a_auc=0.5) == pytest.approx([(math.log(0.8) + math.log(0.5)) / 2])
    assert quality_of(a_rmse=0.0, b_accuracy=0.0) == pytest.approx([-math.log(0.01), math.log(0.1)])  # the floors


@given(st.floats(0.3, 0.9), st.floats(-0.01, 0.01))
def test_small_differences_of_quality_are_relative_gains(value, change):
    for metric in ("accuracy", "nrmse"):
        before, after = {f"a_{metric}": value}, {f"a_{metric}": value * (1 + change)}
        gained = quality_of(**after)[0] - quality_of(**before)[0]
        assert 100 * gained == pytest.approx(delta_m(tensors(**after), tensors(**before)).item(), abs=0.01)

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from own_modules import DEFAULTS, Perceptron
from rollouts import LOSS_WEIGHTING, SAMPLE_WEIGHTING, make_trainer, make_vec, play, train
from torch import nn
from torch.nn import functional

import mtl_gym
from mtl_gym.problems import load_problem
from mtl_gym.problems.base import SPLITS, Problem, Split, Task
from mtl_gym.problems.losses import LOSSES
from mtl_gym.problems.metrics import METRICS


def huber(outputs, targets):
    return functional.smooth_l1_loss(outputs, targets, reduction="none").mean(1)


def squares(outputs, targets):
    return (outputs - targets).square().mean(1)


def one_channel(outputs):
    return 1


def weighted_entropy(outputs, targets):
    return 2 * functional.cross_entropy(outputs, targets[:, 0].long(), reduction="none")[:, None]


def worst_error(outputs, targets):
    return (outputs - targets).abs().flatten(1).amax(1)


def blurred(outputs, targets):
    return worst_error(outputs, targets) * 2


WORST = mtl_gym.Metric(worst_error, higher_is_better=False, floor=0.1)
ENTROPY = mtl_gym.Loss(weighted_entropy, joint=True, target_channels=one_channel, labels="classes")


def digits_with(replaced, **others):
    """The digits with other losses and metrics of some tasks."""
    digits = load_problem("digits")
    tasks = [replace(task, **replaced.get(task.name, {})) for task in digits.tasks]
    return Problem("own", tasks, digits.splits, version=digits.version, **others)


OWN = {"angle": {"loss": squares, "metrics": ("nrmse", WORST)}, "clean": {"loss": squares}, "digit": {"loss": ENTROPY}}


@pytest.mark.parametrize("by_samples", [False, True])
def test_own_functions_are_trained_as_the_named_ones(by_samples):
    options = {"by_samples": by_samples}
    own, named = (make_trainer(digits_with(replaced), options=options) for replaced in (OWN, {}))
    train(own, 4, [0.5, 1, 1, 1, 1])
    train(named, 4)
    factors = torch.tensor([2.0, 1, 1, 1, 1])
    torch.testing.assert_close(own.losses.history, named.losses.history * factors, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(own.metrics("reward")["angle/nrmse"], named.metrics("reward")["angle/nrmse"], rtol=1e-4, atol=1e-5)


def test_own_metrics_are_measured_by_their_names():
    trainer = train(make_trainer(digits_with(OWN)), 2)
    outputs, angle = trainer.outputs("reward"), trainer.problem.output_slices[3]
    targets = trainer.problem.splits["reward"].targets[:, trainer.problem.target_slices[3]]
    found = trainer.metrics("reward")
    torch.testing.assert_close(found["angle/worst_error"], (outputs[:, :, angle] - targets).abs().flatten(1).amax(1))
    assert not METRICS["worst_error"].higher_is_better


def test_missing_labels_do_not_count():
    rng = np.random.default_rng(0)
    inputs, values = rng.normal(size=(64, 3)), rng.normal(size=(64, 2))
    values[::3, 0] = np.nan  # then the sample has no value, as its loss compares both channels
    split = Split.of(inputs, [values, inputs[:, :1]])
    tasks = [Task("both", huber, ("rmse",), outputs=2), Task("one", huber, ("rmse",))]
    problem = Problem("sparse", tasks, dict.fromkeys(SPLITS, split), defaults=DEFAULTS)
    trainer = make_trainer(problem)
    outputs, batch = trainer.replicas.outputs(trainer.losses.batch().inputs).detach(), trainer.losses.batch()
    known = ~torch.isnan(batch.labels[1, :, 0])
    assert 0 < known.sum() < len(known)
    expected = huber(outputs[1, known][:, :2], batch.labels[1, known][:, :2]).mean()
    torch.testing.assert_close(trainer.losses.forward()[1, 0].detach(), expected)
    assert torch.isfinite(train(trainer, 3).losses.history).all()


@pytest.mark.parametrize("env_id", [LOSS_WEIGHTING, SAMPLE_WEIGHTING])
def test_episodes_are_played_with_own_functions_and_modules(env_id):
    problem = digits_with(OWN, model=Perceptron, defaults=DEFAULTS)
    env = make_vec(problem, 2, env_id)
    answers = play(env, [np.zeros(env.action_space.shape, np.float32)] * 2)
    assert answers[-1][2].all()
    assert np.isfinite(answers[-1][1]).all()


def test_functions_are_part_of_the_identity():
    same = [digits_with(OWN), digits_with(OWN), pickle.loads(pickle.dumps(digits_with(OWN)))]
    assert len({str(own.identity) for own in same}) == 1
    others = [
        {},
        {"angle": {"loss": huber}},
        {"angle": {"loss": squares}},
        {"angle": {"loss": lambda outputs, targets: 3 * squares(outputs, targets)}},
        {"angle": {"metrics": (WORST,)}},
        {"angle": {"metrics": (mtl_gym.Metric(blurred, higher_is_better=False, floor=0.1),)}},
    ]
    assert len({str(digits_with(own).identity) for own in others}) == len(others)


def test_named_tasks_keep_their_identity():
    task = load_problem("digits").tasks[0]
    assert task.identity == repr(task)
    assert task.objective is LOSSES[task.loss]


def test_a_task_is_pickled_with_its_functions():
    task = Task("a", squares, (WORST, "rmse"))
    METRICS.pop("worst_error")
    other = pickle.loads(pickle.dumps(Task("a", squares, (WORST, "rmse"))))
    assert other == task
    assert METRICS["worst_error"] == WORST


@pytest.mark.parametrize("name", ["rmse", "a/b", "", "<lambda>"])
def test_names_of_metrics_are_their_own(name):
    metric = mtl_gym.Metric(lambda outputs, targets: outputs.mean((1, 2)), higher_is_better=True, floor=0.1, name=name)
    with pytest.raises(ValueError, match=r"`metrics` should have names of their own.*Give `Metric` a `name`"):
        Task("a", "mse", (metric,))


def test_a_metric_of_the_same_name_has_the_same_direction():
    Task("a", "mse", (WORST,))
    Task("a", "mse", (replace(WORST, function=blurred, name="worst_error"),))
    with pytest.raises(ValueError, match="`metrics` should have names of their own"):
        Task("a", "mse", (replace(WORST, higher_is_better=True),))
    Task("a", "mse", (WORST,))


@pytest.mark.slow
def test_results_are_read_without_the_functions_of_their_metrics(tmp_path):
    problem = digits_with(OWN, defaults=DEFAULTS)
    frame = mtl_gym.compare("ew", problem=problem, instances=1, hidden_sizes=[8], train_steps=8, out=tmp_path)
    METRICS.pop("worst_error")
    page = mtl_gym.report(tmp_path)
    assert "worst_error" in page.read_text()
    assert METRICS["worst_error"] == replace(WORST, function=METRICS["worst_error"].function, name="worst_error")
    with pytest.raises(ValueError, match="`metrics` should be measured where their functions are known"):
        METRICS["worst_error"].function(torch.zeros(1, 1, 3), torch.zeros(1, 3))
    assert mtl_gym.compare("ew", problem=problem, instances=1, hidden_sizes=[8], train_steps=8, out=tmp_path)["delta_m"].equals(
        frame["delta_m"]
    )
    Task("a", "mse", (WORST,))


def test_a_function_alone_is_no_metric():
    with pytest.raises(TypeError, match=r"`metrics` should say whether higher is better.*mtl_gym\.Metric\(function"):
        Task("a", "mse", (worst_error,))


@pytest.mark.parametrize(
    ("loss", "remedy"),
    [
        (
            nn.MSELoss(),
            r"loss=\(\)\. Do not average over samples: .*reduction=\"none\"\. Take the mean over channels: .*\.mean\(1\)\.$",
        ),
        (lambda outputs, targets: 1.0, r"loss='float'\.$"),
        (lambda outputs, targets: outputs[:3, 0], r"loss=\(3,\)\.$"),
        (lambda outputs, targets: outputs.repeat(1, 2), r"loss=\(5, 2\)\.$"),
    ],
)
def test_a_loss_of_another_shape_is_refused(loss, remedy):
    with pytest.raises(
        ValueError, match=rf"`loss` should return values of the shape \(5,\), one for each sample\. Received {remedy}"
    ):
        digits_with({"angle": {"loss": loss}})


def test_what_a_loss_s_error_says_to_do_is_accepted():
    with pytest.raises(ValueError, match=r"Received loss=\(5, 64\)\. Take the mean over channels: lambda outputs, targets: "):
        digits_with({"clean": {"loss": nn.MSELoss(reduction="none")}})
    loss = nn.MSELoss(reduction="none")
    assert digits_with({"clean": {"loss": lambda outputs, targets: loss(outputs, targets).mean(1)}}).num_tasks == 5
    assert digits_with({"angle": {"loss": loss}}).num_tasks == 5  # of a single channel
    mean = replace(ENTROPY, function=lambda outputs, targets: weighted_entropy(outputs, targets).mean())
    with pytest.raises(
        ValueError, match=r"\(5, 1\) for the task 'digit'\. Received loss=\(\)\. Do not average.*reduction=\"none\""
    ):
        digits_with({"digit": {"loss": mean}})


def test_losses_and_metrics_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"`loss` should return values of the shape \(5, 1\) for the task 'digit'"):
        digits_with(
            {"digit": {"loss": replace(ENTROPY, function=lambda outputs, targets: weighted_entropy(outputs, targets)[:, 0])}}
        )
    metric = mtl_gym.Metric(lambda outputs, targets: outputs.mean(), higher_is_better=True, floor=0.1, name="mean_output")
    with pytest.raises(ValueError, match=r"`metrics` should return a value for each replica, \(N,\), as 'mean_output' should"):
        digits_with({"angle": {"metrics": (metric,)}})


def test_what_is_no_loss_is_refused():
    with pytest.raises(ValueError, match="`loss` should be one of cross_entropy"):
        Task("a", 3, ("rmse",))

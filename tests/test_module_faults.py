"""Modules that write into inputs, have ties, sparse gradients or state of their own; tasks with names that torch takes itself."""

import concurrent.futures

import numpy as np
import pytest
import torch
from torch import nn

import mtl_gym
from mtl_gym.models import make_model


class Two(nn.Module):
    """A trunk and a layer that both tasks read."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Linear(4, 4)
        self.last = nn.Linear(4, 2)

    def forward(self, inputs):
        return self.last(torch.tanh(self.trunk(inputs)))


class Tied(Two):
    """The same weight twice."""

    def __init__(self):
        super().__init__()
        self.second = nn.Linear(4, 4)
        self.second.weight = self.trunk.weight

    def forward(self, inputs):
        return self.last(self.second(torch.tanh(self.trunk(inputs))))


class Counting(Two):
    """State that is no tensor."""

    def get_extra_state(self):
        return {"version": 2}

    def set_extra_state(self, state):
        pass


class Sparse(nn.Module):
    """An embedding with sparse gradients."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Embedding(20, 8, sparse=True)
        self.last = nn.Linear(8, 2)

    def forward(self, inputs):
        return self.last(self.trunk(inputs.abs().long()).mean(1))


class Writing(Two):
    """Changes its inputs."""

    def forward(self, inputs):
        return super().forward(inputs.sub_(0.5) * 2)


class Broken(torch.autograd.Function):
    """Cannot be differentiated."""

    @staticmethod
    def forward(ctx, inputs):
        return inputs * 2

    @staticmethod
    def backward(ctx, gradient):
        raise RuntimeError("no rule for this")


class Undifferentiable(Two):
    """Uses such a function."""

    def forward(self, inputs):
        return Broken.apply(super().forward(inputs))


class Drawing(Two):
    """Draws from numpy's generator."""

    def forward(self, inputs):
        return super().forward(inputs + float(np.random.normal()))  # noqa: NPY002


def problem_of(model, names=("sign", "square")):
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(240, 4))
    rows = dict(zip(["train", "meta", "reward", "test"], np.split(np.arange(240), [120, 160, 200]), strict=True))
    splits = {name: mtl_gym.Split.of(inputs[own], [inputs[own, 0] > 0, inputs[own, 1] ** 2]) for name, own in rows.items()}
    tasks = [mtl_gym.Task(names[0], "bce", ("auc",)), mtl_gym.Task(names[1], "mse", ("rmse",))]
    return mtl_gym.Problem("pair", tasks, splits, model=model)


def test_a_network_with_tied_weights_is_saved_and_loaded(tmp_path):
    problem = problem_of(Tied)
    done = mtl_gym.fit(problem, "ew", train_steps=20, batch_size=16)
    module = mtl_gym.load_module(done.save(tmp_path / "tied"), problem)
    assert module.second.weight is module.trunk.weight
    inputs = problem.splits["test"].inputs
    assert torch.equal(module(inputs), done.module(inputs))


def test_state_that_is_no_tensor_cannot_be_saved_and_nothing_is_written(tmp_path):
    done = mtl_gym.fit(problem_of(Counting), "ew", train_steps=20, batch_size=16)
    with pytest.raises(ValueError, match=r"state_dict of tensors.*_extra_state.*torch\.save"):
        done.save(tmp_path / "counting")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (Sparse, r"dense gradients.*trunk\.weight.*sparse=False"),
        (Writing, "writes into its inputs.*clone them"),
        (Undifferentiable, "can be differentiated.*no rule for this"),
        (Drawing, r"torch's random numbers.*draw numbers by torch"),
    ],
)
def test_modules_that_cannot_be_trained_are_refused_with_the_way_out(model, words):
    problem = problem_of(model)
    before = {name: own.inputs.clone() for name, own in problem.splits.items()}
    with pytest.raises(ValueError, match=words):
        make_model(problem, ())
    assert all(torch.equal(own.inputs, before[name]) for name, own in problem.splits.items())


@pytest.mark.parametrize("names", [("a.b", "a_b"), ("type", "%type"), ("keys", "a%2E"), ("forward", "training")])
def test_tasks_of_any_name_have_heads_of_their_own(names, tmp_path):
    inputs = np.random.default_rng(0).normal(size=(200, 4))
    problem = mtl_gym.Problem.from_arrays(inputs, {name: inputs[:, place] for place, name in enumerate(names)}, batch_size=32)
    done = mtl_gym.fit(problem, "ew", train_steps=60)
    test = problem.splits["test"]
    outputs = done.module(test.inputs)
    assert [*outputs] == [*names]
    for place, name in enumerate(names):
        wrong = (outputs[name][:, 0] - test.targets[:, place]).square().mean().sqrt() / test.targets[:, place].std(correction=0)
        assert wrong.item() == pytest.approx(done.metrics[f"{name}/nrmse"], rel=1e-3)
    module = mtl_gym.load_module(done.save(tmp_path / "named"), problem)
    assert all(torch.equal(module(test.inputs)[name], outputs[name]) for name in names)


def test_a_task_that_would_be_taken_for_a_mask_of_infos_is_refused():
    with pytest.raises(ValueError, match=r"not begin with an underscore.*Rename"):
        mtl_gym.Task("_price", "mse", ("rmse",))


@pytest.mark.slow
@pytest.mark.parametrize("attempt", range(3))
def test_threads_that_begin_together_train_as_one_after_the_other(attempt):
    problem, alone = problem_of(Two), problem_of(Two)
    expected = {seed: mtl_gym.fit(alone, "igb", seed=seed, train_steps=10, batch_size=16).metrics for seed in range(4)}
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = {seed: pool.submit(mtl_gym.fit, problem, "igb", seed=seed, train_steps=10, batch_size=16) for seed in range(4)}
        assert {seed: own.result().metrics for seed, own in found.items()} == expected


def test_errors_of_ones_own_losses_name_them_and_the_way_out():
    def negative(outputs, targets):
        return -(outputs[:, 0] - targets[:, 0]).square()

    def undefined(outputs, targets):
        return (outputs[:, 0] - targets[:, 0]) * float("nan")

    for loss, words in ((negative, "Add a constant to it; its gradient"), (undefined, "'undefined' of the task 'square'")):
        usual = problem_of(Two)
        tasks = [usual.tasks[0], mtl_gym.Task("square", loss, ("rmse",))]
        with pytest.raises(ValueError, match=words):
            mtl_gym.fit(mtl_gym.Problem("pair", tasks, usual.splits), "igb", train_steps=20, batch_size=16)


def test_a_function_has_to_be_wrapped_and_the_error_says_how():
    with pytest.raises(TypeError, match=r"mtl_gym\.policy\(function\)"):
        mtl_gym.fit("quadratic", lambda losses: 1 / losses, train_steps=20)

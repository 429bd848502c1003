import copy
import functools
import logging
import math
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from own_modules import (
    DEFAULTS,
    MODES,
    PROBLEMS_OF,
    Attentive,
    Convolutional,
    Perceptron,
    Recurrent,
    Tables,
    digits_by,
    tables,
    texts,
)
from rollouts import SAMPLE_WEIGHTING, make, make_trainer, make_vec, play, random_actions, same, train
from torch import nn
from torch.nn import functional

import mtl_gym
from mtl_gym import identity
from mtl_gym.environments import LAYER_MERGING, LOSS_WEIGHTING, TASK_GROUPING, specification
from mtl_gym.models import make_model
from mtl_gym.models.draws import Draws
from mtl_gym.models.modules import ModuleModel
from mtl_gym.problems import load_problem
from mtl_gym.problems.base import SPLITS, Problem, Split, Task
from mtl_gym.problems.rows import Defaults
from mtl_gym.training.alignments import align
from mtl_gym.training.memory import pass_bytes
from mtl_gym.training.replicas import _LARGE_ODD

KINDS = pytest.mark.parametrize("kind", PROBLEMS_OF)


def digits_with(model, **others):
    digits = load_problem("digits")
    return Problem("own", digits.tasks, digits.splits, model=model, **{"defaults": DEFAULTS} | others)


def by_hand(trainer, row, inputs, targets, seed=None, train=True):
    """Outputs of a row by the module itself, the losses of the tasks, and its new buffers."""
    model, problem = trainer.model, trainer.problem
    module = problem.network.initialised(0).train(train)
    own, buffers = dict(module.named_parameters()), dict(module.named_buffers())
    with torch.no_grad():
        for name, part in (*trainer.replicas.parameters.items(), *trainer.replicas.buffers.items()):
            (own | buffers)[name].copy_(part[row])
    with Draws([0 if seed is None else seed], stacked=False):
        found = module(inputs)
    if isinstance(found, dict):
        found = [found[task.name] for task in problem.tasks]
    if not isinstance(found, torch.Tensor):
        found = torch.cat([part if part.ndim > 1 else part[:, None] for part in found], dim=1)
    functions = {
        "cross_entropy": lambda outputs, labels: functional.cross_entropy(outputs, labels[:, 0].long()),
        "bce": functional.binary_cross_entropy_with_logits,
        "mse": functional.mse_loss,
        "l1": functional.l1_loss,
    }
    slices = zip(problem.tasks, problem.output_slices, problem.target_slices, strict=True)
    losses = torch.stack([functions[task.loss](found[:, own_outputs], targets[:, own]) for task, own_outputs, own in slices])
    gradients = torch.autograd.grad(losses.sum(), [own[name] for name in model.shapes], allow_unused=True)
    return found.detach(), losses.detach(), gradients, buffers


def of_row(inputs, row):
    return {name: own[row] for name, own in inputs.items()} if isinstance(inputs, dict) else inputs[row]


@pytest.mark.parametrize("row", [0, 2])
@KINDS
def test_values_gradients_and_buffers_are_those_of_a_loop_by_hand(kind, row):
    trainer = train(make_trainer(PROBLEMS_OF[kind](), ids=[3, 5, 7]), 2)
    batch = trainer.losses.batch()
    seeds = trainer.replicas._seeds
    seed = None if seeds is None else int(seeds[row] + trainer.ledger.step[row] * _LARGE_ODD)
    _, losses, gradients, buffers = by_hand(trainer, row, of_row(batch.inputs, row), batch.labels[row], seed)
    torch.testing.assert_close(trainer.losses.forward()[row], losses, rtol=1e-4, atol=1e-5)
    own, _ = trainer.task_gradients()
    expected = torch.cat([part.flatten() for part in gradients])
    torch.testing.assert_close(own[row].sum(0), expected, rtol=1e-4, atol=1e-5)
    for name, value in trainer.losses.pending.buffers.items():
        torch.testing.assert_close(value[row], buffers[name], rtol=1e-5, atol=1e-6)


@KINDS
def test_outside_training_a_module_is_in_evaluation_mode(kind):
    trainer = train(make_trainer(PROBLEMS_OF[kind]()), 2)
    split = trainer.problem.splits["reward"]
    before = trainer.clone()
    outputs = trainer.outputs("reward")
    torch.testing.assert_close(outputs[1], by_hand(trainer, 1, split.inputs, split.targets, train=False)[0], rtol=1e-4, atol=1e-5)
    assert same(before, trainer.clone())


@KINDS
def test_each_kind_of_module_is_computed_as_it_can_be(kind):
    vectorization = make_model(PROBLEMS_OF[kind](), ()).vectorization
    assert vectorization.name == MODES[kind]
    assert {"convolutional": "trunk.0 (Conv2d)", "recurrent": "trunk (LSTM)"}.get(kind, "agrees") in str(vectorization)


@pytest.mark.parametrize("make", [digits_by, texts])
def test_both_ways_train_alike(make):
    many, loop = (train(make_trainer(make(vectorize=vectorize)), 6) for vectorize in ("vmap", "loop"))
    assert [own.model.vectorization.name for own in (many, loop)] == ["vmap", "loop"]
    torch.testing.assert_close(many.replicas.flat, loop.replicas.flat, rtol=1e-4, atol=1e-5)


def test_the_layer_that_decided_is_told_once(caplog):
    problem = digits_with(Recurrent)
    with caplog.at_level(logging.INFO, logger="mtl_gym"):
        first, second = make_model(problem, ()), make_model(problem, ())
    assert first is second
    assert [record.getMessage() for record in caplog.records] == [f"The network of 'own' is computed by {first.vectorization}"]
    assert "trunk (LSTM)" in caplog.text


class Native(nn.Module):
    """The native perceptron of the digits with layers of torch."""

    def __init__(self):
        super().__init__()
        outputs = load_problem("digits").outputs
        self.trunk = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU())
        self.heads = nn.Linear(8, outputs)

    def forward(self, inputs):
        return self.heads(self.trunk(inputs))


def test_a_copy_of_the_native_network_is_trained_as_it():
    digits = load_problem("digits")
    native = make_trainer("digits", hidden_sizes=[8], train_steps=40)
    copied = make_trainer(digits_with(Native, version=digits.version), train_steps=40)
    state, own = native.clone(), native.replicas.parameters
    weights = [own["linear0.weight"].mT, own["linear0.bias"], own["heads.weight"].mT, own["heads.bias"]]
    state["parameters"] = torch.cat([part.detach().flatten(1) for part in weights], dim=1)
    copied.load(state)
    weights = torch.rand(40, 3, 5, generator=torch.Generator().manual_seed(0))
    for own in weights:
        train(native, 1, own)
        train(copied, 1, own)
    torch.testing.assert_close(copied.losses.history, native.losses.history, rtol=1e-4, atol=1e-4)
    expected = native.metrics("reward")
    for name, value in copied.metrics("reward").items():
        torch.testing.assert_close(value, expected[name], rtol=1e-2, atol=1e-2)


# --- random numbers -----------------------------------------------------------------------------------------------------------


class Noisy(nn.Module):
    """Every kind of random call: dropouts, noise, attention."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(8, 8), nn.AlphaDropout(0.2), nn.Dropout1d(0.3), nn.Linear(8, 8))
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.3, batch_first=True)
        self.heads = nn.Linear(8, load_problem("digits").outputs)

    def forward(self, inputs):
        rows = self.trunk(inputs.unflatten(1, (8, 8)))
        rows = rows + 0.1 * torch.randn_like(rows) + 0.1 * torch.rand(1, 8, 8)
        rows = rows + self.attention(rows, rows, rows, need_weights=False)[0]
        return self.heads(functional.dropout(rows.mean(1), 0.5))  # also in evaluation


@pytest.mark.parametrize("vectorize", ["vmap", "loop"])
def test_random_numbers_are_those_of_seed_and_call_whatever_the_number_of_replicas(vectorize):
    model = make_model(digits_with(Noisy, shared=("trunk", "attention"), vectorize=vectorize), ())
    assert model.stochastic
    values = torch.from_numpy(model.init(np.random.default_rng(0), np.arange(5))[0])
    parts = values.split(model.sizes)
    inputs = torch.randn(4, 64, generator=torch.Generator().manual_seed(0))

    def outputs(*seeds, train=True):
        named = zip(model.shapes.items(), parts, strict=True)
        parameters = {name: part.view(shape).expand(len(seeds), *shape) for (name, shape), part in named}
        given = {"seeds": torch.tensor(seeds), "train": True} if train else {}
        return model.forward(parameters, {}, inputs.expand(len(seeds), 4, 64), **given)[0]

    kept = torch.get_rng_state()
    alone, several = outputs(7), outputs(5, 7, 7, -3)
    assert torch.equal(kept, torch.get_rng_state())
    torch.testing.assert_close(several[1], alone[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(several[2], several[1], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(several[0], several[1], atol=1e-2)
    assert not torch.allclose(several[3], several[1], atol=1e-2)
    torch.testing.assert_close(*outputs(5, 7, train=False), rtol=1e-5, atol=1e-5)  # where nothing should be random
    assert torch.equal(kept, torch.get_rng_state())


def test_both_ways_draw_the_same_numbers():
    digits = [digits_with(Noisy, shared=("trunk", "attention"), vectorize=own) for own in ("vmap", "loop")]
    many, loop = (train(make_trainer(own), 3) for own in digits)
    torch.testing.assert_close(many.losses.history, loop.losses.history, rtol=1e-4, atol=1e-5)


def test_a_mask_keeps_as_many_as_it_should():
    ones = torch.ones(400, 50)
    with Draws([3], stacked=False) as draws:
        first, second = (functional.dropout(ones, 0.25) for _ in range(2))
    assert draws.calls == 2
    assert (first != 0).float().mean() == pytest.approx(0.75, abs=0.01)
    assert first.max() == pytest.approx(1 / 0.75)
    assert ((first != 0) & (second != 0)).float().mean() == pytest.approx(0.75**2, abs=0.01)  # as if independent


def test_numbers_do_not_depend_on_the_order_in_memory():
    values = torch.ones(6, 7)
    with Draws([3], stacked=False):
        first = functional.dropout(values, 0.5)
    with Draws([3], stacked=False):
        second = functional.dropout(values.T.contiguous().T, 0.5)
    assert torch.equal(first, second)


class Drawing(nn.Module):
    """A draw for all replicas at once, which `vmap` cannot take apart."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(64, 8), nn.RReLU())
        self.heads = nn.Linear(8, load_problem("digits").outputs)

    def forward(self, inputs):
        return self.heads(self.trunk(inputs))


def test_random_layers_that_vmap_cannot_separate_are_computed_by_a_loop():
    problem = digits_with(Drawing)
    vectorization = make_model(problem, ()).vectorization
    assert vectorization.name == "loop"
    assert "trunk.1 (RReLU)" in vectorization.reason
    many, one = train(make_trainer(problem, ids=[3, 5]), 3), train(make_trainer(problem, ids=[5]), 3)
    torch.testing.assert_close(many.replicas.flat[1], one.replicas.flat[0], rtol=1e-4, atol=1e-5)


def test_random_layers_under_vmap_are_refused_by_name():
    problem = digits_with(Drawing, vectorize="vmap")
    with pytest.raises(ValueError, match=r"`vectorize` should be 'auto' or 'loop': trunk\.1 \(RReLU\) does not work with `vmap`"):
        make(problem)


# --- weights and buffers ------------------------------------------------------------------------------------------------------


def test_initial_weights_are_the_modules_own_under_the_instances_stream():
    trainer = make_trainer(digits_by())
    instance = trainer.ledger.instances[1]
    seed = int(instance.stream("parameters").integers(2**63, dtype=np.uint64))
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        module = Perceptron()
    for name, part in trainer.replicas.parameters.items():
        assert torch.equal(part[1], module.get_parameter(name))


def test_initialisers_of_numpy_and_python_are_seeded_too_and_restored():
    import random

    def make():
        module = Perceptron()
        nn.init.constant_(module.trunk[1].bias, random.random() + np.random.random())  # noqa: NPY002
        return module

    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    model = make_model(digits_with(make), ())
    first, second, other = (model.init(np.random.default_rng(seed), np.arange(5))[0] for seed in (1, 1, 2))
    assert same(first, second)
    assert not same(first, other)
    assert same(before, (torch.get_rng_state(), np.random.get_state()[1], random.getstate()))  # noqa: NPY002


class Averaging(nn.Module):
    """Frozen parameters, a buffer that is replaced, and one that is not to be saved."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Linear(64, 8)
        self.frozen = nn.Linear(8, 8).requires_grad_(False)
        self.heads = nn.Linear(8, load_problem("digits").outputs)
        self.register_buffer("mean", torch.zeros(8))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64), persistent=False)

    def forward(self, inputs):
        features = self.frozen(torch.tanh(self.trunk(inputs)))
        if self.training:
            self.mean = 0.5 * self.mean + 0.5 * features.mean(0).detach()
        self.calls += 1
        return self.heads(features - self.mean)


@pytest.mark.parametrize("vectorize", ["vmap", "loop"])
def test_buffers_may_be_replaced_and_frozen_parameters_stay(vectorize):
    trainer = make_trainer(digits_with(Averaging, shared=("trunk",), vectorize=vectorize))
    assert set(trainer.model.buffers) == {"frozen.weight", "frozen.bias", "mean", "calls"}
    frozen = trainer.replicas.buffers["frozen.weight"].clone()
    assert not torch.equal(frozen[0], frozen[1])
    train(trainer, 3, active=[True, False, True])
    trainer.metrics("reward")
    assert trainer.replicas.buffers["calls"].tolist() == [3, 0, 3]
    assert torch.equal(trainer.replicas.buffers["frozen.weight"], frozen)
    mean = trainer.replicas.buffers["mean"]
    assert (mean[1] == 0).all()
    assert (mean[[0, 2]] != 0).any(1).all()


def test_threads_do_not_see_each_others_replicas():
    model = make_model(digits_by(Recurrent), ())
    values = [torch.from_numpy(model.init(np.random.default_rng(seed), np.arange(5))[0]) for seed in range(4)]
    inputs = torch.randn(1, 16, 64, generator=torch.Generator().manual_seed(0))

    def outputs(flat):
        parts = zip(model.shapes.items(), flat.split(model.sizes), strict=True)
        return model.forward({name: part.view(1, *shape) for (name, shape), part in parts}, {}, inputs)[0]

    expected = [outputs(flat) for flat in values]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(10):
            assert all(torch.equal(*pair) for pair in zip(expected, pool.map(outputs, values), strict=True))


class Residual(nn.Module):
    """Derivatives by the inputs as outputs: the residual of the equation u' = -u, and u itself."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(1, 8), nn.Tanh())
        self.head = nn.Linear(8, 1)

    def one(self, time):
        return self.head(self.trunk(time))[0]

    def forward(self, inputs):
        slope, value = torch.func.vmap(torch.func.grad_and_value(self.one))(inputs)
        return {"value": value[:, None], "residual": slope + value[:, None]}


@pytest.mark.parametrize("vectorize", ["vmap", pytest.param("loop", marks=pytest.mark.slow)])
def test_derivatives_by_the_inputs_may_be_outputs(vectorize):
    times = np.linspace(0, 2, 60, dtype=np.float32)
    splits = dict.fromkeys(SPLITS, Split.of(times, [np.exp(-times), np.zeros(60)]))
    tasks = [Task("value", "mse", ("rmse",)), Task("residual", "mse", ("rmse",))]
    defaults = Defaults(lr=0.02, batch_size=30, train_steps=150)
    problem = Problem("decay", tasks, splits, model=Residual, vectorize=vectorize, defaults=defaults)
    trainer = make_trainer(problem, train_steps=150)
    before = trainer.metrics("reward")["residual/rmse"]
    after = train(trainer, 150).metrics("reward")
    assert (after["residual/rmse"] < 0.2 * before).all()
    assert (after["value/rmse"] < 0.1).all()
    points = torch.tensor([0.5, 0.501])
    with torch.no_grad():
        found = trainer.model.forward(trainer.replicas.parameters, {}, points.view(1, 2, 1).expand(3, 2, 1))[0].double()
    slope = (found[:, 1, 0] - found[:, 0, 0]) / 0.001
    torch.testing.assert_close(found[:, 0, 1], slope + found[:, 0, 0], rtol=0, atol=5e-3)


class Contrastive(nn.Module):
    """A term of two passes with other dropout, over all pairs of a batch (SimCLR), beside a prediction."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Dropout(0.2), nn.Linear(16, 8))
        self.head = nn.Linear(8, 1)

    def forward(self, inputs):
        first, second = (functional.normalize(self.trunk(inputs), dim=1) for _ in range(2))
        numbers = torch.arange(len(inputs), device=inputs.device)
        apart = functional.cross_entropy(5 * first @ second.T, numbers, reduction="none")
        return {"value": self.head(first), "apart": apart[:, None]}


def itself(outputs, targets):
    return outputs[:, 0]


def test_a_term_of_several_passes_is_an_output_that_is_its_own_loss():
    inputs = np.random.default_rng(0).normal(size=(80, 6))
    splits = dict.fromkeys(SPLITS, Split.of(inputs, [inputs[:, 0], np.linspace(0, 1, 80)]))
    tasks = [Task("value", "mse", ("rmse",)), Task("apart", itself, ("rmse",))]
    problem = Problem("contrast", tasks, splits, model=Contrastive, defaults=Defaults(lr=0.01, batch_size=20))
    trainer = make_trainer(problem, train_steps=80)
    first = trainer.losses.forward()[:, 1]
    assert (train(trainer, 80).losses.history[:, -1, 1] < 0.7 * first).all()


# --- identity -----------------------------------------------------------------------------------------------------------------


SOURCE = '''
import torch
from torch import nn

def scaled(values):
    return values * {scale}

class Net(nn.Module):
    """{comment}"""

    def __init__(self, width):
        super().__init__()
        # {comment}
        self.trunk = nn.Linear(64, width)
        self.drop = nn.Dropout({rate})
        self.heads = nn.Linear(width, {outputs})

    def forward(self, inputs):
        """{comment}"""
        return self.heads(self.drop(scaled({activation}(self.trunk(inputs)))))

def make():
    return Net({width})  # {comment}
'''


def from_file(folder, number, **others):
    import importlib.util

    settings = {"scale": 2, "comment": "words", "rate": 0.1, "activation": "torch.relu", "width": 8} | others
    path = folder / f"module{number}.py"
    path.write_text(SOURCE.format(outputs=load_problem("digits").outputs, **settings))
    spec = importlib.util.spec_from_file_location("own_network", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return digits_with(module.make)


def test_an_identity_tells_what_a_module_does_and_not_how_it_is_written(tmp_path):
    first = from_file(tmp_path, 0)
    assert from_file(tmp_path, 1, comment="other words").identity == first.identity
    changed = [{"scale": 3}, {"rate": 0.2}, {"activation": "torch.tanh"}, {"width": 9}]
    others = [from_file(tmp_path, 2 + number, **change) for number, change in enumerate(changed)]
    assert len({str(own.identity) for own in (first, *others)}) == 5
    networks = [make_model(own, ()).identity for own in (first, *others)]
    assert networks[0] == networks[1] == networks[2] == networks[3] != networks[4]  # the seed knows names and shapes alone


def test_settings_of_a_factory_are_part_of_the_identity():
    made = [
        digits_with(functools.partial(Perceptron, 8)),
        digits_with(functools.partial(Perceptron, 9)),
        digits_with(lambda: Perceptron(8)),
        digits_with(Perceptron, shared=("trunk.1",)),
        digits_with(Perceptron, vectorize="loop"),
        digits_with(Convolutional),
    ]
    assert len({str(own.identity) for own in made}) == len(made)
    assert digits_with(functools.partial(Perceptron, 8)).identity == made[0].identity
    assert pickle.loads(pickle.dumps(made[0])).identity == made[0].identity


LOGGER, PLACE = logging.getLogger("own"), Path("data")


class Logging(Perceptron):
    def forward(self, inputs):
        LOGGER.debug("from %s", PLACE)
        return super().forward(inputs)


def test_what_a_module_merely_uses_may_be_anything_of_python():
    assert digits_with(Logging).identity == digits_with(Logging).identity
    assert digits_with(Logging).identity != digits_with(Perceptron).identity


def test_classes_of_installed_packages_count_by_their_source(tmp_path, monkeypatch):
    monkeypatch.setattr(identity, "is_installed", lambda module: not module.startswith("test_modules"))
    first, other = (
        from_file(tmp_path, number, rate=0.1, scale=1, activation=name) for number, name in enumerate(["torch.relu", "torch.tanh"])
    )
    assert first.network.content[0][0] == ["installed", "own_network", "make"]
    assert first.identity != other.identity


def test_what_cannot_be_identified_is_named():
    generator = np.random.default_rng(0)
    problem = digits_with(lambda: Perceptron(8 + 0 * int(generator.bit_generator is None)))
    with pytest.raises(ValueError, match=r"`model` should be a function that can be identified: .*Generator.*Let it refer to"):
        problem.identity  # noqa: B018


# --- inputs -------------------------------------------------------------------------------------------------------------------


def test_whole_numbers_reach_a_module_as_they_are_and_a_native_network_as_float32():
    ids = np.arange(40).reshape(20, 2) % 5
    splits = dict.fromkeys(SPLITS, Split(ids, np.arange(20) % 3))
    tasks = [Task("a", "mse", ("rmse",)), Task("b", "mse", ("rmse",))]
    splits = {name: Split.of(ids, [np.arange(20) % 3, np.arange(20) % 2]) for name in splits}
    own, native = Problem("own", tasks, splits, model=Tables), Problem("native", tasks, splits)
    assert own.splits["train"].inputs.dtype is torch.int64
    assert native.splits["train"].inputs.dtype is torch.float32
    assert torch.equal(own.splits["train"].inputs.float(), native.splits["train"].inputs)
    for kind in (np.uint8, np.int32, bool):
        assert Split(ids.astype(kind), ids).inputs.numpy().dtype == kind
    assert Split(ids.astype(np.float64), ids).inputs.dtype is torch.float32


def test_inputs_by_name_are_indexed_together():
    split = texts().splits["train"]
    assert {name: (own.dtype, own.shape) for name, own in split.inputs.items()} == {
        "tokens": (torch.int64, (80, 6)),
        "padding": (torch.bool, (80, 6)),
    }
    rows = torch.tensor([3, 5])
    assert torch.equal(split[rows].inputs["tokens"], split.inputs["tokens"][rows])
    trainer = make_trainer(texts())
    inputs, samples = trainer.losses.batch().inputs, trainer.losses.batch().samples.long()
    for name, own in inputs.items():
        assert own.dtype == split.inputs[name].dtype
        assert torch.equal(own, split.inputs[name][samples])


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ({}, TypeError, "`inputs` should be an array, or arrays by name"),
        ({"a": np.ones((3, 2)), "b": np.ones((4, 2))}, ValueError, "equally many samples under each name.*'a': 3, 'b': 4"),
        ({"a": ["x", "y", "z"]}, TypeError, r"`inputs\['a'\]` should be an array of real numbers"),
    ],
)
def test_inputs_by_name_that_do_not_fit_are_refused(inputs, error, message):
    with pytest.raises(error, match=message):
        Split(inputs, np.zeros(3))


def test_inputs_by_name_are_for_modules():
    text = texts()
    with pytest.raises(TypeError, match=r"`splits\['train'\].inputs` should be a single array without a `model`.*tokens"):
        Problem("texts", text.tasks, text.splits)
    other = text.splits | {"test": Split({"tokens": np.ones((4, 6), int)}, text.splits["test"].targets[:4])}
    with pytest.raises(ValueError, match=r"`splits\['test'\].inputs` should have samples of shape .*as in train"):
        Problem("texts", text.tasks, other, model=Attentive)


def test_the_identity_tells_names_and_dtypes_of_inputs():
    text = texts()
    floats = {
        name: Split({**own.inputs, "padding": own.inputs["padding"].float()}, own.targets) for name, own in text.splits.items()
    }
    other = Problem("texts", text.tasks, floats, model=Attentive, defaults=DEFAULTS)
    assert other.identity != text.identity
    assert Problem("texts", text.tasks, text.splits, model=Attentive, defaults=DEFAULTS).identity == text.identity


@pytest.mark.parametrize("make_problem", [texts, tables])
def test_splits_are_drawn_from_pools_of_tokens(make_problem):
    fixed = make_problem()
    whole = fixed.splits["train"]
    rows = {name: np.arange(10 * place, 10 * place + 10) for place, name in enumerate(SPLITS)}
    pool = mtl_gym.Pool(whole, rows, scaled_targets=(1,))
    problem = Problem("drawn", fixed.tasks, pool.splits(rows), model=fixed.network.make, pool=pool)
    options = {"batch_size": 5, "train_steps": 4, "distribution": {"split": [1, 1], "nearest_flip": [0.5, 0.5]}, "holdout_size": 8}
    trainer = train(make_trainer(problem, **options), 3)
    assert torch.isfinite(trainer.metrics("reward")[f"{fixed.tasks[0].name}/{fixed.tasks[0].metrics[0]}"]).all()
    members = trainer.losses.drawn.members["train"]
    assert not torch.equal(members[0], members[1])
    inputs, samples = trainer.losses.batch().inputs, trainer.losses.batch().samples.long()
    first = inputs["tokens"] if isinstance(inputs, dict) else inputs
    expected = whole.inputs["tokens"] if isinstance(inputs, dict) else whole.inputs
    assert first.dtype is torch.int64
    assert torch.equal(first, expected[members.long().gather(1, samples)])


def test_inputs_by_name_are_not_scaled():
    whole = texts().splits["train"]
    rows = {name: np.arange(10 * place, 10 * place + 10) for place, name in enumerate(SPLITS)}
    with pytest.raises(ValueError, match="`scaled_inputs` should be False where inputs have names"):
        mtl_gym.Pool(whole, rows, scaled_inputs=True)


# --- environments -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("env_id", [LOSS_WEIGHTING, pytest.param(SAMPLE_WEIGHTING, marks=pytest.mark.slow)])
@KINDS
def test_an_episode_is_played_and_restored_bit_for_bit(kind, env_id):
    env = make_vec(PROBLEMS_OF[kind](), 3, env_id)
    actions = [np.stack([action] * 3) for action in random_actions(env.single_action_space, 2)]
    env.reset(seed=0)
    env.step(actions[0])
    kept = env.state()
    first = env.step(actions[1])
    assert first[2].all()
    assert np.isfinite(first[1]).all()
    env.restore(kept)
    assert same(first, env.step(actions[1]))
    assert same(play(env, actions), play(make_vec(PROBLEMS_OF[kind](), 3, env_id), actions))
    env.close()


@pytest.mark.parametrize("kind", ["attentive", "recurrent", "convolutional"])
def test_alignments_are_products_of_gradients(kind):
    trainer = train(make_trainer(PROBLEMS_OF[kind](), options={"by_samples": True}), 2)
    products = align(trainer).products.clone()
    shared = trainer.replicas.shared()
    inputs, labels = trainer.losses.data.holdout_inputs(["meta"]), trainer.losses.data.holdout_labels("meta")
    outputs = trainer.replicas.outputs(inputs)
    main = trainer.losses.objectives.parts(outputs, labels, [outputs.shape[1]])[0][:, 0]
    direction = torch.autograd.grad(main.sum(), shared, materialize_grads=True)
    losses = trainer.losses.sample_graph()
    for sample, task in ((0, 0), (5, 1)):
        own = torch.autograd.grad(losses[:, sample, task].sum(), shared, retain_graph=True, materialize_grads=True)
        flat, along = (torch.cat([part.flatten(1) for part in parts], dim=1) for parts in (own, direction))
        torch.testing.assert_close(products[:, sample, task], (flat * along).sum(1) / along.norm(dim=1), rtol=1e-3, atol=1e-5)


def test_switches_of_torch_are_as_before():
    from torch.backends import cuda, cudnn, mha

    def switches():
        return mha.get_fastpath_enabled(), cuda.flash_sdp_enabled(), cudnn.enabled, torch._C._get_mkldnn_enabled()

    before = switches()
    for kind in ("attentive", "recurrent"):
        trainer = make_trainer(PROBLEMS_OF[kind](), options={"by_samples": True})
        align(trainer)
        train(trainer, 1)
        trainer.metrics("reward")
    assert switches() == before


def test_groups_of_tasks_are_trained_on_modules():
    env = make(digits_by(), TASK_GROUPING, num_tasks=2, tasks=["digit", "parity", "loop"])
    env.reset(seed=0)
    done = False
    while not done:
        _, reward, done, *_ = env.step(env.action_space.sample() * 0)
    assert math.isfinite(reward)
    env.close()


def test_merging_says_why_it_does_not_support_modules():
    reason = specification(LAYER_MERGING).supports(digits_by())
    assert "no chain of layers" in reason


@pytest.mark.slow
def test_methods_are_compared_on_modules(tmp_path):
    frame = mtl_gym.compare("ew,cagrad", problem=digits_by(), instances=2, train_steps=8, out=tmp_path)
    assert sorted(frame["policy"].unique()) == ["cagrad", "ew"]
    assert np.isfinite(frame["delta_m"]).all()


def test_gymnasium_makes_environments_of_a_module():
    env = gymnasium.make(LOSS_WEIGHTING, problem=digits_by(), train_steps=8, steps_per_action=4)
    env.reset(seed=0)
    assert np.isfinite(env.step(env.action_space.sample())[1])


@KINDS
def test_copies_of_a_problem_are_the_same(kind):
    problem = PROBLEMS_OF[kind]()
    other = pickle.loads(pickle.dumps(problem))
    assert other.identity == problem.identity
    assert copy.deepcopy(problem) is problem
    first, second = (train(make_trainer(own), 2) for own in (problem, other))
    assert same(first.clone(), second.clone())


@KINDS
def test_memory_is_counted_by_a_dry_run(kind):
    trainer = make_trainer(PROBLEMS_OF[kind](), begin=False)
    fixed, sample, outputs = pass_bytes(trainer.model, trainer.problem)
    assert outputs == trainer.problem.outputs
    assert sample > 4 * outputs
    assert (fixed, sample) != (4.0 * trainer.model.size, 4.0 * trainer.model.size)  # what is taken where the dry run fails


# --- bad input ----------------------------------------------------------------------------------------------------------------


class Growing:
    """A factory whose modules grow from call to call."""

    def __init__(self, after):
        self.calls, self.after = 0, after

    def __call__(self):
        self.calls += 1
        return Perceptron(8 + (self.calls > self.after))


def test_a_factory_of_other_architectures_is_refused():
    with pytest.raises(ValueError, match=r"`model` should make modules of one architecture.*trunk\.1|heads\.digit\.weight.*, then"):
        digits_with(Growing(1))
    env = make(digits_with(Growing(4)))  # two of the problem, two of the dry run
    with pytest.raises(ValueError, match="`model` should make modules of one architecture"):
        env.reset(seed=0)


def test_a_factory_that_shares_a_module_is_refused():
    kept = Perceptron()
    with pytest.raises(ValueError, match=r"`model` should make a new module.*copy.deepcopy"):
        digits_with(lambda: kept)

    def make():
        module = Perceptron()
        module.trunk = kept.trunk
        return module

    with pytest.raises(ValueError, match="nothing in common, but two of them share 'trunk'"):
        digits_with(make)
    assert digits_with(lambda: copy.deepcopy(kept)).network.make is not None


@pytest.mark.parametrize("model", [Perceptron(), "mlp", 3])
def test_a_factory_that_is_none_is_refused(model):
    with pytest.raises(TypeError, match="`model` should be a function that makes a module"):
        digits_with(model)


def test_a_factory_that_makes_no_module_is_refused():
    with pytest.raises(TypeError, match=r"`model` should make a `torch.nn.Module`. Received model='int'"):
        digits_with(lambda: 3)


def test_network_and_model_exclude_each_other():
    with pytest.raises(ValueError, match="`network` should be left out where a `model` is given"):
        digits_with(Perceptron, network="mlp")
    digits = load_problem("digits")
    with pytest.raises(ValueError, match="`shared` should be left out where there is no `model`"):
        Problem("own", digits.tasks, digits.splits, shared="body")
    with pytest.raises(ValueError, match="`vectorize` should be left out where there is no `model`"):
        Problem("own", digits.tasks, digits.splits, vectorize="loop")


def test_an_unknown_prefix_lists_the_known_ones():
    with pytest.raises(
        ValueError, match=r"`shared` should name parameters of the module, which has heads, trunk. Received shared='body'"
    ):
        digits_with(Perceptron, shared="body")
    with pytest.raises(TypeError, match="`shared` should be a name or a list of names"):
        digits_with(Perceptron, shared=3)
    with pytest.raises(ValueError, match="`vectorize` should be one of auto, vmap, loop"):
        digits_with(Perceptron, vectorize="fast")


def test_widths_are_the_modules_own():
    with pytest.raises(ValueError, match="`hidden_sizes` should be empty, since the problem's model has widths of its own"):
        make(digits_by(), hidden_sizes=[8])
    with pytest.raises(ValueError, match=r"`defaults.hidden_sizes` should be left out"):
        digits_with(Perceptron, defaults=Defaults(hidden_sizes=(3,)))
    assert digits_with(Perceptron, defaults=Defaults(lr=0.1)).defaults == Defaults(lr=0.1, hidden_sizes=())


class Answering(Perceptron):
    """Returns what a function makes of the outputs."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, inputs):
        return self.answer(super().forward(inputs))


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (
            lambda own: {name: value for name, value in own.items() if name != "loop"},
            ValueError,
            "outputs of the tasks digit, .*loop",
        ),
        (lambda own: [*own.values()][:3], ValueError, "outputs of 5 tasks, digit, .* a list of 3|outputs of 5 tasks"),
        (lambda own: own | {"digit": own["digit"][:, :4]}, ValueError, r"shape of \(samples, 10\) for the task 'digit'"),
        (lambda own: own["digit"], ValueError, r"shape of \(samples, \d+\)"),
        (lambda own: own | {"digit": own["digit"].long()}, TypeError, "tensors of real numbers for the task 'digit'"),
        (lambda own: "digit", TypeError, "a dict by task, a list in the order of the tasks, or a tensor"),
    ],
)
def test_outputs_that_do_not_match_the_tasks_are_refused(answer, error, message):
    with pytest.raises(error, match=rf"`model` should return .*{message}"):
        make(digits_with(lambda: Answering(answer)))


class Elsewhere(Perceptron):
    """Keeps a second reference to a parameter, which no replica's values reach."""

    def __init__(self):
        super().__init__()
        self.kept = [self.trunk[1].weight]

    def forward(self, inputs):
        return {name: own * self.kept[0].mean() for name, own in super().forward(inputs).items()}


class Recomputed(Perceptron):
    """Computes its trunk a second time when gradients are computed, after a replica's values have left the module."""

    def forward(self, inputs):
        features = torch.utils.checkpoint.checkpoint(self.trunk, inputs, use_reentrant=False)
        return {name: head(features) for name, head in self.heads.items()}


@pytest.mark.parametrize("model", [Elsewhere, Recomputed])
def test_modules_that_compute_with_other_values_are_refused(model):
    with pytest.raises(ValueError, match=r"`model` should be a function of its inputs.*registered.*torch\.utils\.checkpoint"):
        make(digits_with(model))


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64))
        self.trunk[2].weight = self.trunk[0].weight
        self.heads = nn.Linear(64, load_problem("digits").outputs)

    def forward(self, inputs):
        return self.heads(self.trunk(inputs))


@pytest.mark.parametrize("vectorize", ["vmap", "loop"])
def test_tied_parameters_stay_tied(vectorize):
    trainer = train(make_trainer(digits_with(Tied, vectorize=vectorize)), 2)
    assert "trunk.2.weight" not in trainer.model.shapes
    batch = trainer.losses.batch()
    _, losses, _, _ = by_hand(trainer, 1, batch.inputs[1], batch.labels[1])
    torch.testing.assert_close(trainer.losses.forward()[1], losses, rtol=1e-4, atol=1e-5)


def test_few_samples_suffice_for_the_dry_run():
    digits = load_problem("digits")
    few = digits.splits["train"][torch.arange(3)]
    problem = Problem("few", digits.tasks, {**digits.splits, "train": few}, model=Convolutional)
    assert make_model(problem, ()).vectorization.name == "loop"


def test_a_module_that_fails_is_named_with_its_error():
    def failing(own):
        raise RuntimeError("no such thing")

    with pytest.raises(
        ValueError, match=r"`model` should compute outputs from a batch .*, of shape \(8, 64\).*RuntimeError: no such thing"
    ):
        make(digits_with(lambda: Answering(failing)))


def test_outputs_without_a_graph_are_refused():
    with pytest.raises(ValueError, match="`model` should return outputs with a graph"):
        make(digits_with(lambda: Answering(lambda own: {name: value.detach() for name, value in own.items()})))


class Quiet(Perceptron):
    """Without a graph outside training."""

    def forward(self, inputs):
        with torch.set_grad_enabled(self.training and torch.is_grad_enabled()):
            return super().forward(inputs)


def test_outputs_may_have_no_graph_outside_training():
    trainer = train(make_trainer(digits_with(Quiet)), 2)
    plain = train(make_trainer(digits_with(Perceptron)), 2)
    torch.testing.assert_close(trainer.losses.history, plain.losses.history, rtol=1e-4, atol=1e-5)


class Unused(Perceptron):
    def __init__(self):
        super().__init__()
        self.trunk.register_parameter("extra", nn.Parameter(torch.ones(3)))


def test_shared_parameters_without_a_gradient_are_named():
    with pytest.raises(
        ValueError, match=r"`shared` should name parameters on which outputs depend.*\['trunk.extra'\].*requires_grad_"
    ):
        make(digits_with(Unused))

    def frozen():
        module = Unused()
        module.trunk.extra.requires_grad_(False)
        return module

    make(digits_with(frozen)).close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda module: module.double(), "float32 parameters on the CPU.*float64"),
        (lambda module: module.requires_grad_(False), "parameters to train"),
        (lambda module: module.append(nn.LazyLinear(3)), "lazy ones have none"),
    ],
)
def test_modules_that_cannot_be_replicated_are_refused(change, message):
    with pytest.raises(ValueError, match=rf"`model` should make a module .*{message}"):
        digits_with(lambda: change(nn.Sequential(nn.Linear(64, 3))), shared="0")


def test_nothing_is_left_behind_by_a_failure():
    before = torch.get_rng_state()
    for own in (lambda: Answering(lambda outputs: 3), Unused):
        with pytest.raises((TypeError, ValueError)):
            make(digits_with(own))
    assert torch.equal(before, torch.get_rng_state())
    assert torch._C._functorch._is_vmap_fallback_enabled()
    assert isinstance(make_model(digits_by(), ()), ModuleModel)


def test_the_manuals_network_is_trained_by_the_code_on_the_page():
    page = (Path(mtl_gym.__file__).parents[1] / "docs" / "problems.md").read_text()
    section = page.split("## Your own network")[1].split("\n## ")[0]
    names = {"__name__": "the_page"}
    exec(section.split("```python")[1].split("```")[0], names)
    problem = names["make"]()
    trainer = train(make_trainer(problem), 4)
    assert make_model(problem, ()).vectorization.name == "vmap"
    assert torch.isfinite(trainer.losses.history[:, :4]).all()
    assert problem.identity == names["make"]().identity

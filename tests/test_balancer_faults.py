"""What goes wrong in loops around a balancer: missing labels while accumulating, other defaults of torch, failures, and damage."""

import contextlib
import copy
import json
import os
import pickle
import warnings

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from test_balancer_loops import TASKS, Network, batch, gradients, losses_of
from torch import nn

import mtl_gym


class Sometimes:
    """Balances cosines of gradients, and fails when it is told to."""

    requires = mtl_gym.Requirements(env="mtl_gym/LossWeighting-v0", observe=("cosines",), action="weights", steps_per_action=1)
    fails = False

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return np.full((1, 3), np.nan if self.fails else 1.0, np.float32), state


def state_of(balancer):
    state = balancer.get_extra_state()
    return state["about"], {f"{table} {name}": own for table, tensors in state["tensors"].items() for name, own in tensors.items()}


def assert_same_state(balancer, known):
    about, tensors = state_of(balancer)
    assert about == known[0]
    assert tensors.keys() == known[1].keys()
    for name, own in tensors.items():
        torch.testing.assert_close(own, known[1][name], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("policy", ["cagrad", "gradnorm"])
def test_a_head_whose_label_is_missing_in_the_last_accumulated_batch_is_trained(policy):
    network, by_hand = Network(), Network()
    balancer = mtl_gym.LossBalancer(policy, TASKS, accumulate=3)
    missing = [(), ("age",), ("kind", "age")]
    for step, absent in enumerate(missing):
        balancer.backward(losses_of(network, batch(step), absent), shared=network.trunk.parameters())
    for step, absent in enumerate(missing):
        losses = {task: own for task, own in losses_of(by_hand, batch(step), absent).items() if own is not None}
        of_heads = sum(balancer.head_weights[task] * own for task, own in losses.items()) / 3
        of_trunk = sum(balancer.weights[task] * own for task, own in losses.items()) / 3
        of_heads.backward(inputs=[*by_hand.heads.parameters()], retain_graph=True)
        of_trunk.backward(inputs=[*by_hand.trunk.parameters()])
    for name, own in gradients(network).items():
        torch.testing.assert_close(own, gradients(by_hand)[name], rtol=1e-5, atol=1e-6)
    assert network.heads["age"].weight.grad.abs().sum() > 0


@pytest.mark.parametrize("made", [torch.float64, torch.bfloat16, "meta", "inference"])
def test_a_balancer_made_and_called_under_other_defaults_decides_alike(made):
    losses = torch.rand(8, 2, generator=torch.Generator().manual_seed(0)) + 0.1

    def weights():
        balancer = mtl_gym.LossBalancer(Windowed(), ["a", "b"])
        return balancer, [step(balancer, number) for number in range(8)]

    def step(balancer, number):
        own = losses[number].clone().requires_grad_()
        balancer({"a": own[0], "b": None if number % 4 == 3 else own[1]})
        return balancer.weights

    expected, default = weights()[1], torch.get_default_dtype()
    if isinstance(made, torch.dtype):
        torch.set_default_dtype(made)
        try:
            assert weights()[1] == expected
        finally:
            torch.set_default_dtype(default)
        return
    with torch.device("meta") if made == "meta" else torch.inference_mode():
        balancer = mtl_gym.LossBalancer(Windowed(), ["a", "b"])
    assert [step(balancer, number) for number in range(8)] == expected


@pytest.mark.parametrize("policy", ["ew", "igb", "cagrad"])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_backward_works_in_the_callers_modes_as_environments_do(policy, mode):
    found = []
    for context in (contextlib.nullcontext, mode):
        network = Network()
        balancer = mtl_gym.LossBalancer(policy, TASKS, steps_per_epoch=2)
        for step in range(3):
            losses = losses_of(network, batch(step), ())
            with context():
                balancer.backward(losses, shared=network.trunk.parameters())
        found.append((gradients(network), balancer.weights, balancer.step))
    torch.testing.assert_close(*found, rtol=0, atol=0)


@pytest.mark.parametrize("factors", [[0.0] * 30, [-1.0] * 30, [0.0] * 9 + [1.0] + [0.0] * 20])
def test_weights_that_are_never_above_0_are_warned_of_once(factors):
    network, left = Network(), iter(factors)
    balancer = mtl_gym.LossBalancer(mtl_gym.policy(lambda losses: next(left) * losses), TASKS)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in range(30):
            balancer(losses_of(network, batch(step), ()))
    message = "`weights` should be above 0 for some task in the first 10 steps of the policy"
    assert [str(own.message).startswith(message) for own in caught] == [True] * (max(factors) <= 0)


class Windowed:
    """Weights by the mean losses since the last decision, two steps ago."""

    requires = mtl_gym.Requirements(
        env="mtl_gym/LossWeighting-v0", observe=("log_loss_mean",), action="weights", steps_per_action=2
    )

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return np.exp(-observation["log_loss_mean"]), state


def test_a_decision_that_fails_leaves_nothing_behind():
    network, other = Network(), Network()
    policy = Sometimes()
    balancer, calm = mtl_gym.LossBalancer(policy, TASKS), mtl_gym.LossBalancer(Sometimes(), TASKS)
    for own, of in ((balancer, network), (calm, other)):
        own.backward(losses_of(of, batch(0)), shared=of.trunk.parameters())
    known, before = state_of(balancer), gradients(network)
    policy.fails = True
    with pytest.raises(ValueError, match="finite"):
        balancer.backward(losses_of(network, batch(1)), shared=network.trunk.parameters())
    assert_same_state(balancer, known)
    for name, own in gradients(network).items():
        torch.testing.assert_close(own, before[name], rtol=0, atol=0)
    policy.fails = False
    for own, of in ((balancer, network), (calm, other)):
        own.backward(losses_of(of, batch(2)), shared=of.trunk.parameters())
    for name, own in gradients(network).items():
        torch.testing.assert_close(own, gradients(other)[name], rtol=0, atol=0)


def test_a_function_that_fails_can_be_asked_again():
    answers = [lambda losses: losses * 0 + 1, lambda losses: losses[:1], lambda losses: losses * 0 + 1]
    balancer = mtl_gym.LossBalancer(lambda losses: answers[0](losses), ["a", "b"])
    losses = torch.tensor([1.0, 2.0], requires_grad=True)
    balancer(losses)
    balancer(2 * losses)
    del answers[0]
    known = balancer._decisions.loop.state()[1]
    with pytest.raises(ValueError, match="2 finite weights"):
        balancer(3 * losses)
    for name, own in balancer._decisions.loop.state()[1].items():
        assert torch.equal(own, known[name]), name
    del answers[0]
    balancer(losses)
    assert balancer.step == 3


def test_parameters_that_no_loss_reaches_keep_their_gradient_as_backward_leaves_it():
    network, unused = Network(), nn.Linear(2, 2)
    balancer = mtl_gym.LossBalancer("cagrad", TASKS)
    balancer.backward(losses_of(network, batch(0)), shared=[*unused.parameters(), *network.trunk.parameters()])
    assert unused.weight.grad is None  # zeros would let weight decay and momentum move it
    assert network.trunk[0].weight.grad.abs().sum() > 0


def test_sparse_gradients_of_shared_parameters_are_refused_and_of_others_kept():
    embedding = nn.Embedding(20, 6, sparse=True)
    tokens = torch.arange(12)

    def losses(network):
        return losses_of(network, (embedding(tokens), batch(0)[1]))

    network, balancer = Network(), mtl_gym.LossBalancer("cagrad", TASKS)
    with pytest.raises(ValueError, match=r"dense gradients.*sparse=False"):
        balancer.backward(losses(network), shared=[*embedding.parameters(), *network.trunk.parameters()])
    assert balancer.step == 0
    balancer.backward(losses(network), shared=network.trunk.parameters())
    assert embedding.weight.grad.is_sparse


def test_shared_parameters_that_change_between_steps_are_named():
    network, balancer = Network(), mtl_gym.LossBalancer("db-mtl", TASKS)
    balancer.backward(losses_of(network, batch(0)), shared=network.trunk.parameters())
    with pytest.raises(ValueError, match="`shared` should hold the 128 numbers"):
        balancer.backward(losses_of(network, batch(1)), shared=network.trunk[0].parameters())
    balancer.backward(losses_of(network, batch(1)), shared=network.trunk.parameters())
    assert balancer.step == 2


class Doubled(torch.autograd.Function):
    """Keeps something by the name that torch gives to leaves."""

    @staticmethod
    def forward(ctx, inputs):
        ctx.variable = "none of torch's"
        return inputs * 2

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 2


def test_functions_with_attributes_of_torchs_names_are_no_leaves():
    network, balancer = Network(), mtl_gym.LossBalancer("cagrad", TASKS)
    losses = {task: Doubled.apply(own) for task, own in losses_of(network, batch(0)).items()}
    balancer.backward(losses, shared=network.trunk.parameters())
    assert all(own is not None for own in gradients(network).values())


def test_evaluation_mode_neither_trains_by_gradients_nor_sums_nothing():
    network, balancer = Network(), mtl_gym.LossBalancer("cagrad", TASKS).eval()
    with pytest.raises(RuntimeError, match=r"balancer\.train"):
        balancer.backward(losses_of(network, batch(0)), shared=network.trunk.parameters())
    assert balancer.step == 0
    assert gradients(network)["trunk.0.weight"] is None
    with pytest.raises(ValueError, match="at least one task"):
        balancer(dict.fromkeys(TASKS))


@pytest.mark.parametrize(("arguments", "words"), [({"scaler": 3}, "`scaler`"), ({"process_group": 3}, "`process_group`")])
def test_arguments_of_another_kind_are_refused(arguments, words):
    with pytest.raises(TypeError, match=words):
        mtl_gym.LossBalancer("ew", TASKS, **arguments)


def test_policies_of_another_kind_and_unknown_observations_are_named():
    with pytest.raises(TypeError, match="`policy` should be a name"):
        mtl_gym.LossBalancer(3, TASKS)
    policy = Sometimes()
    policy.requires = mtl_gym.Requirements(observe=("cosine",))
    with pytest.raises(ValueError, match=r"`observe` should be one of.*cosines"):
        mtl_gym.LossBalancer(policy, TASKS)


def test_a_training_resumed_between_accumulated_gradients_begins_the_step_again():
    network, balancer = Network(), mtl_gym.LossBalancer("moco", TASKS, accumulate=2)
    for step in range(3):
        balancer.backward(losses_of(network, batch(step)), shared=network.trunk.parameters())
    resumed, other = mtl_gym.LossBalancer("moco", TASKS, accumulate=2), Network()
    resumed.backward(losses_of(other, batch(9)), shared=other.trunk.parameters())  # which must not be added to what follows
    resumed.load_state_dict(balancer.state_dict())
    direct = mtl_gym.LossBalancer("moco", TASKS, accumulate=2)
    third = Network()
    for step in range(2):
        direct.backward(losses_of(third, batch(step)), shared=third.trunk.parameters())
    third.zero_grad()
    other.zero_grad()
    for step in (4, 5):
        resumed.backward(losses_of(other, batch(step)), shared=other.trunk.parameters())
        direct.backward(losses_of(third, batch(step)), shared=third.trunk.parameters())
    assert resumed.step == direct.step == 2
    for name, own in gradients(other).items():
        torch.testing.assert_close(own, gradients(third)[name], rtol=0, atol=0)


def damaged(good):
    """A state with one thing wrong each."""
    about = json.loads(good["about"])
    for name in about:
        yield f"without {name}", {**good, "about": json.dumps({key: own for key, own in about.items() if key != name})}
    for name in ("step", "part", "fresh"):
        for wrong in ("x", None, -5, 2.5):
            yield f"{name} {wrong}", {**good, "about": json.dumps({**about, name: wrong})}
    for table, tensors in good["tensors"].items():
        yield f"without {table}", {**good, "tensors": {key: own for key, own in good["tensors"].items() if key != table}}
        for name in tensors if table != "memory" else ():
            for wrong in (torch.zeros(7, 9), 3):
                yield f"{table} {name}", {**good, "tensors": {**good["tensors"], table: {**tensors, name: wrong}}}
    yield "averages", {**good, "averages": torch.zeros(3)}
    yield "averages", {**good, "averages": "x"}
    yield "nothing", None


def load(balancer, state, what):
    balancer.set_extra_state(state)
    pytest.fail(what)


def test_a_damaged_state_is_refused_and_changes_nothing():
    network, balancer = Network(), mtl_gym.LossBalancer("db-mtl", TASKS)
    for step in range(2):
        balancer.backward(losses_of(network, batch(step)), shared=network.trunk.parameters())
    good, other = balancer.get_extra_state(), mtl_gym.LossBalancer("db-mtl", TASKS)
    known = copy.deepcopy(state_of(other))
    for what, state in damaged(good):
        with pytest.raises(ValueError, match="state"):
            load(other, state, what)
        assert_same_state(other, known)


@pytest.mark.parametrize("name", ["last", "total", "sums", "visits"])
def test_a_damaged_state_of_samples_is_refused_and_changes_nothing(name):
    balancer = mtl_gym.SampleBalancer("focal", ["main", "other"])
    losses = torch.rand(4, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    balancer(losses, ids=torch.arange(4))
    good, other = balancer.get_extra_state(), mtl_gym.SampleBalancer("focal", ["main", "other"])
    known, tensors = copy.deepcopy(state_of(other)), good["tensors"]
    without = {key: own for key, own in tensors["own"].items() if key != name}
    for own in (without, {**without, name: torch.zeros(7, 9)}):
        with pytest.raises(ValueError, match=name):
            other.set_extra_state({**good, "tensors": {**tensors, "own": own}})
        assert_same_state(other, known)


def pairs(count=4):
    return torch.rand(count, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()


@pytest.mark.parametrize(
    ("losses", "arguments", "words"),
    [
        (lambda x: {"main": x[:, 0]}, {}, r"Give None for \['other'\]"),
        (lambda x: {"main": x[:, 0], "other": 3.0}, {}, r"losses\['other'\]"),
        (lambda x: {"main": x[:, 0], "other": x[:, 1].to("meta")}, {}, "be on one device"),
        (lambda x: x, {"ids": [True] * 4}, "`ids` should be 4 whole numbers"),
        (lambda x: x, {"ids": ["a", "b", "c", "d"]}, "`ids` should be 4 whole numbers"),
        (lambda x: x, {"ids": [0, 1, 2, 10**12]}, "`ids` should be less than 100,000,000.*Number the samples from 0"),
    ],
)
def test_losses_and_ids_of_samples_that_are_wrong_are_named(losses, arguments, words):
    balancer = mtl_gym.SampleBalancer("focal", ["main", "other"])
    with pytest.raises((ValueError, TypeError), match=words):
        balancer(losses(pairs()), **arguments)
    assert balancer.step == 0


def test_labels_of_samples_may_be_a_list():
    labelled = [[True, False], [True, True], [False, True], [True, True]]
    of_list, of_tensor = (mtl_gym.SampleBalancer("focal", ["main", "other"]) for _ in range(2))
    assert of_list(pairs(), labelled=labelled).item() == of_tensor(pairs(), labelled=torch.tensor(labelled)).item()


def test_alignments_of_sparse_gradients_are_refused():
    embedding = nn.Embedding(20, 2, sparse=True)

    def losses(module, tokens):
        return module(tokens).square()

    balancer = mtl_gym.SampleBalancer("slgrad", ["main", "other"])
    with pytest.raises(ValueError, match="dense gradients"):
        balancer.observe_alignment(embedding, losses, torch.arange(4), torch.arange(4))


def in_a_process_without_labels(rank, port, folder, policy):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    network = Network()
    balancer = mtl_gym.LossBalancer(policy, TASKS)
    for step in range(2):
        network.zero_grad()
        losses = losses_of(network, batch(step), TASKS if rank == 1 and step == 0 else ())
        if "gradients" in balancer.reads:
            balancer.backward(losses, shared=network.trunk.parameters(), heads=network.heads.parameters())
        else:
            (balancer(losses) + 0 * sum(own.sum() for own in network.parameters())).backward()
        torch.save([balancer.weights, gradients(network)], f"{folder}/{rank}{step}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["si", "cagrad"])
def test_a_process_without_any_label_takes_part(policy, tmp_path):
    multiprocessing.spawn(in_a_process_without_labels, (29_519, tmp_path, policy), nprocs=2)
    network, balancer = Network(), mtl_gym.LossBalancer(policy, TASKS)
    balancer.backward(losses_of(network, batch(0)), shared=network.trunk.parameters())
    (first, own), (second, other) = (torch.load(tmp_path / f"{rank}0.pt", weights_only=True) for rank in range(2))
    assert first == second == balancer.weights
    share = 2 if policy == "cagrad" else 1  # of two processes; DistributedDataParallel averages otherwise
    for name, gradient in gradients(network).items():
        torch.testing.assert_close(share * own[name], gradient, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(other[name], own[name] if policy == "cagrad" else 0 * gradient, rtol=0, atol=0)
    (first, _), (second, _) = (torch.load(tmp_path / f"{rank}1.pt", weights_only=True) for rank in range(2))
    assert first == second


def test_an_agent_that_cannot_be_saved_says_what_can():
    balancer = mtl_gym.LossBalancer("igbv2", ["a", "b"], steps_per_epoch=2, lr=0.1)
    with pytest.raises(TypeError, match=r"OnlineSAC.*torch\.save\(balancer, path\)"):
        balancer.state_dict()
    copied = pickle.loads(pickle.dumps(balancer))
    for step in range(4):
        losses = torch.tensor([1.0 + step, 2.0], requires_grad=True)
        assert balancer(losses).item() == copied(losses).item()
    assert balancer.weights == copied.weights


def test_sums_of_samples_are_exact_under_another_default_dtype():
    losses = torch.rand(6, 4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float32)

    def sums():
        balancer = mtl_gym.SampleBalancer("focal", ["main", "other"])
        for own in losses:
            balancer(own.clone().requires_grad_(), ids=torch.arange(4))
        return state_of(balancer)[1]

    expected, default = sums(), torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        found = sums()
    finally:
        torch.set_default_dtype(default)
    for name, own in expected.items():
        torch.testing.assert_close(found[name], own, rtol=0, atol=0)


def test_a_trunks_output_is_no_parameter():
    network, balancer = Network(), mtl_gym.LossBalancer("cagrad", TASKS)
    inputs, labels = batch(0)
    features = network.trunk(inputs)
    losses = {task: (head(features) - labels[task]).square().mean() for task, head in network.heads.items()}
    with pytest.raises(ValueError, match=r"computed from them.*\(12, 8\).*`features`"):
        balancer.backward(losses, shared=features)  # which would leave the trunk untrained
    with pytest.raises(TypeError, match="`heads` should be parameters"):
        balancer.backward(losses, shared=network.trunk.parameters(), heads=network.heads)
    assert balancer.step == 0
    balancer.backward(losses, features=features)
    assert network.trunk[0].weight.grad is not None

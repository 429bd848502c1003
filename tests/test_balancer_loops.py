"""The balancer in training loops as people write them: gradients, accumulation, precision, resuming, processes, compilation."""

import copy
import io
import itertools
import os
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch import nn
from torch.utils.tensorboard import SummaryWriter

import mtl_gym

TASKS = ["price", "kind", "age"]


class Network(nn.Module):
    """A trunk and a head for each task."""

    def __init__(self, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.trunk = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh())
        self.heads = nn.ModuleDict({task: nn.Linear(8, 1) for task in TASKS})
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.rand(parameter.shape, generator=generator) - 0.5)

    def forward(self, inputs):
        features = self.trunk(inputs)
        return {task: head(features) for task, head in self.heads.items()}


def batch(step, rows=12):
    generator = torch.Generator().manual_seed(step)
    inputs = torch.randn(rows, 6, generator=generator)
    return inputs, {task: (number + 1) * torch.randn(rows, 1, generator=generator) for number, task in enumerate(TASKS)}


def losses_of(network, data, missing=()):
    inputs, labels = data
    outputs = network(inputs)
    return {task: None if task in missing else (outputs[task] - labels[task]).square().mean() for task in TASKS}


def gradients(network):
    return {name: None if own.grad is None else own.grad.clone() for name, own in network.named_parameters()}


def assert_close(own, other, tolerance=1e-6):
    assert own.keys() == other.keys()
    for name in own:
        assert (own[name] is None) == (other[name] is None), name
        if own[name] is not None:
            torch.testing.assert_close(own[name], other[name], rtol=tolerance, atol=tolerance)


def by_hand(network, data, weights, head_weights, missing=()):
    """The gradients of the weighted losses, from backward passes of their own."""
    network.zero_grad()
    total = {name: torch.zeros_like(own) for name, own in network.named_parameters()}
    for task in TASKS:
        if task in missing:
            continue
        own = torch.autograd.grad(losses_of(network, data)[task], [*network.parameters()], allow_unused=True)
        for (name, _), part in zip(network.named_parameters(), own, strict=True):
            if part is not None:
                total[name] += (weights if name.startswith("trunk") else head_weights)[task] * part
    return {name: own for name, own in total.items() if not any(f".{task}." in name for task in missing)}


@pytest.mark.parametrize("policy", ["ew", "uw", "cagrad", "mgda", "db-mtl", "gradnorm"])
@pytest.mark.parametrize("missing", [(), ("kind",)])
def test_backward_leaves_the_gradient_of_the_weighted_losses(policy, missing):
    network, balancer = Network(), mtl_gym.LossBalancer(policy, TASKS, lr=0.1, steps_per_epoch=3)
    for step in range(3):
        network.zero_grad()
        balancer.backward(losses_of(network, batch(step), missing), shared=network.trunk.parameters())
        if policy != "db-mtl":  # whose gradients are averages
            own = {name: part for name, part in gradients(network).items() if part is not None}
            assert_close(own, by_hand(network, batch(step), balancer.weights, balancer.head_weights, missing), 1e-5)
    assert balancer.step == 3


def test_equal_weights_are_the_training_without_the_balancer():
    network, balancer = Network(), mtl_gym.LossBalancer("ew", TASKS)
    balancer(losses_of(network, batch(0))).backward()
    own = gradients(network)
    network.zero_grad()
    sum(losses_of(network, batch(0)).values()).backward()
    assert_close(own, gradients(network))


def test_gradients_are_added_to_those_that_are_there():
    network, balancer = Network(), mtl_gym.LossBalancer("pcgrad", TASKS)
    balancer.backward(losses_of(network, batch(0)), shared=network.trunk.parameters())
    once = gradients(network)
    again = mtl_gym.LossBalancer("pcgrad", TASKS)
    again.backward(losses_of(network, batch(0)), shared=network.trunk.parameters())
    assert_close({name: 2 * own for name, own in once.items()}, gradients(network))


def test_features_give_the_gradients_of_the_weights_that_they_give():
    network, balancer = Network(), mtl_gym.LossBalancer("mgda", TASKS)
    inputs, labels = batch(0)
    features = network.trunk(inputs)
    losses = {task: (network.heads[task](features) - labels[task]).square().mean() for task in TASKS}
    products = torch.stack([torch.autograd.grad(own, features, retain_graph=True)[0].flatten() for own in losses.values()])
    balancer.backward(losses, features=features)
    assert_close(gradients(network), by_hand(network, batch(0), balancer.weights, balancer.head_weights), 1e-5)
    weights = torch.tensor([*balancer.weights.values()])
    least = (weights / weights.sum()) @ products
    for other in np.random.default_rng(0).dirichlet(np.ones(3), 200):  # the smallest convex combination, of features' gradients
        assert least.norm() <= (torch.tensor(other, dtype=torch.float32) @ products).norm() + 1e-5


@pytest.mark.parametrize("policy", ["cagrad", "moco"])
def test_accumulated_gradients_are_those_of_the_whole_batch(policy):
    whole, parts = Network(), Network()
    one, several = mtl_gym.LossBalancer(policy, TASKS), mtl_gym.LossBalancer(policy, TASKS, accumulate=3)
    for step in range(2):
        inputs, labels = batch(step)
        whole.zero_grad()
        parts.zero_grad()
        one.backward(losses_of(whole, (inputs, labels)), shared=whole.trunk.parameters())
        for part in range(3):
            rows = slice(4 * part, 4 * part + 4)
            data = inputs[rows], {task: own[rows] for task, own in labels.items()}
            several.backward(losses_of(parts, data), shared=parts.trunk.parameters())
        assert_close(gradients(whole), gradients(parts), 1e-5)
        assert one.step == several.step == step + 1


@pytest.mark.parametrize("policy", ["ew", "si", "cagrad", "famo"])
def test_a_step_of_fewer_batches_is_told(policy):
    network, balancer = Network(), mtl_gym.LossBalancer(policy, TASKS, accumulate=2)
    for number in range(3):  # a step of two batches, then the only one that is left of an epoch
        balancer.backward(losses_of(network, batch(number)), shared=network.trunk.parameters(), last=number == 2)
        assert (balancer.step, balancer.decision_due) == ((0, False), (1, True), (2, True))[number]
        found = gradients(network)
        if number:
            network.zero_grad()
            balancer.observe_after(losses_of(network, batch(number)))
    expected = by_hand(network, batch(2), balancer.weights, balancer.head_weights)
    assert_close({name: 2 * own for name, own in found.items()}, expected, 1e-5)


def test_losses_are_weighted_alike_while_they_are_accumulated():
    network, balancer = Network(), mtl_gym.LossBalancer("si", TASKS, accumulate=2)
    first, second = losses_of(network, batch(0)), losses_of(network, batch(1))
    loss, weights = balancer(first), dict(balancer.weights)
    assert loss.item() == pytest.approx(1.5)
    assert balancer.step == 0
    assert not balancer.decision_due
    other = balancer(second)
    assert balancer.weights == weights
    assert balancer.step == 1
    assert balancer.decision_due
    assert other.item() == pytest.approx(sum(weights[task] * second[task].item() for task in TASKS) / 2)


@pytest.mark.parametrize("policy", ["si", "cagrad", "db-mtl"])
def test_a_scaler_scales_the_gradients_that_are_left_and_nothing_else(policy):
    network, scaled = Network(), Network()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    one, other = mtl_gym.LossBalancer(policy, TASKS), mtl_gym.LossBalancer(policy, TASKS, scaler=scaler)
    for step in range(2):
        network.zero_grad()
        scaled.zero_grad()
        one.backward(losses_of(network, batch(step)), shared=network.trunk.parameters())
        other.backward(losses_of(scaled, batch(step)), shared=scaled.trunk.parameters())
        assert other.weights == pytest.approx(one.weights, rel=1e-5)
        assert_close({name: 1024 * own for name, own in gradients(network).items()}, gradients(scaled), 1e-4)


def test_losses_of_half_precision_under_autocast():
    network, balancer = Network(), mtl_gym.LossBalancer("igb", TASKS, steps_per_epoch=1)
    inputs, labels = batch(0)
    for _ in range(4):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            outputs = network(inputs)
            losses = {task: (outputs[task] - labels[task].bfloat16()).square().mean() for task in TASKS}
            loss = balancer(losses)
        assert losses["age"].dtype is torch.bfloat16
        assert loss.dtype is torch.float32
        loss.backward()
        assert all(np.isfinite([*balancer.weights.values()]))


POLICIES = ["famo", "igb", "rlw", "uw", "moco", "uw+moco", "ppo", "dwa"]


def train(network, balancer, optimizer, steps):
    for step in steps:
        optimizer.zero_grad()
        if "holdout" in balancer.reads and balancer.decision_due:
            balancer.observe_holdout(losses_of(network, batch(10_000)))
        missing = ("age",) if step % 3 == 1 else ()
        balancer.backward(losses_of(network, batch(step), missing), shared=network.trunk.parameters())
        optimizer.step()
        if "after" in balancer.reads:
            balancer.observe_after(losses_of(network, batch(step), missing))


def started(policy):
    network = Network()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    balancer = mtl_gym.LossBalancer(policy, TASKS, train_steps=60, steps_per_epoch=7, lr=optimizer, seed=3)
    return network, balancer, optimizer


@pytest.mark.parametrize("policy", POLICIES)
def test_a_training_resumes_exactly_from_its_state_dict(policy):
    whole, resumed = started(policy), started(policy)
    train(*whole, range(50))
    train(*resumed, range(27))
    file = io.BytesIO()
    torch.save([part.state_dict() for part in resumed], file)
    file.seek(0)
    fresh = started(policy)
    for part, state in zip(fresh, torch.load(file, weights_only=True), strict=True):
        part.load_state_dict(state)
    train(*fresh, range(27, 50))
    assert fresh[1].weights == whole[1].weights
    assert fresh[1].step == 50
    assert all(torch.equal(own, other) for own, other in zip(fresh[0].parameters(), whole[0].parameters(), strict=True))


def test_a_model_with_a_balancer_is_cast_copied_and_pickled():
    model = nn.ModuleDict({"network": Network(), "balancer": mtl_gym.LossBalancer("uw", TASKS, lr=0.1)})
    model["balancer"].log_to(SimpleNamespace(add_scalar=lambda *arguments: None))
    losses = losses_of(model["network"], batch(0))
    model["balancer"](losses)
    copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    expected = model["balancer"](losses)
    for other in copies:
        assert torch.equal(other["balancer"](losses), expected)
    before = model["balancer"].get_extra_state()["tensors"]["memory"]
    assert all(own.dtype is torch.float64 for own in before.values())
    after = model.half()["balancer"].get_extra_state()["tensors"]["memory"]
    assert all(torch.equal(own, after[name]) for name, own in before.items())
    assert not [*model["balancer"].parameters()]
    assert not [*model["balancer"].buffers()]


def test_a_state_of_something_else_is_refused_and_changes_nothing():
    balancer = mtl_gym.LossBalancer("uw", TASKS, lr=0.1)
    before = balancer.state_dict()
    for other, words in [
        (mtl_gym.LossBalancer("uw:lr=0.5", TASKS, lr=0.1), "policy"),
        (mtl_gym.LossBalancer("uw", ["a", "b", "c"], lr=0.1), "tasks"),
        (mtl_gym.LossBalancer("uw", TASKS[:2], lr=0.1), "tasks"),
    ]:
        with pytest.raises(ValueError, match=words):
            balancer.load_state_dict(other.state_dict())
    with pytest.raises(ValueError, match="state_dict"):
        balancer.load_state_dict({"_extra_state": {"about": "{}", "tensors": {}}})
    after = balancer.state_dict()
    assert before["_extra_state"]["about"] == after["_extra_state"]["about"]


def test_memory_that_cannot_be_saved_is_named():
    def make():
        mean = 1.0

        def weights(losses):
            nonlocal mean
            mean = 0.9 * mean + 0.1 * losses
            return 1 / mean

        return weights

    with pytest.raises(TypeError, match="memory of arrays"):
        mtl_gym.LossBalancer(mtl_gym.policy(make, per_training=True), TASKS).state_dict()


def test_a_function_weights_the_losses():
    x = torch.tensor([4.0, 1.0, 0.25], requires_grad=True)
    balancer = mtl_gym.LossBalancer(lambda losses: losses**-0.5, TASKS)
    assert balancer(x).item() == pytest.approx(2 + 1 + 0.5)
    assert balancer.weights == pytest.approx({"price": 0.5, "kind": 1.0, "age": 2.0})


def test_a_loss_that_is_nan_has_no_label_and_no_gradient():
    balancer = mtl_gym.LossBalancer("ew", TASKS)
    for gather in (list, torch.stack):
        x = torch.ones(3, requires_grad=True)
        balancer(gather([x[0] * 2, x[1:2][torch.tensor([False])].mean(), x[2] * 3])).backward()
        assert x.grad.tolist() == [2, 0, 3]
    x = torch.ones(3, requires_grad=True)
    balancer([x[0] * 2, x[1] / 0 * 0, x[2] * 3]).backward()  # whose gradient would be NaN even if it weighed nothing
    assert x.grad.tolist() == [2, 0, 3]


def test_evaluation_uses_the_last_weights_and_counts_nothing():
    network, balancer = Network(), mtl_gym.LossBalancer("si", TASKS)
    balancer(losses_of(network, batch(0)))
    weights = balancer.weights
    with torch.no_grad():
        losses = losses_of(network, batch(1))
        value = balancer.eval()(losses)
    assert value.item() == pytest.approx(sum(weights[task] * losses[task].item() for task in TASKS))
    assert balancer.step == 1
    assert balancer.weights == weights


def test_an_unlabelled_task_is_seen_with_its_last_known_loss():
    seen = []
    balancer = mtl_gym.LossBalancer(lambda losses: seen.append(losses.tolist()) or np.ones(3), TASKS)
    x = torch.tensor([4.0, 2.0, 0.5], requires_grad=True)
    balancer([x[0], None, x[2]])
    balancer([None, x[1], x[2]])
    balancer([x[0], None, float("nan") * x[2]])
    np.testing.assert_allclose(seen, [[4, 1, 0.5], [4, 2, 0.5], [4, 2, 0.5]], rtol=1e-6)


def test_tensorboard_shows_weights_and_losses(tmp_path):
    network, balancer = Network(), mtl_gym.LossBalancer("si", TASKS)
    with SummaryWriter(tmp_path) as writer:
        balancer.log_to(writer, every=2)
        for step in range(4):
            balancer(losses_of(network, batch(step)))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path)).Reload()
    for task, tag in itertools.product(TASKS, ["weights", "losses"]):
        points = events.Scalars(f"{tag}/{task}")
        assert [point.step for point in points] == [2, 4]
    last = {task: events.Scalars(f"weights/{task}")[-1].value for task in TASKS}
    assert last == pytest.approx(balancer.weights)


def test_a_writer_is_no_path():
    balancer = mtl_gym.LossBalancer("ew", TASKS)
    with pytest.raises(TypeError, match=r"`writer` should be a SummaryWriter.*Received writer='runs/x'"):
        balancer.log_to("runs/x")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # torch's own, where compilation resumes
def test_a_compiled_step_calls_the_balancer_and_compiles_the_rest():
    network, balancer = Network(), mtl_gym.LossBalancer("igb", TASKS, steps_per_epoch=2)
    reference, other = Network(), mtl_gym.LossBalancer("igb", TASKS, steps_per_epoch=2)

    def step(network, balancer, inputs, labels):
        outputs = network(inputs)
        loss = balancer({task: (outputs[task] - labels[task]).square().mean() for task in TASKS})
        return loss * 1.0

    compiled = torch.compile(step, backend="aot_eager")
    for number in range(6):
        data = batch(number)
        loss, expected = compiled(network, balancer, *data), step(reference, other, *data)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
        loss.backward()
    assert balancer.step == 6
    assert balancer.weights == pytest.approx(other.weights, rel=1e-5)


def in_a_process(rank, port, folder, policy):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    network = Network()
    model = nn.parallel.DistributedDataParallel(network)
    balancer = mtl_gym.LossBalancer(policy, TASKS, steps_per_epoch=2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for step in range(3):
        optimizer.zero_grad()
        inputs, labels = batch(step)
        rows = slice(6 * rank, 6 * rank + 6)
        data = inputs[rows], {task: own[rows] for task, own in labels.items()}
        missing = ("kind",) if step == 1 and rank == 0 else ()
        if "gradients" in balancer.reads:
            heads = network.heads.parameters()
            with model.no_sync():
                balancer.backward(losses_of(model, data, missing), shared=network.trunk.parameters(), heads=heads)
        else:
            losses = losses_of(model, data)
            balancer(losses).backward()
        optimizer.step()
    torch.save([balancer.weights, network.state_dict()], f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["igb", "cagrad", "moco"])
def test_two_processes_decide_and_train_alike_as_one_on_the_whole_batch(policy, tmp_path):
    multiprocessing.spawn(in_a_process, (29_517, tmp_path, policy), nprocs=2)
    (first, own), (second, other) = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert first == second
    assert all(torch.equal(own[name], other[name]) for name in own)
    network, balancer = Network(), mtl_gym.LossBalancer(policy, TASKS, steps_per_epoch=2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for step in range(3):
        optimizer.zero_grad()
        inputs, labels = batch(step)
        halves = [(inputs[rows], {task: own[rows] for task, own in labels.items()}) for rows in (slice(0, 6), slice(6, 12))]
        losses = [losses_of(network, half) for half in halves]
        means = {task: (losses[0][task] + losses[1][task]) / 2 for task in TASKS}
        if "gradients" in balancer.reads and step == 1:  # the decision is on the label of one process, whose gradient counts half
            seen = losses[1]["kind"].detach()
            means["kind"] = losses[1]["kind"] / 2 + seen - seen / 2
        balancer.backward(means, shared=network.trunk.parameters())
        optimizer.step()
    assert balancer.weights == pytest.approx(first, rel=1e-4)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(own[name], value, rtol=1e-4, atol=1e-5)


def loss(value):
    return torch.ones((), requires_grad=True) * value


BAD = [
    ({"price": loss(1), "kind": loss(1)}, ValueError, r"Give None for \['age'\]"),
    ({"price": loss(1), "kind": loss(1), "agee": loss(1)}, ValueError, "Did you mean 'age'"),
    ([loss(1)] * 2, ValueError, "one number for each"),
    (torch.ones(3, 1, requires_grad=True), ValueError, "one number for each"),
    ([loss(1), torch.ones(4, requires_grad=True), loss(1)], ValueError, r"losses\['kind'\]` should be a single number"),
    ([loss(1), loss(-2), loss(1)], ValueError, r"losses\['kind'\]` should be at least 0"),
    ([loss(1), loss(float("inf")), loss(1)], ValueError, r"losses\['kind'\]` should be finite"),
    ([None] * 3, ValueError, "at least one task"),
    ([loss(float("nan"))] * 3, ValueError, "lower the learning rate"),
    ([loss(1), torch.ones(()), loss(1)], ValueError, r"losses\['kind'\]` should have a graph"),
    ([loss(1), torch.zeros(()), loss(1)], ValueError, "no label of 'kind', give None"),
    ([loss(float("nan"))] * 3, ValueError, "NaN in the inputs"),
    ([loss(1), torch.ones((), device="meta", requires_grad=True), loss(1)], ValueError, "device of the other losses"),
    ([loss(1), "2", loss(1)], TypeError, r"losses\['kind'\]` should be a loss"),
    ([loss(1), torch.ones((), dtype=torch.int64), loss(1)], TypeError, "floating-point"),
    (3.0, TypeError, "mapping from tasks"),
]


@pytest.mark.parametrize(("losses", "error", "words"), BAD)
@pytest.mark.parametrize("policy", ["igb", "cagrad"])
def test_bad_losses_are_named_before_anything_changes(policy, losses, error, words):
    balancer = mtl_gym.LossBalancer(policy, TASKS, steps_per_epoch=2)
    point = torch.ones(2, requires_grad=True)
    balancer.backward([point.sum() * 1, point.sum() * 2, point[0] * 3], shared=[point])
    before = balancer.get_extra_state()
    with pytest.raises(error, match=words):
        balancer.backward(losses, shared=[point])
    after = balancer.get_extra_state()
    assert after["about"] == before["about"]
    assert torch.equal(after["tensors"]["loop"]["last"], before["tensors"]["loop"]["last"])


class Unnamed:
    """A policy that does not say what it reads."""

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return np.ones((1, 3)), state


def test_what_a_policy_needs_is_said_when_it_is_not_given():
    x = torch.ones(3, requires_grad=True)
    with pytest.raises(RuntimeError, match=r"balancer\.backward\(losses, shared="):
        mtl_gym.LossBalancer("cagrad", TASKS)(x * 1)
    with pytest.raises(ValueError, match="shared"):
        mtl_gym.LossBalancer("cagrad", TASKS).backward(x * 1)
    with pytest.raises(RuntimeError, match="observe_holdout"):
        mtl_gym.LossBalancer("ppo", TASKS, train_steps=100, steps_per_epoch=5)(x * 1)
    famo = mtl_gym.LossBalancer("famo", TASKS)
    famo(x * 1)
    with pytest.raises(RuntimeError, match="observe_after"):
        famo(x * 1)
    for policy, argument in {"uw": "lr", "igb": "steps_per_epoch", "ppo": "train_steps"}.items():
        with pytest.raises(ValueError, match=f"`{argument}` should be given"):
            mtl_gym.LossBalancer(policy, TASKS)
    with pytest.raises(TypeError, match="learning rate, or the optimiser"):
        mtl_gym.LossBalancer("uw", TASKS, lr="1e-3")
    with pytest.raises(ValueError, match=r"It names no observations.*Requirements\(observe="):
        mtl_gym.LossBalancer(Unnamed(), TASKS)
    with pytest.raises(ValueError, match="SampleWeighting"):
        mtl_gym.LossBalancer("slgrad", TASKS)
    with pytest.raises(TypeError, match="not a class"):
        mtl_gym.LossBalancer(Network, TASKS)


def test_shared_parameters_that_no_loss_reaches_are_refused():
    network, other, balancer = Network(), Network(1), mtl_gym.LossBalancer("mgda", TASKS)
    with pytest.raises(ValueError, match="that the losses depend on"):
        balancer.backward(losses_of(network, batch(0)), shared=other.trunk.parameters())
    with pytest.raises(TypeError, match=r"trunk\.parameters"):
        balancer.backward(losses_of(network, batch(0)), shared=network.trunk.named_parameters())
    with pytest.raises(ValueError, match="require a gradient"):
        balancer.backward(losses_of(network, batch(0)), shared=[torch.ones(3)])
    with pytest.raises(ValueError, match="`features` should be the trunk's output, on which"):
        balancer.backward(losses_of(network, batch(0)), features=other.trunk(batch(0)[0]))
    with pytest.raises(ValueError, match="features"):
        mtl_gym.LossBalancer("moco", TASKS).backward(losses_of(network, batch(0)), features=network.trunk(batch(0)[0]))
    assert balancer.step == 0
    assert all(own.grad is None for own in network.parameters())

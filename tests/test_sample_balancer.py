"""A policy over samples in somebody's own loop gives the weights that it gives in the environment."""

import io

import gymnasium
import numpy as np
import pytest
import torch
from rollouts import small
from torch import nn
from torch.nn import functional

import mtl_gym
from mtl_gym.balancing.sample_balancer import SampleBalancer
from mtl_gym.decisions.sample_rules import ALIGNMENT, LABELLED, LOSS, MEAN
from mtl_gym.environments import SAMPLE_WEIGHTING
from mtl_gym.evaluation.player import initial_memory
from mtl_gym.policies.finding import environment_of, find_policies
from mtl_gym.policies.grammar import make_policy
from mtl_gym.training.measurements import learning_rates, steps_per_epoch
from mtl_gym.training.probes import GRAMIAN, META

TASKS = ["main", "other"]


def of_samples():
    """All policies of SampleWeighting but the oracle, which reads what nobody knows."""
    known = [name for name in find_policies() if name != "single-task" and environment_of(name) in (None, SAMPLE_WEIGHTING)]
    made = {name: make_policy(name, SAMPLE_WEIGHTING) for name in known}
    return [name for name, policy in made.items() if policy.requires.env == SAMPLE_WEIGHTING and name != "oracle"]


@pytest.mark.parametrize("name", of_samples())
def test_equal_losses_give_the_weights_of_the_environment_bit_for_bit(name):
    policy, length = make_policy(name, SAMPLE_WEIGHTING), 50 if name == "ppo" else 12
    arguments = small("digits", SAMPLE_WEIGHTING, train_steps=length, batch_size=128, distribution={"labels": [0.2, 0.6]})
    env = gymnasium.make(SAMPLE_WEIGHTING, disable_env_checker=True, **arguments | policy.requires.arguments())
    obs, _ = env.reset(options={"instance": 5})
    decision = env.unwrapped.vector.decision
    trainer = decision.trainer
    tasks, rate = trainer.ledger.task_names(0), torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    told = {"train_steps": length, "steps_per_epoch": int(steps_per_epoch(trainer)), "lr": rate}
    balancer = mtl_gym.SampleBalancer(name, tasks, seed=5, **told)
    memory, done, compared = initial_memory(policy, [5], len(tasks)), False, 0
    while not done:
        view = env.unwrapped.vector.view
        action, memory = policy.predict({key: value[None] for key, value in obs.items()}, memory, None, deterministic=True)
        bounds, before = env.action_space, trainer.clone()
        action = np.clip(action, bounds.low, bounds.high)
        rate.param_groups[0]["lr"] = float(learning_rates(trainer)[0])
        if "holdout" in balancer.reads:
            balancer.observe_holdout(view[META][0])
        for _ in range(balancer._decisions.loop.steps):
            weights, expected = weigh(balancer, decision, torch.from_numpy(action), view.now.get(GRAMIAN))
            torch.testing.assert_close(weights, expected, rtol=0, atol=0)
            compared += 1
            losses, samples = trainer.losses.sample_graph().detach(), trainer.losses.batch().samples.long()
            trainer.update_samples(expected[None], torch.tensor([True]))
            decision._remember(losses, samples, torch.tensor([True]))
        trainer.load(before)
        obs, _, done, _, _ = env.step(action[0])
    assert compared == length


def weigh(balancer, decision, action, gramian):
    """The weights (B, K) of the next batch, in the loop and in the environment.

    The loop's Gram matrix is replaced by the environment's, whose last bits differ, once it is within 1e-5.
    """
    if gramian is not None:
        measure = SampleBalancer._gramian.__get__(balancer)

        def measured(means, shared):
            own, norms = measure(means, shared), gramian.diagonal(dim1=1, dim2=2).sqrt()
            assert ((own - gramian).abs() <= 1e-5 * norms[:, :, None] * norms[:, None]).all()
            return gramian

        balancer._gramian = measured
    trainer = decision.trainer
    names = {LOSS, LABELLED, *({ALIGNMENT} if "alignment" in balancer.reads else ()), *({MEAN} if "ids" in balancer.reads else ())}
    known = decision.observe(names).values
    if "alignment" in balancer.reads:
        balancer._aligned = known[ALIGNMENT]
    point, table = torch.zeros(trainer.model.num_shared, requires_grad=True), known[LOSS][0]
    if "gradients" in balancer.reads:  # losses with the environment's gradients
        shared = trainer.replicas.shared()
        means = trainer.losses.mean(trainer.losses.sample_graph())[0]
        rows = [torch.autograd.grad(own, shared, retain_graph=True, materialize_grads=True) for own in means]
        counts = known[LABELLED][0].sum(0).clamp(min=1)
        gradient = torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])
        first = known[LABELLED][0].argmax(0)
        table = table + torch.zeros_like(table).index_put((first, torch.arange(len(first))), counts * (gradient @ point))
    else:
        table = table + 0 * point[0]
    ids = trainer.losses.batch().samples[0].long()
    balancer(table, labelled=known[LABELLED][0] > 0, ids=ids, shared=[point])
    return balancer.weights, decision.weighing.weights(action, known)[0]


class Attentive(nn.Module):
    """Tokens through attention, dropout and batch norm, then two heads."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.trunk = nn.ModuleList([nn.Embedding(11, 8), nn.TransformerEncoder(layer, 1), nn.BatchNorm1d(8)])
        self.heads = nn.Linear(8, 2)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.rand(parameter.shape, generator=generator) - 0.5)

    def forward(self, tokens):
        embedding, encoder, norm = self.trunk
        return self.heads(norm(encoder(embedding(tokens)).mean(1)))


def losses_of(model, batch):
    tokens, labels = batch
    known = ~labels.isnan()
    losses = functional.mse_loss(model(tokens), labels.nan_to_num(), reduction="none")
    return torch.where(known, losses, torch.nan)


def batch(seed, rows=6):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randn(rows, 2, generator=generator)
    labels[1, 1] = torch.nan
    return torch.randint(11, (rows, 5), generator=generator), labels


def test_alignments_are_the_inner_products_of_the_samples_gradients():
    model, balancer = Attentive(), mtl_gym.SampleBalancer("slgrad", TASKS)
    shared = [*model.trunk.parameters()]
    before = {name: own.clone() for name, own in model.state_dict().items()}
    generator, fast = torch.get_rng_state(), torch.backends.mha.get_fastpath_enabled()
    balancer.observe_alignment(model, losses_of, batch(0), batch(1), shared)
    assert all(torch.equal(own, before[name]) for name, own in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)
    assert torch.backends.mha.get_fastpath_enabled() is fast
    assert model.training
    held_out = losses_of(model.eval(), batch(1))[:, 0].mean()
    unit = torch.cat([part.flatten() for part in torch.autograd.grad(held_out, shared, materialize_grads=True)])
    unit = unit / unit.norm()
    losses = losses_of(model.train(), batch(0))
    expected = torch.zeros(6, 2)
    for sample, task in np.ndindex(6, 2):
        if not losses[sample, task].isnan():
            parts = torch.autograd.grad(losses[sample, task], shared, retain_graph=True, materialize_grads=True)
            expected[sample, task] = torch.cat([part.flatten() for part in parts]) @ unit
    torch.testing.assert_close(balancer._aligned[0], expected, rtol=1e-3, atol=1e-5)
    positive = expected.clamp(min=0)
    loss = balancer(losses)
    torch.testing.assert_close(balancer.weights, positive * 11 / positive.sum(), rtol=1e-3, atol=1e-4)
    weighted = torch.where(losses.isnan(), 0, losses * balancer.weights).sum(0) / torch.tensor([6, 5])
    assert loss.item() == pytest.approx(weighted.sum().item(), rel=1e-5)


def test_uniform_weights_are_the_training_without_the_balancer():
    model, balancer = Attentive().eval(), mtl_gym.SampleBalancer("uniform", TASKS)
    balancer(losses_of(model, batch(0))).backward()
    own = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    losses = losses_of(model, batch(0))
    (losses[:, 0].mean() + losses[~losses[:, 1].isnan(), 1].mean()).backward()
    for parameter, gradient in zip(model.parameters(), own, strict=True):
        assert gradient.isfinite().all()
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)


def test_it_resumes_exactly_from_its_state_dict():
    def run(balancer, steps):
        for step in steps:
            generator = torch.Generator().manual_seed(step)
            losses = torch.rand(8, 2, generator=generator).requires_grad_()
            if "holdout" in balancer.reads and balancer.decision_due:
                balancer.observe_holdout(torch.rand(2, generator=generator))
            if "alignment" in balancer.reads:
                balancer._aligned = torch.randn(1, 8, 2, generator=generator)
            balancer(losses, ids=torch.randperm(20, generator=generator)[:8])
        return balancer.weights

    for policy in ("ppo", "self-paced"):
        whole, first, second = (mtl_gym.SampleBalancer(policy, TASKS, train_steps=90, steps_per_epoch=9) for _ in range(3))
        expected = run(whole, range(60))
        run(first, range(33))
        file = io.BytesIO()
        torch.save(first.state_dict(), file)
        file.seek(0)
        second.load_state_dict(torch.load(file, weights_only=True))
        assert torch.equal(run(second, range(33, 60)), expected)
        with pytest.raises(ValueError, match="policy"):
            mtl_gym.SampleBalancer("uniform", TASKS).load_state_dict(first.state_dict())


def test_batches_of_different_sizes_and_tasks_without_labels():
    balancer = mtl_gym.SampleBalancer("ohem", TASKS)
    for rows in (8, 3):
        losses = torch.rand(rows, requires_grad=True)
        assert balancer({"main": losses, "other": None}).isfinite()
        assert balancer.weights.shape == (rows, 2)
        assert not balancer.weights[:, 1].any()


def test_a_batch_that_no_sample_helps_is_reported():
    balancer = mtl_gym.SampleBalancer("slgrad", TASKS)
    balancer._aligned = -torch.ones(1, 4, 2)
    loss = balancer(torch.ones(4, 2, requires_grad=True))
    assert loss.item() == 0
    assert balancer.skipped


def table(*shape, value=1.0):
    return torch.full(shape, value).requires_grad_()


@pytest.mark.parametrize(
    ("losses", "error", "words"),
    [
        (table(4, 3), ValueError, r"\(B, 2\)"),
        (table(4), ValueError, r"\(B, 2\)"),
        (table(0, 2), ValueError, r"\(B, 2\)"),
        ({"main": table(4), "other": table(3)}, ValueError, r"shape \(B,\) for every task"),
        ({"main": table(4), "others": table(4)}, ValueError, "Did you mean 'other'"),
        (table(4, 2, value=-1.0), ValueError, "at least 0"),
        (table(4, 2, value=float("inf")), ValueError, "finite"),
        (table(4, 2, value=float("nan")), ValueError, "at least one task"),
        (torch.ones(4, 2), ValueError, "graph"),
        ([1.0, 2.0], TypeError, "tensor"),
    ],
)
def test_bad_losses_are_named_before_anything_changes(losses, error, words):
    balancer = mtl_gym.SampleBalancer("small-loss", TASKS, steps_per_epoch=3)
    with pytest.raises(error, match=words):
        balancer(losses)
    assert balancer.step == 0


def test_what_a_policy_needs_is_said_when_it_is_not_given():
    losses = table(4, 2)
    with pytest.raises(RuntimeError, match="observe_alignment"):
        mtl_gym.SampleBalancer("slgrad", TASKS)(losses)
    with pytest.raises(RuntimeError, match="Give `shared`"):
        mtl_gym.SampleBalancer("gcs", TASKS)(losses)
    with pytest.raises(ValueError, match="which labels are right"):
        mtl_gym.SampleBalancer("oracle", TASKS)
    with pytest.raises(ValueError, match="LossWeighting"):
        mtl_gym.SampleBalancer("igb", TASKS)
    with pytest.raises(ValueError, match="`steps_per_epoch` should be given"):
        mtl_gym.SampleBalancer("small-loss", TASKS)
    agent = mtl_gym.SampleBalancer("ppo", TASKS, train_steps=90, steps_per_epoch=9)
    agent.observe_holdout([1.0, 2.0])
    agent._aligned = torch.ones(1, 4, 2)
    with pytest.raises(RuntimeError, match="Give `ids`"):
        agent(losses)
    with pytest.raises(ValueError, match="4 whole numbers"):
        agent(losses, ids=[0, 1, 2])
    with pytest.raises(ValueError, match="of `model`"):
        agent.observe_alignment(Attentive(), losses_of, batch(0), batch(1), [torch.ones(3)])


def test_losses_after_a_step_are_asked_for_and_taken():
    class Reads:
        requires = mtl_gym.Requirements(
            env=SAMPLE_WEIGHTING, observe=("log_loss", "log_loss_after"), action="weights", steps_per_action=1
        )

        def predict(self, observation, state=None, episode_start=None, deterministic=False):
            return np.exp(observation["log_loss_after"]).repeat(4, 0).reshape(1, -1), state

    balancer = mtl_gym.SampleBalancer(Reads(), TASKS)
    balancer(table(4, 2))
    with pytest.raises(RuntimeError, match="observe_after"):
        balancer(table(4, 2))
    balancer.observe_after({"main": 0.5, "other": 2.0})
    balancer(table(4, 2))
    torch.testing.assert_close(balancer.weights, torch.tensor([[0.5, 2.0]] * 4))
    with pytest.raises(ValueError, match="Give None for"):
        balancer.observe_holdout({"main": 1.0})

"""A policy in somebody's own loop gives the weights that it gives in the environment."""

import gymnasium
import numpy as np
import pytest
import torch
from rollouts import small

import mtl_gym
from mtl_gym.balancing.task_gradients import TaskGradients
from mtl_gym.environments import LOSS_WEIGHTING
from mtl_gym.evaluation.player import initial_memory
from mtl_gym.policies.finding import environment_of, find_policies
from mtl_gym.policies.grammar import make_policy
from mtl_gym.training.measurements import learning_rates, steps_per_epoch
from mtl_gym.training.probes import AFTER, GRAMIAN, META

OPTIONS = {"constant": "constant:w=1,2,3,4,5"}
RULES = (
    "rule:loss=0.5:base=0.5:level=1:slope=3:gap=1:overfit=-1:overfit_slope=2:decisions=4",
    "rule:loss=1.5:level=-0.5:norm=0.5:cosine=8:decisions=3",
)


def of_losses():
    """All policies of LossWeighting, and compositions."""
    known = [name for name in find_policies() if name != "single-task" and environment_of(name) in (None, LOSS_WEIGHTING)]
    made = {name: make_policy(OPTIONS.get(name, name), LOSS_WEIGHTING) for name in known}
    own = [name for name, policy in made.items() if policy.requires.env == LOSS_WEIGHTING]
    return [*own, "igb+cagrad:c=0.4", "uw+moco", *RULES]


class Rate(torch.optim.SGD):
    """An optimiser whose learning rate a test sets."""

    def __init__(self):
        super().__init__([torch.zeros(1, requires_grad=True)], lr=1.0)

    def set(self, lr):
        self.param_groups[0]["lr"] = lr


def environment(name, steps, **others):
    arguments = make_policy(OPTIONS.get(name, name), LOSS_WEIGHTING).requires.arguments()
    labels = {"distribution": {"labels": [0.02, 0.5]}}
    given = small("digits", train_steps=steps, steps_per_action=None, batch_size=256, **labels, **others) | arguments
    return gymnasium.make(LOSS_WEIGHTING, disable_env_checker=True, **given)


def raw_gradients(trainer):
    """The tasks' gradients (K, Q) of the shared parameters on the next batch, not averaged."""
    losses, shared = trainer.losses.graph(), trainer.replicas.shared()
    rows = [torch.autograd.grad(own, shared, retain_graph=True, materialize_grads=True) for own in losses[0]]
    return torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])


def loop_losses(trainer, theta):
    """The next batch's losses, with the environment's values and, at theta = 0, its gradients; ``None`` without a label."""
    pairs = zip(trainer.losses.forward()[0], raw_gradients(trainer), trainer.losses.labelled()[0].tolist(), strict=True)
    return [value + (row * theta).sum() if known else None for value, row, known in pairs]


@pytest.mark.parametrize("name", of_losses())
def test_equal_losses_give_the_weights_of_the_environment_bit_for_bit(name):
    length = 40 if name == "ppo" else 12  # two decisions; several epochs
    env = environment(name, length)
    obs, _ = env.reset(options={"instance": 7})
    trainer, policy = env.unwrapped.vector.decision.trainer, make_policy(OPTIONS.get(name, name), LOSS_WEIGHTING)
    tasks, rate = trainer.ledger.task_names(0), Rate()
    told = {"train_steps": length, "steps_per_epoch": int(steps_per_epoch(trainer)), "lr": rate}
    balancer = mtl_gym.LossBalancer(OPTIONS.get(name, name), tasks=tasks, seed=7, **told)
    memory, theta = initial_memory(policy, [7], len(tasks)), torch.zeros(trainer.model.num_shared, requires_grad=True)
    steps, done = balancer._decider.steps, False
    compared = 0
    while not done:
        view = env.unwrapped.vector.view
        rows = {key: value[None] for key, value in obs.items()}
        action, memory = policy.predict(rows, memory, None, deterministic=True)
        balancer_gets(balancer, view, rate, trainer)
        show_gramian(balancer, view)
        before = trainer.clone()
        for _ in range(steps):  # the losses of every step between two decisions
            losses = loop_losses(trainer, theta)
            weights, heads = step(balancer, losses, theta, tasks)
            expected = trainer_weights(env, trainer, action)
            assert torch.equal(weights, expected[0])
            assert torch.equal(heads, expected[-1])
            compared += 1
            advance(trainer, expected)
        trainer.load(before)
        obs, _, done, _, _ = env.step(np.clip(action[0], env.action_space.low, env.action_space.high))
    assert compared == length


def balancer_gets(balancer, view, rate, trainer):
    rate.set(float(learning_rates(trainer)[0]))
    if "holdout" in balancer.reads:
        balancer.observe_holdout(view[META][0])
    if "after" in balancer.reads and balancer.step:
        balancer.observe_after(view[AFTER][0])


def show_gramian(balancer, view):
    """Replaces the Gram matrix of the loop by the environment's, whose last bits differ, once it is within 1e-5."""
    if GRAMIAN not in view.now:
        return
    measure, theirs = TaskGradients.gramian.__get__(balancer._gradients), view[GRAMIAN]

    def gramian(step, labelled):
        own, norms = measure(step, labelled), theirs.diagonal(dim1=1, dim2=2).sqrt()
        assert ((own - theirs).abs() <= 1e-5 * norms[:, :, None] * norms[:, None]).all()
        return theirs

    balancer._gradients.gramian = gramian


def step(balancer, losses, theta, tasks):
    theta.grad = None
    if "gradients" in balancer.reads:
        balancer.backward(dict(zip(tasks, losses, strict=True)), shared=[theta])
    else:
        balancer(dict(zip(tasks, losses, strict=True))).backward()
    return torch.tensor([*balancer.weights.values()]), torch.tensor([*balancer.head_weights.values()])


def trainer_weights(env, trainer, action):
    """The environment's weights (S, K) on the next batch."""
    decision = env.unwrapped.vector.decision
    bounds = env.action_space
    held = decision.weighing.held(torch.from_numpy(np.clip(action, bounds.low, bounds.high)), env.unwrapped.vector.view)
    return decision.weighing.weights(held, trainer.losses.forward(), env.unwrapped.vector.view.losses.initial)[0]


def advance(trainer, weights):
    rows = torch.tensor([True])
    if len(weights) == 1:
        trainer.update(weights[:1], rows)
    else:
        trainer.update_apart(weights[:1], weights[1:], rows)


# --- policies whose actions are coefficients, and that take a number of decisions -------------------------------------------------

TASKS, VALUES = ["a", "b", "c"], torch.tensor([[4.0, 0.5, 1.0], [3.0, 0.6, 0.9], [2.5, 0.4, 1.2], [2.0, 0.3, 0.7]])
HELD_OUT = "rule:first=0.5:loss=1:overfit=1:level=0.5:decisions=2"


def told(balancer, losses):
    """The weights of a step on these losses (K,), which are the held-out ones too."""
    if "holdout" in balancer.reads:
        balancer.observe_holdout(1.5 * losses)
    balancer(losses.clone().requires_grad_())
    return torch.tensor([*balancer.weights.values()])


def test_the_rule_of_a_loop_is_si_over_its_mean_times_the_level():
    balancer = mtl_gym.LossBalancer("rule:first=1:loss=1:level=1", TASKS)
    for losses in VALUES:
        torch.testing.assert_close(told(balancer, losses), 1 / losses / (1 / losses).mean() / (losses / VALUES[0]).mean())


def test_what_the_features_of_a_rule_need_is_asked_for_by_name():
    told_lengths = {"train_steps": 4, "steps_per_epoch": 2}
    assert mtl_gym.LossBalancer(HELD_OUT, TASKS, train_steps=4).reads == {"holdout"}
    with pytest.raises(RuntimeError, match=r"Call `balancer.observe_holdout\(losses\)`"):
        mtl_gym.LossBalancer(HELD_OUT, TASKS, train_steps=4)(VALUES[0].clone().requires_grad_())
    with pytest.raises(ValueError, match="`steps_per_epoch` should be given"):
        mtl_gym.LossBalancer("rule:gap=1", TASKS, train_steps=4)
    assert mtl_gym.LossBalancer("rule:gap=1", TASKS, **told_lengths).reads == set()
    balancer = mtl_gym.LossBalancer("rule:norm=1", TASKS, train_steps=4)
    assert balancer.reads == {"gradients"}
    with pytest.raises(RuntimeError, match=r"Replace loss\.backward"):
        balancer(VALUES[0].clone().requires_grad_())


def test_a_policy_of_a_number_of_decisions_needs_the_length_of_the_training():
    with pytest.raises(ValueError, match=r"`train_steps` should be given, since the policy .* about 2 decisions in a training"):
        mtl_gym.LossBalancer(HELD_OUT, TASKS)
    lengths = {4: 2, 30: 15, 20: 10, 7: 4, 101: 50, 1: 1}  # a loop may have a length that the environment refuses
    for train_steps, steps in lengths.items():
        assert mtl_gym.LossBalancer(HELD_OUT, TASKS, train_steps=train_steps)._decider.steps == steps


def test_a_rule_resumes_to_the_bit():
    first = mtl_gym.LossBalancer(HELD_OUT, TASKS, train_steps=4)
    for losses in VALUES[:3]:
        told(first, losses)
    second = mtl_gym.LossBalancer(HELD_OUT, TASKS, train_steps=4)
    second.load_state_dict(first.state_dict())
    assert torch.equal(told(first, VALUES[3]), told(second, VALUES[3]))
    other = mtl_gym.LossBalancer("rule:decisions=2", TASKS, train_steps=4)
    with pytest.raises(ValueError, match="policy"):
        other.load_state_dict(first.state_dict())


def test_a_policy_that_looks_at_gradients_costs_them_only_where_it_decides(monkeypatch):
    balancer = mtl_gym.LossBalancer("rule:cosine=8:loss=1:decisions=2", TASKS, train_steps=4)
    looked, measure = [], TaskGradients.add
    monkeypatch.setattr(TaskGradients, "add", lambda *own, **words: looked.append(balancer.step) or measure(*own, **words))
    shared, head = (torch.ones(3, requires_grad=True) for _ in range(2))
    for step, losses in enumerate(VALUES):
        shared.grad = head.grad = None
        parts = losses * shared.square() + (losses * head.sum() if step else head.sum() * losses)
        balancer.backward([*parts], shared=[shared])
        weights = torch.tensor([*balancer.weights.values()])
        torch.testing.assert_close(shared.grad, 2 * weights * losses)
        torch.testing.assert_close(head.grad, (weights * losses).sum().expand(3))
    assert looked == [0, 2]


def test_accumulated_halves_have_the_weights_of_the_whole_batch_where_a_policy_looks_at_gradients():
    weights = {}
    for parts in (1, 2):
        balancer = mtl_gym.LossBalancer("rule:norm=.5:loss=1:first=1:decisions=2", TASKS, train_steps=4, accumulate=parts)
        shared, weights[parts] = torch.ones(3, requires_grad=True), []
        for losses in VALUES[:4]:
            share = torch.linspace(0.2, 1.8, len(losses))
            for half in (losses * share, losses * (2 - share)) if parts == 2 else (losses,):
                shared.grad = None
                balancer.backward([*(half * shared.square())], shared=[shared])
            weights[parts].append([*balancer.weights.values()])
    torch.testing.assert_close(weights[1], weights[2])

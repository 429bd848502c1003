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


def of_losses():
    """All policies of LossWeighting, and compositions."""
    known = [name for name in find_policies() if name != "single-task" and environment_of(name) in (None, LOSS_WEIGHTING)]
    made = {name: make_policy(OPTIONS.get(name, name), LOSS_WEIGHTING) for name in known}
    own = [name for name, policy in made.items() if policy.requires.env == LOSS_WEIGHTING]
    return [*own, "igb+cagrad:c=0.4", "uw+moco"]


class Rate(torch.optim.SGD):
    """An optimiser whose learning rate a test sets."""

    def __init__(self):
        super().__init__([torch.zeros(1, requires_grad=True)], lr=1.0)

    def set(self, lr):
        self.param_groups[0]["lr"] = lr


def environment(name, steps, **others):
    arguments = make_policy(OPTIONS.get(name, name), LOSS_WEIGHTING).requires.arguments()
    given = small("digits", train_steps=steps, batch_size=256, distribution={"labels": [0.02, 0.5]}, **others) | arguments
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

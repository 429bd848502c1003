"""A policy that balances the tasks' gradients in your own loop: ``python examples/gradient_balancing.py cagrad``.

``balancer.backward(losses, shared=...)`` replaces ``loss.backward()`` and fills ``.grad``: in the trunk with the weights that the
policy finds from the gradients of all tasks, in the heads with those that the method has for them. It also takes the policies that
weight losses, so this loop runs every policy but those that read held-out losses.
"""

import sys

import torch
from sklearn.datasets import load_linnerud
from torch import nn

import mtl_gym


def main(policy="cagrad", steps=300):
    """Trains, and returns the first and the last losses by task and the last weights."""
    torch.manual_seed(0)
    data = load_linnerud(as_frame=True)  # three exercises of 20 men, and their weight, waist and pulse
    tables = [((own - own.mean()) / own.std()).to_numpy() for own in (data.data, data.target)]
    inputs, labels = (torch.tensor(own, dtype=torch.float32) for own in tables)
    tasks = list(data.target)

    trunk = nn.Sequential(nn.Linear(3, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh())
    heads = nn.ModuleDict({task: nn.Linear(32, 1) for task in tasks})
    optimizer = torch.optim.Adam([*trunk.parameters(), *heads.parameters()], lr=3e-3)
    balancer = mtl_gym.LossBalancer(policy, tasks, lr=optimizer, steps_per_epoch=1)

    def losses_now():
        features = trunk(inputs)
        return {task: (heads[task](features)[:, 0] - labels[:, place]).square().mean() for place, task in enumerate(tasks)}

    history = []
    for _ in range(steps):
        losses = losses_now()
        optimizer.zero_grad()
        balancer.backward(losses, shared=trunk.parameters())
        optimizer.step()
        if "after" in balancer.reads:
            balancer.observe_after(losses_now())
        history.append({task: loss.item() for task, loss in losses.items()})
    change = ", ".join(f"{task} {history[0][task]:.2f} to {history[-1][task]:.2f}" for task in tasks)
    weights = ", ".join(f"{task} {weight:.2g}" for task, weight in balancer.weights.items())
    print(f"{policy}: losses fell: {change}; last weights of the trunk: {weights}")
    return history[0], history[-1], balancer.weights


if __name__ == "__main__":
    main(*sys.argv[1:2])

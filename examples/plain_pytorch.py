"""Your own network and loop in plain PyTorch, with a policy that weights the losses: ``python examples/plain_pytorch.py igb``.

Three tasks on scikit-learn's digits, whose losses differ by a factor of several thousand. Any policy that weights losses can be
named, a pretrained agent (``ppo``) too; those that balance gradients are in ``gradient_balancing.py``.
"""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

import mtl_gym

TASKS = ("digit", "even", "ink")


class Network(nn.Module):
    """A trunk and a head for each task."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
        self.heads = nn.ModuleDict({"digit": nn.Linear(64, 10), "even": nn.Linear(64, 1), "ink": nn.Linear(64, 1)})

    def forward(self, images):
        """Outputs by task."""
        features = self.trunk(images)
        return {task: head(features) for task, head in self.heads.items()}


def losses_of(network, images, digits):
    """The loss of each task; that of ``ink``, the sum of all pixels, is in squares of grey levels."""
    outputs = network(images)
    return {
        "digit": functional.cross_entropy(outputs["digit"], digits),
        "even": functional.binary_cross_entropy_with_logits(outputs["even"][:, 0], (digits % 2 == 0).float()),
        "ink": functional.mse_loss(outputs["ink"][:, 0], 16 * images.sum(1)),
    }


def main(policy="igb", steps=400):
    """Trains, and returns the accuracy on test images and the last weights."""
    torch.manual_seed(0)
    images, digits = (torch.as_tensor(own) for own in load_digits(return_X_y=True))
    images = images.float() / 16
    train, held_out, test = torch.randperm(len(images)).split([1200, 200, 397])
    network = Network()
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    balancer = mtl_gym.LossBalancer(policy, TASKS, train_steps=steps, steps_per_epoch=1200 // 64, lr=optimizer)
    for _ in range(steps):
        batch = train[torch.randint(len(train), (64,))]
        if "holdout" in balancer.reads and balancer.decision_due:  # only some policies do, such as the agent
            with torch.no_grad():
                balancer.observe_holdout(losses_of(network, images[held_out], digits[held_out]))
        loss = balancer(losses_of(network, images[batch], digits[batch]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if "after" in balancer.reads:  # only FAMO does
            with torch.no_grad():
                balancer.observe_after(losses_of(network, images[batch], digits[batch]))
    accuracy = (network(images[test])["digit"].argmax(1) == digits[test]).float().mean().item()
    weights = ", ".join(f"{task} {weight:.2g}" for task, weight in balancer.weights.items())
    print(f"{policy}: {accuracy:.1%} of the test digits are right; last weights: {weights}")
    return accuracy, balancer.weights


if __name__ == "__main__":
    main(*sys.argv[1:2])

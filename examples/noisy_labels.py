"""Sample weights where 60 % of the training labels are wrong, by a small clean set: ``python examples/noisy_labels.py slgrad``.

``SampleBalancer`` weights each sample of each batch. ``slgrad`` asks how well its gradient agrees with that of the main task on a
held-out batch, whose labels are right; one forward-mode pass over your module measures that for the whole batch.
"""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

import mtl_gym

TASKS = ("digit", "even")  # the first one is the main task


def losses_of(network, batch):
    """Losses of single samples, (B,) by task."""
    images, digits = batch
    outputs = network(images)
    even = functional.binary_cross_entropy_with_logits(outputs[:, 10], (digits % 2 == 0).float(), reduction="none")
    return {"digit": functional.cross_entropy(outputs[:, :10], digits, reduction="none"), "even": even}


def main(policy="slgrad", steps=500):
    """Trains, and returns the accuracy on test images, and the mean weights of right and of wrong labels in the last half."""
    torch.manual_seed(0)
    images, digits = (torch.as_tensor(own) for own in load_digits(return_X_y=True))
    images = images.float() / 16
    train, clean, test = torch.randperm(len(images)).split([1200, 200, 397])
    wrong = torch.zeros(len(images), dtype=torch.bool)
    wrong[train[:720]] = True
    labels = torch.where(wrong, (digits + torch.randint(1, 10, digits.shape)) % 10, digits)

    network = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 11))
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    balancer = mtl_gym.SampleBalancer(policy, TASKS, train_steps=steps, steps_per_epoch=1200 // 64, lr=optimizer)
    weights = {"right": [], "wrong": []}
    for step in range(steps):
        chosen = train[torch.randint(len(train), (64,))]
        batch = images[chosen], labels[chosen]
        if "alignment" in balancer.reads:
            balancer.observe_alignment(network, losses_of, batch, (images[clean], labels[clean]))
        loss = balancer(losses_of(network, batch), ids=chosen)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step >= steps // 2:
            weights["right"].append(balancer.weights[~wrong[chosen], 0].mean().item())
            weights["wrong"].append(balancer.weights[wrong[chosen], 0].mean().item())
    accuracy = (network(images[test])[:, :10].argmax(1) == digits[test]).float().mean().item()
    means = {name: sum(own) / len(own) for name, own in weights.items()}
    print(f"{policy}: test accuracy {accuracy:.1%}; mean weight {means['right']:.2f} if right, {means['wrong']:.2f} if wrong")
    return accuracy, means


if __name__ == "__main__":
    main(*sys.argv[1:2])

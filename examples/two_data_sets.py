"""Two data sets of different tasks, one trunk: batches alternate, and each has the labels of its own task alone.

``python examples/two_data_sets.py``. A loss that is ``None`` is left out of the sum, and the policy sees the task's last known
loss. Both data sets are of images of digits: scikit-learn's, for the digit, and the same turned by 90 degrees, for whether it is
even, so neither image has both labels.
"""

import itertools

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import mtl_gym


def data_sets():
    """Loaders of two training sets of different images by task, and test images and digits."""
    images, digits = (torch.as_tensor(own) for own in load_digits(return_X_y=True))
    images = images.float().unflatten(1, (8, 8)) / 16
    first, second, test = torch.randperm(len(images)).split([1000, 397, 400])
    turned = images[second].rot90(dims=(1, 2))
    sets = {
        "digit": TensorDataset(images[first].flatten(1), digits[first]),
        "even": TensorDataset(turned.flatten(1), (digits[second] % 2 == 0).float()),
    }
    loaders = {task: DataLoader(own, batch_size=50, shuffle=True) for task, own in sets.items()}
    return loaders, (images[test], digits[test])


def main(policy="uw", steps=400):
    """Trains, and returns the accuracy of both tasks on test images and the last weights."""
    torch.manual_seed(0)
    loaders, (images, digits) = data_sets()
    trunk = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
    heads = nn.ModuleDict({"digit": nn.Linear(64, 10), "even": nn.Linear(64, 1)})
    criteria = {"digit": functional.cross_entropy, "even": lambda out, y: functional.binary_cross_entropy_with_logits(out[:, 0], y)}
    optimizer = torch.optim.Adam([*trunk.parameters(), *heads.parameters()], lr=2e-3)
    balancer = mtl_gym.LossBalancer(policy, [*heads], lr=optimizer)

    endless = {task: itertools.chain.from_iterable(itertools.repeat(loader)) for task, loader in loaders.items()}
    for task in itertools.islice(itertools.cycle(heads), steps):
        inputs, labels = next(endless[task])
        losses = dict.fromkeys(heads) | {task: criteria[task](heads[task](trunk(inputs)), labels)}  # None for the other task
        loss = balancer(losses)
        optimizer.zero_grad()  # sets the gradients of the other head to None, so that Adam leaves it as it is
        loss.backward()
        optimizer.step()

    right = heads["digit"](trunk(images.flatten(1))).argmax(1) == digits
    even = heads["even"](trunk(images.rot90(dims=(1, 2)).flatten(1)))[:, 0] > 0
    accuracy = {"digit": right.float().mean().item(), "even": (even == (digits % 2 == 0)).float().mean().item()}
    weights = ", ".join(f"{task} {weight:.2g}" for task, weight in balancer.weights.items())
    print(f"{policy}: test accuracy {accuracy['digit']:.1%} (digit) and {accuracy['even']:.1%} (even); last weights: {weights}")
    return accuracy, balancer.weights


if __name__ == "__main__":
    main()

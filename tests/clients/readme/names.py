"""What the README's lines of Python stand in: somebody's network, loop and data. They run below these."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

torch.manual_seed(0)
rng = np.random.default_rng(0)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk, self.head = nn.Linear(6, 8), nn.Linear(8, 2)

    def forward(self, images):
        return self.head(self.trunk(images).relu())


def seg_loss(outputs, labels):
    return functional.binary_cross_entropy_with_logits(outputs[:, 0], labels[:, 0])


def depth_loss(outputs, labels):
    return functional.mse_loss(outputs[:, 1], labels[:, 1])


model = Model()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
loader = [(torch.randn(8, 6), torch.rand(8, 2)) for _ in range(6)]
x = rng.normal(size=(400, 5))
y1, y2 = x.sum(1), np.array(["cat", "dog", "owl"])[x.argmax(1) // 2]
new_x = rng.normal(size=(2, 5))

"""What a balancer costs in a loop of somebody's own, side by side in one run: ``python -m benchmarks.doors_speed``.

``losses``: milliseconds that a step takes beyond the same step with a plain sum of the losses, for four tasks, and as a fraction of
a step of 50 ms; beside it, torchjd's scalarizers. ``gradients``: the time of a step with a method on gradients over that of K
hand-written backward passes that leave the same ``.grad``, beside torchjd's and gradnorm-pytorch's. (The latter is no dependency of
ours: it is measured where it is installed. It compares gradients of one layer, and sends one backward pass through the others.)
``modules``: training steps of people's own modules, relative to native networks and to a loop by hand
(``benchmarks/module_speed.py``). One thread. Medians over interleaved rounds with quartiles. Writes
``benchmarks/results/doors_speed.json``.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import mtl_gym
from benchmarks.measuring import Run, Work, command_line, ratio, side_by_side, threads
from benchmarks.module_speed import modules

TASKS = ("a", "b", "c", "d")
OF_LOSSES = ("ew", "si", "uw", "dwa", "igb", "famo", "stch", "ppo")
OF_GRADIENTS = ("pcgrad", "cagrad", "mgda", "upgrad", "nash-mtl", "moco", "gradnorm")
SCALARIZERS = ("Mean", "GeometricMean", "UW")
AGGREGATORS = ("PCGrad", "UPGrad", "MGDA")
ROUNDS = 40
LONG_STEP = 50.0
"""Milliseconds of a step of training that a cost is a fraction of."""


class Network(nn.Module):
    """A trunk of two layers and four heads."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.heads = nn.ModuleDict({task: nn.Linear(width, 1) for task in TASKS})

    def losses(self, inputs: Tensor) -> dict[str, Tensor]:
        """Four mean losses."""
        self.features = self.trunk(inputs)
        return {task: head(self.features).square().mean() for task, head in self.heads.items()}


def balanced(policy: str) -> Work:
    """A balancer's call on four losses with their graph, without any network."""
    told: dict[str, Any] = {"train_steps": 10**6, "steps_per_epoch": 100, "lr": 0.1}
    balancer, point = mtl_gym.LossBalancer(policy, TASKS, **told), torch.ones(4, requires_grad=True)
    losses = dict(zip(TASKS, (point * point).unbind(0), strict=True))

    def work() -> None:
        if "holdout" in balancer.reads and balancer.decision_due:
            balancer.observe_holdout(losses)
        if "after" in balancer.reads and balancer.step:
            balancer.observe_after(losses)
        balancer(losses)

    return work


def decisions() -> Work:
    """The calls in which the agent decides, held-out losses included."""
    balancer = mtl_gym.LossBalancer("ppo", TASKS, train_steps=10**6, steps_per_epoch=100)
    point = torch.ones(4, requires_grad=True)
    losses = dict(zip(TASKS, (point * point).unbind(0), strict=True))

    def work() -> None:
        balancer._decisions.loop.step = 20 * round(balancer.step / 20 + 0.5)  # the next decision
        balancer.observe_holdout(losses)
        balancer(losses)

    return work


def plain() -> Work:
    """The sum of four losses."""
    point = torch.ones(4, requires_grad=True)
    losses = dict(zip(TASKS, (point * point).unbind(0), strict=True))

    def work() -> None:
        total: Any = sum(losses.values())
        del total

    return work


def scalarizer(name: str) -> Work:
    """One of torchjd's scalarizers on four losses."""
    from torchjd import scalarization

    made = getattr(scalarization, name)(*((len(TASKS),) if name == "UW" else ()))
    point = torch.ones(4, requires_grad=True)
    losses = (point * point).unbind(0)

    def work() -> None:
        made(torch.stack(losses))

    return work


def step(network: Network, inputs: Tensor, descend: Callable[[dict[str, Tensor]], None]) -> Work:
    """A forward pass and what leaves the gradients."""

    def work() -> None:
        network.zero_grad()
        descend(network.losses(inputs))

    return work


def by_hand(network: Network) -> Callable[[dict[str, Tensor]], None]:
    """K backward passes, the mean of the shared gradients, and each head's own."""
    shared = [*network.trunk.parameters()]
    heads = [*network.heads.parameters()]

    def descend(losses: dict[str, Tensor]) -> None:
        table, last = [], [*losses][-1]
        for task, loss in losses.items():
            found = torch.autograd.grad(loss, [*shared, *heads], retain_graph=task != last, allow_unused=True)
            table.append(torch.cat([part.flatten() for part in found[: len(shared)] if part is not None]))
            for head, part in zip(heads, found[len(shared) :], strict=True):
                if part is not None:
                    head.grad = part
        mean = torch.stack(table).mean(0)
        for own, part in zip(shared, mean.split([own.numel() for own in shared]), strict=True):
            own.grad = part.view_as(own)

    return descend


def with_balancer(network: Network, policy: str) -> Callable[[dict[str, Tensor]], None]:
    """A balancer on gradients."""
    balancer, shared = mtl_gym.LossBalancer(policy, TASKS), [*network.trunk.parameters()]
    return lambda losses: balancer.backward(losses, shared=shared)


def with_torchjd(network: Network, name: str) -> Callable[[dict[str, Tensor]], None]:
    """One of torchjd's aggregators over the same trunk."""
    from torchjd import aggregation, autojac

    aggregator, shared = getattr(aggregation, name)(), [*network.trunk.parameters()]

    def descend(losses: dict[str, Tensor]) -> None:
        autojac.mtl_backward([*losses.values()], features=network.features)
        autojac.jac_to_grad(shared, aggregator)

    return descend


def with_gradnorm_pytorch(network: Network) -> Callable[[dict[str, Tensor]], None]:
    """The GradNorm of gradnorm-pytorch, on the trunk's last layer."""
    from gradnorm_pytorch import GradNormLossWeighter

    last = network.trunk[2].weight
    weighter = GradNormLossWeighter(num_losses=len(TASKS), loss_names=TASKS, restoring_force_alpha=1.5, grad_norm_parameters=last)
    return weighter.backward


def of_losses(rounds: int) -> dict[str, Any]:
    """Milliseconds a step beyond a plain sum."""
    works = {policy: balanced(policy) for policy in OF_LOSSES} | {"a decision of ppo": decisions(), "sum": plain()}
    works |= {f"torchjd {name}": scalarizer(name) for name in SCALARIZERS}
    times = side_by_side(works, rounds=rounds, seconds=0.02)
    base, rows = times.pop("sum"), {}
    for name, own in times.items():
        low, middle, high = np.quantile((own - base) * 1e3, [0.25, 0.5, 0.75])
        rows[name] = {"ms": round(middle, 4), "quartiles": [round(low, 4), round(high, 4)]}
        rows[name]["percent of 50 ms"] = round(100 * middle / LONG_STEP, 2)
    return rows


def of_gradients(rounds: int, width: int) -> dict[str, Any]:
    """Times of a step over those of hand-written backward passes."""
    network, inputs = Network(width), torch.randn(256, 64)
    works = {"by hand": step(network, inputs, by_hand(network))}
    works |= {policy: step(network, inputs, with_balancer(network, policy)) for policy in OF_GRADIENTS}
    works |= {f"torchjd {name}": step(network, inputs, with_torchjd(network, name)) for name in AGGREGATORS}
    if importlib.util.find_spec("gradnorm_pytorch"):
        works["gradnorm-pytorch"] = step(network, inputs, with_gradnorm_pytorch(network))
    times = side_by_side(works, rounds=rounds, seconds=0.05)
    base = times.pop("by hand")
    milliseconds = round(float(np.median(base)) * 1e3, 2)
    return {"by hand, ms": milliseconds} | {name: ratio(own, base) for name, own in times.items()}


def main(words: Sequence[str] | None = None) -> None:
    """Measures and prints both."""
    run: Run = command_line(words)
    studies: dict[str, Callable[[], Any]] = {
        "losses": lambda: of_losses(run.size(ROUNDS, 1)),
        "gradients": lambda: of_gradients(run.size(ROUNDS, 1), 128),
        "gradients, wide": lambda: of_gradients(run.size(ROUNDS, 1), 512),
        "modules": lambda: modules(run),
    }
    results = run.known()
    with threads(1):
        for name in run.chosen([*studies], smoke=4):
            results[name] = studies[name]()
            run.write(results)
            print(name, json.dumps(results[name], indent=1), flush=True)


if __name__ == "__main__":
    main()

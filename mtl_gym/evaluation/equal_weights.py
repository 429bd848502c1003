"""An environment that is played with equal weights, counted in training steps, and the loop by hand that takes the same steps."""

from __future__ import annotations

import itertools
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Discrete
from torch.utils.flop_counter import FlopCounterMode

from mtl_gym.environments import specification
from mtl_gym.envs.spec import EnvironmentSpec
from mtl_gym.evaluation.handwritten import missing, trainings
from mtl_gym.evaluation.timing import Work
from mtl_gym.plugins import resolve
from mtl_gym.problems.base import Problem
from mtl_gym.training.probes import GAINS, SCORE
from mtl_gym.training.trainer import Trainer

DECISIONS = 20
"""Decisions of a training."""
_fresh = itertools.count(2**40)
"""Ids of instances that no table holds, and that have not been trained in this process."""


class Played:
    """An environment that is played with equal weights, for as long as it is measured.

    Attributes:
        loop: What tells the loops by hand apart: the network's home and the problem.
        no_loop: Why there is no loop by hand; ``None`` if there is one.
        flops: Operations of a training step of one network.
    """

    def __init__(self, id: str, num_envs: int, problem: Problem | None, device: str) -> None:
        self.spec = spec = specification(id)
        given: dict[str, Any] = {} if problem is None else {"problem": problem}
        chosen = _short(spec) | given | {"device": device, "autoreset_mode": "Disabled"}
        made: Any = gymnasium.make_vec(id, num_envs=num_envs, vectorization_mode="vector_entry_point", **chosen)
        self.envs = made.unwrapped
        self.id, self.num_envs, self.problem = id, num_envs, self.envs.arguments.problem
        self.loop = (spec.by_hand, self.problem.name)
        self.no_loop = "its environment names none" if spec.by_hand is None else missing(self.problem)
        self._steps, self._passes = 0, np.zeros(2)
        self.flops = step_flops(self.envs)

    def work(self) -> int:
        """Takes decisions until networks have been trained; returns the number of their training steps."""
        for _ in range(2 * self.envs.decision.length):  # what is trained as a whole is trained in one of an episode's decisions
            steps, passes = self._decision()
            self._steps, self._passes = self._steps + steps, self._passes + passes
            if steps:
                return steps
        raise ValueError(f"no decision of {self.id} trains anything: its `trainings.ledger.step` stays the same")

    def _decision(self) -> tuple[int, Any]:
        """Takes one decision, the first of new episodes if they have ended; returns the steps and passes (2,) that are counted."""
        ledger = self.envs.decision.trainings.ledger
        if self.envs.finished.all():
            self.envs.reset(options={"instance": list(itertools.islice(_fresh, self.num_envs))})
            steps, passes = 0, np.zeros(2)
        else:
            steps, passes = int(ledger.step.sum()), _passes(ledger)
        self.envs.step(_equal(self.envs))
        return int(ledger.step.sum()) - steps, _passes(ledger) - passes

    def by_hand(self, fused: bool) -> Work:
        """A step of the loop by hand."""
        make = resolve(self.id, str(self.spec.by_hand))
        loop = trainings(make, self.problem, self.envs.arguments.recipe, fused=fused)

        def work() -> int:
            next(loop)
            return 1

        return work

    @property
    def passes(self) -> tuple[float, float]:
        """Forward and backward passes per step so far, in training batches."""
        forward, backward = (self._passes / max(self._steps, 1)).tolist()
        return forward, backward


def step_flops(envs: Any) -> float:
    """Operations of the forward and backward pass of one network on a batch, as torch counts them: products and convolutions."""
    given, trainer = envs.arguments, envs.decision.trainings
    if not isinstance(trainer, Trainer):
        trainer = Trainer(given.problem, given.recipe, 1)
    rows = range(trainer.num_replicas)
    trainer.begin(rows, rows)
    parameters = [*trainer.replicas.parameters.values()]
    with FlopCounterMode(display=False) as counter:
        outputs = trainer.replicas.outputs(trainer.losses.batch().inputs)
        torch.autograd.grad(outputs.sum(), parameters, allow_unused=True)
    return counter.get_total_flops() / trainer.num_replicas


def _short(spec: EnvironmentSpec) -> dict[str, Any]:
    """Arguments for a short training, without a reward that would need references."""
    needy = not {GAINS, SCORE}.isdisjoint(spec.rewards[spec.reward].needs)
    chosen: dict[str, Any] = {"reward": "none"} if needy and "none" in spec.rewards else {}
    return chosen if "train_steps" in spec.excluded else chosen | {"train_steps": DECISIONS * spec.steps_per_action}


def _equal(envs: Any) -> Any:
    """Actions of 0, or the first valid ones."""
    space = envs.single_action_space
    if isinstance(space, Discrete):
        return envs.action_masks().argmax(1) if envs.decision.masked else np.full(envs.num_envs, space.start)
    return np.clip(np.zeros(envs.action_space.shape, envs.action_space.dtype), envs.action_space.low, envs.action_space.high)


def _passes(ledger: Any) -> Any:
    """Forward and backward passes (2,) of all rows."""
    return ledger.passes.sum(0).cpu().double().numpy()

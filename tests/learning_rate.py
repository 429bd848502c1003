"""An environment as another package would ship it, in one file: each decision multiplies every training's own learning rate.

Its package names it in an entry point::

    [project.entry-points."mtl_gym.environments"]
    "acme/LearningRate-v0" = "learning_rate:LearningRateEnv"
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box
from matplotlib.figure import Figure
from torch import Tensor

import mtl_gym


class LearningRates(mtl_gym.TrainingDecision):
    """Factors of the learning rates, for the next optimiser steps; all tasks count alike."""

    def __init__(self, trainer: mtl_gym.Trainer, steps: int, largest_factor: float) -> None:
        super().__init__(trainer, steps)
        self.space = Box(-1, 1, (1,), np.float32)
        self.largest_factor = largest_factor
        self.factors = trainer.state.add("LearningRates.factors", dtype=torch.float64)

    def begin(self, rows: Any) -> None:
        """Nothing has been multiplied."""
        super().begin(rows)
        self.factors[list(rows)] = 1

    def probes(self) -> list[mtl_gym.Probe]:
        """The product of the factors so far; then what any training shows."""
        factors = mtl_gym.Probe(("factors",), lambda names: mtl_gym.Reading({"factors": self.factors.clone()}))
        return [factors, *super().probes()]

    def apply(self, actions: Tensor, active: Tensor, view: mtl_gym.View) -> None:
        """Multiplies the rates by ``largest_factor ** action`` and trains."""
        factors = torch.where(active, self.largest_factor ** actions[:, 0].double(), 1.0)
        self.factors *= factors
        self.trainer.replicas.learning_rates.mul_(factors)
        for _ in range(self.steps):
            self.trainer.update(torch.ones_like(self.last_weights), active)

    def infos(self, view: mtl_gym.View) -> dict[str, Tensor]:
        """The learning rate of the next step."""
        return {"rate": self.trainer.replicas.learning_rates}

    def outcome(self, row: int) -> dict[str, Any]:
        """The factor of the last learning rate to the first."""
        return {"factor": float(self.factors[row])}


def _decide(common: Any, num_envs: int, *, largest_factor: float = 2.0) -> LearningRates:
    factor = mtl_gym.number("largest_factor", largest_factor, low=1.0, ends="(]")
    needed = mtl_gym.check_memory(common.problem, common.recipe, num_envs)
    decision = LearningRates(mtl_gym.Trainer(common.problem, common.recipe, num_envs), common.steps_per_action, factor)
    decision.estimated_bytes = needed
    return decision


def last_factors(results: Any, summary: Any) -> Figure:
    """The factors of all instances, a row of dots for each policy."""
    names = list(summary["policies"])
    figure = Figure(figsize=(6, 1 + 0.4 * len(names)), layout="constrained")
    axes = figure.subplots()
    for place, name in enumerate(names):
        own = [result.outcome["factor"] for result in results if result.policy == name]
        axes.plot(own, [place] * len(own), "o")
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("last learning rate over the first")
    return figure


class LearningRateVectorEnv(mtl_gym.MTLVectorEnv):
    """N trainings whose learning rates are decided; the manual is :class:`LearningRateEnv`'s."""

    specification = mtl_gym.EnvironmentSpec(
        "acme/LearningRate-v0",
        _decide,
        observations=mtl_gym.OBSERVATIONS
        | {
            "log_factor": mtl_gym.Observation(
                "one", -50, 50, lambda v: v["factors"].log(), "log of the factor so far", ("factors",)
            )
        },
        observe=("log_loss_mean", "slope", "meta_log_loss", "meta_slope", "log_factor", "progress"),
        columns=(mtl_gym.Column("factor", "last rate over the first"),),
        figures=(mtl_gym.PageFigure("learning_rate:last_factors", "Learning rates", "The last learning rate over the first."),),
        without=("weights", "rules"),
    )


class LearningRateEnv(mtl_gym.MTLEnv):
    """By how much is the learning rate multiplied?

    ## Description
    A network is trained on the sum of the tasks' losses; each decision multiplies its learning rate by ``largest_factor ** a``.

    ## Action Space
    ``Box(-1, 1, (1,), float32)``: the logarithm of the factor, to the base ``largest_factor``.

    ## Observation Space
    {observations}

    The default is {default}.

    ## Rewards
    {rewards}

    ## Starting State
    {starting_state}

    ## Episode End
    {episode_end}

    ## Information
    | key | what |
    |---|---|
    {common_information}
    | `rate` | learning rate of the next step |

    {information_note}

    ## Arguments
    | argument | default | what |
    |---|---|---|
    | `largest_factor` | `2.0` | the factor of an action of 1 |
    {common_arguments}

    {vector_form}
    """

    vector_form = LearningRateVectorEnv


class Warmup:
    """A policy of this environment: raises the rate at first, and lowers it later."""

    requires = mtl_gym.Requirements(env="acme/LearningRate-v0", observe=("progress",))

    def predict(self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False) -> Any:
        """Up in the first half, down in the second."""
        return np.where(observation["progress"] < 0.5, 0.5, -0.5).astype(np.float32), state


class Constant(Warmup):
    """Leaves the rate as it is."""

    def predict(self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False) -> Any:
        """Zeros."""
        return np.zeros_like(observation["progress"]), state


class Random(Warmup):
    """A policy with a memory: any action, from a generator for each training."""

    def initial_state(self, seeds: Any, num_tasks: int) -> Any:
        """The generators."""
        return [np.random.default_rng(seed) for seed in seeds]

    def predict(self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False) -> Any:
        """A uniform draw."""
        return np.stack([rng.uniform(-1, 1, 1) for rng in state]).astype(np.float32), state


def _lowest(observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False) -> Any:
    return np.full_like(observation["progress"], -1), state


def lowest() -> Any:
    """A policy made of a function: always the lowest action."""
    return SimpleNamespace(predict=_lowest, requires=Warmup.requires)


POLICIES = {
    "warm-up": "learning_rate:Warmup",
    "flat": "learning_rate:Constant",
    "random-rates": "learning_rate:Random",
    "lowest": "learning_rate:lowest",
}

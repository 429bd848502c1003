"""Why the pretrained agent does not significantly beat equal weights on ``stereo``, and three remedies. Two hours on two cores.

Its scores vary by a dozen points from instance to instance, since one scene of 240 steps teaches a network little (its depth is
hardly better than the mean depth). The study asks whether the loss comes from the agent or from the rule that it starts from,
``init``; whether the agent does better with less freedom (``weight_range`` 10 instead of 1000) or without the rule
(``softmax``); and whether the rule does better with half of its effect (``1 / sqrt(L(0))``). Writes
``benchmarks/results/stereo.json``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import mtl_gym
from benchmarks.heldout import KEPT, paired
from benchmarks.measuring import Run, command_line
from mtl_gym.baselines.base import Array, Observation, State
from mtl_gym.baselines.init import Init
from mtl_gym.policies.grammar import make_policy
from mtl_gym.policies.protocol import Policy

ROUNDS = {300: ("ew", "ppo"), 100: ("ew", "ppo", "init", "half of init", "ppo, weight_range 10", "ppo from equal weights")}
"""The policies, by the number of instances they play."""


class HalfInit(Init):
    """``w_k = 1 / sqrt(L_k(0))``, halfway from equal weights to initial-loss normalisation."""

    def act(self, obs: Observation, state: State) -> tuple[Array, State]:
        """The square roots of the rule's weights."""
        weights, state = super().act(obs, state)
        return weights**0.5, state


class Played:
    """The pretrained agent with environment arguments that differ from its training."""

    def __init__(self, action: str, **others: Any) -> None:
        self._agent: Any = make_policy("ppo")
        given = self._agent.requires
        self.requires = replace(given, action=action, env_kwargs={**given.env_kwargs, **others})
        self.spec = {**self._agent.spec, "action": action, **others}
        self.predict = self._agent.predict


POLICIES: dict[str, str | Policy] = {
    "ew": "ew",
    "ppo": "ppo",
    "init": "init",
    "half of init": HalfInit(),
    "ppo, weight_range 10": Played("residual", weight_range=10.0),
    "ppo from equal weights": Played("softmax"),
}


def main(words: Sequence[str] | None = None) -> None:
    """Plays every policy; stores its difference to equal weights and its metrics on the test split.

    In smoke mode, the problem is one whose networks are small.
    """
    run: Run = command_line(words)
    known: dict[str, Any] = {}
    for instances, names in ({2: ROUNDS[100]} if run.smoke else ROUNDS).items():
        arguments: dict[str, Any] = {"problem": "stereo", "distribution": "varied", "num_envs": 32, "instances": instances}
        arguments |= {"problem": "census", "train_steps": 40} if run.smoke else {}
        kept = None if run.smoke else KEPT
        frame = mtl_gym.compare({name: POLICIES[name] for name in names}, out=kept, num_tasks=3, **arguments)
        scores = frame.pivot_table(index="instance", columns="policy", values="delta_m")
        metrics = frame.pivot_table(index="policy", columns="task", values="value")
        known[str(instances)] = {
            name: {
                "delta_m": round(float(scores[name].mean()), 2),
                "deviation": round(float(scores[name].std()), 2),
                "minus ew": paired(scores[name] - scores["ew"]),
                "median minus ew": round(float((scores[name] - scores["ew"]).median()), 2),
                "test": {task: round(float(metrics.loc[name, task]), 3) for task in metrics},
            }
            for name in names
        }
        run.write(known)
        print(instances, json.dumps(known[str(instances)]), flush=True)


if __name__ == "__main__":
    main()

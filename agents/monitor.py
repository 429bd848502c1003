"""Watches a training: evaluates the agent on held-out instances, draws the curves, and keeps the best and the last one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import trim_mean
from stable_baselines3.common.callbacks import BaseCallback
from torch.utils.tensorboard import SummaryWriter

import mtl_gym
from mtl_gym.agents.agent import REQUIRED, agent_of, load
from mtl_gym.agents.checkpoint import check_finite, write_checkpoint
from mtl_gym.agents.files import SUFFIX
from mtl_gym.policies import Policy
from mtl_gym.problems import LAYER_MERGING, TASK_GROUPING
from mtl_gym.problems.instances import EVALUATION_IDS

if TYPE_CHECKING:
    from mtl_gym.agents.training import Settings

HELD_OUT = EVALUATION_IDS[1] - 10_000
"""First id of the instances on which agents are evaluated while they train, far from those of comparisons."""
OF_POLICIES = (*REQUIRED, "reward")
REWARD_BY_ENV = {LAYER_MERGING: "gain_change", TASK_GROUPING: "gain_over_joint"}
"""The reward whose return chooses the best agent, by environment; of the others ``terminal_delta_m``."""


class Monitor(BaseCallback):
    """SB3's callback of :func:`mtl_gym.agents.train`.

    Args:
        settings: The training's.
        folder: Where everything is written.
        scores: Of the evaluations so far; each has ``steps``, ``reward`` (mean return: delta_m on *reward* in percent, or of
            ``REWARD_BY_ENV``) and ``delta_m`` (interquartile mean on the *test* split, percent).
        on_progress: Is told of the progress.
    """

    def __init__(
        self,
        settings: Settings,
        folder: Path,
        scores: list[dict[str, float]],
        on_progress: Callable[[int, Mapping[str, float]], None] | None,
    ) -> None:
        super().__init__()
        self.settings, self.folder, self.scores = settings, folder, list(scores)
        self._on_progress = on_progress or (lambda steps, known: None)
        # The file is asked, not the scores: a kill may have come between the best agent and the checkpoint that knows its score.
        best = folder / f"best{SUFFIX}"
        self._best = load(best).about["scores"][-1]["reward"] if scores and best.is_file() else -np.inf
        self._writers: dict[str, SummaryWriter] = {}
        self._references: dict[str, dict[str, float]] = {}

    def _on_training_start(self) -> None:
        self._references = {name: self._score(name) for name in self.settings.references}
        if not self.scores:
            self._evaluate()

    def _on_rollout_start(self) -> None:
        if self.num_timesteps >= len(self.scores) * self.settings.time_steps / self.settings.evaluations:
            self._evaluate()

    def _on_step(self) -> bool:
        ended = [info for info in self.locals["infos"] if "episode" in info]
        if ended:
            mean = float(np.mean([info["episode"]["r"] for info in ended]))
            losses = {name: float(value) for name, value in self.logger.name_to_value.items() if name.startswith("train/")}
            self._draw("agent", {"rollout/return": mean, **_last_shares(ended), **losses})
            last = self.scores[-1]
            self._on_progress(self.num_timesteps, {"return": mean, "score": last["reward"], "delta_m": last["delta_m"]})
        return True

    def finish(self) -> None:
        """Evaluates and keeps the agent at the end of its training."""
        if self.scores[-1]["steps"] < self.num_timesteps:
            self._evaluate()

    def close(self) -> None:
        """Closes the event files."""
        for writer in self._writers.values():
            writer.close()

    def _evaluate(self) -> None:
        """Measures the agent, keeps it, and draws it beside the references."""
        check_finite(self.model, self.folder)
        agent = agent_of(self.model, self.settings)
        score = {"steps": float(self.num_timesteps), **self._score(agent)}
        self.scores.append(score)
        agent.about["scores"] = list(self.scores)
        agent.save(self.folder / "last")
        if score["reward"] > self._best:
            self._best = score["reward"]
            agent.save(self.folder / "best")
        write_checkpoint(self.folder, asdict(self.settings), self.model, self.scores)
        for name, own in {"agent": score, **self._references}.items():
            self._draw(name, {"heldout/delta_m": own["delta_m"], "heldout/return": own["reward"]})

    def _score(self, policy: str | Policy) -> dict[str, float]:
        """Scores of a policy on the held-out instances: mean on *reward*, which chooses; interquartile mean on *test*."""
        arguments = {name: value for name, value in self.settings.arguments.items() if name not in OF_POLICIES}
        ids = list(range(HELD_OUT, HELD_OUT + self.settings.instances))
        frame = mtl_gym.evaluate(
            policy,
            self.settings.env,
            instances=ids,
            num_envs=self.settings.num_envs,
            reward=REWARD_BY_ENV.get(self.settings.env, "terminal_delta_m"),
            **arguments,
        )
        runs = frame.drop_duplicates("instance")
        return {"reward": float(runs["return"].mean()), "delta_m": float(trim_mean(runs["delta_m"], 0.25))}

    def _draw(self, run: str, scalars: Mapping[str, float]) -> None:
        if run not in self._writers:
            self._writers[run] = SummaryWriter(str(self.folder / "events" / run), purge_step=self.num_timesteps)
        for name, value in scalars.items():
            self._writers[run].add_scalar(name, value, self.num_timesteps)


def _last_shares(ended: list[dict[str, Any]]) -> dict[str, float]:
    """Mean share of each task at the last decision of the episodes, if agents observe their last weights."""
    shares: dict[str, list[float]] = {}
    for info in ended:
        tasks = dict.fromkeys(name.rsplit("/", 1)[0] for name in info.get("test", ()))
        for task, share in zip(tasks, info["terminal_observation"].get("last_weights", ()), strict=False):
            shares.setdefault(f"weights/{task}", []).append(float(share))
    return {name: float(np.mean(values)) for name, values in shares.items()}
